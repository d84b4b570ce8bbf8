"""Training imagery in memory: the same ground at one or several dates, split by place."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from ..core.geo import TILE_SIZE_PX, LocalFrame, mercator_gsd_m, wgs84_from_mercator
from ..core.ground import GroundWindow
from ..core.images import read_rgb
from ..core.landscape import make_world, render_world
from ..core.sources import open_ground
from .photo_split import read_positions, split_apart
from .recipe import GroundConfig

Image = npt.NDArray[np.uint8]

# Each level of a pyramid halves the one before; below this side no patch is cut from it.
_MIN_LEVEL_PX = 64
_SEASONS = ("spring", "summer", "autumn", "winter")
_SENSORS = ("a", "b", "c", "d")
_WORLD_GSD_M = 0.5


@dataclass(frozen=True)
class Ground:
    """One piece of ground, north-up, at one or several dates.

    Attributes:
        name: for messages and the model card.
        gsd_m: ground size of a pixel of the finest level.
        dates: one image pyramid a date; `dates[d][l]` is (H >> l, W >> l, 3) uint8.
        invalid_area: (H + 1, W + 1) summed-area table of pixels that any date lacks.
        weight: relative share of the pairs.
        validates: whether the ground is held out for validation.
        source: index of the recipe's [[ground]] entry.
    """

    name: str
    gsd_m: float
    dates: tuple[tuple[Image, ...], ...]
    invalid_area: npt.NDArray[np.int32]
    weight: float
    validates: bool
    source: int

    @property
    def size_m(self) -> tuple[float, float]:
        """Width and height in metres."""
        height, width = self.dates[0][0].shape[:2]
        return width * self.gsd_m, height * self.gsd_m

    def valid_share(self, x_m: float, y_m: float, side_m: float) -> float:
        """Return the share of valid pixels in a square around a place (metres from the NW corner).

        Ground beyond the image counts as invalid.
        """
        height, width = self.dates[0][0].shape[:2]
        half = side_m / 2
        x0, x1 = (round((x_m + s * half) / self.gsd_m) for s in (-1, 1))
        y0, y1 = (round((y_m + s * half) / self.gsd_m) for s in (-1, 1))
        total = max(1, (x1 - x0) * (y1 - y0))
        x0, x1, y0, y1 = max(x0, 0), min(x1, width), max(y0, 0), min(y1, height)
        if x0 >= x1 or y0 >= y1:
            return 0.0
        table = self.invalid_area
        invalid = table[y1, x1] - table[y0, x1] - table[y1, x0] + table[y0, x0]
        return float(((x1 - x0) * (y1 - y0) - invalid) / total)


def load_grounds(
    configs: tuple[GroundConfig, ...], data: Path | None, tick: Callable[[str], None]
) -> list[Ground]:
    """Load every source of a recipe; `tick` is told the name of each ground as it is ready.

    Raises:
        InputError: a pattern matches nothing, files do not fit together, or cannot be read.
    """
    grounds: list[Ground] = []
    for index, config in enumerate(configs):
        for ground in _LOADERS[config.kind](config, data, index):
            grounds.append(ground)
            tick(ground.name)
    return grounds


def held_out_only(config: GroundConfig) -> GroundConfig:
    """Return the source without the procedural worlds that only train; they take time to make."""
    return dataclasses.replace(config, first_seed=config.first_seed + config.worlds, worlds=0)


def _pyramid(image: Image) -> tuple[Image, ...]:
    levels = [np.ascontiguousarray(image)]
    while min(levels[-1].shape[:2]) >= 2 * _MIN_LEVEL_PX:
        height, width = levels[-1].shape[:2]
        half = cv2.resize(
            levels[-1][: height // 2 * 2, : width // 2 * 2],
            (width // 2, height // 2),
            interpolation=cv2.INTER_AREA,
        )
        levels.append(np.asarray(half, np.uint8))
    return tuple(levels)


def _make(
    name: str,
    images: list[Image],
    valid: npt.NDArray[np.bool_],
    gsd_m: float,
    config: GroundConfig,
    validates: bool,
    source: int,
) -> Ground:
    area = np.zeros((valid.shape[0] + 1, valid.shape[1] + 1), np.int32)
    area[1:, 1:] = np.cumsum(np.cumsum(~valid, axis=0, dtype=np.int32), axis=1, dtype=np.int32)
    dates = tuple(_pyramid(image) for image in images)
    return Ground(name, gsd_m, dates, area, config.weight, validates, source)


def _split(
    name: str,
    images: list[Image],
    valid: npt.NDArray[np.bool_],
    gsd_m: float,
    config: GroundConfig,
    number: int,
    source: int,
) -> Iterator[Ground]:
    if config.split == "west":
        cut = round(valid.shape[1] * config.split_value)
        for part, validates in ((np.s_[:, :cut], False), (np.s_[:, cut:], True)):
            side = "east" if validates else "west"
            pieces = [image[part] for image in images]
            yield _make(f"{name} ({side})", pieces, valid[part], gsd_m, config, validates, source)
        return
    every = max(1, int(config.split_value))
    validates = config.split == "val" or (config.split == "every" and number % every == every - 1)
    yield _make(name, images, valid, gsd_m, config, validates, source)


def _matches(config: GroundConfig, data: Path | None) -> list[list[Path]]:
    if data is None:
        raise InputError(f"--data is missing: the recipe needs {', '.join(config.files)}")
    found = []
    for pattern in config.files:
        files = sorted(data.glob(pattern))
        if not files:
            raise InputError(f"--data {data}: nothing matches {pattern}, which the recipe needs")
        found.append(files)
    return found


def _landscapes(config: GroundConfig, data: Path | None, source: int) -> Iterator[Ground]:
    for number in range(config.worlds + config.val_worlds):
        seed = config.first_seed + number
        world = make_world(seed, config.size_m, config.gsd_m or _WORLD_GSD_M)
        rng = np.random.default_rng(seed)
        images = [
            render_world(
                world,
                season=_SEASONS[(seed + i) % len(_SEASONS)],
                year=i,
                light_seed=int(rng.integers(1 << 30)),
                sensor=_SENSORS[int(rng.integers(len(_SENSORS)))],
            )
            for i in range(config.renders)
        ]
        valid = np.ones(images[0].shape[:2], bool)
        validates = number >= config.worlds
        gsd_m = config.gsd_m or _WORLD_GSD_M
        yield _make(f"landscape {seed}", images, valid, gsd_m, config, validates, source)


def _read_same_window(
    files: list[Path], gsd_m: float
) -> tuple[list[Image], npt.NDArray[np.bool_], float]:
    with_first = open_ground(str(files[0]))
    frame = LocalFrame(*with_first.bounds.center)
    gsd_m = max(gsd_m, with_first.gsd_m)
    west, south, east, north = frame.local_bounds(with_first.bounds)
    width, height = round((east - west) / gsd_m), round((north - south) / gsd_m)
    window = GroundWindow(west, north, gsd_m, width, height)
    images, valid = [], np.ones((height, width), bool)
    for file in files:
        ground = with_first if file == files[0] else open_ground(str(file))
        image = ground.read(frame, window)
        ground.close()
        images.append(image.rgb)
        valid &= image.valid & (image.rgb.max(axis=2) > 0)
    return images, valid, gsd_m


def _stacks(config: GroundConfig, data: Path | None, source: int) -> Iterator[Ground]:
    dates = _matches(config, data)
    if len({len(files) for files in dates}) != 1:
        counts = ", ".join(f"{p}: {len(f)}" for p, f in zip(config.files, dates, strict=True))
        raise InputError(f"a stack needs the same number of files at each date; found {counts}")
    for number, files in enumerate(zip(*dates, strict=True)):
        images, valid, gsd_m = _read_same_window(list(files), config.gsd_m)
        yield from _split(files[0].name, images, valid, gsd_m, config, number, source)


def _rasters(config: GroundConfig, data: Path | None, source: int) -> Iterator[Ground]:
    files = [file for group in _matches(config, data) for file in group]
    for number, file in enumerate(files):
        images, valid, gsd_m = _read_same_window([file], config.gsd_m)
        yield from _split(file.name, images, valid, gsd_m, config, number, source)


def _pictures(config: GroundConfig, data: Path | None, source: int) -> Iterator[Ground]:
    files = [file for group in _matches(config, data) for file in group]
    held: list[bool | None] | None = None
    if config.split == "apart":
        assert data is not None, "_matches refuses a recipe of files without a folder"
        places_m = read_positions(data / config.positions, files)
        height, width = read_rgb(files[0]).shape[:2]
        diagonal_m = config.gsd_m * math.hypot(height, width)
        held = split_apart(places_m, config.split_value, diagonal_m)
    for number, file in enumerate(files):
        if held is not None and held[number] is None:
            continue
        image, gsd_m = _coarser(read_rgb(file), config)
        valid = image.max(axis=2) > 0
        if held is None:
            yield from _split(file.name, [image], valid, gsd_m, config, number, source)
        else:
            yield _make(file.name, [image], valid, gsd_m, config, bool(held[number]), source)


def _coarser(image: Image, config: GroundConfig) -> tuple[Image, float]:
    """Shrink a picture that is finer than what trains; return it and its pixel's size."""
    if config.read_gsd_m <= config.gsd_m:
        return image, config.gsd_m
    height, width = image.shape[:2]
    columns = max(1, round(width * config.gsd_m / config.read_gsd_m))
    rows = max(1, round(height * config.gsd_m / config.read_gsd_m))
    small = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), config.gsd_m * width / columns


def _xyz(config: GroundConfig, data: Path | None, source: int) -> Iterator[Ground]:
    """Join tiles that touch into mosaics (`folder/z/x/y.png`, y from the north)."""
    folders = [folder for group in _matches(config, data) for folder in group if folder.is_dir()]
    for folder in folders:
        tiles = {
            (int(file.parent.name), int(file.stem)): file
            for file in sorted((folder / str(config.zoom)).glob("*/*.png"))
        }
        if not tiles:
            raise InputError(f"{folder}: holds no tiles {config.zoom}/x/y.png")
        x0, y0 = (min(place[i] for place in tiles) for i in (0, 1))
        x1, y1 = (max(place[i] for place in tiles) + 1 for i in (0, 1))
        taken = np.zeros((y1 - y0, x1 - x0), np.uint8)
        for x, y in tiles:
            taken[y - y0, x - x0] = 1
        _, labels, boxes, _ = cv2.connectedComponentsWithStats(taken, connectivity=4)
        for number in range(1, len(boxes)):
            left, top, columns, rows, _ = (int(v) for v in boxes[number])
            mosaic = np.zeros((rows * TILE_SIZE_PX, columns * TILE_SIZE_PX, 3), np.uint8)
            valid = np.zeros(mosaic.shape[:2], bool)
            for row in range(rows):
                for column in range(columns):
                    if labels[top + row, left + column] != number:
                        continue
                    tile = read_rgb(tiles[x0 + left + column, y0 + top + row])
                    cut = np.s_[
                        row * TILE_SIZE_PX : (row + 1) * TILE_SIZE_PX,
                        column * TILE_SIZE_PX : (column + 1) * TILE_SIZE_PX,
                    ]
                    mosaic[cut] = tile
                    valid[cut] = tile.max(axis=2) > 0
            gsd_m = mercator_gsd_m(_tile_lat_deg(y0 + top, config.zoom), config.zoom)
            name = f"{folder.name} {config.zoom}/{x0 + left}/{y0 + top}"
            yield from _split(name, [mosaic], valid, gsd_m, config, number, source)


def _tile_lat_deg(y: int, zoom: int) -> float:
    half_world_m = np.pi * 6378137.0
    lat, _ = wgs84_from_mercator(0.0, half_world_m * (1 - 2 * y / (1 << zoom)))
    return float(lat)


_LOADERS: dict[str, Callable[[GroundConfig, Path | None, int], Iterator[Ground]]] = {
    "landscape": _landscapes,
    "stack": _stacks,
    "rasters": _rasters,
    "pictures": _pictures,
    "xyz": _xyz,
}
