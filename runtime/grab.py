"""The thread that drains a live source into a slot for its newest frame.

A stream that is read slower than it delivers lags without bound, so the source is read all the
time, whatever its reader does. The thread also opens the source again when it is lost.

Bytes: OpenCV converts a frame to BGR and copies that into a buffer of ours, 3 W H bytes written
twice, for every frame on time; one that is too old is not even converted. The reader turns those
that it takes into RGB: 3 W H bytes once more, 6 MB at full HD.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import cv2

from .camera_clock import CaptureClock
from .camera_open import READ_TIMEOUT_S, LiveSource
from .frame_buffers import FrameBuffers, Pixels
from .frames import LiveOptions
from .video import is_picture

# A source that delivers nothing of use for this long is opened anew. That it says it is open is no
# evidence: an unplugged V4L2 device says so, and a stream whose server hangs.
STALL_S = 3.0
_BACK_OFF_S = 0.1  # before the source is opened again; doubled with each attempt
_LONGEST_BACK_OFF_S = 1.6
_SILENT = "it is silent"


@dataclass
class CameraCounts:
    """What became of the frames of a live source."""

    grabbed: int = 0  # frames that the source delivered
    overtaken: int = 0  # dropped, because a newer one came before anyone asked
    late: int = 0  # dropped, because they were too old when they arrived
    expired: int = 0  # dropped, because they were too old when they were asked for
    broken: int = 0  # dropped, because they held no picture
    reopened: int = 0  # how often the source was opened again


@dataclass(frozen=True)
class Grabbed:
    """A frame in the slot.

    Attributes:
        image: (H, W) grey or (H, W, 3 or 4) BGR, uint8.
        t: monotonic time of capture.
        arrived_s: monotonic time of arrival.
    """

    image: Pixels
    t: float
    arrived_s: float


class Grabber:
    """Drains an opened source, and opens it again whenever it is lost, until it is closed.

    Attributes:
        counts: what became of the frames.
        trouble: what is wrong with the source, as far as is known.
        arrived_s: monotonic time at which the last frame of use arrived.
    """

    def __init__(self, source: LiveSource, capture: cv2.VideoCapture, options: LiveOptions) -> None:
        """Start the thread."""
        self.counts = CameraCounts()
        self.trouble = _SILENT
        self.arrived_s = time.monotonic()
        self._source = source
        self._max_age_s = options.max_age_s
        self._buffers = FrameBuffers()
        self._shape: tuple[int, ...] | None = None
        self._fresh = threading.Condition()
        self._newest: Grabbed | None = None
        self._failure: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(capture,), name="s4g-grab", daemon=True
        )
        self._thread.start()

    def wait(self, deadline_s: float) -> Grabbed | None:
        """Return the newest frame once there is one that is young enough, None at the deadline.

        Raises:
            Exception: what ended the thread, if anything did; never trouble with the source.
        """
        while True:
            with self._fresh:
                self._fresh.wait_for(
                    lambda: self._newest is not None or self._failure is not None,
                    max(deadline_s - time.monotonic(), 0.0),
                )
                newest, self._newest = self._newest, None
            if self._failure is not None:
                raise self._failure
            if newest is None or time.monotonic() - newest.t <= self._max_age_s:
                return newest
            self.counts.expired += 1

    def close(self) -> None:
        """Stop the thread; it releases the source, at the latest when reading ends by itself."""
        self._stop.set()
        self._thread.join(READ_TIMEOUT_S + 1.0)

    def _run(self, capture: cv2.VideoCapture) -> None:
        try:
            self._keep_draining(capture)
        except Exception as error:
            with self._fresh:
                self._failure = error
                self._fresh.notify()

    def _keep_draining(self, capture: cv2.VideoCapture | str) -> None:
        attempts = 0
        while True:
            if isinstance(capture, str):
                self.trouble = capture
            else:
                if self._drain(capture):
                    attempts = 0
                # Before it is opened again: a handle that is held keeps a device's number taken.
                capture.release()
            if self._stop.wait(min(_BACK_OFF_S * 2**attempts, _LONGEST_BACK_OFF_S)):
                return
            attempts += 1
            capture = self._source.open()
            self.counts.reopened += not isinstance(capture, str)

    def _drain(self, capture: cv2.VideoCapture) -> bool:
        """Keep the newest frame in the slot until the source is lost; tell if any was of use."""
        clock = self._source.clock()
        since_s = time.monotonic()
        useful = False
        while not self._stop.is_set() and time.monotonic() - since_s < STALL_S:
            if not capture.grab():
                self.trouble = f"it ended, or was silent for {READ_TIMEOUT_S} s"
                break
            if self._keep(capture, clock):
                since_s, useful = time.monotonic(), True
            # Another sender, whose frames OpenCV would stretch to the size of the first one's.
            if clock.restarted:
                self.trouble = "its clock has jumped"
                break
        return useful

    def _keep(self, capture: cv2.VideoCapture, clock: CaptureClock) -> bool:
        """Put the frame at hand into the slot; where it is of no use count it and return False."""
        arrived_s = time.monotonic()
        self.counts.grabbed += 1
        t = clock.capture_s(capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3, arrived_s)
        if t is None or arrived_s - t > self._max_age_s:
            self.counts.late += 1
            if t is not None:
                self.trouble = f"its frames arrive {arrived_s - t:.1f} s late"
            return False
        image = self._retrieve(capture)
        if image is None:
            self.counts.broken += 1
            self.trouble = "its frames hold no picture"
            return False
        self.trouble = _SILENT
        with self._fresh:
            self.counts.overtaken += self._newest is not None
            self._newest = Grabbed(image, t, arrived_s)
            self.arrived_s = arrived_s
            self._fresh.notify()
        return True

    def _retrieve(self, capture: cv2.VideoCapture) -> Pixels | None:
        buffer = None if self._shape is None else self._buffers.take(self._shape)
        try:
            read, image = capture.retrieve(buffer)
        except cv2.error:  # a JPEG of the camera's that cannot be decoded
            return None
        if not read or not is_picture(image):
            return None
        # OpenCV fills the buffer where it fits; where the size has changed it makes an array.
        self._shape = image.shape
        return image
