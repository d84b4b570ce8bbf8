"""A large region in several packs: on one grid, side by side, each tile in exactly one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..core.errors import InputError
from .grid import centres_in
from .plan import Plan

MAX_SHARDS = 10_000


@dataclass(frozen=True)
class Shard:
    """One pack of a set.

    Attributes:
        name: its file's name without the ending: row and column of its place, from the north-west.
        plan: its part of the region.
    """

    name: str
    plan: Plan


def cut_plan(plan: Plan, side_m: float) -> tuple[Shard, ...]:
    """Cut a plan into squares of about a side, row by row from the north-west.

    The tiles of a shard have their centres in its square; those at its border show ground of the
    next one, so that no place between shards is without tiles.

    Raises:
        InputError: there are too many.
    """
    finest = min(lattice.footprint_m for lattice in plan.lattices)
    if side_m < finest:
        raise InputError(
            f"--shard {side_m:g} m: smaller than a tile of {finest:g} m; choose far more"
        )
    west, south, east, north = plan.extent_m
    columns, rows = (max(1, round(length / side_m)) for length in (east - west, north - south))
    if rows * columns > MAX_SHARDS:
        raise InputError(
            f"--shard {side_m:g} m: {rows} x {columns} packs, a set holds at most {MAX_SHARDS}; "
            "choose larger ones"
        )
    xs = [west + (east - west) * number / columns for number in range(columns + 1)]
    ys = [north - (north - south) * number / rows for number in range(rows + 1)]
    found = []
    for row in range(rows):
        for column in range(columns):
            extent = (xs[column], ys[row + 1], xs[column + 1], ys[row])
            lattices = [centres_in(lattice, extent) for lattice in plan.lattices]
            kept = tuple(lattice for lattice in lattices if lattice is not None)
            if kept:
                part = plan.frame.wgs84_bounds(*extent)
                own = dataclasses.replace(plan, extent_m=extent, lattices=kept, notes=(), part=part)
                found.append(Shard(f"r{row:03d}c{column:03d}", own))
    return tuple(found)
