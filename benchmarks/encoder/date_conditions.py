"""The same ground in another year or season, split by place."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from condition import Condition, Gallery, Group, Region, Setting, cells
from scene import agl_for, draw_places, foot_below, normalised, read_scene, shots
from telemetry import draw_attitude, usual_errors

from s4g.core.sources import open_ground

NAIP = "naip_nd_multidate"
NAIP_MAP_YEAR = 2020
NAIP_YEARS = (2009, 2012, 2015, 2017, 2019)
NAIP_FOOTPRINTS_M = {"other year, 640 m": 640.0, "other year, 1000 m": 1000.0}
# Western share of the quadrangle, which trains.
NAIP_TRAINS = 0.5
NEON = "neon_sjer_two_years"
NEON_NAME = "other season"
NEON_FOOTPRINT_M = 16.0
NEON_GSD_M = 0.1
NEON_EVERY = 5  # plots: the last of each five is held out
_SEED = 61_000


def _years(setting: Setting, names: tuple[str, ...]) -> Iterator[Condition]:
    for number, name in enumerate(NAIP_FOOTPRINTS_M):
        if name in names:
            yield _other_year(setting, name, np.random.default_rng((_SEED, number)))


def _other_year(setting: Setting, name: str, rng: np.random.Generator) -> Condition:
    footprint_m, size_px = NAIP_FOOTPRINTS_M[name], setting.size_px
    folder = setting.data / NAIP
    files = {year: next(iter(sorted(folder.glob(f"*_{year}*.tif")))) for year in NAIP_YEARS}
    map_file = next(iter(sorted(folder.glob(f"*_{NAIP_MAP_YEAR}*.tif"))))
    origin = _middle(str(map_file))
    held = read_scene(map_file, NAIP, origin)
    west_m, south_m, east_m, north_m = held.bounds_m
    cut_m = west_m + NAIP_TRAINS * (east_m - west_m)
    # The years' borders differ by a few metres: black edges fall away with the reach.
    count = max(4, setting.queries // len(NAIP_YEARS))
    places = draw_places(
        held, (cut_m, south_m, east_m, north_m), footprint_m, count, rng, reach=1.0
    )
    queries, frames, attitudes = [], [], []
    for file in files.values():
        scene = read_scene(file, NAIP, origin)
        for east, north in places:
            place = (east - scene.offset_m[0], north - scene.offset_m[1])
            true = draw_attitude(agl_for(footprint_m), rng)
            frame = scene.frame(true, foot_below(true, place))
            reported = usual_errors(true, rng)
            queries.append(normalised(frame, reported, footprint_m, size_px))
            frames.append(frame)
            attitudes.append(reported)
    center_m = np.tile(np.array(places), (len(files), 1))
    cluster = cells(center_m, footprint_m)
    region = Region(
        held.gallery(footprint_m, size_px),
        np.stack(queries)[:, None],
        center_m,
        cluster,
        shots(frames, attitudes, footprint_m, center_m, cluster),
    )
    years = ", ".join(map(str, NAIP_YEARS))
    about = f"North Dakota, map {NAIP_MAP_YEAR}, eastern half in {years}"
    return Condition(name, about, (region,))


def _middle(path: str) -> tuple[float, float]:
    ground = open_ground(path)
    lat_deg, lon_deg = ground.bounds.center
    ground.close()
    return float(lat_deg), float(lon_deg)


def _seasons(setting: Setting, names: tuple[str, ...]) -> Iterator[Condition]:
    if NEON_NAME not in names:
        return
    rng = np.random.default_rng((_SEED, 10))
    folder, size_px = setting.data / NEON, setting.size_px
    maps, later_maps = (sorted((folder / year).glob("*.tif")) for year in ("2017", "2018"))
    origin = _middle(str(maps[0]))
    tiles, centers, queries, truths, plots = [], [], [], [], []
    frames, attitudes = [], []
    held = range(NEON_EVERY - 1, len(maps), NEON_EVERY)
    for number, (before, after) in enumerate(zip(maps, later_maps, strict=True)):
        scene = read_scene(before, NEON, origin, NEON_GSD_M)
        of_plot, where = scene.tiles(NEON_FOOTPRINT_M, size_px)
        tiles.append(of_plot)
        centers.append(where)
        if number not in held:
            continue
        later = read_scene(after, NEON, origin, NEON_GSD_M)
        count = max(4, setting.queries // len(held))
        for place in draw_places(later, later.bounds_m, NEON_FOOTPRINT_M, count, rng, reach=1.0):
            true = draw_attitude(agl_for(NEON_FOOTPRINT_M), rng)
            frame = later.frame(true, foot_below(true, place))
            reported = usual_errors(true, rng)
            queries.append(normalised(frame, reported, NEON_FOOTPRINT_M, size_px))
            frames.append(frame)
            attitudes.append(reported)
            truths.append(np.add(place, later.offset_m))
            plots.append(number)
    gallery = Gallery(
        f"{NEON} @ {NEON_FOOTPRINT_M:g} m",
        NEON,
        NEON_FOOTPRINT_M,
        np.concatenate(tiles),
        np.concatenate(centers),
    )
    center_m, cluster = np.array(truths), np.array(plots)
    flown = shots(frames, attitudes, NEON_FOOTPRINT_M, center_m, cluster)
    region = Region(gallery, np.stack(queries)[:, None], center_m, cluster, flown)
    about = f"SJER, map 2017 of {len(maps)} plots, {len(held)} held-out plots in 2018"
    yield Condition(NEON_NAME, about, (region,))


GROUPS = (
    Group(tuple(NAIP_FOOTPRINTS_M), (NAIP,), _years),
    Group((NEON_NAME,), (NEON,), _seasons),
)
