"""What makes one procedural country look unlike another: its style, drawn from the seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .landscape_archetypes import ARCHETYPES, COMMON, KITS, NAMED, RGB, SOILS
from .landscape_noise import rng_for


@dataclass(frozen=True)
class Style:
    """Parameters of a landscape.

    Attributes:
        name: the archetype it was drawn from.
        theta_rad: direction of the parcel grid.
        warp_m: how far the grid is bent out of straight, metres.
        field_m2: median field area.
        field_spread: standard deviation of the logarithm of field area.
        skew: how far a dividing line may leave the perpendicular, share of a side.
        strip: longest field side over the shortest before it must be cut across.
        lane_m2: blocks above this area are bounded by paved lanes.
        track_m2: blocks above this area are bounded by tracks.
        hedge: share of field borders with hedge or tree row.
        town: share of the ground that is settlement.
        plot_m: frontage of a house plot, metres.
        industry: share of town blocks with large buildings.
        wood: share of the ground under woods of natural outline.
        wood_field: share of fields that are woods.
        trees_ha: single trees per hectare of open ground.
        orchard: share of fields with orchards.
        farm: share of fields with a farmstead.
        pivot: share of fields watered by a centre pivot.
        scrub: share of fields left to scrub and rock.
        pasture: share of fields that are permanent grass.
        river: probability of a river.
        river_m: width of the river, metres.
        pond: share of fields with a pond.
        highway: probability of a main road of its own line.
        relief: strength of terrain shading.
        patchy: strength of soil patches.
        dry: 0 lush to 1 parched.
        conifer: share of evergreen trees.
        crown_m: mean crown diameter, metres.
        soil: colour of bare soil, 8-bit RGB.
        crops: names of the crops in rotation.
        roofs: names of roof colours, the common ones repeated.
        pool: share of gardens with a pool.
        regular: 0 fields of any size to 1 land cut into exact halves.
        basin: share of the ground under lakes and marsh whose level changes.
        bare: share of fields that are bare ground.
        rock: share of the country with rock on the surface.
        wash: how wide dry watercourses are, 0 to 1.
        terrace_m: height of a terrace's step, metres; 0: none.
        bars: how large sand bars in the bends of the river are, 0 to 1.
        meander: how much further than others the river swings.
        rail: probability of a railway.
        shanty: share of town blocks with dense small houses that follow no plan.
        works: share of town blocks with halls, stores and car parks.
        block: largest town block over that of other towns.
    """

    name: str
    theta_rad: float
    warp_m: float
    field_m2: float
    field_spread: float
    skew: float
    strip: float
    lane_m2: float
    track_m2: float
    hedge: float
    town: float
    plot_m: float
    industry: float
    wood: float
    wood_field: float
    trees_ha: float
    orchard: float
    farm: float
    pivot: float
    scrub: float
    pasture: float
    river: float
    river_m: float
    pond: float
    highway: float
    relief: float
    patchy: float
    dry: float
    conifer: float
    crown_m: float
    soil: RGB
    crops: tuple[str, ...]
    roofs: tuple[str, ...]
    pool: float
    regular: float = 0.0
    basin: float = 0.0
    bare: float = 0.0
    rock: float = 0.0
    wash: float = 0.0
    terrace_m: float = 0.0
    bars: float = 0.0
    meander: float = 0.0
    rail: float = 0.0
    shanty: float = 0.0
    works: float = 0.0
    block: float = 1.0


STYLES = tuple(sorted((*ARCHETYPES, *NAMED)))
_SURVEYED = {"plains": 0.6, "prairie": 0.9, "irrigated": 0.9}  # how often along the meridians


def draw_style(seed: int, name: str | None = None) -> Style:
    """Return the style of a world; seeds share an archetype and differ in everything else.

    Args:
        seed: of the world.
        name: one of STYLES; default: the seed chooses among the first of them.
    """
    rng = rng_for(seed, "style")
    names = sorted(ARCHETYPES)
    drawn = names[int(rng.integers(len(names)))]
    name = name or drawn
    own = ARCHETYPES[name] if name in ARCHETYPES else NAMED[name]
    values: dict[str, object] = {"name": name, "theta_rad": float(rng.uniform(0, math.pi / 2))}
    if name in _SURVEYED and rng.random() < _SURVEYED[name]:
        values["theta_rad"] = float(rng.normal(0, 0.01))
    for key, common in COMMON.items():
        values[key] = _draw(rng, *own.get(key, common))
    soils, roofs, crops = KITS[name]
    base = np.array(SOILS[soils[int(rng.integers(len(soils)))]])
    soil = base * rng.uniform(0.88, 1.1) * rng.uniform(0.95, 1.05, 3)
    values |= {"soil": tuple(map(float, soil)), "crops": crops, "roofs": roofs}
    for key in own.keys() - COMMON.keys():
        values[key] = _draw(rng_for(seed, "style", key), *own[key])
    return Style(**values)  # type: ignore[arg-type]


def _draw(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw evenly, over the logarithm where the range spans more than a factor of three."""
    share = rng.random()
    if low > 0 and high / low > 3:
        return float(low * (high / low) ** share)
    return float(low + (high - low) * share)
