"""Split all units into batches of units that list each other, by halving again and again.

A half is found by smoothing: random numbers are averaged over neighbours in the lists until they
vary slowly over the whole set, then cut at a level (a few steps of power iteration towards the
slow eigenvectors of the graph; Shi and Malik, 2000). A random start gives other cuts each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .relations import Indices
from .units import Counts, pattern, rank_within

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Steps of averaging: 40 win 2 % of hardness over 20 after the swaps, and cost twice the time.
_STEPS = 20
# Values stay whole numbers up to this: sums of them are exact in float64 in any order, so that
# every machine cuts alike.
_SCALE = 1 << 20


def list_matrix(lists: Indices, references: int) -> csr_matrix:
    """Return lists as a sparse matrix of ones, units over references; float64.

    Args:
        lists: (U, k) int32 references, each once; what is not in [0, references) is left out.
        references: R.
    """
    from scipy.sparse import csr_matrix

    listed = (lists >= 0) & (lists < references)
    start = np.zeros(len(lists) + 1, np.int64)
    np.cumsum(listed.sum(axis=1), out=start[1:])
    columns = lists[listed]
    return csr_matrix((np.ones(len(columns)), columns, start), (len(lists), references))


def partition(
    reference: Indices,
    listed: csr_matrix | None,
    count: int,
    size: int,
    rng: np.random.Generator,
) -> Counts:
    """Split units into `count` parts of `size`, none with two units of one reference.

    Args:
        reference: (U,) reference of each; U = count size, and none occurs more than `count` times.
        listed: from `list_matrix`; None: parts are random.
        count: number of parts.
        size: units in a part.
        rng: decides the cuts.

    Returns:
        (count, size) int64 units; parts that lie near each other in the lists stand near.
    """
    parts = np.empty((count, size), np.int64)
    # (units, number of parts to make of them, first of these parts)
    waiting = [(rng.permutation(len(reference)), count, 0)]
    while waiting:
        units, number, first = waiting.pop()
        if number == 1:
            parts[first] = units
            continue
        if listed is not None:
            values = _smooth(reference[units], listed[units], rng)
            units = units[np.argsort(values, kind="stable")]
        half = number // 2
        left = _cut(reference[units], number, half, size)
        waiting += [
            (units[left], half, first),
            (units[~left], number - half, first + half),
        ]
    return parts


def _smooth(
    reference: Indices, listed: csr_matrix, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Return a number for each unit that is similar for units that list each other."""
    backwards = listed.T

    def summed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sum over the units that one lists and those that list one; exact."""
        by_reference = np.bincount(reference, weights=values, minlength=listed.shape[1])
        return np.asarray(listed @ by_reference + (backwards @ values)[reference])

    values: Any = rng.integers(-_SCALE, _SCALE, len(reference)).astype(np.float64)
    degree = summed(np.ones(len(reference)))
    weights = degree.astype(np.int64)
    total = max(int(weights.sum()), 1)
    for _ in range(_STEPS):
        # Half of itself stays: else a set of two camps would swing to and fro.
        values = np.rint(summed(values) / np.maximum(degree, 1) + values / 2)
        # The constant is the slowest of all and cuts nothing: take it out.
        values -= int((weights * values.astype(np.int64)).sum()) // total
        values = np.rint(values * (_SCALE / max(np.abs(values).max(), 1.0)))
    return np.asarray(values, np.float64)


def _cut(reference: Indices, number: int, half: int, size: int) -> npt.NDArray[np.bool_]:
    """Mark the first half such that no reference occurs more often than a side has parts.

    A reference that occurs c times, c <= number, gives between c - (number - half) and half of
    its units to the left. Both bounds straddle c half / number, hence half * size units can
    always be found.
    """
    rank = rank_within(reference)
    count = np.bincount(reference)[reference]
    left = rank < count - (number - half)
    allowed = np.flatnonzero((rank < half) & ~left)
    left[allowed[: half * size - int(left.sum())]] = True
    return left


def join_parts(
    parts: Counts, conflicts: csr_matrix, number: int, rng: np.random.Generator
) -> Counts:
    """Join `number` random parts at a time, with as few conflicts between them as seems possible.

    Args:
        parts: (N, S) int64 units; N is a multiple of `number`.
        conflicts: (U, U) from `conflicts_of`.
        number: how many to join.
        rng: decides.

    Returns:
        (N / number, number S) int64 units.
    """
    order = rng.permutation(len(parts))
    joined = order.reshape(number, -1).T.copy()  # (N / number, number) parts
    if number > 1 and conflicts.nnz:
        units = parts.ravel()
        which = pattern(
            np.repeat(np.arange(len(parts)), parts.shape[1]),
            units,
            (len(parts), conflicts.shape[0]),
        )
        between = which @ conflicts @ which.T  # conflicts of part with part
        total = np.asarray(between.sum(axis=1)).ravel()
        for column in range(1, number):
            left = joined[:, column].copy()
            # Those with most conflicts choose first; each chooses among what is left.
            rows = np.argsort(-total[joined[:, :column]].sum(axis=1), kind="stable")
            for turn, row in enumerate(rows):
                found = np.asarray(between[joined[row, :column]].sum(axis=0)).ravel()
                best = turn + int(found[left[turn:]].argmin())
                left[turn], left[best] = left[best], left[turn]
            joined[rows, column] = left
    return parts[joined].reshape(len(joined), -1)
