"""A place that frames surely see for ten seconds, and what breaks the row."""

from __future__ import annotations

import numpy as np
import pytest

from s4g.runtime.sights import Sights

HERE_M = np.array([120.0, -40.0])
REACH_M, MOST_NEWS = 60.0, 3.0


def seen(seconds: float, sights: Sights | None = None, start_t: float = 0.0) -> Sights:
    """Two frames a second that see HERE_M."""
    sights = sights or Sights()
    for number in range(round(2 * seconds) + 1):
        sights.note(start_t + number / 2, HERE_M, 0.05, REACH_M)
    return sights


def test_a_place_counts_once_it_was_seen_for_ten_seconds() -> None:
    assert seen(9.5).hovered_over(9.5, MOST_NEWS) is None
    place_m = seen(10.0).hovered_over(10.0, MOST_NEWS)
    assert place_m == pytest.approx(HERE_M)


def test_it_counts_at_the_time_of_a_sight_alone() -> None:
    assert seen(10.0).hovered_over(10.5, MOST_NEWS) is None


def test_another_place_begins_anew() -> None:
    sights = seen(9.5)
    sights.note(10.0, HERE_M + 70.0, 0.05, REACH_M)
    assert seen(9.5, sights, 10.5).hovered_over(20.0, MOST_NEWS) is None


def test_a_row_with_a_gap_begins_anew() -> None:
    assert seen(6.0, seen(4.0), 7.5).hovered_over(13.5, MOST_NEWS) is None
    assert seen(6.0, seen(4.0), 7.0).hovered_over(13.0, MOST_NEWS) is not None


def test_whoever_sees_new_ground_has_better_evidence() -> None:
    sights = Sights()
    for number in range(21):
        sights.note(number / 2, HERE_M, 0.5, REACH_M)
    assert sights.hovered_over(10.0, MOST_NEWS) is None


def test_the_place_moves_with_the_drone() -> None:
    sights = Sights()
    for number in range(21):
        sights.note(number / 2, HERE_M + 4.0 * number, 0.05, REACH_M)
        if number < 20:
            sights.moved(np.array([4.0, 4.0]))
    assert sights.hovered_over(10.0, MOST_NEWS) == pytest.approx(HERE_M + 80.0)


def test_a_clock_that_is_set_back_neither_ends_nor_lengthens_a_row() -> None:
    sights = seen(5.0)
    sights.shifted(-1000.0)
    assert seen(4.5, sights, -994.5).hovered_over(-990.0, MOST_NEWS) is not None
    assert seen(4.0, seen(5.0), 5.5).hovered_over(9.5, MOST_NEWS) is None


def test_what_was_forgotten_was_never_seen() -> None:
    sights = seen(9.5)
    sights.forget()
    sights.note(10.0, HERE_M, 0.05, REACH_M)
    assert sights.hovered_over(10.0, MOST_NEWS) is None
