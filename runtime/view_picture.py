"""Pictures for the live map: kept by the thread that matches frames, encoded by another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ..core.errors import InputError, S4GError
from ..core.images import decode_rgb, encode_rgb
from ..core.jpeg import is_jpeg
from .frame_buffers import FrameBuffers, Pixels

if TYPE_CHECKING:
    from .observe import Observation

# A frame is shown this wide at most; twice as many rows are kept, to be averaged.
_WIDTH_PX = 640
_QUALITY = 72
_REDUCTIONS = (8, 4, 2)


@dataclass(frozen=True)
class Kept:
    """What a frame showed.

    Attributes:
        number: counts what was kept, from 1.
        frame: number of the frame.
        size_px: columns and rows of the frame.
        encoded: it as a JPEG.
        pixels: (H, W, 3) uint8 RGB, some of its rows.
        view: (S, S, 3) uint8, its middle, north up; None where none was cut.
        footprint_m: the side of that on the ground.
    """

    number: int
    frame: int
    size_px: tuple[int, int]
    encoded: bytes | None
    pixels: Pixels | None
    view: Pixels | None
    footprint_m: float | None


def keep(seen: Observation, number: int, buffers: FrameBuffers) -> Kept | None:
    """Keep what a frame shows; takes half a millisecond at full HD.

    Args:
        seen: the frame.
        number: to tell pictures apart.
        buffers: of the calling thread.

    Returns:
        None where there is no frame.
    """
    frame, finding = seen.frame, seen.finding
    if frame is None:
        return None
    encoded, pixels = None, None
    if frame.encoded is not None and is_jpeg(frame.encoded):
        encoded = frame.encoded  # bytes do not change
    elif frame.decoded is not None:
        # Whole rows are copied ten times as fast as every second pixel of them.
        cut = frame.decoded[:: max(1, frame.width_px // (2 * _WIDTH_PX))]
        pixels = buffers.take(cut.shape)
        np.copyto(pixels, cut)
    view, footprint_m = None, None
    if finding is not None and finding.view is not None:
        view, footprint_m = finding.view.rgb.copy(), finding.view.footprint_m
    size_px = frame.width_px, frame.height_px
    return Kept(number, frame.index, size_px, encoded, pixels, view, footprint_m)


def frame_jpeg(kept: Kept) -> bytes | None:
    """Return a frame as a small JPEG; None where there is none, or it cannot be decoded."""
    width_px, height_px = kept.size_px
    try:
        rgb = kept.pixels
        if kept.encoded is not None:
            fitting = (r for r in _REDUCTIONS if width_px >= r * _WIDTH_PX)
            rgb = decode_rgb(kept.encoded, "frame", next(fitting, 1))
        if rgb is None:
            return None
        width = min(width_px, _WIDTH_PX)
        size = (width, max(1, round(height_px * width / width_px)))
        small = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
        return encode_rgb(small, ".jpg", _QUALITY)
    except (InputError, S4GError):
        return None  # the run itself tells of it


def view_jpeg(kept: Kept) -> bytes | None:
    """Return a frame's middle as a JPEG; None where none was cut."""
    return None if kept.view is None else encode_rgb(kept.view, ".jpg", _QUALITY)
