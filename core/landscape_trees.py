"""Trees of a procedural landscape: where they stand, and their crowns as heights."""

from __future__ import annotations

import math
from statistics import NormalDist

import cv2
import numpy as np

from .landscape_noise import Floats, SmoothField, rng_for
from .landscape_parts import Parcel
from .landscape_world import (
    BALLAST,
    COURT,
    CROWN_M,
    LAKES_AND_MARSH,
    LANE,
    MAIN,
    MARK,
    PARCEL,
    PARKING,
    PAVED,
    PITCH,
    POOL,
    RAILS,
    STREET,
    TRACK,
    WATER,
    WOOD,
    YARD,
    Canvas,
    Ints,
    first_conifer_tone,
)  # fmt: skip

_BLOCKED = [WATER, MAIN, STREET, LANE, MARK, PARKING, PITCH, COURT, POOL, TRACK, PAVED, YARD]
_BLOCKED += [BALLAST, RAILS, *LAKES_AND_MARSH]
_DOME = ((1.0, 0.55), (0.72, 0.85), (0.4, 1.0))  # share of the radius, share of the height
_SHIFT = 3  # sub-pixel bits of circles


def plant_trees(canvas: Canvas) -> None:
    """Plant woods, orchards, single trees and those of the plan, and draw their crowns."""
    planned = np.array(canvas.plan.trees, np.float64).reshape(-1, 3)
    open_kinds = ("crop", "pasture", "scrub", "bare")
    groups = [
        _keep(canvas, planned, forbidden=_BLOCKED),
        _woods(canvas),
        _singles(canvas, [i for i, p in enumerate(canvas.plan.parcels) if p.kind in open_kinds]),
    ]
    groups += [
        _orchard(canvas, i, p) for i, p in enumerate(canvas.plan.parcels) if p.kind == "orchard"
    ]
    _draw_crowns(canvas, np.concatenate(groups))


def _grid(canvas: Canvas, tag: str, spacing_m: float) -> Floats:
    """Return places on a jittered grid over the ground and a number in 0..1 for each: (N, 3)."""
    steps = int(canvas.size_m / spacing_m) + 2
    axis = (np.arange(steps) + 0.5) * spacing_m - canvas.size_m / 2 - spacing_m
    east, north = np.meshgrid(axis, axis)
    draws = rng_for(canvas.seed, tag).random((3, steps, steps))
    east += spacing_m * 0.9 * (draws[0] - 0.5)
    north += spacing_m * 0.9 * (draws[1] - 0.5)
    return np.stack([east.ravel(), north.ravel(), draws[2].ravel()], axis=1)


def _keep(canvas: Canvas, trees: Floats, forbidden: list[int]) -> Floats:
    if not len(trees):
        return trees
    free = ~np.isin(canvas.at(canvas.surface, trees[:, :2]), forbidden)
    kept: Floats = trees[free & (canvas.at(canvas.building, trees[:, :2]) <= 0)]
    return kept


def _woods(canvas: Canvas) -> Floats:
    trees = _grid(canvas, "woods", canvas.style.crown_m * 0.72)
    trees = trees[canvas.at(canvas.surface, trees[:, :2]) == WOOD]
    draw = trees[:, 2]
    gap = draw < 0.08 + 0.25 * canvas.style.dry
    trees[:, 2] = canvas.style.crown_m * (0.6 + 0.75 * draw)
    kept: Floats = trees[~gap]
    return kept


def _singles(canvas: Canvas, open_parcels: list[int]) -> Floats:
    trees = _grid(canvas, "singles", 12.0)
    density = canvas.style.trees_ha * 12.0**2 / 1e4
    scrub = np.array([p.kind == "scrub" for p in canvas.plan.parcels])
    cropped = np.array([p.kind == "crop" for p in canvas.plan.parcels])
    surface = canvas.at(canvas.surface, trees[:, :2])
    number = np.maximum(surface - PARCEL, 0)
    chance = density * (1 + 2.5 * scrub[number] - 0.85 * cropped[number])
    keep = (surface >= PARCEL) & (trees[:, 2] < chance) & np.isin(number, open_parcels)
    trees = trees[keep]
    spread = rng_for(canvas.seed, "single-size").random(len(keep))[keep]
    trees[:, 2] = canvas.style.crown_m * (0.5 + spread)
    return trees


def _orchard(canvas: Canvas, number: int, parcel: Parcel) -> Floats:
    """Plant a regular grid along the parcel's direction."""
    rng = rng_for(canvas.seed, "orchard", round(parcel.outline[0, 0]), round(parcel.outline[0, 1]))
    low, high = parcel.outline.min(0), parcel.outline.max(0)
    middle, reach = (low + high) / 2, math.hypot(*(high - low)) / 2
    across, along = rng.uniform(4.5, 9), rng.uniform(3.5, 8)
    u, v = np.meshgrid(np.arange(-reach, reach, along), np.arange(-reach, reach, across))
    c, s = math.cos(parcel.angle_rad), math.sin(parcel.angle_rad)
    east = middle[0] + c * u.ravel() - s * v.ravel()
    north = middle[1] + s * u.ravel() + c * v.ravel()
    size = min(across, along) * rng.uniform(0.55, 0.85) * rng.uniform(0.8, 1.1, len(east))
    trees = np.stack([east, north, size], axis=1)
    trees = trees[rng.random(len(trees)) < 0.95]
    kept: Floats = trees[canvas.at(canvas.surface, trees[:, :2]) == PARCEL + number]
    return kept


def _tones(canvas: Canvas, trees: Floats) -> Ints:
    """Draw broadleaf or conifer for each tree; kinds stand together."""
    style = canvas.style
    stands = SmoothField(canvas.seed, "stands", canvas.size_m / 2 + 60, 120)
    rng = rng_for(canvas.seed, "tones")
    mixed = 0.85 * stands.at(trees[:, :2]) + 0.53 * rng.standard_normal(len(trees))
    share = min(max(style.conifer, 1e-3), 1 - 1e-3)
    conifer = mixed > NormalDist().inv_cdf(1 - share)
    first, draw = first_conifer_tone(style), rng.random(len(trees))
    evergreen = first + draw * (256 - first)
    broadleaf = 1 + draw * max(first - 1, 0)
    return np.where(conifer, evergreen, broadleaf).clip(1, 255).astype(np.int32)


def _draw_crowns(canvas: Canvas, trees: Floats) -> None:
    """Stamp crowns as stepped domes, low trees first, so that high ones stand over them."""
    half = canvas.size_m / 2 + 10
    trees = trees[(np.abs(trees[:, :2]) < half).all(axis=1)]
    rng = rng_for(canvas.seed, "crowns")
    height = trees[:, 2] * rng.uniform(0.9, 1.5, len(trees)) + 1
    tone = _tones(canvas, trees)
    order = np.argsort(height, kind="stable")
    centers = np.round(canvas.pixels(trees[:, :2]) * (1 << _SHIFT)).astype(int)
    radii = trees[:, 2] / 2 / canvas.gsd_m * (1 << _SHIFT)
    codes = np.minimum(height / CROWN_M, 255)
    crown, tones = canvas.crown, canvas.tone
    for i in order.tolist():
        center, radius, code = centers[i].tolist(), float(radii[i]), float(codes[i])
        cv2.circle(tones, center, int(radius), int(tone[i]), -1, cv2.LINE_8, _SHIFT)
        for share, tall in _DOME:
            cv2.circle(crown, center, int(radius * share), int(code * tall), -1, cv2.LINE_8, _SHIFT)
