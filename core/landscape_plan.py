"""Plan of a procedural landscape: parcels, roads, buildings and trees as lines in metres.

The ground is cut recursively into quadrilaterals, as land is divided in life: the first cuts
become roads, later ones tracks and field borders, and where a town lies, streets and plots. A
slow displacement then bends the whole plan. Coordinates are metres east and north of the centre.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from .landscape_noise import SmoothField, rng_for
from .landscape_parts import (
    Building,
    Floats,
    Line,
    Parcel,
    Patch,
    Plan,
    Point,
    Quad,
    between,
    bilinear,
    quad_area_m2,
    quad_center,
    quad_sides_m,
)
from .landscape_style import Style
from .landscape_town import fill_block

_TOWN_BLOCK_M2 = 9e4  # above this a block may still turn out town or country
_STREET_BLOCK_M2 = 1.1e4  # below this a single block does not turn into a town
_BLOCK_DEPTH_M = 82.0  # town blocks hold two rows of plots back to back
_BLOCK_LENGTH_M = 190.0
_STEP_M = 20.0  # spacing of vertices along a bent line


class Planner:
    """Draws a plan; `bend` maps its straight coordinates to the ground."""

    def __init__(self, seed: int, size_m: float, style: Style) -> None:
        """Prepare the fields that steer the plan."""
        self.style = style
        self.plan = Plan()
        self.rng = rng_for(seed, "plan")
        self._half_m = size_m / 2
        reach = size_m * 0.75 + 400
        self._bend_x = SmoothField(seed, "bend-x", reach, 700)
        self._bend_y = SmoothField(seed, "bend-y", reach, 700)
        self._town = SmoothField(seed, "town", reach, 450)
        # Share of ground under a threshold of unit noise.
        share = min(max(style.town, 1e-3), 1 - 1e-3)
        self._town_above = NormalDist().inv_cdf(1 - share)
        # Plan coordinates start away from the middle, so that roads do not cross there.
        self._shift: Floats = rng_for(seed, "shift").uniform(-300, 300, 2)
        self._turn = (math.cos(style.theta_rad), math.sin(style.theta_rad))

    def run(self) -> Plan:
        """Lay out the whole plan."""
        reach = self._half_m * 1.5 + 350
        low, high = self._shift - reach, self._shift + reach
        # Number 0 is the ground between parcels: pavements and verges.
        ends = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * reach
        self.plan.parcels.append(Parcel(ends, "lawn", 0.0, town=True))
        outer: Quad = ((low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1]))
        self._divide(outer, town=False)
        return self.plan

    def bend(self, points: Floats) -> Floats:
        """Map plan coordinates (N, 2) to the ground: turn, then displace smoothly."""
        c, s = self._turn
        x, y = (points - self._shift).T
        turned = np.stack([c * x - s * y, s * x + c * y], axis=1)
        bent: Floats = turned + self.style.warp_m * np.stack(
            [self._bend_x.at(turned), self._bend_y.at(turned)], axis=1
        )
        return bent

    def bend_path(self, *points: Point) -> Floats:
        """Map a polyline to the ground, with vertices close enough to follow the bend."""
        dense = [points[0]]
        for p, q in zip(points[:-1], points[1:], strict=True):
            steps = max(1, math.ceil(math.dist(p, q) / _STEP_M))
            dense += [between(p, q, (i + 1) / steps) for i in range(steps)]
        return self.bend(np.array(dense))

    def bend_heading(self, center: Point, angle_rad: float) -> tuple[Point, float]:
        """Map a place and a direction there to the ground."""
        ahead = (center[0] + 4 * math.cos(angle_rad), center[1] + 4 * math.sin(angle_rad))
        here, there = self.bend(np.array([center, ahead]))
        return (float(here[0]), float(here[1])), math.atan2(there[1] - here[1], there[0] - here[0])

    def _outside(self, quad: Quad) -> bool:
        """Say whether a quad lies outside the world for certain."""
        x, y = quad_center(quad)
        radius = max(math.dist((x, y), corner) for corner in quad)
        margin = radius + 2.5 * self.style.warp_m + 20
        c, s = self._turn
        x, y = x - self._shift[0], y - self._shift[1]
        return bool(max(abs(c * x - s * y), abs(s * x + c * y)) > self._half_m + margin)

    def is_far(self, place: Point) -> bool:
        """Say whether a town block around a place lies outside the world for certain."""
        x, y = self.bend(np.array([place]))[0]
        return bool(max(abs(x), abs(y)) > self._half_m + 2.5 * _BLOCK_LENGTH_M)

    def _is_town(self, quad: Quad) -> bool:
        middle = self.bend(np.array([quad_center(quad)]))
        return float(self._town.at(middle)[0]) > self._town_above

    def _divide(self, quad: Quad, town: bool) -> None:
        if self._outside(quad):
            return
        area = quad_area_m2(quad)
        style, rng = self.style, self.rng
        if not town and area < _TOWN_BLOCK_M2:
            town = area > _STREET_BLOCK_M2 and self._is_town(quad)
        if town:
            long_m, short_m = sorted(quad_sides_m(quad), reverse=True)
            slack = rng.uniform(0.8, 1.25)
            slack *= style.block
            if short_m < _BLOCK_DEPTH_M * slack and long_m < _BLOCK_LENGTH_M * slack:
                fill_block(self, quad)
                return
        elif area < style.field_m2 * 2 * math.exp(style.field_spread * rng.standard_normal()) and (
            area < _TOWN_BLOCK_M2 or not self._is_town(quad)
        ):
            self._field(quad, area)
            return
        self._cut(quad, area, town)

    def _cut(self, quad: Quad, area: float, town: bool) -> None:
        a, b = quad_sides_m(quad)
        if b > a:
            quad = (quad[1], quad[2], quad[3], quad[0])
            a, b = b, a
        rng, style = self.rng, self.style
        # Long strips arise where the long side, not the short one, is kept whole.
        small = area < style.field_m2 * 6 and a / b * 2 < style.strip
        if (not town and small and rng.random() < 0.8) or (
            town and a < _BLOCK_LENGTH_M * style.block and b > _BLOCK_DEPTH_M * style.block
        ):
            quad = (quad[1], quad[2], quad[3], quad[0])
        share = 0.5 + rng.uniform(-0.14, 0.14) * (1 + 2 * style.skew) * (1 - style.regular)
        tilt = style.skew * rng.standard_normal() * (0.3 if town else 1)
        p = between(quad[0], quad[1], min(max(share + tilt / 2, 0.25), 0.75))
        q = between(quad[3], quad[2], min(max(share - tilt / 2, 0.25), 0.75))
        self._border(p, q, area, town)
        self._divide((quad[0], p, q, quad[3]), town)
        self._divide((p, quad[1], quad[2], q), town)

    def _border(self, p: Point, q: Point, area: float, town: bool) -> None:
        """Lay a road, a track or a hedge along a cut."""
        style, rng = self.style, self.rng
        chance = rng.random()
        if area > 4 * style.lane_m2:
            kind, width = "main", 8.0
        elif area > style.lane_m2 or (town and area > 6e4):
            kind, width = "lane", rng.uniform(4.5, 6.5)
        elif town:
            kind, width = "street", rng.uniform(5.0, 8.0)
        elif area > style.track_m2:
            kind, width = "track", rng.uniform(2.4, 4.0)
        elif chance < style.hedge:
            kind, width = "hedge", rng.uniform(2.0, 5.0)
        elif chance < style.hedge + 0.1:
            kind, width = "ditch", rng.uniform(1.2, 2.5)
        elif chance < style.hedge + 0.3:
            kind, width = "baulk", rng.uniform(0.8, 2.0)
        else:
            return
        path = self.bend_path(p, q)
        self.plan.lines.append(Line(path, kind, float(width)))
        trees = {"hedge": 0.9, "main": 0.25, "lane": 0.25, "track": 0.15, "street": 0.4}
        if kind == "hedge" or rng.random() < trees.get(kind, 0.0) * (0.4 + style.hedge):
            self._tree_row(path, 0.0 if kind == "hedge" else width / 2 + 3.5)

    def _tree_row(self, path: Floats, aside_m: float) -> None:
        """Plant along a path, on one or both sides where it is a road."""
        rng = self.rng
        density = float(rng.uniform(0.4, 1.0))
        steps = np.diff(path, axis=0)
        lengths = np.hypot(*steps.T)
        normal = np.stack([-steps[:, 1], steps[:, 0]], axis=1) / lengths[:, None]
        sides = (0,) if aside_m == 0 else ((-1, 1) if rng.random() < 0.5 else (1,))
        spacing = rng.uniform(3, 7) if aside_m == 0 else rng.uniform(8, 16)
        for side in sides:
            for start, step, length, across in zip(path, steps, lengths, normal, strict=False):
                for along in np.arange(spacing / 2, length, spacing):
                    if rng.random() < density:
                        x, y = start + step * along / length + across * side * aside_m
                        jitter = rng.normal(0, 0.7, 2)
                        size = self.style.crown_m * rng.uniform(0.45, 1.1)
                        self.plan.trees.append((x + jitter[0], y + jitter[1], size))

    def _field(self, quad: Quad, area: float) -> None:
        """Give a field its use, perhaps a farmstead."""
        style, rng = self.style, self.rng
        kind, draw = "crop", rng.random()
        for name, share in (
            ("bare", style.bare),
            ("scrub", style.scrub),
            ("pasture", style.pasture * (1 - style.scrub)),
            ("orchard", style.orchard),
            ("wood", style.wood_field),
            ("pivot", style.pivot if area > 5e4 else 0.0),
            ("solar", 0.006),
        ):
            if draw < share:
                kind = name
                break
            draw -= share
        a, b = quad_sides_m(quad)
        p, q = (quad[0], quad[1]) if a >= b else (quad[1], quad[2])
        _, angle = self.bend_heading(quad_center(quad), math.atan2(q[1] - p[1], q[0] - p[0]))
        outline = self.bend_path(*quad, quad[0])
        if kind == "pivot":
            self.plan.parcels.append(Parcel(outline, "pasture", angle, town=False))
            turn = np.linspace(0, 2 * np.pi, 90)
            ring = np.stack([np.cos(turn), np.sin(turn)], axis=1) * min(a, b) * 0.48
            outline, kind = self.bend(np.array(quad_center(quad)) + ring), "crop"
        self.plan.parcels.append(Parcel(outline, kind, angle, town=False))
        if kind != "wood" and rng.random() < style.farm:
            self._farm(quad)
        if rng.random() < style.pond:
            self._pond(quad)

    def _pond(self, quad: Quad) -> None:
        rng = self.rng
        a, b = quad_sides_m(quad)
        p = bilinear(quad, rng.uniform(0.25, 0.75), rng.uniform(0.25, 0.75))
        radius = min(rng.uniform(8, 40), 0.25 * min(a, b))
        turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        waves = np.zeros(len(turn))
        for k in (1, 2, 3):
            waves += rng.uniform(0, 0.25) / k * np.cos(k * turn + rng.uniform(0, 6))
        ring = np.stack([np.cos(turn) * rng.uniform(0.6, 1), np.sin(turn)], axis=1)
        outline = self.bend(np.array(p) + ring * (radius * (1 + waves))[:, None])
        self.plan.patches.append(Patch(outline, "pond"))

    def _farm(self, quad: Quad) -> None:
        """Put a yard with barns and trees beside the middle of a side, as farms lie at roads."""
        rng, style = self.rng, self.style
        corner = int(rng.integers(4))
        p, q = quad[corner], quad[(corner + 1) % 4]
        angle = math.atan2(q[1] - p[1], q[0] - p[0])
        door = between(p, q, rng.uniform(0.15, 0.85))
        size = min(rng.uniform(18, 34), 0.3 * min(quad_sides_m(quad)))
        cx, cy = between(door, quad_center(quad), min(0.9, (size + 8) / 60))
        right, up = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))

        def place(u: float, v: float) -> Point:
            return cx + u * right[0] + v * up[0], cy + u * right[1] + v * up[1]

        corners = [place(u * size, v * size * 0.8) for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        self.plan.patches.append(Patch(self.bend(np.array(corners)), "farmyard"))
        self.plan.lines.append(Line(self.bend_path((cx, cy), door), "track", 3.0))
        for k in range(int(rng.integers(2, 3 + int(size / 8)))):
            u, v = rng.uniform(-0.8, 0.8, 2) * size
            length, width = rng.uniform(9, 12 + 0.6 * size), rng.uniform(6, 7 + 0.2 * size)
            turned = angle + (math.pi / 2 if rng.random() < 0.4 else 0)
            self.build(place(u, v), turned, length, width, rng.uniform(4, 8), k % 4 != 3)
        for _ in range(int(rng.integers(2, 12))):
            u, v = rng.normal(0, size, 2)
            x, y = self.bend(np.array([place(u, v)]))[0]
            self.plan.trees.append((float(x), float(y), style.crown_m * rng.uniform(0.6, 1.4)))

    def build(
        self, center: Point, angle: float, length: float, width: float, height: float, ridge: bool
    ) -> None:
        """Put up one building."""
        roofs = self.style.roofs
        roof = roofs[int(self.rng.integers(len(roofs)))]
        if not ridge:
            roof = ("white", "flat", "flat", "grey", "metal")[int(self.rng.integers(5))]
        place, turned = self.bend_heading(center, angle)
        self.plan.buildings.append(
            Building(place, turned, float(length), float(width), float(height), ridge, roof)
        )
        if not ridge and length * width > 150:
            self._roof_units(place, turned, length, width, height)

    def put_up(
        self,
        center: Point,
        angle: float,
        length: float,
        width: float,
        height: float,
        roof: str,
        ridge: bool = False,
    ) -> None:
        """Put up a building of a given roof, with nothing on it."""
        place, turned = self.bend_heading(center, angle)
        self.plan.buildings.append(
            Building(place, turned, float(length), float(width), float(height), ridge, roof)
        )

    def _roof_units(
        self, place: Point, angle: float, length: float, width: float, height: float
    ) -> None:
        """Put lift heads, skylights and air handlers on a large flat roof."""
        rng, (c, s) = self.rng, (math.cos(angle), math.sin(angle))
        for _ in range(int(rng.integers(2, 4 + int(length * width / 250)))):
            u, v = rng.uniform(-0.42, 0.42) * length, rng.uniform(-0.4, 0.4) * width
            spot = (place[0] + c * u - s * v, place[1] + s * u + c * v)
            long_m, wide_m, tall_m = rng.uniform(1.2, 5), rng.uniform(1.0, 3), rng.uniform(0.3, 2.5)
            paint = ("dark", "white", "metal", "blue")[int(rng.integers(4))]
            unit = Building(spot, angle, long_m, wide_m, height + tall_m, False, paint, True)
            self.plan.buildings.append(unit)
