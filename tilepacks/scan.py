"""Exact comparison of queries with 8-bit vectors, at the speed of memory.

NumKong multiplies 8-bit integers with the processor's own instructions (VNNI, NEON dot product).
A query becomes two rows of integers, a coarse one and the rest a hundred times finer: what rounding
it would lose is then below float32, and a vector that was read from memory serves both.
"""

from __future__ import annotations

import numpy as np

from .quantise import Codes, Floats32

_PEAK = 127


def scan(queries: Floats32, codes: Codes, inverse: Floats32) -> Floats32:
    """Return the cosines (B, N) float32 of queries and vectors.

    Off by a few 1e-6, at most by 1.6e-5 times the query's largest coordinate times sqrt(D).

    Args:
        queries: (B, D) float32, of length one.
        codes: (N, D) int8, C-contiguous.
        inverse: (N,) float32 of `inverse_lengths`.
    """
    import numkong

    coarse_step = np.abs(queries).max(axis=1, keepdims=True) / _PEAK
    coarse = np.rint(queries / coarse_step)
    fine_step = coarse_step / (2 * _PEAK)
    fine = np.clip(np.rint((queries - coarse * coarse_step) / fine_step), -_PEAK, _PEAK)
    rows = np.concatenate([coarse, fine]).astype(np.int8)
    products = np.asarray(numkong.dots_packed(codes, numkong.dots_pack(rows)))
    steps = np.concatenate([coarse_step, fine_step]).astype(np.float32)[:, 0]
    count = len(queries)
    cosines = np.empty((count, len(codes)), np.float32)
    for row in range(count):
        np.multiply(products[:, row], steps[row], out=cosines[row], casting="unsafe")
        cosines[row] += products[:, count + row] * steps[count + row]
        cosines[row] *= inverse
    return cosines
