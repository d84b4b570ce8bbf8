"""What a benchmark condition is: galleries of tiles, and queries to be found in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from s4g.core.camera import Attitude, Camera

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

STRIDE = 0.25  # of the footprint, as packs are built
VALID_SHARE = 0.97  # of a tile's pixels
HIT_FOOTPRINTS = 0.5  # a tile is right when its centre lies this near the truth


@dataclass(frozen=True, eq=False)
class Gallery:
    """All tiles of a region.

    Attributes:
        name: unique; embeddings are kept under it.
        source: of the ground; queries of another source show foreign ground.
        footprint_m: side of a tile.
        tiles: (N, S, S, 3) uint8 RGB, north-up.
        center_m: (N, 2) east, north.
    """

    name: str
    source: str
    footprint_m: float
    tiles: Images
    center_m: Floats


@dataclass(frozen=True, eq=False)
class Shot:
    """A whole frame, as the runtime gets it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        camera: its intrinsics.
        reported: attitude and height by telemetry.
        footprint_m: side of the tiles that it is flown for.
        center_m: (2,) east, north of the ground in its middle.
        cluster: see `Region`.
    """

    image: Images
    camera: Camera
    reported: Attitude
    footprint_m: float
    center_m: Floats
    cluster: int


@dataclass(frozen=True, eq=False)
class Region:
    """A gallery and the queries that show its ground.

    Attributes:
        gallery: the tiles.
        queries: (Q, V, S, S, 3) uint8: V views of each, the best of which counts.
        center_m: (Q, 2) east, north of the ground in the middle of each.
        cluster: (Q,) int64: queries of one number share ground or a photo.
        shots: whole frames of the same flight; none where telemetry lacks a heading.
    """

    gallery: Gallery
    queries: Images
    center_m: Floats
    cluster: npt.NDArray[np.int64]
    shots: tuple[Shot, ...] = ()


@dataclass(frozen=True, eq=False)
class Condition:
    """One way in which frames differ from the map.

    Attributes:
        name: for tables and `--only`.
        about: one line.
        regions: each with a gallery of its own.
        seen: the recipe trains on this ground: no measure of new places.
    """

    name: str
    about: str
    regions: tuple[Region, ...]
    seen: bool = False


@dataclass(frozen=True)
class Setting:
    """How conditions are cut.

    Attributes:
        data: folder of the imagery's folders.
        size_px: side of tiles and queries.
        queries: about how many a condition gets.
        shots: about how many of its frames are flown.
    """

    data: Path
    size_px: int
    queries: int
    shots: int = 0


@dataclass(frozen=True)
class Group:
    """Conditions that are made together.

    Attributes:
        names: of its conditions.
        folders: of the data folder, which it reads.
        make: yields the conditions whose names are asked for.
        slow: photos are registered first, which takes a minute.
    """

    names: tuple[str, ...]
    folders: tuple[str, ...]
    make: Callable[[Setting, tuple[str, ...]], Iterator[Condition]]
    slow: bool = False


def lattice(
    bounds_m: tuple[float, float, float, float], footprint_m: float
) -> Iterator[tuple[float, float]]:
    """Yield tile centres a stride apart, from the north-west, wholly within west, south, east,
    north.
    """
    west_m, south_m, east_m, north_m = bounds_m
    step_m, half_m = STRIDE * footprint_m, footprint_m / 2
    for north in np.arange(north_m - half_m, south_m + half_m - 1e-6, -step_m):
        for east in np.arange(west_m + half_m, east_m - half_m + 1e-6, step_m):
            yield float(east), float(north)


def cells(center_m: Floats, footprint_m: float) -> npt.NDArray[np.int64]:
    """Number places (N, 2) by the cell of one footprint that they lie in."""
    places = np.floor(center_m / footprint_m).astype(np.int64)
    _, number = np.unique(places, axis=0, return_inverse=True)
    return np.asarray(number.reshape(-1), np.int64)
