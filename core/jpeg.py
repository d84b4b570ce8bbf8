"""What a JPEG's segments say: its size, and whether the file is whole.

Only the segments before the image data are walked (ITU-T T.81, annex B); nothing is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_START_OF_IMAGE = b"\xff\xd8"
_END_OF_IMAGE = b"\xff\xd9"
_START_OF_SCAN = 0xDA
# Start-of-frame markers carry the size: C0 to CF without the tables C4, C8 and CC.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def is_jpeg(data: bytes) -> bool:
    """Tell whether bytes begin like a JPEG."""
    return data.startswith(_START_OF_IMAGE)


def segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
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
    for marker, _, end in segments(data):
        if marker == _START_OF_SCAN:
            return data.rfind(_END_OF_IMAGE) >= end
    return False


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return columns and rows of a JPEG, or None where its header does not tell."""
    for marker, payload, _ in segments(data):
        if marker in _START_OF_FRAME and len(payload) >= 5:
            rows, columns = struct.unpack_from(">HH", payload, 1)
            return (columns, rows) if rows and columns else None
    return None
