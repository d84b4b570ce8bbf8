import os
import pty
import runpy
import socket
import threading
import time
import tty
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from s4g.core.errors import InputError
from s4g.runtime import mavlink_stream
from s4g.runtime.mavlink_stream import MavlinkStream
from s4g.runtime.telemetry_link import Address

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_mavlink.py"))))
m = toy.common
NAME = "--to mavlink+udpin://:0"
PATIENCE_S = 20.0
BEAT = m.MAVLink_heartbeat_message(18, 8, 0, 0, 4, 3)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


class Ear:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.damaged = self.calls = self.reopenings = 0

    def take(self, heard: Sequence[Any], damaged: int, now_s: float) -> None:
        self.kinds += [message.get_type() for message in heard]
        self.damaged += damaged
        self.calls += 1

    def reopened(self) -> None:
        self.reopenings += 1


def opened(kind: str = "udpin", host: str = "127.0.0.1", port: int = 0) -> MavlinkStream:
    return MavlinkStream(NAME, Address("url", kind, host, port, "--to"), m)


def test_all_who_listen_hear_the_same() -> None:
    stream, first, second = opened(), Ear(), Ear()
    stream.share(second)
    stream.start(first)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as pilot:
        pilot.sendto(toy.Autopilot().heartbeat(), ("127.0.0.1", stream.link.port))
        until(lambda: bool(first.kinds and second.kinds))
    stream.close()
    assert first.kinds == second.kinds == ["HEARTBEAT"]


def test_those_who_listen_are_asked_in_silence_too() -> None:
    stream, ear = opened(), Ear()
    stream.start(ear)
    until(lambda: ear.calls >= 2)
    stream.close()
    assert ear.kinds == []


def test_each_sender_counts_its_own_messages_whatever_thread_it_sends_from() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.settimeout(PATIENCE_S)
        stream = opened("udpout", port=other.getsockname()[1])
        senders = [
            threading.Thread(target=lambda: [stream.post(BEAT, 1, 197) for _ in range(20)])
            for _ in range(2)
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        stream.post(BEAT, 1, 198)
        got = [m.MAVLink(None).decode(bytearray(other.recv(99))) for _ in range(41)]
        stream.close()
    assert [g.get_header().seq for g in got] == [*range(40), 0]
    assert [g.get_srcComponent() for g in got] == [197] * 40 + [198]


def test_one_that_was_never_started_is_closed_all_the_same() -> None:
    stream = opened()
    place = ("127.0.0.1", stream.link.port)
    stream.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(place)


def test_a_serial_port_that_vanishes_is_opened_again_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mavlink_stream, "RETRY_S", 0.01)
    device, ear = tmp_path / "ttyUSB0", Ear()
    ours, theirs = plug(device)
    stream = opened("serial", str(device), 57600)
    stream.start(ear)
    os.write(ours, toy.Autopilot().heartbeat())
    until(lambda: ear.kinds == ["HEARTBEAT"])
    device.unlink()
    os.close(theirs)
    os.close(ours)
    with pytest.raises(OSError):
        while True:
            stream.post(BEAT, 1, 197)
    ours, theirs = plug(device)
    until(lambda: ear.reopenings == 1)
    os.write(ours, toy.Autopilot().heartbeat())
    until(lambda: ear.kinds == ["HEARTBEAT"] * 2)
    stream.close()
    for end in (ours, theirs):
        os.close(end)


def plug(device: Path) -> tuple[int, int]:
    """Make a pseudo terminal that goes by a device's name."""
    ours, theirs = pty.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)
    device.symlink_to(os.ttyname(theirs))
    return ours, theirs


def test_an_address_that_cannot_be_reached_is_refused_by_its_option() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(InputError) as error:
        opened("tcp", port=port)
    assert str(error.value) == (
        "--to url: cannot be opened (Connection refused); check host and port, and that the other "
        "side listens"
    )
