"""Live streams against a real server on loopback, whose pictures tell when they were made."""

from __future__ import annotations

import runpy
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from s4g.core.errors import S4GError
from s4g.runtime.camera import LiveCamera
from s4g.runtime.frames import Frame, LiveOptions, Outage

live = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("live_streams.py"))))

pytestmark = pytest.mark.skipif(live.why_not() is not None, reason=str(live.why_not()))

FPS = 20
FRAME_S = 1 / FPS
# FFmpeg knows that a frame is whole when the next one begins.
OPTIONS = LiveOptions(max_age_s=0.5, latency_ms=1e3 * FRAME_S)
OLDEST_S = OPTIONS.max_age_s + 3 * FRAME_S  # MPEG-TS may keep two frames more in its packets
ATTEMPTS = 200  # of half a second at most: a busy machine is slow to serve


@pytest.fixture(autouse=True)
def own_ffmpeg_options(monkeypatch: pytest.MonkeyPatch) -> None:
    # Opening a stream leaves them in the environment, where video files of other tests meet them.
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "")
    monkeypatch.delenv("OPENCV_FFMPEG_CAPTURE_OPTIONS")


def next_frame(events: Iterator[Frame | Outage]) -> Frame:
    for _, event in zip(range(ATTEMPTS), events, strict=False):
        if isinstance(event, Frame):
            return event
    pytest.fail("the stream is not coming back")


def until_outage(events: Iterator[Frame | Outage]) -> tuple[list[float], float]:
    """Return the true ages of the frames before the next outage, and how long that took."""
    ages_s, started_s = [], time.monotonic()
    for event in events:
        if isinstance(event, Outage):
            return ages_s, time.monotonic() - started_s
        ages_s.append(live.true_age_s(event.rgb()[0]))
    raise AssertionError


@pytest.fixture
def stream() -> Iterator[SimpleNamespace]:
    with live.Stream(fps=FPS) as server:
        yield server


@pytest.fixture
def camera(stream: SimpleNamespace) -> Iterator[LiveCamera]:
    camera = LiveCamera(stream.url, OPTIONS)
    yield camera
    camera.close()


def test_a_slow_reader_gets_frames_that_are_younger_than_two_frames(camera) -> None:
    events = camera.frames()
    next_frame(events)
    ages_s = []
    for _ in range(7):
        time.sleep(5.4 * FRAME_S)
        ages_s.append(live.true_age_s(next_frame(events).rgb()[0]))
    assert statistics.median(ages_s) - OPTIONS.latency_ms / 1e3 < 2 * FRAME_S
    assert camera.dropped >= 4 * len(ages_s)


@pytest.mark.parametrize(("kind", "latency_ms"), [("rtsp", 1e3 * FRAME_S), ("tcp", 0.0)])
def test_frames_are_stamped_with_the_time_of_their_making(kind: str, latency_ms: float) -> None:
    with (
        live.Stream(kind, fps=FPS) as stream,
        closing(LiveCamera(stream.url, LiveOptions(latency_ms=latency_ms))) as camera,
    ):
        events = camera.frames()
        errors_s = []
        for _ in range(9):
            frame = next_frame(events)
            now_s = time.monotonic()
            errors_s.append(live.true_age_s(frame.rgb()[0], now_s) - (now_s - frame.t))
    assert abs(statistics.median(errors_s)) < FRAME_S / 2


@pytest.mark.parametrize("kind", ["rtsp", "udp"])
def test_a_server_that_dies_is_an_outage_within_a_second_until_it_is_back(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        live.Stream(kind, (320, 180), FPS) as stream,
        closing(LiveCamera(stream.url, OPTIONS)) as camera,
    ):
        events = camera.frames()
        # An age at which no clock can be mistaken for that of the next sender.
        for _ in range(2 * FPS if kind == "udp" else 1):
            first = next_frame(events)
        capsys.readouterr()
        stream.kill()
        ages_s, told_after_s = until_outage(events)
        assert told_after_s < 1.0
        assert all(age_s < OLDEST_S for age_s in ages_s)
        assert isinstance(next(events), Outage)
        with live.Stream(kind, (640, 360), FPS, stream.port):
            back = next_frame(events)
        assert live.true_age_s(back.rgb()[0]) < OLDEST_S
        assert (first.width_px, first.height_px) == (320, 180)
        assert (back.width_px, back.height_px) == (640, 360)
        assert back.index > first.index
        lost, found = capsys.readouterr().err.splitlines()
        assert lost.startswith(f"camera {stream.url}: no frame for 0.")
        assert lost.endswith("; trying again until it is back")
        assert found.startswith(f"camera {stream.url}: frames again, after ")


def test_a_server_that_hangs_is_an_outage_until_it_goes_on(stream, camera) -> None:
    events = camera.frames()
    next_frame(events)
    stream.freeze()
    ages_s, told_after_s = until_outage(events)
    assert told_after_s < 1.0
    assert all(age_s < OLDEST_S for age_s in ages_s)
    stream.thaw()
    assert live.true_age_s(next_frame(events).rgb()[0]) < OLDEST_S


def test_a_run_ends_where_the_outage_lasts_longer_than_it_may(stream) -> None:
    camera = LiveCamera(stream.url, LiveOptions(give_up_s=1.0))
    events = camera.frames()
    next_frame(events)
    stream.kill()
    with pytest.raises(S4GError) as error:
        for _ in events:
            pass
    camera.close()
    assert str(error.value).startswith(f"--camera {stream.url}: no frame for 1.")
    assert str(error.value).endswith("; check cable, power and network")


HELD_UP = """
import sys, runpy
from s4g.runtime.camera import LiveCamera
from s4g.runtime.frames import LiveOptions, Outage
live = runpy.run_path(sys.argv[1])
for event in LiveCamera(sys.argv[2], LiveOptions(0.5, 50.0)).frames():
    told = "outage" if isinstance(event, Outage) else live["true_age_s"](event.rgb()[0])
    print(told, flush=True)
"""


def test_what_queued_up_while_the_machine_was_held_up_is_not_handed_on(stream) -> None:
    helper = Path(__file__).with_name("live_streams.py")
    command = [sys.executable, "-c", HELD_UP, str(helper), stream.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        for _ in range(5):
            reader.stdout.readline()
        reader.send_signal(signal.SIGSTOP)
        time.sleep(2.0)
        reader.send_signal(signal.SIGCONT)
        told = [reader.stdout.readline().strip() for _ in range(30)]
        reader.kill()
    # The first was handed on before.
    ages_s = [float(line) for line in told[1:] if line != "outage"]
    assert len(ages_s) >= 20
    assert max(ages_s) < OLDEST_S
