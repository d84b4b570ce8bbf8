"""The last forbidden meetings: swaps that may make matters worse for a while.

Tabu search for graph colourings with classes of one size (Hertz and de Werra, 1987). Units that
are in no batch take part: they may stand in for one that fits nowhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .units import Counts, ranges

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Swaps without progress before a batch is given up.
_PATIENCE = 1000
# Swaps for which a unit may not return; and so many more at random.
_TABU, _TABU_MORE = 5, 10
_NEVER = np.iinfo(np.int64).max // 2


def repair(parts: Counts, conflicts: csr_matrix, rng: np.random.Generator) -> Counts:
    """Return parts in which no two units are in conflict.

    Where swaps do not get there, the part with most conflicts is given up, so that its units can
    stand in elsewhere, and so on: the result may have fewer parts, or none.

    Args:
        parts: (N, S) int64 units; those of the U that are in none of them are spare.
        conflicts: (U, U) from `conflicts_of`.
        rng: decides among equals.
    """
    parts = parts.copy()
    while len(parts):
        search = _Search(parts, conflicts, rng)
        if search.solve():
            return search.parts
        parts = np.delete(search.parts, search.worst(), axis=0)
    return parts


class _Search:
    """Parts under repair.

    Attributes:
        parts: (N, S) units.
    """

    def __init__(self, parts: Counts, conflicts: csr_matrix, rng: np.random.Generator) -> None:
        self.parts = parts
        self._start = conflicts.indptr.astype(np.int64)
        self._others = conflicts.indices.astype(np.int64)
        self._rng = rng
        self._where: Counts = np.full(conflicts.shape[0], -1)
        self._where[parts.ravel()] = np.repeat(np.arange(len(parts)), parts.shape[1])
        row = np.repeat(np.arange(conflicts.shape[0]), np.diff(conflicts.indptr))
        meets = (self._where[row] == self._where[self._others]) & (self._where[row] >= 0)
        # Conflicts of each unit within its part.
        self._own = np.bincount(row[meets], minlength=conflicts.shape[0])
        self._tabu: dict[tuple[int, int], int] = {}

    def solve(self) -> bool:
        """Swap until there is no conflict; False where patience ends first."""
        best, since, step = int(self._own.sum()), 0, 0
        while best and since < _PATIENCE:
            step, since = step + 1, since + 1
            self._step(step)
            left = int(self._own.sum())
            if left < best:
                best, since = left, 0
        return best == 0

    def worst(self) -> int:
        """Return the part with most conflicts."""
        return int(self._own[self.parts].sum(axis=1).argmax())

    def _step(self, step: int) -> None:
        unit = int(self._rng.choice(np.flatnonzero(self._own)))
        home = int(self._where[unit])
        change = self._changes(unit, home)
        change[self._forbidden(unit, home, step)] = _NEVER
        if change.min() == _NEVER:
            return  # all are tabu: wait
        other = int(self._rng.choice(np.flatnonzero(change == change.min())))
        away = int(self._where[other])
        until = step + _TABU + int(self._rng.integers(_TABU_MORE))
        self._tabu[unit, home] = self._tabu[other, away] = until
        self._swap(unit, other)

    def _neighbours(self, unit: int) -> Counts:
        neighbours: Counts = self._others[self._start[unit] : self._start[unit + 1]]
        return neighbours

    def _changes(self, unit: int, home: int) -> Counts:
        """Return how many conflicts a swap of `unit` with each other one would add."""
        neighbours = self._neighbours(unit)
        there = np.bincount(self._where[neighbours] + 1, minlength=len(self.parts) + 1)
        there[0] = 0  # no part, no conflict
        rows = self.parts[home]
        coming = self._others[ranges(self._start[rows], self._start[rows + 1])[0]]
        change: Counts = there[self._where + 1] - self._own[unit] - self._own
        change += np.bincount(coming, minlength=len(self._where))
        # Two that are in conflict do not meet by changing places.
        change[neighbours] -= 1 + (self._where[neighbours] >= 0)
        return change

    def _forbidden(self, unit: int, home: int, step: int) -> npt.NDArray[np.bool_]:
        forbidden: npt.NDArray[np.bool_] = self._where == home
        self._tabu = {place: until for place, until in self._tabu.items() if until > step}
        for tabu_unit, part in self._tabu:
            if tabu_unit == unit:
                forbidden |= self._where == part
            elif part == home:
                forbidden[tabu_unit] = True
        return forbidden

    def _swap(self, unit: int, other: int) -> None:
        home, away = int(self._where[unit]), int(self._where[other])
        self.parts[home, self.parts[home] == unit] = other
        if away >= 0:
            self.parts[away, self.parts[away] == other] = unit
        self._move(unit, away)
        self._move(other, home)

    def _move(self, unit: int, part: int) -> None:
        neighbours = self._neighbours(unit)
        where = self._where[neighbours]
        old = self._where[unit]
        if old >= 0:
            self._own[neighbours[where == old]] -= 1
        self._own[unit] = 0
        if part >= 0:
            met = neighbours[where == part]
            self._own[met] += 1
            self._own[unit] = len(met)
        self._where[unit] = part
