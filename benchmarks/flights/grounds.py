"""The ground of a scenario at its two dates: what is packed, and what is flown over."""

from __future__ import annotations

import dataclasses
import math
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
from kept import code_of, key_of
from scenario import Rasters, Scenario, View, World

from s4g.core import landscape
from s4g.core.files import atomic_folder, sha256_file
from s4g.core.geo import BBox, LocalFrame
from s4g.core.ground import ArrayGround, GroundSource
from s4g.core.landscape import make_world, render_world
from s4g.core.landscape_noise import fractal
from s4g.core.sources import open_ground

RGB = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

MAP, FLOWN = "map", "flown"
_ORIGIN = LocalFrame(47.0, 8.0)
_OTHER = 500  # from a world's seed to that of the ground which takes its place
# Water: its colour, and waves that are others every day.
_WATER = np.array([44.0, 62.0, 68.0], np.float32)
_WAVES, _WAVE_M = 2.5, 12.0
_SHORE = 0.12  # how far a lake's shore wanders, as a share of its radius


def ground_key(scenario: Scenario, data: Path) -> str:
    """Return what a scenario's ground is kept under."""
    if scenario.world is not None:
        return key_of(scenario.world, code_of("benchmarks/flights/grounds.py"))
    assert scenario.rasters is not None
    files = [
        path for name in (MAP, FLOWN) for path in _files(data / getattr(scenario.rasters, name))
    ]
    return key_of(scenario.rasters, [sha256_file(path) for path in files])


def missing_data(scenario: Scenario, data: Path) -> str | None:
    """Return why a scenario cannot be flown; None where it can."""
    if scenario.rasters is None:
        return None
    for name in (scenario.rasters.map, scenario.rasters.flown):
        if not (data / name).exists():
            return f"no imagery {data / name}; --data names the folder that holds it"
    return None


def open_date(scenario: Scenario, date: str, data: Path, out: Path) -> GroundSource:
    """Open a scenario's ground at one of its dates, making it where that was not done before.

    Raises:
        InputError: a raster cannot be read.
    """
    if scenario.rasters is not None:
        return open_ground(str(data / getattr(scenario.rasters, date)))
    world = scenario.world
    assert world is not None
    folder = out / "grounds" / ground_key(scenario, data)
    if not folder.exists():
        with atomic_folder(folder) as made:
            for name, picture in zip((MAP, FLOWN), pictures(world), strict=True):
                np.save(made / f"{name}.npy", picture)
    # Mapped: a flight reads small windows, a pack its blocks.
    picture = np.load(folder / f"{date}.npy", mmap_mode="r")
    half_m = len(picture) * world.gsd_m / 2
    valid = np.ones(picture.shape[:2], np.bool_)
    return ArrayGround(picture, valid, _ORIGIN, -half_m, half_m, world.gsd_m, name=_name(world))


def bounds_of(scenario: Scenario, date: str, data: Path) -> BBox:
    """Return the WGS84 box of a scenario's ground, without making it."""
    if scenario.world is not None:
        half_m = scenario.world.size_m / 2
        return _ORIGIN.wgs84_bounds(-half_m, -half_m, half_m, half_m)
    with closing(open_date(scenario, date, data, data)) as ground:
        return ground.bounds


def raster_centers(rasters: Rasters, data: Path) -> list[tuple[float, float]]:
    """Return latitude and longitude of the centres of a folder's rasters, by their names."""
    centers = []
    for path in _files(data / rasters.flown):
        ground = open_ground(str(path))
        centers.append(ground.bounds.center)
        ground.close()
    return centers


def pictures(world: World) -> tuple[RGB, RGB]:
    """Return a world (H, W, 3) as its map shows it and as it is flown over."""
    made = make_world(world.seed, world.size_m, world.gsd_m, world.style)
    shown, flown = _render(made, world.map), _render(made, world.flown)
    if world.changed_share:
        changed = changed_ground(made, world)
        other = make_world(world.seed + _OTHER, world.size_m, world.gsd_m, world.style)
        flown[changed] = _render(other, world.flown)[changed]
    if world.lake_m is not None:
        lake = _lake(world, shown.shape[0])
        _flood(shown, lake, world, world.map)
        _flood(flown, lake, world, world.flown)
    return shown, flown


def changed_ground(made: landscape.World, world: World) -> Mask:
    """Draw parcels until they are the wanted share of the ground; return where they are."""
    area = np.bincount(made.parcel.ravel())
    chosen = np.zeros(len(area), np.bool_)
    left = world.changed_share * area.sum()
    for number in np.random.default_rng([world.seed, 1]).permutation(len(area)):
        if area[number] <= left:
            chosen[number] = True
            left -= area[number]
    return np.asarray(chosen[made.parcel], np.bool_)


def _render(made: landscape.World, view: View) -> RGB:
    return render_world(made, view.season, view.year, view.light, view.sensor)


def _lake(world: World, side_px: int) -> Mask:
    """Return where the lake is: an ellipse with a shore that wanders."""
    assert world.lake_m is not None
    east, north, half_width, half_height = world.lake_m
    axis = (np.arange(side_px) + 0.5) * world.gsd_m - side_px * world.gsd_m / 2
    x, y = (axis - east) / half_width, (-axis - north) / half_height
    angle = np.arctan2(y[:, None], x[None, :])
    rng = np.random.default_rng([world.seed, 2])
    shore = np.ones_like(angle)
    for waves in (2, 3, 5, 9, 17):
        shore += _SHORE / math.sqrt(waves) * np.cos(waves * angle + rng.uniform(0, 2 * math.pi))
    return np.asarray(np.hypot(x[None, :], y[:, None]) < shore, np.bool_)


def _flood(picture: RGB, lake: Mask, world: World, view: View) -> None:
    """Paint the lake's water, its waves by the date."""
    rng = np.random.default_rng([world.seed, 3, view.year, view.light])
    size_m = world.size_m, world.size_m
    tag = f"waves {view.year} {view.light}"
    waves = np.float32(_WAVES) * fractal(world.seed, tag, size_m, world.gsd_m, _WAVE_M, 5)
    tone = _WATER * np.float32(rng.uniform(0.8, 1.25))
    picture[lake] = np.clip(tone + waves[lake][:, None], 0, 255).astype(np.uint8)


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.tif")) if path.is_dir() else [path]


def _name(world: World) -> str:
    fields = {k: v for k, v in dataclasses.asdict(world).items() if k in ("style", "seed")}
    return "landscape " + " ".join(map(str, fields.values()))
