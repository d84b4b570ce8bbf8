"""Embeddings as 8-bit integers. A vector's direction is kept; its length is one by definition."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int8]
Floats32 = npt.NDArray[np.float32]

_PEAK = 127  # -128 stays unused, so that the range is symmetric
_ROWS = 16384  # turned into wider numbers at once


def quantise(vectors: Floats32) -> Codes:
    """Quantise vectors, each to its own full range.

    The rounding changes a vector's direction by about 0.5/127 of its peak. No scale is kept: the
    vector meant is `codes / |codes|`, and a cosine needs nothing else.

    Args:
        vectors: (N, D) float32, finite, none zero.

    Returns:
        Codes (N, D) int8 in -127..127.

    Raises:
        ValueError: a vector is zero or not finite.
    """
    peaks = np.abs(vectors).max(axis=1, initial=0, keepdims=True)
    if not (np.isfinite(peaks).all() and (peaks > 0).all()):
        raise ValueError("a vector is zero or not finite")
    codes: Codes = np.rint(vectors * (_PEAK / peaks.astype(np.float64))).astype(np.int8)
    return codes


def dequantise(codes: Codes, dims: int | None = None) -> Floats32:
    """Return codes (N, D) int8 as vectors (N, dims) float32 of length one.

    Args:
        codes: of `quantise`.
        dims: how many leading dimensions to take; None for all. Where those are all zero the
            vector is zero.
    """
    vectors = codes[:, :dims].astype(np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    vectors *= np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)[:, None]
    return vectors


def inverse_lengths(codes: Codes) -> Floats32:
    """Return 1 / |codes|, (N,) float32, of codes (N, D) int8.

    Raises:
        ValueError: a vector is zero.
    """
    found = np.empty(len(codes), np.float32)
    for start in range(0, len(codes), _ROWS):
        # Exact: squares of integers add up to less than 2**24 for up to 1,040 dimensions.
        part = codes[start : start + _ROWS].astype(np.float32)
        found[start : start + _ROWS] = np.einsum("nd,nd->n", part, part)
    if not found.all():
        raise ValueError("a vector is zero")
    inverse: Floats32 = (1 / np.sqrt(found)).astype(np.float32)
    return inverse
