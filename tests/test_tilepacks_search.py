from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.tilepacks.graph import assemble, build_graph
from s4g.tilepacks.quantise import dequantise, quantise
from s4g.tilepacks.search import LevelSearch


def _unit(count: int, dim: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _level(count: int, dim: int = 16, graph: bool = False) -> LevelSearch:
    codes, scales = quantise(_unit(count, dim, seed=count))
    index = None
    if graph:
        vectors = dequantise(codes, scales)
        index = assemble(build_graph(vectors), vectors)
    return LevelSearch(codes, scales, graph=index, ef=64)


@given(st.integers(1, 300), st.integers(1, 12), st.integers(1, 5))
def test_scan_is_the_brute_force_answer(count: int, k: int, queries: int) -> None:
    level, asked = _level(count), _unit(queries, 16, seed=1)
    ids, scores = level.search(asked, k)
    truth = asked @ dequantise(level.codes, level.scales).T
    assert ids.shape == scores.shape == (queries, min(k, count))
    assert (ids.dtype, scores.dtype) == (np.int64, np.float32)
    best = -np.sort(-truth, axis=1)[:, : min(k, count)]
    np.testing.assert_allclose(scores, best, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(truth, ids, axis=1), scores, atol=1e-5)


def test_scan_of_more_than_one_block_finds_vectors_of_all_blocks() -> None:
    level = _level(20_000, dim=4)
    places = [0, 8191, 8192, 19_999]
    queries = dequantise(level.codes[places], level.scales[places])
    scores = level.search(queries, 1)[1]
    truth = (queries @ dequantise(level.codes, level.scales).T).max(axis=1)
    np.testing.assert_allclose(scores[:, 0], truth, atol=1e-6)


def test_graph_finds_what_the_scan_finds() -> None:
    level = _level(3000, graph=True)
    queries = _unit(100, 16, seed=2)
    ids, scores = level.search(queries, 5)
    truth, best = level.scan(queries, 5)
    assert (ids[:, 0] == truth[:, 0]).mean() > 0.95
    same = ids == truth
    np.testing.assert_allclose(scores[same], best[same], atol=1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_more_tiles_than_there_are_is_clipped() -> None:
    for level in (_level(7), _level(40, graph=True)):
        ids, _ = level.search(_unit(1, 16, seed=3), 1000)
        assert sorted(ids[0]) == list(range(level.tiles))


def test_graph_that_cannot_reach_enough_nodes_gives_way_to_the_scan() -> None:
    codes, scales = quantise(_unit(100, 16, seed=4))
    vectors = dequantise(codes, scales)
    whole = build_graph(vectors)
    # No links at all: a search sees the entry node and nothing else.
    cut = dataclasses.replace(
        whole, degrees=np.zeros_like(whole.degrees), links=np.empty(0, np.uint32)
    )
    level = LevelSearch(codes, scales, graph=assemble(cut, vectors), ef=16)
    queries = _unit(3, 16, seed=5)
    assert (level.search(queries, 4)[0] == level.scan(queries, 4)[0]).all()


def test_tiles_that_share_a_vector_are_all_found() -> None:
    codes, scales = quantise(_unit(3, 16, seed=6))
    shared = np.array([0, 1, 1, 2, 1, 0], np.uint32)
    level = LevelSearch(codes, scales, shared)
    query = dequantise(codes[1:2], scales[1:2])
    ids, scores = level.search(query, 4)
    assert ids[0, :3].tolist() == [1, 2, 4]
    assert scores[0, :3] == pytest.approx([1.0, 1.0, 1.0], abs=1e-6)
    ids, _ = level.search(query, 99)
    assert sorted(ids[0]) == [0, 1, 2, 3, 4, 5]


def test_equal_scores_come_in_the_order_of_the_tiles() -> None:
    codes, scales = np.full((50, 4), 127, np.int8), np.full(50, 1 / 254, np.float32)
    codes[30], query = -127, np.full((1, 4), 0.5, np.float32)
    ids, _ = LevelSearch(codes, scales).search(query, 50)
    assert ids[0].tolist() == [*range(30), *range(31, 50), 30]
