"""What swaps leave in conflict is solved where it can be, and given up where it cannot."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from s4g.train.repair import repair


def conflicts(edges: list[tuple[int, int]], units: int) -> csr_matrix:
    matrix = np.zeros((units, units), np.int32)
    for first, second in edges:
        matrix[first, second] = matrix[second, first] = 1
    return csr_matrix(matrix)


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 6),
    size=st.integers(1, 5),
    spare=st.integers(0, 4),
    edges=st.integers(0, 40),
)
@settings(max_examples=60, deadline=None)
def test_what_comes_back_is_whole_and_without_conflict(
    seed: int, count: int, size: int, spare: int, edges: int
) -> None:
    rng = np.random.default_rng(seed)
    units = count * size + spare
    pairs = [(int(a), int(b)) for a, b in rng.integers(0, units, (edges, 2)) if a != b]
    matrix = conflicts(pairs, units)
    parts = repair(np.arange(count * size).reshape(count, size), matrix, rng)
    assert len(np.unique(parts)) == parts.size
    assert parts.shape[1] == size
    for part in parts:
        assert not matrix[part][:, part].nnz
    if count > int(matrix.sum(axis=1).max()):  # Hajnal and Szemeredi, 1970
        assert len(parts) == count


def test_a_spare_unit_stands_in_for_one_that_fits_nowhere() -> None:
    matrix = conflicts([(0, 1)], 3)
    (part,) = repair(np.array([[0, 1]]), matrix, np.random.default_rng(0))
    assert 2 in part


def test_a_part_is_given_up_only_where_there_is_no_other_way() -> None:
    # 0 meets nobody: one part of the two can be had from the other three and no more.
    matrix = conflicts([(0, 1), (0, 2), (0, 3)], 4)
    parts = repair(np.array([[0, 1], [2, 3]]), matrix, np.random.default_rng(0))
    assert len(parts) == 1
    assert 0 not in parts


def test_units_that_all_conflict_leave_no_part() -> None:
    matrix = conflicts([(a, b) for a in range(4) for b in range(a)], 4)
    parts = repair(np.arange(4).reshape(2, 2), matrix, np.random.default_rng(0))
    assert parts.shape == (0, 2)


def test_two_chained_swaps_are_found_though_the_first_one_alone_gains_nothing() -> None:
    # A ring of six in two parts of three has one division only: every second one.
    matrix = conflicts([(a, (a + 1) % 6) for a in range(6)], 6)
    parts = repair(np.array([[0, 1, 3], [2, 4, 5]]), matrix, np.random.default_rng(0))
    assert sorted(map(sorted, parts.tolist())) == [[0, 2, 4], [1, 3, 5]]
