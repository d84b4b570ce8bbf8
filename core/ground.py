"""Imagery of the ground: one small interface, and the sources that are arrays in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from .geo import BBox, LocalFrame

RGB = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class GroundWindow:
    """A north-up window of a local frame, in metres and pixels.

    Attributes:
        west_m: east coordinate of the left edge, metres in the local frame.
        north_m: north coordinate of the top edge, metres in the local frame.
        gsd_m: ground size of a pixel, metres.
        width_px: columns.
        height_px: rows.
    """

    west_m: float
    north_m: float
    gsd_m: float
    width_px: int
    height_px: int


@dataclass(frozen=True)
class GroundImage:
    """What a source holds for a window: rgb (H, W, 3) uint8 and valid (H, W) bool."""

    rgb: RGB
    valid: Mask


class GroundSource(Protocol):
    """Georeferenced imagery that can be read in any local frame at any scale."""

    name: str  # what the user would recognise: a path, or `landscape:…`
    attribution: str  # credit to show with the imagery, may be empty
    bounds: BBox  # WGS84
    gsd_m: float  # native ground sample distance

    def read(self, frame: LocalFrame, window: GroundWindow) -> GroundImage:
        """Return the window, area-averaged when coarser than native; invalid pixels are black."""
        ...

    def close(self) -> None:
        """Release files."""
        ...


def notes_of(source: GroundSource) -> tuple[str, ...]:
    """Return what the user should know of choices that a source made, such as a stretch."""
    notes: tuple[str, ...] = getattr(source, "notes", ())
    return notes


def files_of(source: GroundSource) -> tuple[Path, ...]:
    """Return the files that a source is read from, as far as it knows."""
    files: tuple[Path, ...] = getattr(source, "files", ())
    return files


@dataclass
class ArrayGround:
    """A north-up image in memory with its own local frame.

    Attributes:
        rgb: (H, W, 3) uint8.
        valid: (H, W) bool.
        frame: the local frame of the image.
        west_m: left edge in `frame`, metres.
        north_m: top edge in `frame`, metres.
        gsd_m: ground size of a pixel, metres.
    """

    rgb: RGB
    valid: Mask
    frame: LocalFrame
    west_m: float
    north_m: float
    gsd_m: float
    name: str = "array"
    attribution: str = ""
    bounds: BBox = field(init=False)

    def __post_init__(self) -> None:
        """Derive the WGS84 bounds."""
        height, width = self.valid.shape
        east_m = self.west_m + width * self.gsd_m
        south_m = self.north_m - height * self.gsd_m
        self.bounds = self.frame.wgs84_bounds(self.west_m, south_m, east_m, self.north_m)

    def read(self, frame: LocalFrame, window: GroundWindow) -> GroundImage:
        """Return the window, area-averaged when coarser than native; invalid pixels are black."""
        shape = (window.height_px, window.width_px)
        cut = self._needed_part(self._pixels_from_window(frame, window), window)
        if cut is None:
            return GroundImage(np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.bool_))
        rgb, valid, to_source = cut
        nearest = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        linear = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        mask = cv2.warpAffine(valid, to_source, shape[::-1], flags=nearest).astype(np.bool_)
        out = np.asarray(cv2.warpAffine(rgb, to_source, shape[::-1], flags=linear), np.uint8)
        out[~mask] = 0
        return GroundImage(out, mask)

    def close(self) -> None:
        """Nothing to release."""

    def _pixels_from_window(
        self, frame: LocalFrame, window: GroundWindow
    ) -> npt.NDArray[np.float64]:
        """Return the 2x3 affine map from window pixels to source pixels (centres at integers)."""
        cols = np.array([0.0, window.width_px, 0.0])
        rows = np.array([0.0, 0.0, window.height_px])
        east = window.west_m + (cols + 0.5) * window.gsd_m
        north = window.north_m - (rows + 0.5) * window.gsd_m
        if frame != self.frame:
            east, north = self.frame.to_local(*frame.to_wgs84(east, north))
        x = (east - self.west_m) / self.gsd_m - 0.5
        y = (self.north_m - north) / self.gsd_m - 0.5
        origin = np.array([x[0], y[0]])
        per_column = (np.array([x[1], y[1]]) - origin) / window.width_px
        per_row = (np.array([x[2], y[2]]) - origin) / window.height_px
        return np.stack([per_column, per_row, origin], axis=1)

    def _needed_part(
        self, to_source: npt.NDArray[np.float64], window: GroundWindow
    ) -> tuple[RGB, npt.NDArray[np.uint8], npt.NDArray[np.float64]] | None:
        """Return rgb and valid around the window, and the map into them; None where none is.

        Warps sample points, so where the window is coarser the part is shrunk by a whole factor.
        """
        factor = max(1, int(window.gsd_m / self.gsd_m))
        wide, high = window.width_px, window.height_px
        corners = np.array([[0, 0, 1], [wide, 0, 1], [0, high, 1], [wide, high, 1]], np.float64)
        ends = corners @ to_source.T
        margin = 2 * factor
        height, width = self.valid.shape
        x0, y0 = (max(0, math.floor(v) - margin) for v in ends.min(axis=0))
        x1, y1 = (math.ceil(v) + margin for v in ends.max(axis=0))
        columns, rows = (min(x1, width) - x0) // factor, (min(y1, height) - y0) // factor
        if columns < 1 or rows < 1:
            return None
        cut = np.s_[y0 : y0 + rows * factor, x0 : x0 + columns * factor]
        rgb, valid = self.rgb[cut], self.valid[cut].astype(np.uint8)
        shifted = to_source - [[0, 0, x0], [0, 0, y0]]
        if factor == 1:
            return rgb, valid, shifted
        rgb = np.asarray(cv2.resize(rgb, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
        share = cv2.resize(valid * np.uint8(255), (columns, rows), interpolation=cv2.INTER_AREA)
        shifted[:, 2] += 0.5
        shifted /= factor
        shifted[:, 2] -= 0.5
        return rgb, np.asarray(share == 255, np.uint8), shifted
