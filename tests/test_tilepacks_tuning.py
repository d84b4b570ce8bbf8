from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from s4g.tilepacks.graph import Graph, assemble
from s4g.tilepacks.quantise import Codes, dequantise, quantise
from s4g.tilepacks.tuning import EXACT, choose_search

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_vectors.py"))))


def _clustered(count: int, dim: int) -> Codes:
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((50, dim))
    vectors = centers[rng.integers(0, 50, count)] + 0.5 * rng.standard_normal((count, dim))
    return quantise(vectors.astype(np.float32))


def test_chosen_width_reaches_the_recall_it_promises() -> None:
    codes = _clustered(2500, 32)
    level = toy.level_of(codes, graph=assemble(toy.graph_of(codes), codes, 32))
    plan = choose_search(level)
    assert plan.method == "graph"
    assert plan.recall_at_1 >= 0.99 and plan.recall_at_10 >= 0.95
    assert plan.ef < 256
    assert choose_search(level) == plan


def test_graph_that_misses_too_much_is_not_used() -> None:
    codes = _clustered(2500, 32)
    whole = toy.graph_of(codes, m=12)
    # Link the first 100 nodes to each other and to nothing else: the rest is out of reach.
    links = [sorted((node + i) % 100 for i in range(1, 25)) for node in range(100)]
    cut = Graph(
        m=whole.m,
        entry=0,
        levels=np.zeros(2500, np.uint8),
        degrees=np.where(np.arange(2500) < 100, 24, 0).astype(np.uint8),
        links=np.array(links, np.uint32).ravel(),
    )
    level = toy.level_of(codes, graph=assemble(cut, codes, 32))
    # Where the graph reaches too few nodes the scan answers; this one reaches enough.
    level.graph.set_ef(256)
    assert len(level.graph.knn_query(dequantise(codes[:1]), k=48, num_threads=1)[0][0]) == 48
    assert choose_search(level) == EXACT
