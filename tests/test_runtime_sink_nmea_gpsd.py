"""gpsd as the reader of NMEA outputs: by pseudo terminal, TCP and UDP."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s4g.runtime.fix import Fix, Reason, State
from s4g.runtime.sink import Moment
from s4g.runtime.sink_nmea import Nmea
from s4g.runtime.sink_open import check_urls, open_sinks
from s4g.runtime.transport_serial import Pty
from s4g.runtime.transport_server import TcpServer

# Debian installs it where only root looks.
GPSD = shutil.which("gpsd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
GPSPIPE = shutil.which("gpspipe")
pytestmark = pytest.mark.skipif(
    GPSD is None or GPSPIPE is None,
    reason="gpsd and gpspipe are not installed (Debian: gpsd, gpsd-clients)",
)
WAIT_S = 60.0
RUNNING: Any = None

TRACK = Fix(
    0, 1.0, State.TRACK, lat=46.8425012, lon=-91.9941313, sigma_m=18.5, ve_mps=-3.0, vn_mps=4.0,
    source="visual",
)  # fmt: skip
DEGRADED = replace(TRACK, state=State.DEGRADED, source="propagated", sigma_m=44.0)
NO_FIX = Fix(0, 1.0, State.NO_FIX, reason=Reason.AMBIGUOUS)


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Receiver:
    """An output, gpsd that reads it, and a client that tells what gpsd makes of it."""

    def __init__(self, sink: Nmea, gpsd: subprocess.Popen[bytes], port: int) -> None:
        assert GPSPIPE is not None
        self._sink = sink
        self._gpsd = gpsd
        self._command = [GPSPIPE, "-w", f"127.0.0.1:{port}"]
        self._fix = NO_FIX
        self._stop = threading.Event()
        self._sender = threading.Thread(target=self._send)
        self._sender.start()

    def reports(self, fix: Fix, *until: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Send a fix over and over, and return gpsd's reports up to the first as each wanted."""
        self._fix = fix
        wanted, found = list(until), []
        end_s = time.monotonic() + WAIT_S
        while wanted:
            # gpsd may not listen yet: its client then ends at once.
            with subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True) as client:
                assert client.stdout is not None
                guard = threading.Timer(max(end_s - time.monotonic(), 0), client.kill)
                guard.start()
                for line in client.stdout:
                    found.append(json.loads(line))
                    if wanted[0](found[-1]):
                        del wanted[0]
                    if not wanted:
                        break
                guard.cancel()
                client.kill()
            assert time.monotonic() < end_s, f"gpsd said {found[-4:]}"
            if wanted:
                time.sleep(0.1)
        return found

    def _send(self) -> None:
        while not self._stop.wait(0.1):
            self._sink.idle()
            self._sink.send(Moment(self._fix, time.time()))

    def close(self) -> None:
        self._stop.set()
        self._sender.join()
        self._gpsd.send_signal(signal.SIGTERM)
        try:
            self._gpsd.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self._gpsd.kill()
            self._gpsd.wait()


@pytest.fixture(params=["pty", "tcp", "udp"])
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Receiver]:
    assert GPSD is not None
    url = {
        "pty": "nmea:pty",
        "tcp": "nmea+tcp://127.0.0.1:0",
        "udp": f"nmea+udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}",
    }[request.param]
    sink: Any = open_sinks(check_urls([url]), RUNNING)[0][0]
    with closing(sink):
        carrier = sink._carrier
        if isinstance(carrier, Pty):
            source = carrier.path
            Path(source).chmod(0o666)  # gpsd gives up being root
        elif isinstance(carrier, TcpServer):
            source = f"tcp://127.0.0.1:{carrier.port}"
        else:
            source = url.removeprefix("nmea+")
        port = free_port(socket.SOCK_STREAM)
        command = [GPSD, "-N", "-n", "-S", str(port), source]
        with (tmp_path / "gpsd").open("wb") as log:
            gpsd = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        with closing(Receiver(sink, gpsd, port)) as receiver:
            yield receiver


def tpv(report: dict[str, Any]) -> bool:
    return report["class"] == "TPV"


def has_position(report: dict[str, Any]) -> bool:
    # Before gpsd knows which sentence comes last it also reports after the first alone.
    return tpv(report) and "lat" in report and "speed" in report


def test_gpsd_reads_a_position_and_its_uncertainty_exactly(receiver: Receiver) -> None:
    reports = receiver.reports(TRACK, has_position, lambda r: r["class"] == "GST" and "lat" in r)
    position = next(filter(has_position, reports))
    assert position["lat"] == pytest.approx(TRACK.lat, abs=1e-8)
    assert position["lon"] == pytest.approx(TRACK.lon, abs=1e-8)
    assert position["mode"] == 2  # without an altitude, which nobody knows
    assert not any(key.startswith("alt") for key in position)
    assert position.get("status", 1) == 1
    assert position["speed"] == pytest.approx(5.0, abs=0.01)
    assert position["track"] == pytest.approx(323.13, abs=0.06)
    uncertainty = reports[-1]
    assert [uncertainty[key] for key in ("major", "minor", "lat", "lon")] == [18.5] * 4
    assert uncertainty["orient"] == 0
    assert "alt" not in uncertainty


def test_gpsd_reads_dead_reckoning(receiver: Receiver) -> None:
    reports = receiver.reports(
        DEGRADED, has_position, lambda r: r["class"] == "GST" and r.get("major") == 44.0
    )
    position = next(filter(has_position, reports))
    assert position["status"] == 5
    assert position["lat"] == pytest.approx(DEGRADED.lat, abs=1e-8)


def test_gpsd_reads_that_there_is_no_fix(receiver: Receiver) -> None:
    reports = receiver.reports(NO_FIX, tpv, tpv, tpv)
    for report in filter(tpv, reports):
        assert report["mode"] == 1
        assert not {"lat", "lon", "speed", "track"} & report.keys()


def test_gpsd_gives_no_position_after_a_fix_was_lost_and_one_once_it_is_back(
    receiver: Receiver,
) -> None:
    receiver.reports(TRACK, has_position)
    lost = receiver.reports(NO_FIX, *[lambda r: tpv(r) and r["mode"] == 1] * 3)
    last = [report for report in lost if tpv(report)][-1]
    assert not {"lat", "lon"} & last.keys()
    reports = receiver.reports(NO_FIX, *[tpv] * 3)
    assert not any("lat" in report for report in reports)
    receiver.reports(DEGRADED, lambda r: has_position(r) and r.get("status") == 5)
    back = receiver.reports(TRACK, lambda r: has_position(r) and r.get("status", 1) == 1)
    assert back[-1]["mode"] == 2


@pytest.mark.parametrize("fix", [TRACK, DEGRADED])
def test_between_two_positions_gpsd_never_reports_that_there_is_none(
    receiver: Receiver, fix: Fix
) -> None:
    # How gpsd divides the sentences into cycles it learns anew without a fix, and keeps.
    receiver.reports(fix, *[has_position] * 3)
    receiver.reports(NO_FIX, *[lambda r: tpv(r) and r["mode"] == 1] * 4)
    receiver.reports(fix, has_position)
    reports = receiver.reports(fix, *[has_position] * 8)
    positions = list(filter(tpv, reports))
    # What gpsd tells a client that has just come may be from before.
    assert all(map(has_position, positions[1:]))
    assert {report["mode"] for report in positions[1:]} == {2}
