"""Tiles from a server by a URL template (XYZ, TMS, quadkey, WMTS), kept in a cache on disk.

Tiles stay in the cache until the user deletes its folder. That a server has no tile is remembered
for a week, so that a long job which is run again does not ask for every hole anew.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from .. import __version__
from .errors import InputError, S4GError
from .files import cache_folder, sha256_bytes, write_bytes
from .geo import BBox
from .tile_fetch import TileFetcher
from .tile_image import MAX_TILE_BYTES, is_whole, tile_origin, tile_size_px
from .tile_pyramid import MAX_ZOOM, plain_attribution, pyramid_bounds, tile_range
from .tile_template import check_template, fill_template, masked_template, public_host

DEFAULT_RATE_PER_S = 5.0
DEFAULT_RETRIES = 5

_HOLE_LASTS_S = 7 * 24 * 3600.0
_MAX_RATE_PER_S = 1000.0
_MAX_RETRIES = 20


@dataclass(frozen=True)
class UrlOptions:
    """What a template does not say.

    Attributes:
        attribution: credit that the imagery's terms ask for; required.
        min_zoom: coarsest zoom to use.
        max_zoom: finest zoom to use.
        bounds: the region wanted; nothing outside it is asked for.
        rate_per_s: requests per second, at most.
        user_agent_contact: an address or page that tells the server's operator who asks.
        cache: folder for tiles; None is that of the user's caches.
        permission: the user states to have permission for bulk download.
        retries: how often a failed request is repeated.
    """

    attribution: str
    min_zoom: int
    max_zoom: int
    bounds: BBox
    rate_per_s: float = DEFAULT_RATE_PER_S
    user_agent_contact: str = ""
    cache: Path | None = None
    permission: bool = False
    retries: int = DEFAULT_RETRIES

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            InputError: a value is missing or out of range; the message names the option.
        """
        if not plain_attribution(self.attribution):
            raise InputError(
                'tiles from a URL need a credit that a pack can show; pass --attribution "…" with '
                "the text that the imagery's terms ask for"
            )
        if not 0 <= self.min_zoom <= self.max_zoom <= MAX_ZOOM:
            raise InputError(
                f"--zoom {self.min_zoom}-{self.max_zoom}: expected two zooms from 0 to {MAX_ZOOM}, "
                "the coarser first"
            )
        if not 0 < self.rate_per_s <= _MAX_RATE_PER_S:
            raise InputError(
                f"--rate {self.rate_per_s:g}: expected requests per second, more than 0 and at "
                f"most {_MAX_RATE_PER_S:g}"
            )
        if not 0 <= self.retries <= _MAX_RETRIES:
            raise InputError(f"--retries {self.retries}: expected 0 to {_MAX_RETRIES}")
        contact = self.user_agent_contact
        if not (contact.isascii() and contact.isprintable()):
            raise InputError(f"--contact {contact!r}: expected printable ASCII on one line")


class UrlReader:
    """A server's tiles as a `TileReader`; several threads may read.

    Raises:
        InputError: the template is wrong, or its host's terms forbid bulk download and
            `permission` is not given.
        S4GError: the first tile cannot be fetched.
    """

    def __init__(self, template: str, options: UrlOptions) -> None:
        """Check the template and fetch one tile from the middle, to see that all is well."""
        check_template(template)
        _check_permission(template, options.permission)
        self.name = masked_template(template)
        self.attribution = plain_attribution(options.attribution)
        sides = options.bounds
        self.bounds = pyramid_bounds(self.name, sides.west, sides.south, sides.east, sides.north)
        self.min_zoom, self.max_zoom = options.min_zoom, options.max_zoom
        self._template = template
        self._cache = (options.cache or cache_folder("tiles")) / sha256_bytes(template.encode())
        self._write_lock = threading.Lock()
        contact = f" (+{options.user_agent_contact})" if options.user_agent_contact else ""
        self._fetcher = TileFetcher(
            f"s4g/{__version__}{contact}", options.rate_per_s, options.retries
        )
        try:
            self.tile_px = self._tile_px()
        except BaseException:
            self.close()
            raise

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        """Return a tile from the cache, else from the server; None where it has none.

        Raises:
            S4GError: the server refuses, stays busy, is not reached, or sends no picture; or the
                cache cannot be written.
        """
        if not self.min_zoom <= zoom <= self.max_zoom:
            return None
        x0, y0, x1, y1 = tile_range(self.bounds, zoom)
        if not (x0 <= x < x1 and y0 <= y < y1):
            return None
        path = self._cache / str(zoom) / str(x) / f"{y}.tile"
        cached = _cached(path)
        if cached is not None:
            return cached or None
        url = fill_template(self._template, zoom, x, y)
        data = self._fetcher.fetch(url, tile_origin(self.name, zoom, x, y))
        self._keep(path, data or b"")
        return data

    def close(self) -> None:
        """Close the connections."""
        self._fetcher.close()

    def _keep(self, path: Path, data: bytes) -> None:
        with self._write_lock:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise S4GError(
                    f"{path.parent}: the cache of tiles cannot be written ({error.strerror}); "
                    "choose another with --cache"
                ) from None
            write_bytes(path, data, overwrite=True)

    def _tile_px(self) -> int:
        """Return the side of a tile in the middle; where none is there, that of most servers."""
        lat, lon = self.bounds.center
        part = BBox(lon, self.bounds.south, self.bounds.east, lat)
        for zoom in range(self.max_zoom, self.min_zoom - 1, -1):
            x, y, _, _ = tile_range(part, zoom)
            data = self.tile(zoom, x, y)
            if data is not None:
                return tile_size_px(data, tile_origin(self.name, zoom, x, y))
        return 512 if "@2x" in self._template else 256


def _cached(path: Path) -> bytes | None:
    """Return a tile of the cache, empty for a hole; None where it has none that can be used."""
    try:
        if path.stat().st_size > MAX_TILE_BYTES:
            return None
        data = path.read_bytes()
        if data:
            return data if is_whole(data) else None
        return data if time.time() - path.stat().st_mtime < _HOLE_LASTS_S else None
    except OSError:
        return None


def _check_permission(template: str, permission: bool) -> None:
    host = public_host(template)
    if host is not None and not permission:
        raise InputError(
            f"{host}: its terms forbid bulk download of tiles without an agreement; pass "
            "--i-have-permission if you have one, or take imagery that may be copied"
        )
