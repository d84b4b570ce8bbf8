"""Buildings of a procedural landscape on the ground, and where cars stand between them."""

from __future__ import annotations

import math

import cv2
import numpy as np

from .landscape_noise import Floats, rng_for
from .landscape_parts import Building
from .landscape_world import (
    BALLAST,
    FIXED_BITS,
    LAKES_AND_MARSH,
    LANE,
    MAIN,
    MARK,
    PARKING,
    RAILS,
    STREET,
    WATER,
    WOOD,
    Bytes,
    Canvas,
    Ints,
)  # fmt: skip

_DRIVEN = (PARKING, STREET, LANE, MAIN)


def put_up_buildings(canvas: Canvas) -> tuple[Building, ...]:
    """Draw the buildings that do not stand in a road or in water; return them."""
    planned = canvas.plan.buildings
    if not planned:
        return ()
    blocked = [WATER, MAIN, STREET, LANE, MARK, WOOD, BALLAST, RAILS, *LAKES_AND_MARSH]
    corners = np.stack([building_corners(building) for building in planned])
    centers = np.array([building.center for building in planned])
    places = np.concatenate([corners, centers[:, None]], axis=1)
    ground = canvas.at(canvas.surface, places).reshape(len(planned), -1)
    free = (np.abs(centers).max(axis=1) <= canvas.size_m / 2 + 60) & ~np.isin(ground, blocked).any(
        axis=1
    )
    p, q, r, s = corners.swapaxes(0, 1)
    ridges = (p + s) / 2, (q + r) / 2
    outlines = canvas.fixed(corners).reshape(-1, 4, 2)
    first = canvas.fixed(np.stack([p, q, ridges[1], ridges[0]], axis=1)).reshape(-1, 4, 2)
    second = canvas.fixed(np.stack([ridges[0], ridges[1], r, s], axis=1)).reshape(-1, 4, 2)
    standing: list[Building] = []
    carried = False
    for number, building in enumerate(planned):
        if not building.on_roof:
            carried = bool(free[number])
        if not carried:
            continue
        standing.append(building)
        _fill(canvas.building, outlines[number], len(standing))
        _fill(canvas.aspect, outlines[number], 0)
        if building.ridge:
            for face, side in ((first[number], -1), (second[number], 1)):
                azimuth = math.pi / 2 - (building.angle_rad + side * math.pi / 2)
                _fill(canvas.aspect, face, 1 + int(254 * ((azimuth / (2 * math.pi)) % 1)))
    return tuple(standing)


def _fill(layer: Ints | Bytes, outline: Ints, value: int) -> None:
    cv2.fillPoly(layer, [outline], value, cv2.LINE_8, FIXED_BITS)


def building_corners(building: Building) -> Floats:
    """Return the four corners (4, 2), counter-clockwise, the first side along the length."""
    c, s = math.cos(building.angle_rad), math.sin(building.angle_rad)
    half = np.array([building.length_m, building.width_m]) / 2
    box = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    corners: Floats = box @ np.array([[c, s], [-s, c]]) + building.center
    return corners


def parked_cars(canvas: Canvas) -> Floats:
    """Return columns, rows and directions of parking places and of places along streets."""
    places = []
    for patch in canvas.plan.patches:
        if patch.kind != "parking" or len(patch.outline) != 4:
            continue
        p, q, _, s = patch.outline
        length, depth = math.dist(p, q), math.dist(p, s)
        if min(length, depth) < 4 or not np.abs(patch.outline).max() < canvas.size_m:
            continue
        along, across = (q - p) / length, (s - p) / depth
        angle = math.atan2(across[1], across[0])
        rows = np.arange(3.0, depth - 2, 8.0)
        for u in np.arange(1.5, length - 1, 2.7):
            places += [(*(p + along * u + across * v), angle) for v in rows]
    rng = rng_for(canvas.seed, "street-cars")
    for line in canvas.plan.lines:
        if line.kind not in ("street", "lane", "main"):
            continue
        for start, end in zip(line.points[:-1], line.points[1:], strict=True):
            step = end - start
            length = math.hypot(*step)
            aside = np.array([step[1], -step[0]]) / max(length, 0.1) * line.width_m * 0.27
            share, chance = rng.random(2)
            if chance < 0.25:
                places.append((*(start + step * share + aside), math.atan2(step[1], step[0])))
    found = np.array(places, np.float64).reshape(-1, 3)
    ground = canvas.at(canvas.surface, found[:, :2])
    found = found[np.isin(ground, _DRIVEN) & (canvas.at(canvas.building, found[:, :2]) == 0)]
    found[:, :2] = canvas.pixels(found[:, :2])
    inside = ((found[:, :2] > -8) & (found[:, :2] < canvas.side_px + 8)).all(axis=1)
    cars: Floats = found[inside]
    return cars
