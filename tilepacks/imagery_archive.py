"""The section `imagery`: a PMTiles archive as packs hold it, checked against the manifest.

PMTiles leaves more open than a pack does: here the parts follow each other without gaps, tiles lie
along the Hilbert curve, and directories are one or two deep. What checks it takes memory for one
directory at a time.
"""

from __future__ import annotations

import html
import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import InputError, IntegrityError
from ..core.files import atomic_file
from ..core.geo import TILE_SIZE_PX, BBox
from ..core.ground import GroundSource
from ..core.open_file import Archive
from ..core.pmtiles_directory import Entries, Ints, decode_directory, first_id
from ..core.pmtiles_write import (
    CLUSTERED,
    GZIP,
    HEADER,
    MAGIC,
    NOT_COMPRESSED,
    VERSION,
    WEBP,
    TileTable,
    encode_pmtiles,
)
from ..core.source_pmtiles import PmtilesReader
from ..core.tile_image import MAX_TILE_BYTES, picture_size
from ..core.tile_pyramid import PyramidGround
from .manifest import ImageryRecord

_SECTION = "section imagery"
# Decoded tiles that are kept, 90 of them: several times the ground that a frame is laid on. Reading
# one anew from a mapped file costs a millisecond, and a drone has little memory.
_CACHE_BYTES = 24 << 20
_HEAD_BYTES = 30  # of a WebP file: as much as tells its size; none is shorter
# Tiles that share a picture take next to no bytes, but memory: as with vectors (reader.py).
_FREE_TILES, _TILES_PER_PICTURE = 1 << 20, 64
_E7 = 1e7


@dataclass(frozen=True)
class Parts:
    """Where an archive's parts lie: views of root directory, metadata, leaves and tile data."""

    root: Archive
    metadata: Archive
    leaves: Archive
    data: Archive
    entries: int
    contents: int


def write_archive(
    path: Path,
    table: TileTable,
    contents: Callable[[Ints], Iterator[bytes]],
    zooms: tuple[int, int],
    bounds: BBox,
    attribution: str,
) -> memoryview:
    """Write an archive to a file, and return it mapped, not read; arguments as `encode_pmtiles`.

    Raises:
        S4GError: the disk is full.
    """
    # Maps show the attribution as HTML.
    about = {"attribution": html.escape(attribution, quote=False), "format": "webp"}
    with atomic_file(path, overwrite=True) as temporary, temporary.open("wb") as file:
        for part in encode_pmtiles(table, contents, zooms, bounds, about):
            file.write(part)
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def open_archive(view: Archive, record: ImageryRecord, bounds: BBox, name: str) -> GroundSource:
    """Serve an archive as imagery; closing it releases `view`.

    Args:
        view: the archive.
        record: what the manifest says of it.
        bounds: of the pack.
        name: the pack's, for errors.

    Raises:
        ValueError: it is not as the manifest says, or cannot be read.
        IntegrityError: on reading the ground, where a tile is damaged.
    """
    archive_parts(view, record, bounds)
    try:
        reader = PmtilesReader(view, name)
    except (InputError, IntegrityError) as error:
        reason = str(error).removeprefix(f"{name}: ").split("; ")[0]
        raise ValueError(f"{_SECTION} cannot be used: {reason}") from None
    if reader.tile_px != TILE_SIZE_PX:
        raise ValueError(f"{_SECTION} has tiles of {reader.tile_px} px, expected {TILE_SIZE_PX}")
    return PyramidGround(reader, _CACHE_BYTES)


def check_archive(view: Archive, record: ImageryRecord, bounds: BBox) -> None:
    """Check every directory of an archive, and that every tile begins as a WebP of 256 px.

    Raises:
        ValueError: something is wrong.
    """
    parts = archive_parts(view, record, bounds)
    for entries in checked_entries(parts, record):
        columns = (entries.ids, entries.offsets, entries.lengths)
        for number, offset, length in zip(*(v.tolist() for v in columns), strict=True):
            head = bytes(parts.data[offset : offset + _HEAD_BYTES])
            whole = 8 + int.from_bytes(head[4:8], "little") <= length <= MAX_TILE_BYTES
            if not (head[:4] == b"RIFF" and whole and picture_size(head) == (TILE_SIZE_PX,) * 2):
                raise ValueError(
                    f"{_SECTION}: tile number {number} is no WebP of {TILE_SIZE_PX} px"
                )


def archive_parts(view: Archive, record: ImageryRecord, bounds: BBox) -> Parts:
    """Check an archive's header against the manifest, and return its parts.

    Raises:
        ValueError: they differ, or the parts do not fill the archive.
    """
    if len(view) < HEADER.size:
        raise ValueError(f"{_SECTION} has {len(view)} bytes, the header alone {HEADER.size}")
    magic, version, *rest = HEADER.unpack(bytes(view[: HEADER.size]))
    places, (tiles, entries, contents), kinds, zooms, corners = (
        tuple(rest[a:b]) for a, b in ((0, 8), (8, 11), (11, 15), (15, 17), (17, 21))
    )
    if (magic, version) != (MAGIC, VERSION):
        raise ValueError(f"{_SECTION} is no PMTiles archive of version {VERSION}")
    if kinds != (CLUSTERED, GZIP, NOT_COMPRESSED, WEBP):
        raise ValueError(f"{_SECTION} holds no WebP tiles along the Hilbert curve")
    if zooms != (record.min_zoom, record.max_zoom) or tiles != record.tiles:
        raise ValueError(f"{_SECTION} has other zooms or tiles than its manifest says")
    if tiles > _FREE_TILES + _TILES_PER_PICTURE * contents:
        raise ValueError(f"{_SECTION} has {tiles} tiles of only {contents} pictures")
    sides = bounds.west, bounds.south, bounds.east, bounds.north
    if corners != tuple(round(side * _E7) for side in sides):
        raise ValueError(f"{_SECTION} has other bounds than its manifest says")
    at, views = HEADER.size, []
    for offset, length in zip(places[::2], places[1::2], strict=True):
        if offset != at:
            raise ValueError(f"{_SECTION} has parts that do not follow each other")
        views.append(view[at : at + length])
        at += length
    if at != len(view):
        raise ValueError(f"{_SECTION} has {len(view)} bytes, its header says {at}")
    root, metadata, leaves, data = views
    return Parts(root, metadata, leaves, data, entries, contents)


def checked_entries(parts: Parts, record: ImageryRecord) -> Iterator[Entries]:
    """Yield an archive's entries, a directory at a time, all they say checked.

    Raises:
        ValueError: something cannot be; all that was yielded before is right.
    """
    tiles = entries = contents = end = 0
    number = first_id(record.min_zoom)
    for found in _directories(parts):
        entries += len(found)
        tiles += int(found.runs.sum())
        last = found.ids + found.runs
        if tiles > record.tiles or entries > parts.entries:
            raise ValueError(f"{_SECTION} has more tiles than its header says")
        if found.ids[0] < number or (found.ids[1:] < last[:-1]).any():
            raise ValueError(f"{_SECTION} has tiles that do not ascend")
        number = int(last[-1])
        ends = found.offsets + found.lengths
        filled = np.maximum.accumulate(np.concatenate([[end], ends]))
        before, end = filled[:-1], int(filled[-1])
        new = found.offsets == before
        placed = (new | (ends <= before)) & (found.lengths >= _HEAD_BYTES)
        if not placed.all() or end > len(parts.data):
            raise ValueError(f"{_SECTION} has a tile where none can be")
        contents += int(new.sum())
        yield found
    if number > first_id(record.max_zoom + 1):
        raise ValueError(f"{_SECTION} has tiles of other zooms than its manifest says")
    counted = (tiles, entries, contents, end)
    if counted != (record.tiles, parts.entries, parts.contents, len(parts.data)):
        raise ValueError(f"{_SECTION} has other numbers of tiles than its header says")


def _directories(parts: Parts) -> Iterator[Entries]:
    root = _directory(parts.root)
    if root.runs.all():
        if len(parts.leaves):
            raise ValueError(f"{_SECTION} has leaf directories that nothing leads to")
        yield root
        return
    ends = np.cumsum(root.lengths)
    starts = ends - root.lengths
    if root.runs.any() or (root.offsets != starts).any() or ends[-1] != len(parts.leaves):
        raise ValueError(f"{_SECTION} has leaf directories that do not follow each other")
    for number, start, end in zip(root.ids.tolist(), starts.tolist(), ends.tolist(), strict=True):
        leaf = _directory(parts.leaves[start:end])
        if not leaf.runs.all() or leaf.ids[0] != number:
            raise ValueError(f"{_SECTION} has a leaf directory that is not as the root says")
        yield leaf


def _directory(data: Archive) -> Entries:
    try:
        found = decode_directory(bytes(data))
    except ValueError as error:
        raise ValueError(f"{_SECTION}: {error}") from None
    if not len(found):
        raise ValueError(f"{_SECTION} has an empty directory")
    return found
