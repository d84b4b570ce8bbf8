"""Figures of the benchmark of conditions: what they count, and how sure they are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s4g.core.engine import load_engine


@pytest.fixture(autouse=True)
def benchmark_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[1] / "benchmarks" / "encoder"
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])


def answers(**changes: Any) -> Any:
    """Four queries of two clusters in a map of three tiles of 10 m, and two foreign ones."""
    from metrics import found

    values = {
        "scores": np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.3], [0.2, 0.6, 0.5], [0.1, 0.3, 0.4]]),
        "distance_m": np.array([[1, 20, 40], [4, 20, 40], [20, 6, 2], [30, 40, 50]], np.float64),
        "footprint_m": 10.0,
        "cluster": np.array([0, 0, 1, 1]),
        "foreign": np.array([[0.2, 0.3, 0.1], [0.5, 0.1, 0.7]]),
        "foreign_cluster": np.array([0, 1]),
    }
    return found(**(values | changes))


def test_a_tile_within_half_a_footprint_is_right() -> None:
    from metrics import figures

    values = figures(answers())
    assert values["recall_at_1"]["value"] == 0.5
    assert values["recall_at_5"]["value"] == 0.75  # the third query's second tile is 2 m off
    assert values["median_m"]["value"] == 5.0  # of 1, 4, 6 and 50 m


def test_aucs_count_pairs_in_order() -> None:
    from metrics import figures

    # Ten right answers at 0.9 ... 0.0; five wrong ones far off at 0.85, one near at 0.05.
    score = np.concatenate([np.linspace(0.9, 0.0, 10), np.full(5, 0.85), [0.05]])
    of = answers(
        scores=score[:, None],
        distance_m=np.array([0.0] * 10 + [30.0] * 5 + [6.0])[:, None],
        cluster=np.arange(16),
        foreign=np.full((5, 1), 0.55),
        foreign_cluster=np.arange(5),
    )
    values = figures(of)
    assert values["auc_right"]["value"] == pytest.approx(14 / 60)
    assert values["auc_far"]["value"] == pytest.approx(0.1)
    # Of 16 known nine lie above 0.55: 0.9, 0.8, 0.7, 0.6 and the five far off.
    assert values["auc_foreign"]["value"] == pytest.approx(9 / 16)
    assert figures(answers())["auc_right"]["value"] is None  # two right, two wrong: too few


def test_ground_left_out_of_the_map_is_what_lies_a_footprint_away() -> None:
    # Of the third query both tiles near the truth fall away.
    assert answers().elsewhere.tolist() == [0.1, 0.3, 0.2, 0.4]


def test_the_auc_equals_a_count_over_all_pairs() -> None:
    from metrics import _auc

    rng = np.random.default_rng(1)
    scores = rng.integers(0, 12, 60) / 12  # with ties
    positive = rng.random(60) < 0.4
    weight = rng.integers(0, 3, (4, 60)).astype(np.float64)
    up, down = scores[positive], scores[~positive]
    wins = (up[:, None] > down) + 0.5 * (up[:, None] == down)
    for got, row in zip(_auc(scores, positive, weight), weight, strict=True):
        pairs = row[positive][:, None] * row[~positive]
        assert got == pytest.approx((wins * pairs).sum() / pairs.sum())


def test_an_auc_without_a_wrong_answer_cannot_be_had() -> None:
    from metrics import figures

    right = answers(distance_m=np.zeros((4, 3)))
    assert figures(right)["auc_right"] == {"value": None, "low": None, "high": None}


def test_intervals_are_of_clusters_not_of_queries() -> None:
    from metrics import figures

    rng = np.random.default_rng(2)
    hits = np.repeat(rng.random(20) < 0.5, 30)  # queries of one cluster fare alike
    distance_m = np.where(hits, 0.0, 50.0)[:, None]
    whole = {
        "scores": np.ones((600, 1)),
        "distance_m": distance_m,
        "foreign": np.zeros((0, 1)),
        "foreign_cluster": np.zeros(0, np.int64),
    }
    apart = figures(answers(**whole, cluster=np.arange(600)))["recall_at_1"]
    together = figures(answers(**whole, cluster=np.repeat(np.arange(20), 30)))["recall_at_1"]
    assert apart["value"] == together["value"]
    assert together["high"] - together["low"] > 3 * (apart["high"] - apart["low"])


def test_the_same_answers_have_the_same_intervals() -> None:
    from metrics import figures

    assert figures(answers()) == figures(answers())


def test_regions_are_joined_without_joining_their_clusters() -> None:
    from metrics import joined

    both = joined([answers(), answers()])
    assert both.cluster.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert both.foreign_cluster.tolist() == [0, 1, 2, 3]


def test_aucs_by_probability_rank_by_what_is_claimed() -> None:
    from metrics import figures

    # Ten right and five wrong answers of one score: the probability alone tells them apart.
    of = {
        "scores": np.full((15, 1), 0.5),
        "distance_m": np.array([0.0] * 10 + [30.0] * 5)[:, None],
        "cluster": np.arange(15),
        "foreign": np.full((5, 1), 0.5),
        "foreign_cluster": np.arange(5),
    }
    claimed = np.concatenate([np.linspace(1.0, 0.1, 10), np.full(5, 0.15)])
    values = figures(answers(**of, claimed=claimed, foreign_claimed=np.full(5, 0.25)))
    assert values["auc_right"]["value"] == 0.5
    assert values["auc_right_claimed"]["value"] == pytest.approx(0.9)  # all but that at 0.1
    # Above 0.25 lie eight of fifteen: 1.0 ... 0.3.
    assert values["auc_foreign_claimed"]["value"] == pytest.approx(8 / 15)


def test_a_method_that_claims_no_probability_has_no_auc_by_it() -> None:
    from metrics import figures, joined

    many = joined([answers()] * 3)
    values = figures(many)
    assert values["auc_right"]["value"] is not None
    assert values["auc_right_claimed"] == {"value": None, "low": None, "high": None}
    assert values["auc_foreign_claimed"]["value"] is None


def test_claims_that_hold_have_no_calibration_error() -> None:
    from calibration import calibration_error

    right = np.array([False, True] * 50 + [True] * 100)
    claimed = np.array([0.5] * 100 + [1.0] * 100)
    assert calibration_error(claimed, right) == pytest.approx(0.0)
    assert calibration_error(np.ones(200), right) == pytest.approx(0.25)


def test_a_reliability_diagram_has_bins_of_one_width_and_no_empty_ones() -> None:
    from calibration import reliability

    claimed = np.array([0.0, 0.04, 0.05, 0.96, 1.0])
    bins = reliability(claimed, np.array([False, True, False, True, True]))
    assert [part["count"] for part in bins] == [2, 1, 2]
    assert [part["claimed"] for part in bins] == pytest.approx([0.02, 0.05, 0.98])
    assert [part["right"] for part in bins] == [0.5, 0.0, 1.0]


def test_what_is_claimed_of_an_answer_is_the_share_of_the_tiles_beside_it(
    toy_encoder: Path,
) -> None:
    from calibration import claims

    spec = load_engine(toy_encoder, "cpu", 1).spec
    scores = np.array([[0.5, 0.5, 0.5, 0.5]])
    center_m = np.array([[0.0, 0.0], [4.0, 0.0], [100.0, 0.0], [200.0, 0.0]])
    rival = np.exp((0.0 - 0.5) / spec.temperature)
    assert claims(scores, center_m, 10.0, spec) == pytest.approx(2 / (4 + rival))


def test_whatever_is_claimed_of_foreign_ground_is_wrong() -> None:
    from evaluate import _calibration

    of = answers(claimed=np.array([1.0, 1.0, 0.0, 0.0]), foreign_claimed=np.array([0.6, 0.6]))
    value = _calibration(of, 0.25)
    assert value["error_known"] == 0.0
    assert value["error_with_foreign"] == pytest.approx(2 * 0.6 / 6)
    assert [part["count"] for part in value["reliability"]] == [2, 2]
    foreign = {"claimed": pytest.approx(0.6), "right": 0.0, "count": 2}
    assert value["reliability_with_foreign"][1] == foreign
    assert value["foreign_below_unknown"] == 0.0  # best scores 0.3 and 0.7


def test_tables_of_an_earlier_run_leave_out_what_it_lacks() -> None:
    from metrics import figures
    from tables import report

    old = figures(answers())
    del old["auc_right_claimed"]
    results = {"toy": {"mine": {"queries": 4, "clusters": 2, "foreign": 2, "tiles": 3}}}
    results["toy"]["mine"]["figures"] = old  # type: ignore[assignment]
    text = report(results, {"toy": {"about": "", "seen": False}}, {"mine": ""})
    title = "### AUC, right against wrong answers: by probability"
    assert "| toy | - |" in text.partition(title)[2].partition("###")[0]


def frames(**changes: Any) -> Any:
    """Four frames, one of them refused, and two foreign ones."""
    from metrics import Flown

    values = {
        "off": np.array([0.5, 0.6, 1.5, np.inf]),
        "mass": np.array([0.9, 0.8, 0.7, 0.0]),
        "issued": np.array([True, True, True, False]),
        "cluster": np.array([3, 3, 5, 5]),
        "foreign_issued": np.array([False, True]),
        "foreign_cluster": np.array([0, 10_000]),
    }
    return Flown(**(values | changes))


def test_a_frame_is_right_within_half_a_footprint_and_its_fix_false_beyond_a_whole_one() -> None:
    from metrics import frame_figures

    values = {key: figure["value"] for key, figure in frame_figures(frames()).items()}
    assert values == {
        "right": 0.25,
        "auc_right": None,  # one right, two wrong: too few
        "issued": 0.75,
        "false": pytest.approx(1 / 3),
        "foreign_issued": 0.5,
        "refused": 0.25,
    }


def test_refused_frames_do_not_help_to_tell_right_from_wrong() -> None:
    from metrics import frame_figures

    of = frames(
        off=np.array([0.1] * 5 + [2.0] * 5 + [np.inf] * 20),
        mass=np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.95, 0.55, 0.1, 0.1, 0.1] + [0.0] * 20),
        issued=np.zeros(30, np.bool_),
        cluster=np.arange(30),
    )
    values = frame_figures(of)
    # All right ones lie below 0.95, one below 0.55.
    assert values["auc_right"]["value"] == pytest.approx(19 / 25)
    assert values["right"]["value"] == pytest.approx(5 / 30)


def test_where_no_fix_is_issued_none_is_false() -> None:
    from metrics import frame_figures

    of = frames(
        issued=np.zeros(4, np.bool_),
        foreign_issued=np.zeros(0, np.bool_),
        foreign_cluster=np.zeros(0, np.int64),
    )
    none = {"value": None, "low": None, "high": None}
    assert frame_figures(of)["false"] == none
    assert frame_figures(of)["foreign_issued"] == none
    assert frame_figures(of)["issued"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_intervals_of_frames_are_of_clusters() -> None:
    from metrics import frame_figures

    # Two clusters: one all right, one all wrong. Redrawn, either may count alone.
    of = frames(off=np.array([0.1, 0.1, 0.9, 0.9]))
    assert frame_figures(of)["right"] == {"value": 0.5, "low": 0.0, "high": 1.0}


def test_frames_of_regions_are_joined_without_joining_their_clusters() -> None:
    from metrics import joined_flown

    both = joined_flown([frames(), frames(off=np.zeros(4))])
    assert both.cluster.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert both.foreign_cluster.tolist() == [0, 1, 2, 3]
    assert both.off.tolist() == [0.5, 0.6, 1.5, np.inf, 0, 0, 0, 0]
    assert both.mass.tolist() == [0.9, 0.8, 0.7, 0.0] * 2
    assert both.issued.tolist() == [True, True, True, False] * 2
    assert both.foreign_issued.tolist() == [False, True] * 2


def test_each_encoder_has_a_table_of_whole_frames_and_others_none() -> None:
    from metrics import figures, frame_figures
    from tables import report

    result = {"queries": 4, "clusters": 2, "foreign": 2, "tiles": 3, "figures": figures(answers())}
    flown = {"count": 4, "clusters": 2, "foreign": 2, "figures": frame_figures(frames())}
    of = {"mine": {**result, "frames": flown}, "HOG": result}
    about = {name: {"about": "", "seen": name == "old"} for name in ("toy", "old", "still")}
    text = report({"toy": of, "old": of, "still": {"mine": result}}, about, {"mine": "", "HOG": ""})
    assert text.count("### Whole frame, as flown") == 1
    assert text.partition("### Whole frame, as flown: mine\n")[2].splitlines()[3:] == [
        "| condition | frames (clusters), foreign | right, % | AUC, right against wrong | "
        "with a fix, % | fixes over a footprint off, % | foreign frames with a fix, % | "
        "refused unmatched, % |",
        "|---|---|---|---|---|---|---|---|",
        "| toy | 4 (2), 2 | 25.0 [0.0, 50.0] | - | 75.0 [50.0, 100.0] | 33.3 [0.0, 100.0] | "
        "50.0 [0.0, 100.0] | 25.0 [0.0, 50.0] |",
        "| old (trained ground) | 4 (2), 2 | 25.0 [0.0, 50.0] | - | 75.0 [50.0, 100.0] | "
        "33.3 [0.0, 100.0] | 50.0 [0.0, 100.0] | 25.0 [0.0, 50.0] |",
    ]
