from __future__ import annotations

import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from s4g.tilepacks.graph import Graph, assemble
from s4g.tilepacks.nearby import Nearby
from s4g.tilepacks.quantise import Codes, Floats32, dequantise, inverse_lengths, quantise
from s4g.tilepacks.search import Ids, LevelSearch
from s4g.tilepacks.tiling import Lattice
from s4g.tilepacks.tuning import SearchPlan, Trial, tolerated

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_vectors.py"))))


def _clustered(count: int, dim: int) -> Codes:
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((50, dim))
    vectors = centers[rng.integers(0, 50, count)] + 0.5 * rng.standard_normal((count, dim))
    return quantise(vectors.astype(np.float32))


def _deaf(codes: Codes) -> LevelSearch:
    """Return a level whose graph links the first 100 nodes to each other and to nothing else."""
    links = [sorted((node + i) % 100 for i in range(1, 25)) for node in range(100)]
    cut = Graph(
        m=12,
        entry=0,
        levels=np.zeros(len(codes), np.uint8),
        degrees=np.where(np.arange(len(codes)) < 100, 24, 0).astype(np.uint8),
        links=np.array(links, np.uint32).ravel(),
    )
    return toy.level_of(codes, graph=assemble(cut, codes, codes.shape[1]))


def test_chosen_width_reaches_the_recall_it_promises() -> None:
    codes = _clustered(2500, 32)
    level = toy.level_of(codes, graph=assemble(toy.graph_of(codes), codes, 32))
    trial = Trial(toy.level_of(codes))
    plan = trial.graph(level, 1)
    assert plan is not None
    assert (plan.method, plan.sampled, plan.dims) == ("graph", 2500, 32)
    assert plan.recall_at_1 >= 0.99 and plan.recall_at_10 >= 0.95
    assert plan.ef < 256
    assert trial.graph(level, 1) == plan


def test_graph_that_misses_too_much_is_not_used() -> None:
    codes = _clustered(2500, 32)
    level = _deaf(codes)
    # Where the graph reaches too few nodes the scan answers; this one reaches enough.
    level.graph.set_ef(256)
    assert len(level.graph.knn_query(dequantise(codes[:1]), k=48, num_threads=1)[0][0]) == 48
    assert Trial(toy.level_of(codes)).graph(level, 1) is None


def test_views_judge_by_the_places_that_are_found() -> None:
    codes = _clustered(2500, 32)
    level = toy.level_of(codes, graph=assemble(toy.graph_of(codes), codes, 32))
    views, plain = dequantise(codes[:1024]), toy.level_of(codes)

    def near(ids: Ids) -> float:
        return float((ids == np.arange(1024)).mean())

    plan = Trial(plain, views, near).graph(level, 1)
    assert plan is not None and plan.recall_at_1 >= 0.99
    # The scan is right for 900 of them. Who loses two may by luck have lost no more of half a
    # percent of all views; one is too few for that.
    told = iter([900 / 1024] + 4 * [898 / 1024])
    assert Trial(plain, views, lambda ids: next(told)).graph(level, 1) is None
    told = iter([900 / 1024, 898 / 1024, 899 / 1024])
    second = Trial(plain, views, lambda ids: next(told)).graph(level, 1)
    assert second is not None and second.ef == 96


@pytest.mark.parametrize(("lost", "passes"), [(4, True), (5, False)])
def test_without_views_hardly_a_vector_may_be_missed(lost: int, passes: bool) -> None:
    class Forgetful(LevelSearch):
        def search_vectors(self, queries: Floats32, k: int) -> tuple[Ids, Floats32]:
            ids, scores = self.scan(queries, k)
            ids[:lost] = ids[:lost, ::-1]  # the ten best are found, the best is not the first
            return ids, scores

    codes = _clustered(2500, 32)
    plan = Trial(toy.level_of(codes)).sample(Forgetful(codes, inverse_lengths(codes)), 2)
    assert (plan is not None) == passes
    assert plan is None or plan.recall_at_1 == 0.9961


def test_few_views_judge_nothing() -> None:
    codes = _clustered(2500, 32)
    level = toy.level_of(codes, graph=assemble(toy.graph_of(codes), codes, 32))
    views = dequantise(codes[:599])
    told = iter([1.0] + 4 * [0.0])  # of the scan, then of what loses every view
    judged = Trial(toy.level_of(codes), views, lambda ids: next(told)).graph(level, 1)
    assert judged is not None
    assert judged == Trial(toy.level_of(codes)).graph(level, 1)


@pytest.mark.parametrize("loss", [0.005, 0.01])
@pytest.mark.parametrize("count", [1, 298, 600, 1024, 3000])
def test_who_loses_as_much_as_is_allowed_passes_at_most_one_trial_in_twenty(
    count: int, loss: float
) -> None:
    def passing(lost: int) -> float:
        ways = (math.comb(count, n) * loss**n * (1 - loss) ** (count - n) for n in range(lost + 1))
        return math.fsum(ways)

    most = tolerated(count, loss)
    assert passing(most) <= 0.05 < passing(most + 1)


def test_a_sample_serves_where_neighbours_are_alike_and_nowhere_else() -> None:
    lattice = Lattice(80.0, 64, 16, 0.0, 0.0, 50, 40)
    nearby = Nearby(lattice, np.arange(2000, dtype=np.uint32))
    chosen = nearby.sample(2)
    alike, unlike = (quantise(v) for v in (toy.smooth(40, 50), toy.unit(2000, 16)))
    parts = {"sample": chosen, "nearby": nearby, "reach": 1}
    plan = Trial(toy.level_of(alike)).sample(toy.level_of(alike, **parts), 2)
    assert plan is not None
    assert plan == SearchPlan("sample", 2, 500, 0, 0, plan.recall_at_1, plan.recall_at_10)
    assert plan.recall_at_1 >= 0.99
    assert Trial(toy.level_of(unlike)).sample(toy.level_of(unlike, **parts), 2) is None
