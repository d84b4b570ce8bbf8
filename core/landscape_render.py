"""Pictures of a procedural landscape: one season, one year, one light, one sensor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .landscape_noise import Float32, fractal, rng_for
from .landscape_palette import (
    BROADLEAF, BROADLEAF_OPACITY, CAR_COLOURS, CONIFER, CROPS, KINDS, PERMANENT_CROPS, ROOFS,
    SEASONS, SURFACES, Cover,
)  # fmt: skip
from .landscape_sensor import SENSORS, Light, draw_light, expose
from .landscape_world import CROWN_M, PARCEL, WOOD, World

_STRIP_ROWS = 256  # rows worked on at a time: bounds memory and stays in the cache
_ROOF_PITCH_RAD = math.radians(32)
_FIRST_YEAR, _LAST_YEAR = -12, 12  # years over which buildings come and go
_SHADE_RGB = np.array([0.90, 0.97, 1.12], np.float32)  # skylight is blue


@dataclass(frozen=True)
class _Tables:
    """One row per surface code, then one per parcel (see PARCEL)."""

    soil: Float32
    plant: Float32
    share: Float32
    rows: Float32
    stripes: Float32
    patchy: Float32
    grain: Float32
    wave: Float32  # (N, 2) east and south part of the rows' wave vector, cycles per pixel
    pass_: Float32  # (N, 2) the same of machine passes
    cleared: npt.NDArray[np.bool_]


def render_scene(
    world: World, season: str, year: int, light_seed: int, sensor: str
) -> npt.NDArray[np.uint8]:
    """Return the picture (H, W, 3) uint8 RGB; arguments are valid (see `render_world`)."""
    tables = _tables(world, season, year)
    light = draw_light(light_seed, season)
    roofs, stands = _roofs(world, year, light)
    crown = world.crown
    if tables.cleared.any():
        crown = np.where(tables.cleared[world.parcel] & (world.surface == WOOD), 0, crown)
        crown = crown.astype(np.uint8)
    brightness = _lighting(world, crown, stands, light)
    vigour = _vigour(world, season, year)
    scene = np.empty((*world.surface.shape, 3), np.float32)
    leaf, opacity = _leaves(world, season, year)
    snow = _snow(world, season, year, light_seed)
    for top in range(0, len(scene), _STRIP_ROWS):
        cut = slice(top, top + _STRIP_ROWS)
        strip = _ground(world, tables, cut, vigour[cut])
        _add_roofs(strip, world, roofs, stands, cut)
        _add_crowns(strip, world, crown, leaf, opacity, cut)
        if snow is not None:
            strip += (np.array([232, 236, 242], np.float32) - strip) * snow[cut, :, None]
        shade = brightness[cut, :, None]
        strip *= shade + (1 - np.minimum(shade, 1)) * 0.45 * (_SHADE_RGB - 1)
        strip *= np.array(light.rgb, np.float32)
        scene[cut] = strip
    _add_cars(scene, world, year, light_seed)
    rng = rng_for(world.seed, "sensor", season, year, light_seed, sensor)
    return expose(scene, SENSORS[sensor], light.haze, rng)


def _tables(world: World, season: str, year: int) -> _Tables:
    """Decide what grows where in this season and year."""
    style, index = world.style, SEASONS.index(season)
    always, yearly = rng_for(world.seed, "parcels"), rng_for(world.seed, "year", year)
    count = len(world.parcels)
    fixed, moving = always.random((count, 8)), yearly.random((count, 10))
    tint, shift = always.normal(0, 1, (count, 3)), yearly.normal(0, 1, (count, 3))
    covers: list[Cover] = [SURFACES.get(code, KINDS["scrub"])[index] for code in range(PARCEL)]
    base = np.array([c.rgb for c in covers], np.float64)
    rows_m, angle = np.full(PARCEL, 1e3), np.zeros(PARCEL)
    rgb, spacing, heading = [base], [rows_m], [angle]
    colour, gaps, turns = np.empty((count, 3)), np.empty(count), np.empty(count)
    for k, parcel in enumerate(world.parcels):
        cover, gaps[k], turn = _parcel_cover(world, k, fixed[k], moving[k], index, year)
        covers.append(cover)
        wobble = 0.05 if parcel.town else 0.07
        colour[k] = np.array(cover.rgb) * (
            1 + wobble * shift[k].mean() * 1.4 + 0.02 * shift[k] + 0.025 * tint[k]
        )
        turns[k] = parcel.angle_rad + turn
    rgb.append(colour), spacing.append(gaps), heading.append(turns)
    plant = np.concatenate(rgb)
    dry = np.array([120, 108, 72]) * 1.25
    parched = style.dry * {"spring": 0.35, "summer": 0.8, "autumn": 0.7, "winter": 0.45}[season]
    green = np.clip((plant[:, 1] - plant[:, [0, 2]].max(axis=1)) / 20, 0, 1)[:, None]
    natural = np.array([c in (_G := KINDS["pasture"][index], KINDS["scrub"][index]) for c in covers])
    plant += natural[:, None] * green * parched * (dry - plant)
    soil = np.tile(np.array(style.soil), (len(plant), 1))
    soil[PARCEL:] *= 1 + 0.05 * tint[:, :1] + 0.015 * tint + 0.04 * shift[:, :1]

    def column(name: str) -> Float32:
        return np.array([getattr(c, name) for c in covers], np.float32)

    angles, gap = np.concatenate(heading), np.concatenate(spacing)
    # Across the rows: east is +column, north is -row.
    across = np.stack([-np.sin(angles), -np.cos(angles)], axis=1)
    visible = np.clip(1.6 - 3.2 * world.gsd_m / gap, 0, 1)  # rows finer than the pixels vanish
    broad = np.concatenate([np.full(PARCEL, 8.0), 4 + 14 * moving[:, 7]])
    return _Tables(
        soil.astype(np.float32),
        plant.astype(np.float32),
        column("share"),
        (column("rows") * visible).astype(np.float32),
        column("stripes"),
        column("patchy") * np.float32(style.patchy),
        column("grain"),
        (across * (world.gsd_m / gap)[:, None]).astype(np.float32),
        (across * (world.gsd_m / broad)[:, None]).astype(np.float32),
        _cleared(world, year),
    )


def _parcel_cover(
    world: World,
    number: int,
    fixed: npt.NDArray[np.float64],
    moving: npt.NDArray[np.float64],
    season: int,
    year: int,
) -> tuple[Cover, float, float]:
    """Return what covers a parcel, the spacing of its rows (m) and their turn (rad)."""
    kind = world.parcels[number].kind
    if kind != "crop":
        spacing = {"solar": 6.0, "yard": 60.0}.get(kind, 3.0)
        return KINDS[kind][season], spacing, 0.0
    crops = world.style.crops
    crop = crops[int(fixed[0] * len(crops))]
    if crop not in PERMANENT_CROPS and year != 0:
        rotating = [c for c in crops if c not in PERMANENT_CROPS]
        crop = rotating[int(moving[0] * len(rotating))] if rotating else crop
        turn = math.pi / 2 if moving[1] < 0.15 else 0.0
    else:
        turn = math.pi / 2 if fixed[1] < 0.15 else 0.0
    spacing = 2.0 + 1.2 * fixed[2] if crop == "vineyard" else 1.2 + 2.6 * moving[2] ** 2
    # Neighbours work at different times: some fields are a season's step ahead or behind.
    step = season
    if moving[3] < 0.10:
        step = (season + 1) % 4
    elif moving[3] < 0.20:
        step = (season - 1) % 4
    return CROPS[crop][step], spacing, turn


def _cleared(world: World, year: int) -> npt.NDArray[np.bool_]:
    """Say in which parcels the trees have been felled by this year."""
    when = rng_for(world.seed, "cleared").random(len(world.parcels))
    span = (year - _FIRST_YEAR) / (_LAST_YEAR - _FIRST_YEAR)
    felled: npt.NDArray[np.bool_] = (when < 0.12) & (when / 0.12 < span)
    return felled


def _roofs(world: World, year: int, light: Light) -> tuple[Float32, Float32]:
    """Return colours (N+1, 3) and heights (N+1,) of buildings; height 0 where none stands."""
    count = len(world.buildings)
    rng = rng_for(world.seed, "buildings")
    built, gone = rng.random((2, count))
    span = (year - _FIRST_YEAR) / (_LAST_YEAR - _FIRST_YEAR)
    # One in eight is built, one in sixteen pulled down over the years.
    here = ~((built < 0.12) & (built / 0.12 > span)) & ~((gone < 0.06) & (gone / 0.06 < span))
    tint = 1 + 0.10 * rng.standard_normal((count, 1)) + 0.03 * rng.standard_normal((count, 3))
    colour = np.zeros((count + 1, 3), np.float32)
    height = np.zeros(count + 1, np.float32)
    if count:
        colour[1:] = np.array([ROOFS[b.roof] for b in world.buildings]) * tint
        height[1:] = np.array([b.height_m for b in world.buildings]) * here
    return colour, height


def _vigour(world: World, season: str, year: int) -> npt.NDArray[np.float32]:
    """Return how well things grow this year, by place: noise of about unit variance."""
    side = len(world.surface) * world.gsd_m
    tag = f"vigour-{season}-{year}"
    return fractal(world.seed, tag, (side, side), world.gsd_m, 60, 3, 0.6)


def _ground(world: World, tables: _Tables, cut: slice, vigour: Float32) -> Float32:
    """Return the colours of the bare ground and what grows on it, (h, W, 3)."""
    code = world.surface[cut]
    soil_noise = (world.soil[cut].astype(np.float32) - 128) * np.float32(1 / 42)
    fine = (world.fine[cut].astype(np.float32) - 128) * np.float32(1 / 42)
    height, width = code.shape
    column = np.arange(width, dtype=np.float32)
    row = np.arange(cut.start, cut.start + height, dtype=np.float32)[:, None]
    wave, pass_ = tables.wave[code], tables.pass_[code]
    phase = column * wave[..., 0] + row * wave[..., 1] + 0.04 * vigour
    rows = 1 - 4 * np.abs(phase - np.round(phase))
    band = np.floor(column * pass_[..., 0] + row * pass_[..., 1]).astype(np.int32)
    stripes = _hash(band * 7919 + code * 104729)
    patchy, grain = tables.patchy[code], tables.grain[code]
    mixture = soil_noise + 0.6 * vigour
    share = tables.share[code] + 0.28 * patchy * mixture + tables.rows[code] * rows
    share += grain * 0.5 * fine
    np.clip(share, 0, 1, out=share)
    level = 1 + tables.stripes[code] * stripes + 0.10 * patchy * soil_noise + 0.6 * grain * fine
    soil, plant = tables.soil[code], tables.plant[code]
    soil *= (1 + 0.09 * soil_noise)[..., None]
    plant -= soil
    plant *= share[..., None]
    plant += soil
    plant *= level[..., None]
    return plant


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


def _leaves(world: World, season: str, year: int) -> tuple[Float32, Float32]:
    """Return colours (256, 3) and opacities (256,) of tree tones."""
    index = SEASONS.index(season)
    mix = rng_for(world.seed, "leaves").random((256, 1))
    low, high = (np.array(c) for c in BROADLEAF[index])
    leaf = low + (high - low) * mix
    opacity = np.full(256, BROADLEAF_OPACITY[index])
    first = 256 - int(255 * world.style.conifer)
    low, high = (np.array(c) for c in CONIFER)
    leaf[first:] = low + (high - low) * mix[first:]
    opacity[first:] = 1.0
    leaf += world.style.dry * 0.35 * (np.array([104, 104, 74]) - leaf)
    leaf *= 1 + 0.04 * rng_for(world.seed, "leaf-year", season, year).standard_normal(3)
    return leaf.astype(np.float32), opacity.astype(np.float32)


def _add_crowns(
    strip: Float32,
    world: World,
    crown: npt.NDArray[np.uint8],
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
    world: World, crown: npt.NDArray[np.uint8], roof_height: Float32, light: Light
) -> Float32:
    """Return how bright each pixel is lit, 1 on open flat ground in the sun."""
    roof = roof_height[world.building]
    tree = cv2.GaussianBlur(crown.astype(np.float32), (0, 0), max(0.5, 0.5 / world.gsd_m))
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
    shadow = _shadow(top, world.gsd_m, light)
    facing *= 1 - shadow
    facing *= np.float32(light.direct)
    facing += np.float32(1 - light.direct)
    return facing


def _shadow(top: Float32, gsd_m: float, light: Light) -> Float32:
    """Return 0 in the sun to 1 in the shadow of what stands on the ground.

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


def _snow(world: World, season: str, year: int, light_seed: int) -> Float32 | None:
    """Return the snow cover 0..1 on some winter days, patchy, else None."""
    rng = rng_for(world.seed, "snow", year, light_seed)
    if season != "winter" or world.style.dry > 0.5 or rng.random() > 0.2:
        return None
    depth = rng.uniform(-0.6, 1.2)
    patches = (world.soil.astype(np.float32) - 128) / 42 + depth
    patches += 0.4 * (world.fine.astype(np.float32) - 128) / 42
    return np.clip(patches, 0, 1) * np.float32(0.85)


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

