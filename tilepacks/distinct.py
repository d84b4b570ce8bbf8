"""Which vectors are the same: repeated ones break a search graph, and need not be stored twice."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .quantise import Codes

_SEED = 23
_ROWS = 65536
Ids = npt.NDArray[np.int64]


def distinct(codes: Codes) -> tuple[Ids, Ids]:
    """Find equal rows of (N, D) int8.

    Returns:
        `first`: (V,) the first row of each distinct vector, ascending; `vector_of_row`: (N,) which
        of them each row is.
    """
    seed = _SEED
    while True:
        _, first, inverse = np.unique(_hashes(codes, seed), return_index=True, return_inverse=True)
        order = np.argsort(first, kind="stable")
        number = np.empty_like(order)
        number[order] = np.arange(len(order))
        first, vector_of_row = first[order], number[inverse.reshape(-1)]
        if _same(codes, first[vector_of_row]):
            return first, vector_of_row
        seed += 1  # two different rows with one hash: in a billion rows about once in 40 packs


def _hashes(codes: Codes, seed: int) -> npt.NDArray[np.uint64]:
    """Return 64-bit hashes (N,): multiply, add and shift, modulo 2**64."""
    count, dim = codes.shape
    width = -(-dim // 8) * 8
    odd = np.random.default_rng(seed).integers(0, 2**63, width // 8, dtype=np.uint64) * 2 + 1
    found = np.zeros(count, np.uint64)
    for start in range(0, count, _ROWS):
        part = codes[start : start + _ROWS]
        padded = np.zeros((len(part), width), np.int8)
        padded[:, :dim] = part
        for word, factor in zip(padded.view(np.uint64).T, odd, strict=True):
            mixed = found[start : start + _ROWS] ^ word
            mixed *= factor
            found[start : start + _ROWS] = mixed ^ (mixed >> np.uint64(29))
    return found


def _same(codes: Codes, other: Ids) -> bool:
    return all(
        np.array_equal(codes[start : start + _ROWS], codes[other[start : start + _ROWS]])
        for start in range(0, len(codes), _ROWS)
    )
