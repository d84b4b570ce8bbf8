"""Faults of network streams, made with a real server on loopback whose pictures tell their time.

Beside each figure of ours stands that of the loop that everybody writes first: `read()` of the same
OpenCV whenever the program is ready for a frame, with OpenCV's own options.
"""

from __future__ import annotations

import os
import runpy
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import cv2

from s4g.runtime.camera import LiveCamera
from s4g.runtime.frames import Frame, LiveOptions, Outage

TESTS = Path(__file__).resolve().parents[2] / "tests"
live = SimpleNamespace(**runpy.run_path(str(TESTS / "live_streams.py")))

FPS = 25
SIZE_PX = (640, 360)
READER_S = 0.2  # what a frame takes on a slow computer
HELD_S = 3.0
Row = tuple[str, str, str, str]  # fault, what is measured, read() in a loop, ours


def options() -> LiveOptions:
    """Return how ours reads: the stream itself is one frame behind."""
    return LiveOptions(max_age_s=0.5, latency_ms=1e3 / FPS)


def frames(events: Iterator[Frame | Outage]) -> Iterator[Frame]:
    """Yield the frames alone."""
    return (event for event in events if isinstance(event, Frame))


def slow_reader() -> list[Row]:
    """Return ages of the frames that a reader gets which takes longer than a frame lasts."""
    with live.Stream("rtsp", SIZE_PX, FPS) as stream:
        capture = cv2.VideoCapture(stream.url, cv2.CAP_FFMPEG)
        theirs = []
        for _ in range(60):
            _, image = capture.read()
            theirs.append(live.true_age_s(image))
            time.sleep(READER_S)
        capture.release()
        ours, errors = [], []
        with closing(LiveCamera(stream.url, options())) as camera:
            for _, frame in zip(range(60), frames(camera.frames()), strict=False):
                now_s = time.monotonic()
                ours.append(live.true_age_s(frame.rgb()[0], now_s))
                errors.append(abs(ours[-1] - (now_s - (frame.t or 0.0))))
                time.sleep(READER_S)
            dropped = camera.dropped
    fault = f"reader takes {READER_S:g} s a frame"
    return [
        (fault, "age of its frames, median (s)", *_both(theirs, ours, statistics.median)),
        (fault, "age of its frames, largest (s)", *_both(theirs, ours, max)),
        (fault, "error of the time stamp, largest (ms)", "no stamp", f"{max(errors) * 1e3:.0f}"),
        (fault, "frames overtaken", "0", str(dropped)),
    ]


def server_killed(kind: str) -> list[Row]:
    """Return what reaches a slow reader after the server has died, and how it comes back."""
    with live.Stream(kind, SIZE_PX, FPS) as stream:
        capture = cv2.VideoCapture(stream.url, cv2.CAP_FFMPEG)
        for _ in range(25):
            capture.read()
            time.sleep(READER_S)
        stream.kill()
        killed_s, theirs = time.monotonic(), []
        while True:
            read, image = capture.read()
            if not read:
                break
            theirs.append(live.true_age_s(image))
            time.sleep(READER_S)
        told_s = time.monotonic() - killed_s
        capture.release()
    with (
        live.Stream(kind, SIZE_PX, FPS) as stream,
        closing(LiveCamera(stream.url, options())) as camera,
    ):
        events = camera.frames()
        for _ in zip(range(25), frames(events), strict=False):
            time.sleep(READER_S)
        stream.kill()
        killed_s, ours = time.monotonic(), []
        for event in events:
            if isinstance(event, Outage):
                break
            ours.append(live.true_age_s(event.rgb()[0]))
            time.sleep(READER_S)
        our_told_s = time.monotonic() - killed_s
        with live.Stream(kind, SIZE_PX, FPS, stream.port):
            back_s = time.monotonic()
            next(frames(events))
            back_s = time.monotonic() - back_s
    fault = f"server killed ({kind})"
    return [
        (fault, "reader is told after (s)", f"{told_s:.2f}", f"{our_told_s:.2f}"),
        (fault, "frames it gets after that", str(len(theirs)), str(len(ours))),
        (fault, "oldest of them (s)", *_both(theirs, ours, max)),
        (fault, "frames again, after it serves again (s)", "never", f"{back_s:.2f}"),
    ]


READER = """
import sys, runpy, time
live = runpy.run_path(sys.argv[1])
url, ours, latency_ms = sys.argv[2], sys.argv[3] == "ours", float(sys.argv[4])
if ours:
    from s4g.runtime.camera import LiveCamera
    from s4g.runtime.frames import Frame, LiveOptions
    events = LiveCamera(url, LiveOptions(0.5, latency_ms)).frames()
    images = (event.rgb()[0] for event in events if isinstance(event, Frame))
else:
    import cv2
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG)
    images = (capture.read()[1] for _ in range(10**9))
for image in images:
    print(live["true_age_s"](image), flush=True)
"""


def held_up() -> list[Row]:
    """Return the ages of frames that a process gets after it did not run for a while."""
    oldest = {}
    for whose in ("theirs", "ours"):
        with live.Stream("rtsp", SIZE_PX, FPS) as stream:
            command = [sys.executable, "-c", READER, str(TESTS / "live_streams.py"), stream.url]
            with subprocess.Popen(
                [*command, whose, str(1e3 / FPS)], stdout=subprocess.PIPE, text=True
            ) as reader:
                assert reader.stdout is not None
                for _ in range(3 * FPS):  # past what queued up while it was opened
                    reader.stdout.readline()
                reader.send_signal(signal.SIGSTOP)
                time.sleep(HELD_S)
                reader.send_signal(signal.SIGCONT)
                reader.stdout.readline()  # was under way before
                ages = [float(reader.stdout.readline()) for _ in range(3 * FPS)]
                reader.kill()
        oldest[whose] = ages
    fault = f"process held up for {HELD_S:g} s"
    late = {whose: sum(age > 0.5 for age in ages) for whose, ages in oldest.items()}
    return [
        (fault, "oldest frame after that (s)", *_both(oldest["theirs"], oldest["ours"], max)),
        (fault, "frames older than 0.5 s", str(late["theirs"]), str(late["ours"])),
    ]


def server_hangs() -> list[Row]:
    """Return how long a hanging server goes unnoticed."""
    with live.Stream("rtsp", SIZE_PX, FPS) as stream:
        capture = cv2.VideoCapture(stream.url, cv2.CAP_FFMPEG)
        for _ in range(3 * FPS):
            capture.read()
        thaw = threading.Timer(HELD_S, stream.thaw)
        stream.freeze()
        thaw.start()
        longest_s, started_s = 0.0, time.monotonic()
        while time.monotonic() - started_s < HELD_S + 1:
            before_s = time.monotonic()
            capture.read()
            longest_s = max(longest_s, time.monotonic() - before_s)
        capture.release()
        with closing(LiveCamera(stream.url, options())) as camera:
            events = camera.frames()
            for _ in zip(range(FPS), frames(events), strict=False):
                pass
            thaw = threading.Timer(HELD_S, stream.thaw)
            stream.freeze()
            thaw.start()
            frozen_s, told_s, back_s = time.monotonic(), 0.0, 0.0
            for event in events:
                if isinstance(event, Outage):
                    told_s = told_s or time.monotonic() - frozen_s
                elif told_s:
                    back_s = time.monotonic() - frozen_s - HELD_S
                    break
    fault = f"server hangs for {HELD_S:g} s"
    return [
        (fault, "reader is told after (s)", f"blocked {longest_s:.1f}", f"{told_s:.2f}"),
        (fault, "frames again, after it goes on (s)", "0.0", f"{back_s:.2f}"),
    ]


def table() -> list[Row]:
    """Make every fault in turn."""
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"
    rows = slow_reader()
    for kind in ("rtsp", "udp"):
        rows += server_killed(kind)
    return rows + server_hangs() + held_up()


def _both(
    theirs: list[float], ours: list[float], measure: Callable[[list[float]], float]
) -> tuple[str, str]:
    one, other = (f"{measure(ages):.2f}" if ages else "-" for ages in (theirs, ours))
    return one, other
