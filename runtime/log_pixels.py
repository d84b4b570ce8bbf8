"""Pictures of a flight log: photos as they came but for their metadata, camera frames exactly.

A camera frame is kept as a JPEG, which any viewer shows, and what that JPEG leaves out: the
difference to the frame, compressed with Zstandard. Together they are the frame to the last bit, in
about the space of a PNG and a third of its time (docs/logs.md has the figures).
"""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import zstandard

from ..core.errors import InputError, S4GError
from ..core.images import decode_rgb
from ..core.jpeg import is_complete, is_jpeg, jpeg_size
from .frame_buffers import Pixels

QUALITY = 90
_LEVEL = 1
_CHECK = struct.Struct("<I")  # CRC-32 of the pixels: another JPEG decoder may round otherwise
# Segments that decoding needs: JFIF's header, and Adobe's, which tells the colours. All others of
# their kind are left out: EXIF and XMP hold the position of a drone with GNSS.
_APP0, _APP14, _APP15, _COMMENT = 0xE0, 0xEE, 0xEF, 0xFE
_SCAN, _END, _RESTARTS = 0xDA, 0xD9, range(0xD0, 0xD8)


def without_metadata(jpeg: bytes) -> bytes:
    """Return a JPEG without EXIF, XMP, comments, and what follows its end; decodes alike.

    Structure: ITU-T T.81, annex B. Damaged ones are kept as far as they can be followed: no frame
    of one is matched.
    """
    kept, at = [jpeg[:2]], 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF:
        marker = jpeg[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == _END:
            break
        (length,) = struct.unpack_from(">H", jpeg, at + 2)
        end = at + 2 + length
        if marker == _SCAN:
            end = _end_of_scan(jpeg, end)
        if marker in (_APP0, _APP14) or not (_APP0 <= marker <= _APP15 or marker == _COMMENT):
            kept.append(jpeg[at:end])
        at = end
    return b"".join([*kept, b"\xff\xd9"])


def _end_of_scan(jpeg: bytes, at: int) -> int:
    """Return where the next marker is that ends entropy-coded data."""
    while (at := jpeg.find(b"\xff", at)) >= 0 and at + 1 < len(jpeg):
        following = jpeg[at + 1]
        if following != 0 and following not in _RESTARTS and following != 0xFF:
            return at
        at += 1 if following == 0xFF else 2
    return len(jpeg)


def pack_pixels(rgb: Pixels, exact: bool) -> tuple[bytes, bytes | None]:
    """Return (H, W, 3) uint8 RGB as a JPEG and, where `exact` asks for it, what that leaves out.

    Raises:
        S4GError: JPEG does not take its size.
    """
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    try:
        done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    except cv2.error:
        done = False
    if not done:
        raise S4GError(f"a frame of {rgb.shape[1]}x{rgb.shape[0]} px cannot be kept as a JPEG")
    if not exact:
        return data.tobytes(), None
    shown = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    assert shown is not None
    left = np.subtract(rgb, shown, out=bgr)  # modulo 256, as the sum will be
    packed = zstandard.ZstdCompressor(_LEVEL).compress(left.tobytes())
    return data.tobytes(), _CHECK.pack(zlib.crc32(np.ascontiguousarray(rgb).data)) + packed


def check_jpeg(jpeg: bytes, width_px: int, height_px: int, origin: str) -> None:
    """Refuse, before anything is decoded, a JPEG that is cut short or of another size.

    Raises:
        InputError: it is; the message begins with `origin`.
    """
    if not is_jpeg(jpeg) or not is_complete(jpeg) or jpeg_size(jpeg) != (width_px, height_px):
        raise InputError(
            f"{origin}: its picture is no JPEG of {width_px}x{height_px} px; the log is damaged"
        )


def unpack_pixels(
    jpeg: bytes, residual: bytes | None, width_px: int, height_px: int, origin: str
) -> tuple[Pixels, bool]:
    """Return what `pack_pixels` was given, and whether to the last bit.

    Returns:
        (H, W, 3) uint8 RGB; not exact without a residual, or where this machine decodes the JPEG
        otherwise than the one that made it.

    Raises:
        InputError: the parts do not make a picture of that size; the message begins with `origin`.
    """
    check_jpeg(jpeg, width_px, height_px, origin)
    rgb = decode_rgb(jpeg, origin)
    if rgb.shape != (height_px, width_px, 3):
        raise InputError(f"{origin}: its picture has another size; the log is damaged")
    if residual is None:
        return rgb, False
    packed = residual[_CHECK.size :]
    try:
        # The size is written in front of the data; nothing larger is made room for.
        if zstandard.frame_content_size(packed) != rgb.size:
            raise zstandard.ZstdError
        left = np.frombuffer(zstandard.ZstdDecompressor().decompress(packed), np.uint8)
        np.add(rgb, left.reshape(rgb.shape), out=rgb)
        return rgb, _CHECK.pack(zlib.crc32(np.ascontiguousarray(rgb).data)) == residual[
            : _CHECK.size
        ]
    except (zstandard.ZstdError, ValueError):
        raise InputError(f"{origin}: what completes its picture is damaged") from None
