"""NMEA outputs: serial ports, pseudo terminals, files; rates that fit the line."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from s4g.core.errors import InputError
from s4g.runtime.fix import Fix, Reason, State
from s4g.runtime.nmea import sentences
from s4g.runtime.sink import Moment, parse_sink_url
from s4g.runtime.sink_nmea import Nmea, open_sink
from s4g.runtime.transport_serial import Pty

RUNNING: Any = None
FIX = Fix(0, 1.0, State.TRACK, lat=46.8425012, lon=-91.9941313, sigma_m=12.0)
NO_FIX = Fix(0, 1.0, State.NO_FIX, reason=Reason.AMBIGUOUS)


def opened(url: str) -> Nmea:
    return open_sink(parse_sink_url(url), RUNNING)


def test_a_pseudo_terminal_reads_like_a_receiver() -> None:
    with closing(opened("nmea:pty")) as sink:
        assert isinstance(sink._carrier, Pty)
        reader = os.open(sink._carrier.path, os.O_RDWR | os.O_NOCTTY)
        for fix in (FIX, NO_FIX):
            sink.send(Moment(fix, 1.7e9))
            assert os.read(reader, 4096).decode() == sentences(fix, 1.7e9)
        os.write(reader, b"$PSRF100,1,9600,8,1,0*0D\r\n")  # what probes receivers is not heard
        sink.idle()
        os.close(reader)


def test_the_sentences_of_a_fix_are_one_datagram() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(20)
        with closing(opened(f"nmea+udp://127.0.0.1:{receiver.getsockname()[1]}")) as sink:
            sink.send(Moment(FIX, 1.7e9))
            assert receiver.recv(65535).decode() == sentences(FIX, 1.7e9)


def test_a_file_gets_every_frame_and_what_is_read_live_a_steady_rate(tmp_path: Path) -> None:
    with closing(opened(f"nmea:{tmp_path}/track.nmea")) as file, closing(opened("nmea:pty")) as pty:
        assert (file.wants_all, file.default_rate_hz) == (True, None)
        assert (pty.wants_all, pty.default_rate_hz) == (False, 5.0)
        file.send(Moment(FIX, 1.7e9))
        file.send(Moment(NO_FIX, None))
    text = (tmp_path / "track.nmea").read_bytes().decode()
    assert text == sentences(FIX, 1.7e9) + sentences(NO_FIX, None)


def test_that_nobody_knows_the_time_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(opened(f"nmea:{tmp_path}/track.nmea")) as sink:
        sink.send(Moment(FIX, 1.7e9))
        assert capsys.readouterr().err == ""
        for _ in range(3):
            sink.send(Moment(FIX, None))
    assert capsys.readouterr().err == (
        f"output nmea:{tmp_path}/track.nmea: nobody knows the time of these frames, and many "
        "readers need one; tell it with --epoch\n"
    )


@pytest.fixture
def port(tmp_path: Path) -> Any:
    pytest.importorskip("serial", reason="pyserial is not installed (the telemetry extra)")
    pty = Pty()
    (tmp_path / "ttyUSB0").symlink_to(pty.path)
    yield tmp_path / "ttyUSB0"
    pty.close()


@pytest.mark.parametrize(
    ("setting", "rate_hz"),
    [("", 1.0), ("?baud=4800", 1.0), ("?baud=9600", 2.0), ("?baud=38400", 5.0), ("?baud=600", 0.1)],
)
def test_a_serial_port_gets_what_goes_through(port: Path, setting: str, rate_hz: float) -> None:
    with closing(opened(f"nmea:{port}{setting}")) as sink:
        assert sink.default_rate_hz == rate_hz
        assert not sink.wants_all


def test_more_than_goes_through_is_refused(port: Path) -> None:
    url = f"nmea:{port}?baud=9600&rate=5"
    with pytest.raises(InputError) as refused:
        opened(url)
    assert str(refused.value) == (
        f"--to {url}: 9600 baud carry at most 2.9 fixes a second; lower rate or raise baud on "
        "both sides"
    )


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match=r"no device /dev/ttyUSB97; found .+$"):
        opened("nmea:/dev/ttyUSB97")
