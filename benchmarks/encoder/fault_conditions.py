"""One fault at a time: simulated frames over imagery that is its own map."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from condition import Condition, Gallery, Group, Images, Region, Setting, cells
from faults import FAULTS, Fault
from scene import Scene, agl_for, draw_places, foot_below, normalised, read_scene, shots
from telemetry import draw_attitude
from world_conditions import FAULT_WORLDS, world_scene

from s4g.core.camera import Attitude

ORTHOS = "small_orthos"
# Of an orthophoto's columns: they train, the rest is held out.
TRAINS = 0.7
_SEED = 62_000


@dataclass(frozen=True)
class Site:
    """Ground for simulated flights: how to get it, its tiles' side, which share of it trains."""

    load: Callable[[Path], Scene]
    footprint_m: float
    trains: float = 0.0


def _raster(path: str, source: str) -> Callable[[Path], Scene]:
    return lambda data: read_scene(data / path, source)


def _world(number: int) -> Callable[[Path], Scene]:
    return lambda data: world_scene(number, 0)


SITES = (
    Site(_raster(f"{ORTHOS}/oam_manila_0.1m.tif", "manila"), 30.0, TRAINS),
    Site(_raster(f"{ORTHOS}/oam_brazil_0.1m.tif", "brazil"), 30.0, TRAINS),
    Site(_raster(f"{ORTHOS}/nl_rd_0.25m_test_tiled.tif", "netherlands"), 36.0, TRAINS),
    Site(_raster(f"{ORTHOS}/naip_berkeley_campus_z17.tif", "berkeley"), 120.0, TRAINS),
    *(Site(_world(number), 70.0) for number in FAULT_WORLDS),
)


def make(setting: Setting, names: tuple[str, ...]) -> Iterator[Condition]:
    """Yield the faults asked for; all show the same places from the same poses."""
    for fault in FAULTS:
        if fault.name in names:
            regions = tuple(_region(setting, number, fault) for number in range(len(SITES)))
            yield Condition(fault.name, fault.about, regions)


@functools.lru_cache(maxsize=32)
def _gallery(data: Path, number: int, size_px: int) -> Gallery:
    site = SITES[number]
    return site.load(data).gallery(site.footprint_m, size_px)


@functools.lru_cache(maxsize=32)
def _flight(
    data: Path, number: int, count: int
) -> tuple[list[tuple[float, float]], list[Attitude], list[Images]]:
    """Return places, poses and frames over the held-out part of a site."""
    site = SITES[number]
    rng = np.random.default_rng((_SEED, number))
    scene = site.load(data)
    west_m, south_m, east_m, north_m = scene.bounds_m
    held = (west_m + site.trains * (east_m - west_m), south_m, east_m, north_m)
    places = draw_places(scene, held, site.footprint_m, count, rng)
    poses = [draw_attitude(agl_for(site.footprint_m), rng) for _ in places]
    frames = [
        scene.frame(pose, foot_below(pose, place))
        for place, pose in zip(places, poses, strict=True)
    ]
    return places, poses, frames


def _region(setting: Setting, number: int, fault: Fault) -> Region:
    site, count = SITES[number], max(4, setting.queries // len(SITES))
    places, poses, frames = _flight(setting.data, number, count)
    queries, spoilt, told = [], [], []
    for i, (pose, frame) in enumerate(zip(poses, frames, strict=True)):
        rng = np.random.default_rng((_SEED, number, i))
        seen = fault.change(frame, frames, rng)
        views = fault.report(pose, rng)
        queries.append(
            [normalised(seen, view, site.footprint_m, setting.size_px) for view in views]
        )
        if len(views) == 1:  # without a heading nothing flies
            spoilt.append(seen)
            told.append(views[0])
    center_m = np.array(places)
    cluster = cells(center_m, site.footprint_m)
    return Region(
        _gallery(setting.data, number, setting.size_px),
        np.array(queries),
        center_m,
        cluster,
        shots(spoilt, told, site.footprint_m, center_m, cluster) if told else (),
    )


GROUPS = (Group(tuple(fault.name for fault in FAULTS), (ORTHOS,), make),)
