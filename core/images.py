"""Reading and writing pictures, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from .errors import InputError, S4GError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp"})


def read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    """Return a picture as (H, W, 3) uint8 RGB, its EXIF orientation ignored (camera geometry).

    Raises:
        InputError: the file is missing, empty, or no image that can be decoded.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(data, flags) if data.size else None
    if image is None:
        raise InputError(f"{path}: not an image that can be decoded; replace or remove the file")
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
    done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), parameters)
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
