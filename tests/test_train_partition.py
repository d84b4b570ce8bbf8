"""Parts hold what lists each other, and never two units of one reference."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from s4g.train.partition import join_parts, list_matrix, partition


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 12),
    size=st.integers(1, 10),
    spare=st.integers(0, 4),
    listed=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_no_part_has_two_units_of_a_reference_if_none_has_more_units_than_parts(
    seed: int, count: int, size: int, spare: int, listed: bool
) -> None:
    rng = np.random.default_rng(seed)
    # As many units of each reference as there are parts, then drawn from.
    reference = rng.permutation(np.repeat(np.arange(size + spare), count))[: count * size]
    reference = reference.astype(np.int32)
    lists = rng.integers(0, size + spare, (count * size, 1)).astype(np.int32)
    matrix = list_matrix(lists, size + spare) if listed else None
    parts = partition(reference, matrix, count, size, rng)
    assert parts.shape == (count, size)
    np.testing.assert_array_equal(np.sort(parts, axis=None), np.arange(count * size))
    assert all(len(np.unique(reference[part])) == size for part in parts)


def test_camps_that_do_not_list_each_other_are_not_mixed() -> None:
    rng = np.random.default_rng(0)
    camp = rng.permutation(np.repeat(np.arange(2), 64))
    lists = np.stack([rng.permutation(np.flatnonzero(camp == c))[:12] for c in camp])
    matrix = list_matrix(lists.astype(np.int32), 128)
    parts = partition(np.arange(128, dtype=np.int32), matrix, 8, 16, rng)
    assert all(len(np.unique(camp[part])) == 1 for part in parts)


def test_a_list_matrix_leaves_out_what_is_no_reference() -> None:
    matrix = list_matrix(np.array([[2, -1], [0, 7], [-1, -1]], np.int32), 3)
    np.testing.assert_array_equal(matrix.toarray(), [[0, 0, 1], [1, 0, 0], [0, 0, 0]])


def test_parts_are_joined_with_those_they_have_no_conflict_with() -> None:
    # Units of parts 0 to 3 conflict with their like in all others of these four.
    first = np.repeat(np.arange(4), 4)
    second = np.tile(np.arange(4), 4)
    conflicts = csr_matrix((np.ones(16, np.int32), (first * 2, second * 2)), (16, 16))
    conflicts.setdiag(0)
    conflicts.eliminate_zeros()
    parts = np.arange(16).reshape(8, 2)
    for seed in range(10):
        joined = join_parts(parts, conflicts, 2, np.random.default_rng(seed))
        np.testing.assert_array_equal(np.sort(joined, axis=None), np.arange(16))
        assert ((joined < 8).sum(axis=1) <= 2).all()
