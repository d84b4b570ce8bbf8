"""Serial ports, played by pseudo terminals, and the pseudo terminal that stands in for one."""

from __future__ import annotations

import os
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from s4g.core.errors import InputError
from s4g.runtime import transport
from s4g.runtime.sink import parse_sink_url
from s4g.runtime.transport import open_carrier
from s4g.runtime.transport_serial import Pty, SerialPort, is_terminal, open_serial

pytest.importorskip("serial", reason="pyserial is not installed (the telemetry extra)")
WAIT_S = 20.0


def until(done: Callable[[], bool]) -> None:
    end_s = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < end_s, "it did not come about"
        time.sleep(0.01)


class Device:
    """A serial adapter under a lasting name, as udev's by-id links give it."""

    def __init__(self, link: Path) -> None:
        self.link = link
        self.end = -1
        self.plug_in()

    def plug_in(self) -> None:
        self.end, other = os.openpty()
        tty.setraw(other)
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(os.ttyname(other))
        os.close(other)

    def unplug(self) -> None:
        if self.end >= 0:
            os.close(self.end)
            self.end = -1
        self.link.unlink(missing_ok=True)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    device = Device(tmp_path / "gps")
    yield device
    device.unplug()


def test_a_serial_port_carries_both_ways(device: Device) -> None:
    with closing(SerialPort(str(device.link), 38400)) as port:
        port.send(b"$GN\r\n")
        assert os.read(device.end, 100) == b"$GN\r\n"
        assert port.receive() == b""
        os.write(device.end, b"\x00\xff\n")
        received = bytearray()
        until(lambda: (received.extend(port.receive()), len(received))[1] == 3)
        assert received == b"\x00\xff\n"


def test_a_port_that_is_unplugged_in_flight_is_found_again(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(transport, "LONGEST_PAUSE_S", 0.05)
    with closing(open_serial(parse_sink_url(f"nmea:{device.link}"), 4800)) as port:
        port.send(b"one")
        assert os.read(device.end, 100) == b"one"
        device.unplug()
        for _ in range(3):
            with pytest.raises(OSError):
                port.send(b"lost")
            with pytest.raises(OSError):
                port.receive()
        device.plug_in()

        def sends() -> bool:
            with suppress(OSError):
                port.send(b"two")
                return True
            return False

        until(sends)
        assert os.read(device.end, 100) == b"two"


def test_a_device_that_is_not_there_is_refused_with_those_found() -> None:
    with pytest.raises(InputError) as refused:
        open_carrier(parse_sink_url("nmea:/dev/ttyUSB97"), 4800)
    assert str(refused.value).startswith("--to nmea:/dev/ttyUSB97: no device /dev/ttyUSB97; found ")


def test_a_speed_there_is_not_is_refused(device: Device) -> None:
    url = f"nmea:{device.link}?baud=9"
    with pytest.raises(InputError) as refused:
        open_carrier(parse_sink_url(url), 4800)
    assert str(refused.value) == f"--to {url}: baud=9 is no number from 50 to 4e+06"


def test_a_port_that_another_program_holds_is_refused(device: Device) -> None:
    url = f"nmea:{device.link}"
    with closing(SerialPort(str(device.link), 4800)), pytest.raises(InputError) as refused:
        open_carrier(parse_sink_url(url), 4800)
    assert str(refused.value) == (
        f"--to {url}: cannot be opened (Resource temporarily unavailable); another program may "
        "use it, or you may not be in the group 'dialout'"
    )


def test_what_is_a_terminal_is_told_from_files(device: Device, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    terminals = [str(device.link), "/dev/ttyUSB97"]
    others = [str(tmp_path / "file"), str(tmp_path / "new"), "/dev/full", "/dev/null"]
    assert [is_terminal(path) for path in terminals + others] == [True] * 2 + [False] * 4


@pytest.fixture
def pty() -> Iterator[Pty]:
    with closing(Pty()) as pty:
        yield pty


def opened(pty: Pty) -> int:
    return os.open(pty.path, os.O_RDWR | os.O_NOCTTY)


def test_the_reader_of_a_pseudo_terminal_gets_bytes_as_they_are(pty: Pty) -> None:
    reader = opened(pty)
    pty.send(b"\x00\x03\r\n\xff")
    assert os.read(reader, 100) == b"\x00\x03\r\n\xff"
    os.write(reader, b"?\r\n")
    assert pty.receive() == b"?\r\n"
    assert pty.receive() == b""
    os.close(reader)


def test_who_comes_late_reads_nothing_old(pty: Pty) -> None:
    pty.send(b"old")
    reader = opened(pty)
    pty.send(b"new")
    assert os.read(reader, 100) == b"new"
    os.close(reader)
    pty.send(b"old")
    assert pty.receive() == b""
    reader = opened(pty)
    pty.send(b"newer")
    assert os.read(reader, 100) == b"newer"
    os.close(reader)


def test_a_reader_that_falls_behind_misses_whole_messages(pty: Pty) -> None:
    reader = opened(pty)
    messages = [b"%06d" % n + b"x" * 993 + b"\n" for n in range(200)]
    taken = []
    for message in messages:
        try:
            pty.send(message)
            taken.append(message)
        except OSError as error:
            assert str(error) == "its reader does not keep up"
    assert 0 < len(taken) < 200
    os.set_blocking(reader, False)
    read = b""

    def has_all() -> bool:
        nonlocal read
        pty.receive()
        with suppress(BlockingIOError):
            read += os.read(reader, 4096)
        return len(read) >= len(b"".join(taken))

    until(has_all)
    assert read == b"".join(taken)
    pty.send(b"on time")
    until(lambda: _reads(reader, b"on time"))
    os.close(reader)


def _reads(reader: int, expected: bytes) -> bool:
    with suppress(BlockingIOError):
        return os.read(reader, 100) == expected
    return False


def test_the_name_of_a_pseudo_terminal_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    carrier = open_carrier(parse_sink_url("nmea:pty"), 4800)
    assert isinstance(carrier, Pty)
    with closing(carrier):
        assert capsys.readouterr().err == f"output nmea:pty: to be read at {carrier.path}\n"


def test_a_link_to_a_pseudo_terminal_lasts_from_run_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "gps"
    for _ in range(2):
        carrier = open_carrier(parse_sink_url(f"nmea:pty?link={link}"), 4800)
        assert isinstance(carrier, Pty)
        reader = os.open(link, os.O_RDWR | os.O_NOCTTY)
        carrier.send(b"here")
        assert os.read(reader, 100) == b"here"
        os.close(reader)
        assert capsys.readouterr().err == f"output nmea:pty: to be read at {link}\n"
        carrier.close()
        assert not link.is_symlink()
    link.symlink_to("/dev/pts/99999")  # a run that was killed leaves it behind
    with closing(Pty(link)) as pty:
        assert str(link.readlink()) == pty.path
        with closing(Pty(link)) as second:
            assert str(link.readlink()) == second.path


def test_a_link_never_takes_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("keep")
    (tmp_path / "other").symlink_to(tmp_path / "notes")
    for name, why in (("notes", "File exists"), ("other", "File exists"), ("no/gps", "No such")):
        link = tmp_path / name
        with pytest.raises(InputError) as refused:
            open_carrier(parse_sink_url(f"nmea:pty?link={link}"), 4800)
        assert str(refused.value).startswith(f"--to nmea:pty?link={link}: cannot be opened ({why}")
        assert str(refused.value).endswith("; give another link")
    assert (tmp_path / "notes").read_text() == (tmp_path / "other").read_text() == "keep"
