"""From a frame to north-up patches: the warp of each as numbers, and the warp done by OpenCV.

A `FrameWarp` says which frame pixel each pixel of a patch shows. The CPU applies it here, a GPU in
`kernels/warp.cu`: both start from the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .camera import (
    OUTSIDE_PX,
    Attitude,
    Camera,
    Matrix,
    frame_points,
    ground_from_patch,
    patch_coverage,
    pixel_from_ground,
)
from .errors import InputError

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class FrameWarp:
    """How one patch is drawn from a frame: shrink the frame, then look each patch pixel up.

    Attributes:
        camera: intrinsics of the frame; its distortion applies after the homography.
        frame_from_patch: (3, 3) float64 homography from patch pixels to undistorted frame pixels
            (pixel centres at integers). Its third coordinate is the depth along the optical axis:
            what is not in front of the camera is black.
        shrink: whole factor, 1 or more, by which the frame is averaged first, so that one
            bilinear look-up does not alias; rows and columns beyond a whole multiple are dropped.
        size_px: side of the patch, pixels.
    """

    camera: Camera
    frame_from_patch: Matrix
    shrink: int
    size_px: int


def north_up_warp(
    camera: Camera,
    attitude: Attitude,
    center_m: tuple[float, float],
    footprint_m: float,
    size_px: int,
) -> FrameWarp:
    """Return the warp that draws a square, north-up patch of flat ground.

    Undistortion, tilt, heading and scale are that single warp.

    Args:
        camera: intrinsics of the frame.
        attitude: attitude and height.
        center_m: east, north metres of the patch's centre from the camera's foot.
        footprint_m: side of the patch on the ground, metres.
        size_px: side of the patch, pixels.

    Raises:
        InputError: as `pixel_from_ground`.
    """
    frame_from_patch = pixel_from_ground(camera, attitude) @ ground_from_patch(
        *center_m, footprint_m, size_px
    )
    shrink = min(_shrink_factor(frame_from_patch, size_px), camera.height_px, camera.width_px)
    return FrameWarp(camera, frame_from_patch, shrink, size_px)


def north_up_patch(
    frame: Image,
    camera: Camera,
    attitude: Attitude,
    center_m: tuple[float, float],
    footprint_m: float,
    size_px: int,
) -> tuple[Image, float]:
    """Resample a frame to a square, north-up patch of flat ground.

    Args:
        frame: (H, W, 3) uint8 of the camera's size.
        camera: intrinsics of the frame.
        attitude: attitude and height.
        center_m: east, north metres of the patch's centre from the camera's foot.
        footprint_m: side of the patch on the ground, metres.
        size_px: side of the patch, pixels.

    Returns:
        The patch (size_px, size_px, 3) uint8, black outside the frame, and the share of it that
        the frame covers, 0 to 1.

    Raises:
        InputError: the frame's size is not the camera's, or as `pixel_from_ground`.
    """
    warp = north_up_warp(camera, attitude, center_m, footprint_m, size_px)
    coverage = patch_coverage(camera, attitude, center_m, footprint_m)
    return cut_with_opencv(frame, warp), coverage


def check_frame(frame: Image, camera: Camera) -> None:
    """Refuse a frame that is not the camera's.

    Raises:
        InputError: the frame's size is not the camera's.
    """
    if frame.shape[:2] != (camera.height_px, camera.width_px):
        raise InputError(
            f"frame of {frame.shape[1]}x{frame.shape[0]} px, camera of "
            f"{camera.width_px}x{camera.height_px} px; use Camera.resized"
        )


def cut_with_opencv(frame: Image, warp: FrameWarp) -> Image:
    """Draw one patch on the CPU.

    Args:
        frame: (H, W, 3) uint8 of the camera's size.
        warp: where its pixels come from.

    Returns:
        (S, S, 3) uint8, S = `warp.size_px`; black outside the frame.

    Raises:
        InputError: the frame's size is not the camera's.
    """
    patch: Image = np.empty((warp.size_px, warp.size_px, 3), np.uint8)
    cut_all_with_opencv(frame, [warp], patch[None])
    return patch


def cut_all_with_opencv(frame: Image, warps: Sequence[FrameWarp], out: Image) -> None:
    """Draw several patches on the CPU.

    Args:
        frame: (H, W, 3) uint8 of the cameras' size.
        warps: where the pixels of each of P patches come from.
        out: (>= P, S, S, 3) uint8, C-contiguous, S = `size_px` of all warps; its first P places
            are filled, black outside the frame.

    Raises:
        InputError: the frame's size is not the cameras'.
    """
    shrunk = {1: frame}  # once for all patches: it looks at every pixel of the frame
    for place, warp in enumerate(warps):
        check_frame(frame, warp.camera)
        if warp.shrink not in shrunk:
            shrunk[warp.shrink] = _shrink(frame, warp.shrink)
        _cut(shrunk[warp.shrink], warp, out[place])


def _shrink(frame: Image, factor: int) -> Image:
    """Average blocks of a frame's pixels; rows and columns beyond a whole multiple are dropped."""
    height, width = frame.shape[0] // factor, frame.shape[1] // factor
    whole = frame[: height * factor, : width * factor]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _cut(frame: Image, warp: FrameWarp, out: Image) -> None:
    """Draw one patch of a frame that was shrunk as the warp says into `out` (S, S, 3) uint8."""
    factor, size_px = warp.shrink, warp.size_px
    if warp.camera.distortion or _reaches_behind(warp.frame_from_patch, size_px):
        axis = np.arange(size_px, dtype=np.float64)
        places = frame_points(warp.camera, warp.frame_from_patch, axis[None, :], axis[:, None])
        columns, rows = (
            np.clip((place + 0.5) / factor - 0.5, OUTSIDE_PX, -OUTSIDE_PX).astype(np.float32)
            for place in places
        )
        cv2.remap(frame, columns, rows, cv2.INTER_LINEAR, dst=out)
    else:
        shrink = np.array(
            [[1 / factor, 0, 0.5 / factor - 0.5], [0, 1 / factor, 0.5 / factor - 0.5], [0, 0, 1]]
        )
        cv2.warpPerspective(
            frame,
            shrink @ warp.frame_from_patch,
            (size_px, size_px),
            dst=out,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )


def _shrink_factor(frame_from_patch: Matrix, size_px: int) -> int:
    """Return the whole number of frame pixels per patch pixel at the patch's centre.

    In plain numbers, as below: of so few arrays take ten times as long.
    """
    x_row, y_row, depth_row = frame_from_patch.tolist()

    def place(x: float, y: float) -> tuple[float, float]:
        depth = depth_row[0] * x + depth_row[1] * y + depth_row[2]
        if depth == 0.0:
            return math.nan, math.nan
        return (
            (x_row[0] * x + x_row[1] * y + x_row[2]) / depth,
            (y_row[0] * x + y_row[1] * y + y_row[2]) / depth,
        )

    middle = size_px / 2
    here = place(middle, middle)
    steps = math.dist(place(middle + 1, middle), here), math.dist(place(middle, middle + 1), here)
    return max(1, int(min(steps))) if all(map(math.isfinite, steps)) else 1


def _reaches_behind(frame_from_patch: Matrix, size_px: int) -> bool:
    """Return whether a corner of the patch, and so part of it, lies behind the camera."""
    by_x, by_y, constant = frame_from_patch[2].tolist()
    end = size_px - 1
    nearest: float = min(0.0, by_x * end) + min(0.0, by_y * end) + constant
    return nearest <= 0
