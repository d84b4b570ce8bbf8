"""What makes one procedural country look unlike another: its style, drawn from the seed."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from .landscape_noise import rng_for

RGB = tuple[float, float, float]


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


_SOILS: dict[str, RGB] = {
    "brown": (140, 118, 95),
    "grey": (158, 148, 132),
    "dark": (98, 86, 76),
    "red": (165, 112, 80),
    "sand": (188, 168, 134),
}

# Ranges from which a seed draws; what an archetype does not name comes from _COMMON.
_COMMON: dict[str, tuple[float, float]] = {
    "warp_m": (15, 60), "field_m2": (8e3, 4e4), "field_spread": (0.4, 0.8), "skew": (0.03, 0.15),
    "strip": (2.0, 4.0), "lane_m2": (1.5e5, 5e5), "track_m2": (3e4, 1e5), "hedge": (0.1, 0.5),
    "town": (0.05, 0.2), "plot_m": (16, 26), "industry": (0.05, 0.2), "wood": (0.05, 0.2),
    "wood_field": (0.02, 0.08), "trees_ha": (0.3, 2), "orchard": (0.0, 0.08), "farm": (0.02, 0.1),
    "pivot": (0, 0), "scrub": (0.0, 0.05), "pasture": (0.15, 0.4), "river": (0.3, 0.7),
    "river_m": (8, 35), "pond": (0.01, 0.05), "highway": (0.3, 0.7), "relief": (0.2, 0.8),
    "patchy": (0.4, 1.0), "dry": (0.0, 0.4), "conifer": (0.1, 0.5), "crown_m": (5, 8),
    "pool": (0.0, 0.1),
}  # fmt: skip

_TEMPERATE = ("wheat", "wheat", "barley", "rapeseed", "maize", "beet", "alfalfa", "fallow")
_ROOFS_RED = ("red", "red", "red", "brown", "grey", "dark")
_ROOFS_GREY = ("grey", "grey", "dark", "brown", "white", "brown")

_ARCHETYPES: dict[str, dict[str, tuple[float, float]]] = {
    "plains": {
        "warp_m": (0, 12), "field_m2": (4e4, 2.2e5), "skew": (0.0, 0.03), "strip": (1.6, 2.5),
        "lane_m2": (4e5, 1.2e6), "track_m2": (2e5, 6e5), "hedge": (0.0, 0.2), "town": (0.02, 0.12),
        "wood": (0.0, 0.08), "trees_ha": (0.05, 0.5), "pivot": (0.0, 0.35), "dry": (0.1, 0.6),
        "pasture": (0.05, 0.25), "pond": (0.02, 0.12), "relief": (0.05, 0.4), "farm": (0.05, 0.15),
    },
    "patchwork": {
        "hedge": (0.3, 0.8), "warp_m": (40, 110), "field_m2": (6e3, 3e4), "skew": (0.08, 0.2),
        "town": (0.04, 0.25), "wood": (0.08, 0.25),
    },
    "strips": {
        "strip": (5, 12), "field_m2": (4e3, 1.5e4), "warp_m": (20, 70), "skew": (0.02, 0.08),
        "hedge": (0.02, 0.2), "wood": (0.05, 0.2), "lane_m2": (2e5, 6e5),
    },
    "suburb": {
        "town": (0.6, 0.95), "warp_m": (20, 90), "industry": (0.08, 0.3), "plot_m": (15, 28),
        "hedge": (0.2, 0.5), "highway": (0.5, 0.9), "pool": (0.0, 0.3),
    },
    "savanna": {
        "dry": (0.65, 1.0), "scrub": (0.45, 0.85), "trees_ha": (4, 25), "wood": (0.0, 0.08),
        "warp_m": (40, 120), "field_m2": (1e4, 1e5), "hedge": (0.0, 0.1), "town": (0.01, 0.1),
        "relief": (0.6, 1.6), "patchy": (0.8, 1.4), "crown_m": (3.5, 6), "plot_m": (18, 32),
        "river_m": (6, 25), "conifer": (0.4, 0.9), "pasture": (0.2, 0.6),
    },
    "forest": {
        "wood": (0.45, 0.8), "wood_field": (0.1, 0.3), "conifer": (0.3, 0.9), "relief": (0.4, 1.2),
        "town": (0.01, 0.08), "field_m2": (8e3, 5e4), "warp_m": (50, 120), "scrub": (0.02, 0.15),
        "lane_m2": (5e5, 1.5e6), "track_m2": (8e4, 2e5), "crown_m": (4.5, 8.5),
    },
    "mediterranean": {
        "dry": (0.4, 0.8), "orchard": (0.2, 0.5), "field_m2": (4e3, 2e4), "town": (0.05, 0.3),
        "scrub": (0.05, 0.25), "warp_m": (40, 110), "skew": (0.1, 0.22), "relief": (0.4, 1.2),
        "pool": (0.05, 0.3), "crown_m": (4, 6), "conifer": (0.4, 0.8), "patchy": (0.7, 1.3),
    },
    "smallholder": {
        "field_m2": (9e2, 4e3), "strip": (2, 5), "lane_m2": (1e5, 3e5), "track_m2": (1.5e4, 5e4),
        "warp_m": (15, 90), "hedge": (0.02, 0.15), "town": (0.1, 0.4), "plot_m": (10, 17),
        "wood": (0.02, 0.2), "dry": (0.0, 0.5), "pond": (0.02, 0.06), "pasture": (0.02, 0.1),
    },
}  # fmt: skip

# Soils, roofs and crops of each archetype; what is common is repeated.
_KITS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "plains": (
        ("brown", "grey", "dark", "sand"),
        _ROOFS_GREY,
        ("maize", "maize", "beet", "beet", "wheat", "alfalfa", "fallow"),
    ),
    "patchwork": (("brown", "dark", "grey"), _ROOFS_RED, _TEMPERATE),
    "strips": (("brown", "grey", "dark"), _ROOFS_RED, _TEMPERATE),
    "suburb": (("brown", "grey"), _ROOFS_GREY, _TEMPERATE),
    "savanna": (
        ("red", "sand", "grey"),
        ("white", "grey", "brown", "metal"),
        ("fallow", "fallow", "wheat", "sunflower", "maize"),
    ),
    "forest": (("brown", "dark"), _ROOFS_GREY, _TEMPERATE),
    "mediterranean": (
        ("red", "sand", "grey", "brown"),
        ("red", "red", "red", "white", "brown"),
        ("wheat", "vineyard", "vineyard", "sunflower", "fallow", "alfalfa"),
    ),
    "smallholder": (
        ("red", "brown", "sand"),
        ("metal", "blue", "red", "grey", "white"),
        ("rice", "rice", "rice", "maize", "vegetables", "fallow", "beet"),
    ),
}


def draw_style(seed: int) -> Style:
    """Return the style of a world; seeds share an archetype and differ in everything else."""
    rng = rng_for(seed, "style")
    names = sorted(_ARCHETYPES)
    name = names[int(rng.integers(len(names)))]
    own = _ARCHETYPES[name]
    values: dict[str, object] = {"name": name, "theta_rad": float(rng.uniform(0, math.pi / 2))}
    if name == "plains" and rng.random() < 0.6:
        values["theta_rad"] = float(rng.normal(0, 0.01))  # surveyed along the meridians
    for key, common in _COMMON.items():
        values[key] = _draw(rng, *own.get(key, common))
    soils, roofs, crops = _KITS[name]
    base = np.array(_SOILS[soils[int(rng.integers(len(soils)))]])
    soil = base * rng.uniform(0.88, 1.1) * rng.uniform(0.95, 1.05, 3)
    values |= {"soil": tuple(map(float, soil)), "crops": crops, "roofs": roofs}
    assert set(values) == {field.name for field in dataclasses.fields(Style)}
    return Style(**values)  # type: ignore[arg-type]


def _draw(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw evenly, over the logarithm where the range spans more than a factor of three."""
    share = rng.random()
    if low > 0 and high / low > 3:
        return float(low * (high / low) ** share)
    return float(low + (high - low) * share)
