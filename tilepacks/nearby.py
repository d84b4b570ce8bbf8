"""Which tiles of a level lie near a point: a table over its lattice, no tree and no callback."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .tiling import Cells, Lattice

Ids = npt.NDArray[np.int64]
MAX_METRES = 1e8  # farther than any two places on Earth


class Nearby:
    """Tiles of one level by where they lie. A cell may hold several: dates, headings.

    Attributes:
        lattice: the level's.
    """

    def __init__(self, lattice: Lattice, cells: Cells) -> None:
        """Sort tiles (N,) by cell: rows of a lattice are then runs."""
        self.lattice = lattice
        self._order = np.argsort(cells, kind="stable")
        self._cells = cells[self._order].astype(np.int64)
        self._rows = np.unique(self._cells // lattice.columns)  # those with tiles: never many

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
        first = np.searchsorted(self._cells, rows[some] * lattice.columns + left[some], "left")
        stop = np.searchsorted(self._cells, rows[some] * lattice.columns + right[some], "right")
        lengths = stop - first
        runs = np.repeat(first - (np.cumsum(lengths) - lengths), lengths)
        return np.sort(self._order[runs + np.arange(int(lengths.sum()))])
