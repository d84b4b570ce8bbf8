"""The ground of a procedural landscape as layers of pixels: what lies where, and how high."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import cv2
import numpy as np
import numpy.typing as npt

from .landscape_noise import Float32, Floats, fractal, rng_for, to_byte
from .landscape_parts import Building, Parcel, Plan
from .landscape_style import Style

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int32]

# Codes of surfaces that look alike wherever they lie; a parcel's own surface is PARCEL + number.
(
    SCRUB, WOOD, WATER, MAIN, STREET, LANE, TRACK, PATH, PAVED, PARKING, VERGE, SAND, POOL, MARK,
    PITCH, COURT, YARD, DITCH,
) = range(18)  # fmt: skip
PARCEL = 32

CROWN_M = 0.125  # unit of World.crown
_FIXED_BITS = 4  # sub-pixel bits of OpenCV's drawing functions

_LINE_SURFACE = {
    "main": MAIN, "lane": LANE, "street": STREET, "track": TRACK, "path": PATH,
    "hedge": VERGE, "baulk": VERGE, "ditch": DITCH,
}  # fmt: skip
_FORDED = ("baulk", "ditch", "hedge", "path", "track")  # end at a river
_BRIDGED = ("street", "lane", "main")
_PATCH_SURFACE = {
    "pond": WATER, "farmyard": YARD, "drive": PAVED, "parking": PARKING, "lawn": VERGE,
    "patio": PAVED, "pool": POOL, "pitch": PITCH, "court": COURT,
}  # fmt: skip


@dataclass(frozen=True)
class World:
    """A piece of ground, the same in every season and year.

    Attributes:
        seed: what it was made from.
        size_m: side of the square, metres.
        gsd_m: pixel size, metres.
        style: the country's character.
        parcels: the parcels; number k of the layers is `parcels[k]`.
        parcel: (H, W) int32, number of the parcel.
        surface: (H, W) int32, a code of this module or PARCEL + parcel number.
        border: (H, W) uint8, metres to the nearest parcel border, at most 255.
        building: (H, W) int32, 0 or one more than the number of the building.
        buildings: the buildings.
        aspect: (H, W) uint8, 0 on flat roofs, else 1 + 254/360 of the azimuth a roof faces.
        crown: (H, W) uint8, height of tree crowns in units of CROWN_M.
        tone: (H, W) uint8, colour class of the tree a crown belongs to.
        soil: (H, W) uint8, soil patches around 128.
        fine: (H, W) uint8, fine texture around 128.
        slope: (2, h, w) float32, terrain slope east and north on a coarse grid.
        cars: (N, 3) float64, column, row and direction (rad) of places where cars may stand.
    """

    seed: int
    size_m: float
    gsd_m: float
    style: Style
    parcels: tuple[Parcel, ...]
    parcel: Ints
    surface: Ints
    border: Bytes
    building: Ints
    buildings: tuple[Building, ...]
    aspect: Bytes
    crown: Bytes
    tone: Bytes
    soil: Bytes
    fine: Bytes
    slope: Float32
    cars: Floats


class Canvas:
    """Layers under construction and the map from metres to pixels."""

    def __init__(self, seed: int, size_m: float, gsd_m: float, style: Style, plan: Plan) -> None:
        """Make empty layers."""
        self.seed, self.size_m, self.gsd_m, self.style, self.plan = seed, size_m, gsd_m, style, plan
        self.side_px = round(size_m / gsd_m)
        shape = (self.side_px, self.side_px)
        self.parcel: Ints = np.zeros(shape, np.int32)
        self.building: Ints = np.zeros(shape, np.int32)
        self.aspect: Bytes = np.zeros(shape, np.uint8)
        self.crown: Bytes = np.zeros(shape, np.uint8)
        self.tone: Bytes = np.zeros(shape, np.uint8)
        self.surface: Ints = np.zeros(shape, np.int32)

    def noise(self, tag: str, wavelength_m: float, octaves: int, gain: float = 0.6) -> Float32:
        """Return noise over the ground (see `fractal`)."""
        side = self.side_px * self.gsd_m
        return fractal(self.seed, tag, (side, side), self.gsd_m, wavelength_m, octaves, gain)

    def pixels(self, points: npt.ArrayLike) -> Floats:
        """Return column, row (pixel centres at integers) of points (N, 2) east, north."""
        points = np.asarray(points, np.float64).reshape(-1, 2)
        half = self.side_px * self.gsd_m / 2
        columns = (points[:, 0] + half) / self.gsd_m - 0.5
        rows = (half - points[:, 1]) / self.gsd_m - 0.5
        return np.stack([columns, rows], axis=1)

    def _fixed(self, points: npt.ArrayLike) -> Ints:
        return np.round(self.pixels(points) * (1 << _FIXED_BITS)).astype(np.int32)

    def fill(self, layer: npt.NDArray[np.int32] | Bytes, points: npt.ArrayLike, value: int) -> None:
        """Fill a polygon."""
        cv2.fillPoly(layer, [self._fixed(points)], value, cv2.LINE_8, _FIXED_BITS)

    def stroke(self, points: npt.ArrayLike, value: int, width_m: float) -> None:
        """Draw a line on the surface."""
        width = max(1, round(width_m / self.gsd_m))
        path = self._fixed(points)
        cv2.polylines(self.surface, [path], False, value, width, cv2.LINE_8, _FIXED_BITS)

    def at(self, layer: npt.NDArray[np.int32], points: npt.ArrayLike) -> Ints:
        """Return the values of a layer at points; -1 outside."""
        columns, rows = np.round(self.pixels(points)).astype(int).T
        inside = (columns >= 0) & (rows >= 0) & (columns < self.side_px) & (rows < self.side_px)
        values = layer[rows.clip(0, self.side_px - 1), columns.clip(0, self.side_px - 1)]
        return np.where(inside, values, -1).astype(np.int32)


def lay_ground(canvas: Canvas) -> None:
    """Draw parcels, woods, waters, lines and patches, later ones over earlier ones."""
    plan, style = canvas.plan, canvas.style
    for number, parcel in enumerate(plan.parcels):
        canvas.fill(canvas.parcel, parcel.outline, number)
    canvas.surface[:] = canvas.parcel + PARCEL
    town = np.array([p.town for p in plan.parcels])
    wooded = np.array([p.kind == "wood" for p in plan.parcels])
    share = min(max(style.wood, 1e-3), 0.999)
    wild = canvas.noise("wood", 220, 4, 0.55) > NormalDist().inv_cdf(1 - share)
    wild &= ~town[canvas.parcel]
    wild |= wooded[canvas.parcel]
    canvas.surface[wild] = WOOD
    _lines(canvas, _FORDED)
    for patch in plan.patches:
        if patch.kind == "pond":
            canvas.fill(canvas.surface, patch.outline, WATER)
    _river(canvas)
    _lines(canvas, _BRIDGED)
    _highway(canvas)
    for patch in plan.patches:
        if patch.kind == "pond":
            continue
        places = np.concatenate([patch.outline, patch.outline.mean(axis=0, keepdims=True)])
        if not np.isin(canvas.at(canvas.surface, places), (WATER, MAIN)).any():
            canvas.fill(canvas.surface, patch.outline, _PATCH_SURFACE[patch.kind])


def _lines(canvas: Canvas, kinds: tuple[str, ...]) -> None:
    """Draw the plan's lines of some kinds, the borders of roads below all roads."""
    for kind in kinds:
        border = PAVED if kind == "street" else VERGE
        for line in canvas.plan.lines:
            if line.kind == kind and kind in _BRIDGED:
                canvas.stroke(line.points, border, line.width_m + 3.5)
    for kind in kinds:
        for line in canvas.plan.lines:
            if line.kind == kind:
                canvas.stroke(line.points, _LINE_SURFACE[kind], line.width_m)


def border_distance(parcel: Ints, gsd_m: float) -> Bytes:
    """Return whole metres to the nearest parcel border, at most 255."""
    inside = np.ones(parcel.shape, np.uint8)
    inside[:, 1:][parcel[:, 1:] != parcel[:, :-1]] = 0
    inside[1:][parcel[1:] != parcel[:-1]] = 0
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
    metres = cv2.convertScaleAbs(np.minimum(distance, 255 / gsd_m), alpha=gsd_m)
    return np.asarray(metres, np.uint8)


def _winding_path(canvas: Canvas, tag: str, bend: float, wave_m: float) -> Floats:
    """Return a curved path that crosses the ground from side to side."""
    rng = rng_for(canvas.seed, tag)
    half = canvas.size_m / 2
    heading = rng.uniform(0, 2 * math.pi)
    offset = rng.uniform(-0.6, 0.6) * half
    along = np.arange(-1.6 * half - 100, 1.6 * half + 100, 2.0)
    across = np.full(len(along), offset)
    for k in range(4):
        wave = wave_m / 1.7**k * rng.uniform(0.7, 1.4)
        across += bend * wave / 1.3 * np.sin(along * 2 * np.pi / wave + rng.uniform(0, 6.3))
    c, s = math.cos(heading), math.sin(heading)
    return np.stack([c * along - s * across, s * along + c * across], axis=1)


def _river(canvas: Canvas) -> None:
    """Draw a meandering river with banks, of varying width."""
    style, rng = canvas.style, rng_for(canvas.seed, "has-river")
    if rng.random() > style.river:
        return
    path = _winding_path(canvas, "river", rng.uniform(0.05, 0.16), rng.uniform(250, 900))
    bank = SAND if style.dry > 0.5 else VERGE
    swell = 1 + 0.3 * np.sin(np.arange(len(path)) / rng.uniform(16, 48) + rng.uniform(0, 6))
    beach = rng.uniform(2, 7) * (1 + np.sin(np.arange(len(path)) / 15 + rng.uniform(0, 6)))
    half_m = style.river_m * swell / 2
    for surface, radius in ((bank, half_m + beach), (WATER, half_m)):
        centers = np.round(canvas.pixels(path) * (1 << _FIXED_BITS)).astype(int)
        sizes = np.round(radius / canvas.gsd_m * (1 << _FIXED_BITS)).astype(int)
        for center, size in zip(centers.tolist(), sizes.tolist(), strict=True):
            cv2.circle(canvas.surface, center, size, surface, -1, cv2.LINE_8, _FIXED_BITS)
    steps = np.gradient(path, axis=0)
    normal = np.stack([-steps[:, 1], steps[:, 0]], axis=1) / np.hypot(*steps.T)[:, None]
    for side in (-1, 1):
        keep = rng.random(len(path)) < 0.15 * (1 - 0.5 * style.dry)
        aside = style.river_m * 0.5 * swell + rng.uniform(4, 14, len(path))
        places = path + side * normal * aside[:, None]
        sizes = style.crown_m * rng.uniform(0.5, 1.3, len(path))
        canvas.plan.trees.extend(
            (float(x), float(y), float(d))
            for (x, y), d, kept in zip(places, sizes, keep, strict=True)
            if kept
        )


def _highway(canvas: Canvas) -> None:
    """Draw a main road that follows its own line, not the parcels'."""
    rng = rng_for(canvas.seed, "has-highway")
    if rng.random() > canvas.style.highway:
        return
    path = _winding_path(canvas, "highway", rng.uniform(0.0, 0.05), rng.uniform(900, 2500))
    wide = rng.random() < 0.35
    width = 22.0 if wide else rng.uniform(7, 10)
    canvas.stroke(path, VERGE, width + rng.uniform(5, 14))
    canvas.stroke(path, MAIN, width)
    if wide:
        canvas.stroke(path, VERGE, 3.0)
    elif canvas.gsd_m < 0.7:
        canvas.stroke(path, MARK, 0.3)


def first_conifer_tone(style: Style) -> int:
    """Return the least tone of evergreens; tones 1 to 255 are spread evenly."""
    return 256 - int(255 * style.conifer)


def coarse_slope(canvas: Canvas) -> Float32:
    """Return the terrain's slope east and north on a grid of 8 m, (2, h, w)."""
    side = canvas.side_px * canvas.gsd_m
    height = fractal(canvas.seed, "relief", (side, side), 8.0, 420, 5, 0.5)
    height *= np.float32(14 * canvas.style.relief)
    if min(height.shape) < 2:
        return np.zeros((2, *height.shape), np.float32)
    down, right = np.gradient(height, 8.0)
    return np.stack([right, -down]).astype(np.float32)


def texture(canvas: Canvas) -> tuple[Bytes, Bytes]:
    """Return soil patches and fine texture."""
    soil = to_byte(canvas.noise("soil", 160, 6, 0.62))
    fine = to_byte(canvas.noise("fine", 9, 5, 0.85))
    return soil, fine
