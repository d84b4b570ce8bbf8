"""What a live map shows of the past: the track, changes of state, and how fast frames come."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

from .fix import Fix, State

# Points that are kept of a track; then every second of the older ones goes.
_MOST_POINTS = 6000
_NEW_POINTS = 1000  # that stay as they are
_MOST_EVENTS = 300
# What latency and rate are taken over.
_LATENCIES, _RATE_S = 200, 5.0

STATES = tuple(state.value for state in State)


@dataclass(frozen=True)
class Noted:
    """A fix, and when it was made.

    Attributes:
        fix: what was said.
        made_s: monotonic time.
        unix_s: the machine's clock, for the list of events.
        has_frame: whether a frame led to it.
    """

    fix: Fix
    made_s: float
    unix_s: float
    has_frame: bool


class History:
    """Remembers a bounded part of a run; of one thread.

    Attributes:
        points: how many places there were, those that are forgotten included.
        events: how many changes of state.
        frames: how many frames.
    """

    def __init__(self) -> None:
        """Start without any."""
        self.points = self.events = self.frames = 0
        self._points: list[tuple[int, list[float]]] = []  # each with its number
        self._events: deque[tuple[int, dict[str, Any]]] = deque(maxlen=_MOST_EVENTS)
        self._latencies_ms: deque[float] = deque(maxlen=_LATENCIES)
        self._frames_s: deque[float] = deque()
        self._said: tuple[State, object] | None = None
        self._lost = True

    def note(self, noted: Noted) -> None:
        """Take in a fix; they come in order."""
        fix = noted.fix
        if noted.has_frame:
            self.frames += 1
            self._frames_s.append(noted.made_s)
            if fix.latency_ms is not None:
                self._latencies_ms.append(fix.latency_ms)
        if (fix.state, fix.reason) != self._said:
            self._said = (fix.state, fix.reason)
            self._events.append((self.events, _event(noted)))
            self.events += 1
        if fix.lat is None or fix.lon is None:
            self._lost = True
            return
        place = [round(fix.lat, 7), round(fix.lon, 7), STATES.index(fix.state), int(self._lost)]
        self._lost = False
        self._points.append((self.points, place))
        self.points += 1
        if len(self._points) > _MOST_POINTS:
            self._thin()

    def points_between(self, first: int, end: int) -> list[list[float]]:
        """Return places by number: latitude, longitude, index in `STATES`, 1 after a gap."""
        return [place for number, place in self._points if first <= number < end]

    def events_between(self, first: int, end: int) -> list[dict[str, Any]]:
        """Return changes of state by number."""
        return [event for number, event in self._events if first <= number < end]

    def rate_hz(self, now_s: float) -> float:
        """Return how many frames a second there were lately."""
        while self._frames_s and self._frames_s[0] < now_s - _RATE_S:
            self._frames_s.popleft()
        return len(self._frames_s) / _RATE_S

    def latencies_ms(self) -> tuple[float, float] | None:
        """Return the median and the 95th percentile of the latest latencies (nearest rank)."""
        if not self._latencies_ms:
            return None
        ordered = sorted(self._latencies_ms)
        median, high = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.95))
        return median, high

    def _thin(self) -> None:
        """Leave out every second of the older points; what follows a gap stays after one."""
        older, newer = self._points[:-_NEW_POINTS], self._points[-_NEW_POINTS:]
        pairs = zip(older[0::2], older[1::2], strict=False)
        kept = [after if after[1][3] else before for before, after in pairs]
        self._points = kept + older[len(older) // 2 * 2 :] + newer


def _event(noted: Noted) -> dict[str, Any]:
    fix = noted.fix
    return {
        "at": round(noted.unix_s, 3),
        "t": None if fix.t is None else round(fix.t, 3),
        "frame": fix.frame,
        "state": fix.state.value,
        "reason": None if fix.reason is None else fix.reason.value,
    }
