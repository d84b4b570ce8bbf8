"""The live map's ground: Web Mercator tiles out of a pack, as they lie there or cut on demand."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from ..core.console import say
from ..core.errors import IntegrityError
from ..core.geo import BBox, LocalFrame, mercator_gsd_m
from ..core.ground import ArrayGround, GroundSource
from ..core.tile_pyramid import PyramidGround, tile_range
from ..tilepacks.imagery_tiles import encode_tile, read_tiles
from ..tilepacks.reader import Pack

_MOST_BYTES = 16 << 20  # of tiles that were cut
_HOLE_BYTES = 128  # that a place without a tile takes in the memory of those
_QUALITY = 80  # of WebP
# Tiles are cut down to the zoom at which the region fills so many at most: farther out it is a
# speck, and the browser shrinks what it has.
_FEWEST = 4
_COARSEST = 2  # zooms below the finest that a picture in memory is cut for, at least


@dataclass(frozen=True)
class Zooms:
    """Lowest and highest zoom at which there are tiles."""

    low: int
    high: int


class MapTiles:
    """Tiles of a pack's imagery; of its picture of the region where it has none; else no tiles.

    Imagery is handed out as it lies in the pack, byte for byte. The picture is cut when a tile is
    asked for first, and a bounded number of tiles is kept. Several threads may ask.

    Attributes:
        zooms: None where the pack has neither.
    """

    def __init__(self, pack: Pack) -> None:
        """Find out what there is; nothing is decoded yet.

        Raises:
            IntegrityError: the imagery is damaged.
        """
        self._pack = pack
        self._frame = LocalFrame(pack.frame.lat_deg, pack.frame.lon_deg)
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int, int], bytes | None] = OrderedDict()
        self._kept_bytes = 0
        self._cut_from: GroundSource | None = None
        imagery = pack.imagery()
        self._imagery = imagery if isinstance(imagery, PyramidGround) else None
        record = pack.manifest.overview
        self.zooms: Zooms | None = None
        if self._imagery is not None:
            self.zooms = Zooms(*self._imagery.zooms)
        elif record is not None:
            self.zooms = _zooms_of_picture(pack.bounds, record.gsd_m)

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        """Return a WebP of 256 px, or None where there is nothing to see; y from the north.

        What turns out to be damaged is told once and shown no more.
        """
        if self.zooms is None or not self.zooms.low <= zoom <= self.zooms.high:
            return None
        if not (0 <= x < 1 << zoom and 0 <= y < 1 << zoom):
            return None
        try:
            if self._imagery is not None:
                return self._imagery.tile(zoom, x, y)
            return self._cut_or_kept(zoom, x, y)
        except IntegrityError as error:
            say(f"note: {error}; the map shows no imagery any more")
            self.zooms = None
            return None

    def close(self) -> None:
        """Release the imagery."""
        with self._lock:
            self.zooms = None
            self._kept.clear()
            if self._imagery is not None:
                self._imagery.close()
                self._imagery = None

    def _cut_or_kept(self, zoom: int, x: int, y: int) -> bytes | None:
        key = (zoom, x, y)
        with self._lock:  # one tile at a time: cutting must leave the cores to the fixes
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            data = self._cut(zoom, x, y)
            self._kept[key] = data
            self._kept_bytes += _size(data)
            while self._kept_bytes > _MOST_BYTES:
                self._kept_bytes -= _size(self._kept.popitem(last=False)[1])
            return data

    def _cut(self, zoom: int, x: int, y: int) -> bytes | None:
        left, top, right, bottom = tile_range(self._pack.bounds, zoom)
        if not (left <= x < right and top <= y < bottom):
            return None
        if self._cut_from is None:
            overview = self._pack.overview()
            if overview is None:
                return None
            valid = np.ones(overview[0].shape[:2], np.bool_)
            self._cut_from = ArrayGround(overview[0], valid, self._frame, *overview[1:])
        columns, rows = range(x, x + 1), range(y, y + 1)
        ground = read_tiles(self._cut_from, self._frame, zoom, columns, rows)
        return encode_tile(ground.rgb, ground.valid, _QUALITY)


def _zooms_of_picture(bounds: BBox, gsd_m: float) -> Zooms:
    """Return the zooms at which a picture of the region is worth cutting."""
    lat_deg = bounds.center[0]
    high = max(_COARSEST, math.ceil(math.log2(mercator_gsd_m(lat_deg, 0) / gsd_m) - 0.1))
    low = high - _COARSEST
    while low > 0 and _count(bounds, low) > _FEWEST:
        low -= 1
    return Zooms(low, high)


def _count(bounds: BBox, zoom: int) -> int:
    left, top, right, bottom = tile_range(bounds, zoom)
    return (right - left) * (bottom - top)


def _size(tile: bytes | None) -> int:
    return _HOLE_BYTES if tile is None else len(tile)
