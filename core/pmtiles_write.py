"""Writes PMTiles v3: tiles along the Hilbert curve, each content once, in one pass over them.

The same tiles give the same bytes. Directories come before what they point to, so sizes and
digests of all tiles must be known beforehand; the tiles themselves are asked for one by one.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .geo import BBox
from .pmtiles_directory import Entries, Ints, compressed, encode_directory, first_id

# Magic and version; offset and length of root, metadata, leaves and data; numbers of tiles,
# entries and contents; clustered, compression of directories and of tiles, kind; zooms; bounds;
# zoom and place to show first.
HEADER = struct.Struct("<7sB8Q3Q4B2B4iB2i")
MAGIC, VERSION = b"PMTiles", 3
CLUSTERED, GZIP, NOT_COMPRESSED, WEBP = 1, 2, 1, 4
# Readers fetch the header and the root in one request of this size.
_ROOT_BYTES = 16384 - HEADER.size
_LEAF_ENTRIES = 4096
_DIGEST_BYTES = 16

Digests = npt.NDArray[np.bytes_]


@dataclass(frozen=True)
class TileTable:
    """What must be known of tiles before they are written.

    Attributes:
        ids: (N,) int64, their numbers (`tile_ids`), ascending, at least one.
        lengths: (N,) int64, their bytes.
        digests: (N,) S16, equal where the content is.
    """

    ids: Ints
    lengths: Ints
    digests: Digests


def digests_of(contents: Iterable[bytes | memoryview]) -> Digests:
    """Return (N,) S16: the first half of the SHA-256 of each content."""
    found = [hashlib.sha256(content).digest()[:_DIGEST_BYTES] for content in contents]
    return np.array(found, f"S{_DIGEST_BYTES}")


def encode_pmtiles(
    table: TileTable,
    contents: Callable[[Ints], Iterator[bytes | memoryview]],
    zooms: tuple[int, int],
    bounds: BBox,
    metadata: Mapping[str, Any],
) -> Iterator[bytes | memoryview]:
    """Yield an archive of WebP tiles, its bytes in order.

    Args:
        table: the tiles.
        contents: given rows of the table, ascending, yields their bytes; it is asked once, for
            the first tile of each content.
        zooms: lowest and highest zoom.
        bounds: WGS84 box that the tiles show.
        metadata: JSON values; `attribution` is HTML there.
    """
    entries, firsts = _entries(table)
    root, leaves = _directories(entries)
    text = json.dumps(metadata, sort_keys=True, separators=(",", ":")).encode("ascii")
    about = compressed(text)
    lengths = [len(root), len(about), len(leaves), int(table.lengths[firsts].sum())]
    places, at = [], HEADER.size
    for length in lengths:
        places += [at, length]
        at += length
    corners = (bounds.west, bounds.south, bounds.east, bounds.north)
    lat, lon = bounds.center
    yield HEADER.pack(
        *(MAGIC, VERSION),
        *places,
        *(len(table.ids), len(entries), len(firsts)),
        *(CLUSTERED, GZIP, NOT_COMPRESSED, WEBP),
        *zooms,
        *map(_e7, corners),
        *(zooms[0], _e7(lon), _e7(lat)),
    )
    yield root
    yield about
    yield leaves
    yield from contents(firsts)


def _e7(degrees: float) -> int:
    return round(degrees * 1e7)


def _entries(table: TileTable) -> tuple[Entries, Ints]:
    """Return the entries and, of each distinct content, the row that has it first."""
    _, first, content = np.unique(table.digests, return_index=True, return_inverse=True)
    row = first[content.reshape(-1)]  # of each tile: the row where its content comes first
    firsts = np.sort(first)
    ends = np.cumsum(table.lengths[firsts])
    offsets = (ends - table.lengths[firsts])[np.searchsorted(firsts, row)]
    starts = np.ones(len(row), np.bool_)
    starts[1:] = (np.diff(table.ids) != 1) | (row[1:] != row[:-1])
    # A run must not cross to the next zoom: it would be a tile of another size on the ground.
    starts |= np.isin(table.ids, [first_id(zoom) for zoom in range(32)])
    at = np.flatnonzero(starts)
    runs = np.diff(at, append=len(row))
    return Entries(table.ids[at], runs, offsets[at], table.lengths[at]), firsts


def _directories(entries: Entries) -> tuple[bytes, bytes]:
    """Return the root directory, and leaves where it would be too large otherwise."""
    root, leaves, size = encode_directory(entries), b"", _LEAF_ENTRIES
    while len(root) > _ROOT_BYTES:
        starts = range(0, len(entries), size)
        parts = [encode_directory(entries.part(at, at + size)) for at in starts]
        lengths = np.array([len(part) for part in parts])
        ids, runs = entries.ids[::size], np.zeros(len(parts), np.int64)
        root = encode_directory(Entries(ids, runs, np.cumsum(lengths) - lengths, lengths))
        leaves, size = b"".join(parts), size * 2
    return root, leaves
