"""What a JPEG says about itself: its size, its EXIF block, its XMP packet.

Only the segments before the image data are walked (ITU-T T.81, annex B); nothing is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ..core.errors import InputError

_START_OF_IMAGE = b"\xff\xd8"
_END_OF_IMAGE = b"\xff\xd9"
_START_OF_SCAN = 0xDA
_APP1 = 0xE1
_EXIF_HEADER = b"Exif\x00\x00"
_XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\x00"
# Start-of-frame markers carry the size: C0 to CF without the tables C4, C8 and CC.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

# EXIF 2.32, section 4.6.
_EXIF_POINTER = 0x8769
TAG_FOCAL_LENGTH_35MM = 0xA405
_MAX_ENTRIES = 512


def is_jpeg(data: bytes) -> bool:
    """Tell whether bytes begin like a JPEG."""
    return data.startswith(_START_OF_IMAGE)


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield marker, payload and end of each segment up to the first scan; stop at damage."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + length
        if length < 2 or end > len(data):
            return
        yield marker, data[at + 4 : end], end
        if marker == _START_OF_SCAN:
            return
        at = end


def is_complete(data: bytes) -> bool:
    """Tell whether the image data of a JPEG ends as it should; decoders fill a torn one in grey.

    Inside image data every 0xFF is stuffed, so an end marker found there is the real one.
    """
    for marker, _, end in _segments(data):
        if marker == _START_OF_SCAN:
            return data.rfind(_END_OF_IMAGE) >= end
    return False


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return columns and rows of a JPEG, or None where its header does not tell."""
    for marker, payload, _ in _segments(data):
        if marker in _START_OF_FRAME and len(payload) >= 5:
            rows, columns = struct.unpack_from(">HH", payload, 1)
            return (columns, rows) if rows and columns else None
    return None


def xmp_packet(data: bytes) -> bytes | None:
    """Return the XMP packet of a JPEG (Adobe XMP part 3, section 1.1.3), or None."""
    for marker, payload, _ in _segments(data):
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
    for marker, payload, _ in _segments(data):
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
