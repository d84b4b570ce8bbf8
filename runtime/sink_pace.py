"""When an output gets a fix, and which.

Of files all times lie on the frames' own clock, so that the same run gives the same output. A live
output with a rate speaks when its time has come, whether a frame has come or not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from .fix import Fix
from .frame_jpeg import FrameJpeg
from .observe import Observation

# Over a longer pause between the frames of a file nothing is said.
_LONGEST_PAUSE_S = 60.0
_SAME_S = 1e-6  # a multiple of the period this near to a frame is the frame's


@dataclass(frozen=True)
class Seen:
    """An observation on its way to outputs.

    Attributes:
        observation: without pixels.
        resets: of the tracker at that time.
        offset_s: what the frames' clock shows more than the machine's monotonic one; None where
            files are read as fast as they can be.
        picture: the frame, for outputs that ask for it.
    """

    observation: Observation
    resets: int = 0
    offset_s: float | None = None
    picture: FrameJpeg | None = None


@dataclass(frozen=True)
class Due:
    """What is to be sent: a fix and where it comes from; `is_frame` where it is of that moment."""

    fix: Fix
    seen: Seen
    is_frame: bool


class Pace(Protocol):
    """Decides for one output; used by its thread alone."""

    def after(self, seen: Seen) -> Iterator[Due]:
        """Take note of a frame and yield what is due because of it."""
        ...

    def wait_s(self) -> float:
        """Return how long to wait at most for another frame."""
        ...

    def meanwhile(self) -> Iterator[Due]:
        """Yield what is due though no frame came."""
        ...


class Thinning:
    """Takes one frame in each period, by the frames' own clock."""

    def __init__(self, period_s: float) -> None:
        """Start without a frame."""
        self._period_s = period_s
        self._last_t: float | None = None

    def takes(self, t: float | None) -> bool:
        """Tell whether a frame's turn has come; it has where nobody knows the time."""
        if t is None:
            return True
        if self._last_t is not None and 0 <= t - self._last_t < self._period_s - _SAME_S:
            return False
        self._last_t = t
        return True


class EachFrame:
    """Every frame, or one in each period."""

    def __init__(self, period_s: float = 0.0) -> None:
        """Start without a frame."""
        self._thinning = Thinning(period_s)

    def after(self, seen: Seen) -> Iterator[Due]:
        """Yield the frame's own fix, if its turn has come."""
        if self._thinning.takes(seen.observation.fix.t):
            yield Due(seen.observation.fix, seen, True)

    def wait_s(self) -> float:
        """Wait for frames alone."""
        return math.inf

    def meanwhile(self) -> Iterator[Due]:
        """Say nothing."""
        return iter(())


class Multiples:
    """Multiples of the period on the frames' own clock; between frames positions carried on."""

    def __init__(self, rate_hz: float) -> None:
        """Start without a frame."""
        self._rate_hz = rate_hz
        self._thinned = EachFrame(1 / rate_hz)
        self._last: Seen | None = None

    def after(self, seen: Seen) -> Iterator[Due]:
        """Yield what is said at the multiples after the frame before, up to this one."""
        last, self._last = self._last, seen
        fix = seen.observation.fix
        if fix.t is None or seen.observation.track is None:
            yield from self._thinned.after(seen)  # nothing is carried on
            return
        before = None if last is None else last.observation
        number = math.ceil((fix.t - _SAME_S) * self._rate_hz)
        if (
            last is not None
            and before is not None
            and before.fix.t is not None
            and before.track is not None
            and 0 < fix.t - before.fix.t <= _LONGEST_PAUSE_S
        ):
            number = math.floor((before.fix.t + _SAME_S) * self._rate_hz) + 1
            while (t := number / self._rate_hz) < fix.t - _SAME_S:
                yield Due(before.track.at(t), last, False)
                number += 1
        if number / self._rate_hz <= fix.t + _SAME_S:
            yield Due(fix, seen, True)

    def wait_s(self) -> float:
        """Wait for frames alone."""
        return math.inf

    def meanwhile(self) -> Iterator[Due]:
        """Say nothing."""
        return iter(())


class Ticks:
    """Where the drone is now, at a rate; moments that were missed are not made up for."""

    def __init__(self, rate_hz: float) -> None:
        """Start with the first frame."""
        self._period_s = 1 / rate_hz
        self._due_s = time.monotonic()
        self._thinned = EachFrame(self._period_s)
        self._last: Seen | None = None

    def after(self, seen: Seen) -> Iterator[Due]:
        """Take note; yield the frame's own fix only where nothing is carried on."""
        self._last = seen
        if seen.observation.track is None or seen.offset_s is None:
            yield from self._thinned.after(seen)
        else:
            yield from self.meanwhile()

    def wait_s(self) -> float:
        """Return the time until the next tick."""
        last = self._last
        if last is None or last.observation.track is None or last.offset_s is None:
            return math.inf
        return max(self._due_s - time.monotonic(), 0.0)

    def meanwhile(self) -> Iterator[Due]:
        """Yield the position of now, if it is time."""
        last, now_s = self._last, time.monotonic()
        if last is None or last.observation.track is None or last.offset_s is None:
            return
        if now_s < self._due_s:
            return
        self._due_s += self._period_s * (1 + math.floor((now_s - self._due_s) / self._period_s))
        yield Due(last.observation.track.at(now_s + last.offset_s), last, False)
