"""Parcels, patches and trees of a town block, placed by shares of its sides."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .landscape_parts import Parcel, Patch, Point, Quad, bilinear, quad_sides_m

if TYPE_CHECKING:
    from .landscape_plan import Planner


class Local:
    """Shares (u, v) in 0..1 of a quad turned so that u runs along its longer side, and metres."""

    def __init__(self, quad: Quad) -> None:
        """Turn the quad."""
        a, b = quad_sides_m(quad)
        if b > a:
            quad, a, b = (quad[1], quad[2], quad[3], quad[0]), b, a
        self.quad, self.length_m, self.depth_m = quad, a, b
        self.angle = math.atan2(quad[1][1] - quad[0][1], quad[1][0] - quad[0][0])

    def at(self, u: float, v: float) -> Point:
        """Return the point at shares u and v."""
        return bilinear(self.quad, u, v)

    def box(self, u0: float, v0: float, u1: float, v1: float) -> list[Point]:
        """Return the corners between two pairs of shares."""
        return [self.at(u0, v0), self.at(u1, v0), self.at(u1, v1), self.at(u0, v1)]


def add_parcel(planner: Planner, local: Local, box: list[Point], kind: str) -> None:
    """Add a parcel of the town."""
    _, angle = planner.bend_heading(box[0], local.angle)
    planner.plan.parcels.append(Parcel(planner.bend_path(*box, box[0]), kind, angle, town=True))


def add_patch(planner: Planner, box: list[Point], kind: str) -> None:
    """Add a small surface."""
    planner.plan.patches.append(Patch(planner.bend(np.array(box)), kind))


def add_tree(planner: Planner, place: Point, scale: float) -> None:
    """Add a tree, its crown `scale` times the country's mean."""
    x, y = planner.bend(np.array([place]))[0]
    planner.plan.trees.append((float(x), float(y), planner.style.crown_m * scale))
