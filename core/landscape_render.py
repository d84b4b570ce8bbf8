"""Pictures of a procedural landscape: one season, one year, one light, one sensor."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from .landscape_cover import (
    CoverTables,
    cover_tables,
    felled_parcels,
    flooded,
    foliage_opacity,
    leaf_tables,
    roof_tables,
    snow_cover,
)
from .landscape_noise import Float32, fractal, rng_for
from .landscape_palette import CAR_COLOURS
from .landscape_sensor import SENSORS, Light, draw_light, expose
from .landscape_world import CROWN_M, SCRUB, VERGE, WOOD, Bytes, Ints, World

_STRIP_PX = 1 << 17  # worked on at a time: bounds memory and stays in the cache
_ROOF_PITCH_RAD = math.radians(32)
_SHADE_RGB = np.array([0.90, 0.97, 1.12], np.float32)  # skylight is blue
_SNOW_RGB = np.array([232, 236, 242], np.float32)
_HEADLAND_M = 9  # machines turn here: rows run along the border
# How much grass takes the place of the crop, by whole metres from the border.
_MARGIN = np.zeros(256, np.float32)
_MARGIN[:3] = (0.8, 0.5, 0.15)


def render_scene(world: World, season: str, year: int, light_seed: int, sensor: str) -> Bytes:
    """Return the picture (H, W, 3) uint8 RGB; arguments are valid (see `render_world`)."""
    tables = cover_tables(world, season, year)
    light = draw_light(light_seed, season)
    roof_rgb, roof_m = roof_tables(world, year)
    surface, crown = _after_felling(world, year)
    surface = flooded(world, surface, season, year)
    brightness = _lighting(world, crown, roof_m, light, foliage_opacity(world, season))
    vigour = _vigour(world, season, year)
    leaf, opacity = leaf_tables(world, season, year)
    snow = snow_cover(world, season, year, light_seed)
    scene = np.empty((*world.surface.shape, 3), np.float32)
    rows = max(1, _STRIP_PX // scene.shape[1])
    for top in range(0, len(scene), rows):
        cut = slice(top, top + rows)
        strip = _ground(world, tables, surface[cut], cut, vigour[cut])
        _add_roofs(strip, world, roof_rgb, roof_m, cut)
        _add_crowns(strip, world, crown, leaf, opacity, cut)
        if snow is not None:
            strip += (_SNOW_RGB - strip) * snow[cut, :, None]
        shade = brightness[cut, :, None]
        strip *= shade + (1 - np.minimum(shade, 1)) * 0.45 * (_SHADE_RGB - 1)
        strip *= np.array(light.rgb, np.float32)
        scene[cut] = strip
    _add_cars(scene, world, year, light_seed)
    rng = rng_for(world.seed, "sensor", season, year, light_seed, sensor)
    return expose(scene, SENSORS[sensor], light.haze, rng)


def _vigour(world: World, season: str, year: int) -> npt.NDArray[np.float32]:
    """Return how well things grow this year, by place: noise of about unit variance."""
    side = len(world.surface) * world.gsd_m
    tag = f"vigour-{season}-{year}"
    return fractal(world.seed, tag, (side, side), world.gsd_m, 60, 3, 0.6)


def _after_felling(world: World, year: int) -> tuple[Ints, Bytes]:
    """Return surface and crowns without the woods felled by this year."""
    felled = felled_parcels(world, year)
    if not felled.any():
        return world.surface, world.crown
    bare = felled[world.parcel] & (world.surface == WOOD)
    return np.where(bare, np.int32(SCRUB), world.surface), np.where(bare, np.uint8(0), world.crown)


def _unit(layer: Bytes) -> Float32:
    """Return a noise layer of bytes as numbers of about unit variance."""
    noise = layer.astype(np.float32)
    noise -= 128
    noise *= np.float32(1 / 42)
    return noise


def _ground(world: World, tables: CoverTables, code: Ints, cut: slice, vigour: Float32) -> Float32:
    """Return the colours of the bare ground and what grows on it, (h, W, 3)."""
    soil_noise, fine = _unit(world.soil[cut]), _unit(world.fine[cut])
    patchy, grain = tables.patchy[code], tables.grain[code]
    rows, stripes = _row_pattern(world, tables, code, cut, vigour)
    share = tables.share[code]
    share += (0.28 * patchy) * (soil_noise + 0.6 * vigour)
    share += tables.rows[code] * rows
    share += grain * (0.5 * fine)
    np.clip(share, 0, 1, out=share)
    level = 1 + tables.stripes[code] * stripes
    level += 0.10 * patchy * soil_noise
    level += 0.7 * grain * fine
    soil, plant = tables.soil[code], tables.plant[code]
    margin = _MARGIN[world.border[cut]] * tables.margin[code]
    plant += (tables.plant[VERGE] - plant) * margin[..., None]
    np.maximum(share, margin, out=share)
    soil *= (1 + 0.09 * soil_noise)[..., None]
    plant -= soil
    plant *= share[..., None]
    plant += soil
    plant *= level[..., None]
    return plant


def _row_pattern(
    world: World, tables: CoverTables, code: Ints, cut: slice, vigour: Float32
) -> tuple[Float32, Float32]:
    """Return rows and machine passes, each -1..1; both follow the border on the headland."""
    height, width = code.shape
    column = np.arange(width, dtype=np.float32)
    row = np.arange(cut.start, cut.start + height, dtype=np.float32)[:, None]
    turned = world.border[cut] < _HEADLAND_M
    phases = []
    for wave in (tables.row_wave, tables.pass_wave):
        x, y = wave[:, 0][code], wave[:, 1][code]
        x, y = np.where(turned, -y, x), np.where(turned, x, y)
        phases.append(column * x + row * y)
    phase = phases[0] + 0.04 * vigour  # nobody drives quite straight
    rows = 1 - 4 * np.abs(phase - np.round(phase))
    band = np.floor(phases[1]).astype(np.int32)
    return rows.astype(np.float32), _hash(band * 7919 + code * 104729)


def _hash(values: npt.NDArray[np.int32]) -> Float32:
    """Return a number in -1..1 for each integer, well mixed."""
    table = rng_for(0, "hash").uniform(-1, 1, 1024).astype(np.float32)
    mixed: Float32 = table[(values ^ (values >> 9)) & 1023]
    return mixed


def _add_roofs(strip: Float32, world: World, colour: Float32, height: Float32, cut: slice) -> None:
    building = world.building[cut]
    if not building.any():
        return
    where = (building > 0) & (height[building] > 0)
    strip[where] = colour[building[where]]
    strip[where] *= (1 + 0.03 * (world.fine[cut][where].astype(np.float32) - 128) / 42)[:, None]


def _add_crowns(
    strip: Float32,
    world: World,
    crown: Bytes,
    leaf: Float32,
    opacity: Float32,
    cut: slice,
) -> None:
    height = crown[cut]
    if not height.any():
        return
    tone = world.tone[cut]
    fine = (world.fine[cut].astype(np.float32) - 128) * np.float32(1 / 42)
    # Edges of crowns are thin; twigs show as grain.
    cover = np.minimum(height.astype(np.float32) * np.float32(CROWN_M / 1.5), 1)
    cover *= opacity[tone] * (1 - 0.25 * (1 - opacity[tone]) * fine)
    shade = leaf[tone] * (1 + 0.09 * fine)[..., None]
    shade -= strip
    shade *= cover[..., None]
    strip += shade


def _lighting(
    world: World, crown: Bytes, roof_height: Float32, light: Light, opacity: float
) -> Float32:
    """Return how bright each pixel is lit, 1 on open flat ground in the sun.

    `opacity` is the share of light that foliage holds back.
    """
    roof = roof_height[world.building]
    soft_px = max(0.5, 0.5 / world.gsd_m)
    tree = np.asarray(cv2.GaussianBlur(crown.astype(np.float32), (0, 0), soft_px), np.float32)
    tree *= np.float32(CROWN_M)
    tree *= 1 + np.float32(0.12 / 42) * (world.fine.astype(np.float32) - 128)
    top = np.maximum(roof, tree)
    east = math.sin(light.azimuth_rad) * math.cos(light.elevation_rad)
    north = math.cos(light.azimuth_rad) * math.cos(light.elevation_rad)
    up = math.sin(light.elevation_rad)
    slope_e, slope_n = (
        cv2.resize(s, tree.shape[::-1], interpolation=cv2.INTER_LINEAR) for s in world.slope
    )
    # Crowns: half the geometric slope, as light passes through leaves.
    steep = np.float32(0.5 / (2 * world.gsd_m))
    slope_e[:, 1:-1] += (tree[:, 2:] - tree[:, :-2]) * steep
    slope_n[1:-1] += (tree[:-2] - tree[2:]) * steep
    facing = up - slope_e * np.float32(east) - slope_n * np.float32(north)
    facing /= np.sqrt(1 + slope_e**2 + slope_n**2) * np.float32(up)
    np.clip(facing, 0, 1.8, out=facing)
    sunlit = roof > 0
    if sunlit.any():
        pitched = math.cos(_ROOF_PITCH_RAD) * up
        azimuth = (np.arange(256) - 1) / 254 * 2 * math.pi
        lean = math.sin(_ROOF_PITCH_RAD) * math.cos(light.elevation_rad)
        faces = (pitched + lean * np.cos(azimuth - light.azimuth_rad)) / up
        faces[0] = 1.0
        facing[sunlit] = np.clip(faces, 0.1, 1.7).astype(np.float32)[world.aspect[sunlit]]
    shadow = cast_shadow(top, world.gsd_m, light)
    if opacity < 1:
        shadow *= np.float32(opacity)
        if sunlit.any():
            np.maximum(shadow, cast_shadow(roof, world.gsd_m, light), out=shadow)
    facing *= 1 - shadow
    facing *= np.float32(light.direct)
    facing += np.float32(1 - light.direct)
    return np.asarray(facing, np.float32)


def cast_shadow(top: Float32, gsd_m: float, light: Light) -> Float32:
    """Return (H, W) 0 in the sun to 1 in the shadow of what stands `top` metres high (H, W).

    A ray that grazes a top sinks by the tangent of the sun's elevation on its way. The highest
    ray over a pixel is found by doubling: rays from up to 2^k steps towards the sun are the best
    of those from up to 2^(k-1) steps, and the same moved 2^(k-1) steps.
    """
    sink = math.tan(light.elevation_rad)
    east, south = math.sin(light.azimuth_rad), -math.cos(light.azimuth_rad)
    reach_px = float(top.max()) / sink / gsd_m
    ray = top.copy()
    step = 1
    while step <= max(1.0, reach_px):
        dx, dy = round(step * east), round(step * south)
        fall = np.float32(math.hypot(dx, dy) * gsd_m * sink)
        (to_y, from_y), (to_x, from_x) = _overlap(dy, len(top)), _overlap(dx, top.shape[1])
        if fall > 0:
            moved = ray[from_y, from_x] - fall
            np.maximum(ray[to_y, to_x], moved, out=ray[to_y, to_x])
        step *= 2
    ray -= top
    ray *= np.float32(1 / 0.7)  # penumbra and the soft edge of leaves, metres of height
    np.clip(ray, 0, 1, out=ray)
    return ray


def _overlap(shift: int, length: int) -> tuple[slice, slice]:
    """Return where pixels lie and where those `shift` further on lie."""
    shift = max(-length, min(length, shift))
    if shift >= 0:
        return slice(0, length - shift), slice(shift, length)
    return slice(-shift, length), slice(0, length + shift)


def _add_cars(scene: Float32, world: World, year: int, light_seed: int) -> None:
    """Draw the cars of the moment."""
    rng = rng_for(world.seed, "cars", year, light_seed)
    count = len(world.cars)
    here = rng.random(count) < rng.uniform(0.15, 0.6)
    colour = rng.integers(0, len(CAR_COLOURS), count)
    half = np.array([[-2.2, -0.9], [2.2, -0.9], [2.2, 0.9], [-2.2, 0.9]]) / world.gsd_m
    for (column, row, angle), paint in zip(world.cars[here], colour[here], strict=True):
        c, s = math.cos(angle), math.sin(angle)
        box = half @ np.array([[c, -s], [s, c]]) + (column, row)
        cv2.fillConvexPoly(
            scene, np.round(box * 16).astype(np.int32), CAR_COLOURS[paint], cv2.LINE_8, 4
        )
