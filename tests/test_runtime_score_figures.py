import json
import math
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.runtime.score_figures import Score, score_flight, score_frames
from s4g.runtime.score_flight import Frames, match_flight
from s4g.runtime.score_read import ScoredFix
from s4g.runtime.score_statistics import R95_PER_SIGMA, radius_per_sigma
from s4g.runtime.score_times import Times
from s4g.runtime.score_truth import read_truth

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_fixes.py"))))


@pytest.fixture
def score(tmp_path: Path) -> Any:
    def score(fixes: list[ScoredFix], alert_limit_m: float | None = None) -> Score:
        truth = read_truth(toy.truth_csv(tmp_path, len(fixes)))
        return score_flight(match_flight(fixes, truth, alert_limit_m))

    return score


def frames_of(error_m: Any, sigma_m: Any = 2.0, hpl_m: Any = math.nan) -> Frames:
    """Fixes in TRACK with these errors."""
    error_m = np.asarray(error_m, np.float64)
    count = len(error_m)
    return Frames(
        state=np.full(count, "TRACK"),
        reason=np.full(count, ""),
        issued=np.ones(count, bool),
        error_m=error_m,
        limit_m=np.full(count, np.inf),
        sigma_m=np.broadcast_to(np.float64(sigma_m), count),
        hpl_m=np.broadcast_to(np.float64(hpl_m), count),
        anchor_age_s=np.zeros(count),
        latency_ms=np.full(count, np.nan),
    )


def gaussian_errors(count: int, sigma_m: float, seed: int = 5) -> Any:
    rng = np.random.default_rng(seed)
    return np.hypot(*(sigma_m * rng.standard_normal((2, count))))


def test_the_errors_of_fixes_by_hand(score: Any) -> None:
    found = score(toy.flown(1, 2, None, 3, 4, 50))
    assert found.median_m == pytest.approx(3.0, abs=1e-3)
    # Between the fourth and the fifth: 0.95 of 4 steps is 3.8.
    assert found.r95_m == pytest.approx(4 + 0.8 * 46, abs=1e-2)
    assert found.rmse_m == pytest.approx(math.sqrt((1 + 4 + 9 + 16 + 2500) / 5), abs=1e-3)
    assert found.max_m == pytest.approx(50.0, abs=1e-2)


def test_frames_without_a_fix_count_per_reason_and_state(score: Any) -> None:
    fixes = toy.flown(1, None, 3, None)
    fixes[3] = toy.fix(3, None, state="OUT_OF_PACK", reason=None)
    found = score(fixes)
    assert (found.frames, found.fixes, found.coverage) == (4, 2, 0.5)
    assert found.states == {"NO_FIX": 1, "OUT_OF_PACK": 1, "TRACK": 2}
    assert found.reasons == {"ambiguous": 1, "out_of_pack": 1}


def test_available_is_what_is_bounded_within_the_alert_limit(score: Any) -> None:
    fixes = toy.flown(1, 1, None, 1, 1)
    fixes[1] = toy.fix(1, 1, hpl_m=10.01)
    fixes[3] = toy.fix(3, 1, hpl_m=10.0)
    fixes[4] = toy.fix(4, 1, hpl_m=None)
    assert score(fixes).availability == 0.8  # a position is all that is asked
    found = score(fixes, 10.0)
    assert (found.availability, found.coverage) == (0.4, 0.8)


def test_a_fix_beyond_its_limit_is_false(score: Any) -> None:
    found = score(toy.flown(39, 41, None, 39, 41, 39))
    assert (found.false_fixes, found.false_fix_rate) == (2, 0.4)
    found = score(toy.flown(9, 11, None, 9), 10.0)
    assert (found.false_fixes, found.false_fix_rate) == (1, pytest.approx(1 / 3))


def test_a_fix_beyond_its_bound_is_misleading(score: Any) -> None:
    fixes = [*toy.flown(7.3, 7.6, None, 1), toy.fix(4, 30, hpl_m=None)]
    found = score(fixes)
    assert (found.misleading, found.misleading_rate) == (1, pytest.approx(1 / 3))
    assert found.misleading_interval == pytest.approx((0.008403759, 0.9057007), abs=1e-6)
    assert (found.hazardous, found.hazardous_rate) == (None, None)


def test_hazardous_is_what_the_bound_hides_from_the_alert(score: Any) -> None:
    fixes = [
        toy.fix(0, 12, hpl_m=8.0),  # hazardous
        toy.fix(1, 12, hpl_m=11.0),  # misleading, but the bound raises the alert
        toy.fix(2, 9, hpl_m=8.0),  # misleading, not dangerous
        toy.fix(3, 12, hpl_m=10.0),  # hazardous: the alert limit itself raises none
        toy.fix(4, 5, hpl_m=8.0),
        toy.fix(5, 12, hpl_m=None),  # false, but it promised nothing
        toy.fix(6, None),
    ]
    found = score(fixes, 10.0)
    assert (found.hazardous, found.hazardous_rate) == (2, 0.4)
    assert (found.misleading, found.misleading_rate) == (4, 0.8)
    assert found.false_fixes == 4


def test_nees_is_the_mean_square_of_error_by_sigma(score: Any) -> None:
    fixes = [*toy.flown(2, 6), toy.fix(2, 30, sigma_m=None), toy.fix(3, 3, sigma_m=3.0)]
    found = score(fixes)
    assert found.nees == pytest.approx((1 + 9 + 1) / 3, abs=1e-3)
    assert found.nees_interval == pytest.approx((1.237344 / 3, 14.449375 / 3), abs=1e-5)
    assert found.inside_r95 == pytest.approx(2 / 3)


def test_honest_gaussians_have_their_nees_in_the_interval() -> None:
    sigma_m = np.linspace(1, 30, 3000)
    honest = score_frames(frames_of(gaussian_errors(3000, 1.0) * sigma_m, sigma_m), Times(), None)
    assert honest.nees_interval is not None and honest.nees is not None
    low, high = honest.nees_interval
    assert low < honest.nees < high
    assert honest.inside_r95 == pytest.approx(0.95, abs=0.015)
    understated = score_frames(
        frames_of(gaussian_errors(3000, 1.2) * sigma_m, sigma_m), Times(), None
    )
    assert understated.nees is not None and understated.nees > high


@given(st.floats(0.1, 300.0), st.integers(0, 2**32 - 1))
def test_radii_of_gaussian_errors_are_rayleighs(sigma_m: float, seed: int) -> None:
    count = 4000
    found = score_frames(frames_of(gaussian_errors(count, sigma_m, seed)), Times(), None)
    assert found.median_m == pytest.approx(radius_per_sigma(0.5) * sigma_m, rel=0.08)
    assert found.r95_m == pytest.approx(R95_PER_SIGMA * sigma_m, rel=0.09)
    assert found.rmse_m == pytest.approx(math.sqrt(2) * sigma_m, rel=0.06)  # DRMS


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=50))
def test_figures_keep_their_order_and_their_range(errors_m: list[float]) -> None:
    found = score_frames(frames_of(errors_m, hpl_m=50.0), Times(), 100.0)
    assert found.median_m is not None and found.r95_m is not None and found.rmse_m is not None
    assert 0 <= found.median_m <= found.r95_m <= (found.max_m or 0) * (1 + 1e-12) + 1e-12
    assert min(errors_m) <= found.rmse_m * (1 + 1e-9) + 1e-150
    assert (found.hazardous or 0) <= found.misleading <= found.fixes
    assert found.misleading == sum(error > 50 for error in errors_m)


def test_errors_are_told_by_state(score: Any) -> None:
    fixes = toy.flown(1, 2, 3, 50, None)
    fixes[3] = toy.fix(3, 50, state="DEGRADED", sigma_m=25.0, hpl_m=93.0)
    track, degraded = score(fixes).by_state
    assert (track.name, track.fixes, degraded.name, degraded.fixes) == ("TRACK", 3, "DEGRADED", 1)
    assert track.median_m == pytest.approx(2, abs=1e-3)
    assert track.nees == pytest.approx((1 + 4 + 9) / 4 / 3, abs=1e-3)
    assert (degraded.median_m, degraded.r95_m, degraded.max_m) == (
        pytest.approx([50] * 3, abs=1e-2)
    )
    assert (degraded.false_fixes, degraded.misleading) == (1, 0)
    assert (track.false_fixes, track.misleading) == (0, 0)


def test_errors_are_told_by_the_age_of_the_last_match(score: Any) -> None:
    ages = (0.0, 0.05, 1.0, 1.01, 3.5, 29.0, 30.0, 31.0, None)
    fixes = [toy.fix(i, i + 1.0, anchor_age_s=age) for i, age in enumerate(ages)]
    found = score([*fixes, toy.fix(9, None)])
    assert [(group.name, group.fixes) for group in found.by_anchor_age] == [
        ("0 s", 1), ("0–1 s", 2), ("1–3 s", 1), ("3–10 s", 1), ("10–30 s", 2), ("> 30 s", 1),
    ]  # fmt: skip
    assert found.by_anchor_age[1].max_m == pytest.approx(3.0, abs=1e-3)


def test_latency_is_of_all_frames_and_unknown_ones_are_left_out(score: Any) -> None:
    fixes = [toy.fix(i, None, latency_ms=float(i)) for i in range(101)]
    found = score([*fixes, toy.fix(101, None, latency_ms=None)])
    assert (found.latency_p50_ms, found.latency_p95_ms) == (50.0, 95.0)
    assert score([toy.fix(0, 1, latency_ms=None)]).latency_p95_ms is None


def test_without_any_fix_there_is_a_score_without_errors(score: Any) -> None:
    found = score(toy.flown(None, None), 10.0)
    assert (found.fixes, found.coverage, found.availability) == (0, 0.0, 0.0)
    assert (found.false_fixes, found.misleading, found.hazardous) == (0, 0, 0)
    for name in (
        "median_m", "r95_m", "rmse_m", "max_m", "false_fix_rate", "misleading_rate",
        "misleading_interval", "hazardous_rate", "nees", "nees_interval", "inside_r95",
        "first_fix_s",
    ):  # fmt: skip
        assert getattr(found, name) is None, name
    assert (found.by_state, found.by_anchor_age) == ((), ())
    assert found.longest_outage_s == 2.0


def test_the_json_is_plain_and_rounded_by_unit(tmp_path: Path) -> None:
    truth = read_truth(toy.truth_csv(tmp_path, 4, {1: "kidnap"}))
    value = score_flight(match_flight(toy.flown(1, None, 3, 9), truth, 12.3456)).to_dict()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["median_m"] == 3.0
    assert value["alert_limit_m"] == 12.346
    assert value["misleading_rate"] == 0.333333
    assert value["misleading_interval"] == [0.008404, 0.905701]
    assert value["relocalisations"] == [{"event": "kidnap", "t_s": 1.0, "after_s": 1.0}]
    assert value["by_state"][0]["name"] == "TRACK"
    assert value["notes"] == []
