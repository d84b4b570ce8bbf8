"""Which tiles of a level lie near a point: a table over its lattice, no tree and no callback."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .tiling import Cells, Lattice

Ids = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
MAX_METRES = 1e8  # farther than any two places on Earth
# A lattice of at most so many places per tile is looked up in a table, 4 bytes a place; a corridor,
# which fills little of its lattice, by bisection.
_TABLE_PLACES = 2


class Nearby:
    """Tiles of one level by where they lie. A cell may hold several: dates, headings.

    Attributes:
        lattice: the level's.
    """

    def __init__(
        self, lattice: Lattice, cells: Cells, variants: Bytes | None = None, kinds: int = 1
    ) -> None:
        """Sort tiles (N,) by cell: rows of a lattice are then runs.

        Args:
            lattice: the level's.
            cells: (N,) uint32, the cell of each tile.
            variants: (N,) uint8, the variant of each, below `kinds`; None: all are alike.
            kinds: how many variants there are.
        """
        self.lattice, self._kinds = lattice, kinds
        self._places = cells.astype(np.int64) * kinds + (0 if variants is None else variants)
        self._order = np.argsort(self._places, kind="stable")
        self._sorted = self._places[self._order]
        # Those with tiles: never many.
        self._rows = np.unique(self._sorted // (kinds * lattice.columns))

    @property
    def repeats(self) -> bool:
        """Whether a cell holds a variant twice."""
        return bool((np.diff(self._sorted) == 0).any())

    def around(self, tiles: Ids, reach: int) -> Ids:
        """Return the tiles (T,) at most `reach` rows and columns from some, of the same variant.

        They include the tiles themselves; ascending, int64, each once.
        """
        cells, kind = np.divmod(self._places[tiles], self._kinds)
        rows, columns = np.divmod(cells, self.lattice.columns)
        steps = np.arange(-reach, reach + 1)
        # Beyond the edge of the lattice lies its last row or column: it is among the wanted anyway.
        near_rows = np.minimum(np.maximum(rows[:, None] + steps, 0), self.lattice.rows - 1)
        near_columns = np.minimum(np.maximum(columns[:, None] + steps, 0), self.lattice.columns - 1)
        starts = near_rows * (self.lattice.columns * self._kinds) + kind[:, None]
        places = (starts[:, :, None] + (near_columns * self._kinds)[:, None, :]).ravel()
        found = self._tiles_at(places)
        found.sort()
        first = np.empty(len(found), np.bool_)  # of equal ones; np.unique takes five times as long
        first[:1] = True
        np.not_equal(found[1:], found[:-1], out=first[1:])
        first &= found >= 0
        return found[first].astype(np.int64)

    def prepare(self) -> None:
        """Make what the first look around would have to."""
        _ = self._table

    @cached_property
    def _table(self) -> npt.NDArray[np.int32] | None:
        """The tile at each place, -1 for none, where the lattice is full enough."""
        count = self.lattice.count * self._kinds
        if count > _TABLE_PLACES * len(self._places):
            return None
        table = np.full(count, -1, np.int32)
        table[self._sorted] = self._order
        return table

    def _tiles_at(self, places: Ids) -> npt.NDArray[np.signedinteger[Any]]:
        """Return the tile at each place (P,), -1 for none; in any order."""
        if self._table is not None:
            return self._table[places]
        places.sort()  # neighbours are then looked for where the one before was found
        at = np.searchsorted(self._sorted, places)
        at[at == len(self._sorted)] = 0
        return np.where(self._sorted[at] == places, self._order[at], -1)

    def sample(self, step: int) -> Ids:
        """Return tiles (T,) such that every tile has one of its variant less than `step` from it.

        They are those of every `step`-th row and column, and those that have none of these within
        `step - 1` rows and columns of them: at the edge of a hole, say. Ascending, int64.
        """
        cells, kind = np.divmod(self._places, self._kinds)
        rows, columns = np.divmod(cells, self.lattice.columns)
        reached = np.zeros(len(cells), np.bool_)
        above, left = rows - rows % step, columns - columns % step
        for down in (0, step):
            for right in (0, step):
                near = (np.abs(above + down - rows) < step) & (
                    np.abs(left + right - columns) < step
                )
                near &= left + right < self.lattice.columns
                places = (above + down) * self.lattice.columns + left + right
                places = places * self._kinds + kind
                at = np.searchsorted(self._sorted, places)
                at[at == len(self._sorted)] = 0
                reached |= near & (self._sorted[at] == places)
        of_grid = (rows == above) & (columns == left)
        found: Ids = np.flatnonzero(of_grid | ~reached)
        return found

    def within(self, east_m: float, north_m: float, radius_m: float) -> Ids:
        """Return the tiles whose centres lie within a radius, ascending, int64.

        Args:
            east_m: of the point, metres in the pack's frame, at most `MAX_METRES` away.
            north_m: the same.
            radius_m: not negative, at most as much.
        """
        lattice = self.lattice
        step = lattice.stride_m
        column = (east_m - lattice.west_m - lattice.footprint_m / 2) / step
        row = (lattice.north_m - lattice.footprint_m / 2 - north_m) / step
        reach = radius_m / step
        top, bottom = math.ceil(row - reach), math.floor(row + reach)
        rows = self._rows[np.searchsorted(self._rows, top) :]
        rows = rows[: np.searchsorted(rows, bottom, "right")]
        half = np.sqrt(np.maximum(reach**2 - (rows - row) ** 2, 0))
        left = np.clip(np.ceil(column - half), 0, lattice.columns).astype(np.int64)
        right = np.clip(np.floor(column + half), -1, lattice.columns - 1).astype(np.int64)
        some = left <= right
        starts = rows[some] * lattice.columns
        first = np.searchsorted(self._sorted, (starts + left[some]) * self._kinds, "left")
        stop = np.searchsorted(self._sorted, (starts + right[some] + 1) * self._kinds, "left")
        lengths = stop - first
        runs = np.repeat(first - (np.cumsum(lengths) - lengths), lengths)
        return np.sort(self._order[runs + np.arange(int(lengths.sum()))])
