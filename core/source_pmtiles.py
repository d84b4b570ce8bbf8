"""PMTiles v3: a tile pyramid in one file or in a section of another, read through `pmtiles`.

The package trusts what it reads: offsets, sizes and compressed data are checked here first.
"""

from __future__ import annotations

import json
import mmap
import threading
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError, IntegrityError, S4GError
from .open_file import Archive
from .tile_image import MAX_TILE_BYTES, begins, tile_origin, tile_size_px
from .tile_pyramid import MAX_ZOOM, plain_attribution, pyramid_bounds

_MAGIC = b"PMTiles"
_VERSION = 3
_HEADER_BYTES = 127
# Writers keep the root below 16 KiB and leaves at some thousand entries; these are far beyond.
_MAX_DIRECTORY_BYTES = 4 << 20
_MAX_METADATA_BYTES = 16 << 20
_MAX_DEPTH = 4  # root and leaves, as the package has it
_MAX_VARINT_BYTES = 10
# In memory an entry takes some 200 bytes, and a directory of 4 MiB may have a million of them.
_CACHED_DIRECTORIES, _CACHED_ENTRIES = 32, 1 << 19
_RASTER = ("PNG", "JPEG", "WEBP")
_VECTOR = ("MVT", "MLT")


def _pmtiles() -> Any:
    try:
        import pmtiles.tile
    except ImportError:
        raise S4GError("reading PMTiles needs the package pmtiles: pip install pmtiles") from None
    return pmtiles.tile


def open_pmtiles(path: Path) -> PmtilesReader:
    """Open a PMTiles file, mapped into memory.

    Raises:
        InputError: the file cannot be read, or as `PmtilesReader`.
        IntegrityError: as `PmtilesReader`.
    """
    try:
        with path.open("rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:  # an empty file cannot be mapped
        raise IntegrityError(f"{path}: is empty; fetch or make it again") from None
    view = memoryview(mapping)
    try:
        return PmtilesReader(view, str(path), mapping)
    except BaseException:
        view.release()
        mapping.close()
        raise


class PmtilesReader:
    """A PMTiles archive in memory as a `TileReader`; several threads may read.

    Raises:
        InputError: it holds vector tiles or another kind that is no PNG, JPEG or WebP, or is
            compressed in a way that is not read.
        IntegrityError: it is no PMTiles v3 archive or is damaged.
    """

    def __init__(self, view: Archive, name: str, mapping: mmap.mmap | None = None) -> None:
        """Check the header and read the root directory and the metadata.

        Args:
            view: the whole archive, bytes; `close` releases it.
            name: the name for errors.
            mapping: what `view` shows, where `close` shall close it too.
        """
        self.name = name
        self._view = view
        self._mapping = mapping
        self._directories: OrderedDict[tuple[int, int], list[Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._header = self._checked_header()
        self.min_zoom, self.max_zoom = self._header["min_zoom"], self._header["max_zoom"]
        sides = (self._header[f"{key}_e7"] / 1e7 for key in ("min_lon", "min_lat"))
        ends = (self._header[f"{key}_e7"] / 1e7 for key in ("max_lon", "max_lat"))
        self.bounds = pyramid_bounds(name, *sides, *ends)
        self.attribution = plain_attribution(self._metadata().get("attribution"))
        self.tile_px = self._tile_px()

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        """Return a tile, or None where the archive has none.

        Raises:
            IntegrityError: the archive is damaged there.
        """
        if not self.min_zoom <= zoom <= self.max_zoom:
            return None
        package = _pmtiles()
        number = package.zxy_to_tileid(zoom, x, y)
        offset, length = self._header["root_offset"], self._header["root_length"]
        for _ in range(_MAX_DEPTH):
            entry = package.find_tile(self._directory(offset, length), number)
            if entry is None:
                return None
            if entry.run_length > 0:
                return self._data(entry, tile_origin(self.name, zoom, x, y))
            offset, length = self._leaf(entry)
        raise self._damaged(f"directories lie more than {_MAX_DEPTH} deep")

    def close(self) -> None:
        """Release the memory, and close the file that `open_pmtiles` opened."""
        self._view.release()
        if self._mapping is not None:
            self._mapping.close()

    def _damaged(self, reason: str) -> IntegrityError:
        return IntegrityError(f"{self.name}: is damaged ({reason}); fetch or make it again")

    def _checked_header(self) -> dict[str, Any]:
        start = bytes(self._view[:_HEADER_BYTES])
        if not start.startswith(_MAGIC):
            raise IntegrityError(
                f"{self.name}: is no PMTiles archive (begins {begins(start)}); "
                "fetch or make it again"
            )
        if len(start) < _HEADER_BYTES:
            raise self._damaged(f"{len(start)} bytes, the header alone has {_HEADER_BYTES}")
        if start[7] != _VERSION:
            raise InputError(
                f"{self.name}: is PMTiles version {start[7]}, expected {_VERSION}; "
                "convert it with pmtiles convert"
            )
        try:
            header: dict[str, Any] = _pmtiles().deserialize_header(start)
        except ValueError as error:  # a compression or a kind of tile that does not exist
            raise self._damaged(str(error)) from None
        self._check_kind(header)
        self._check_sections(header)
        return header

    def _check_kind(self, header: dict[str, Any]) -> None:
        kind = header["tile_type"].name
        if kind not in _RASTER:
            what = "vector tiles" if kind in _VECTOR else "tiles of a kind that is not read"
            raise InputError(
                f"{self.name}: holds {what} ({kind}); give an archive of PNG, JPEG or WebP tiles"
            )
        inside, tiles = header["internal_compression"].name, header["tile_compression"].name
        if inside != "GZIP" or tiles not in ("NONE", "UNKNOWN"):
            raise InputError(
                f"{self.name}: directories compressed by {inside} and tiles by {tiles} are not "
                "read, expected GZIP and NONE; make it again with pmtiles convert"
            )

    def _check_sections(self, header: dict[str, Any]) -> None:
        size = len(self._view)
        limits = {
            "root": _MAX_DIRECTORY_BYTES,
            "metadata": _MAX_METADATA_BYTES,
            "leaf_directory": size,
            "tile_data": size,
        }
        for section, limit in limits.items():
            offset, length = header[f"{section}_offset"], header[f"{section}_length"]
            if offset + length > size or length > limit:
                raise self._damaged(
                    f"{section} of {length} bytes at {offset} does not fit into {size} bytes"
                )
        if not header["min_zoom"] <= header["max_zoom"] <= MAX_ZOOM:
            raise self._damaged(f"zooms {header['min_zoom']} to {header['max_zoom']}")

    def _inflated(self, offset: int, length: int, limit: int) -> bytes:
        """Return a gzip member, at most `limit` bytes of it."""
        decoder = zlib.decompressobj(wbits=31)
        try:
            data = decoder.decompress(bytes(self._view[offset : offset + length]), limit)
        except zlib.error as error:
            raise self._damaged(f"at byte {offset}: {error}") from None
        # A second member would be inflated by the package without any bound.
        if not decoder.eof or decoder.unused_data:
            raise self._damaged(f"at byte {offset}: not one gzip member of {limit} bytes at most")
        return data

    def _directory(self, offset: int, length: int) -> list[Any]:
        key = (offset, length)
        with self._lock:
            if key in self._directories:
                self._directories.move_to_end(key)
                return self._directories[key]
        self._check_varints(self._inflated(offset, length, _MAX_DIRECTORY_BYTES), offset)
        packed = bytes(self._view[offset : offset + length])
        entries: list[Any] = _pmtiles().deserialize_directory(packed)
        with self._lock:
            self._directories[key] = entries
            cached = sum(len(kept) for kept in self._directories.values())
            while len(self._directories) > 1 and (
                cached > _CACHED_ENTRIES or len(self._directories) > _CACHED_DIRECTORIES
            ):
                cached -= len(self._directories.popitem(last=False)[1])
        return entries

    def _check_varints(self, data: bytes, offset: int) -> None:
        """Check a directory: a count, then four numbers an entry, each of 10 bytes at most."""
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) < 0x80)
        count = 0
        if ends.size and ends[0] < _MAX_VARINT_BYTES:
            for i in range(int(ends[0]) + 1):
                count |= (data[i] & 0x7F) << (7 * i)
        lengths = np.diff(ends, prepend=-1)
        whole = ends.size == 1 + 4 * count and ends[-1] == len(data) - 1
        if not whole or lengths.max() > _MAX_VARINT_BYTES:
            raise self._damaged(f"directory at byte {offset}")

    def _leaf(self, entry: Any) -> tuple[int, int]:
        header = self._header
        end, limit = entry.offset + entry.length, header["leaf_directory_length"]
        if not 0 <= entry.offset < end <= limit or entry.length > _MAX_DIRECTORY_BYTES:
            raise self._damaged(f"a leaf directory of {entry.length} bytes at {entry.offset}")
        return header["leaf_directory_offset"] + entry.offset, entry.length

    def _data(self, entry: Any, origin: str) -> bytes:
        header = self._header
        end = entry.offset + entry.length
        if not 0 <= entry.offset < end <= header["tile_data_length"]:
            raise IntegrityError(
                f"{origin} of {entry.length} bytes at {entry.offset} lies outside the archive; "
                "fetch or make it again"
            )
        if entry.length > MAX_TILE_BYTES:
            raise IntegrityError(
                f"{origin} has {entry.length} bytes, expected at most {MAX_TILE_BYTES}"
            )
        start = header["tile_data_offset"]
        return bytes(self._view[start + entry.offset : start + end])

    def _metadata(self) -> dict[str, Any]:
        offset, length = self._header["metadata_offset"], self._header["metadata_length"]
        if length == 0:
            return {}
        try:
            metadata = json.loads(self._inflated(offset, length, _MAX_METADATA_BYTES))
        except (ValueError, RecursionError):
            raise self._damaged("metadata is no JSON") from None
        return metadata if isinstance(metadata, dict) else {}

    def _tile_px(self) -> int:
        """Return the side of a tile of the finest zoom, which the last entries hold."""
        offset, length = self._header["root_offset"], self._header["root_length"]
        for _ in range(_MAX_DEPTH):
            entries = self._directory(offset, length)
            if not entries:
                break
            entry = entries[-1]
            if entry.run_length > 0:
                try:
                    zoom, x, y = _pmtiles().tileid_to_zxy(entry.tile_id)
                except OverflowError:
                    raise self._damaged(f"tile number {entry.tile_id}") from None
                origin = tile_origin(self.name, zoom, x, y)
                return tile_size_px(self._data(entry, origin), origin)
            offset, length = self._leaf(entry)
        raise InputError(f"{self.name}: holds no tiles; give one that has imagery")
