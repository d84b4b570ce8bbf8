"""Live cameras: the newest frame is always the one at hand, and silence is told in time."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ..core.console import say
from ..core.errors import InputError, S4GError
from .camera_open import LiveSource
from .frame_buffers import FrameBuffers
from .frames import Frame, LiveOptions, Outage
from .grab import CameraCounts, Grabbed, Grabber
from .video import quiet_opencv, to_rgb

_SAY_AGAIN_S = 10.0  # a camera that comes and goes all the time must not fill the log


class LiveCamera:
    """A V4L2 device, a network stream or a GStreamer pipeline, drained by a thread of its own."""

    count = None

    def __init__(self, source: str, options: LiveOptions | None = None) -> None:
        """Open the source and start draining it.

        Raises:
            InputError: it cannot be opened; the message says what to check.
        """
        quiet_opencv()
        self._options = options or LiveOptions()
        opener = LiveSource(source, self._options)
        self.name = opener.name
        capture = opener.open()
        if isinstance(capture, str):
            raise InputError(f"--camera {self.name}: {capture}")
        self._grabber = Grabber(opener, capture, self._options)
        self._buffers = FrameBuffers()
        self._said_s = -_SAY_AGAIN_S

    @property
    def counts(self) -> CameraCounts:
        """What became of the frames so far."""
        return self._grabber.counts

    @property
    def dropped(self) -> int:
        """Frames that were overtaken by newer ones."""
        return self._grabber.counts.overtaken

    def frames(self) -> Iterator[Frame | Outage]:
        """Yield the newest frame each time, or that there is none, without end.

        A frame stays as it is for as long as it is held (`frame_buffers`).

        Raises:
            S4GError: no frame came for as long as the options allow.
        """
        index = 0
        told_s = time.monotonic()  # when the reader last got anything
        silent_since_s: float | None = None
        while True:
            newest = self._grabber.wait(told_s + self._options.outage_period_s)
            told_s = time.monotonic()
            if newest is not None:
                if silent_since_s is not None:
                    self._say_back(silent_since_s, newest.arrived_s)
                    silent_since_s = None
                yield self._frame(index, newest)
                index += 1
                continue
            begins = silent_since_s is None
            if silent_since_s is None:
                silent_since_s = self._grabber.arrived_s
            yield self._outage(silent_since_s, told_s, begins)

    def close(self) -> None:
        """Stop the thread, release the source and say what was lost."""
        self._grabber.close()
        counts = self._grabber.counts
        lost = {
            "too old on arrival": counts.late,
            "too old when asked for": counts.expired,
            "without a picture": counts.broken,
        }
        parts = [f"{count} {what}" for what, count in lost.items() if count]
        if counts.reopened:
            parts.append(f"opened again {counts.reopened} times")
        if parts:
            say(f"camera {self.name}: {counts.grabbed} frames, {', '.join(parts)}")

    def _frame(self, index: int, newest: Grabbed) -> Frame:
        started_s = time.monotonic()
        rgb = to_rgb(newest.image, self._buffers)
        return Frame(
            index,
            newest.t,
            None,
            f"{self.name} frame {index}",
            rgb.shape[1],
            rgb.shape[0],
            newest.arrived_s,
            decode_s=time.monotonic() - started_s,
            decoded=rgb,
        )

    def _outage(self, since_s: float, now_s: float, begins: bool) -> Outage:
        """Describe the silence; say it where it begins, end the run where it has to."""
        reason = f"no frame for {now_s - since_s:.1f} s: {self._grabber.trouble}"
        give_up_s = self._options.give_up_s
        if give_up_s is not None and now_s - since_s >= give_up_s:
            raise S4GError(f"--camera {self.name}: {reason}; check cable, power and network")
        if begins and now_s - self._said_s >= _SAY_AGAIN_S:
            self._said_s = now_s
            say(f"camera {self.name}: {reason}; trying again until it is back")
        return Outage(now_s, now_s, reason)

    def _say_back(self, since_s: float, arrived_s: float) -> None:
        if self._said_s >= since_s:
            say(f"camera {self.name}: frames again, after {arrived_s - since_s:.1f} s")
