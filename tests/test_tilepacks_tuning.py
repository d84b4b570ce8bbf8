from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from s4g.tilepacks.graph import Graph, assemble
from s4g.tilepacks.nearby import Nearby
from s4g.tilepacks.quantise import Codes, dequantise, quantise
from s4g.tilepacks.search import Ids, LevelSearch
from s4g.tilepacks.tiling import Lattice
from s4g.tilepacks.tuning import SearchPlan, Trial

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
    views, plain = dequantise(codes[:200]), toy.level_of(codes)

    def near(ids: Ids) -> float:
        return float((ids == np.arange(200)).mean())

    plan = Trial(plain, views, near).graph(level, 1)
    assert plan is not None and plan.recall_at_1 >= 0.99
    # The scan is right for all of them; who finds fewer than 99.8 percent is refused.
    told = iter([1.0] + 4 * [0.997])
    assert Trial(plain, views, lambda ids: next(told)).graph(level, 1) is None
    told = iter([1.0, 0.997, 0.999])
    second = Trial(plain, views, lambda ids: next(told)).graph(level, 1)
    assert second is not None and second.ef == 96


def test_few_views_judge_nothing() -> None:
    codes = _clustered(2500, 32)
    level = toy.level_of(codes, graph=assemble(toy.graph_of(codes), codes, 32))
    views = dequantise(codes[:99])
    judged = Trial(toy.level_of(codes), views, lambda ids: 0.0).graph(level, 1)
    assert judged == Trial(toy.level_of(codes)).graph(level, 1)


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
