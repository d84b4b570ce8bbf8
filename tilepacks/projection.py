"""Fewer dimensions: which directions of the embeddings a region's tiles differ in.

The directions are the principal ones of the pack's own vectors, without taking their mean away: a
projection onto them keeps cosines as they were, as far as the region's ground reaches, so that the
encoder's calibration of scores stays true. They come in groups, the strongest first, and within a
group they are turned at random: then all coordinates of a group are alike in size, and 8 bits
serve every one (Jegou et al., Aggregating local image descriptors, PAMI 2012, section 4). An
encoder that was trained with nested dimensions needs none of this: its leading coordinates serve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .quantise import Floats32

_SEED = 11
Moments = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Projection:
    """From embeddings to the vectors of a pack.

    Attributes:
        dims: length of the pack's vectors.
        matrix: (D, dims) float32 with orthonormal columns, or None for the leading coordinates.
    """

    dims: int
    matrix: Floats32 | None = None

    def apply(self, embeddings: Floats32) -> Floats32:
        """Return embeddings (N, D) float32 as vectors (N, dims) float32 of length one.

        Raises:
            ValueError: one has no part in these dimensions, or is not finite.
        """
        vectors = embeddings[:, : self.dims] if self.matrix is None else embeddings @ self.matrix
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and (lengths > 0).all()):
            raise ValueError("a vector is zero or not finite")
        unit: Floats32 = (vectors / lengths).astype(np.float32)
        return unit


def add_moments(moments: Moments, embeddings: npt.NDArray[np.floating]) -> None:
    """Add embeddings (N, D) to their second moments (D, D)."""
    rows = embeddings.astype(np.float32)
    moments += (rows.T @ rows).astype(np.float64)


def principal(moments: Moments, groups: tuple[int, ...]) -> Floats32:
    """Return the principal directions (D, sum of groups) float32 of second moments (D, D).

    Args:
        moments: of `add_moments`.
        groups: how many directions each group has; the first group holds the strongest.
    """
    _, vectors = np.linalg.eigh(moments)
    strongest = vectors[:, ::-1][:, : sum(groups)]
    rng = np.random.default_rng(_SEED)
    parts, at = [], 0
    for size in groups:
        turn, _ = np.linalg.qr(rng.standard_normal((size, size)))
        parts.append(strongest[:, at : at + size] @ turn)
        at += size
    return np.ascontiguousarray(np.concatenate(parts, axis=1), np.float32)
