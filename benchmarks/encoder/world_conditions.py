"""Procedural worlds of styles that no recipe trains on, in another season and year."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from condition import Condition, Group, Region, Setting, cells
from scene import Scene, agl_for, draw_places, foot_below, normalised, scene_of, shots
from telemetry import draw_attitude, usual_errors

from s4g.core.geo import LocalFrame
from s4g.core.ground import ArrayGround
from s4g.core.landscape import HELD_OUT, World, make_world, render_world

NAME = "unseen worlds"
FIRST_SEED = 900_000
WORLDS = range(8)
FAULT_WORLDS = range(8, 10)  # for the conditions of one fault
SIZE_M, GSD_M = 512.0, 0.5
FOOTPRINT_M = 80.0
# Season, year and sensor of the map, and of the frames.
MAP = ("summer", 0, "a")
FRAMES = (("autumn", 1, "e"), ("winter", 2, "f"), ("spring", 3, "g"), ("summer", 4, "h"))
_ORIGIN = LocalFrame(47.0, 8.0)
_SEED = 63_000


@functools.lru_cache(maxsize=16)
def _world(number: int) -> World:
    return make_world(FIRST_SEED + number, SIZE_M, GSD_M, HELD_OUT[number % len(HELD_OUT)])


@functools.lru_cache(maxsize=32)
def world_scene(number: int, date: int) -> Scene:
    """Return a world as its map shows it (date 0) or as frames do (1)."""
    season, year, sensor = FRAMES[number // len(HELD_OUT) % len(FRAMES)] if date else MAP
    picture = render_world(_world(number), season, year, _SEED + 10 * number + date, sensor)
    half_m = SIZE_M / 2
    valid = np.ones(picture.shape[:2], np.bool_)
    ground = ArrayGround(picture, valid, _ORIGIN, -half_m, half_m, GSD_M)
    name = f"world {FIRST_SEED + number}"
    return scene_of(name, name, ground)


def make(setting: Setting, names: tuple[str, ...]) -> Iterator[Condition]:
    """Yield the one condition."""
    if NAME in names:
        regions = tuple(_region(setting, number) for number in WORLDS)
        about = f"{len(WORLDS)} worlds of {' and '.join(HELD_OUT)}, another season and year"
        yield Condition(NAME, about, regions)


def _region(setting: Setting, number: int) -> Region:
    rng = np.random.default_rng((_SEED, number))
    before, after = world_scene(number, 0), world_scene(number, 1)
    count = max(4, setting.queries // len(WORLDS))
    places = draw_places(after, after.bounds_m, FOOTPRINT_M, count, rng, reach=1.2)
    queries, frames, attitudes = [], [], []
    for place in places:
        true = draw_attitude(agl_for(FOOTPRINT_M), rng)
        frame = after.frame(true, foot_below(true, place))
        reported = usual_errors(true, rng)
        queries.append(normalised(frame, reported, FOOTPRINT_M, setting.size_px))
        frames.append(frame)
        attitudes.append(reported)
    center_m = np.array(places)
    cluster = cells(center_m, FOOTPRINT_M)
    gallery = before.gallery(FOOTPRINT_M, setting.size_px)
    flown = shots(frames, attitudes, FOOTPRINT_M, center_m, cluster)
    return Region(gallery, np.stack(queries)[:, None], center_m, cluster, flown)


GROUPS = (Group((NAME,), (), make),)
