"""What those who watch a run are told: noted frame by frame, put together for all of them at once.

The thread that matches frames leaves references behind. The server's thread makes one message of
them, a few times a second and only while somebody watches, and sends it to everyone.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from ..core.geo import LocalFrame
from .fix import State
from .frame_buffers import FrameBuffers
from .view_history import STATES, History, Noted
from .view_picture import Kept, keep
from .view_surface import score_surface

if TYPE_CHECKING:
    from ..tilepacks.reader import Pack
    from .board import Reading
    from .fix import Fix
    from .localise import Finding, Stages
    from .observe import Observation
    from .sink_hub import SinkStatus
    from .track import Track

# Fixes that wait to be read, of about 1 kB; they are read twice a second at least.
_WAITING = 4096
# A fix is carried on between frames for so long; then it is only what was last known.
CARRIED_S = 2.0

Counters = Callable[[], Mapping[str, Any]]


class Pace(Enum):
    """How the frames' clock runs."""

    LIVE = "live"  # it is the machine's monotonic clock
    REAL_TIME = "real time"  # of files, held back to it
    NONE = "none"  # of files, as fast as they can be read


@dataclass(frozen=True)
class Message:
    """What everyone is told at a time.

    Attributes:
        text: JSON, one line.
        points: places that there were before those in it, and with them.
        events: the same of changes of state.
    """

    text: str
    points: tuple[int, int]
    events: tuple[int, int]


@dataclass(frozen=True)
class _Newest:
    """A frame without its pixels, which are written over."""

    fix: Fix
    stages: Stages
    finding: Finding | None
    track: Track | None
    made_s: float


class LiveView:
    """Looks on; `observe` is for the thread that matches frames, all else for the server's.

    Attributes:
        run: tells this run from others, for viewers that come back.
        viewers: how many there are.
    """

    def __init__(
        self,
        pack: Pack,
        pace: Pace,
        counters: Counters = dict,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Note nothing yet.

        Args:
            pack: that is flown with.
            pace: of the frames.
            counters: what else is counted: frames dropped, outputs; asked by the server's thread.
            clock: monotonic.
        """
        self.run = secrets.token_hex(4)
        self.viewers = 0
        self.history = History()
        self._frame = LocalFrame(pack.frame.lat_deg, pack.frame.lon_deg)
        self._spec = pack.spec
        self._pace, self._counters, self._clock = pace, counters, clock
        self._noted: deque[Noted] = deque(maxlen=_WAITING)
        self._newest: _Newest | None = None
        self._surface_of: _Newest | None = None
        # The frame thread writes what it keeps, and only when it is asked to.
        self._buffers = FrameBuffers()
        self._asked = False
        self._kept: Kept | None = None
        self._number = 0
        self._told = (0, 0)  # places and changes of state in messages so far

    def observe(self, seen: Observation) -> None:
        """Leave a frame for the server; takes microseconds, more where its pixels are asked for."""
        now_s = self._clock()
        self._noted.append(Noted(seen.fix, now_s, time.time(), seen.frame is not None))
        finding = None if seen.finding is None else replace(seen.finding, view=None)
        self._newest = _Newest(seen.fix, seen.stages, finding, seen.track, now_s)
        if self._asked and (kept := keep(seen, self._number + 1, self._buffers)) is not None:
            self._asked = False
            self._number += 1
            self._kept = kept

    def ask_picture(self) -> None:
        """Have the next frame kept."""
        self._asked = True

    @property
    def picture(self) -> Kept | None:
        """The frame that was kept last."""
        return self._kept

    def catch_up(self) -> None:
        """Take in what was noted since the last call."""
        while self._noted:
            self.history.note(self._noted.popleft())

    def message(self) -> Message:
        """Return what is new since the last message, and where the drone is now."""
        self.catch_up()
        history, newest, now_s = self.history, self._newest, self._clock()
        before, self._told = self._told, (history.points, history.events)
        values: dict[str, Any] = {
            "age_s": None if newest is None else round(now_s - newest.made_s, 3),
            "now": None if newest is None else self._carried(newest, now_s),
            "told": [*before, *self._told],
            "points": history.points_between(before[0], self._told[0]),
            "events": history.events_between(before[1], self._told[1]),
            "stats": self._stats(now_s),
            "picture": self._picture_values(),
        }
        if newest is not None and newest is not self._surface_of and newest.finding is not None:
            values["surface"] = score_surface(self._frame, newest.finding, self._spec)
        self._surface_of = newest
        fix = "null" if newest is None else newest.fix.to_json()
        text = f'{{"fix":{fix},{_inner(values)}}}'
        return Message(text, (before[0], history.points), (before[1], history.events))

    def catching_up(self, points: int, events: int) -> Message:
        """Return what messages told so far, from some number of places and changes of state on."""
        (all_points, all_events), history = self._told, self.history
        values = {
            "run": self.run,
            "states": STATES,
            "told": [points, events, all_points, all_events],
            "points": history.points_between(points, all_points),
            "events": history.events_between(events, all_events),
        }
        text = json.dumps(values, separators=(",", ":"), allow_nan=False)
        return Message(text, (points, all_points), (events, all_events))

    def _carried(self, newest: _Newest, now_s: float) -> dict[str, Any] | None:
        """Return where the drone is by now, in the few seconds for which that can be told."""
        fix, passed_s = newest.fix, now_s - newest.made_s
        if self._pace is Pace.NONE or newest.track is None or not 0 < passed_s <= CARRIED_S:
            return None
        # The frames' clock is the machine's, or runs as fast.
        made_t = newest.track.t + (fix.latency_ms or 0.0) / 1e3
        by_now = newest.track.at(now_s if self._pace is Pace.LIVE else made_t + passed_s)
        return {
            "state": by_now.state.value,
            "reason": None if by_now.reason is None else by_now.reason.value,
            # In TRACK the newest frame was matched, though it is a moment old.
            "source": fix.source if by_now.state is State.TRACK else by_now.source,
            "anchor_age_s": _rounded(by_now.anchor_age_s, 2),
            "lat": _rounded(by_now.lat, 7),
            "lon": _rounded(by_now.lon, 7),
            "sigma_m": _rounded(by_now.sigma_m, 2),
            "hpl_m": _rounded(by_now.hpl_m, 2),
        }

    def _stats(self, now_s: float) -> dict[str, Any]:
        latencies = self.history.latencies_ms()
        newest = self._newest
        return {
            "frames": self.history.frames,
            "rate_hz": round(self.history.rate_hz(now_s), 2),
            "latency_ms": None if latencies is None else [round(v, 1) for v in latencies],
            "stages_ms": {}
            if newest is None
            else {name: round(ms, 1) for name, ms in newest.stages.items()},
            "viewers": self.viewers,
            **self._counters(),
        }

    def _picture_values(self) -> dict[str, Any] | None:
        kept = self._kept
        if kept is None:
            return None
        return {
            "number": kept.number,
            "frame": kept.frame,
            "has_view": kept.view is not None,
            "footprint_m": _rounded(kept.footprint_m, 2),
        }


def _inner(values: Mapping[str, Any]) -> str:
    return json.dumps(values, separators=(",", ":"), allow_nan=False)[1:-1]


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def outputs_values(statuses: Sequence[SinkStatus]) -> list[dict[str, Any]]:
    """Return how outputs fare, for the page."""
    return [
        {
            "name": status.name,
            "state": status.state,
            "sent": status.sent,
            "dropped": status.dropped,
            "errors": status.errors,
        }
        for status in statuses
    ]


def board_values(reading: Reading | None) -> dict[str, Any]:
    """Return how the machine fares, for the page; what nobody tells is left out."""
    if reading is None:
        return {}
    values: dict[str, Any] = {"throttled": list(reading.throttled)}
    if reading.temperatures_c:
        values["hottest_c"] = round(max(reading.temperatures_c.values()), 1)
    if reading.power_mode is not None:
        values["power_mode"] = reading.power_mode
    if reading.gpu_load is not None:
        values["gpu_load"] = round(reading.gpu_load, 2)
    return values
