from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.tilepacks.quantise import inverse_lengths
from s4g.tilepacks.scan import scan

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_vectors.py"))))


def _float(queries: np.ndarray, codes: np.ndarray) -> np.ndarray:
    vectors = codes.astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(queries.astype(np.float64) @ vectors.T)


def _bound(queries: np.ndarray) -> float:
    """Return how far off a cosine may be: half a fine step for every coordinate, and float32."""
    return float(np.abs(queries).max() * np.sqrt(queries.shape[1]) / 127 / 508 + 2e-6)


@given(st.integers(1, 5), st.integers(1, 130), st.integers(1, 300), st.integers(0, 999))
def test_cosines_are_those_of_float_arithmetic(
    queries: int, count: int, dim: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(-127, 128, (count, dim)).astype(np.int8)
    codes[:, 0] = 127
    asked = toy.unit(queries, dim, seed)
    found = scan(asked, codes, inverse_lengths(codes))
    assert found.shape == (queries, count) and found.dtype == np.float32
    np.testing.assert_allclose(found, _float(asked, codes), rtol=0, atol=_bound(asked))


@given(st.integers(64, 256), st.integers(0, 999))
def test_cosines_of_a_pack_are_within_two_in_a_hundred_thousand(dim: int, seed: int) -> None:
    codes, asked = toy.codes_of(50, dim, seed), toy.unit(2, dim, seed + 1)
    found = scan(asked, codes, inverse_lengths(codes))
    np.testing.assert_allclose(found, _float(asked, codes), rtol=0, atol=2e-5)


@pytest.mark.parametrize("value", [127, -127, -128])
def test_the_largest_products_do_not_overflow(value: int) -> None:
    codes = np.full((3, 2048), value, np.int8)
    asked = np.full((2, 2048), 2048**-0.5, np.float32)
    found = scan(asked, codes, inverse_lengths(codes))
    np.testing.assert_allclose(found, np.sign(value), atol=2e-5)


def test_a_query_of_one_coordinate_is_compared_as_exactly() -> None:
    codes, asked = toy.codes_of(50, 64), np.zeros((1, 64), np.float32)
    asked[0, 5] = -1
    np.testing.assert_allclose(
        scan(asked, codes, inverse_lengths(codes)), _float(asked, codes), atol=2e-5
    )


@pytest.mark.parametrize(("queries", "count"), [(0, 5), (2, 0)])
def test_nothing_is_compared_with_nothing(queries: int, count: int) -> None:
    codes = toy.codes_of(5)[:count]
    found = scan(toy.unit(2, 16)[:queries], codes, inverse_lengths(codes))
    assert found.shape == (queries, count)


def test_vectors_of_a_file_that_is_mapped_are_compared() -> None:
    codes = toy.codes_of(20)
    mapped = np.frombuffer(codes.tobytes(), np.int8).reshape(codes.shape)  # read only
    asked = toy.unit(2, 16, 1)
    assert (
        scan(asked, mapped, inverse_lengths(mapped)) == scan(asked, codes, inverse_lengths(codes))
    ).all()
