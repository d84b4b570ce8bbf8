"""What a camera wrote into a JPEG: its EXIF block, its XMP packet."""

from __future__ import annotations

import struct

from ..core.errors import InputError
from ..core.jpeg import segments

_APP1 = 0xE1
_EXIF_HEADER = b"Exif\x00\x00"
_XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\x00"

# EXIF 2.32, section 4.6.
_EXIF_POINTER = 0x8769
TAG_FOCAL_LENGTH_35MM = 0xA405
_MAX_ENTRIES = 512


def xmp_packet(data: bytes) -> bytes | None:
    """Return the XMP packet of a JPEG (Adobe XMP part 3, section 1.1.3), or None."""
    for marker, payload, _ in segments(data):
        if marker == _APP1 and payload.startswith(_XMP_HEADER):
            return payload[len(_XMP_HEADER) :]
    return None


def exif_numbers(data: bytes, origin: str) -> dict[int, int]:
    """Return the whole-number tags of a JPEG's EXIF block, main and Exif directories together.

    Args:
        data: content of the JPEG.
        origin: the file's name, for errors.

    Raises:
        InputError: the EXIF block is damaged.
    """
    for marker, payload, _ in segments(data):
        if marker == _APP1 and payload.startswith(_EXIF_HEADER):
            return _tiff_numbers(payload[len(_EXIF_HEADER) :], origin)
    return {}


def _tiff_numbers(tiff: bytes, origin: str) -> dict[int, int]:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    try:
        if order is None:
            raise ValueError
        (first,) = struct.unpack_from(order + "I", tiff, 4)
        tags = _directory(tiff, order, first)
        if _EXIF_POINTER in tags:
            tags |= _directory(tiff, order, tags[_EXIF_POINTER])
    except (struct.error, ValueError):
        raise InputError(
            f"{origin}: its EXIF block is damaged; pass --telemetry FILE.csv and --hfov instead"
        ) from None
    return tags


def _directory(tiff: bytes, order: str, at: int) -> dict[int, int]:
    (count,) = struct.unpack_from(order + "H", tiff, at)
    if count > _MAX_ENTRIES:
        raise ValueError
    tags: dict[int, int] = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack_from(order + "HHI", tiff, entry)
        if length == 1 and kind in (3, 4):
            tags[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), tiff, entry + 8)[0]
    return tags
