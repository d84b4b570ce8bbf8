"""Tile pyramids in Web Mercator as imagery of the ground: one reader interface, one warp.

Tiles count as in XYZ: y from the north. A missing tile is a hole; no other zoom stands in for it,
because what it showed would be coarser than the source says.
"""

from __future__ import annotations

import html
import math
import re
import threading
from collections import OrderedDict
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from .errors import InputError
from .geo import (
    MERCATOR_MAX_LAT_DEG,
    TILE_SIZE_PX,
    BBox,
    Floats,
    LocalFrame,
    mercator_from_wgs84,
    mercator_gsd_m,
    wgs84_from_mercator,
)
from .ground import GroundImage, GroundWindow
from .tile_image import RGBA, decode_tile, one_line, tile_origin

MAX_ZOOM = 30

_HALF_WORLD_M = float(mercator_from_wgs84(0.0, 180.0)[0])
# Files round the limit of Web Mercator in several ways, mostly outwards.
_LAT_SLACK_DEG = 0.01
# A box that ends at the edge of a tile does not touch the next, however its degrees are rounded.
_EDGE_TILES = 1e-6
# A zoom this much coarser than the window still serves: the next one costs four times the tiles.
_SCALE_SLACK = 1.02
# Beyond this many source pixels per window pixel, one bilinear look-up each would alias.
_SUPERSAMPLE_ABOVE = 1.25
# Windows are drawn in blocks, so that memory does not grow with them.
_BLOCK_PX = 512
_MAX_MOSAIC_PX = 8192
# Projections are exact at every so many pixels and bilinear between (wrong by less than 0.01 px).
_GRID_PX = 64
CACHE_BYTES = 128 << 20  # of decoded tiles that are kept
_LOCKS = 16


class TileReader(Protocol):
    """Encoded tiles of 256 or 512 px by zoom, column and row; several threads may read."""

    name: str  # what the user would recognise, without secrets
    attribution: str
    bounds: BBox
    min_zoom: int
    max_zoom: int
    tile_px: int

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        """Return a PNG, JPEG or WebP, or None where there is none; y counts from the north."""
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...


def pyramid_bounds(name: str, west: float, south: float, east: float, north: float) -> BBox:
    """Return the bounds of a pyramid, its latitudes trimmed to the edge of Web Mercator.

    Raises:
        InputError: they cross the antimeridian, lie beyond Web Mercator, or are no box.
    """
    if -180 <= east < west <= 180:
        raise InputError(
            f"{name}: its bounds cross the antimeridian (west {west:g}, east {east:g}); "
            "such imagery is not supported, cut it in two there"
        )
    edge = MERCATOR_MAX_LAT_DEG
    for lat in (south, north):
        if edge + _LAT_SLACK_DEG < abs(lat) <= 90:
            raise InputError(
                f"{name}: its bounds reach latitude {lat:g}, but Web Mercator ends at "
                f"{edge:.2f} degrees; correct its bounds"
            )
    try:
        box = BBox(west, south, east, north)
        return BBox(box.west, max(box.south, -edge), box.east, min(box.north, edge))
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def tile_range(bounds: BBox, zoom: int) -> tuple[int, int, int, int]:
    """Return first column, first row, and the column and row after the last that touch a box."""
    x, y = mercator_from_wgs84([bounds.north, bounds.south], [bounds.west, bounds.east])
    tiles = 1 << zoom
    columns = (x / _HALF_WORLD_M + 1) / 2 * tiles
    rows = (1 - y / _HALF_WORLD_M) / 2 * tiles
    first = (math.floor(side[0] + _EDGE_TILES) for side in (columns, rows))
    x0, y0 = (max(0, min(tiles - 1, at)) for at in first)
    x1, y1 = (min(tiles, math.ceil(side[1] - _EDGE_TILES)) for side in (columns, rows))
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def tiles_bounds(zoom: int, x0: int, y0: int, x1: int, y1: int) -> BBox:
    """Return the box of tiles from column x0 and row y0 up to, without, column x1 and row y1."""
    tiles = 1 << zoom
    lat, _ = wgs84_from_mercator(0.0, [(1 - 2 * y / tiles) * _HALF_WORLD_M for y in (y0, y1)])
    return BBox(x0 / tiles * 360 - 180, float(lat[1]), x1 / tiles * 360 - 180, float(lat[0]))


def plain_attribution(text: object) -> str:
    """Return an attribution as one line of text; tile sets hold it as HTML."""
    return (
        one_line(html.unescape(re.sub(r"<[^>]*>", "", text)), 500) if isinstance(text, str) else ""
    )


class PyramidGround:
    """A tile pyramid as a `GroundSource`; several threads may read."""

    def __init__(self, reader: TileReader, cache_bytes: int = CACHE_BYTES) -> None:
        """Serve a reader's tiles, keeping so many bytes of them; `close` closes the reader."""
        self._most_cached_bytes = cache_bytes
        self.name = reader.name
        self.attribution = reader.attribution
        self.bounds = reader.bounds
        self._reader = reader
        self._cache: OrderedDict[tuple[int, int, int, int], RGBA | None] = OrderedDict()
        self._cache_bytes = 0
        self._cache_lock = threading.Lock()
        # One thread at a time fetches a tile; others that want it find it in the cache.
        self._fetch_locks = [threading.Lock() for _ in range(_LOCKS)]
        self.gsd_m = self._tile_gsd_m(self.bounds.center[0], reader.max_zoom)

    def _tile_gsd_m(self, lat_deg: float, zoom: int) -> float:
        return mercator_gsd_m(lat_deg, zoom) * TILE_SIZE_PX / self._reader.tile_px

    def read(self, frame: LocalFrame, window: GroundWindow) -> GroundImage:
        """Return the window, area-averaged when coarser than native; invalid pixels are black.

        Raises:
            IntegrityError: a tile is no picture, is damaged, or has another size.
            InputError: the window is too coarse for the pyramid's coarsest zoom.
            S4GError: a tile cannot be fetched.
        """
        rgba = np.zeros((window.height_px, window.width_px, 4), np.uint8)
        zoom, shrink, samples = self._level(frame, window)
        for top in range(0, window.height_px, _BLOCK_PX):
            for left in range(0, window.width_px, _BLOCK_PX):
                target = rgba[top : top + _BLOCK_PX, left : left + _BLOCK_PX]
                block = GroundWindow(
                    window.west_m + left * window.gsd_m,
                    window.north_m - top * window.gsd_m,
                    window.gsd_m / samples,
                    target.shape[1] * samples,
                    target.shape[0] * samples,
                )
                drawn = self._draw(frame, block, zoom, shrink)
                if drawn is not None:
                    target[:] = _shrunk(drawn, samples)
        valid = rgba[..., 3] >= 128
        return GroundImage(_straight(rgba, valid), valid)

    @property
    def zooms(self) -> tuple[int, int]:
        """Lowest and highest zoom."""
        return self._reader.min_zoom, self._reader.max_zoom

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        """Return an encoded tile as it is held, or None where there is none.

        Raises:
            IntegrityError: the archive is damaged there.
        """
        return self._reader.tile(zoom, x, y)

    def close(self) -> None:
        """Close the reader."""
        self._cache.clear()
        self._reader.close()

    def _level(self, frame: LocalFrame, window: GroundWindow) -> tuple[int, int, int]:
        """Return the zoom to read, the power of two to shrink its tiles by, samples per pixel."""
        reader = self._reader
        middle_east = window.west_m + window.width_px * window.gsd_m / 2
        middle_north = window.north_m - window.height_px * window.gsd_m / 2
        lat = float(frame.to_wgs84(middle_east, middle_north)[0])
        lat = max(-MERCATOR_MAX_LAT_DEG, min(MERCATOR_MAX_LAT_DEG, lat))
        zoom = reader.min_zoom
        while zoom < reader.max_zoom and self._tile_gsd_m(lat, zoom) > window.gsd_m * _SCALE_SLACK:
            zoom += 1
        ratio = window.gsd_m / self._tile_gsd_m(lat, zoom)
        shrink = 1
        while ratio >= 2 and shrink < reader.tile_px:
            ratio, shrink = ratio / 2, shrink * 2
        if ratio >= 2:
            raise InputError(
                f"{self.name}: a window of {window.gsd_m:g} m/px is too coarse for its coarsest "
                f"zoom {zoom}; ask for a finer window"
            )
        return zoom, shrink, 2 if ratio > _SUPERSAMPLE_ABOVE else 1

    def _draw(self, frame: LocalFrame, block: GroundWindow, zoom: int, shrink: int) -> RGBA | None:
        """Return a block, bilinear, as premultiplied RGBA; None where there is no imagery."""
        side = self._reader.tile_px // shrink
        at = _mosaic_pixels(frame, block, side << zoom)
        low = np.maximum(np.floor(at.min(axis=(1, 2))), 0).astype(int)
        high = np.minimum(np.floor(at.max(axis=(1, 2))) + 2, side << zoom).astype(int)
        if (high <= low).any():
            return None
        if (high - low).max() > _MAX_MOSAIC_PX:
            raise InputError(
                f"{self.name}: a window reaches too far towards a pole to be drawn at one zoom; "
                "ask for a smaller one"
            )
        mosaic = self._mosaic(zoom, shrink, *low.tolist(), *high.tolist())
        if mosaic is None:
            return None
        x, y = (at - low[:, None, None]).astype(np.float32)
        drawn = cv2.remap(mosaic, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return np.asarray(drawn, np.uint8)

    def _mosaic(
        self, zoom: int, shrink: int, left: int, top: int, right: int, bottom: int
    ) -> RGBA | None:
        """Return the pixels of a box of the shrunk zoom; None where it holds no tile."""
        side = self._reader.tile_px // shrink
        mosaic: RGBA | None = None
        for y in range(top // side, (bottom - 1) // side + 1):
            for x in range(left // side, (right - 1) // side + 1):
                tile = self._tile(zoom, x, y, shrink)
                if tile is None:
                    continue
                if mosaic is None:
                    mosaic = np.zeros((bottom - top, right - left, 4), np.uint8)
                x0, y0 = max(left, x * side), max(top, y * side)
                x1, y1 = min(right, (x + 1) * side), min(bottom, (y + 1) * side)
                part = tile[y0 - y * side : y1 - y * side, x0 - x * side : x1 - x * side]
                mosaic[y0 - top : y1 - top, x0 - left : x1 - left] = part
        return mosaic

    def _tile(self, zoom: int, x: int, y: int, shrink: int) -> RGBA | None:
        key = (zoom, x, y, shrink)
        with self._fetch_locks[hash((zoom, x, y)) % _LOCKS]:
            with self._cache_lock:
                if key in self._cache:
                    self._cache.move_to_end(key)
                    return self._cache[key]
            data = self._reader.tile(zoom, x, y)
            tile = None
            if data is not None:
                origin = tile_origin(self.name, zoom, x, y)
                tile = _shrunk(decode_tile(data, origin, self._reader.tile_px), shrink)
            with self._cache_lock:
                self._cache[key] = tile
                self._cache_bytes += _bytes_of(tile)
                while self._cache_bytes > self._most_cached_bytes:
                    self._cache_bytes -= _bytes_of(self._cache.popitem(last=False)[1])
            return tile


def _bytes_of(tile: RGBA | None) -> int:
    return 128 + (0 if tile is None else tile.nbytes)  # holes take room too


def _mosaic_pixels(frame: LocalFrame, window: GroundWindow, world_px: int) -> Floats:
    """Return where a window's pixels lie in a square world of pixels, centres at integers.

    (2, rows, columns): x and y.
    """
    across, down = _hats(window.width_px), _hats(window.height_px)
    columns, rows = (np.arange(weights.shape[1]) * _GRID_PX for weights in (across, down))
    east, north = np.meshgrid(
        window.west_m + (columns + 0.5) * window.gsd_m,
        window.north_m - (rows + 0.5) * window.gsd_m,
    )
    lat, lon = frame.to_wgs84(east, north)
    # Beyond the antimeridian the world does not begin again: bounds never cross it.
    lon = frame.lon_deg + (lon - frame.lon_deg + 180) % 360 - 180
    x, y = mercator_from_wgs84(lat, lon)
    scale = world_px / (2 * _HALF_WORLD_M)
    nodes = np.stack([(x + _HALF_WORLD_M) * scale - 0.5, (_HALF_WORLD_M - y) * scale - 0.5])
    return np.asarray(down @ nodes @ across.T, np.float64)


def _hats(count: int) -> npt.NDArray[np.float64]:
    """Return the (count, nodes) weights that interpolate linearly between nodes."""
    at = np.arange(count) / _GRID_PX
    nodes = np.arange(int(at[-1]) + 2)
    return np.maximum(0.0, 1.0 - np.abs(at[:, None] - nodes))


def _shrunk(image: RGBA, factor: int) -> RGBA:
    if factor == 1:
        return image
    size = (image.shape[1] // factor, image.shape[0] // factor)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _straight(rgba: RGBA, valid: npt.NDArray[np.bool_]) -> RGBA:
    """Return the colours of premultiplied pixels; black where they are not valid."""
    rgb = np.ascontiguousarray(rgba[..., :3])
    rgb[~valid] = 0
    edge = valid & (rgba[..., 3] < 255)
    if edge.any():
        colours = rgb[edge] * (255.0 / rgba[edge][:, 3:])
        rgb[edge] = np.minimum(np.rint(colours), 255).astype(np.uint8)
    return rgb
