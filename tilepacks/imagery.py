"""Imagery in a pack: a pyramid of WebP tiles, cut block by block.

What is cut is kept in the work folder, so that a kill loses a block at most; the archive is put
together from there and is the same byte for byte however often that happened.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..core.errors import InputError
from ..core.geo import TILE_SIZE_PX
from ..core.ground import GroundSource
from .imagery_kept import KeptTiles, Tiles
from .imagery_plan import ImageryPlan, imagery_blocks
from .imagery_tiles import encode_tile, parent_tile, read_tiles
from .manifest import ImageryRecord
from .plan import Plan
from .work import WorkFolder

_SHEET_TILES = 4  # a side: ground is read 1024 px at a time
_TOP = "top"


def make_imagery(
    source: GroundSource,
    plan: Plan,
    imagery: ImageryPlan,
    work: WorkFolder,
    quality: int,
    workers: int,
    advance: Callable[[int], None],
) -> tuple[ImageryRecord, memoryview]:
    """Cut the tiles that are not yet cut, and put all of them together.

    Args:
        source: the imagery.
        plan: the pack it is for.
        imagery: of `plan_imagery`.
        work: where what is done is kept.
        quality: of WebP, 1 to 100.
        workers: threads that read, warp and encode; no part of the result.
        advance: told how many of `imagery.count` tiles are done.

    Returns:
        What the manifest says of it, and the archive, mapped from a file in the work folder.

    Raises:
        InputError: there is no imagery in the region.
        S4GError: the source is damaged, or the disk is full.
    """
    work.sub("imagery")
    kept = KeptTiles(work, "imagery")
    names = []
    with ThreadPoolExecutor(workers, "s4g-imagery") as pool:
        cutter = _Cutter(source, plan, imagery, quality, pool)
        for number, (x, y) in enumerate(imagery_blocks(imagery)):
            names.append(f"{number:06d}")
            if not kept.has(names[-1]):
                kept.keep(names[-1], cutter.block(x, y))
            advance(int(imagery.wanted_of(x, y).sum()))
    if imagery.block_zoom > imagery.min_zoom:
        if not kept.has(_TOP):
            kept.keep(_TOP, _top(kept, names, imagery, quality))
        names.append(_TOP)
    zooms = imagery.min_zoom, imagery.max_zoom
    tiles, archive = kept.archive(names, zooms, plan.covers, source.attribution)
    if not tiles:
        raise InputError(f"{source.name}: has no imagery in the region {plan.covers}")
    return ImageryRecord(*zooms, source.gsd_m, quality, tiles), archive


def with_parents(
    tiles: dict[int, Tiles], zooms: tuple[int, int], origin: str, quality: int
) -> dict[int, Tiles]:
    """Add to the tiles of the highest zoom those of the lower ones, made from them.

    Args:
        tiles: by zoom, then by column and row; those of `zooms[1]` are there.
        zooms: lowest and highest.
        origin: for errors.
        quality: of WebP.
    """
    for zoom in range(zooms[1] - 1, zooms[0] - 1, -1):
        below = tiles[zoom + 1]
        tiles[zoom] = {}
        for x, y in sorted({(x // 2, y // 2) for x, y in below}):
            four = [below.get((2 * x + i % 2, 2 * y + i // 2)) for i in range(4)]
            made = parent_tile(four, f"{origin}: a tile under {zoom}/{x}/{y}", quality)
            if made is not None:
                tiles[zoom][x, y] = made
    return tiles


class _Cutter:
    """Cuts blocks; what it is given stays the same for all of them."""

    def __init__(
        self,
        source: GroundSource,
        plan: Plan,
        imagery: ImageryPlan,
        quality: int,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._source, self._plan, self._imagery = source, plan, imagery
        self._quality, self._pool = quality, pool

    def block(self, x: range, y: range) -> dict[int, Tiles]:
        """Return the tiles of a block, by zoom."""
        imagery = self._imagery
        sheets = [
            (x[left : left + _SHEET_TILES], y[top : top + _SHEET_TILES])
            for top in range(0, len(y), _SHEET_TILES)
            for left in range(0, len(x), _SHEET_TILES)
        ]
        cut: Tiles = {}
        for found in self._pool.map(self._sheet, sheets):
            cut |= found
        zooms = imagery.block_zoom, imagery.max_zoom
        return with_parents({imagery.max_zoom: cut}, zooms, self._source.name, self._quality)

    def _sheet(self, place: tuple[range, range]) -> Tiles:
        """Return the tiles of some columns and rows, whose ground is read at once."""
        rows, columns = np.nonzero(self._imagery.wanted_of(*place))
        if not len(rows):
            return {}
        x, y = (
            side[int(at.min()) : int(at.max()) + 1]
            for side, at in zip(place, (columns, rows), strict=True)
        )
        ground = read_tiles(self._source, self._plan.frame, self._imagery.max_zoom, x, y)
        cut: Tiles = {}
        rows, columns = rows - rows.min(), columns - columns.min()
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            top, left = row * TILE_SIZE_PX, column * TILE_SIZE_PX
            pixels = np.s_[top : top + TILE_SIZE_PX, left : left + TILE_SIZE_PX]
            data = encode_tile(ground.rgb[pixels], ground.valid[pixels], self._quality)
            if data is not None:
                cut[x[column], y[row]] = data
        return cut


def _top(kept: KeptTiles, names: list[str], imagery: ImageryPlan, quality: int) -> dict[int, Tiles]:
    """Return the tiles above the blocks."""
    zoom = imagery.block_zoom
    below: Tiles = {}
    for name in names:
        below |= kept.tiles(name, zoom)
    made = with_parents({zoom: below}, (imagery.min_zoom, zoom), str(kept.path), quality)
    del made[zoom]
    return made
