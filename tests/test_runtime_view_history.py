"""What a live map remembers of a run."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.runtime import view_history
from s4g.runtime.fix import Fix, Reason, State
from s4g.runtime.view_history import STATES, History, Noted


def noted(number: int, state: State = State.TRACK, **changes: Any) -> Noted:
    placed = state in (State.TRACK, State.DEGRADED)
    made = Fix(
        number,
        float(number),
        state,
        lat=47.0 + number * 1e-5 if placed else None,
        lon=8.0 if placed else None,
        **({"latency_ms": 10.0} | changes),
    )
    return Noted(made, float(number), 1e9 + number, True)


def told(history: History) -> list[list[float]]:
    return history.points_between(0, history.points)


def test_places_are_told_by_number_and_a_gap_where_the_position_was_lost() -> None:
    history = History()
    lost = State.NO_FIX
    for number, state in enumerate([State.TRACK, State.DEGRADED, lost, lost, State.TRACK]):
        history.note(noted(number, state))
    track, degraded = STATES.index("TRACK"), STATES.index("DEGRADED")
    assert told(history) == [
        [47.0, 8.0, track, 1],
        [47.00001, 8.0, degraded, 0],
        [47.00004, 8.0, track, 1],
    ]
    assert history.points_between(1, 2) == [[47.00001, 8.0, degraded, 0]]


def test_a_change_of_state_or_reason_is_an_event_and_nothing_else_is() -> None:
    history = History()
    for number, reason in enumerate([None, None, Reason.DARK, Reason.DARK, Reason.TILT]):
        state = State.TRACK if reason is None else State.NO_FIX
        history.note(noted(number, state, reason=reason))
    events = history.events_between(0, history.events)
    assert [(e["frame"], e["state"], e["reason"]) for e in events] == [
        (0, "TRACK", None),
        (2, "NO_FIX", "dark"),
        (4, "NO_FIX", "tilt"),
    ]
    assert events[1]["at"] == 1e9 + 2


def test_rate_and_latency_are_those_of_late() -> None:
    history = History()
    for number in range(100):
        made = noted(number, latency_ms=float(number + 1))
        history.note(Noted(made.fix, number / 10, made.unix_s, True))
    assert history.latencies_ms() == (50.0, 95.0)
    assert history.rate_hz(9.9) == pytest.approx(10.0, abs=0.25)
    assert history.rate_hz(30.0) == 0.0


def test_a_time_without_a_frame_counts_as_none() -> None:
    history = History()
    history.note(Noted(Fix(0, 0.0, State.NO_FIX, latency_ms=None), 0.0, 0.0, False))
    assert (history.frames, history.latencies_ms(), history.rate_hz(0.0)) == (0, None, 0.0)


def test_a_long_flight_is_thinned_and_its_newest_part_is_not() -> None:
    history = History()
    for number in range(50_000):
        history.note(noted(number))
    points = told(history)
    assert history.points == 50_000
    assert len(points) <= 6000
    newest = [round((lat - 47.0) / 1e-5) for lat, *_ in points]
    assert newest[-1000:] == list(range(49_000, 50_000))
    assert newest[0] == 0
    assert newest == sorted(newest)


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_thinning_joins_no_two_parts_of_a_track(placed: list[bool]) -> None:
    history = History()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view_history, "_MOST_POINTS", 12)
        patch.setattr(view_history, "_NEW_POINTS", 5)
        for number, one in enumerate(placed):
            history.note(noted(number, State.TRACK if one else State.NO_FIX))
    gaps = {round((lat - 47.0) / 1e-5): gap for lat, _, _, gap in told(history)}
    for before, after in zip(list(gaps), list(gaps)[1:], strict=False):
        assert gaps[after] == 1 or all(placed[before:after])


def test_events_are_bounded() -> None:
    history = History()
    for number in range(2000):
        history.note(noted(number, State.TRACK if number % 2 else State.NO_FIX))
    assert history.events == 2000
    assert len(history.events_between(0, 2000)) == 300
