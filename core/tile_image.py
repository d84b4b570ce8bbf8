"""Encoded map tiles (PNG, JPEG, WebP): their size, whether they are whole, and their pixels."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import numpy.typing as npt

from .errors import IntegrityError
from .jpeg import is_complete, is_jpeg, jpeg_size

RGBA = npt.NDArray[np.uint8]

# The largest photographic tile in use (512 px, PNG, no compression to speak of) is 1 MB.
MAX_TILE_BYTES = 4 << 20
TILE_SIZES_PX = (256, 512)

_PNG = b"\x89PNG\r\n\x1a\n"
_SHOWN_BYTES = 16
# From here on a pixel counts as seen: lossy alpha wavers around 0 and 255.
_OPAQUE = 128


def tile_origin(name: str, zoom: int, x: int, y: int) -> str:
    """Return how errors name a tile: `SOURCE: tile z/x/y`."""
    return f"{name}: tile {zoom}/{x}/{y}"


def begins(data: bytes) -> str:
    """Return the first bytes as errors show them, on one line."""
    return repr(data[:_SHOWN_BYTES])[1:]


def one_line(text: str, limit: int) -> str:
    """Return foreign text on one line, without what would move a terminal's cursor."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())[:limit]


def is_picture(data: bytes) -> bool:
    """Tell whether bytes begin like a PNG, JPEG or WebP."""
    return data.startswith(_PNG) or is_jpeg(data) or _is_webp(data)


def is_whole(data: bytes) -> bool:
    """Tell whether a picture ends as its format says; what is torn is decoded in grey or black."""
    if data.startswith(_PNG):
        return b"IEND" in data[-32:]
    if is_jpeg(data):
        return is_complete(data)
    return _is_webp(data) and len(data) >= 8 + int.from_bytes(data[4:8], "little")


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Return columns and rows as a picture's header says, or None where it does not tell."""
    if is_jpeg(data):
        return jpeg_size(data)
    if data.startswith(_PNG):
        return struct.unpack(">II", data[16:24]) if len(data) >= 24 else None
    return _webp_size(data) if _is_webp(data) else None


def tile_size_px(data: bytes, origin: str) -> int:
    """Return the side of a tile, 256 or 512, as its header says.

    Args:
        data: the encoded tile.
        origin: the name for errors.

    Raises:
        IntegrityError: it is no PNG, JPEG or WebP, is torn, or has another size.
    """
    _check_whole(data, origin)
    size = picture_size(data)
    if size is None or size[0] != size[1] or size[0] not in TILE_SIZES_PX:
        raise IntegrityError(f"{origin} is {_size_text(size)}, expected 256x256 or 512x512 px")
    return size[0]


def decode_tile(data: bytes, origin: str, tile_px: int) -> RGBA:
    """Return the pixels of a tile, (tile_px, tile_px, 4) uint8.

    Alpha is 0 or 255, and where it is 0 the colour is black: averages may be taken as they are.

    Args:
        data: the encoded tile.
        origin: the name for errors.
        tile_px: the side that the tile must have; checked before anything is decoded.

    Raises:
        IntegrityError: it is no PNG, JPEG or WebP, is torn or damaged, has another size, or is
            not 8-bit.
    """
    _check_whole(data, origin)
    size = picture_size(data)
    if size != (tile_px, tile_px):
        raise IntegrityError(
            f"{origin} is {_size_text(size)}, expected {tile_px}x{tile_px} px like the others; "
            "remove it or fetch it again"
        )
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None or image.shape[:2] != size:
        raise IntegrityError(
            f"{origin} cannot be decoded (begins {begins(data)}); remove it or fetch it again"
        )
    if image.dtype != np.uint8:
        raise IntegrityError(f"{origin} has pixels of {image.dtype}, expected 8-bit pictures")
    return _rgba(image)


def _check_whole(data: bytes, origin: str) -> None:
    if not is_picture(data):
        raise IntegrityError(
            f"{origin} is no PNG, JPEG or WebP (begins {begins(data)}); remove it or fetch it again"
        )
    if not is_whole(data):
        raise IntegrityError(
            f"{origin} ends early ({len(data)} bytes, begins {begins(data)}); "
            "remove it or fetch it again"
        )


def _rgba(image: npt.NDArray[np.generic]) -> RGBA:
    channels = 1 if image.ndim == 2 else image.shape[2]
    code = {1: cv2.COLOR_GRAY2RGBA, 3: cv2.COLOR_BGR2RGBA, 4: cv2.COLOR_BGRA2RGBA}[channels]
    rgba = np.asarray(cv2.cvtColor(np.asarray(image, np.uint8), code), np.uint8)
    if channels == 4:
        seen = rgba[..., 3] >= _OPAQUE
        rgba[seen, 3] = 255
        rgba[~seen] = 0
    return rgba


def _size_text(size: tuple[int, int] | None) -> str:
    return "of unknown size" if size is None else f"{size[0]}x{size[1]} px"


def _is_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Read the first chunk (RFC 9649, sections 2.5 to 2.7; RFC 6386, section 9.1)."""
    if len(data) < 30:
        return None
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        sides = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return next(sides), next(sides)
    return None
