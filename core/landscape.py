"""A procedural landscape: georeferenced ground for where no imagery is at hand.

The same seed is always the same ground; season, year, light and sensor change how it looks, as
they do between the flight that made a map and the flight that uses it.
"""

from __future__ import annotations

import difflib
import math

import numpy as np
import numpy.typing as npt

from .errors import InputError
from .geo import LocalFrame
from .ground import ArrayGround
from .landscape_archetypes import HELD_OUT
from .landscape_buildings import parked_cars, put_up_buildings
from .landscape_cover import FIRST_YEAR, LAST_YEAR
from .landscape_ground import lay_ground
from .landscape_palette import SEASONS
from .landscape_plan import Planner
from .landscape_render import render_scene
from .landscape_sensor import SENSORS
from .landscape_style import STYLES, draw_style
from .landscape_trees import plant_trees
from .landscape_world import (
    Canvas,
    World,
    border_distance,
    coarse_slope,
    texture,
)

__all__ = [
    "FIRST_YEAR", "HELD_OUT", "LAST_YEAR", "SEASONS", "SENSORS", "STYLES", "World", "make_world",
    "open_landscape", "render_world",
]  # fmt: skip

MAX_SIDE_PX = 16384
MAX_SEED = 2**32 - 1
_MAX_LAT_DEG = 85  # towards the poles a box of degrees describes no square
_ANY_STYLE = "any"
_DEFAULTS: dict[str, str] = {
    "seed": "7", "size_m": "2000", "gsd_m": "0.5", "season": "summer", "year": "0", "light": "0",
    "sensor": "a", "lat": "47", "lon": "8", "style": _ANY_STYLE,
}  # fmt: skip


def make_world(seed: int, size_m: float, gsd_m: float, style_name: str | None = None) -> World:
    """Make the ground of a seed: a square of `size_m` metres at `gsd_m` metres per pixel.

    Args:
        seed: what the ground is drawn from.
        size_m: side of the square.
        gsd_m: size of a pixel.
        style_name: one of STYLES; default: the seed chooses among the first of them.

    Raises:
        InputError: a value is out of range, or no such style.
    """
    _check_world(seed, size_m, gsd_m)
    if style_name is not None and style_name not in STYLES:
        raise InputError(f"landscape: {_unknown('style', style_name, STYLES)}")
    style = draw_style(seed, style_name)
    canvas = Canvas(seed, size_m, gsd_m, style, Planner(seed, size_m, style).run())
    lay_ground(canvas)
    buildings = put_up_buildings(canvas)
    plant_trees(canvas)
    soil, fine = texture(canvas)
    return World(
        seed=seed,
        size_m=size_m,
        gsd_m=gsd_m,
        style=style,
        parcels=tuple(canvas.plan.parcels),
        parcel=canvas.parcel,
        surface=canvas.surface,
        border=border_distance(canvas.parcel, gsd_m),
        building=canvas.building,
        buildings=buildings,
        aspect=canvas.aspect,
        crown=canvas.crown,
        tone=canvas.tone,
        soil=soil,
        fine=fine,
        slope=coarse_slope(canvas),
        cars=parked_cars(canvas),
        basin=canvas.basin,
    )


def render_world(
    world: World, season: str, year: int, light_seed: int, sensor: str
) -> npt.NDArray[np.uint8]:
    """Return the world's picture (H, W, 3) uint8 RGB; the same arguments give the same bytes.

    Args:
        world: the ground.
        season: spring, summer, autumn or winter.
        year: crops rotate from year to year, and a few buildings and woods come and go.
        light_seed: draws the sun's place, cloud and haze.
        sensor: a letter, see `SENSORS`.

    Raises:
        InputError: unknown season or sensor, or a negative light seed.
    """
    _check_view(season, light_seed, sensor)
    return render_scene(world, season, year, light_seed, sensor)


def open_landscape(source: str) -> ArrayGround:
    """Open `landscape[:key=value,…]` with keys seed, size_m, gsd_m, season, year, light, sensor,
    lat, lon (the centre, WGS84 degrees), style.

    Raises:
        InputError: an unknown key or a bad value; the message names the legal ones.
    """
    values = _parse(source)
    lat, lon = _number(values, "lat"), _number(values, "lon")
    if not (abs(lat) <= _MAX_LAT_DEG and abs(lon) <= 180):
        raise InputError(
            f"landscape lat={lat:g},lon={lon:g}: expected latitude -{_MAX_LAT_DEG} to "
            f"{_MAX_LAT_DEG} and longitude -180 to 180 degrees"
        )
    season, sensor = values["season"], values["sensor"]
    year, light = _integer(values, "year"), _integer(values, "light")
    _check_view(season, light, sensor)  # before the long work
    style = None if values["style"] == _ANY_STYLE else values["style"]
    world = make_world(
        _integer(values, "seed"), _number(values, "size_m"), _number(values, "gsd_m"), style
    )
    picture = render_world(world, season, year, light, sensor)
    return _ground(source, LocalFrame(lat, lon), world, picture)


def _ground(
    source: str, frame: LocalFrame, world: World, picture: npt.NDArray[np.uint8]
) -> ArrayGround:
    half = len(picture) * world.gsd_m / 2
    return ArrayGround(
        picture,
        np.ones(picture.shape[:2], np.bool_),
        frame,
        -half,
        half,
        world.gsd_m,
        name=source,
        attribution="procedural landscape, s4g",
    )


def _parse(source: str) -> dict[str, str]:
    values = dict(_DEFAULTS)
    text = source.partition(":")[2]
    for part in text.split(",") if text else []:
        key, equals, value = part.partition("=")
        if key in values and not value:
            raise InputError(f"{source}: {key} has no value; write {key}={_DEFAULTS[key]}")
        if key not in values or not equals:
            raise InputError(f"{source}: {_unknown('key', key, tuple(_DEFAULTS))}")
        values[key] = value
    return values


def _unknown(what: str, seen: str, legal: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(seen, legal, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown {what} {seen!r}; {hint}legal: {', '.join(legal)}"


def _number(values: dict[str, str], key: str) -> float:
    try:
        value = float(values[key])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"landscape {key}={values[key]}: expected a number")
    return value


def _integer(values: dict[str, str], key: str) -> int:
    try:
        return int(values[key])
    except ValueError:
        raise InputError(f"landscape {key}={values[key]}: expected a whole number") from None


def _check_view(season: str, light_seed: int, sensor: str) -> None:
    if season not in SEASONS:
        raise InputError(f"landscape: {_unknown('season', season, SEASONS)}")
    if sensor not in SENSORS:
        raise InputError(f"landscape: {_unknown('sensor', sensor, tuple(SENSORS))}")
    if not 0 <= light_seed <= MAX_SEED:
        raise InputError(f"landscape light={light_seed}: expected 0 to {MAX_SEED}")


def _check_world(seed: int, size_m: float, gsd_m: float) -> None:
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"landscape seed={seed}: expected 0 to {MAX_SEED}")
    if not 0.05 <= gsd_m <= 20:
        raise InputError(f"landscape gsd_m={gsd_m:g}: expected 0.05 to 20 metres per pixel")
    if not 32 <= size_m / gsd_m <= MAX_SIDE_PX:
        raise InputError(
            f"landscape size_m={size_m:g} at gsd_m={gsd_m:g}: {size_m / gsd_m:.0f} pixels a side, "
            f"expected 32 to {MAX_SIDE_PX}"
        )
