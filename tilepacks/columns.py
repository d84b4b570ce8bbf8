"""Columns of whole numbers as few bytes: neighbours as differences, byte planes, zlib.

Numbers that follow a curve over the ground differ little from one to the next: their upper bytes
are zero nearly everywhere, and zlib (RFC 1950) keeps next to nothing of those planes.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]

_LEVEL = 9


def deflate(data: bytes | memoryview) -> bytes:
    """Return bytes as a zlib stream; the same bytes give the same stream."""
    return zlib.compress(data, _LEVEL)


def inflate(data: bytes | memoryview, length: int) -> bytes:
    """Return the `length` bytes of a zlib stream; never holds more, whatever the stream says.

    Raises:
        ValueError: the stream is damaged, or holds more or fewer bytes.
    """
    stream = zlib.decompressobj()
    try:
        # One byte more shows a stream that is too long; `flush` would inflate all the rest of it,
        # and a bound of 0 is none.
        found = stream.decompress(data, length + 1)
    except zlib.error as error:
        raise ValueError(f"is no zlib stream ({error})") from None
    if len(found) != length or not stream.eof or stream.unused_data:
        raise ValueError(f"does not hold {length} bytes")
    return found


def zigzag(values: npt.NDArray[np.int32]) -> Words:
    """Return signed numbers as unsigned ones, small for those near zero: 0, -1, 1, -2, …"""
    signed = values.astype(np.int32)
    return ((signed << 1) ^ (signed >> 31)).view(np.uint32)


def unzigzag(values: Words) -> npt.NDArray[np.int32]:
    """Undo `zigzag`."""
    return (values >> np.uint32(1)).view(np.int32) ^ -(values & np.uint32(1)).view(np.int32)


def to_planes(values: Words) -> bytes:
    """Return the lowest bytes of all numbers, then the second ones, the third, the highest."""
    return np.ascontiguousarray(values.astype("<u4").view(np.uint8).reshape(-1, 4).T).tobytes()


def from_planes(data: bytes) -> Words:
    """Undo `to_planes`; the length must be a multiple of four."""
    planes = np.frombuffer(data, np.uint8).reshape(4, -1)
    words: Words = np.ascontiguousarray(planes.T).view("<u4").reshape(-1).astype(np.uint32)
    return words


def encode_column(values: Words) -> bytes:
    """Return numbers (N,) as bytes, small where each is near the one before it."""
    # Modulo 2**32: every difference of two such numbers fits, and none is lost.
    steps = np.diff(values, prepend=np.uint32(0)).astype(np.uint32).view(np.int32)
    return deflate(to_planes(zigzag(steps)))


def decode_column(data: bytes | memoryview, count: int) -> Words:
    """Return the numbers (count,) of `encode_column`.

    Raises:
        ValueError: the bytes are not those of so many numbers.
    """
    steps = unzigzag(from_planes(inflate(data, 4 * count))).view(np.uint32)
    return np.cumsum(steps, dtype=np.uint32)
