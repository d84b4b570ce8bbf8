"""What faults do to a picture."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

RGB = npt.NDArray[np.uint8]

# A sixth of the light, warm, and the noise of a raised gain.
_NIGHT = np.array([0.2, 0.17, 0.13], np.float32)
_NIGHT_NOISE = 6.0
_BLUR_PX = 15  # way of the picture during the exposure, at 640 columns
_COLUMNS = 640


def spoilt(frame: RGB, kind: str, rng: np.random.Generator) -> RGB:
    """Return a frame (H, W, 3) as the camera delivers it under a fault; kidnaps leave it alone."""
    if kind == "blackout":
        return np.zeros_like(frame)
    if kind == "night":
        seen = frame * _NIGHT + rng.standard_normal(frame.shape, np.float32) * _NIGHT_NOISE
        return np.clip(np.round(seen), 0, 255).astype(np.uint8)
    if kind == "blur":
        return _smeared(frame, float(rng.uniform(0, 180)))
    return frame


def _smeared(frame: RGB, angle_deg: float) -> RGB:
    length = max(3, round(_BLUR_PX * frame.shape[1] / _COLUMNS)) | 1
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1 / length
    turn = cv2.getRotationMatrix2D((length // 2, length // 2), angle_deg, 1.0)
    turned = np.asarray(cv2.warpAffine(kernel, turn, (length, length)), np.float32)
    return np.asarray(cv2.filter2D(frame, -1, turned / turned.sum()), np.uint8)
