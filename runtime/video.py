"""Video files, and what reading any video with OpenCV takes."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

import cv2
import numpy as np

from ..core.console import say
from ..core.errors import InputError
from .frame_buffers import FrameBuffers, Pixels
from .frames import Frame

# OpenCV's order of colours, by how many there are.
_TO_RGB = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}


def quiet_opencv() -> None:
    """Keep OpenCV's and FFmpeg's own warnings off stderr: errors are ours, on one line."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class VideoFile:
    """A video file; its presentation timestamps are the clock."""

    dropped = 0

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            InputError: it is no video that can be decoded.
        """
        quiet_opencv()
        self.name = str(path)
        self._buffers = FrameBuffers()
        self._capture = cv2.VideoCapture(self.name, cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise InputError(
                f"--camera {path}: not a video or photo that can be decoded; convert it to MP4 "
                "(H.264) or JPEG"
            )
        # Camera geometry wants the sensor's own rows and columns, whatever the phone's tilt.
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count: int | None = count if count > 0 else None

    def frames(self) -> Iterator[Frame]:
        """Yield every frame with its presentation time.

        Raises:
            InputError: no frame can be decoded, or their times do not increase.
        """
        bgr: Pixels | None = None
        index, last_s = 0, -math.inf
        while True:
            arrived_s = time.monotonic()
            read, image = self._capture.read(bgr)
            if not read or not is_picture(image):
                break
            bgr = image  # filled again by the next frame, if it is of the same size
            t = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
            if not t > last_s:
                raise InputError(
                    f"--camera {self.name}: frame {index} is at {t:g} s, not after the one before "
                    "it; give the video times: ffmpeg -r FPS -i VIDEO NEW.mp4"
                )
            last_s = t
            rgb = to_rgb(image, self._buffers)
            yield Frame(
                index,
                max(t, 0.0),
                None,
                f"{self.name} frame {index}",
                rgb.shape[1],
                rgb.shape[0],
                arrived_s,
                decode_s=time.monotonic() - arrived_s,
                decoded=rgb,
            )
            index += 1
        if index == 0:
            raise InputError(f"--camera {self.name}: holds no frame that can be decoded")
        if self.count is not None and index < self.count:
            say(f"{self.name}: ends after {index} of {self.count} frames")

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


def is_picture(image: Any) -> TypeGuard[Pixels]:
    """Tell whether OpenCV has decoded something: 8-bit pixels, grey, BGR or BGRA."""
    return (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.size > 0
        and (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in _TO_RGB))
    )


def to_rgb(image: Pixels, buffers: FrameBuffers) -> Pixels:
    """Convert an image of OpenCV's, (H, W) or (H, W, C), to (H, W, 3) RGB in one of the buffers."""
    rgb = buffers.take((image.shape[0], image.shape[1], 3))
    cv2.cvtColor(image, _TO_RGB[1 if image.ndim == 2 else image.shape[2]], dst=rgb)
    return rgb
