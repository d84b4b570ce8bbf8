"""What covers a procedural landscape in one season of one year: crops, leaves, roofs, snow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .landscape_noise import Float32, Floats, rng_for
from .landscape_palette import (
    BROADLEAF,
    BROADLEAF_OPACITY,
    CONIFER,
    CROPS,
    KINDS,
    PERMANENT_CROPS,
    ROOFS,
    SEASONS,
    SURFACES,
    Cover,
)
from .landscape_world import (
    BASIN,
    LAKE_DARK,
    LAKE_GREEN,
    MARSH,
    MUD,
    PARCEL,
    WATER,
    Ints,
    World,
    first_conifer_tone,
)  # fmt: skip

Mask = npt.NDArray[np.bool_]

FIRST_YEAR, LAST_YEAR = -12, 12  # years over which buildings and woods come and go
_PARCHED = {"spring": 0.35, "summer": 0.8, "autumn": 0.7, "winter": 0.45}
_PARCHED_RGB = np.array([150, 135, 92])
_LEVEL = {"spring": 0.0, "summer": 0.1, "autumn": 0.15, "winter": 0.05}  # how far below the brim
_RIM = 0.09
_LAKES = (WATER, LAKE_GREEN, LAKE_DARK)  # in the order of the marshes
_GREEN_KINDS = frozenset({"pasture", "orchard", "garden", "lawn", "scrub", "wood"})


@dataclass(frozen=True)
class CoverTables:
    """One row per surface code, then one per parcel (from PARCEL on).

    Attributes:
        soil: (N, 3) float32, colour of the bare ground.
        plant: (N, 3) float32, colour of what grows there.
        share: (N,) float32, share of the ground it covers.
        rows: (N,) float32, how strongly rows show.
        stripes: (N,) float32, how strongly machine passes show.
        patchy: (N,) float32, how strongly soil patches show.
        grain: (N,) float32, strength of fine texture.
        margin: (N,) float32, 1 where a grassy margin runs along the border.
        row_wave: (N, 2) float32, rows per pixel of column and of row.
        pass_wave: (N, 2) float32, machine passes per pixel of column and of row.
    """

    soil: Float32
    plant: Float32
    share: Float32
    rows: Float32
    stripes: Float32
    patchy: Float32
    grain: Float32
    margin: Float32
    row_wave: Float32
    pass_wave: Float32


@dataclass(frozen=True)
class _Sown:
    """What covers one parcel, spacing of its rows (m), their turn from its direction (rad)."""

    cover: Cover
    spacing_m: float
    turn_rad: float


def years_gone(year: int) -> float:
    """Return the share of the recorded years that have passed, 0 to 1 inside them."""
    return (year - FIRST_YEAR) / (LAST_YEAR - FIRST_YEAR)


def cover_tables(world: World, season: str, year: int) -> CoverTables:
    """Decide what grows where in this season and year."""
    index = SEASONS.index(season)
    count = len(world.parcels)
    always, yearly = rng_for(world.seed, "parcels"), rng_for(world.seed, "year", year)
    fixed, moving = always.random((count, 4)), yearly.random((count, 6))
    tint, shift = always.normal(0, 1, (count, 3)), yearly.normal(0, 1, (count, 3))
    sown = [_sow(world, k, fixed[k], moving[k], index, year) for k in range(count)]
    covers = [SURFACES.get(code, KINDS["scrub"])[index] for code in range(PARCEL)]
    covers += [s.cover for s in sown]
    plant = _plant_colours(world, season, covers, tint, shift)
    soil = np.tile(np.array(world.style.soil), (len(covers), 1))
    soil[PARCEL:] *= 1 + 0.05 * tint[:, :1] + 0.015 * tint + 0.04 * shift[:, :1]
    spacing = np.concatenate([np.full(PARCEL, 1e3), [s.spacing_m for s in sown]])
    turns = [p.angle_rad + s.turn_rad for p, s in zip(world.parcels, sown, strict=True)]
    angles = np.concatenate([np.zeros(PARCEL), turns])
    across = np.stack([-np.sin(angles), -np.cos(angles)], axis=1)  # east is +x, north is -y
    visible = np.clip(1.6 - 3.2 * world.gsd_m / spacing, 0, 1)  # rows finer than pixels vanish
    passes = np.concatenate([np.full(PARCEL, 8.0), 4 + 14 * moving[:, 4]])
    crop = [p.kind == "crop" for p in world.parcels]

    def column(name: str) -> Float32:
        return np.array([getattr(c, name) for c in covers], np.float32)

    return CoverTables(
        soil=soil.astype(np.float32),
        plant=plant,
        share=column("share"),
        rows=(column("rows") * visible).astype(np.float32),
        stripes=column("stripes"),
        patchy=column("patchy") * np.float32(world.style.patchy),
        grain=column("grain"),
        margin=np.array([False] * PARCEL + crop, np.float32),
        row_wave=(across * (world.gsd_m / spacing)[:, None]).astype(np.float32),
        pass_wave=(across * (world.gsd_m / passes)[:, None]).astype(np.float32),
    )


def _plant_colours(
    world: World, season: str, covers: list[Cover], tint: Floats, shift: Floats
) -> Float32:
    """Return the plants' colours (N, 3): parched where the country is dry, no two fields alike."""
    plant = np.array([c.rgb for c in covers], np.float64)
    town = np.array([p.town for p in world.parcels])
    wobble = np.where(town, 0.07 * tint[:, 0], 0.09 * shift[:, 0])
    plant[PARCEL:] *= 1 + wobble[:, None] + 0.02 * shift + 0.02 * tint
    green = np.array([p.kind in _GREEN_KINDS for p in world.parcels])
    parched = np.concatenate([np.full(PARCEL, 0.0), green * (1 + 0.3 * tint[:, 1])])
    for code, kinds in SURFACES.items():
        parched[code] = float(kinds in (KINDS["pasture"], KINDS["scrub"]))
    parched *= world.style.dry * _PARCHED[season]
    plant += parched.clip(0, 1)[:, None] * (_PARCHED_RGB - plant)
    water = rng_for(world.seed, "water").uniform(0, 1, 2)
    silt = np.array([30, 18, 0]) * water[0] + np.array([-20, -8, 6]) * water[1]
    plant[WATER] += silt + 4 * rng_for(world.seed, "water", season).standard_normal(3)
    return plant.clip(4, 250).astype(np.float32)


def _sow(world: World, number: int, fixed: Floats, moving: Floats, season: int, year: int) -> _Sown:
    """Return what covers a parcel: the use it keeps, or the crop of the year."""
    kind = world.parcels[number].kind
    if kind != "crop":
        spacing = {"solar": 6.0, "yard": 60.0}.get(kind, 3.0)
        return _Sown(KINDS[kind][season], spacing, 0.0)
    crops = world.style.crops
    crop, draw = crops[int(fixed[0] * len(crops))], fixed
    rotating = [c for c in crops if c not in PERMANENT_CROPS]
    if year != 0 and crop in rotating:
        crop, draw = rotating[int(moving[0] * len(rotating))], moving
    spacing = 2.0 + 1.2 * fixed[2] if crop == "vineyard" else 1.2 + 2.6 * draw[2] ** 2
    # Neighbours work at different times: some fields are a season's step ahead or behind.
    step = season
    if crop not in PERMANENT_CROPS and moving[3] < 0.2:
        step = (season + (1 if moving[3] < 0.1 else -1)) % 4
    return _Sown(CROPS[crop][step], float(spacing), math.pi / 2 if draw[1] < 0.15 else 0.0)


def felled_parcels(world: World, year: int) -> Mask:
    """Say in which parcels the trees of woods have been felled by this year."""
    when = rng_for(world.seed, "cleared").random(len(world.parcels))
    felled: Mask = (when < 0.12) & (when / 0.12 < years_gone(year))
    return felled


def flooded(world: World, surface: Ints, season: str, year: int) -> Ints:
    """Return the surface with lakes as high as they stand in this season of this year.

    Around them lies a rim of mud, beyond it marsh.
    """
    if world.basin is None:
        return surface
    level = rng_for(world.seed, "level", year).uniform(0.0, 0.4) + _LEVEL[season]
    depth = world.basin.astype(np.float32) * np.float32(BASIN) - np.float32(level)
    kind = surface - MARSH
    marsh = (kind >= 0) & (kind < len(_LAKES))
    lakes = np.array(_LAKES, np.int32)[np.clip(kind, 0, len(_LAKES) - 1)]
    rimmed = np.where(marsh & (depth > -_RIM), np.int32(MUD), surface)
    return np.where(marsh & (depth > 0), lakes, rimmed).astype(np.int32)


def roof_tables(world: World, year: int) -> tuple[Float32, Float32]:
    """Return colours (N+1, 3) and heights (N+1,) of buildings; height 0 where none stands.

    Over the recorded years one in eight is built and one in sixteen pulled down.
    """
    count = len(world.buildings)
    rng = rng_for(world.seed, "buildings")
    built, gone = rng.random((2, count))
    span = years_gone(year)
    here = ~((built < 0.12) & (built / 0.12 > span)) & ~((gone < 0.06) & (gone / 0.06 < span))
    own = np.array([not b.on_roof for b in world.buildings], bool)
    here = here[np.maximum.accumulate(np.where(own, np.arange(count), 0))]
    tint = 1 + 0.10 * rng.standard_normal((count, 1)) + 0.02 * rng.standard_normal((count, 3))
    colour = np.zeros((count + 1, 3), np.float32)
    height = np.zeros(count + 1, np.float32)
    if count:
        colour[1:] = np.array([ROOFS[b.roof] for b in world.buildings]) * tint
        height[1:] = np.array([b.height_m for b in world.buildings]) * here
    return colour, height


def leaf_tables(world: World, season: str, year: int) -> tuple[Float32, Float32]:
    """Return colours (256, 3) and opacities (256,) of tree tones."""
    index = SEASONS.index(season)
    mix = rng_for(world.seed, "leaves").random((256, 1))
    low, high = (np.array(c) for c in BROADLEAF[index])
    leaf = low + (high - low) * mix
    opacity = np.full(256, BROADLEAF_OPACITY[index])
    first = first_conifer_tone(world.style)
    low, high = (np.array(c) for c in CONIFER)
    leaf[first:] = low + (high - low) * mix[first:]
    opacity[first:] = 1.0
    leaf += world.style.dry * 0.35 * (np.array([104, 104, 74]) - leaf)
    leaf *= 1 + 0.04 * rng_for(world.seed, "leaf-year", season, year).standard_normal(3)
    return leaf.astype(np.float32), opacity.astype(np.float32)


def foliage_opacity(world: World, season: str) -> float:
    """Return how much light the country's trees hold back, 0 to 1."""
    bare = 1 - BROADLEAF_OPACITY[SEASONS.index(season)]
    return 1 - bare * (1 - world.style.conifer)


def snow_cover(world: World, season: str, year: int, light_seed: int) -> Float32 | None:
    """Return the snow cover (H, W) in 0..1 of some winter days, patchy; else None."""
    rng = rng_for(world.seed, "snow", year, light_seed)
    if season != "winter" or world.style.dry > 0.5 or rng.random() > 0.2:
        return None
    depth = rng.uniform(-0.9, 0.7)
    patches = (world.soil.astype(np.float32) - 128) * np.float32(1 / 42) + np.float32(depth)
    patches += (world.fine.astype(np.float32) - 128) * np.float32(0.4 / 42)
    np.clip(patches, 0, 1, out=patches)
    patches *= np.float32(0.8)
    return patches
