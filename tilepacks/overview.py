"""The picture of the region that a pack may carry, for plots and maps."""

from __future__ import annotations

import math

import cv2
import numpy as np

from ..core.geo import LocalFrame
from ..core.ground import RGB, GroundSource, GroundWindow
from ..core.images import encode_rgb
from ..core.tile_image import picture_size
from .manifest import OverviewRecord

MAX_SIDE_PX = 2048
_QUALITY = 80


def overview_record(
    extent_m: tuple[float, float, float, float], source_gsd_m: float
) -> OverviewRecord:
    """Return where the picture of west, south, east, north metres lies and how large it is."""
    west, south, east, north = extent_m
    gsd = max(source_gsd_m, max(east - west, north - south) / MAX_SIDE_PX)
    width, height = (math.ceil(side / gsd - 1e-6) for side in (east - west, north - south))
    return OverviewRecord(west, north, gsd, max(1, width), max(1, height))


def make_overview(source: GroundSource, frame: LocalFrame, record: OverviewRecord) -> bytes:
    """Return the picture as a WebP file.

    Raises:
        S4GError: the source is damaged.
    """
    window = GroundWindow(
        record.west_m, record.north_m, record.gsd_m, record.width_px, record.height_px
    )
    return encode_rgb(source.read(frame, window).rgb, ".webp", _QUALITY)


def decode_overview(data: bytes, record: OverviewRecord) -> RGB:
    """Return the picture (H, W, 3) uint8.

    Raises:
        ValueError: it is no picture, or not of the size that the manifest says.
    """
    # Only WebP, and its size before its pixels: a few bytes of another size would take gigabytes.
    size = record.width_px, record.height_px
    image = None
    if data[:4] == b"RIFF" and picture_size(data) == size:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None or image.shape != (record.height_px, record.width_px, 3):
        raise ValueError("its overview is no picture of the size that its manifest says")
    return np.asarray(image, np.uint8)
