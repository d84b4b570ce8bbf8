"""The ground of a procedural landscape as layers of pixels: what lies where, and how high."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .landscape_noise import Float32, Floats, fractal, to_byte
from .landscape_parts import Building, Parcel, Plan
from .landscape_style import Style

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int32]

# Codes of surfaces that look alike wherever they lie; a parcel's own surface is PARCEL + number.
(
    SCRUB, WOOD, WATER, MAIN, STREET, LANE, TRACK, PATH, PAVED, PARKING, VERGE, SAND, POOL, MARK,
    PITCH, COURT, YARD, DITCH, MARSH, MARSH_GREEN, MARSH_DARK, LAKE_GREEN, LAKE_DARK, MUD, ROCK,
    BALLAST, RAILS,
) = range(27)  # fmt: skip
LAKES_AND_MARSH = (MARSH, MARSH_GREEN, MARSH_DARK, LAKE_GREEN, LAKE_DARK)
PARCEL = 32

CROWN_M = 0.125  # unit of World.crown
FIXED_BITS = 4  # sub-pixel bits of OpenCV's drawing functions

RELIEF_M = 14  # standard deviation of the terrain of a style of relief 1
BASIN = 0.01  # unit of World.basin, in standard deviations of its noise


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
        basin: (H, W) uint8, depth of lakes at their highest, in units of BASIN; None without any.
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
    basin: Bytes | None = None


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
        self.basin: Bytes | None = None

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

    def fixed(self, points: npt.ArrayLike) -> Ints:
        """Return `pixels` in the units of OpenCV's drawing functions."""
        return np.round(self.pixels(points) * (1 << FIXED_BITS)).astype(np.int32)

    def fill(self, layer: npt.NDArray[np.int32] | Bytes, points: npt.ArrayLike, value: int) -> None:
        """Fill a polygon."""
        cv2.fillPoly(layer, [self.fixed(points)], value, cv2.LINE_8, FIXED_BITS)

    def stroke(self, points: npt.ArrayLike, value: int, width_m: float) -> None:
        """Draw a line on the surface."""
        width = max(1, round(width_m / self.gsd_m))
        path = self.fixed(points)
        cv2.polylines(self.surface, [path], False, value, width, cv2.LINE_8, FIXED_BITS)

    def at(self, layer: npt.NDArray[np.int32], points: npt.ArrayLike) -> Ints:
        """Return the values of a layer at points; -1 outside."""
        columns, rows = np.round(self.pixels(points)).astype(int).T
        inside = (columns >= 0) & (rows >= 0) & (columns < self.side_px) & (rows < self.side_px)
        values = layer[rows.clip(0, self.side_px - 1), columns.clip(0, self.side_px - 1)]
        return np.where(inside, values, -1).astype(np.int32)


def border_distance(parcel: Ints, gsd_m: float) -> Bytes:
    """Return whole metres to the nearest parcel border, at most 255."""
    inside = np.ones(parcel.shape, np.uint8)
    inside[:, 1:][parcel[:, 1:] != parcel[:, :-1]] = 0
    inside[1:][parcel[1:] != parcel[:-1]] = 0
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
    metres = cv2.convertScaleAbs(np.minimum(distance, 255 / gsd_m), alpha=gsd_m)
    return np.asarray(metres, np.uint8)


def first_conifer_tone(style: Style) -> int:
    """Return the least tone of evergreens; tones 1 to 255 are spread evenly."""
    return 256 - int(255 * style.conifer)


def coarse_slope(canvas: Canvas) -> Float32:
    """Return the terrain's slope east and north on a grid of 8 m, (2, h, w)."""
    side = canvas.side_px * canvas.gsd_m
    height = fractal(canvas.seed, "relief", (side, side), 8.0, 420, 5, 0.5)
    height *= np.float32(RELIEF_M * canvas.style.relief)
    if min(height.shape) < 2:
        return np.zeros((2, *height.shape), np.float32)
    down, right = np.gradient(height, 8.0)
    return np.stack([right, -down]).astype(np.float32)


def texture(canvas: Canvas) -> tuple[Bytes, Bytes]:
    """Return soil patches and fine texture."""
    soil = to_byte(canvas.noise("soil", 160, 6, 0.62))
    fine = to_byte(canvas.noise("fine", 9, 5, 0.85))
    return soil, fine
