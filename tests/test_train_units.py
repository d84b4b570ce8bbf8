"""Units hold views of one reference, and know with whom they may not meet."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from s4g.train.relations import Relations
from s4g.train.units import (
    PairArrays,
    batch_limit,
    build_units,
    conflicts_of,
    ranges,
    rank_within,
)


def pair_set(edges: list[tuple[int, int]], semi: list[tuple[int, int]]) -> PairArrays:
    queries, references = np.array(edges, np.int32).T
    both = np.array(edges + semi, np.int32)
    weights = [1.0] * len(edges) + [0.0] * len(semi)
    return SimpleNamespace(
        pair_query=queries,
        pair_reference=references,
        pair_weight=np.ones(len(queries), np.float32),
        relations=Relations.from_edges(*both.T, int(both[:, 0].max()) + 1, weights),
    )


def test_one_query_one_reference_and_semi_positives_either_way_are_conflicts() -> None:
    edges = [(0, 0), (0, 1), (1, 1), (2, 2), (3, 3), (4, 4)]
    pairs = pair_set(edges, [(2, 3)])
    units = build_units(pairs, 1, np.random.default_rng(0))
    order = np.argsort(units.pairs[:, 0])
    matrix = conflicts_of(units).toarray()[np.ix_(order, order)]
    expected = np.zeros((6, 6), int)
    for first, second in ((0, 1), (0, 2), (1, 2), (3, 4)):
        # (0, 0) and (1, 1): query 0 is also seen on reference 1.
        expected[first, second] = expected[second, first] = 1
    np.testing.assert_array_equal(matrix, expected)


def test_units_hold_views_of_one_reference_and_leave_the_rest_over() -> None:
    pairs = pair_set([(q, q // 5) for q in range(15)], [])
    units = build_units(pairs, 2, np.random.default_rng(0))
    assert units.pairs.shape == (6, 2)
    np.testing.assert_array_equal(pairs.pair_reference[units.pairs].T, [units.reference] * 2)
    assert len(np.unique(units.pairs)) == 12


def test_a_reference_and_a_query_serve_once_in_a_batch() -> None:
    by_reference = pair_set([(q, 0) for q in range(6)] + [(6, 1), (7, 2), (8, 3)], [])
    by_query = pair_set([(0, r) for r in range(6)] + [(1, 6), (2, 7), (3, 8)], [])
    for pairs in (by_reference, by_query):
        units = build_units(pairs, 1, np.random.default_rng(0))
        assert batch_limit(units, pairs, 2) == 3  # 3 of the 6, with one other each
        assert batch_limit(units, pairs, 5) == 0


def test_ranges_are_numbered_one_after_the_other() -> None:
    numbers, row = ranges(np.array([5, 2, 9]), np.array([7, 2, 12]))
    np.testing.assert_array_equal(numbers, [5, 6, 9, 10, 11])
    np.testing.assert_array_equal(row, [0, 0, 2, 2, 2])


def test_ranks_count_the_equal_ones_before() -> None:
    np.testing.assert_array_equal(rank_within(np.array([3, 1, 3, 3, 1])), [0, 0, 1, 2, 1])
