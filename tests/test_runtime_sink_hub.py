"""Outputs beside each other: one that is slow, full, gone or wrong harms none of the others."""

from __future__ import annotations

import io
import itertools
import json
import runpy
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from s4g.core.images import decode_rgb
from s4g.runtime import sink_hub, transport
from s4g.runtime.fix import Fix, State
from s4g.runtime.frames import Frame
from s4g.runtime.localise import Finding
from s4g.runtime.observe import Observation
from s4g.runtime.sink import Moment, Sink
from s4g.runtime.sink_hub import Outputs, SinkStatus
from s4g.runtime.sink_open import check_urls, open_sinks
from s4g.runtime.transport_serial import Pty
from s4g.runtime.utc import Utc

track = runpy.run_path(str(Path(__file__).with_name("toy_tracks.py")))["track"]
WAIT_S = 20.0


class Recorder:
    """An output that remembers what it got."""

    def __init__(self, name: str = "recorder", wants_all: bool = True, **changes: Any) -> None:
        self.name = name
        self.wants_all = wants_all
        self.wants_frames = False
        self.frame_period_s = 0.0
        self.default_rate_hz: float | None = None
        self.moments: list[Moment] = []
        self.idles = 0
        self.is_closed = False
        self.threads: set[int] = set()
        vars(self).update(changes)

    def send(self, moment: Moment) -> None:
        self.threads.add(threading.get_ident())
        self.moments.append(moment)

    def idle(self) -> None:
        self.threads.add(threading.get_ident())
        self.idles += 1

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        self.is_closed = True


class Gate(Recorder):
    """An output whose thread stays in `send` until it is let on."""

    def __init__(self, **changes: Any) -> None:
        super().__init__("gate", **changes)
        self.entered = threading.Event()
        self.open = threading.Event()

    def send(self, moment: Moment) -> None:
        self.entered.set()
        self.open.wait()
        super().send(moment)


def outputs(*sinks: Sink, is_live: bool = False, **options: Any) -> Outputs:
    return Outputs([(sink, None) for sink in sinks], Utc(is_live), is_live, **options)


def frame(t: float, number: int = 0, **changes: Any) -> Observation:
    known = track(t, number)
    return replace(Observation(known.said(), {}, track=known), **changes)


def until(done: Callable[[], bool]) -> None:
    end_s = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < end_s, "it did not come about"
        time.sleep(0.005)


def test_a_log_gets_every_fix_in_order_in_one_thread_of_its_own() -> None:
    sink = Recorder()
    hub = outputs(sink)
    for number in range(300):
        hub.observe(frame(number / 10, number))
    hub.close()
    assert [moment.fix.frame for moment in sink.moments] == list(range(300))
    assert sink.is_closed
    assert len(sink.threads) == 1
    assert threading.get_ident() not in sink.threads
    assert hub.status() == [SinkStatus("recorder", "closed", 300, 0, 0, 0, None)]


def test_an_output_is_idle_between_fixes() -> None:
    sink = Recorder()
    hub = outputs(sink)
    until(lambda: sink.idles >= 3)
    hub.close()
    assert sink.moments == []


def test_a_live_output_that_is_busy_gets_the_newest_fix_and_the_others_are_counted() -> None:
    sink = Gate(wants_all=False)
    hub = outputs(sink, is_live=True)
    hub.observe(frame(0.0, 0))
    assert sink.entered.wait(WAIT_S)
    for number in range(1, 6):
        hub.observe(frame(number / 10, number))
    sink.open.set()
    hub.close()
    assert [moment.fix.frame for moment in sink.moments] == [0, 5]
    assert hub.status()[0].dropped == 4


def test_a_log_that_falls_behind_drops_the_oldest_and_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sink_hub, "_WAITING", 10)
    sink = Gate()
    hub = outputs(sink, is_live=True)
    hub.observe(frame(0.0, 0))
    assert sink.entered.wait(WAIT_S)
    for number in range(1, 31):
        hub.observe(frame(number / 10, number))
    sink.open.set()
    hub.close()
    assert [moment.fix.frame for moment in sink.moments] == [0, *range(21, 31)]
    assert hub.status() == [SinkStatus("gate", "closed", 11, 20, 0, 0, None)]
    assert capsys.readouterr().err == "output gate: 11 fixes written, 20 left out\n"


def test_an_output_that_never_returns_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sink_hub, "_FLUSH_S", 0.1)
    monkeypatch.setattr(sink_hub, "_END_S", 0.1)
    stuck, other = Gate(), Recorder("other")
    hub = outputs(stuck, other)
    for number in range(20):
        hub.observe(frame(number / 10, number))
    assert stuck.entered.wait(WAIT_S)
    until(lambda: len(other.moments) == 20)
    hub.close()
    assert other.is_closed
    assert [status.state for status in hub.status()] == ["stuck", "closed"]
    assert capsys.readouterr().err == (
        "output gate: does not end; left behind\noutput gate: 0 fixes written, 20 left out\n"
    )
    stuck.open.set()
    until(lambda: stuck.is_closed)  # its thread ends with the test


class Failing(Recorder):
    """An output that fails while it is told to."""

    error: Exception | None = None

    def send(self, moment: Moment) -> None:
        if self.error is not None:
            raise self.error
        super().send(moment)


def test_a_loss_is_told_once_and_so_is_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    sink = Failing("nmea:/dev/ttyUSB0", error=OSError(5, "Input/output error"))
    hub = outputs(sink)
    for number in range(5):
        hub.observe(frame(number / 10, number))
    until(lambda: hub.status()[0].errors == 5)
    assert hub.status()[0].state == "lost"
    sink.error = None
    hub.observe(frame(1.0, 5))
    hub.close()
    assert hub.status() == [
        SinkStatus("nmea:/dev/ttyUSB0", "closed", 1, 0, 5, 0, "Input/output error")
    ]
    assert capsys.readouterr().err.splitlines() == [
        "output nmea:/dev/ttyUSB0: Input/output error; fixes go on, it is tried again",
        "output nmea:/dev/ttyUSB0: works again",
        "output nmea:/dev/ttyUSB0: 1 fixes written, 5 left out",
    ]


def test_an_output_that_comes_and_goes_is_not_told_of_each_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sink = Failing("flaky", wants_all=False)
    hub = outputs(sink)
    for number in range(20):
        sink.error = OSError(5, "Input/output error") if number % 2 else None
        hub.observe(frame(number / 10, number))
        until(lambda: hub.status()[0].sent + hub.status()[0].errors == number + 1)  # noqa: B023
    hub.close()
    assert hub.status()[0].errors == 10
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize("error", [ValueError("a bug\nof two lines"), KeyError("x")])
def test_a_mistake_in_an_output_is_one_line_and_the_others_get_their_fixes(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong, right = Failing("wrong", error=error, wants_all=False), Recorder()
    hub = outputs(wrong, right)
    for number in range(10):
        hub.observe(frame(number / 10, number))
    hub.close()
    assert len(right.moments) == 10
    assert wrong.is_closed
    what = f"{type(error).__name__}: {' '.join(str(error).split())}"
    assert capsys.readouterr().err == f"output wrong: {what}; fixes go on, it is tried again\n"


def test_what_fails_while_idle_or_at_the_end_is_told_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Bad(Recorder):
        def idle(self) -> None:
            super().idle()
            raise OSError("gone")

        def close(self) -> None:
            raise OSError(28, "No space left on device")

    sink = Bad("bad")
    hub = outputs(sink)
    until(lambda: sink.idles >= 2)
    hub.close()
    assert hub.status()[0].error == "No space left on device"
    assert capsys.readouterr().err == "output bad: gone; fixes go on, it is tried again\n"


def test_outputs_have_rates_of_their_own() -> None:
    each, five, two = (Recorder(name) for name in ("each", "five", "two"))
    five.default_rate_hz = two.default_rate_hz = 5.0
    hub = Outputs([(each, None), (five, None), (two, 2.0)], Utc(False), False)
    for number in range(31):
        hub.observe(frame(number / 10, number))
    hub.close()
    assert [len(sink.moments) for sink in (each, five, two)] == [31, 16, 7]
    assert [moment.fix.t for moment in two.moments] == pytest.approx([n / 2 for n in range(7)])


def test_a_live_output_with_a_rate_goes_on_where_no_frame_comes() -> None:
    sink = Recorder(wants_all=False, default_rate_hz=50.0)
    hub = outputs(sink, is_live=True)
    hub.observe(frame(time.monotonic()))
    until(lambda: len(sink.moments) >= 5)
    hub.close()
    stamps = [moment.fix.t for moment in sink.moments if moment.fix.t is not None]
    assert len(stamps) == len(sink.moments)
    assert all(b - a > 0 for a, b in itertools.pairwise(stamps))
    assert {moment.seen for moment in sink.moments} == {None}
    assert all(moment.utc_s is not None for moment in sink.moments)


def test_frames_between_the_moments_of_a_live_output_are_not_missed() -> None:
    sink = Recorder(wants_all=True, default_rate_hz=0.1)
    hub = outputs(sink, is_live=True)
    for number in range(50):
        hub.observe(frame(time.monotonic(), number))
    until(lambda: len(sink.moments) == 1)
    hub.close()
    assert hub.status() == [SinkStatus("recorder", "closed", 1, 0, 0, 0, None)]


def test_a_moment_tells_utc_delay_and_places_taken_up() -> None:
    live = Recorder(wants_all=False)
    tracker: Any = SimpleNamespace(resets=3)
    hub = outputs(live, is_live=True, tracker=tracker)
    before_s = time.time()
    hub.observe(frame(time.monotonic() - 0.25))
    hub.close()
    (moment,) = live.moments
    assert moment.utc_s is not None
    assert before_s - 0.35 < moment.utc_s < time.time() - 0.15
    assert moment.delay_s >= 0.25
    assert moment.resets == 3
    recorded = Recorder()
    hub = Outputs([(recorded, None)], Utc(False, 1.7e9), False)
    hub.observe(frame(5.0))
    hub.close()
    assert (recorded.moments[0].utc_s, recorded.moments[0].delay_s) == (1.7e9 + 5, 0.0)


def test_a_flight_played_back_at_its_pace_is_carried_on_like_a_live_one() -> None:
    sink = Recorder(wants_all=False, default_rate_hz=50.0)
    hub = outputs(sink, is_paced=True)
    shown = Frame(0, 100.0, None, "video", 64, 48, time.monotonic())
    hub.observe(frame(100.0, frame=shown))
    until(lambda: len(sink.moments) >= 5)
    hub.close()
    for moment in sink.moments:
        assert moment.fix.t is not None
        assert 100.0 <= moment.fix.t < 100.0 + WAIT_S


PIXELS = np.zeros((48, 64, 3), np.uint8)
PIXELS[:, :32, 0] = 255  # red on the left


def picture(number: int, pixels: Any = None, encoded: bytes | None = None) -> Observation:
    t = number / 10
    shown = Frame(number, t, None, "video", 64, 48, 0.0, encoded=encoded, decoded=pixels)
    return frame(t, number, frame=shown, finding=Finding())


def test_a_frame_is_handed_on_as_it_was_though_its_buffer_is_written_over() -> None:
    sink = Gate(wants_frames=True)
    hub = outputs(sink)
    pixels = PIXELS.copy()
    hub.observe(picture(0, pixels))
    assert sink.entered.wait(WAIT_S)
    hub.observe(picture(1, pixels))
    pixels[:] = 127
    sink.open.set()
    hub.close()
    for moment in sink.moments:
        assert moment.jpeg is not None
        shown = decode_rgb(moment.jpeg, "frame")
        assert np.abs(shown.astype(int) - PIXELS).max() < 60
        assert np.abs(shown.astype(int) - PIXELS).mean() < 4
        assert moment.seen is not None
        assert moment.seen.frame is not None
        assert (moment.seen.frame.decoded, moment.seen.finding) == (None, None)


def test_a_jpeg_is_handed_on_byte_by_byte() -> None:
    encoded = cv2.imencode(".jpg", PIXELS)[1].tobytes()
    sink = Recorder(wants_frames=True)
    hub = outputs(sink)
    hub.observe(picture(0, None, encoded))
    hub.close()
    assert sink.moments[0].jpeg == encoded


def test_pixels_are_copied_only_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    real = sink_hub.keep_frame
    monkeypatch.setattr(sink_hub, "keep_frame", lambda *a: (kept.append(a[0].index), real(*a))[1])
    without = Recorder("without")
    slow = Recorder("slow", wants_frames=True, frame_period_s=0.5)
    thinned = Recorder("thinned", wants_frames=True, default_rate_hz=1.0)
    hub = outputs(without, slow, thinned)
    for number in range(16):
        hub.observe(picture(number, PIXELS))
        until(lambda: len(slow.moments) == number + 1)  # noqa: B023
    hub.close()
    assert kept == [0, 5, 10, 15]
    assert {moment.jpeg for moment in without.moments} == {None}
    assert [m.fix.frame for m in slow.moments if m.jpeg] == [0, 5, 10, 15]
    assert len(slow.moments) == 16
    assert [(m.fix.frame, m.jpeg is not None) for m in thinned.moments] == [(0, True), (10, True)]


def test_frames_that_wait_are_few_and_fixes_go_on_without_them() -> None:
    sink = Gate(wants_frames=True)
    hub = outputs(sink)
    hub.observe(picture(0, PIXELS))
    assert sink.entered.wait(WAIT_S)
    for number in range(1, 40):
        hub.observe(picture(number, PIXELS))
    sink.open.set()
    hub.close()
    assert len(sink.moments) == 40
    assert sum(moment.jpeg is not None for moment in sink.moments) == 4


def test_without_a_position_an_output_is_told_so() -> None:
    sink = Recorder()
    hub = outputs(sink)
    hub.observe(Observation(Fix(0, None, State.NO_FIX), {}))
    hub.close()
    assert sink.moments == [Moment(Fix(0, None, State.NO_FIX), None, seen=sink.moments[0].seen)]


def test_a_serial_port_that_is_unplugged_costs_no_other_output_a_fix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("serial", reason="pyserial is not installed (the telemetry extra)")
    monkeypatch.setattr(transport, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(transport, "LONGEST_PAUSE_S", 0.02)
    device = tmp_path / "ttyUSB0"
    adapter = Pty(device)
    urls = [f"nmea:{device}?baud=115200&rate=20", f"jsonl:{tmp_path}/fixes.jsonl"]
    running: Any = SimpleNamespace()
    hub = Outputs(open_sinks(check_urls(urls), running), Utc(True), True)
    count = 0

    def flies(is_reached: Callable[[SinkStatus], bool]) -> Callable[[], bool]:
        def one_frame() -> bool:
            nonlocal count
            hub.observe(frame(time.monotonic(), count))
            count += 1
            return is_reached(hub.status()[0])

        return one_frame

    until(flies(lambda serial: serial.sent >= 3))
    adapter.close()
    until(flies(lambda serial: serial.state == "lost" and serial.errors >= 3))
    adapter = Pty(device)
    until(flies(lambda serial: serial.state == "open"))
    hub.close()
    adapter.close()
    lines = (tmp_path / "fixes.jsonl").read_text().splitlines()
    assert [json.loads(line)["frame"] for line in lines] == list(range(count))
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[0].startswith(f"output nmea:{device}: ")
    assert said[0].endswith("; fixes go on, it is tried again")
    assert said[1] == f"output nmea:{device}: works again"


class FullDisk(io.StringIO):
    """Standard error that goes to a file on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_outputs_go_on_where_nothing_can_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", FullDisk())
    sink = Failing("wrong", error=OSError(5, "Input/output error"))
    hub = outputs(sink)
    hub.observe(frame(0.0, 0))
    until(lambda: hub.status()[0].errors == 1)
    sink.error = None
    hub.observe(frame(0.1, 1))
    hub.close()
    assert (hub.status()[0].sent, sink.is_closed) == (1, True)


def test_real_outputs_isolate_a_stalled_client_a_full_device_and_a_dead_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    urls = [f"jsonl:{tmp_path}/fixes.jsonl", "jsonl+tcp://127.0.0.1:0", "jsonl:/dev/full"]
    running: Any = SimpleNamespace()
    sinks = open_sinks(check_urls(urls), running)
    port = int(capsys.readouterr().err.split()[-1])
    hub = Outputs(sinks, Utc(False), False)
    stalled = socket.socket()
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stalled.connect(("127.0.0.1", port))
    dead = socket.create_connection(("127.0.0.1", port))
    # Its system resets the connection, as that of a program that was killed.
    dead.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    dead.close()
    count = 0
    while hub.status()[1].let_go < 2:
        for _ in range(500):
            hub.observe(frame(count / 100, count))
            count += 1
        until(lambda: hub.status()[0].sent == hub.status()[1].sent == count)  # noqa: B023
        assert count < 200_000
    hub.close()
    stalled.close()
    lines = (tmp_path / "fixes.jsonl").read_text().splitlines()
    assert [json.loads(line)["frame"] for line in lines] == list(range(count))
    file, server, full = hub.status()
    assert (file.sent, file.errors, file.dropped) == (count, 0, 0)
    assert (server.sent, server.errors, server.dropped) == (count, 0, 0)
    assert (full.sent, full.errors, full.error) == (0, count, "No space left on device")
    said = capsys.readouterr().err.splitlines()
    assert sum("No space left on device; fixes go on" in line for line in said) == 1
    assert sum(line.endswith("it was let go") for line in said) == 1
