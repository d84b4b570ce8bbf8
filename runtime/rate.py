"""Fixes at a steady rate: positions carried on to the moments between frames.

Of files the moments lie on the frames' own clock, and the same run gives the same lines. Of a live
source they come when they are due, while a thread awaits and matches frames. That thread alone
makes tracks, and a track never changes, so nothing needs a lock.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Generator, Iterator

from .fix import Fix
from .pipeline import Stages
from .tracker import Tracker

Result = tuple[Fix, Stages]

# Over a longer pause between the frames of a file nothing is said.
_LONGEST_PAUSE_S = 60.0
_HELD = 4  # results that may wait for their reader; then the thread waits too
_CLOSE_S = 5.0


def between_frames(
    results: Iterator[Result], tracker: Tracker, rate_hz: float
) -> Generator[Result, None, None]:
    """Yield the results of a file, and between two frames what is said at multiples of a period.

    Args:
        results: of `run_frames` with the tracker.
        tracker: knows where the drone is between them.
        rate_hz: one over the period.
    """
    track = tracker.track
    for fix, stages in results:
        if track is not None and fix.t is not None and 0 < fix.t - track.t <= _LONGEST_PAUSE_S:
            number = math.floor(track.t * rate_hz) + 1
            while (t := number / rate_hz) < fix.t:
                yield track.at(t), {}
                number += 1
        yield fix, stages
        track = tracker.track


def while_awaited(
    results: Iterator[Result], tracker: Tracker, rate_hz: float
) -> Generator[Result, None, None]:
    """Yield the results of a live source, and while none comes what is said now, in each period.

    Closing it waits until the thread has left `results`.

    Args:
        results: of `run_frames` with the tracker; taken by a thread.
        tracker: knows where the drone is between them, on the machine's monotonic clock.
        rate_hz: one over the period.

    Raises:
        Exception: what `results` raised.
    """
    waiting: queue.Queue[Result | Exception | None] = queue.Queue(_HELD)
    stop = threading.Event()
    thread = threading.Thread(
        target=_take, args=(results, waiting, stop), name="s4g-frames", daemon=True
    )
    thread.start()
    due_s = time.monotonic()
    try:
        while True:
            try:
                result = waiting.get(timeout=max(due_s - time.monotonic(), 0.0))
            except queue.Empty:
                fix = tracker.at(time.monotonic())
                if fix is not None:
                    yield fix, {}
                # Moments that were missed are not made up for.
                due_s = max(due_s + 1 / rate_hz, time.monotonic())
                continue
            if result is None:
                return
            if isinstance(result, Exception):
                raise result
            yield result
    finally:
        stop.set()
        while thread.is_alive() and not waiting.empty():
            waiting.get()
        thread.join(_CLOSE_S)


def _take(
    results: Iterator[Result],
    waiting: queue.Queue[Result | Exception | None],
    stop: threading.Event,
) -> None:
    """Hand results on until they end or nobody wants them any more."""
    try:
        for result in results:
            waiting.put(result)
            if stop.is_set():
                return
        waiting.put(None)
    except Exception as error:
        waiting.put(error)
