"""What a drone's camera makes of ground, for whole batches: homographies, no pixels.

The geometry is the runtime's: a frame is turned north-up with the *reported* attitude while the
camera had the *true* one; what remains of heading, tilt and height error is in the patch.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..core.camera import Attitude
from .recipe import ViewConfig

Matrices: TypeAlias = npt.NDArray[np.float64]

# Cameras seen in training: a consumer drone's and a mapping camera's field of view.
_HFOV_DEG = (50.0, 85.0)
_FRAME_PX = (640, 480)
# A patch covers this share of the frame's short side.
_PATCH_SHARE = (0.55, 0.95)
_MAX_TILT_DEG = 25.0
# Of an error that is not reported: the camera must still see the ground.
_MAX_TILT_ERROR_DEG = 20.0
_BODY_FROM_CAMERA = Attitude(0.0, 0.0, 0.0, 1.0).ned_from_camera


def pixel_from_local(
    gsd_m: npt.ArrayLike,
    x_m: npt.ArrayLike,
    y_m: npt.ArrayLike,
    turn_deg: npt.ArrayLike,
    mirror: npt.ArrayLike,
) -> Matrices:
    """Return the maps (N, 3, 3) from east, north metres around places to pixels of their imagery.

    Args:
        gsd_m: (N,) ground size of a pixel.
        x_m: (N,) metres of the centre from the imagery's western edge.
        y_m: (N,) the same from its northern edge.
        turn_deg: (N,) turn under which the ground is seen.
        mirror: (N,) whether it is seen mirrored.
    """
    gsd, x, y, turn_deg, mirror = np.broadcast_arrays(gsd_m, x_m, y_m, turn_deg, mirror)
    turn = np.radians(turn_deg)
    flip = np.where(mirror, -1.0, 1.0)
    cos, sin = np.cos(turn) / gsd, np.sin(turn) / gsd
    maps = np.zeros((len(gsd), 3, 3))
    maps[:, 0] = np.stack([flip * cos, -sin, x / gsd - 0.5], axis=1)
    maps[:, 1] = np.stack([-flip * sin, -cos, y / gsd - 0.5], axis=1)
    maps[:, 2, 2] = 1
    return maps


def local_from_tile(footprints_m: npt.ArrayLike, size_px: int) -> Matrices:
    """Return the maps (N, 3, 3) from pixels of north-up tiles to east, north metres around them."""
    footprints = np.asarray(footprints_m, np.float64)
    gsd = footprints / size_px
    edge = footprints / 2 - gsd / 2
    maps = np.zeros((len(footprints), 3, 3))
    maps[:, 0, 0], maps[:, 0, 2] = gsd, -edge
    maps[:, 1, 1], maps[:, 1, 2] = -gsd, edge
    maps[:, 2, 2] = 1
    return maps


def local_from_drone(
    footprints_m: npt.ArrayLike, size_px: int, views: ViewConfig, rng: np.random.Generator
) -> tuple[Matrices, npt.NDArray[np.float64]]:
    """Draw a drone's view of each of N places.

    Args:
        footprints_m: (N,) sides of the places.
        size_px: side of the patches.
        views: how far the telemetry is off.
        rng: source of all draws.

    Returns:
        The homographies (N, 3, 3) from pixels of the north-up patch to east, north metres around
        the place, and (N, 2) how far the patch's centre lies from the place's, as east, north
        shares of the footprint.
    """
    footprints = np.asarray(footprints_m, np.float64)
    count = len(footprints)
    width, height = _FRAME_PX
    focal_px = width / 2 / np.tan(np.radians(rng.uniform(*_HFOV_DEG, count)) / 2)
    agl_m = footprints / rng.uniform(*_PATCH_SHARE, count) * focal_px / height
    yaw = rng.uniform(0, 360, count)
    tilts = np.clip(rng.normal(0, views.tilt_deg, (2, count)), -_MAX_TILT_DEG, _MAX_TILT_DEG)
    yaw_error, tilt_errors, log_height = _errors(count, views, rng)
    middle = ((width - 1) / 2, (height - 1) / 2)
    reported = _ground_from_pixel(focal_px, middle, yaw, tilts, agl_m)
    true = _ground_from_pixel(
        focal_px, middle, yaw + yaw_error, tilts + tilt_errors, agl_m * np.exp(log_height)
    )
    centred = local_from_tile(footprints, size_px)
    centred[:, :2, 2] += _look_points(reported, middle)
    maps = true @ np.linalg.inv(reported) @ centred
    share = rng.uniform(-views.center_offset, views.center_offset, (count, 2))
    offset = share * footprints[:, None] - _look_points(true, middle)
    maps[:, :2] += offset[:, :, None] * maps[:, 2:]
    return maps, share


def _errors(
    count: int, views: ViewConfig, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Draw errors of yaw (N,), pitch and roll (2, N), degrees, and of the height's logarithm (N,).

    Most telemetry is nearly right; a share of it is not, and its errors are spread evenly.
    """
    yaw = rng.normal(0, views.yaw_error_deg, count)
    tilts = rng.normal(0, views.tilt_error_deg, (2, count))
    height = rng.normal(0, views.height_error, count)
    wild = rng.random(count) < views.wild_share
    reach = math.log1p(views.wild_height)
    yaw = np.where(wild, rng.uniform(-1, 1, count) * views.wild_yaw_deg, yaw)
    tilts = np.where(wild, rng.uniform(-1, 1, (2, count)) * views.wild_tilt_deg, tilts)
    height = np.where(wild, rng.uniform(-reach, reach, count), height)
    return yaw, np.clip(tilts, -_MAX_TILT_ERROR_DEG, _MAX_TILT_ERROR_DEG), height


def _ground_from_pixel(
    focal_px: npt.NDArray[np.float64],
    middle_px: tuple[float, float],
    yaw_deg: npt.NDArray[np.float64],
    tilts_deg: npt.NDArray[np.float64],
    agl_m: npt.NDArray[np.float64],
) -> Matrices:
    """Return `core.camera.ground_from_pixel` of N undistorted cameras, (N, 3, 3)."""
    yaw, pitch, roll = np.radians(yaw_deg), np.radians(tilts_deg[0]), np.radians(tilts_deg[1])
    zero, one = np.zeros(len(yaw)), np.ones(len(yaw))

    def stacked(*rows: tuple[npt.NDArray[np.float64], ...]) -> Matrices:
        return np.stack([np.stack(row, axis=1) for row in rows], axis=1)

    cos, sin = np.cos, np.sin
    about_down = stacked((cos(yaw), -sin(yaw), zero), (sin(yaw), cos(yaw), zero), (zero, zero, one))
    about_right = stacked(
        (cos(pitch), zero, sin(pitch)), (zero, one, zero), (-sin(pitch), zero, cos(pitch))
    )
    about_forward = stacked(
        (one, zero, zero), (zero, cos(roll), -sin(roll)), (zero, sin(roll), cos(roll))
    )
    ray_from_pixel = stacked(
        (1 / focal_px, zero, -middle_px[0] / focal_px),
        (zero, 1 / focal_px, -middle_px[1] / focal_px),
        (zero, zero, one),
    )
    ray_ned = about_down @ about_right @ about_forward @ _BODY_FROM_CAMERA @ ray_from_pixel
    return np.stack([ray_ned[:, 1], ray_ned[:, 0], ray_ned[:, 2] / agl_m[:, None]], axis=1)


def _look_points(
    ground_from_pixel: Matrices, middle_px: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Return east, north metres (N, 2) from each camera's foot to where it looks."""
    seen = ground_from_pixel @ np.array([*middle_px, 1.0])
    return np.asarray(seen[:, :2] / seen[:, 2:], np.float64)
