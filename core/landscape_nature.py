"""What no plan laid out in a procedural landscape: lakes, rock, dry washes, terraces, sand bars.

None of it lies in the first countries (see landscape_archetypes); it has noise of its own.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import cv2
import numpy as np
import numpy.typing as npt

from .landscape_noise import Floats, rng_for
from .landscape_world import (
    BALLAST,
    BASIN,
    FIXED_BITS,
    MARSH,
    MUD,
    PARCEL,
    RAILS,
    RELIEF_M,
    ROCK,
    SAND,
    VERGE,
    Canvas,
)  # fmt: skip

Mask = npt.NDArray[np.bool_]

_BAULK_M = 1.6  # width of the grass that holds a terrace
_RAIL_GAUGE_M = 1.435
_RAILS_SEEN_M = 0.6  # at a finer pixel size rails are drawn


def winding_path(canvas: Canvas, tag: str, bend: float, wave_m: float) -> Floats:
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


def stamp_discs(canvas: Canvas, path: Floats, radius_m: Floats, surface: int) -> None:
    """Draw a line of changing width: a disc at each of its points."""
    centers = np.round(canvas.pixels(path) * (1 << FIXED_BITS)).astype(int)
    sizes = np.round(radius_m / canvas.gsd_m * (1 << FIXED_BITS)).astype(int)
    for center, size in zip(centers.tolist(), sizes.tolist(), strict=True):
        cv2.circle(canvas.surface, center, size, surface, -1, cv2.LINE_8, FIXED_BITS)


def lay_nature(canvas: Canvas, country: Mask) -> None:
    """Draw what the style has of rock, washes, terraces and lakes on the country (H, W)."""
    style = canvas.style
    if style.terrace_m:
        _terraces(canvas, country)
    if style.rock:
        _rock(canvas, country)
    if style.wash:
        _washes(canvas, country)
    if style.basin:
        _basins(canvas, country)


def _terraces(canvas: Canvas, country: Mask) -> None:
    """Follow the terrain's contours with a strip of grass at each step."""
    height = canvas.noise("relief", 420, 5, 0.5)
    height *= np.float32(RELIEF_M * canvas.style.relief / canvas.style.terrace_m)
    down, right = np.gradient(height)
    steep = np.hypot(down, right) / np.float32(canvas.gsd_m)  # steps per metre
    off = np.abs(height - np.round(height))
    edge = off < np.maximum(steep * (_BAULK_M / 2), 1e-3)
    canvas.surface[edge & country & (canvas.surface >= PARCEL)] = VERGE


def _rock(canvas: Canvas, country: Mask) -> None:
    """Break rock through: outcrops, with boulders around them."""
    region = canvas.noise("rocky", 180, 3, 0.6)
    fine = canvas.noise("rock", 14, 4, 0.8)
    above = NormalDist(0, math.hypot(1, 0.8)).inv_cdf(1 - canvas.style.rock)
    canvas.surface[(fine + np.float32(0.8) * region > above) & country] = ROCK


def _washes(canvas: Canvas, country: Mask) -> None:
    """Lay the sand of dry watercourses along the valleys of noise."""
    width = canvas.noise("wash-width", 240, 2) * np.float32(0.3) + 1
    width *= np.float32(0.055 * canvas.style.wash)
    for tag, wave_m, octaves, narrow in (("wash", 420, 5, 1.0), ("gully", 110, 4, 0.6)):
        course = np.abs(canvas.noise(tag, wave_m, octaves, 0.42))
        canvas.surface[(course < width * np.float32(narrow)) & country] = SAND


def _basins(canvas: Canvas, country: Mask) -> None:
    """Fill hollows with marsh, as far as lakes ever reach; the season decides what is wet."""
    depth = canvas.noise("basin", 420, 5, 0.42)
    depth -= np.float32(NormalDist().inv_cdf(1 - canvas.style.basin))
    wet = (depth > 0) & country
    # Each lake has one water, wherever it is looked at from.
    _, lake, _, middle = cv2.connectedComponentsWithStats(wet.astype(np.uint8), connectivity=8)
    columns, rows = np.clip(middle.round().astype(int), 0, canvas.side_px - 1).T
    tint = canvas.noise("basin-kind", 500, 2)[rows, columns]
    kind = np.clip(np.floor(tint * 1.3 + 1.5), 0, 2).astype(np.int32)
    canvas.surface[wet] = MARSH + kind[lake[wet]]
    canvas.basin = np.where(wet, np.clip(depth / BASIN, 1, 255), 0).astype(np.uint8)


def lay_bars(canvas: Canvas, path: Floats, half_m: Floats) -> None:
    """Lay sand bars on the inner side of a river's bends."""
    step = np.gradient(path, axis=0)
    turn = np.gradient(np.unwrap(np.arctan2(step[:, 1], step[:, 0])))
    bend = np.clip(turn / max(float(np.quantile(np.abs(turn), 0.85)), 1e-9), -1, 1)
    normal = np.stack([-step[:, 1], step[:, 0]], axis=1) / np.hypot(*step.T)[:, None]
    wobble = 1 + 0.2 * np.sin(np.arange(len(path)) / 7.0) + 0.2 * np.sin(np.arange(len(path)) / 17)
    large = half_m * 0.3 * canvas.style.bars * np.abs(bend) * wobble
    inner = path + np.sign(bend)[:, None] * normal * (half_m - 0.4 * large)[:, None]
    here = large > canvas.gsd_m / 2
    stamp_discs(canvas, inner[here], large[here], MUD)
    stamp_discs(canvas, inner[here], 0.82 * large[here], SAND)


def lay_railway(canvas: Canvas) -> None:
    """Lay a railway of one to four tracks on its own line."""
    rng = rng_for(canvas.seed, "has-railway")
    if rng.random() >= canvas.style.rail:
        return
    path = winding_path(canvas, "railway", rng.uniform(0.0, 0.03), rng.uniform(1200, 3000))
    tracks = int(rng.integers(1, 5))
    width = 4.0 + 4.5 * (tracks - 1)
    canvas.stroke(path, VERGE, width + rng.uniform(4, 14))
    canvas.stroke(path, BALLAST, width + 1.5)
    if canvas.gsd_m > _RAILS_SEEN_M:
        return
    step = np.gradient(path, axis=0)
    normal = np.stack([-step[:, 1], step[:, 0]], axis=1) / np.hypot(*step.T)[:, None]
    for track in range(tracks):
        middle = 4.5 * (track - (tracks - 1) / 2)
        for side in (-0.5, 0.5):
            canvas.stroke(path + normal * (middle + side * _RAIL_GAUGE_M), RAILS, 0.2)
