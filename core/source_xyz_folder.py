"""A folder of tiles, `z/x/y.png` (or .jpg, .jpeg, .webp), rows counting from the north."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import InputError, IntegrityError
from .tile_image import MAX_TILE_BYTES, tile_origin, tile_size_px
from .tile_pyramid import MAX_ZOOM, tiles_bounds

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_TMS_FILE = "tilemapresource.xml"  # gdal2tiles writes it where rows count from the south


def is_xyz_folder(path: Path) -> bool:
    """Tell whether a folder looks like `z/x/y.png`: it holds a number that holds a number."""
    return any(_numbers(path / str(zoom), folders=True) for zoom in _numbers(path, folders=True))


class XyzFolderReader:
    """A folder of tiles as a `TileReader`.

    Its zooms are the finest one and those that follow it without a gap; its bounds are those of
    the finest zoom's tiles.

    Raises:
        InputError: the folder cannot be read, holds no tiles, or counts rows from the south.
        IntegrityError: a name is outside its zoom, or the first tile is no picture.
    """

    attribution = ""  # a folder has no place for one

    def __init__(self, folder: Path) -> None:
        """List the folder."""
        self.name = str(folder)
        self._folder = folder
        if (folder / _TMS_FILE).exists():
            raise InputError(
                f"{folder}: holds {_TMS_FILE}, so its rows count from the south; "
                "make it again with gdal2tiles --xyz"
            )
        zooms = _numbers(folder, folders=True)
        if not zooms or zooms[-1] > MAX_ZOOM:
            raise InputError(
                f"{folder}: holds no folders of zooms 0 to {MAX_ZOOM}, expected z/x/y.png"
            )
        self.min_zoom = self.max_zoom = zooms[-1]
        while self.min_zoom - 1 in zooms:
            self.min_zoom -= 1
        x0, y0, x1, y1, first = self._extent()
        self.bounds = tiles_bounds(self.max_zoom, x0, y0, x1 + 1, y1 + 1)
        data = self.tile(self.max_zoom, *first) or b""
        self.tile_px = tile_size_px(data, tile_origin(self.name, self.max_zoom, *first))

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        """Return a tile, or None where there is no file.

        Raises:
            IntegrityError: the file is too large for a tile.
            InputError: the file cannot be read.
        """
        for suffix in _SUFFIXES:
            path = self._folder / str(zoom) / str(x) / f"{y}{suffix}"
            try:
                with path.open("rb") as file:
                    data = file.read(MAX_TILE_BYTES + 1)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error.strerror})") from None
            if len(data) > MAX_TILE_BYTES:
                raise IntegrityError(
                    f"{path}: has more than {MAX_TILE_BYTES} bytes, too large for a tile"
                )
            return data
        return None

    def close(self) -> None:
        """Nothing to release."""

    def _extent(self) -> tuple[int, int, int, int, tuple[int, int]]:
        """Return the least and greatest column and row of the finest zoom, and one tile of it."""
        zoom_folder = self._folder / str(self.max_zoom)
        rows = {
            x: (ys[0], ys[-1])
            for x in _numbers(zoom_folder, folders=True)
            if (ys := _numbers(zoom_folder / str(x), folders=False))
        }
        if not rows:
            raise InputError(f"{self._folder}: holds no tiles {self.max_zoom}/x/y.png")
        x0, x1 = min(rows), max(rows)
        y0, y1 = min(low for low, _ in rows.values()), max(high for _, high in rows.values())
        if max(x1, y1) >= 1 << self.max_zoom:
            raise IntegrityError(
                f"{self._folder}: column {x1} or row {y1} is outside zoom {self.max_zoom}; "
                "expected z/x/y.png"
            )
        return x0, y0, x1, y1, (x0, rows[x0][0])


def _numbers(folder: Path, *, folders: bool) -> list[int]:
    """Return, sorted, the numbers that name the folders or the pictures in a folder."""
    suffixes = ("",) if folders else _SUFFIXES
    numbers = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                path = Path(entry.name)
                if path.suffix in suffixes and _is_number(path.stem) and entry.is_dir() == folders:
                    numbers.add(int(path.stem))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None
    return sorted(numbers)


def _is_number(text: str) -> bool:
    """Tell whether a name is a tile's number as `tile` spells it, so not `007`."""
    plain = text.isascii() and text.isdigit() and len(text) <= 10
    return plain and text == str(int(text))
