"""Imagery of a recipe's files, decoded and split by place."""

from __future__ import annotations

import itertools
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
from ..core.sources import open_ground
from .photo_split import read_positions, split_apart
from .recipe import GroundConfig

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Imagery:
    """One piece of ground, north-up, at one or several dates.

    Attributes:
        name: for messages and the model card.
        gsd_m: ground size of a pixel.
        images: one (H, W, 3) uint8 picture a date.
        valid: (H, W) bool, pixels that every date has.
        validates: whether the ground is held out for validation.
    """

    name: str
    gsd_m: float
    images: tuple[Image, ...]
    valid: npt.NDArray[np.bool_]
    validates: bool


def read_imagery(config: GroundConfig, data: Path | None) -> Iterator[Imagery]:
    """Read the files of a source below the data folder, one after the other.

    Raises:
        InputError: files do not fit together, cannot be read, or show nothing.
    """
    yield from _READERS[config.kind](config, data)


def missing_files(config: GroundConfig, data: Path | None) -> list[str]:
    """Return the patterns of a source that match nothing below the data folder.

    Raises:
        InputError: a pattern does not start at the data folder.
    """
    wanted = [pattern for pattern in (*config.files, config.positions) if pattern]
    return [p for p in wanted if data is None or next(_glob(data, p), None) is None]


def _split(
    name: str,
    images: list[Image],
    valid: npt.NDArray[np.bool_],
    gsd_m: float,
    config: GroundConfig,
    number: int,
) -> Iterator[Imagery]:
    if config.split == "west":
        cut = round(valid.shape[1] * config.split_value)
        for part, validates in ((np.s_[:, :cut], False), (np.s_[:, cut:], True)):
            side = "east" if validates else "west"
            pieces = tuple(image[part] for image in images)
            yield Imagery(f"{name} ({side})", gsd_m, pieces, valid[part], validates)
        return
    every = max(1, int(config.split_value))
    validates = config.split == "val" or (config.split == "every" and number % every == every - 1)
    yield Imagery(name, gsd_m, tuple(images), valid, validates)


def _matches(config: GroundConfig, data: Path | None) -> list[list[Path]]:
    assert data is not None, "check_sources refuses a recipe of files without a folder"
    return [sorted(_glob(data, pattern)) for pattern in config.files]


def _glob(data: Path, pattern: str) -> Iterator[Path]:
    if Path(pattern).is_absolute():
        raise InputError(
            f"[[ground]] files {pattern}: is a path of its own; write it from the folder that "
            "--data names"
        )
    return data.glob(pattern)


def _refuse_blank(name: str | Path, image: Image, usable: npt.NDArray[np.bool_]) -> None:
    """Refuse a picture from which nothing can be learnt."""
    if not usable.any():
        raise InputError(
            f"{name}: all {usable.size:,} pixels are nodata, NaN or black; replace the file or "
            "take it out of [[ground]]"
        )
    first = image[np.unravel_index(int(usable.argmax()), usable.shape)]
    if not (image != first).any(axis=2)[usable].any():
        colour = ", ".join(str(value) for value in first)
        raise InputError(
            f"{name}: all pixels have the colour ({colour}); replace the file or take it out of "
            "[[ground]]"
        )


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
        usable = image.valid & (image.rgb.max(axis=2) > 0)
        _refuse_blank(file, image.rgb, usable)
        valid &= usable
    if not valid.any():
        raise InputError(
            f"{files[0]}: not one pixel is valid at all {len(files)} dates of its stack; replace a "
            "date or leave it out"
        )
    return images, valid, gsd_m


def _stacks(config: GroundConfig, data: Path | None) -> Iterator[Imagery]:
    dates = _matches(config, data)
    if len({len(files) for files in dates}) != 1:
        counts = ", ".join(f"{p}: {len(f)}" for p, f in zip(config.files, dates, strict=True))
        raise InputError(f"a stack needs the same number of files at each date; found {counts}")
    for number, files in enumerate(zip(*dates, strict=True)):
        images, valid, gsd_m = _read_same_window(list(files), config.gsd_m)
        yield from _split(files[0].name, images, valid, gsd_m, config, number)


def _rasters(config: GroundConfig, data: Path | None) -> Iterator[Imagery]:
    files = [file for group in _matches(config, data) for file in group]
    for number, file in enumerate(files):
        images, valid, gsd_m = _read_same_window([file], config.gsd_m)
        yield from _split(file.name, images, valid, gsd_m, config, number)


def _pictures(config: GroundConfig, data: Path | None) -> Iterator[Imagery]:
    files = [file for group in _matches(config, data) for file in group]
    held: list[bool | None] | None = None
    if config.split == "apart":
        assert data is not None, "check_sources refuses a recipe of files without a folder"
        places_m = read_positions(data / config.positions, files)
        height, width = read_rgb(files[0]).shape[:2]
        diagonal_m = config.gsd_m * math.hypot(height, width)
        held = split_apart(places_m, config.split_value, diagonal_m)
    for number, file in enumerate(files):
        if held is not None and held[number] is None:
            continue
        image, gsd_m = _coarser(read_rgb(file), config)
        valid = image.max(axis=2) > 0
        _refuse_blank(file, image, valid)
        if held is None:
            yield from _split(file.name, [image], valid, gsd_m, config, number)
        else:
            yield Imagery(file.name, gsd_m, (image,), valid, bool(held[number]))


def _coarser(image: Image, config: GroundConfig) -> tuple[Image, float]:
    """Shrink a picture that is finer than what trains; return it and its pixel's size."""
    if config.read_gsd_m <= config.gsd_m:
        return image, config.gsd_m
    height, width = image.shape[:2]
    columns = max(1, round(width * config.gsd_m / config.read_gsd_m))
    rows = max(1, round(height * config.gsd_m / config.read_gsd_m))
    small = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), config.gsd_m * width / columns


def _xyz(config: GroundConfig, data: Path | None) -> Iterator[Imagery]:
    """Join tiles that touch into mosaics (`folder/z/x/y.png`, y from the north)."""
    folders = [folder for group in _matches(config, data) for folder in group if folder.is_dir()]
    mosaics = itertools.count()
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
            _refuse_blank(f"{folder.parent / name}, {columns} x {rows} tiles", mosaic, valid)
            yield from _split(name, [mosaic], valid, gsd_m, config, next(mosaics))


def _tile_lat_deg(y: int, zoom: int) -> float:
    half_world_m = np.pi * 6378137.0
    lat, _ = wgs84_from_mercator(0.0, half_world_m * (1 - 2 * y / (1 << zoom)))
    return float(lat)


_READERS: dict[str, Callable[[GroundConfig, Path | None], Iterator[Imagery]]] = {
    "stack": _stacks,
    "rasters": _rasters,
    "pictures": _pictures,
    "xyz": _xyz,
}
