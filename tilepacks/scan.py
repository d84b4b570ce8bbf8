"""Exact comparison of queries with 8-bit vectors, at the speed of memory.

NumKong multiplies 8-bit integers with the processor's own instructions (VNNI, NEON dot product).
A query becomes two rows of integers, a coarse one and the rest a hundred times finer: what rounding
it would lose is then below float32, and a vector that was read from memory serves both.

Who compares the same vectors again and again packs them once (`pack_codes`): NumKong then reads
them in the order that its kernel wants, five to eight times as fast as as they lie in a file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .quantise import Codes, Floats32

_PEAK = 127
_ROUNDING = 1e-5  # of a cosine in float32, with room
_FINE = 2 * _PEAK  # steps of the fine row in one of the coarse row


def pack_codes(codes: Codes) -> Any:
    """Return vectors (N, D) int8, C-contiguous, as `scan_packed` wants them; about as large."""
    import numkong

    return numkong.dots_pack(codes)


def scan_packed(queries: Floats32, packed: Any, inverse: Floats32) -> Floats32:
    """Return the cosines (B, N) float32 of queries and packed vectors, as `scan` does.

    Args:
        queries: (B, D) float32, of length one.
        packed: of `pack_codes`, N vectors.
        inverse: (N,) float32 of `inverse_lengths`.
    """
    import numkong

    rows, steps = _as_integers(queries)
    return _cosines(np.asarray(numkong.dots_packed(rows, packed)), steps, inverse)


def screen(queries: Floats32, packed: Any, inverse: Floats32) -> tuple[Floats32, Floats32]:
    """Compare queries with vectors coarsely, which takes half the time, and tell how coarsely.

    Args:
        queries: (B, D) float32, of length one.
        packed: of `pack_codes`, N vectors, or the vectors themselves.
        inverse: (N,) float32 of `inverse_lengths`.

    Returns:
        Likenesses (B, N) float32, and for each query (B,) how far one may be from what `scan` would
        give it, in the same unit.
    """
    import numkong

    rows, steps = _as_integers(queries)
    coarse, fine = rows[: len(queries)], rows[len(queries) :].astype(np.float32)
    if isinstance(packed, np.ndarray):
        products = np.asarray(numkong.dots_packed(packed, numkong.dots_pack(coarse))).T
    else:
        products = np.asarray(numkong.dots_packed(coarse, packed))
    likenesses = np.empty(products.shape, np.float32)
    for row, likeness in enumerate(likenesses):
        np.multiply(products[row], inverse, out=likeness, dtype=np.float32, casting="unsafe")
    # What is left out is the fine row's product with a vector of length one, and float32's rounding
    # of a likeness and a cosine.
    bounds = np.linalg.norm(fine, axis=1) / _FINE + _ROUNDING / (_FINE * steps)
    return likenesses, bounds.astype(np.float32)


def scan(queries: Floats32, codes: Codes, inverse: Floats32) -> Floats32:
    """Return the cosines (B, N) float32 of queries and vectors.

    Off by a few 1e-6, at most by 1.6e-5 times the query's largest coordinate times sqrt(D).

    Args:
        queries: (B, D) float32, of length one.
        codes: (N, D) int8, C-contiguous.
        inverse: (N,) float32 of `inverse_lengths`.
    """
    import numkong

    rows, steps = _as_integers(queries)
    products = np.asarray(numkong.dots_packed(codes, numkong.dots_pack(rows)))
    return _cosines(products.T, steps, inverse)


def _as_integers(queries: Floats32) -> tuple[Codes, Floats32]:
    """Return the coarse rows of all queries and then their fine ones, (2B, D), and steps (B,).

    A query is about (254 coarse + fine) times its step.
    """
    peaks = np.maximum(queries.max(axis=1), -queries.min(axis=1))[:, None]
    scaled = queries * (_PEAK / peaks)
    coarse = np.rint(scaled)
    rows = np.empty((2 * len(queries), queries.shape[1]), np.int8)
    rows[: len(queries)] = coarse
    scaled -= coarse
    scaled *= _FINE
    rows[len(queries) :] = np.rint(scaled)
    return rows, (peaks[:, 0] / (_PEAK * _FINE)).astype(np.float32)


def _cosines(products: npt.NDArray[np.int32], steps: Floats32, inverse: Floats32) -> Floats32:
    count = len(steps)
    cosines = np.empty((count, len(inverse)), np.float32)
    for row, cosine in enumerate(cosines):
        np.multiply(products[row], np.float32(_FINE), out=cosine, casting="unsafe")
        cosine += products[count + row]
        cosine *= steps[row]
        cosine *= inverse
    return cosines
