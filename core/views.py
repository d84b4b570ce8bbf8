"""A camera's view of a place known from above: stands in for frames where there are none."""

from __future__ import annotations

import cv2
import numpy as np

from .camera import Attitude, Camera, ground_from_pixel, pixel_from_ground
from .ground import RGB

# A place is this much wider than its tile, so that a view of it may shift and turn.
PLACE_FACTOR = 1.5
# What a frame turned north-up with a drone's telemetry still gets wrong (1 sigma).
_HEADING_ERROR_DEG = 3.0
_TILT_ERROR_DEG = 1.0
_SCALE_ERROR = 0.03
_SHIFT_SHARE = 0.04  # of the footprint
_TILT_DEG = 5.0
# Kept below what PLACE_FACTOR leaves around a tile.
_MAX_SIGMAS = 2.0


def camera_view(place: RGB, input_px: int, rng: np.random.Generator) -> RGB:
    """Return what a frame shows of a place after it was turned north-up by telemetry.

    It has the errors of that: of heading, residual tilt, height and position; and other light,
    blur and noise.

    Args:
        place: (q, q, 3) uint8, q at least `PLACE_FACTOR` times `input_px`; the view is its middle.
        input_px: side of the view.
        rng: draws the errors.
    """
    # One pixel is one metre: the true attitude is read by the believed one.
    camera = Camera.from_hfov(input_px, input_px, 60.0)
    agl_m = camera.fx_px
    yaw, pitch, roll = rng.uniform(0, 360), *rng.uniform(-_TILT_DEG, _TILT_DEG, 2)
    true = Attitude(yaw, pitch, roll, agl_m)
    error = np.clip(rng.standard_normal(6), -_MAX_SIGMAS, _MAX_SIGMAS)
    believed = Attitude(
        yaw + _HEADING_ERROR_DEG * error[0],
        pitch + _TILT_ERROR_DEG * error[1],
        roll + _TILT_ERROR_DEG * error[2],
        agl_m * (1 + _SCALE_ERROR * error[3]),
    )
    shift = _SHIFT_SHARE * input_px * error[4:]
    half, middle = (input_px - 1) / 2, (place.shape[0] - 1) / 2
    ground_from_patch = np.array([[1, 0, shift[0] - half], [0, -1, shift[1] + half], [0, 0, 1]])
    place_from_ground = np.array([[1, 0, middle], [0, -1, middle], [0, 0, 1]])
    seen = ground_from_pixel(camera, true) @ pixel_from_ground(camera, believed)
    view = cv2.warpPerspective(
        place,
        place_from_ground @ seen @ ground_from_patch,
        (input_px, input_px),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return _other_light(np.asarray(view, np.uint8), rng)


def _other_light(image: RGB, rng: np.random.Generator) -> RGB:
    value = (image.astype(np.float32) / 255) ** rng.uniform(0.8, 1.25)
    value = value * rng.uniform(0.85, 1.15, 3).astype(np.float32) + rng.uniform(-0.05, 0.05)
    blurred = cv2.GaussianBlur(value.astype(np.float32), (0, 0), rng.uniform(0.3, 1.0))
    noisy = blurred + rng.normal(0, rng.uniform(0, 0.02), value.shape)
    return np.asarray(np.clip(np.rint(noisy * 255), 0, 255), np.uint8)
