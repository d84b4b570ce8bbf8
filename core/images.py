"""Reading and writing pictures, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from .errors import InputError, S4GError
from .files import read_bytes

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp"})

_REDUCED = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    """Return a picture as (H, W, 3) uint8 RGB, its EXIF orientation ignored (camera geometry).

    Raises:
        InputError: the file is missing, empty, or no image that can be decoded.
    """
    return decode_rgb(read_bytes(path), str(path))


def decode_rgb(data: bytes, origin: str, reduction: int = 1) -> npt.NDArray[np.uint8]:
    """Return an encoded picture as (H, W, 3) uint8 RGB, its EXIF orientation ignored.

    Args:
        data: the content of a picture file.
        origin: the name for errors.
        reduction: 1, 2, 4 or 8; a JPEG is decoded at 1/`reduction`, sizes rounded up (much
            faster, and a proper area average). Use `Camera.reduced` for its geometry.

    Raises:
        InputError: it is no image that can be decoded.
    """
    flags = _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:  # more pixels than OpenCV takes
        image = None
    if image is None:
        raise InputError(f"{origin}: not an image that can be decoded; replace or remove the file")
    if reduction > 1:  # OpenCV offers no reduced decoding straight to RGB
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    return np.asarray(image, np.uint8)


def encode_rgb(image: npt.NDArray[np.uint8], suffix: str, quality: int = 92) -> bytes:
    """Return (H, W, 3) uint8 RGB as the bytes of a `.jpg`, `.png` or `.webp` file.

    Raises:
        S4GError: the encoder refuses the image.
    """
    parameters = {
        ".jpg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        ".webp": [cv2.IMWRITE_WEBP_QUALITY, quality],
        ".png": [cv2.IMWRITE_PNG_COMPRESSION, 6],
    }[suffix]
    try:
        done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), parameters)
    except cv2.error:
        done = False
    if not done:
        raise S4GError(f"cannot encode an image of shape {image.shape} as {suffix}")
    return data.tobytes()


def list_images(folder: Path) -> list[Path]:
    """Return the picture files of a folder, sorted by name.

    Raises:
        InputError: the folder is missing or holds no picture.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"{folder}: holds no pictures; expected files ending in {kinds}")
    return files
