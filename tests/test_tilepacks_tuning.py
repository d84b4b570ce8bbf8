from __future__ import annotations

import numpy as np

from s4g.tilepacks.graph import Graph, assemble, build_graph
from s4g.tilepacks.quantise import dequantise, quantise
from s4g.tilepacks.search import LevelSearch
from s4g.tilepacks.tuning import EXACT, choose_search


def _clustered(count: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((50, dim))
    vectors = centers[rng.integers(0, 50, count)] + 0.5 * rng.standard_normal((count, dim))
    return quantise(vectors.astype(np.float32))


def test_chosen_width_reaches_the_recall_it_promises() -> None:
    codes, scales = _clustered(2500, 32)
    vectors = dequantise(codes, scales)
    level = LevelSearch(codes, scales, graph=assemble(build_graph(vectors), vectors))
    plan = choose_search(level)
    assert plan.method == "graph"
    assert plan.recall_at_1 >= 0.99 and plan.recall_at_10 >= 0.95
    assert plan.ef < 256
    assert choose_search(level) == plan


def test_graph_that_misses_too_much_is_not_used() -> None:
    codes, scales = _clustered(400, 32)
    vectors = dequantise(codes, scales)
    whole = build_graph(vectors)
    # Link the first 30 nodes to each other and to nothing else: the rest is out of reach.
    links = [sorted((node + i) % 30 for i in range(1, 25)) for node in range(30)]
    cut = Graph(
        m=whole.m,
        entry=0,
        levels=np.zeros(400, np.uint8),
        degrees=np.where(np.arange(400) < 30, 24, 0).astype(np.uint8),
        links=np.array(links, np.uint32).ravel(),
    )
    level = LevelSearch(codes, scales, graph=assemble(cut, vectors))
    # Where the graph reaches fewer than ten nodes the scan answers; this one reaches more.
    level.graph.set_ef(256)
    assert len(level.graph.knn_query(vectors[:1], k=10, num_threads=1)[0][0]) == 10
    assert choose_search(level) == EXACT
