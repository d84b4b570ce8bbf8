"""A picture file at the size a model wants: decoded as small as the target allows, then resized."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ..core.errors import InputError
from ..core.files import read_bytes
from ..core.images import decode_rgb
from ..core.jpeg import is_complete, is_jpeg, jpeg_size
from .dataset import Image, UnreadableImageError

_REDUCTIONS = (8, 4, 2)  # what JPEG decoders offer, coarsest first
# Below this shrink two taps of the bilinear filter still see every source pixel, or nearly.
_AREA_FROM = 1.5


def read_resized(path: Path, height_px: int, width_px: int) -> Image:
    """Return a picture as (height_px, width_px, 3) uint8 RGB; its EXIF orientation is ignored.

    A JPEG is decoded at 1/2, 1/4 or 1/8 where that is still no smaller than the target in either
    direction: the decoder then skips most of the inverse DCT (ITU-T T.81, annex A). What is left
    is resized with OpenCV, by area average when it shrinks by more than 1.5, else bilinearly. The
    original is bilinear throughout; beyond 1.5 that skips source pixels, and fine texture
    (crops, roofs) turns into patterns that no second view of the place shows.

    Raises:
        UnreadableImageError: the file is missing, truncated, or no image that can be decoded.
    """
    try:
        data = read_bytes(path)
    except InputError as error:
        raise UnreadableImageError(f"{error}; restore the file") from None
    reduction = _reduction(data, path, height_px, width_px)
    try:
        image = decode_rgb(data, str(path), reduction)
    except InputError as error:
        raise UnreadableImageError(str(error)) from None
    return resize(image, height_px, width_px)


def resize(image: Image, height_px: int, width_px: int) -> Image:
    """Resize (H, W, 3) uint8 to (height_px, width_px, 3), as `read_resized` does after decoding."""
    height, width = image.shape[:2]
    if (height, width) == (height_px, width_px):
        return image
    shrinks = height / height_px, width / width_px
    # OpenCV averages areas only where both directions shrink.
    area = min(shrinks) >= 1 and max(shrinks) > _AREA_FROM
    method = cv2.INTER_AREA if area else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width_px, height_px), interpolation=method), np.uint8)


def _reduction(data: bytes, path: Path, height_px: int, width_px: int) -> int:
    """Return how far the decoder may shrink: 1, 2, 4 or 8; refuse a torn JPEG."""
    if not is_jpeg(data):
        return 1
    if not is_complete(data):
        raise UnreadableImageError(
            f"{path}: a truncated JPEG ({len(data)} bytes); replace or remove the file"
        )
    size = jpeg_size(data)
    if size is None:
        return 1
    width, height = size
    for reduction in _REDUCTIONS:
        # Decoders round sizes up, as -(-a // b) does.
        if -(-width // reduction) >= width_px and -(-height // reduction) >= height_px:
            return reduction
    return 1
