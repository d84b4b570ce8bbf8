"""The countries that a procedural landscape may be, as ranges from which a seed draws."""

from __future__ import annotations

RGB = tuple[float, float, float]

SOILS: dict[str, RGB] = {
    "brown": (140, 118, 95),
    "grey": (158, 148, 132),
    "dark": (98, 86, 76),
    "red": (165, 112, 80),
    "sand": (188, 168, 134),
    "pale": (206, 194, 168),
    "ochre": (186, 142, 98),
}

# Ranges from which a seed draws; what an archetype does not name comes from COMMON. What is in
# neither is absent: rocks, washes, shacks and the like.
COMMON: dict[str, tuple[float, float]] = {
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

# The first countries: a seed alone chooses among these, so that its ground stays what it was.
ARCHETYPES: dict[str, dict[str, tuple[float, float]]] = {
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

# Further countries, made only where they are named.
NAMED: dict[str, dict[str, tuple[float, float]]] = {
    "prairie": {
        "warp_m": (0, 4), "field_m2": (1.2e5, 5e5), "skew": (0.0, 0.01), "strip": (1.6, 2.4),
        "lane_m2": (1.2e6, 2.6e6), "track_m2": (6e5, 1e6), "hedge": (0.0, 0.1),
        "town": (0.0, 0.03), "wood": (0.0, 0.02), "wood_field": (0.0, 0.02),
        "trees_ha": (0.02, 0.2), "orchard": (0.0, 0.0), "farm": (0.05, 0.12),
        "pasture": (0.1, 0.35), "river": (0.0, 0.1), "highway": (0.0, 0.3), "relief": (0.2, 0.7),
        "patchy": (0.7, 1.3), "dry": (0.1, 0.6), "pond": (0.0, 0.05),
        "basin": (0.05, 0.22), "regular": (0.8, 1.0),
    },
    "irrigated": {
        "warp_m": (0, 6), "field_m2": (2.4e5, 5e5), "field_spread": (0.1, 0.3),
        "skew": (0.0, 0.01), "strip": (1.3, 1.8), "lane_m2": (1e6, 2.6e6), "track_m2": (4e5, 1e6),
        "hedge": (0.0, 0.02), "town": (0.0, 0.04), "wood": (0.0, 0.01), "wood_field": (0.0, 0.01),
        "trees_ha": (0.02, 0.3), "orchard": (0.0, 0.0), "pivot": (0.7, 0.95), "scrub": (0.02, 0.1),
        "pasture": (0.0, 0.1), "river": (0.0, 0.2), "highway": (0.1, 0.5), "relief": (0.1, 0.6),
        "patchy": (0.6, 1.3), "dry": (0.6, 1.0), "regular": (0.9, 1.0), "bare": (0.05, 0.3),
    },
    "desert": {
        "warp_m": (60, 160), "field_m2": (1e5, 6e5), "town": (0.0, 0.05), "plot_m": (20, 34),
        "lane_m2": (1.5e6, 6e6), "track_m2": (4e5, 1.2e6), "hedge": (0.0, 0.0),
        "wood": (0.0, 0.01), "wood_field": (0.0, 0.0), "trees_ha": (12, 65), "orchard": (0.0, 0.02),
        "farm": (0.0, 0.02), "scrub": (0.05, 0.3), "pasture": (0.0, 0.1), "river": (0.0, 0.1),
        "pond": (0.0, 0.0), "highway": (0.1, 0.5), "relief": (1.0, 2.6), "patchy": (0.8, 1.5),
        "dry": (0.85, 1.0), "conifer": (0.6, 0.95), "crown_m": (1.4, 3.0),
        "bare": (0.6, 0.95), "rock": (0.01, 0.10), "wash": (0.3, 1.0),
    },
    "oaks": {
        "warp_m": (60, 140), "field_m2": (6e4, 4e5), "town": (0.0, 0.03), "hedge": (0.0, 0.02),
        "lane_m2": (1e6, 4e6), "track_m2": (1e5, 4e5), "wood": (0.02, 0.15),
        "wood_field": (0.0, 0.02), "trees_ha": (8, 50), "orchard": (0.0, 0.0), "farm": (0.0, 0.03),
        "scrub": (0.1, 0.4), "pasture": (0.9, 1.0), "river": (0.0, 0.3), "river_m": (4, 12),
        "pond": (0.0, 0.06), "highway": (0.0, 0.2), "relief": (0.8, 2.0), "patchy": (0.7, 1.3),
        "dry": (0.5, 1.0), "conifer": (0.3, 0.7), "crown_m": (5.5, 10),
        "rock": (0.005, 0.05), "wash": (0.0, 0.15),
    },
    "terraces": {
        "warp_m": (40, 120), "field_m2": (2e3, 1e4), "hedge": (0.0, 0.1), "town": (0.03, 0.2),
        "plot_m": (10, 17), "lane_m2": (2e5, 8e5), "track_m2": (3e4, 1e5), "wood": (0.05, 0.3),
        "relief": (1.0, 2.4), "dry": (0.0, 0.5), "pasture": (0.0, 0.1), "river_m": (5, 15),
        "terrace_m": (0.6, 1.6),
    },
    "shanty": {
        "town": (0.6, 0.95), "warp_m": (30, 110), "hedge": (0.0, 0.05), "plot_m": (9, 15),
        "industry": (0.02, 0.12), "wood": (0.0, 0.1), "trees_ha": (1, 8), "dry": (0.2, 0.8),
        "field_m2": (1e3, 6e3), "river_m": (5, 20), "crown_m": (4, 8), "highway": (0.4, 0.8),
        "shanty": (0.45, 0.9), "rail": (0.1, 0.4),
    },
    "works": {
        "town": (0.7, 0.98), "warp_m": (0, 50), "skew": (0.0, 0.06), "hedge": (0.0, 0.15),
        "industry": (0.05, 0.2), "wood": (0.0, 0.08), "highway": (0.5, 0.9), "river": (0.2, 0.6),
        "works": (0.5, 0.85), "block": (1.0, 2.2), "rail": (0.6, 1.0),
    },
    "groves": {
        "warp_m": (10, 90), "field_m2": (8e3, 6e4), "orchard": (0.5, 0.75), "hedge": (0.02, 0.3),
        "town": (0.02, 0.12), "wood": (0.0, 0.08), "scrub": (0.0, 0.1), "pasture": (0.0, 0.1),
        "dry": (0.2, 0.8), "conifer": (0.3, 0.8), "relief": (0.2, 1.2), "patchy": (0.5, 1.2),
    },
    "floodplain": {
        "river": (1.0, 1.0), "river_m": (35, 120), "warp_m": (30, 100), "field_m2": (1e4, 8e4),
        "wood": (0.1, 0.3), "town": (0.0, 0.1), "pasture": (0.3, 0.6), "relief": (0.05, 0.3),
        "highway": (0.0, 0.4), "bars": (0.4, 1.0), "meander": (0.4, 1.4), "basin": (0.0, 0.05),
    },
}  # fmt: skip

# Never drawn for training unless named, so that a test on them is one on unseen country.
HELD_OUT = ("groves", "terraces")

# Soils, roofs and crops of each archetype; what is common is repeated.
KITS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
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
    "prairie": (
        ("brown", "dark", "grey", "ochre"),
        _ROOFS_GREY,
        ("wheat", "wheat", "barley", "maize", "sunflower", "alfalfa", "fallow", "rapeseed"),
    ),
    "irrigated": (
        ("sand", "ochre", "grey", "pale"),
        _ROOFS_GREY,
        ("maize", "alfalfa", "alfalfa", "beet", "wheat", "vegetables", "fallow"),
    ),
    "desert": (
        ("sand", "pale", "ochre", "red", "grey"),
        ("white", "flat", "flat", "brown", "metal"),
        ("fallow", "alfalfa", "vegetables"),
    ),
    "oaks": (("sand", "brown", "ochre", "grey"), _ROOFS_GREY, ("fallow", "wheat")),
    "terraces": (
        ("red", "brown", "grey"),
        ("metal", "red", "grey", "brown", "blue"),
        ("rice", "rice", "rice", "vegetables", "maize", "fallow"),
    ),
    "shanty": (
        ("red", "ochre", "brown", "sand"),
        ("metal", "metal", "rust", "rust", "red", "brown", "grey", "white", "blue"),
        ("vegetables", "maize", "fallow"),
    ),
    "works": (
        ("brown", "grey", "sand"),
        ("white", "white", "metal", "flat", "grey", "dark", "red", "blue"),
        _TEMPERATE,
    ),
    "groves": (
        ("brown", "sand", "red", "ochre", "grey"),
        ("red", "red", "brown", "white"),
        ("vineyard", "vineyard", "vineyard", "vegetables", "fallow"),
    ),
    "floodplain": (("grey", "dark", "brown", "sand"), _ROOFS_RED, (*_TEMPERATE, "rice")),
}
