"""Swaps only ever gain, and put an end to forbidden meetings first."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from s4g.train import refine as module
from s4g.train.partition import list_matrix
from s4g.train.refine import refine
from s4g.train.relations import Indices
from s4g.train.units import Counts

Table = npt.NDArray[np.int64]


def listings(reference: Indices, lists: Indices) -> Table:
    """Return how often units list each other: (U, U), worked out from the lists."""
    listed = (lists[:, :, None] == reference[None, None]).any(axis=1)
    return np.asarray(listed.astype(np.int64) + listed.T)


def inside(parts: Counts, table: Table) -> int:
    return sum(int(table[np.ix_(part, part)].sum()) for part in parts)


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(2, 8),
    size=st.integers(2, 8),
    references=st.integers(4, 40),
    apart=st.integers(0, 30),
    table_bytes=st.sampled_from([1, 1 << 20]),
)
@settings(max_examples=80, deadline=None)
def test_swaps_trade_meetings_for_listings_and_never_lose(
    seed: int, count: int, size: int, references: int, apart: int, table_bytes: int
) -> None:
    rng = np.random.default_rng(seed)
    units = count * size
    reference = rng.integers(0, references, units).astype(np.int32)
    lists = np.stack([rng.permutation(references)[:4] for _ in range(units)]).astype(np.int32)
    pair = rng.integers(0, units, (apart, 2))
    forbidden = np.zeros((units, units), np.int32)
    forbidden[pair[:, 0], pair[:, 1]] = forbidden[pair[:, 1], pair[:, 0]] = 1
    np.fill_diagonal(forbidden, 0)
    value = listings(reference, lists) - (1 << 14) * forbidden.astype(np.int64)
    np.fill_diagonal(value, 0)
    parts = rng.permutation(units).reshape(count, size)
    before = inside(parts, value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_TABLE_BYTES", table_bytes)  # 1: two parts at a time
        refine(parts, reference, list_matrix(lists, references), csr_matrix(forbidden), 3, rng)
    np.testing.assert_array_equal(np.sort(parts, axis=None), np.arange(units))
    assert inside(parts, value) >= before


def test_two_that_may_not_meet_are_parted_at_the_cost_of_what_lists_them() -> None:
    # 0 and 1 list each other, and nothing else is listed.
    lists = np.array([[1], [0], [-1], [-1]], np.int32)
    forbidden = csr_matrix(([1, 1], ([0, 1], [1, 0])), (4, 4))
    parts = np.array([[0, 1], [2, 3]])
    reference = np.arange(4, dtype=np.int32)
    refine(parts, reference, list_matrix(lists, 4), forbidden, 1, np.random.default_rng(0))
    assert sorted(map(len, (set(part) & {0, 1} for part in parts.tolist()))) == [1, 1]


def test_a_unit_goes_where_its_likes_are() -> None:
    kind = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    lists = np.stack([np.flatnonzero(kind == k) for k in kind]).astype(np.int32)
    parts = np.arange(8).reshape(2, 4)
    empty = csr_matrix((8, 8), dtype=np.int32)
    reference = np.arange(8, dtype=np.int32)
    refine(parts, reference, list_matrix(lists, 8), empty, 1, np.random.default_rng(0))
    assert sorted(map(sorted, kind[parts].tolist())) == [[0] * 4, [1] * 4]
