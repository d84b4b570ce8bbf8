"""Opening live sources with OpenCV: V4L2 devices, network streams, GStreamer pipelines.

Each is opened so that reading it ends in time when nothing comes, and so that OpenCV keeps no
frames back. What fails is told as text: at the start it is the user's mistake, later an outage.
"""

from __future__ import annotations

import os
import re
from enum import Enum
from pathlib import Path

import cv2

from ..core.errors import InputError
from .camera_clock import CaptureClock, DriverClock, StreamClock
from .camera_device import Devices
from .frames import CameraMode, LiveOptions

OPEN_TIMEOUT_S = 10  # RTSP servers answer within 1 to 3 s; a wrong address must not hang
READ_TIMEOUT_S = 2  # several frames of the slowest camera; then it is opened anew

# FFmpeg otherwise looks at 20 frames, to tell the rate, before it hands on the first. `nobuffer`,
# which many recommend, drops what it looked at, and the key frame with it: up to ten seconds pass
# until the next. Kept, these frames come in a burst that `camera_clock` knows to be old.
_FFMPEG_OPTIONS = "rtsp_transport;tcp|fpsprobesize;0"

_TIMEOUTS = [
    *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_S * 1000),
    *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_TIMEOUT_S * 1000),
]


class Kind(Enum):
    """What OpenCV reads a live source with."""

    V4L2 = "V4L2"
    FFMPEG = "FFmpeg"
    GSTREAMER = "GStreamer"


def live_kind(source: str) -> Kind | None:
    """Return what kind of live source `--camera` names, None for files."""
    if " ! " in source:
        return Kind.GSTREAMER
    if "://" in source:
        return Kind.FFMPEG
    if source.isdigit() or source.startswith("/dev/"):
        return Kind.V4L2
    return None


class LiveSource:
    """A live source that can be opened again and again, also where it has moved meanwhile."""

    def __init__(self, source: str, options: LiveOptions) -> None:
        """Remember the source; a V4L2 device is told from others by what is known of it now.

        Raises:
            InputError: a mode was asked of something that has none to choose from.
        """
        self.name = public_name(source)
        self._source = source
        self._options = options
        self._kind = live_kind(source)
        self._devices = Devices()
        self._device = self._devices.identify(self._devices.path(source))
        if self._kind is not Kind.V4L2 and options.mode is not None:
            raise InputError(
                f"--camera {self.name}: a mode can be asked of V4L2 devices alone; set size and "
                "format where the stream is made"
            )

    def open(self) -> cv2.VideoCapture | str:
        """Open the source, wherever it is now; return what is wrong where that fails."""
        if self._kind is Kind.FFMPEG:
            return open_url(self._source)
        if self._kind is Kind.GSTREAMER:
            return open_gstreamer(self._source)
        node = self._devices.find(self._device)
        if node is not None:
            return open_device(node, self._options.mode)
        found = ", ".join(str(path) for path in self._devices.nodes())
        return f"no device {self._device.given}; found {found or 'no camera'}"

    def clock(self) -> CaptureClock:
        """Return what tells when frames were taken, for one opening."""
        latency_s = self._options.latency_ms / 1e3
        return DriverClock(latency_s) if self._kind is Kind.V4L2 else StreamClock(latency_s)


def public_name(source: str) -> str:
    """Return a source as messages may show it: without the password of its URL."""
    return re.sub(r"(://[^/@:\s]*):[^/@\s]*@", r"\1:***@", source)


def open_device(node: Path, mode: CameraMode | None) -> cv2.VideoCapture | str:
    """Open a V4L2 node; return what is wrong where that fails."""
    # Read by OpenCV at its first wait, 10 s otherwise: the longest that reading blocks.
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(READ_TIMEOUT_S))
    capture = cv2.VideoCapture(str(node), cv2.CAP_V4L2)
    if not capture.isOpened():
        return (
            f"{node} cannot be opened as a camera; another program may use it, or you may not be "
            "in the group 'video'"
        )
    fault = None if mode is None else _set_mode(capture, mode)
    if fault is not None:
        capture.release()
        return f"{node} {fault}; v4l2-ctl --list-formats-ext shows what it can"
    return capture


def _set_mode(capture: cv2.VideoCapture, mode: CameraMode) -> str | None:
    """Ask a device for a size and a format; return what is wrong where it gives another."""
    if mode.fourcc is not None:
        wanted = cv2.VideoWriter.fourcc(*mode.fourcc)
        capture.set(cv2.CAP_PROP_FOURCC, wanted)
        if int(capture.get(cv2.CAP_PROP_FOURCC)) != wanted:
            return f"has no format {mode.fourcc}"
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, mode.width_px)
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, mode.height_px)
    width_px = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    height_px = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    if (width_px, height_px) != (mode.width_px, mode.height_px):
        return (
            f"has no size {mode.width_px}x{mode.height_px}, the nearest is {width_px}x{height_px}"
        )
    return None


def open_url(url: str) -> cv2.VideoCapture | str:
    """Open a network stream with FFmpeg; return what is wrong where that fails."""
    # FFmpeg has these from the environment alone; what the user set there comes first.
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", _FFMPEG_OPTIONS)
    # Every further thread of the decoder keeps one more frame back.
    parameters = [*_TIMEOUTS, cv2.CAP_PROP_N_THREADS, 1]
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, parameters)
    if not capture.isOpened():
        return f"no stream there within {OPEN_TIMEOUT_S} s; check address, network and password"
    return capture


def open_gstreamer(pipeline: str) -> cv2.VideoCapture | str:
    """Open a GStreamer pipeline; return what is wrong where that fails."""
    if not has_gstreamer(cv2.getBuildInformation()):
        return (
            f"this OpenCV {cv2.__version__} is built without GStreamer (the pip wheels are); let "
            "gst-launch-1.0 run the pipeline and serve it as tcp://127.0.0.1:PORT, see "
            "docs/cameras.md, or use an OpenCV that is built with it"
        )
    capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER, _TIMEOUTS)
    if not capture.isOpened():
        return (
            "GStreamer cannot run it; try it with gst-launch-1.0, and end it with 'appsink "
            "drop=true max-buffers=1 sync=false'"
        )
    return capture


def has_gstreamer(build_information: str) -> bool:
    """Tell from `cv2.getBuildInformation()` whether OpenCV was built with GStreamer."""
    for line in build_information.splitlines():
        name, _, value = line.strip().partition(":")
        if name == "GStreamer":
            return value.strip().startswith("YES")
    return False
