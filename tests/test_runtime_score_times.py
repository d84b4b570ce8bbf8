import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.runtime.score_times import (
    Relocalisation,
    first_fix_s,
    frame_period_s,
    longest_outage,
    relocalisations,
    running,
)


def marks(text: str) -> np.ndarray:
    """`x` is true, anything else false."""
    return np.array([letter == "x" for letter in text], bool)


def seconds(count: int, step_s: float = 1.0) -> np.ndarray:
    return step_s * np.arange(count)


def test_frames_from_before_one_that_was_seen_tell_no_time() -> None:
    t_s = np.array([math.nan, 1.0, 2.0, 1.5, 2.0, math.nan, 0.0, 3.0])
    assert running(t_s).tolist() == marks(".xx.x..x").tolist()
    assert running(np.zeros(0)).tolist() == []


def test_the_frame_period_is_the_usual_step() -> None:
    assert frame_period_s(np.array([0.0, 0.1, 0.2, 0.2, 5.0, 5.1])) == pytest.approx(0.1)
    assert frame_period_s(np.array([3.0])) == 0.0


def test_the_first_fix_is_timed_from_the_first_frame() -> None:
    assert first_fix_s(5.0 + seconds(4), marks("..xx")) == 2.0
    assert first_fix_s(seconds(3), marks("...")) is None


@pytest.mark.parametrize(
    ("issued", "outage_s", "from_s"),
    [
        ("xxxxxx", 0.0, None),
        ("xx.xxx", 1.0, 2.0),
        ("xx...x", 3.0, 2.0),
        ("x.xx..", 2.0, 4.0),  # to the end
        ("...xxx", 0.0, None),  # that is the time to the first fix
        ("..x.x.", 1.0, 3.0),
        ("......", 6.0, 0.0),
    ],
)
def test_an_outage_lasts_as_long_as_its_frames(
    issued: str, outage_s: float, from_s: float | None
) -> None:
    assert longest_outage(seconds(6), marks(issued), 1.0) == (outage_s, from_s)


def test_frames_that_never_came_are_an_outage_too() -> None:
    t_s = np.array([0.0, 0.1, 0.2, 5.3, 5.4])
    outage_s, from_s = longest_outage(t_s, marks("xxxxx"), 0.1)
    assert (outage_s, from_s) == (pytest.approx(5.0), pytest.approx(0.3))


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.floats(0.05, 3.0))
def test_the_longest_outage_is_the_longest_run_of_frames_without(
    issued: list[bool], step_s: float
) -> None:
    after_first = "".join(".x"[got] for got in issued).lstrip(".") or "." * len(issued)
    longest = max(len(run) for run in after_first.split("x"))
    outage_s, _ = longest_outage(seconds(len(issued), step_s), np.array(issued), step_s)
    assert outage_s == pytest.approx(longest * step_s, abs=1e-6)


def test_an_event_is_got_over_with_the_first_right_fix_after_it() -> None:
    found = marks("xx...xxx.x")
    assert relocalisations(seconds(10), found, 1.0, [("kidnap", 2.0), ("blackout", 8.0)]) == (
        Relocalisation("kidnap", 2.0, 3.0),
        Relocalisation("blackout", 8.0, 1.0),
    )


def test_a_fix_at_the_event_itself_counts() -> None:
    (event,) = relocalisations(seconds(4), marks("xxxx"), 1.0, [("kidnap", 2.0)])
    assert event.after_s == 0.0


def test_an_event_that_the_next_one_overtakes_was_not_got_over() -> None:
    found = marks("x....x")
    events = relocalisations(seconds(6), found, 1.0, [("kidnap", 1.0), ("kidnap", 4.0)])
    assert [event.after_s for event in events] == [None, 1.0]


def test_events_beyond_the_flight_are_none_of_it() -> None:
    events = [("before", -1.5), ("at the start", -0.5), ("after", 3.5)]
    assert [e.event for e in relocalisations(seconds(4), marks("xxxx"), 1.0, events)] == [
        "at the start"
    ]
    assert relocalisations(np.zeros(0), marks(""), 0.0, [("kidnap", 0.0)]) == ()
