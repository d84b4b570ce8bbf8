"""When a live frame was taken, on the machine's monotonic clock.

A V4L2 driver says so itself. A network stream only tells how its frames lie to each other, which is
enough to see that a frame comes late: out of a queue that filled while the machine, the network or
the far end was held up.
"""

from __future__ import annotations

import math
from typing import Protocol

# A driver's stamp is on the monotonic clock if the first one lies this close to it.
_SAME_CLOCK_S = 2.0
# How fast a stream's clock may lose against ours. Cameras that count frames at their nominal rate
# are off by a percent or two; a queue that builds up faster than this is seen as one.
_SLOWEST = 0.02
# Streams repeat a stamp at their beginning at times; one that repeats it more often has no stamps.
_FIRST_STAMPS = 2
# Stamps that go back this far, or go on this much further than the time that passed, are no longer
# those of the same sender. A burst of frames goes on by a frame at a time.
_BACK_S = 0.5
_AHEAD_S = 2.0


class CaptureClock(Protocol):
    """Tells when frames of one opened source were taken.

    Attributes:
        restarted: the source has begun anew; what it sends now may be something else altogether.
    """

    restarted: bool

    def capture_s(self, stamp_s: float, arrived_s: float) -> float | None:
        """Return the time of capture, or None while it cannot be told.

        Args:
            stamp_s: what the source says, on whatever clock.
            arrived_s: monotonic time at which the frame was at hand.
        """
        ...


class DriverClock:
    """V4L2: buffers are stamped on CLOCK_MONOTONIC, by nearly all drivers."""

    restarted = False

    def __init__(self, latency_s: float) -> None:
        """Take the latency that is assumed where the driver uses another clock."""
        self._latency_s = latency_s
        self._monotonic: bool | None = None

    def capture_s(self, stamp_s: float, arrived_s: float) -> float:
        """Return the driver's stamp, or the arrival less the latency.

        The first frame decides. Later stamps are believed however old they are: a driver that
        hands out an old buffer must not make it new.
        """
        if self._monotonic is None:
            self._monotonic = abs(arrived_s - stamp_s) < _SAME_CLOCK_S
        return min(stamp_s, arrived_s) if self._monotonic else arrived_s - self._latency_s


class StreamClock:
    """Streams: arrival less latency for the frames that waited least, stamps tell about the others.

    That takes the network's jitter out as well. Where a source has no stamps the arrival has to do.
    """

    def __init__(self, latency_s: float) -> None:
        """Take the time that passes between exposure and arrival at best."""
        self.restarted = False
        self._latency_s = latency_s
        self._stamp_s = math.nan
        self._arrived_s = math.nan
        self._offset_s = math.nan  # from stamps to our clock, for frames that did not wait
        self._unstamped = 0  # frames in a row that were not stamped later than the one before

    def capture_s(self, stamp_s: float, arrived_s: float) -> float | None:
        """Return when the frame was taken; None while a queue is emptied that filled before.

        What a server keeps for newcomers, and what arrives while the decoder is set up, comes
        faster than it was taken; until that ends nobody knows how old it is.
        """
        step_s = stamp_s - self._stamp_s
        passed_s = arrived_s - self._arrived_s
        self._stamp_s, self._arrived_s = stamp_s, arrived_s
        offset_s = arrived_s - stamp_s
        self.restarted = step_s < -_BACK_S or step_s - passed_s > _AHEAD_S
        if not 0 < step_s < math.inf:
            self._offset_s = offset_s
            self._unstamped += 1
            return arrived_s - self._latency_s if self._unstamped > _FIRST_STAMPS else None
        self._unstamped = 0
        expected_s = self._offset_s + _SLOWEST * passed_s
        self._offset_s = min(expected_s, offset_s)
        if expected_s - self._offset_s > step_s / 2:
            return None
        return arrived_s - self._latency_s - (offset_s - self._offset_s)
