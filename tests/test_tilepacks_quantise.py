from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.tilepacks.quantise import dequantise, inverse_lengths, quantise

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_vectors.py"))))


@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([2, 32, 257]))
def test_dequantised_vectors_are_unit_and_point_the_same_way(
    seed: int, count: int, dim: int
) -> None:
    vectors = toy.unit(count, dim, seed)
    codes = quantise(vectors)
    assert codes.dtype == np.int8 and codes.min() >= -127
    assert (np.abs(codes).max(axis=1) == 127).all()
    again = dequantise(codes)
    assert np.linalg.norm(again, axis=1) == pytest.approx(np.ones(count), abs=1e-5)
    assert ((again * vectors).sum(axis=1) > 0.9995).all()
    lengths = np.linalg.norm(codes.astype(float), axis=1)
    assert inverse_lengths(codes) == pytest.approx(1 / lengths, rel=1e-6)


def test_vectors_of_any_length_keep_only_their_direction() -> None:
    vectors = toy.unit(5, 16)
    assert (quantise(vectors * np.float32(1e-20)) == quantise(vectors)).all()


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_vector_without_a_direction_is_refused(value: float) -> None:
    vectors = toy.unit(3, 8)
    vectors[1] = value
    with pytest.raises(ValueError, match="^a vector is zero or not finite$"):
        quantise(vectors)


def test_leading_dimensions_are_scaled_to_length_one() -> None:
    codes = toy.codes_of(20, 32)
    leading = dequantise(codes, 8)
    assert leading.shape == (20, 8)
    assert np.linalg.norm(leading, axis=1) == pytest.approx(np.ones(20), abs=1e-6)
    codes[3, :8] = 0
    assert not dequantise(codes, 8)[3].any()


def test_a_code_of_zeros_is_noticed() -> None:
    codes = toy.codes_of(3, 8)
    codes[2] = 0
    with pytest.raises(ValueError, match="^a vector is zero$"):
        inverse_lengths(codes)
