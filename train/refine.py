"""Swaps between batches: harder ones, and no two units in one that may not meet.

Local search after Kernighan and Lin (1970): a unit goes to the batch that holds most of what it
lists and is listed by, and the unit whose place it takes goes where it came from, as long as
both together gain. A forbidden meeting outweighs all listings, so that swaps undo those first.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .relations import Indices
from .units import Counts, pattern, ranges

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# What one forbidden meeting costs, in listings; by a swap at most 4 (batch - 1) are won.
_FORBIDDEN = 1 << 14
# Batches a unit tries, best first.
_TRIED = 4
# The table of units over batches is made for so many batches at a time that it takes at most
# this: 443 batches of 128.
_TABLE_BYTES = 96 << 20
_NEVER = np.iinfo(np.int32).min // 2


def refine(
    parts: Counts,
    reference: Indices,
    listed: csr_matrix | None,
    conflicts: csr_matrix,
    passes: int,
    rng: np.random.Generator,
) -> None:
    """Swap units between parts, in place, as long as both units together gain.

    Args:
        parts: (N, S) int64 units, each once.
        reference: (U,) reference of each unit.
        listed: (U, R) from `list_matrix`; None: only conflicts count.
        conflicts: (U, U) from `conflicts_of`.
        passes: how many times all units are asked.
        rng: decides the order in which units are asked.
    """
    if listed is None and not conflicts.nnz:
        return
    window = max(2, math.isqrt(_TABLE_BYTES // (4 * parts.shape[1])))
    shifts = [(0, passes)]
    if len(parts) > window:  # the second round works across the borders of the first
        shifts = [(0, passes - passes // 2), (window // 2, passes // 2)]
    for shift, rounds in shifts:
        for start in range(-shift, len(parts), window):
            some = parts[max(start, 0) : start + window]
            units = some.ravel()
            swaps = _Swaps(
                some.shape,
                reference[units],
                None if listed is None else listed[units],
                conflicts[units][:, units] if conflicts.nnz else None,
            )
            for _ in range(rounds):
                swaps.run(rng)
            some[:] = units[swaps.members]


class _Rows:
    """The columns that a sparse pattern has in each row."""

    def __init__(self, matrix: csr_matrix) -> None:
        self._start = matrix.indptr.astype(np.int64)
        self._columns = matrix.indices

    def __getitem__(self, row: int) -> Indices:
        columns: Indices = self._columns[self._start[row] : self._start[row + 1]]
        return columns

    def of_all(self, rows: Indices) -> Indices:
        """Return the columns of several rows, one after the other."""
        columns: Indices = self._columns[ranges(self._start[rows], self._start[rows + 1])[0]]
        return columns


class _Swaps:
    """The units of some parts, numbered by their place in them at the start.

    Attributes:
        members: (N, S) units of each part.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        reference: Indices,
        listed: csr_matrix | None,
        conflicts: csr_matrix | None,
    ) -> None:
        count = shape[0] * shape[1]
        self.members = np.arange(count).reshape(shape)
        self._place = np.arange(count)  # part and place in it, as one number
        self._size = shape[1]
        self._reference = reference
        self._listed = self._listed_by = self._units_of = self._conflicts = None
        # What each unit would find in each part: listings in either direction, less conflicts.
        # Kept up to date by every swap, which works on whole columns: hence their order.
        self._table = np.zeros((count, shape[0]), np.int32, order="F")
        units = np.arange(count)
        where = pattern(units, units // shape[1], self._table.shape)
        if listed is not None:
            units_of = pattern(reference, units, (listed.shape[1], count))
            listed_by = listed.T.tocsr()
            self._table += (listed @ (units_of @ where)).toarray().astype(np.int32)
            self._table += (listed_by @ where)[reference].toarray().astype(np.int32)
            self._listed, self._listed_by = _Rows(listed), _Rows(listed_by)
            self._units_of = _Rows(units_of)
        if conflicts is not None:
            self._table -= _FORBIDDEN * (conflicts @ where).toarray()
            self._conflicts = _Rows(conflicts)

    def run(self, rng: np.random.Generator) -> None:
        """Ask every unit once that would by itself be better off elsewhere.

        Of two units that gain together at least one does.
        """
        units = np.arange(len(self._place))
        home = self._place // self._size
        own = self._table[units, home]
        self._table[units, home] = _NEVER
        wishing = np.flatnonzero(self._table.max(axis=1) > own)
        self._table[units, home] = own
        for unit in rng.permutation(wishing):
            other = self._partner(unit)
            if other is not None:
                self._swap(unit, other)

    def _partner(self, unit: int) -> int | None:
        """Return the unit to swap with for the largest gain, None where nothing is gained."""
        table = self._table
        home = self._place[unit] // self._size
        wishes = table[unit].copy()
        own = wishes[home]
        wishes[home] = _NEVER
        best, partner = 0, None
        for _ in range(_TRIED):
            part = wishes.argmax()
            gain = wishes[part] - own
            if gain <= 0:
                break
            wishes[part] = _NEVER
            members = self.members[part]
            gains = table[members, home] - table[members, part]
            other = members[gains.argmax()]
            # Both count on the other, which will not be there.
            gain += gains.max() - 2 * self._listings(unit, other)
            if gain > best:
                best, partner = gain, other
        return partner

    def _listings(self, first: int, second: int) -> int:
        if self._listed is None:
            return 0
        there = (self._listed[first] == self._reference[second]).any()
        back = (self._listed[second] == self._reference[first]).any()
        return int(there) + int(back)

    def _swap(self, first: int, second: int) -> None:
        places = self._place[first], self._place[second]
        self._move(first, places[0] // self._size, places[1] // self._size)
        self._move(second, places[1] // self._size, places[0] // self._size)
        self.members.flat[places[0]], self.members.flat[places[1]] = second, first
        self._place[first], self._place[second] = places[1], places[0]

    def _move(self, unit: int, old: int, new: int) -> None:
        table = self._table
        # No unit stands twice in one of these, so that indexing counts each.
        if self._listed is not None and self._listed_by is not None and self._units_of is not None:
            for units in (
                self._listed_by[self._reference[unit]],
                self._units_of.of_all(self._listed[unit]),
            ):
                table[units, old] -= 1
                table[units, new] += 1
        if self._conflicts is not None:
            units = self._conflicts[unit]
            table[units, old] += _FORBIDDEN
            table[units, new] -= _FORBIDDEN
