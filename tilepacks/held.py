"""The tiles of a pack's level as they are stored: read, cut down, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from .columns import decode_column
from .embed import Bytes
from .format import damaged
from .grid import cut, moved_cells
from .level import PackedTiles
from .quantise import Codes
from .reader import Pack
from .search import Ids
from .tiling import Cells, Lattice, hilbert_order
from .variants import MAX_VARIANTS

PLACES_PER_CELL = 2 * MAX_VARIANTS  # of two packs that have no variant in common
ROWS = 16384  # vectors that are copied or compared at once
_T = TypeVar("_T")


@dataclass(frozen=True)
class HeldLevel:
    """The tiles of a level as a pack holds them, without its graph.

    Attributes:
        lattice: the level's.
        cells: (N,) uint32, the cell of each tile.
        variants: (N,) uint8, which of the pack's variants each is.
        detail: (N,) uint8, how much there is to see in each.
        codes: (V, dims) int8, vectors, not copied from the file.
        vector_of_tile: (N,) uint32, the vector of each tile; None: each has its own.
    """

    lattice: Lattice
    cells: Cells
    variants: Bytes
    detail: Bytes
    codes: Codes
    vector_of_tile: npt.NDArray[np.uint32] | None

    def codes_of(self, tiles: Ids) -> Codes:
        """Return the vectors (T, dims) int8 of tiles (T,), copied."""
        return self.codes[tiles if self.vector_of_tile is None else self.vector_of_tile[tiles]]

    def places(self, lattice: Lattice, numbers: Sequence[int]) -> Ids:
        """Return one number (N,) int64 for the cell and the variant of each tile.

        Args:
            lattice: of the same grid; its cells are counted.
            numbers: how each variant is numbered, below `PLACES_PER_CELL`.
        """
        cells = moved_cells(self.cells, self.lattice, lattice).astype(np.int64)
        return cells * PLACES_PER_CELL + np.asarray(numbers, np.int64)[self.variants]


def level_numbers(pack: Pack, levels_m: Sequence[float] | None = None) -> dict[float, int]:
    """Return the numbers of a pack's levels by their footprints, finest first.

    Args:
        pack: an open pack.
        levels_m: the only ones wanted, each of which must be there; None: all.

    Raises:
        InputError: it lacks one, or has two of one footprint.
    """
    found = {level.footprint_m: number for number, level in enumerate(pack.levels)}
    if len(found) < len(pack.levels):
        raise InputError(f"{pack.path}: has two levels of one footprint; build them apart")
    for wanted in levels_m or ():
        if wanted not in found:
            held = ", ".join(f"{footprint:g}" for footprint in found)
            raise InputError(f"{pack.path}: has no level of {wanted:g} m; choose of {held}")
    kept = found if levels_m is None else {m: n for m, n in found.items() if m in levels_m}
    return dict(sorted(kept.items()))


def read_level(pack: Pack, number: int) -> HeldLevel:
    """Return the tiles of a level; its graph is not looked at.

    Raises:
        InputError: the pack is closed.
        IntegrityError: a section is damaged, or no level could be like that.
    """
    record, name = pack.manifest.levels[number], f"level{number}"
    codes = np.frombuffer(pack.container.section(f"{name}.codes"), np.int8)
    codes = codes.reshape(record.vectors, pack.manifest.projection.dims)
    shared = None
    if record.vectors < record.count:
        try:
            shared = decode_column(pack.container.section(f"{name}.vectors"), record.count)
        except ValueError as error:
            raise damaged(pack.path, f"section {name}.vectors {error}") from None
        if int(shared.max()) >= record.vectors:
            raise damaged(pack.path, f"section {name}.vectors does not name every vector")
    if not codes.any(axis=1).all():
        raise damaged(pack.path, f"{name}: a vector is zero")
    held = HeldLevel(
        record.lattice,
        pack.cells(number),
        pack.variants(number),
        pack.detail(number),
        codes,
        shared,
    )
    places = held.places(held.lattice, range(MAX_VARIANTS))
    if len(np.unique(places)) != len(places):
        raise damaged(pack.path, f"section {name}.cells names a place twice")
    return held


def part_of(held: HeldLevel, kept: Ids) -> HeldLevel:
    """Return some tiles (T,) of a level on the smallest lattice that holds them."""
    cells = held.cells[kept]
    rows, columns = np.divmod(cells.astype(np.int64), held.lattice.columns)
    lattice = cut(
        held.lattice,
        range(int(rows.min()), int(rows.max()) + 1),
        range(int(columns.min()), int(columns.max()) + 1),
    )
    vectors = kept if held.vector_of_tile is None else held.vector_of_tile[kept]
    return HeldLevel(
        lattice,
        moved_cells(cells, held.lattice, lattice),
        held.variants[kept],
        held.detail[kept],
        held.codes,
        vectors.astype(np.uint32),
    )


def join_levels(
    held: Sequence[HeldLevel], lattice: Lattice, numbers: Sequence[Sequence[int]]
) -> tuple[PackedTiles, int]:
    """Return the tiles of several levels as one level; of each place the first wins.

    Args:
        held: levels of one grid.
        lattice: holds them all.
        numbers: of each level, how its variants are numbered now.

    Returns:
        The tiles along the Hilbert curve, and how many were left out.
    """
    places = np.concatenate(
        [level.places(lattice, own) for level, own in zip(held, numbers, strict=True)]
    )
    _, chosen = np.unique(places, return_index=True)  # of equal ones the first
    cells = (places[chosen] // PLACES_PER_CELL).astype(np.uint32)
    order = hilbert_order(lattice, cells)
    chosen, cells = chosen[order], cells[order]
    codes = np.empty((len(chosen), held[0].codes.shape[1]), np.int8)
    start = 0
    for level in held:
        own = np.flatnonzero((chosen >= start) & (chosen < start + len(level.cells)))
        for at in range(0, len(own), ROWS):
            rows = own[at : at + ROWS]
            codes[rows] = level.codes_of(chosen[rows] - start)
        start += len(level.cells)
    variants = (places[chosen] % PLACES_PER_CELL).astype(np.uint8)
    detail = np.concatenate([level.detail for level in held])[chosen]
    return PackedTiles(lattice, cells, variants, detail, codes), len(places) - len(chosen)


def number_items(known: list[tuple[_T, int]], items: Sequence[_T]) -> list[int]:
    """Return which of the known items each one is; those that are new are added to `known`.

    Equal ones of one call stay apart: two dates of imagery may bear one name.
    """
    found = []
    for place, item in enumerate(items):
        key = item, list(items[:place]).count(item)
        if key not in known:
            known.append(key)
        found.append(known.index(key))
    return found
