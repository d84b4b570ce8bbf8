"""Colours of a procedural landscape through the seasons, as seen from above in 8-bit RGB."""

from __future__ import annotations

from dataclasses import dataclass

from .landscape_world import (
    BALLAST,
    COURT,
    DITCH,
    LAKE_DARK,
    LAKE_GREEN,
    LANE,
    MAIN,
    MARK,
    MARSH,
    MARSH_DARK,
    MARSH_GREEN,
    MUD,
    PARKING,
    PATH,
    PAVED,
    PITCH,
    POOL,
    RAILS,
    ROCK,
    SAND,
    SCRUB,
    STREET,
    TRACK,
    VERGE,
    WATER,
    WOOD,
    YARD,
)  # fmt: skip

RGB = tuple[float, float, float]

SEASONS = ("spring", "summer", "autumn", "winter")


@dataclass(frozen=True)
class Cover:
    """Plants on a surface.

    Attributes:
        rgb: colour of the plants.
        share: share of the ground they cover, 0 bare soil to 1 closed.
        rows: how strongly rows show.
        stripes: how strongly passes of machines show.
        patchy: how strongly soil patches show through.
        grain: strength of the fine texture.
    """

    rgb: RGB
    share: float
    rows: float = 0.0
    stripes: float = 0.05
    patchy: float = 0.25
    grain: float = 0.08


_BARE = Cover((120, 125, 80), 0.06, rows=0.05, stripes=0.14, patchy=0.5, grain=0.10)
_WINTER_CROP = Cover((104, 120, 72), 0.45, rows=0.16, stripes=0.08, patchy=0.35)
_STUBBLE = Cover((200, 184, 136), 0.75, rows=0.10, stripes=0.22, patchy=0.2)

_FALLOW = (
    Cover((126, 128, 82), 0.5, 0.0, 0.06, 0.5, 0.14),
    Cover((154, 144, 98), 0.55, 0.0, 0.06, 0.5, 0.14),
    Cover((140, 130, 92), 0.5, 0.0, 0.06, 0.5, 0.14),
    Cover((132, 122, 94), 0.45, 0.0, 0.06, 0.5, 0.14),
)

# Crop: spring, summer, autumn, winter.
CROPS: dict[str, tuple[Cover, Cover, Cover, Cover]] = {
    "wheat": (
        Cover((92, 122, 58), 0.92, 0.05, 0.06), Cover((198, 172, 114), 0.95, 0.03, 0.07),
        _BARE, _WINTER_CROP,
    ),
    "barley": (
        Cover((112, 136, 72), 0.88, 0.05, 0.06), _STUBBLE,
        Cover((140, 138, 92), 0.5, 0.06, 0.15, 0.4), _WINTER_CROP,
    ),
    "rapeseed": (
        Cover((192, 182, 62), 0.95, 0.0, 0.06, 0.15), Cover((158, 146, 96), 0.85, 0.02, 0.14),
        Cover((92, 120, 60), 0.7, 0.1), Cover((84, 108, 62), 0.65, 0.1),
    ),
    "maize": (
        Cover((110, 132, 76), 0.14, 0.14, 0.1, 0.5), Cover((64, 96, 46), 0.97, 0.12, 0.05, 0.14),
        Cover((170, 150, 104), 0.85, 0.14, 0.12), Cover((160, 146, 112), 0.4, 0.16, 0.2, 0.4),
    ),
    "beet": (
        Cover((108, 132, 74), 0.2, 0.16, 0.08, 0.5), Cover((82, 122, 56), 0.94, 0.12, 0.05, 0.2),
        Cover((98, 116, 60), 0.8, 0.12, 0.08), _BARE,
    ),
    "sunflower": (
        Cover((110, 130, 74), 0.12, 0.16, 0.1, 0.5), Cover((148, 142, 62), 0.9, 0.12),
        Cover((100, 84, 62), 0.65, 0.14, 0.12), _BARE,
    ),
    "alfalfa": (
        Cover((78, 116, 54), 0.96, 0.0, 0.09, 0.12), Cover((86, 118, 58), 0.94, 0.0, 0.16, 0.14),
        Cover((94, 116, 60), 0.92, 0.0, 0.12, 0.14), Cover((110, 112, 72), 0.7),
    ),
    "fallow": _FALLOW,
    "rice": (
        Cover((96, 106, 98), 0.9, 0.03, 0.04, 0.3), Cover((92, 138, 60), 0.96, 0.05, 0.04, 0.14),
        Cover((186, 168, 92), 0.92, 0.05, 0.08), Cover((146, 130, 98), 0.45, 0.08, 0.08, 0.4),
    ),
    "vegetables": (
        Cover((96, 130, 66), 0.5, 0.3, 0.3, 0.3), Cover((86, 126, 62), 0.7, 0.28, 0.3, 0.25),
        Cover((104, 128, 72), 0.6, 0.28, 0.3, 0.3), Cover((110, 122, 80), 0.3, 0.25, 0.25, 0.4),
    ),
    "vineyard": (
        Cover((106, 126, 66), 0.42, 0.40, 0.02, 0.3), Cover((82, 112, 56), 0.58, 0.45, 0.02, 0.25),
        Cover((150, 122, 62), 0.55, 0.42, 0.02, 0.25), Cover((124, 112, 84), 0.35, 0.32, 0.02, 0.3),
    ),
}  # fmt: skip
PERMANENT_CROPS = frozenset({"vineyard", "rice", "alfalfa"})

_GRASS = (
    Cover((98, 122, 64), 0.94, 0, 0.03, 0.2, 0.10), Cover((114, 126, 74), 0.88, 0, 0.04, 0.3, 0.12),
    Cover((108, 118, 70), 0.88, 0, 0.04, 0.3, 0.12), Cover((112, 112, 78), 0.8, 0, 0.02, 0.3, 0.12),
)  # fmt: skip
_ROUGH = (
    Cover((104, 114, 72), 0.6, 0, 0, 0.8, 0.3), Cover((118, 116, 76), 0.52, 0, 0, 0.8, 0.3),
    Cover((114, 108, 74), 0.52, 0, 0, 0.8, 0.3), Cover((106, 102, 78), 0.48, 0, 0, 0.8, 0.3),
)  # fmt: skip


def _always(rgb: RGB, grain: float = 0.05, patchy: float = 0.03) -> tuple[Cover, ...]:
    return (Cover(rgb, 1.0, 0, 0, patchy, grain),) * 4


# Parcel kinds that do not rotate.
KINDS: dict[str, tuple[Cover, ...]] = {
    "pasture": _GRASS,
    "orchard": _GRASS,
    "garden": _GRASS,
    "lawn": _GRASS,
    "scrub": _ROUGH,
    "wood": _ROUGH,
    "yard": _always((158, 154, 148), 0.07, 0.06),
    "bare": tuple(Cover(c.rgb, 0.12, 0, 0, 0.6, 0.14) for c in _ROUGH),
    "dirt": tuple(Cover(c.rgb, 0.08, 0, 0, 0.3, 0.10) for c in _GRASS),
    "solar": tuple(Cover((48, 58, 82), 0.55, 0.6, 0.0, 0.05, 0.03) for _ in range(4)),
}

_REEDS = (
    Cover((112, 116, 72), 0.85, 0, 0, 0.5, 0.16), Cover((98, 116, 62), 0.9, 0, 0, 0.5, 0.16),
    Cover((132, 120, 76), 0.85, 0, 0, 0.5, 0.16), Cover((138, 124, 90), 0.8, 0, 0, 0.5, 0.16),
)  # fmt: skip

_ASPHALT: RGB = (122, 122, 124)
SURFACES: dict[int, tuple[Cover, ...]] = {
    SCRUB: _ROUGH,
    WOOD: (
        Cover((88, 92, 62), 0.8, 0, 0, 0.3, 0.2), Cover((74, 82, 54), 0.85, 0, 0, 0.3, 0.2),
        Cover((116, 96, 64), 0.85, 0, 0, 0.3, 0.2), Cover((112, 98, 80), 0.85, 0, 0, 0.3, 0.2),
    ),
    WATER: _always((62, 76, 76), 0.03, 0.05),
    MAIN: _always(_ASPHALT),
    STREET: _always((134, 133, 132)),
    LANE: _always((130, 128, 124)),
    TRACK: _always((178, 164, 138), 0.10, 0.10),
    PATH: _always((186, 176, 156), 0.08),
    PAVED: _always((162, 157, 150), 0.06),
    PARKING: _always((126, 126, 128), 0.05),
    VERGE: _GRASS,
    SAND: _always((196, 184, 156), 0.08, 0.12),
    POOL: _always((92, 164, 190), 0.03),
    MARK: _always((205, 205, 200), 0.02),
    PITCH: tuple(Cover(c.rgb, 0.98, 0, 0.16, 0.1, 0.05) for c in _GRASS),
    COURT: _always((168, 104, 80), 0.04),
    YARD: _always((164, 152, 134), 0.12, 0.12),
    DITCH: tuple(Cover((74, 88, 58), 0.9, 0, 0, 0.2, 0.15) for _ in range(4)),
    MARSH: _REEDS,
    MARSH_GREEN: _REEDS,
    MARSH_DARK: _REEDS,
    LAKE_GREEN: _always((84, 106, 70), 0.03, 0.10),
    LAKE_DARK: _always((36, 44, 46), 0.02, 0.03),
    MUD: _always((176, 166, 144), 0.08, 0.15),
    ROCK: _always((178, 168, 152), 0.16, 0.10),
    BALLAST: _always((128, 116, 106), 0.09, 0.08),
    RAILS: _always((78, 66, 60), 0.05),
}  # fmt: skip

ROOFS: dict[str, RGB] = {
    "red": (158, 96, 74),
    "brown": (122, 98, 84),
    "grey": (136, 134, 134),
    "dark": (86, 86, 92),
    "white": (206, 204, 198),
    "metal": (176, 180, 184),
    "blue": (84, 112, 158),
    "flat": (150, 148, 144),
    "rust": (146, 104, 82),
}

# Leaf colours: spring, summer, autumn, winter; winter's broadleaves are bare and half transparent.
BROADLEAF: tuple[tuple[RGB, RGB], ...] = (
    ((96, 122, 58), (118, 136, 76)),
    ((58, 82, 42), (86, 106, 58)),
    ((122, 92, 46), (150, 124, 62)),
    ((112, 102, 90), (128, 118, 104)),
)
CONIFER: tuple[RGB, RGB] = ((40, 58, 42), (60, 76, 54))
BROADLEAF_OPACITY = (0.92, 1.0, 0.9, 0.42)
CAR_COLOURS: tuple[RGB, ...] = (
    (225, 225, 225), (190, 192, 195), (60, 62, 66), (95, 98, 104), (150, 50, 45), (60, 80, 130),
)  # fmt: skip
