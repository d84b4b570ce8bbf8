from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.tilepacks.quantise import are_unit, dequantise, quantise


def _vectors(seed: int, count: int, dim: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([2, 32, 257]))
def test_dequantised_vectors_are_unit_and_point_the_same_way(
    seed: int, count: int, dim: int
) -> None:
    vectors = _vectors(seed, count, dim)
    codes, scales = quantise(vectors)
    assert codes.dtype == np.int8 and codes.min() >= -127
    assert (np.abs(codes).max(axis=1) == 127).all()
    again = dequantise(codes, scales)
    assert np.linalg.norm(again, axis=1) == pytest.approx(np.ones(count), abs=1e-5)
    assert ((again * vectors).sum(axis=1) > 0.9995).all()
    assert are_unit(codes, scales)


def test_vectors_of_any_length_keep_only_their_direction() -> None:
    vectors = _vectors(1, 5, 16)
    codes, scales = quantise(vectors * np.float32(1e-20))
    assert (codes == quantise(vectors)[0]).all()
    assert are_unit(codes, scales)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_vector_without_a_direction_is_refused(value: float) -> None:
    vectors = _vectors(2, 3, 8)
    vectors[1] = value
    with pytest.raises(ValueError, match="^a vector is zero or not finite$"):
        quantise(vectors)


@pytest.mark.parametrize("scale", [0.0, np.nan, np.inf, -1.0, 1.0])
def test_wrong_scale_is_noticed(scale: float) -> None:
    codes, scales = quantise(_vectors(3, 3, 8))
    scales = scales.copy()
    scales[2] = scale
    assert not are_unit(codes, scales)


def test_vector_of_zeros_is_noticed() -> None:
    codes, scales = quantise(_vectors(4, 3, 8))
    codes[0] = 0
    assert not are_unit(codes, scales)
