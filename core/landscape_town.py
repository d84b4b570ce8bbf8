"""Town blocks of a procedural landscape: house plots, apartment and industrial blocks, parks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .landscape_parts import Line, Quad, inset
from .landscape_plots import Local, add_parcel, add_patch, add_tree
from .landscape_works import fill_shanty, fill_works

if TYPE_CHECKING:
    from .landscape_plan import Planner

_STREET_HALF_M = 5.5  # from a block's border to its first garden, half a street and the pavement


def fill_block(planner: Planner, quad: Quad) -> None:
    """Fill a block between streets with one kind of town."""
    rng, style = planner.rng, planner.style
    inner = inset(quad, _STREET_HALF_M)
    if inner is None:
        return
    if style.shanty or style.works:
        kind = rng.random()
        if kind < style.shanty:
            fill_shanty(planner, inner)
            return
        if kind < style.shanty + style.works:
            fill_works(planner, inner)
            return
    draw = rng.random()
    if draw < style.industry:
        _industry(planner, inner)
    elif draw < style.industry + 0.07:
        _park(planner, inner)
    elif draw < style.industry + 0.15:
        _apartments(planner, inner)
    else:
        _plots(planner, inner)


def _plots(planner: Planner, quad: Quad) -> None:
    """Two rows of house plots back to back, each with its front towards a street."""
    rng, local = planner.rng, Local(quad)
    rows = ((0.0, 0.5), (1.0, 0.5)) if local.depth_m > 34 else ((0.0, 1.0),)
    for front, back in rows:
        depth_m = local.depth_m * abs(back - front)
        u = 0.0
        while u < 1 - 1e-6:
            step = planner.style.plot_m * rng.uniform(0.75, 1.4) / local.length_m
            end = 1.0 if u + 1.5 * step > 1 else u + step
            _house_plot(planner, local, (u, end), (front, back), depth_m)
            u = end


def _house_plot(
    planner: Planner,
    local: Local,
    us: tuple[float, float],
    vs: tuple[float, float],
    depth_m: float,
) -> None:
    rng, style = planner.rng, planner.style
    (u0, u1), (front, back) = us, vs
    width_m = (u1 - u0) * local.length_m
    add_parcel(planner, local, local.box(u0, front, u1, back), "garden")
    if rng.random() < 0.06:
        return  # not built on yet
    house_w = min(width_m * rng.uniform(0.5, 0.8), rng.uniform(9, 16))
    house_d = min(depth_m * 0.5, rng.uniform(7, 12))
    setback = (rng.uniform(3, 8) + house_d / 2) / depth_m
    u, v = u0 + (u1 - u0) * rng.uniform(0.42, 0.58), front + (back - front) * min(setback, 0.6)
    turned = local.angle + (math.pi / 2 if rng.random() < 0.25 else 0)
    long_m, short_m = max(house_w, house_d), min(house_w, house_d)
    height = rng.uniform(4.5, 8.5)
    planner.build(local.at(u, v), turned, long_m, short_m, height, rng.random() > 0.12)
    if rng.random() < 0.3:
        wing = local.at(u + 0.25 * house_w / local.length_m, v + (back - front) * 4 / depth_m)
        planner.build(wing, turned + math.pi / 2, long_m * 0.7, short_m * 0.7, height - 1, True)
    side = u0 + (u1 - u0) * (0.1 if rng.random() < 0.5 else 0.88)
    drive = 1.5 / local.length_m
    add_patch(planner, local.box(side - drive, front, side + drive, v), "drive")
    yard = rng.random(6)
    if yard[0] < style.pool:
        a, b = 4 / local.length_m, (back - front) * 2.2 / depth_m
        middle = front + (back - front) * 0.78
        add_patch(
            planner, local.box(u - 1.4 * a, middle - 2 * b, u + 1.4 * a, middle + 2 * b), "patio"
        )
        add_patch(planner, local.box(u - a, middle - b, u + a, middle + b), "pool")
    elif yard[1] < 0.4:
        spot = local.at(u0 + (u1 - u0) * yard[2], front + (back - front) * (0.75 + 0.2 * yard[3]))
        planner.build(spot, local.angle, 3 + 4 * yard[4], 2.5 + 2 * yard[5], 2.5, False)
    for _ in range(int(rng.poisson((0.8 + 3 * style.hedge) * (1 - 0.5 * style.dry)))):
        spot = local.at(rng.uniform(u0, u1), front + (back - front) * rng.uniform(0, 1))
        add_tree(planner, spot, rng.uniform(0.35, 1.2))


def _apartments(planner: Planner, quad: Quad) -> None:
    """Long flat-roofed houses in parallel, lawns and parking between them."""
    rng, local = planner.rng, Local(quad)
    add_parcel(planner, local, local.box(0, 0, 1, 1), "lawn")
    rows = max(1, int(local.length_m / rng.uniform(26, 45)))
    length = local.depth_m * rng.uniform(0.6, 0.85)
    height, width, ridge = rng.uniform(9, 22), rng.uniform(10, 14), rng.random() < 0.4
    for k in range(rows):
        u = (k + 0.5) / rows
        turned = local.angle + math.pi / 2
        planner.build(local.at(u, 0.5), turned, length, width, height, bool(ridge))
        half = 0.2 / rows
        if k + 1 < rows:
            gap = (k + 1) / rows
            kind = "parking" if rng.random() < 0.5 else "drive"
            add_patch(planner, local.box(gap - half * 0.6, 0.1, gap + half * 0.6, 0.9), kind)
    for _ in range(int(rng.integers(4, 16))):
        add_tree(planner, local.at(rng.random(), rng.random()), rng.uniform(0.6, 1.3))


def _industry(planner: Planner, quad: Quad) -> None:
    """Halls on paved ground, a car park in front."""
    rng, local = planner.rng, Local(quad)
    add_parcel(planner, local, local.box(0, 0, 1, 1), "yard")
    split = rng.uniform(0.3, 0.75)
    height = rng.uniform(6, 14)
    for u0, u1 in ((0.06, split - 0.04), (split + 0.04, 0.94)):
        middle = local.at((u0 + u1) / 2, 0.58)
        if rng.random() < 0.85:
            length, depth = (u1 - u0) * local.length_m, local.depth_m * rng.uniform(0.4, 0.66)
            planner.build(middle, local.angle, length, depth, height, rng.random() < 0.2)
        kind = "parking" if rng.random() < 0.7 else "lawn"
        add_patch(planner, local.box(u0, 0.04, u1, 0.22), kind)
    for _ in range(int(rng.integers(0, 8))):
        add_tree(planner, local.at(rng.random(), 0.02), rng.uniform(0.5, 0.9))


def _park(planner: Planner, quad: Quad) -> None:
    """A lawn with paths and trees, or a sports ground."""
    rng, local = planner.rng, Local(quad)
    add_parcel(planner, local, local.box(0, 0, 1, 1), "lawn")
    if rng.random() < 0.5:
        kind, long_m, wide_m = ("pitch", 100, 64) if rng.random() < 0.7 else ("court", 38, 20)
        u, v = min(0.44, long_m / 2 / local.length_m), min(0.42, wide_m / 2 / local.depth_m)
        add_patch(planner, local.box(0.5 - u, 0.5 - v, 0.5 + u, 0.5 + v), kind)
        return
    for _ in range(int(rng.integers(1, 4))):
        ends = [local.at(rng.random(), 0), local.at(rng.random(), 0.5), local.at(rng.random(), 1)]
        planner.plan.lines.append(Line(planner.bend_path(*ends), "path", 2.0))
    for _ in range(int(rng.integers(10, 60))):
        add_tree(planner, local.at(rng.random(), rng.random()), rng.uniform(0.6, 1.5))
