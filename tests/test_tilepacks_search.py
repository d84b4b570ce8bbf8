from __future__ import annotations

import dataclasses
import runpy
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4g.tilepacks import search as search_module
from s4g.tilepacks.graph import assemble
from s4g.tilepacks.nearby import Nearby
from s4g.tilepacks.quantise import dequantise, inverse_lengths, quantise
from s4g.tilepacks.scan import scan
from s4g.tilepacks.search import LevelSearch
from s4g.tilepacks.tiling import Lattice

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_vectors.py"))))


def _level(count: int, dim: int = 16, graph: bool = False) -> LevelSearch:
    codes = toy.codes_of(count, dim, seed=count)
    index = assemble(toy.graph_of(codes), codes, dim) if graph else None
    return toy.level_of(codes, graph=index, ef=64)


@given(st.integers(1, 300), st.integers(1, 12), st.integers(1, 5))
def test_scan_is_the_brute_force_answer(count: int, k: int, queries: int) -> None:
    level, asked = _level(count), toy.unit(queries, 16, seed=1)
    ids, scores = level.search(asked, k)
    truth = asked @ dequantise(level.codes).T
    assert ids.shape == scores.shape == (queries, min(k, count))
    assert (ids.dtype, scores.dtype) == (np.int64, np.float32)
    best = -np.sort(-truth, axis=1)[:, : min(k, count)]
    np.testing.assert_allclose(scores, best, atol=3e-5)
    np.testing.assert_allclose(np.take_along_axis(truth, ids, axis=1), scores, atol=3e-5)


def test_scan_of_more_than_one_block_finds_vectors_of_all_blocks() -> None:
    level = _level(70_000, dim=4)
    places = [0, 65_535, 65_536, 69_999]
    queries = dequantise(level.codes[places])
    scores = level.search(queries, 1)[1]
    truth = (queries @ dequantise(level.codes).T).max(axis=1)
    np.testing.assert_allclose(scores[:, 0], truth, atol=3e-5)


def test_graph_finds_what_the_scan_finds() -> None:
    level = _level(3000, graph=True)
    queries = toy.unit(100, 16, seed=2)
    ids, scores = level.search(queries, 5)
    truth, best = level.scan(queries, 5)
    assert (ids[:, 0] == truth[:, 0]).mean() > 0.95
    same = ids == truth
    np.testing.assert_allclose(scores[same], best[same], atol=3e-5)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_more_tiles_than_there_are_is_clipped() -> None:
    for level in (_level(7), _level(40, graph=True)):
        ids, _ = level.search(toy.unit(1, 16, seed=3), 1000)
        assert sorted(ids[0]) == list(range(level.tiles))


def test_graph_that_cannot_reach_enough_nodes_gives_way_to_the_scan() -> None:
    codes = toy.codes_of(300, seed=4)
    whole = toy.graph_of(codes)
    # No links at all: a search sees the entry node and nothing else.
    cut = dataclasses.replace(
        whole, degrees=np.zeros_like(whole.degrees), links=np.empty(0, np.uint32)
    )
    level = toy.level_of(codes, graph=assemble(cut, codes, 16), ef=16)
    queries = toy.unit(3, 16, seed=5)
    assert (level.search(queries, 4)[0] == level.scan(queries, 4)[0]).all()


def test_tiles_that_share_a_vector_are_all_found() -> None:
    codes = toy.codes_of(3, seed=6)
    shared = np.array([0, 1, 1, 2, 1, 0], np.uint32)
    level = toy.level_of(codes, vector_of_tile=shared)
    query = dequantise(codes[1:2])
    ids, scores = level.search(query, 4)
    assert ids[0, :3].tolist() == [1, 2, 4]
    assert scores[0, :3] == pytest.approx([1.0, 1.0, 1.0], abs=3e-5)
    ids, _ = level.search(query, 99)
    assert sorted(ids[0]) == [0, 1, 2, 3, 4, 5]


def test_equal_scores_come_in_the_order_of_the_tiles() -> None:
    codes = np.full((50, 4), 127, np.int8)
    codes[30], query = -127, np.full((1, 4), 0.5, np.float32)
    ids, _ = toy.level_of(codes).search(query, 50)
    assert ids[0].tolist() == [*range(30), *range(31, 50), 30]


@given(st.integers(1, 200), st.integers(1, 4), st.sampled_from([64, 128, 200]), st.integers(0, 99))
def test_cosines_of_a_scan_are_those_of_float_arithmetic(
    count: int, queries: int, dim: int, seed: int
) -> None:
    codes, asked = toy.codes_of(count, dim, seed), toy.unit(queries, dim, seed + 1)
    found = scan(asked, codes, inverse_lengths(codes))
    wanted = asked.astype(float) @ dequantise(codes).astype(float).T
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_some_tiles_are_compared_as_all_of_them() -> None:
    codes = toy.codes_of(40, seed=6)
    shared = np.arange(80, dtype=np.uint32) // 2
    level = toy.level_of(codes, vector_of_tile=shared)
    queries, tiles = toy.unit(3, 16, seed=7), np.array([3, 4, 77])
    wanted = queries @ dequantise(codes)[shared[tiles]].T
    np.testing.assert_allclose(level.scores(queries, tiles), wanted, atol=2e-5)


def test_hits_of_leading_dimensions_are_ranked_in_all_of_them() -> None:
    codes = toy.codes_of(3000, 32, seed=8)
    level = toy.level_of(codes, graph=assemble(toy.graph_of(codes[:, :16]), codes, 16), ef=256)
    queries = dequantise(codes[:100])
    ids, scores = level.search(queries, 3)
    assert (ids[:, 0] == np.arange(100)).mean() > 0.97
    assert (np.diff(scores, axis=1) <= 0).all()
    wanted = np.take_along_axis(queries @ dequantise(codes).T, ids, axis=1)
    np.testing.assert_allclose(scores, wanted, atol=1e-5)


def _sampled(graph: bool, shared: bool) -> tuple[LevelSearch, LevelSearch]:
    """Return a level of 60 x 60 tiles with a sample of every third row, and without."""
    lattice = Lattice(80.0, 64, 16, 0.0, 0.0, 60, 60)
    codes, vector_of_tile = quantise(toy.smooth(60, 60)), None
    cells, variants = np.arange(3600, dtype=np.uint32), np.zeros(3600, np.uint8)
    if shared:  # two dates of the same ground: every vector belongs to two tiles
        vector_of_tile = np.repeat(np.arange(3600, dtype=np.uint32), 2)
        cells, variants = np.repeat(cells, 2), np.tile(np.array([0, 1], np.uint8), 3600)
    nearby = Nearby(lattice, cells, variants, 2 if shared else 1)
    chosen = nearby.sample(3)
    sample = chosen if vector_of_tile is None else np.unique(vector_of_tile[chosen]).astype(int)
    assert len(sample) == 400
    own = codes[sample]
    index = assemble(toy.graph_of(own), own, 16) if graph else None
    parts = {"sample": sample, "nearby": nearby, "reach": 2, "graph": index, "ef": 96}
    return (
        toy.level_of(codes, vector_of_tile=vector_of_tile, **parts),
        toy.level_of(codes, vector_of_tile=vector_of_tile),
    )


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_a_sample_and_what_lies_around_it_find_what_the_scan_finds(
    graph: bool, shared: bool
) -> None:
    sampled, whole = _sampled(graph, shared)
    queries = dequantise(whole.codes[np.arange(0, 3600, 37)])
    found, scores = sampled.search(queries, 5)
    wanted, cosines = whole.search(queries, 5)
    assert (found[:, 0] == wanted[:, 0]).all()
    same = [len(set(a) & set(b)) for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]
    assert np.mean(same) > 4.8
    np.testing.assert_allclose(scores[:, 0], cosines[:, 0], atol=2e-5)


def test_a_sample_too_small_for_the_tiles_asked_for_gives_way_to_the_scan() -> None:
    sampled, whole = _sampled(False, False)
    queries = toy.unit(2, 16, seed=5)
    assert (sampled.search(queries, 30)[0] == whole.search(queries, 30)[0]).all()


@given(st.integers(1, 3), st.integers(1, 400), st.integers(1, 12), st.integers(0, 99))
def test_blocks_of_packed_vectors_are_scanned_like_one(
    queries: int, count: int, k: int, seed: int
) -> None:
    codes, asked = toy.codes_of(count, 16, seed), toy.unit(queries, 16, seed + 1)
    cosines = asked @ dequantise(codes).T
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_module, "_BLOCK_VECTORS", 100)
        patch.setattr(search_module, "_BLOCK_QUERIES", 2)
        patch.setattr(search_module, "_GROUP", 4)
        ids, scores = toy.level_of(codes).scan(asked, min(k, count))
    np.testing.assert_allclose(scores, np.sort(cosines, axis=1)[:, ::-1][:, :k], atol=2e-5)
    np.testing.assert_allclose(np.take_along_axis(cosines, ids, axis=1), scores, atol=2e-5)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=3000), st.integers(1, 20))
def test_the_best_scores_come_first_and_equal_ones_in_order(values: list[int], k: int) -> None:
    scores = np.array(values, np.float32)
    k = min(k, len(scores))
    wanted = np.lexsort((np.arange(len(scores)), -scores))[:k]
    assert search_module._best(scores, k).tolist() == wanted.tolist()


def test_several_threads_find_what_one_finds() -> None:
    level, queries = _level(3000, graph=True), toy.unit(64, 16, seed=9)
    wanted = {k: level.search(queries, k)[0] for k in (1, 5, 20)}
    wrong: list[int] = []

    def ask(k: int) -> None:
        for _ in range(20):
            if not np.array_equal(level.search(queries, k)[0], wanted[k]):
                wrong.append(k)

    threads = [threading.Thread(target=ask, args=(k,)) for k in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@settings(max_examples=30)
@given(st.integers(1, 8), st.integers(1, 3), st.integers(0, 999), st.booleans())
def test_a_scan_that_looks_coarsely_first_misses_none_of_vectors_that_are_nearly_alike(
    k: int, queries: int, seed: int, mapped: bool
) -> None:
    """Differences among the best are a tenth of what a coarse look rounds off."""
    rng = np.random.default_rng(seed)
    center = rng.integers(-100, 101, 64)
    codes = (center + rng.integers(-1, 2, (1500, 64))).astype(np.int8)
    codes[rng.permutation(1500)[:700]] = rng.integers(-127, 128, (700, 64))
    asked = (center + rng.standard_normal((queries, 64))).astype(np.float32)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    level = toy.level_of(codes)
    if mapped:
        level.__dict__["_packed"] = (codes,)  # as where vectors are too many to be packed
    found, scores = level.scan(asked, k)
    cosines = scan(asked, codes, inverse_lengths(codes))
    for row, own in enumerate(cosines):
        best = np.lexsort((np.arange(len(own)), -own))[:k]
        assert (found[row] == best).all()
        assert (scores[row] == own[best]).all()
