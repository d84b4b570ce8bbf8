"""Which fixes an output gets: of files on the frames' clock, of live sources when they are due."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.runtime import sink_pace
from s4g.runtime.fix import Fix, State
from s4g.runtime.observe import Observation
from s4g.runtime.rate import between_frames
from s4g.runtime.sink_pace import Due, EachFrame, Multiples, Pace, Seen, Ticks

toys = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_tracks.py"))))
track = toys.track
GROUND = toys.GROUND


def seen(t: float, offset_s: float | None = None) -> Seen:
    known = track(t, round(t * 10))
    return Seen(Observation(known.said(), {}, track=known), offset_s=offset_s)


def alone(t: float | None, offset_s: float | None = None) -> Seen:
    """An observation with `--single`, or before anything is known."""
    return Seen(Observation(Fix(0, t, State.ACQUIRING), {}), offset_s=offset_s)


def all_due(pace: Pace, *frames: Seen) -> list[Due]:
    return [due for frame in frames for due in pace.after(frame)]


def times(dues: list[Due]) -> list[float | None]:
    return [None if due.fix.t is None else round(due.fix.t, 6) for due in dues]


def test_each_frame_gives_its_own_fix() -> None:
    frames = [seen(1.0), seen(1.1), seen(0.5), alone(None)]
    dues = all_due(EachFrame(), *frames)
    assert [due.fix for due in dues] == [frame.observation.fix for frame in frames]
    assert all(due.is_frame for due in dues)
    assert EachFrame().wait_s() == math.inf
    assert list(EachFrame().meanwhile()) == []


def test_frames_are_thinned_out_by_their_own_clock() -> None:
    # A clock that jumps back begins anew; what has no time is never left out.
    frames = [seen(t / 10) for t in (0, 1, 2, 3, 4, 9, 10, 1, 2)]
    dues = all_due(EachFrame(0.2), *frames, alone(None), alone(None))
    assert times(dues) == [0.0, 0.2, 0.4, 0.9, 0.1, None, None]


def test_a_file_gives_multiples_of_the_period_and_no_others() -> None:
    dues = all_due(Multiples(10), *(seen(t) for t in (0.95, 1.0, 1.25, 1.4, 1.43)))
    assert times(dues) == [1.0, 1.1, 1.2, 1.3, 1.4]
    assert [due.is_frame for due in dues] == [True, False, False, False, True]
    for due in dues:
        assert due.fix.t is not None
        assert due.fix.lat is not None
        east, north = GROUND.to_local(due.fix.lat, due.fix.lon)
        assert (float(east), float(north)) == pytest.approx((20 * due.fix.t, 0), abs=1e-3)


def test_a_frame_on_a_multiple_is_itself_though_floats_differ() -> None:
    assert 0.1 + 0.2 != 0.3
    dues = all_due(Multiples(10), seen(0.25), seen(0.1 + 0.2), seen(0.41))
    assert times(dues) == [0.3, 0.4]
    assert [due.is_frame for due in dues] == [True, False]


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=30, unique=True), st.integers(1, 50))
def test_however_frames_come_each_multiple_between_them_comes_once(
    milliseconds: list[int], rate_hz: int
) -> None:
    stamps = [ms / 1000 for ms in sorted(milliseconds)]
    found = times(all_due(Multiples(rate_hz), *(seen(t) for t in stamps)))
    first = math.ceil(round(stamps[0] * rate_hz, 6))
    last = math.floor(round(stamps[-1] * rate_hz, 6))
    assert found == [round(n / rate_hz, 6) for n in range(first, last + 1)]


def test_positions_between_frames_are_those_of_the_rate_option() -> None:
    stamps = [1.0, 1.3, 1.45]
    tracker: Any = SimpleNamespace(track=None)

    def results() -> Any:
        for t in stamps:
            tracker.track = track(t)
            yield tracker.track.said(), {}

    printed = {fix.t: fix for fix, _ in between_frames(results(), tracker, 10.0)}
    dues = all_due(Multiples(10), *(seen(t) for t in stamps))
    for due in dues[1:]:
        assert due.fix.lat == printed[due.fix.t].lat
        assert due.fix.sigma_m == printed[due.fix.t].sigma_m


@pytest.mark.parametrize("stamps", [[0.05, 100.05], [100.05, 0.05], [5.05, 5.05]])
def test_a_clock_that_jumps_is_not_filled_in(stamps: list[float]) -> None:
    assert all_due(Multiples(10), *(seen(t) for t in stamps)) == []


def test_where_nothing_is_carried_on_frames_are_thinned_out() -> None:
    dues = all_due(Multiples(10), *(alone(t / 100) for t in range(0, 31, 5)), alone(None))
    assert times(dues) == [0.0, 0.1, 0.2, 0.3, None]
    assert all(due.is_frame for due in dues)


class Clock:
    now_s = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(sink_pace.time, "monotonic", lambda: clock.now_s)
    return clock


def test_a_live_output_says_where_the_drone_is_now(clock: Clock) -> None:
    pace = Ticks(10)
    assert pace.wait_s() == math.inf  # nothing is known yet
    assert list(pace.meanwhile()) == []
    (first,) = pace.after(seen(999.8, 0.0))
    assert (first.fix.t, first.is_frame) == (1000.0, False)
    assert pace.wait_s() == pytest.approx(0.1)
    clock.now_s = 1000.04
    assert list(pace.after(seen(1000.0, 0.0))) == []
    assert pace.wait_s() == pytest.approx(0.06)
    clock.now_s = 1000.11
    assert pace.wait_s() == 0
    (second,) = pace.meanwhile()
    assert second.fix.t == 1000.11
    assert second.fix.lat is not None
    east, _ = GROUND.to_local(second.fix.lat, second.fix.lon)
    assert float(east) == pytest.approx(20 * 1000.11, abs=0.1)
    assert pace.wait_s() == pytest.approx(0.09)


def test_moments_that_were_missed_are_not_made_up_for(clock: Clock) -> None:
    pace = Ticks(10)
    assert len(all_due(pace, seen(1000.0, 0.0))) == 1
    clock.now_s = 1003.05
    assert len(list(pace.meanwhile())) == 1
    assert list(pace.meanwhile()) == []
    assert pace.wait_s() == pytest.approx(0.05)


def test_a_camera_that_hangs_makes_positions_worse_and_then_none(clock: Clock) -> None:
    pace = Ticks(1)
    states, sigmas = [], []
    for number in range(60):
        clock.now_s = 1000.0 + number
        dues = all_due(pace, seen(1000.0, 0.0)) if number == 0 else list(pace.meanwhile())
        states.append(dues[0].fix.state)
        sigmas.append(dues[0].fix.sigma_m)
    assert states[:3] == [State.TRACK, State.TRACK, State.DEGRADED]
    given = [sigma for sigma in sigmas if sigma is not None]
    assert given == sorted(given)
    assert states[-1] == State.NO_FIX
    assert sigmas[-1] is None


def test_the_clock_of_a_flight_that_is_played_back_goes_on(clock: Clock) -> None:
    pace = Ticks(10)
    (due,) = pace.after(seen(12.0, 12.0 - 999.9))
    assert due.fix.t == pytest.approx(12.1)


def test_live_frames_without_a_track_are_thinned_out(clock: Clock) -> None:
    pace = Ticks(10)
    dues = all_due(pace, *(alone(1000 + n / 20, 0.0) for n in range(5)))
    assert times(dues) == [1000.0, 1000.1, 1000.2]
    assert pace.wait_s() == math.inf
