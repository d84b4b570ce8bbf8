from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest

from s4g.tilepacks.projection import Projection, add_moments, principal

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_vectors.py"))))


def _on_a_plane(count: int, dim: int, rank: int) -> npt.NDArray[np.float32]:
    """Return unit vectors (count, dim) that lie in `rank` directions, with as little noise."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((count, rank)) @ rng.standard_normal((rank, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def _moments(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    moments = np.zeros((vectors.shape[1],) * 2)
    add_moments(moments, vectors)
    return moments


def test_directions_are_orthonormal() -> None:
    matrix = principal(_moments(toy.unit(500, 32)), (8, 5))
    assert matrix.shape == (32, 13) and matrix.dtype == np.float32
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(13), atol=1e-6)


def test_vectors_of_a_plane_keep_their_cosines() -> None:
    vectors = _on_a_plane(300, 32, 6)
    projection = Projection(6, principal(_moments(vectors), (4, 2)))
    found = projection.apply(vectors)
    np.testing.assert_allclose(found @ found.T, vectors @ vectors.T, atol=1e-5)


def test_the_strongest_directions_come_in_the_first_group() -> None:
    vectors = toy.unit(500, 16) * np.linspace(3, 0.1, 16, dtype=np.float32)
    matrix = principal(_moments(vectors), (4, 12))
    power = ((vectors @ matrix) ** 2).sum(axis=0)
    np.testing.assert_allclose(
        power[:4].sum(), np.linalg.eigvalsh(_moments(vectors))[-4:].sum(), rtol=1e-4
    )


def test_coordinates_of_a_group_are_alike_in_size() -> None:
    vectors = toy.unit(2000, 32) * np.geomspace(30, 1, 32, dtype=np.float32)
    power = ((vectors @ principal(_moments(vectors), (16,))) ** 2).mean(axis=0)
    own = np.sort(np.linalg.eigvalsh(_moments(vectors)))[::-1][:16]
    assert power.max() / power.min() < own.max() / own.min() / 3


def test_moments_of_parts_are_those_of_the_whole() -> None:
    vectors = toy.unit(100, 8).astype(np.float16)
    parts = np.zeros((8, 8))
    for part in (vectors[:30], vectors[30:]):
        add_moments(parts, part)
    np.testing.assert_allclose(parts, _moments(vectors), rtol=1e-5)


def test_same_moments_give_the_same_directions() -> None:
    moments = _moments(toy.unit(100, 16))
    assert (principal(moments, (4, 4)) == principal(moments.copy(), (4, 4))).all()


def test_leading_coordinates_are_scaled_to_length_one() -> None:
    vectors = toy.unit(20, 16)
    found = Projection(4).apply(vectors)
    np.testing.assert_allclose(
        found, vectors[:, :4] / np.linalg.norm(vectors[:, :4], axis=1, keepdims=True), atol=1e-6
    )


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_vector_with_no_part_in_it_is_refused(value: float) -> None:
    vectors = toy.unit(5, 16)
    vectors[2, :4] = value
    with pytest.raises(ValueError, match="^a vector is zero or not finite$"):
        Projection(4).apply(vectors)
