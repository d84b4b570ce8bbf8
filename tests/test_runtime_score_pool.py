import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from s4g.runtime.score_flight import Flight, match_flight
from s4g.runtime.score_pool import pool_flights
from s4g.runtime.score_times import Relocalisation
from s4g.runtime.score_truth import read_truth

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_fixes.py"))))


@pytest.fixture
def flight(tmp_path: Path) -> Any:
    def flight(*offs_m: float | None, limit_m: float | None = None, **flown: Any) -> Flight:
        events = flown.pop("events", None)
        truth = read_truth(toy.truth_csv(tmp_path, len(offs_m), events))
        return match_flight(toy.flown(*offs_m, **flown), truth, limit_m)

    return flight


def test_flights_weigh_as_their_frames_do(flight: Any) -> None:
    pool = pool_flights([flight(1, 1, 1, None), flight(5)])
    assert (pool.score.frames, pool.score.fixes, pool.score.availability) == (5, 4, 0.8)
    assert pool.score.median_m == pytest.approx(1.0, abs=1e-3)
    assert pool.score.rmse_m == pytest.approx(np.sqrt((1 + 1 + 1 + 25) / 4), abs=1e-3)


def test_one_flight_pooled_is_that_flight_without_intervals(flight: Any) -> None:
    pool = pool_flights([flight(1, 2, 30)])
    assert pool.score.max_m == pytest.approx(30, abs=1e-2)
    assert pool.intervals == {}


def test_intervals_draw_flights(flight: Any) -> None:
    """Two flights, one always right and one always wrong: shares of 0, 1/2 and 1 are drawn."""
    pool = pool_flights([flight(*[1] * 50), flight(*[90] * 50)])
    assert pool.score.false_fix_rate == 0.5
    assert pool.intervals["false_fix_rate"] == (0.0, 1.0)
    assert pool.intervals["median_m"] == pytest.approx((1.0, 90.0), abs=2e-2)


def test_flights_that_are_alike_have_narrow_intervals(flight: Any) -> None:
    rng = np.random.default_rng(3)
    flights = [flight(*np.hypot(*rng.standard_normal((2, 200)))) for _ in range(12)]
    pool = pool_flights(flights, 300)
    low, high = pool.intervals["median_m"]
    assert pool.score.median_m is not None
    assert low < pool.score.median_m < high < 1.1 * low


def test_the_same_flights_give_the_same_intervals(flight: Any) -> None:
    flights = [flight(1, 2), flight(3, None), flight(50)]
    assert pool_flights(flights) == pool_flights(flights)


def test_a_draw_without_any_fix_has_no_error_and_is_no_failure(flight: Any) -> None:
    pool = pool_flights([flight(None, None), flight(2.0, 2.0)])
    assert pool.intervals["median_m"] == pytest.approx((2.0, 2.0), abs=1e-3)
    assert pool.intervals["availability"] == (0.0, 1.0)


def test_times_of_flights_are_put_together(flight: Any) -> None:
    flights = [
        flight(1, None, 1, events={1: "kidnap"}),
        flight(None, 1, 1),
        flight(None, None, 1, None, None),
        flight(1, 1),
    ]
    score = pool_flights(flights).score
    assert score.duration_s == 3 + 3 + 5 + 2
    assert score.first_fix_s == 0.5  # of 0, 1, 2 and 0
    assert (score.longest_outage_s, score.longest_outage_from_s) == (2.0, None)
    assert score.relocalisations == (vars(Relocalisation("kidnap", 1.0, 1.0)),)


def test_where_half_of_the_flights_find_nothing_there_is_no_usual_first_fix(flight: Any) -> None:
    assert pool_flights([flight(1, 1), flight(None, None)]).score.first_fix_s is None
    assert pool_flights([flight(1), flight(None, 1), flight(None)]).score.first_fix_s == 1.0


def test_flights_of_one_alert_limit_are_pooled_under_it(flight: Any) -> None:
    pool = pool_flights([flight(1, 9, limit_m=5.0), flight(2, limit_m=5.0)])
    assert (pool.score.alert_limit_m, pool.score.false_fixes) == (5.0, 1)
