"""Figures of retrieval tasks agree with cases worked by hand and with dense arithmetic."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="scoring needs torch (the train extra)")

from s4g.core.errors import InputError, S4GError
from s4g.train.dataset import Image, Positions, RetrievalTask
from s4g.train.figures import intervals
from s4g.train.relations import Relations
from s4g.train.retrieval import TIE, RetrievalResult, score

Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Blank:
    """Pictures that nobody looks at."""

    prefix: str
    count: int

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"{self.prefix}{index}"

    def read(self, index: int, height_px: int, width_px: int) -> Image:
        return np.zeros((height_px, width_px, 3), np.uint8)


def unit(vectors: Any) -> Floats:
    array = np.asarray(vectors, np.float64)
    return np.asarray(array / np.linalg.norm(array, axis=1, keepdims=True), np.float32)


def task_of(
    edges: list[tuple[int, int]],
    queries: int,
    gallery: int,
    metrics: tuple[str, ...] = ("recall", "ap"),
    **values: Any,
) -> RetrievalTask:
    rows, columns = zip(*edges, strict=True) if edges else ((), ())
    values = {"one_percent_k": 1, **values}
    return RetrievalTask(
        name="drone→satellite",
        protocol="toy",
        queries=Blank("q", queries),
        gallery=Blank("g", gallery),
        positives=Relations.from_edges(rows, columns, queries),
        metrics=metrics,
        **values,
    )


def ranked(scores: list[list[float]]) -> tuple[Floats, Floats]:
    """Return embeddings of queries and gallery with exactly these cosines, each at most 0.5.

    Query i is the unit vector i; each gallery image has a dimension of its own for the rest.
    """
    matrix = np.asarray(scores, np.float64)
    q, g = matrix.shape
    gallery = np.zeros((g, q + g))
    gallery[:, :q] = matrix.T
    gallery[np.arange(g), q + np.arange(g)] = np.sqrt(1 - (matrix**2).sum(0))
    return np.eye(q, q + g, dtype=np.float32), gallery.astype(np.float32)


def one_query(positives: list[int], order: list[int], **values: Any) -> RetrievalResult:
    """Score one query for which gallery images come in this order."""
    scores = np.zeros((1, len(order)))
    scores[0, order] = np.linspace(0.5, 0.1, len(order))
    task = task_of([(0, p) for p in positives], 1, len(order), **values)
    return score(task, *ranked(scores.tolist()))


# ---- average precision and recall by hand --------------------------------------------------------


def test_average_precision_of_several_positives_is_the_trapezoid_of_the_evaluator() -> None:
    # Positives 0, 1, 2 at 0-based ranks 0, 2, 3 of five.
    # i=0, r=0: (1 + 1/1) / 2 = 1;  i=1, r=2: (1/2 + 2/3) / 2 = 7/12;
    # i=2, r=3: (2/3 + 3/4) / 2 = 17/24;  mean of 24/24, 14/24 and 17/24 = 55/72
    result = one_query([0, 1, 2], order=[0, 3, 1, 2, 4])
    assert result.metrics["ap"] == pytest.approx(55 / 72)
    assert result.metrics["recall_at_1"] == 1.0


@pytest.mark.parametrize("rank", [1, 2, 3, 5])
def test_a_single_positive_has_ap_1_at_rank_1_and_else_half_its_reciprocal(rank: int) -> None:
    order = [1, 2, 3, 4]
    order.insert(rank - 1, 0)
    expected = 1.0 if rank == 1 else 1 / (2 * rank)
    assert one_query([0], order).metrics["ap"] == pytest.approx(expected)


def test_positives_of_one_query_do_not_compete_with_each_other() -> None:
    result = one_query([0, 1, 2], order=[3, 2, 1, 0], one_percent_k=2)
    assert result.ranks.tolist() == [1]
    assert result.metrics["recall_at_1_percent"] == 1.0  # behind one negative only


def test_recall_counts_the_queries_with_fewer_than_k_negatives_ahead() -> None:
    scores = np.full((4, 200), 0.1)
    for query, ahead in enumerate((0, 1, 4, 12)):
        scores[query, :20] = 0.0
        scores[query, query] = 0.2
        scores[query, 20 : 20 + ahead] = 0.3
        scores[query, 20 + ahead :] = 0.05
    task = task_of([(i, i) for i in range(4)], 4, 200, one_percent_k=2)
    result = score(task, *ranked(scores.tolist()))
    assert result.ranks.tolist() == [0, 1, 4, 12]
    assert result.metrics["recall_at_1"] == 0.25
    assert result.metrics["recall_at_5"] == 0.75
    assert result.metrics["recall_at_10"] == 0.75
    assert result.metrics["recall_at_1_percent"] == 0.5
    assert result.one_percent_k == 2
    assert result.curve[[0, 1, 4, 11, 12]].tolist() == [0.25, 0.5, 0.75, 0.75, 1.0]


def test_54_views_of_a_place_are_all_positives_of_its_tile() -> None:
    rng = np.random.default_rng(1)
    places = unit(rng.standard_normal((6, 32)))
    views = unit(np.repeat(places, 54, 0) + 0.02 * rng.standard_normal((6 * 54, 32)))
    edges = [(place, place * 54 + view) for place in range(6) for view in range(54)]
    result = score(task_of(edges, 6, 6 * 54), places, views)
    assert result.metrics == {
        "recall_at_1": 1.0,
        "recall_at_5": 1.0,
        "recall_at_10": 1.0,
        "recall_at_1_percent": 1.0,
        "ap": 1.0,
    }


# ---- galleries -----------------------------------------------------------------------------------

# Three queries, five gallery images; two are distractors, each the very image of a query.
TOY_QUERIES = unit([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]])
TOY_GALLERY = unit([[3, 0, 1, 0], [0, 3, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]])


def toy(gallery_rows: list[int] | None) -> RetrievalResult:
    rows = None if gallery_rows is None else np.array(gallery_rows, np.int32)
    task = task_of([(0, 0), (1, 1), (2, 2)], 3, 5, gallery_rows=rows)
    return score(task, TOY_QUERIES, TOY_GALLERY)


def test_the_reduced_gallery_hides_the_distractors_that_the_official_one_keeps() -> None:
    reduced, official = toy([0, 1, 2]), toy(None)
    assert (reduced.gallery_size, official.gallery_size) == (3, 5)
    assert reduced.metrics["recall_at_1"] == pytest.approx(2 / 3)
    assert reduced.metrics["ap"] == pytest.approx((1 + 1 + 1 / 6) / 3)  # 0.72
    assert official.metrics["recall_at_1"] == 0.0
    assert official.metrics["ap"] == pytest.approx((1 / 4 + 1 / 4 + 1 / 10) / 3)  # 0.20


def test_rows_of_results_are_pictures_of_the_whole_task() -> None:
    task = task_of(
        [(0, 0), (1, 1), (2, 2)],
        3,
        5,
        query_rows=np.array([1], np.int32),
        gallery_rows=np.array([1, 4], np.int32),
    )
    result = score(task, TOY_QUERIES, TOY_GALLERY)
    assert result.query_rows.tolist() == [1]
    assert result.place.tolist() == [1]
    assert result.top_rows[0].tolist() == [4, 1] + [-1] * 8
    assert result.top_scores[0, :2].tolist() == pytest.approx([1, 3 / math.sqrt(10)])


# ---- hit rate ------------------------------------------------------------------------------------


def test_the_hit_rate_ignores_semi_positives_that_recall_lets_compete() -> None:
    # Query 0: its semi-positive is first. Query 1: a negative is first.
    scores = [[0.2, 0.4, 0.1, 0.0], [0.1, 0.0, 0.2, 0.4]]
    task = task_of(
        [(0, 0), (1, 2)],
        2,
        4,
        metrics=("recall", "hit_rate"),
        semi_positives=Relations.from_edges([0, 1], [1, 1], 2, 0.0),
    )
    result = score(task, *ranked(scores))
    assert result.metrics["recall_at_1"] == 0.0
    assert result.metrics["hit_rate"] == 0.5
    assert result.ranks.tolist() == [1, 1]


def test_a_semi_positive_that_is_a_positive_too_counts_as_a_positive() -> None:
    task = task_of(
        [(0, 0)],
        1,
        2,
        metrics=("hit_rate",),
        semi_positives=Relations.from_edges([0], [0], 1, 0.0),
    )
    assert score(task, *ranked([[0.1, 0.4]])).metrics == {"hit_rate": 0.0}


# ---- ties ----------------------------------------------------------------------------------------


def test_an_encoder_that_maps_all_images_to_one_point_scores_0() -> None:
    same = unit(np.tile(np.random.default_rng(0).standard_normal(512), (300, 1)))
    task = task_of([(i, i) for i in range(300)], 300, 300, one_percent_k=3)
    result = score(task, same, same)
    assert {v for k, v in result.metrics.items() if k != "ap"} == {0.0}
    assert result.metrics["ap"] == pytest.approx(1 / 600)  # the last of 300
    assert result.ranks.tolist() == [299] * 300


@pytest.mark.parametrize(("margin", "rank"), [(0.5 * TIE, 1), (4 * TIE, 0)])
def test_a_negative_within_rounding_of_the_positive_counts_as_ahead(
    margin: float, rank: int
) -> None:
    result = score(task_of([(0, 0)], 1, 2), *ranked([[0.25, 0.25 - margin]]))
    assert result.ranks.tolist() == [rank]


# ---- metres --------------------------------------------------------------------------------------


def test_sdm_and_metres_agree_with_a_case_worked_by_hand() -> None:
    # The gallery lies on a line; the query at 0 finds what is 30, 0 and 400 m away, in this order.
    x = np.array([0.0, 30.0, 400.0, 900.0, 2000.0])
    task = task_of(
        [(0, 0)],
        1,
        5,
        metrics=("sdm",),
        query_positions=Positions(np.zeros((1, 2)), "metres"),
        gallery_positions=Positions(np.stack([x, 0 * x], axis=1), "metres"),
    )
    metrics = score(task, *ranked([[0.3, 0.4, 0.2, 0.1, 0.05]])).metrics
    near = [math.exp(-0.001 * d) for d in (30, 0, 400, 900, 2000)]
    assert metrics["sdm_at_1"] == pytest.approx(near[0])
    assert metrics["sdm_at_3"] == pytest.approx((3 * near[0] + 2 * near[1] + near[2]) / 6)
    assert metrics["sdm_at_5"] == pytest.approx(
        (5 * near[0] + 4 * near[1] + 3 * near[2] + 2 * near[3] + near[4]) / 15
    )
    assert metrics["mean_m_at_1"] == 30
    assert metrics["mean_m_at_3"] == pytest.approx(430 / 3)
    assert metrics["mean_m_at_5"] == pytest.approx(666)
    assert metrics["median_m"] == 30
    assert [metrics[f"within_{m}_m"] for m in (10, 25, 50, 100)] == [0, 0, 1, 1]


def test_metres_between_degrees_are_geodesic() -> None:
    task = task_of(
        [(0, 0)],
        1,
        1,
        metrics=("sdm",),
        query_positions=Positions(np.array([[47.0, 8.0]]), "wgs84"),
        gallery_positions=Positions(np.array([[48.0, 8.0]]), "wgs84"),
    )
    metrics = score(task, *ranked([[0.4]])).metrics
    # One degree of latitude at 47.5 N on WGS84: 111.18 km.
    assert metrics["median_m"] == pytest.approx(111_180, abs=10)
    assert "sdm_at_3" not in metrics, "a gallery of one image has no third result"


def test_a_position_that_is_no_number_is_named() -> None:
    task = task_of(
        [(0, 0)],
        1,
        1,
        metrics=("sdm",),
        query_positions=Positions(np.array([[np.nan, 8.0]]), "metres"),
        gallery_positions=Positions(np.array([[48.0, 8.0]]), "metres"),
    )
    with pytest.raises(InputError) as error:
        score(task, *ranked([[0.4]]))
    assert str(error.value) == (
        "drone→satellite: the position of q0 or of one of its results is not a finite number; "
        "correct the list of positions"
    )


def test_degrees_and_metres_do_not_mix() -> None:
    task = task_of(
        [(0, 0)],
        1,
        1,
        metrics=("sdm",),
        query_positions=Positions(np.array([[47.0, 8.0]]), "wgs84"),
        gallery_positions=Positions(np.array([[48.0, 8.0]]), "metres"),
    )
    with pytest.raises(InputError) as error:
        score(task, *ranked([[0.4]]))
    assert str(error.value) == (
        "drone→satellite: queries have positions in wgs84, the gallery in metres; "
        "give both the same"
    )


# ---- intervals -----------------------------------------------------------------------------------


def test_an_interval_holds_its_figure_and_is_the_same_each_time() -> None:
    rng = np.random.default_rng(5)
    gallery = unit(rng.standard_normal((80, 8)))
    queries = unit(gallery + 0.4 * rng.standard_normal((80, 8)))
    task = task_of([(i, i) for i in range(80)], 80, 80)
    first, second = score(task, queries, gallery), score(task, queries, gallery)
    low, high = first.intervals["recall_at_1"]
    assert first.intervals == second.intervals
    assert 0 < low < first.metrics["recall_at_1"] < high < 1
    assert set(first.intervals) == {"recall_at_1", "ap"}


def test_an_interval_of_independent_queries_is_that_of_the_binomial() -> None:
    hits = np.repeat([0.0, 1.0], 200)
    low, high = intervals({"r": hits}, np.arange(400, dtype=np.int32))["r"]
    deviation = math.sqrt(0.5 * 0.5 / 400)
    assert low == pytest.approx(0.5 - 1.96 * deviation, abs=0.006)
    assert high == pytest.approx(0.5 + 1.96 * deviation, abs=0.006)


def test_many_views_of_few_places_do_not_narrow_the_interval() -> None:
    hits, places = np.repeat([0.0, 1.0], 10), np.arange(20, dtype=np.int32)
    once = intervals({"r": hits}, places)["r"]
    many = intervals({"r": np.repeat(hits, 54)}, np.repeat(places, 54))["r"]
    assert many == pytest.approx(once)


def test_one_place_alone_has_no_interval() -> None:
    assert intervals({"r": np.ones(54)}, np.zeros(54, np.int32)) == {}


# ---- against dense arithmetic --------------------------------------------------------------------


@st.composite
def problems(draw: st.DrawFn) -> tuple[RetrievalTask, Floats, Floats, int]:
    """Random tasks with several positives, rows left out and semi-positives; a small budget."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    q, g = draw(st.integers(1, 12)), draw(st.integers(3, 30))
    dim = draw(st.integers(2, 5))
    query_rows = rng.permutation(q)[: rng.integers(1, q + 1)].astype(np.int32)
    gallery_rows = rng.permutation(g)[: rng.integers(2, g + 1)].astype(np.int32)
    edges = {(int(i), int(rng.choice(gallery_rows))) for i in range(q)}
    edges |= {(int(rng.integers(q)), int(rng.integers(g))) for _ in range(int(rng.integers(3 * q)))}
    task = task_of(
        sorted(edges),
        q,
        g,
        metrics=("recall", "ap", "hit_rate"),
        one_percent_k=2,
        query_rows=query_rows,
        gallery_rows=gallery_rows,
        semi_positives=Relations.from_edges(
            rng.integers(q, size=q), rng.integers(g, size=q), q, 0.0
        ),
    )
    # Few distinct vectors: ties are common, and exact.
    vectors = unit(rng.standard_normal((12, dim)))
    budget = draw(st.integers(4 * (1 + 2 * dim), 4000))
    return task, vectors[rng.integers(12, size=q)], vectors[rng.integers(12, size=g)], budget


def dense(task: RetrievalTask, queries: Floats, gallery: Floats) -> dict[str, list[float]]:
    """Score by whole rows and plain loops, straight from the definitions."""
    out: dict[str, list[float]] = {"rank": [], "ap": [], "hit": []}
    assert task.query_rows is not None and task.gallery_rows is not None
    assert task.semi_positives is not None
    for query in task.query_rows:
        scores = gallery.astype(np.float64) @ queries[query].astype(np.float64)
        mine = set(task.positives.of(int(query))[0].tolist()) & set(task.gallery_rows.tolist())
        ignored = set(task.semi_positives.of(int(query))[0].tolist())
        negatives = [int(j) for j in task.gallery_rows if int(j) not in mine]
        best_first = sorted(mine, key=lambda j: -scores[j])
        ahead = [sum(scores[n] >= scores[p] - TIE for n in negatives) for p in best_first]
        parts = []
        for i, behind in enumerate(ahead):
            rank = i + behind
            before = i / rank if rank else 1.0
            parts.append((before + (i + 1) / (rank + 1)) / 2)
        best = scores[best_first[0]]
        rivals = [n for n in negatives if n not in ignored and scores[n] >= best - TIE]
        out["rank"].append(ahead[0])
        out["ap"].append(float(np.mean(parts)))
        out["hit"].append(not rivals)
    return out


@settings(max_examples=150)
@given(problems())
def test_figures_do_not_depend_on_blocks_and_agree_with_dense_arithmetic(
    problem: tuple[RetrievalTask, Floats, Floats, int],
) -> None:
    task, queries, gallery, budget = problem
    expected = dense(task, queries, gallery)
    for budget_bytes in (budget, None):
        result = score(task, queries, gallery, budget_bytes=budget_bytes)
        assert result.ranks.tolist() == expected["rank"]
        assert result.metrics["ap"] == pytest.approx(np.mean(expected["ap"]))
        assert result.metrics["hit_rate"] == pytest.approx(np.mean(expected["hit"]))
        recall = np.mean(np.array(expected["rank"]) < 2)
        assert result.metrics["recall_at_1_percent"] == pytest.approx(recall)


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.floats(0.01, 2))
def test_with_one_positive_a_query_ap_is_never_below_recall_at_1(
    seed: int, count: int, noise: float
) -> None:
    rng = np.random.default_rng(seed)
    gallery = unit(rng.standard_normal((count, 4)))
    queries = unit(gallery + noise * rng.standard_normal((count, 4)))
    metrics = score(task_of([(i, i) for i in range(count)], count, count), queries, gallery).metrics
    assert metrics["ap"] >= metrics["recall_at_1"]
    assert metrics["recall_at_1"] <= metrics["recall_at_5"] <= metrics["recall_at_10"]


# ---- prefixes ------------------------------------------------------------------------------------


def test_a_prefix_is_normalised_again() -> None:
    # By the first two numbers query 0 finds image 0; by all of them image 1.
    queries = unit([[1, 0, 2, 0]])
    gallery = unit([[1, 0, 0, 9], [1, 1, 2, 0]])
    task = task_of([(0, 0)], 1, 2)
    whole, prefix = score(task, queries, gallery), score(task, queries, gallery, dim=2)
    assert (whole.dim, whole.metrics["recall_at_1"]) == (4, 0.0)
    assert (prefix.dim, prefix.metrics["recall_at_1"]) == (2, 1.0)
    assert prefix.top_scores[0, 0] == pytest.approx(1.0)


def test_memory_mapped_embeddings_are_scored_and_left_as_they_are(tmp_path: Any) -> None:
    np.save(tmp_path / "q.npy", TOY_QUERIES)
    np.save(tmp_path / "g.npy", TOY_GALLERY)
    queries, gallery = (np.load(tmp_path / f"{side}.npy", mmap_mode="r") for side in "qg")
    task = task_of([(0, 0), (1, 1), (2, 2)], 3, 5)
    assert score(task, queries, gallery, dim=3).metrics["recall_at_1"] == 0.0
    assert score(task, queries, gallery).metrics == toy(None).metrics
    assert np.array_equal(gallery, TOY_GALLERY)


# ---- refusals ------------------------------------------------------------------------------------


def test_a_query_that_cannot_be_found_is_named() -> None:
    task = task_of([(0, 0), (1, 1)], 3, 5)
    with pytest.raises(InputError) as error:
        score(task, TOY_QUERIES, TOY_GALLERY)
    assert str(error.value) == (
        "drone→satellite, toy: 1 of 3 queries have no positive in the gallery, such as q2; "
        "complete the gallery or leave them out"
    )


def test_a_task_without_queries_is_refused() -> None:
    with pytest.raises(InputError) as error:
        score(task_of([], 0, 5), TOY_QUERIES[:0], TOY_GALLERY)
    assert str(error.value) == "drone→satellite, toy: asks no query; check the test split"


def test_embeddings_of_other_pictures_are_refused() -> None:
    with pytest.raises(S4GError) as error:
        score(task_of([(0, 0)], 3, 4), TOY_QUERIES, TOY_GALLERY)
    assert str(error.value) == (
        "drone→satellite, toy: 5 embeddings for 4 gallery images; embed all of them, in order"
    )
