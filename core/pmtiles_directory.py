"""PMTiles v3 directories: tile numbers along the Hilbert curve, entries to bytes and back.

Arrays of entries, not objects: an archive of gigabytes has millions of them. After the
specification (github.com/protomaps/PMTiles, spec/v3/spec.md, sections 3 and 4).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

MAX_ZOOM = 30  # tile numbers of it still fit 63 bits
MAX_DIRECTORY_BYTES = 4 << 20  # inflated; leaves of ours have some ten thousand bytes
# Seven bits a byte: what fits is below 2^63.
_MAX_VARINT_BYTES = 9
_LEVEL = 9  # of zlib


@dataclass(frozen=True)
class Entries:
    """Entries of a directory, by ascending tile number.

    Attributes:
        ids: (N,) int64, number of the first tile.
        runs: (N,) int64, how many tiles in a row have the same content; 0: a leaf directory.
        offsets: (N,) int64, of the content, bytes from the start of tile data or leaves.
        lengths: (N,) int64, of the content, bytes.
    """

    ids: Ints
    runs: Ints
    offsets: Ints
    lengths: Ints

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.ids)

    def part(self, first: int, after: int) -> Entries:
        """Return the entries from `first` up to, without, `after`."""
        cut = slice(first, after)
        return Entries(self.ids[cut], self.runs[cut], self.offsets[cut], self.lengths[cut])


def first_id(zoom: int) -> int:
    """Return the number of the first tile of a zoom."""
    return ((1 << (2 * zoom)) - 1) // 3


def tile_ids(zoom: int, x: npt.ArrayLike, y: npt.ArrayLike) -> Ints:
    """Return the numbers (N,) of tiles of a zoom at columns and rows (N,), y from the north."""
    column, row = np.array(x, np.int64), np.array(y, np.int64)
    found = np.zeros_like(column)
    for bit in range(zoom - 1, -1, -1):
        side = np.int64(1 << bit)
        right, low = column & side, row & side
        found += ((3 * right) ^ low) << bit
        column, row = _turned(side, column, row, right, low)
    return found + first_id(zoom)


def tile_places(zoom: int, ids: Ints) -> tuple[Ints, Ints]:
    """Return columns and rows (N,) of tiles of one zoom; the inverse of `tile_ids`."""
    rest = ids - first_id(zoom)
    column, row = np.zeros_like(rest), np.zeros_like(rest)
    for bit in range(zoom):
        side = np.int64(1 << bit)
        right = (rest >> 1) & 1
        low = (rest ^ right) & 1
        column, row = _turned(side, column, row, right, low)
        column, row = column + right * side, row + low * side
        rest = rest >> 2
    return column, row


def _turned(side: np.int64, x: Ints, y: Ints, right: Ints, low: Ints) -> tuple[Ints, Ints]:
    """Turn the curve within a quadrant so that its ends meet those of the neighbours."""
    flip = (low == 0) & (right != 0)
    x, y = np.where(flip, side - 1 - x, x), np.where(flip, side - 1 - y, y)
    return np.where(low == 0, y, x), np.where(low == 0, x, y)


def encode_directory(entries: Entries) -> bytes:
    """Return a directory's bytes, compressed; the same entries give the same bytes."""
    follows = np.zeros(len(entries), np.bool_)
    follows[1:] = entries.offsets[1:] == entries.offsets[:-1] + entries.lengths[:-1]
    numbers = [
        np.array([len(entries)]),
        np.diff(entries.ids, prepend=0),
        entries.runs,
        entries.lengths,
        np.where(follows, 0, entries.offsets + 1),
    ]
    return compressed(_varints(np.concatenate(numbers)))


def decode_directory(data: bytes | memoryview) -> Entries:
    """Return what a directory holds.

    Raises:
        ValueError: it is damaged, inflates to more than 4 MiB, or its tile numbers do not ascend.
    """
    numbers = _numbers(np.frombuffer(inflated(data, MAX_DIRECTORY_BYTES), np.uint8))
    count = int(numbers[0]) if len(numbers) else -1
    if len(numbers) != 1 + 4 * count:
        raise ValueError("a directory holds another number of entries than it says")
    steps, runs, lengths, offsets = numbers[1:].reshape(4, count)
    # In float first: what would pass 63 bits must not come round as something small.
    limit = float(first_id(MAX_ZOOM + 1))
    sums = (float(values.sum(dtype=np.float64)) for values in (steps, runs, lengths))
    if max(sums, default=0.0) > limit or (count and float(offsets.max()) > limit):
        raise ValueError("a directory holds numbers out of range")
    if not steps[1:].all():
        raise ValueError("a directory's tiles do not ascend")
    return Entries(np.cumsum(steps), runs, _offsets(offsets, lengths), lengths)


def _offsets(stored: Ints, lengths: Ints) -> Ints:
    """Return offsets from what is stored: one more, or 0 for "after the entry before"."""
    if len(stored) and stored[0] == 0:
        raise ValueError("a directory's first entry follows none")
    # From the last offset that is written out, add the lengths since then.
    ends = np.cumsum(lengths)
    starts = ends - lengths
    told = np.maximum.accumulate(np.where(stored > 0, np.arange(len(stored)), 0))
    found: Ints = stored[told] - 1 + starts - starts[told]
    return found


def compressed(data: bytes) -> bytes:
    """Return a gzip member without time or name."""
    encoder = zlib.compressobj(_LEVEL, wbits=31)
    return encoder.compress(data) + encoder.flush()


def inflated(data: bytes | memoryview, limit: int) -> bytes:
    """Return the content of one gzip member.

    Raises:
        ValueError: it is none, or holds more than `limit` bytes.
    """
    decoder = zlib.decompressobj(wbits=31)
    try:
        found = decoder.decompress(data, limit)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not decoder.eof or decoder.unused_data:
        raise ValueError(f"not one gzip member of {limit} bytes at most")
    return found


def _varints(values: Ints) -> bytes:
    """Return numbers as variable-length bytes: seven bits each, the lowest first."""
    sizes = np.ones(len(values), np.int64)
    for size in range(1, _MAX_VARINT_BYTES):
        sizes += values >= 1 << (7 * size)
    starts = np.cumsum(sizes) - sizes
    out = np.zeros(int(sizes.sum()), np.uint8)
    for at in range(int(sizes.max())):
        has = sizes > at
        more = np.where(sizes[has] > at + 1, 0x80, 0)
        out[starts[has] + at] = ((values[has] >> (7 * at)) & 0x7F) | more
    return out.tobytes()


def _numbers(data: npt.NDArray[np.uint8]) -> Ints:
    ends = np.flatnonzero(data < 0x80)
    if not len(ends) or ends[-1] != len(data) - 1:
        raise ValueError("a directory ends within a number")
    sizes = np.diff(ends, prepend=-1)
    if int(sizes.max()) > _MAX_VARINT_BYTES:
        raise ValueError("a directory holds numbers out of range")
    starts = ends - sizes + 1
    found = np.zeros(len(ends), np.int64)
    for at in range(int(sizes.max())):
        has = sizes > at
        found[has] |= (data[starts[has] + at] & np.int64(0x7F)) << (7 * at)
    return found
