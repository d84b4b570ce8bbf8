"""Where the tiles of a level lie: a lattice of overlapping squares, along a Hilbert curve."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.geo import BBox, Floats, LocalFrame
from ..core.ground import GroundWindow

Cells = npt.NDArray[np.uint32]

# A tile may reach beyond the region by this share of its side: the edges of a box in degrees are
# not straight in metres, and whole edge rows would be lost to centimetres.
EDGE_TOLERANCE = 0.01
# Imagery is read in blocks of at most this side: 12 MB of pixels, whatever the region's size.
_BLOCK_PX = 2048
# Of small tiles close together so many to a side at most: what is embedded at once fits a few MB.
_BLOCK_TILES = 64
MAX_CELLS = 2**32 - 1  # cells are stored as 32-bit numbers


@dataclass(frozen=True)
class Lattice:
    """Tile positions of one level; cell number = row * columns + column, row 0 in the north.

    Attributes:
        footprint_m: side of a tile on the ground, metres.
        input_px: side of a tile, pixels.
        step_px: distance of neighbouring tiles, whole pixels, so that tiles are cuts of one image.
        west_m: left edge of column 0 in the pack's frame, metres.
        north_m: top edge of row 0 in the pack's frame, metres.
        columns: tiles from west to east.
        rows: tiles from north to south.
    """

    footprint_m: float
    input_px: int
    step_px: int
    west_m: float
    north_m: float
    columns: int
    rows: int

    @property
    def gsd_m(self) -> float:
        """Ground size of a tile's pixel, metres."""
        return self.footprint_m / self.input_px

    @property
    def stride_m(self) -> float:
        """Distance of neighbouring tiles, metres."""
        return self.step_px * self.gsd_m

    @property
    def count(self) -> int:
        """Number of cells."""
        return self.columns * self.rows

    def centers_m(self, cells: Cells) -> tuple[Floats, Floats]:
        """Return east and north (N,) float64 of the centres of cells (N,), metres."""
        rows, columns = np.divmod(cells.astype(np.int64), self.columns)
        east = self.west_m + columns * self.stride_m + self.footprint_m / 2
        north = self.north_m - rows * self.stride_m - self.footprint_m / 2
        return east, north


def lattice_over(
    extent_m: tuple[float, float, float, float], footprint_m: float, input_px: int, stride: float
) -> Lattice | None:
    """Lay a lattice over west, south, east, north metres, its margins alike on opposite sides.

    Args:
        extent_m: the region in the pack's frame.
        footprint_m: side of a tile, metres.
        input_px: side of a tile, pixels.
        stride: distance of neighbouring tiles as a share of the footprint, 0 to 1.

    Returns:
        The lattice, or None where the region is smaller than one tile.
    """
    west, south, east, north = extent_m
    step_px = max(1, round(stride * input_px))
    stride_m = step_px * footprint_m / input_px
    slack = EDGE_TOLERANCE * footprint_m
    columns = math.floor((east - west - footprint_m + slack) / stride_m) + 1
    rows = math.floor((north - south - footprint_m + slack) / stride_m) + 1
    if columns < 1 or rows < 1:
        return None
    margin_x = (east - west - footprint_m - (columns - 1) * stride_m) / 2
    margin_y = (north - south - footprint_m - (rows - 1) * stride_m) / 2
    return Lattice(footprint_m, input_px, step_px, west + margin_x, north - margin_y, columns, rows)


def cells_inside(
    lattice: Lattice, frame: LocalFrame, region: BBox, rows: range, columns: range
) -> npt.NDArray[np.bool_]:
    """Return (rows, columns) bool: whether a tile's four corners lie in the region.

    A tile that sticks out by less than one percent of its side counts as inside.
    """
    inner = lattice.footprint_m * (0.5 - EDGE_TOLERANCE)
    inside = np.ones((len(rows), len(columns)), np.bool_)
    cells = np.array(rows)[:, None] * lattice.columns + np.array(columns)
    east, north = lattice.centers_m(cells)
    for right, up in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        lat, lon = frame.to_wgs84(east + right * inner, north + up * inner)
        inside &= (lon >= region.west) & (lon <= region.east)
        inside &= (lat >= region.south) & (lat <= region.north)
    return inside


@dataclass(frozen=True)
class Block:
    """A rectangle of the lattice whose imagery is read at once.

    Attributes:
        rows: lattice rows, a range.
        columns: lattice columns, a range.
        window: the imagery that all its tiles are cut from.
    """

    rows: range
    columns: range
    window: GroundWindow


def blocks(lattice: Lattice) -> Iterator[Block]:
    """Yield the blocks that cover the lattice, from north to south and west to east."""
    per_side = max(1, (_BLOCK_PX - lattice.input_px) // lattice.step_px + 1)
    per_side = min(per_side, _BLOCK_TILES)
    for top in range(0, lattice.rows, per_side):
        rows = range(top, min(top + per_side, lattice.rows))
        for left in range(0, lattice.columns, per_side):
            yield block_of(lattice, rows, range(left, min(left + per_side, lattice.columns)))


def block_of(lattice: Lattice, rows: range, columns: range) -> Block:
    """Return the block of some rows and columns of a lattice."""
    window = GroundWindow(
        west_m=lattice.west_m + columns.start * lattice.stride_m,
        north_m=lattice.north_m - rows.start * lattice.stride_m,
        gsd_m=lattice.gsd_m,
        width_px=(len(columns) - 1) * lattice.step_px + lattice.input_px,
        height_px=(len(rows) - 1) * lattice.step_px + lattice.input_px,
    )
    return Block(rows, columns, window)


def hilbert_order(lattice: Lattice, cells: Cells) -> npt.NDArray[np.int64]:
    """Return the permutation (N,) that sorts cells along a Hilbert curve.

    Neighbours on the ground become neighbours in the file, which makes the graph's links small
    numbers (Hilbert 1891; the bitwise form of Hamilton, Compact Hilbert Indices, 2006).
    """
    y, x = np.divmod(cells.astype(np.int64), lattice.columns)
    distance = np.zeros_like(x)
    side = 1 << max(lattice.columns, lattice.rows, 2).bit_length()
    s = side // 2
    while s > 0:
        right, low = (x & s) > 0, (y & s) > 0
        distance += s * s * ((3 * right) ^ low)
        # Turn the quadrant so that the curve inside it starts and ends at the right corners.
        flip = ~low & right
        x, y = np.where(flip, s - 1 - (x & (s - 1)), x), np.where(flip, s - 1 - (y & (s - 1)), y)
        x, y = np.where(low, x, y), np.where(low, y, x)
        s //= 2
    return np.argsort(distance, kind="stable")
