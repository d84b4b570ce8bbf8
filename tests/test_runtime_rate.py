"""Fixes between frames: of files on the frames' clock, of live sources when they are due."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from s4g.core.errors import S4GError
from s4g.core.geo import LocalFrame
from s4g.runtime.fix import Fix, State
from s4g.runtime.pipeline import Stages
from s4g.runtime.rate import between_frames, while_awaited
from s4g.runtime.tail import REPORTED, Tail
from s4g.runtime.track import Track

GROUND = LocalFrame(47.0, 8.0)
EAST_MPS = np.array([20.0, 0.0])


def track(t: float, frame: int) -> Track:
    """A drone that flies east at 20 m/s and was in the middle at 0 s."""
    tail = Tail(20.0 * t, 0.0, 2.0, REPORTED)
    fix = Fix(frame, t, State.ACQUIRING, file=f"{frame}.jpg", heading_deg=90.0, agl_m=100.0)
    bounds_m = (-5e4, -5e4, 5e4, 5e4)
    return Track(GROUND, bounds_m, t, fix, tail, EAST_MPS, REPORTED, 0.5, 1.0, 80.0, t, None)


class Flight:
    """Stands in for a tracker and the frames that it gets."""

    def __init__(self, times: list[float]) -> None:
        self.times = times
        self.track: Track | None = None

    def at(self, t: float) -> Fix | None:
        return None if self.track is None else self.track.at(t)

    def results(self) -> Iterator[tuple[Fix, Stages]]:
        for frame, t in enumerate(self.times):
            self.track = track(t, frame)
            yield self.track.said(), {"total": 1.0}


def filled(times: list[float], rate_hz: float) -> list[Fix]:
    flight: Any = Flight(times)
    return [fix for fix, _ in between_frames(flight.results(), flight, rate_hz)]


def test_between_two_frames_lies_a_fix_at_each_multiple_of_the_period() -> None:
    fixes = filled([1.0, 1.3, 1.45], 10.0)
    assert [fix.t for fix in fixes] == pytest.approx([1.0, 1.1, 1.2, 1.3, 1.4, 1.45])
    assert [fix.source for fix in fixes] == [
        "visual", "propagated", "propagated", "visual", "propagated", "visual",
    ]  # fmt: skip
    for fix in fixes:
        east, north = GROUND.to_local(fix.lat, fix.lon)
        assert (float(east), float(north)) == pytest.approx((20 * fix.t, 0), abs=1e-3)
    between = fixes[2]
    assert (between.frame, between.file, between.state) == (0, None, State.TRACK)
    assert (between.anchor_age_s, between.latency_ms) == (pytest.approx(0.2), None)
    assert (between.heading_deg, between.ve_mps) == (90.0, pytest.approx(20.0))
    assert between.sigma_m > fixes[0].sigma_m


def test_a_match_of_over_a_second_ago_is_none_any_more() -> None:
    states = [fix.state for fix in filled([0.0, 3.0], 1.0)]
    assert states == [State.TRACK, State.TRACK, State.DEGRADED, State.TRACK]


@pytest.mark.parametrize("times", [[0.0, 100.0], [100.0, 0.0], [5.0, 5.0]])
def test_a_clock_that_jumps_is_not_filled_in(times: list[float]) -> None:
    assert [fix.t for fix in filled(times, 10.0)] == times


def test_a_time_before_the_frame_is_the_time_of_the_frame() -> None:
    fix = track(7.0, 0).at(6.0)
    assert (fix.t, fix.anchor_age_s) == (7.0, 0.0)


def test_while_no_frame_comes_positions_do() -> None:
    flight: Any = Flight([])
    enough = threading.Event()

    def slow() -> Iterator[tuple[Fix, Stages]]:
        flight.track = track(0.0, 0)
        yield flight.track.said(), {}
        assert enough.wait(60)
        yield flight.track.said(), {}

    sources: list[str | None] = []
    for fix, _ in while_awaited(slow(), flight, 200.0):
        sources.append(fix.source)
        if sources.count(None) + sources.count("propagated") == 3:
            enough.set()
    assert sources.count("visual") == 2
    assert len(sources) >= 5


def test_before_the_first_frame_nothing_is_said() -> None:
    flight: Any = SimpleNamespace(track=None, at=lambda t: None)
    assert list(while_awaited(iter([]), flight, 1000.0)) == []


def test_what_ends_the_frames_ends_the_fixes() -> None:
    def lost() -> Iterator[tuple[Fix, Stages]]:
        yield track(0.0, 0).said(), {}
        raise S4GError("the camera is lost")

    flight: Any = Flight([])
    fixes = while_awaited(lost(), flight, 1.0)
    next(fixes)
    with pytest.raises(S4GError, match="the camera is lost"):
        list(fixes)


def test_when_nobody_reads_on_the_thread_ends() -> None:
    def endless() -> Iterator[tuple[Fix, Stages]]:
        while True:
            yield track(0.0, 0).said(), {}

    before = threading.active_count()
    flight: Any = Flight([])
    fixes = while_awaited(endless(), flight, 1.0)
    next(fixes)
    assert threading.active_count() == before + 1
    fixes.close()
    assert threading.active_count() == before
