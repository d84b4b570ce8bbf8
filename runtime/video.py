"""Video files, and live cameras whose newest frame is always the one at hand.

A stream that is read slower than it delivers lags without bound, so a thread drains a live
source all the time into a slot for one frame and counts what is overtaken.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..core.console import say
from ..core.errors import InputError, S4GError
from .frames import Frame

BGR = npt.NDArray[np.uint8]

OPEN_TIMEOUT_MS = 10_000  # RTSP servers answer within 1 to 3 s; a wrong address must not hang
STALL_S = 5.0  # no frame for this long: the camera is gone
# A driver's timestamp is believed if it lies this close to the monotonic clock.
_CLOCK_TOLERANCE_S = 2.0
_FFMPEG_OPTIONS = "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay"


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
        """Yield the frames with their presentation time."""
        index = 0
        while True:
            arrived_s = time.monotonic()
            read, image = self._capture.read()
            if not read:
                break
            t = max(self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3, 0.0)
            yield _frame(index, t, f"{self.name} frame {index}", image, arrived_s, arrived_s)
            index += 1
        if index == 0:
            raise InputError(f"--camera {self.name}: holds no frame that can be decoded")
        if self.count is not None and index < self.count:
            say(f"{self.name}: ends after {index} of {self.count} frames")

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


class LiveCamera:
    """A V4L2 device, a network stream or a GStreamer pipeline, drained by a thread."""

    count = None

    def __init__(self, source: str) -> None:
        """Open the source and start draining it.

        Raises:
            InputError: it cannot be opened; the message says what to check.
        """
        quiet_opencv()
        self.name = source
        self.dropped = 0
        self._capture = _open_live(source)
        self._fresh = threading.Condition()
        self._newest: tuple[BGR, float, float] | None = None
        self._lost = False
        self._stop = False
        self._thread = threading.Thread(target=self._drain, name="s4g-grab", daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        while not self._stop:
            read, image = self._capture.read()
            now = time.monotonic()
            with self._fresh:
                if not read:
                    self._lost = True
                elif image is not None:
                    self.dropped += self._newest is not None
                    stamp_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
                    self._newest = (np.asarray(image, np.uint8), live_time_s(stamp_s, now), now)
                self._fresh.notify()
            if not read:
                return

    def frames(self) -> Iterator[Frame]:
        """Yield the newest frame each time, without end.

        Raises:
            S4GError: no frame came for five seconds, or the source ended.
        """
        index = 0
        while True:
            with self._fresh:
                self._fresh.wait_for(lambda: self._newest is not None or self._lost, STALL_S)
                newest, self._newest = self._newest, None
            if newest is None:
                raise S4GError(
                    f"--camera {self.name}: no frame for {STALL_S:g} s after {index} frames; "
                    "check cable, power and network"
                    if not self._lost
                    else f"--camera {self.name}: the source ended after {index} frames; "
                    "check cable, power and network"
                )
            image, t, arrived_s = newest
            started_s = time.monotonic()
            yield _frame(index, t, f"{self.name} frame {index}", image, arrived_s, started_s)
            index += 1

    def close(self) -> None:
        """Stop the thread and release the device."""
        self._stop = True
        self._thread.join(timeout=STALL_S)
        if not self._thread.is_alive():
            self._capture.release()


def live_time_s(stamp_s: float, now_s: float) -> float:
    """Return the driver's timestamp where it is on the monotonic clock, else the arrival time.

    V4L2 stamps buffers on CLOCK_MONOTONIC; network streams count from their own start.
    """
    return min(stamp_s, now_s) if abs(now_s - stamp_s) < _CLOCK_TOLERANCE_S else now_s


def _frame(
    index: int, t: float, name: str, image: Any, arrived_s: float, started_s: float
) -> Frame:
    code = cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB
    rgb = np.asarray(cv2.cvtColor(image, code), np.uint8)
    height, width = rgb.shape[:2]
    decode_s = time.monotonic() - started_s
    return Frame(index, t, None, name, width, height, arrived_s, decode_s=decode_s, decoded=rgb)


def _open_live(source: str) -> cv2.VideoCapture:
    if " ! " in source:
        return _open_gstreamer(source)
    if "://" in source:
        return _open_url(source)
    device = f"/dev/video{source}" if source.isdigit() else source
    if not Path(device).exists():
        present = sorted(str(p) for p in Path("/dev").glob("video*"))
        raise InputError(
            f"--camera {source}: no device {device}; found {', '.join(present) or 'no camera'}"
        )
    capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    if not capture.isOpened():
        raise InputError(
            f"--camera {source}: {device} cannot be opened as a camera; another program may use "
            "it, or you may not be in the group 'video'"
        )
    return capture


def _open_url(url: str) -> cv2.VideoCapture:
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", _FFMPEG_OPTIONS)
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS]
    timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, OPEN_TIMEOUT_MS]
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, timeouts)
    if not capture.isOpened():
        raise InputError(
            f"--camera {url}: no stream there within {OPEN_TIMEOUT_MS // 1000} s; check address, "
            "network and password"
        )
    return capture


def _open_gstreamer(pipeline: str) -> cv2.VideoCapture:
    if not has_gstreamer(cv2.getBuildInformation()):
        raise InputError(
            f"--camera '{pipeline}': this OpenCV {cv2.__version__} is built without GStreamer "
            "(the pip wheels are); use the system's OpenCV (apt install python3-opencv, or "
            "JetPack's), or give a device or URL"
        )
    capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        raise InputError(
            f"--camera '{pipeline}': GStreamer cannot run it; try it with gst-launch-1.0, and end "
            "it with 'appsink drop=true max-buffers=1 sync=false'"
        )
    return capture


def has_gstreamer(build_information: str) -> bool:
    """Tell from `cv2.getBuildInformation()` whether OpenCV was built with GStreamer."""
    for line in build_information.splitlines():
        name, _, value = line.strip().partition(":")
        if name == "GStreamer":
            return value.strip().startswith("YES")
    return False
