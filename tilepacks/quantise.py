"""Embeddings as 8-bit integers: one symmetric scale per vector."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int8]
Floats32 = npt.NDArray[np.float32]

_PEAK = 127  # -128 stays unused, so that the range is symmetric


def quantise(embeddings: Floats32) -> tuple[Codes, Floats32]:
    """Quantise vectors, each to its own full range.

    The scale is chosen so that `codes * scale` has length one: the rounding changes a vector's
    direction by about 0.5/127 of its peak, never its length, and a dot product is a cosine.

    Args:
        embeddings: (N, D) float32, finite, none zero.

    Returns:
        Codes (N, D) int8 in -127..127 and scales (N,) float32.

    Raises:
        ValueError: a vector is zero or not finite.
    """
    peaks = np.abs(embeddings).max(axis=1, initial=0, keepdims=True)
    if not (np.isfinite(peaks).all() and (peaks > 0).all()):
        raise ValueError("a vector is zero or not finite")
    codes = np.rint(embeddings * (_PEAK / peaks.astype(np.float64))).astype(np.int8)
    return codes, (1 / _lengths(codes)).astype(np.float32)


def dequantise(codes: Codes, scales: Floats32) -> Floats32:
    """Return codes (N, D) int8 and scales (N,) float32 as vectors (N, D) float32 of length one."""
    vectors = codes.astype(np.float32)
    vectors *= scales[:, None]
    return vectors


def are_unit(codes: Codes, scales: Floats32) -> bool:
    """Return whether every `codes * scale` is finite and has length one within 1e-4."""
    lengths = _lengths(codes) * scales
    return bool((np.abs(lengths - 1) < 1e-4).all())


def _lengths(codes: Codes) -> npt.NDArray[np.float64]:
    squares = np.einsum("nd,nd->n", codes, codes, dtype=np.int64)
    lengths: npt.NDArray[np.float64] = np.sqrt(squares.astype(np.float64))
    return lengths
