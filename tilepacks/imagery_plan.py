"""Which tiles of Web Mercator a pack's imagery takes: zooms, region, and blocks of work."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from ..core.geo import (
    MERCATOR_MAX_LAT_DEG,
    BBox,
    Floats,
    mercator_from_wgs84,
    mercator_gsd_m,
)
from ..core.ground import Mask
from ..core.pmtiles_directory import MAX_ZOOM, tile_ids
from ..core.tile_pyramid import tile_range
from .manifest import MAX_IMAGERY_TILES
from .plan import Plan
from .tiling import Lattice, blocks

# A block is what one tile this many zooms up shows: 256 tiles, some seconds of work.
_BLOCK_ZOOMS = 4
# A zoom this much coarser than asked for still serves; so a pyramid is cut at its own zoom again.
_SCALE_SLACK = 1.02
_MAX_TILES = MAX_IMAGERY_TILES // 2  # of the highest zoom; the lower ones have a third of that


@dataclass(frozen=True)
class ImageryPlan:
    """Which tiles a pyramid of the region has at its highest zoom.

    Attributes:
        min_zoom: the whole region takes about one tile there.
        max_zoom: its pixels are as fine as what the pack or the imagery shows.
        block_zoom: each tile of this zoom shows a block, the unit of work.
        x0: column of the first tile of the highest zoom, at the edge of a block.
        y0: its row, from the north.
        wanted: (rows, columns) bool, which tiles from there on are wanted; whole blocks.
    """

    min_zoom: int
    max_zoom: int
    block_zoom: int
    x0: int
    y0: int
    wanted: Mask

    @property
    def count(self) -> int:
        """Tiles of the highest zoom, those without imagery among them."""
        return int(self.wanted.sum())

    @property
    def block_side(self) -> int:
        """Tiles of the highest zoom along a side of a block."""
        return 1 << (self.max_zoom - self.block_zoom)

    def wanted_of(self, x: range, y: range) -> Mask:
        """Return which tiles of columns and rows are wanted, (rows, columns) bool."""
        return self.wanted[
            y.start - self.y0 : y.stop - self.y0, x.start - self.x0 : x.stop - self.x0
        ]


def plan_imagery(plan: Plan, native_gsd_m: float) -> ImageryPlan:
    """Choose zooms and tiles for the region of a pack.

    Args:
        plan: the pack; with an area, only tiles under the footprints it packs are wanted.
        native_gsd_m: of the imagery; no finer pixels are made.

    Raises:
        InputError: the region reaches beyond Web Mercator or takes too many tiles.
    """
    region = plan.covers
    if max(abs(region.south), abs(region.north)) > MERCATOR_MAX_LAT_DEG:
        raise InputError(
            f"region {region}: imagery in a pack ends at latitude {MERCATOR_MAX_LAT_DEG:.2f}; "
            "pack it without imagery"
        )
    gsd = max(native_gsd_m, min(lattice.gsd_m for lattice in plan.lattices))
    most = _zoom_of(region.center[0], gsd)
    x0, y0, x1, y1 = tile_range(region, most)
    if (x1 - x0) * (y1 - y0) > _MAX_TILES:
        raise InputError(
            f"region {region}: {(x1 - x0) * (y1 - y0)} tiles of imagery at zoom {most}, a pack "
            f"holds at most {_MAX_TILES}; split the region or pack it without imagery"
        )
    least = coarsest_zoom(region, most)
    block_zoom = max(least, most - _BLOCK_ZOOMS)
    side = 1 << (most - block_zoom)
    left, top = x0 // side * side, y0 // side * side
    wanted = np.zeros((-(-y1 // side) * side - top, -(-x1 // side) * side - left), np.bool_)
    wanted[y0 - top : y1 - top, x0 - left : x1 - left] = True
    if plan.area is not None:
        wanted &= _under_footprints(plan, most, left, top, wanted.shape)
    return ImageryPlan(least, most, block_zoom, left, top, wanted)


def imagery_blocks(imagery: ImageryPlan) -> Iterator[tuple[range, range]]:
    """Yield columns and rows of the blocks that hold a wanted tile, along the Hilbert curve."""
    side, x0, y0 = imagery.block_side, imagery.x0, imagery.y0
    rows, columns = imagery.wanted.shape
    some = imagery.wanted.reshape(rows // side, side, columns // side, side).any(axis=(1, 3))
    y, x = np.nonzero(some)
    order = np.argsort(tile_ids(imagery.block_zoom, x0 // side + x, y0 // side + y))
    for row, column in zip(y[order].tolist(), x[order].tolist(), strict=True):
        left, top = x0 + column * side, y0 + row * side
        yield range(left, left + side), range(top, top + side)


def coarsest_zoom(region: BBox, max_zoom: int) -> int:
    """Return the zoom, `max_zoom` at most, where a region is not wider or higher than a tile."""
    x, y = mercator_from_wgs84([region.south, region.north], [region.west, region.east])
    world = 2 * float(mercator_from_wgs84(0.0, 180.0)[0])
    side = max(float(np.ptp(x)), float(np.ptp(y))) / world
    return min(max_zoom, math.floor(-math.log2(side)))


def _zoom_of(lat_deg: float, gsd_m: float) -> int:
    zoom = 0
    while zoom < MAX_ZOOM and mercator_gsd_m(lat_deg, zoom) > gsd_m * _SCALE_SLACK:
        zoom += 1
    return zoom


def _under_footprints(plan: Plan, zoom: int, x0: int, y0: int, shape: tuple[int, int]) -> Mask:
    """Return (rows, columns) of which tiles lie under what is packed: its tiles' footprints."""
    rows, columns = shape
    # Corners of rectangles; their sums from the north-west count how many lie over a tile.
    edges = np.zeros((rows + 1, columns + 1), np.int32)
    for lattice in plan.lattices:
        for block in blocks(lattice):
            row, column = np.nonzero(plan.wanted(lattice, block))
            if not len(row):
                continue
            cells = (block.rows.start + row) * lattice.columns + block.columns.start + column
            left, top, right, bottom = _covered(plan, lattice, cells, zoom)
            left, right = (np.clip(side - x0, 0, columns) for side in (left, right))
            top, bottom = (np.clip(side - y0, 0, rows) for side in (top, bottom))
            for y, x, sign in (
                (top, left, 1),
                (top, right, -1),
                (bottom, left, -1),
                (bottom, right, 1),
            ):
                np.add.at(edges, (y, x), sign)
    return np.asarray(edges.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0)


def _covered(
    plan: Plan, lattice: Lattice, cells: npt.NDArray[np.int64], zoom: int
) -> list[npt.NDArray[np.int64]]:
    """Return first column and row, and those after the last, (N,) of tiles under footprints."""
    east, north = lattice.centers_m(cells.astype(np.uint32))
    half = lattice.footprint_m / 2
    corners = [(i, j) for i in (-half, half) for j in (-half, half)]
    lat, lon = plan.frame.to_wgs84(
        np.stack([east + i for i, _ in corners]), np.stack([north + j for _, j in corners])
    )
    x, y = mercator_from_wgs84(lat, lon)
    half_world = float(mercator_from_wgs84(0.0, 180.0)[0])
    tiles = 1 << zoom

    def at(values: Floats) -> npt.NDArray[np.int64]:
        return np.floor((values / half_world + 1) / 2 * tiles).astype(np.int64)

    return [at(x.min(axis=0)), at(-y.max(axis=0)), at(x.max(axis=0)) + 1, at(-y.min(axis=0)) + 1]
