"""The plan of a procedural landscape drawn on the ground: woods, waters, roads and patches."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from .landscape_nature import lay_bars, lay_nature, lay_railway, stamp_discs, winding_path
from .landscape_noise import rng_for
from .landscape_world import (
    BALLAST,
    COURT,
    DITCH,
    LANE,
    MAIN,
    MARK,
    PARCEL,
    PARKING,
    PATH,
    PAVED,
    PITCH,
    POOL,
    SAND,
    STREET,
    TRACK,
    VERGE,
    WATER,
    WOOD,
    YARD,
    Canvas,
)  # fmt: skip

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
    lay_nature(canvas, ~town[canvas.parcel])
    _lines(canvas, _FORDED)
    for patch in plan.patches:
        if patch.kind == "pond":
            canvas.fill(canvas.surface, patch.outline, WATER)
    _river(canvas)
    _lines(canvas, _BRIDGED)
    _highway(canvas)
    lay_railway(canvas)
    for patch in plan.patches:
        if patch.kind == "pond":
            continue
        places = np.concatenate([patch.outline, patch.outline.mean(axis=0, keepdims=True)])
        if not np.isin(canvas.at(canvas.surface, places), (WATER, MAIN, BALLAST)).any():
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


def _river(canvas: Canvas) -> None:
    """Draw a meandering river with banks, of varying width."""
    style, rng = canvas.style, rng_for(canvas.seed, "has-river")
    if rng.random() > style.river:
        return
    path = winding_path(
        canvas, "river", rng.uniform(0.05, 0.16) * (1 + style.meander), rng.uniform(250, 900)
    )
    bank = SAND if style.dry > 0.5 else VERGE
    swell = 1 + 0.3 * np.sin(np.arange(len(path)) / rng.uniform(16, 48) + rng.uniform(0, 6))
    beach = rng.uniform(2, 7) * (1 + np.sin(np.arange(len(path)) / 15 + rng.uniform(0, 6)))
    half_m = style.river_m * swell / 2
    for surface, radius in ((bank, half_m + beach), (WATER, half_m)):
        stamp_discs(canvas, path, radius, surface)
    if style.bars:
        lay_bars(canvas, path, half_m)
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
    path = winding_path(canvas, "highway", rng.uniform(0.0, 0.05), rng.uniform(900, 2500))
    wide = rng.random() < 0.35
    width = 22.0 if wide else rng.uniform(7, 10)
    canvas.stroke(path, VERGE, width + rng.uniform(5, 14))
    canvas.stroke(path, MAIN, width)
    if wide:
        canvas.stroke(path, VERGE, 3.0)
    elif canvas.gsd_m < 0.7:
        canvas.stroke(path, MARK, 0.3)
