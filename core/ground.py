"""Imagery of the ground: one small interface, and the sources that are arrays in memory.

`open_ground` turns what a user writes after `--source` into a `GroundSource`. GeoTIFFs are read
by `raster.py`, the procedural landscape by `landscape.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from .errors import InputError
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
        to_source = self._pixels_from_window(frame, window)
        rgb, valid = self.rgb, self.valid.view(np.uint8)
        # Warps sample points: shrink the source first where the window is coarser (anti-aliasing).
        factor = int(window.gsd_m / self.gsd_m)
        if factor >= 2:
            rgb, valid, to_source = self._shrunk(to_source, window, factor)
        size = (window.width_px, window.height_px)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        out = cv2.warpAffine(rgb, to_source, size, flags=flags)
        seen = cv2.warpAffine(
            valid, to_source, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        )
        mask = seen.astype(bool)
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
        corners = np.stack([cols, rows], axis=1).astype(np.float32)
        return cv2.getAffineTransform(corners, np.stack([x, y], axis=1).astype(np.float32))

    def _shrunk(
        self, to_source: npt.NDArray[np.float64], window: GroundWindow, factor: int
    ) -> tuple[RGB, npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
        """Return the needed part of the source shrunk by `factor`, and the map into it."""
        height, width = self.valid.shape
        ends = (
            np.array(
                [
                    [0, 0, 1],
                    [window.width_px, 0, 1],
                    [0, window.height_px, 1],
                    [window.width_px, window.height_px, 1],
                ],
                np.float64,
            )
            @ to_source.T
        )
        margin = 2 * factor
        x0, y0 = np.maximum(np.floor(ends.min(0)).astype(int) - margin, 0)
        x1, y1 = np.ceil(ends.max(0)).astype(int) + margin
        x1, y1 = min(int(x1), width), min(int(y1), height)
        columns, rows = (x1 - x0) // factor, (y1 - y0) // factor
        if columns < 1 or rows < 1:
            return np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.uint8), to_source
        cut = np.s_[y0 : y0 + rows * factor, x0 : x0 + columns * factor]
        rgb = cv2.resize(self.rgb[cut], (columns, rows), interpolation=cv2.INTER_AREA)
        valid = cv2.resize(
            self.valid[cut].view(np.uint8) * np.uint8(255),
            (columns, rows),
            interpolation=cv2.INTER_AREA,
        )
        scaled = to_source.copy()
        scaled[:, 2] -= (x0, y0)
        scaled[:, 2] += 0.5
        scaled /= factor
        scaled[:, 2] -= 0.5
        return rgb, (valid == 255).view(np.uint8), scaled


def open_ground(source: str) -> GroundSource:
    """Open `landscape[:key=value,…]` or the path of a georeferenced raster.

    Raises:
        InputError: there is no such file, it is no image, or it has no georeference.
    """
    if source == "landscape" or source.startswith("landscape:"):
        from .landscape import open_landscape

        return open_landscape(source)
    if not Path(source).exists():
        raise InputError(f"{source}: no such file; give a GeoTIFF or 'landscape'")
    from .raster import RasterGround

    return RasterGround(Path(source))
