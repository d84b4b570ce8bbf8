from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.tilepacks import distinct as distinct_module
from s4g.tilepacks.distinct import distinct
from s4g.tilepacks.quantise import Codes


def _check(codes: Codes) -> None:
    first, vector_of_row = distinct(codes)
    assert (np.diff(first) > 0).all()
    assert (codes[first][vector_of_row] == codes).all()
    _, wanted = np.unique(codes, axis=0, return_index=True)
    assert first.tolist() == sorted(wanted.tolist())


@given(
    st.integers(1, 200), st.sampled_from([1, 7, 8, 9, 64]), st.integers(1, 6), st.integers(0, 99)
)
def test_distinct_rows_are_those_of_numpy(count: int, dim: int, span: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    _check(rng.integers(-span, span, (count, dim)).astype(np.int8))


def test_rows_of_several_blocks_are_compared_with_each_other() -> None:
    codes = np.zeros((70_000, 4), np.int8)
    codes[65_530:, 1] = 5
    codes[3] = codes[69_999] = (1, 2, 3, 4)
    _check(codes)


def test_rows_that_differ_in_the_order_alone_are_not_the_same() -> None:
    codes = np.array([[1, 2, 0, 0, 0, 0, 0, 0], [2, 1, 0, 0, 0, 0, 0, 0]], np.int8)
    assert distinct(codes)[1].tolist() == [0, 1]
    words = np.array([[1] * 8 + [2] * 8, [2] * 8 + [1] * 8], np.int8)
    assert distinct(words)[1].tolist() == [0, 1]


def test_different_rows_with_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes, seeds = distinct_module._hashes, []

    def colliding(codes: Codes, seed: int) -> np.ndarray:
        seeds.append(seed)
        found = hashes(codes, seed)
        return np.zeros_like(found) if len(seeds) == 1 else found

    monkeypatch.setattr(distinct_module, "_hashes", colliding)
    _check(np.arange(40, dtype=np.int8).reshape(10, 4))
    assert len(set(seeds)) == 2
