"""Lattices that are parts of one endless grid: how they lie to each other, cut and put together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from .tiling import EDGE_TOLERANCE, MAX_CELLS, Cells, Lattice

# Two lattices are of one grid where their steps meet within this share of a pixel.
_SAME_PX = 1e-3


def offset(lattice: Lattice, other: Lattice) -> tuple[int, int] | None:
    """Return by how many rows and columns `other` begins after `lattice`; None: of another grid.

    Both must be in one frame.
    """
    kind = (lattice.footprint_m, lattice.input_px, lattice.step_px)
    if kind != (other.footprint_m, other.input_px, other.step_px):
        return None
    down = (lattice.north_m - other.north_m) / lattice.stride_m
    right = (other.west_m - lattice.west_m) / lattice.stride_m
    rows, columns = round(down), round(right)
    off_px = max(abs(down - rows), abs(right - columns)) * lattice.step_px
    return (rows, columns) if off_px <= _SAME_PX else None


def cut(lattice: Lattice, rows: range, columns: range) -> Lattice:
    """Return the part of a lattice's grid that has these rows and columns; they may lie outside."""
    return dataclasses.replace(
        lattice,
        west_m=lattice.west_m + columns.start * lattice.stride_m,
        north_m=lattice.north_m - rows.start * lattice.stride_m,
        columns=len(columns),
        rows=len(rows),
    )


def union(lattices: Sequence[Lattice]) -> Lattice:
    """Return the smallest lattice that holds lattices of one grid.

    Raises:
        ValueError: they are of several grids, or it would have more cells than can be numbered.
    """
    first = lattices[0]
    places = [offset(first, lattice) for lattice in lattices]
    found = [place for place in places if place is not None]
    if len(found) < len(places):
        raise ValueError("the lattices are of several grids")
    sizes = [(lattice.rows, lattice.columns) for lattice in lattices]
    rows, columns = (
        range(
            min(place[axis] for place in found),
            max(place[axis] + size[axis] for place, size in zip(found, sizes, strict=True)),
        )
        for axis in (0, 1)
    )
    if len(rows) * len(columns) > MAX_CELLS:
        raise ValueError(f"{len(rows)} x {len(columns)} cells, at most {MAX_CELLS}")
    return cut(first, rows, columns)


def moved_cells(cells: Cells, lattice: Lattice, other: Lattice) -> Cells:
    """Return cells (N,) of a lattice as the same places are numbered in another of its grid.

    Raises:
        ValueError: the grids differ, or a cell lies outside the other lattice.
    """
    place = offset(other, lattice)
    if place is None:
        raise ValueError("the lattices are of several grids")
    rows, columns = np.divmod(cells.astype(np.int64), lattice.columns)
    rows, columns = rows + place[0], columns + place[1]
    outside = (rows < 0) | (rows >= other.rows) | (columns < 0) | (columns >= other.columns)
    if outside.any():
        raise ValueError("a cell lies outside the other lattice")
    return (rows * other.columns + columns).astype(np.uint32)


def over(lattice: Lattice, extent_m: tuple[float, float, float, float]) -> Lattice | None:
    """Return the part of a lattice's endless grid whose tiles lie in west, south, east, north.

    A tile may stick out by a hundredth of its side. None where not one fits.
    """
    west, south, east, north = extent_m
    slack, stride = EDGE_TOLERANCE * lattice.footprint_m, lattice.stride_m
    rows, columns = (
        range(
            math.ceil((low - slack) / stride - _SAME_PX / lattice.step_px),
            math.floor((high + slack - lattice.footprint_m) / stride + _SAME_PX / lattice.step_px)
            + 1,
        )
        for low, high in (
            (lattice.north_m - north, lattice.north_m - south),
            (west - lattice.west_m, east - lattice.west_m),
        )
    )
    return cut(lattice, rows, columns) if rows and columns else None


def centres_in(lattice: Lattice, extent_m: tuple[float, float, float, float]) -> Lattice | None:
    """Return the part of a lattice whose tiles have their centres in west, south, east, north.

    East and south edges are left to the neighbour: parts of extents that lie side by side share
    no tile and miss none.
    """
    west, south, east, north = extent_m
    first_x = lattice.west_m + lattice.footprint_m / 2
    first_y = lattice.north_m - lattice.footprint_m / 2

    def steps(metres: float, count: int) -> int:
        return min(max(math.ceil(metres / lattice.stride_m - 1e-9), 0), count)

    columns = range(steps(west - first_x, lattice.columns), steps(east - first_x, lattice.columns))
    rows = range(steps(first_y - north, lattice.rows), steps(first_y - south, lattice.rows))
    return cut(lattice, rows, columns) if rows and columns else None
