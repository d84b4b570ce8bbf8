"""Town blocks that follow no plan of plots: dense informal houses; halls, stores and car parks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .landscape_parts import Building, Quad, quad_center
from .landscape_plots import Local, add_parcel, add_patch, add_tree

if TYPE_CHECKING:
    from .landscape_plan import Planner

_PAINTS = ("red", "blue", "white", "rust", "metal", "dark", "brown")


def fill_shanty(planner: Planner, quad: Quad) -> None:
    """Small houses wall to wall on bare earth, footpaths between them, a tree here and there."""
    rng, local = planner.rng, Local(quad)
    add_parcel(planner, local, local.box(0, 0, 1, 1), "dirt")
    if planner.is_far(quad_center(quad)):
        return
    v, row_m = 0.0, rng.uniform(6, 9)
    places, sizes = [], []
    while v < 1:
        depth_m = row_m * rng.uniform(0.75, 1.25)
        u = rng.uniform(0, 0.02)
        while u < 1:
            width_m = rng.uniform(3.5, 10)
            middle_u = u + width_m / 2 / local.length_m
            middle_v = v + depth_m / 2 / local.depth_m + rng.normal(0, 0.008)
            u += (width_m + rng.exponential(0.9)) / local.length_m
            if rng.random() < 0.12 or not (middle_u < 0.99 and middle_v < 0.97):
                continue
            places.append(local.at(middle_u, middle_v))
            sizes.append((width_m, depth_m * rng.uniform(0.6, 0.95)))
        gap = rng.uniform(0.6, 2.4) if rng.random() < 0.75 else rng.uniform(2.5, 5)
        v += (depth_m + gap) / local.depth_m
    # All at once: a block of a hundred houses is bent as fast as one.
    _, angle = planner.bend_heading(local.at(0.5, 0.5), local.angle)
    roofs = planner.style.roofs
    for (x, y), (width_m, depth_m) in zip(planner.bend(np.array(places)), sizes, strict=True):
        turned, height = angle + rng.normal(0, 0.07), rng.uniform(2.3, 4.2)
        roof = roofs[int(rng.integers(len(roofs)))]
        planner.plan.buildings.append(
            Building((float(x), float(y)), turned, width_m, depth_m, height, True, roof)
        )
    for _ in range(int(rng.poisson(local.length_m * local.depth_m / 900))):
        add_tree(planner, local.at(rng.random(), rng.random()), rng.uniform(0.4, 1.0))


def fill_works(planner: Planner, quad: Quad) -> None:
    """Halls side by side, a yard of stores, or a car park, on paved ground."""
    local = Local(quad)
    add_parcel(planner, local, local.box(0, 0, 1, 1), "yard")
    draw = planner.rng.random()
    if draw < 0.2:
        _car_park(planner, local)
    elif draw < 0.4:
        _stores(planner, local)
    else:
        _halls(planner, local)


def _car_park(planner: Planner, local: Local) -> None:
    rng = planner.rng
    add_patch(planner, local.box(0.02, 0.03, 0.98, 0.97), "parking")
    if rng.random() < 0.6:  # a strip of grass with trees between rows
        rows = max(1, int(local.depth_m / 34))
        for k in range(1, rows):
            v = k / rows
            add_patch(planner, local.box(0.06, v - 0.012, 0.94, v + 0.012), "lawn")
            for u in range(int(local.length_m / 14)):
                place = local.at(0.08 + 0.84 * u * 14 / local.length_m, v)
                add_tree(planner, place, rng.uniform(0.4, 0.7))


def _stores(planner: Planner, local: Local) -> None:
    """Containers and stacks in rows, sheds at an end."""
    rng = planner.rng
    shed = rng.uniform(0.12, 0.3)
    planner.build(
        local.at(shed / 2 + 0.02, 0.5),
        local.angle + math.pi / 2,
        local.depth_m * rng.uniform(0.5, 0.85),
        shed * local.length_m * 0.85,
        rng.uniform(5, 9),
        rng.random() < 0.5,
    )
    if planner.is_far(local.at(0.5, 0.5)):
        return
    paint = int(rng.integers(len(_PAINTS)))
    v = 0.08
    while v < 0.94:
        u = shed + 0.06
        while u < 0.95:
            if rng.random() < 0.7:
                kind = _PAINTS[paint if rng.random() < 0.5 else int(rng.integers(len(_PAINTS)))]
                height = 2.6 * int(rng.integers(1, 4))
                planner.put_up(local.at(u, v), local.angle, 12.2, 2.5, height, kind)
            u += 13.0 / local.length_m
        v += (2.7 if rng.random() < 0.7 else 11.0) / local.depth_m


def _halls(planner: Planner, local: Local) -> None:
    """One large hall, or bays with a ridge each; a car park or a yard in front."""
    rng = planner.rng
    front = rng.uniform(0.12, 0.32)
    kind = "parking" if rng.random() < 0.7 else "lawn"
    add_patch(planner, local.box(0.03, 0.03, 0.97, front - 0.03), kind)
    length, depth = local.length_m * rng.uniform(0.7, 0.92), local.depth_m * (0.94 - front)
    height, middle = rng.uniform(7, 15), local.at(0.5, (front + 0.96) / 2)
    if rng.random() < 0.55:
        planner.build(middle, local.angle, length, depth, height, False)
        return
    bay_m = rng.uniform(10, 22)
    bays = max(1, int(length / bay_m))
    paint = planner.style.roofs[int(rng.integers(len(planner.style.roofs)))]
    for k in range(bays):
        place = local.at(0.5 + (k - (bays - 1) / 2) * bay_m / local.length_m, (front + 0.96) / 2)
        turned = local.angle + math.pi / 2
        planner.put_up(place, turned, depth, bay_m, height, paint, ridge=True)
