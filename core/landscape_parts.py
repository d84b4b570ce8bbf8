"""What a procedural landscape is made of, and the geometry of quadrilaterals.

Coordinates are metres east and north of the landscape's centre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Point = tuple[float, float]
Quad = tuple[Point, Point, Point, Point]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Parcel:
    """A piece of ground under one use: `kind` names it, `angle_rad` is its long direction."""

    outline: Floats
    kind: str
    angle_rad: float
    town: bool


@dataclass(frozen=True)
class Line:
    """A road, track, hedge or river: points (N, 2), width in metres."""

    points: Floats
    kind: str
    width_m: float


@dataclass(frozen=True)
class Building:
    """A rectangular building; `ridge` says that its roof is gabled along its length.

    A unit `on_roof` belongs to the last building before it that is none.
    """

    center: Point
    angle_rad: float
    length_m: float
    width_m: float
    height_m: float
    ridge: bool
    roof: str
    on_roof: bool = False


@dataclass(frozen=True)
class Patch:
    """A small surface inside a parcel, such as a drive, a car park or a pool."""

    outline: Floats
    kind: str


@dataclass
class Plan:
    """All that stands on the ground, in the order it was laid out."""

    parcels: list[Parcel] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    buildings: list[Building] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)
    trees: list[tuple[float, float, float]] = field(default_factory=list)  # east, north, diameter


def quad_area_m2(quad: Quad) -> float:
    """Return the area of a quadrilateral (shoelace formula)."""
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = quad
    return abs((cx - ax) * (dy - by) - (dx - bx) * (cy - ay)) / 2


def quad_center(quad: Quad) -> Point:
    """Return the mean of the corners."""
    return sum(p[0] for p in quad) / 4, sum(p[1] for p in quad) / 4


def quad_sides_m(quad: Quad) -> tuple[float, float]:
    """Return the mean lengths of the two pairs of opposite sides."""
    a = (math.dist(quad[0], quad[1]) + math.dist(quad[3], quad[2])) / 2
    b = (math.dist(quad[1], quad[2]) + math.dist(quad[0], quad[3])) / 2
    return a, b


def between(p: Point, q: Point, share: float) -> Point:
    """Return the point `share` of the way from p to q."""
    return p[0] + (q[0] - p[0]) * share, p[1] + (q[1] - p[1]) * share


def inset(quad: Quad, margin_m: float) -> Quad | None:
    """Return the quad shrunk by a margin, or None where nothing is left of it."""
    p, q, r, s = (np.array(c) for c in quad)
    a = min(np.linalg.norm(q - p), np.linalg.norm(r - s))
    b = min(np.linalg.norm(s - p), np.linalg.norm(r - q))
    if min(a, b) < 3 * margin_m:
        return None
    u, v = margin_m / float(a), margin_m / float(b)
    return (
        bilinear(quad, u, v),
        bilinear(quad, 1 - u, v),
        bilinear(quad, 1 - u, 1 - v),
        bilinear(quad, u, 1 - v),
    )


def bilinear(quad: Quad, u: float, v: float) -> Point:
    """Return the point at shares u along the first side and v across it."""
    return between(between(quad[0], quad[1], u), between(quad[3], quad[2], u), v)
