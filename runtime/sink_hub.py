"""Hands fixes to outputs: a thread for each, so that none holds up the fixes or another output.

The thread that matches frames puts a reference where an output's thread finds it. Of a log that is
every frame, in a queue that may fill up; of the others, of live sources, the newest. What was
overtaken or did not fit is counted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from .frame_buffers import FrameBuffers
from .frame_jpeg import keep_frame
from .observe import Observation
from .sink import Moment, Sink, tell_user
from .sink_pace import Due, EachFrame, Multiples, Pace, Seen, Thinning, Ticks
from .utc import Utc

if TYPE_CHECKING:
    from .tracker import Tracker

_IDLE_S = 0.1
_WAITING = 4096  # observations, of about 1 kB
_PICTURES_WAITING = 3
# What is left when a run ends is written for so long, and ending a file may take as long again.
_FLUSH_S = 3.0
_END_S = 3.0
# A receiver that comes and goes is not told of each time.
_QUIET_S = 60.0


@dataclass(frozen=True)
class SinkStatus:
    """How an output fares.

    Attributes:
        name: its URL without settings.
        state: `open`, `lost` (what was sent last failed), `closed`, or `stuck` (did not end).
        sent: moments handed over.
        dropped: moments that were overtaken, or for which there was no room.
        errors: moments that failed.
        let_go: clients that were too slow or gone.
        error: what failed last, None where nothing has.
    """

    name: str
    state: str
    sent: int
    dropped: int
    errors: int
    let_go: int
    error: str | None


class Outputs:
    """All outputs of a run."""

    def __init__(
        self,
        sinks: Sequence[tuple[Sink, float | None]],
        utc: Utc,
        is_live: bool,
        is_paced: bool = False,
        tracker: Tracker | None = None,
    ) -> None:
        """Start the threads.

        Args:
            sinks: each with its rate; None for its own default.
            utc: tells the time of fixes.
            is_live: frames come on the machine's monotonic clock.
            is_paced: those of files come at the pace of their clock.
            tracker: tells how often another place was taken up.
        """
        self._is_live = is_live
        self._is_paced = is_paced
        self._offset_s: float | None = 0.0 if is_live else None
        self._tracker = tracker
        self._buffers = FrameBuffers()
        now = is_live or is_paced
        self._lanes = [_Lane(sink, rate_hz, utc, now) for sink, rate_hz in sinks]

    def observe(self, seen: Observation) -> None:
        """Hand a frame on; takes microseconds, and about 1 ms where its pixels are asked for."""
        fix, frame = seen.fix, seen.frame
        if self._is_paced and not self._is_live and frame is not None and fix.t is not None:
            self._offset_s = fix.t - frame.arrived_s - frame.decode_s
        bare = None if frame is None else replace(frame, encoded=None, decoded=None)
        resets = 0 if self._tracker is None else self._tracker.resets
        kept = Seen(replace(seen, frame=bare, finding=None), resets, self._offset_s)
        with_picture = None
        for lane in self._lanes:
            if not lane.takes(fix.t):
                continue
            if frame is not None and lane.takes_picture(fix.t):
                if with_picture is None:
                    with_picture = replace(kept, picture=keep_frame(frame, self._buffers))
                lane.put(with_picture)
            else:
                lane.put(kept)

    def status(self) -> list[SinkStatus]:
        """Tell how each output fares; any thread may ask."""
        return [lane.status() for lane in self._lanes]

    def close(self) -> None:
        """Write what waits, and end all outputs, within about six seconds together."""
        now_s = time.monotonic()
        for lane in self._lanes:
            lane.end(now_s + _FLUSH_S)
        for lane in self._lanes:
            lane.join(now_s + _FLUSH_S + _END_S)
        for lane in self._lanes:
            lane.say_losses()


class _Lane:
    """An output and its thread."""

    def __init__(self, sink: Sink, rate_hz: float | None, utc: Utc, is_now: bool) -> None:
        self._sink = sink
        self._utc = utc
        rate_hz = sink.default_rate_hz if rate_hz is None else rate_hz
        # Frames are thinned out before their pixels are copied.
        self._frames = Thinning(1 / rate_hz if rate_hz and sink.wants_frames else 0.0)
        self._pictures_taken = Thinning(sink.frame_period_s)
        self._pace = _pace(sink, rate_hz, is_now)
        # What is said at a rate of its own needs the newest frame alone: none is missed.
        self._is_ticking = isinstance(self._pace, Ticks)
        self._keeps_all = (sink.wants_all and not self._is_ticking) or not is_now
        self._changed = threading.Condition()
        self._waiting: deque[Seen] = deque()
        self._pictures = 0
        self._deadline_s: float | None = None  # set when the run ends
        self._sent = self._dropped = self._errors = 0
        self._error: str | None = None
        self._state = "open"
        self._told_s: float | None = None
        self._is_loss_told = False
        self._thread = threading.Thread(target=self._run, name=f"s4g-{sink.name}", daemon=True)
        self._thread.start()

    def takes(self, t: float | None) -> bool:
        """Tell whether a frame's turn has come; asked by the thread that matches frames."""
        return self._frames.takes(t)

    def takes_picture(self, t: float | None) -> bool:
        """Tell whether its pixels are wanted, too."""
        if not self._sink.wants_frames or self._pictures >= _PICTURES_WAITING:
            return False
        return self._pictures_taken.takes(t)

    def put(self, seen: Seen) -> None:
        with self._changed:
            if self._waiting and (not self._keeps_all or len(self._waiting) >= _WAITING):
                self._dropped += not self._is_ticking
                self._pictures -= self._waiting.popleft().picture is not None
            self._waiting.append(seen)
            self._pictures += seen.picture is not None
            self._changed.notify()

    def status(self) -> SinkStatus:
        let_go = int(getattr(self._sink, "let_go", 0))
        return SinkStatus(
            self._sink.name, self._state, self._sent, self._dropped, self._errors, let_go,
            self._error,
        )  # fmt: skip

    def end(self, deadline_s: float) -> None:
        with self._changed:
            self._deadline_s = deadline_s
            self._changed.notify()

    def join(self, deadline_s: float) -> None:
        self._thread.join(max(deadline_s - time.monotonic(), 0.0))
        if self._thread.is_alive():
            self._state = "stuck"
            tell_user(f"output {self._sink.name}: does not end; left behind")

    def say_losses(self) -> None:
        in_hand = self._state == "stuck"
        missed = self._dropped + self._errors + len(self._waiting) + in_hand
        if missed and self._sink.wants_all:
            tell_user(f"output {self._sink.name}: {self._sent} fixes written, {missed} left out")

    def _run(self) -> None:
        idle_s = time.monotonic()
        while True:
            wait_s = min(max(idle_s + _IDLE_S - time.monotonic(), 0.0), self._pace.wait_s())
            seen = self._take(wait_s)
            self._guarded(partial(self._hand_over, seen))
            if time.monotonic() >= idle_s + _IDLE_S:
                self._guarded(self._sink.idle)
                idle_s = time.monotonic()
            if self._is_over() or (self._deadline_s is not None and not self._waiting):
                break
        self._guarded(self._sink.close)
        self._state = "closed"

    def _hand_over(self, seen: Seen | None) -> None:
        for due in self._pace.meanwhile() if seen is None else self._pace.after(seen):
            self._send(due)
            if self._is_over():
                return

    def _take(self, wait_s: float) -> Seen | None:
        with self._changed:
            if not self._waiting and self._deadline_s is None:
                self._changed.wait(wait_s)
            if not self._waiting:
                return None
            seen = self._waiting.popleft()
            self._pictures -= seen.picture is not None
            return seen

    def _is_over(self) -> bool:
        return self._deadline_s is not None and time.monotonic() >= self._deadline_s

    def _send(self, due: Due) -> None:
        if self._guarded(partial(self._send_now, due)):
            self._sent += 1
            if self._state == "lost":
                self._state = "open"
                if self._is_loss_told:
                    self._is_loss_told = False
                    tell_user(f"output {self._sink.name}: works again")
        else:
            self._errors += 1

    def _send_now(self, due: Due) -> None:
        self._sink.send(self._moment(due))

    def _moment(self, due: Due) -> Moment:
        fix, seen = due.fix, due.seen
        delay_s = 0.0
        if seen.offset_s is not None and fix.t is not None:
            delay_s = max(time.monotonic() + seen.offset_s - fix.t, 0.0)
        observation = seen.observation if due.is_frame else None
        jpeg = seen.picture.bytes() if due.is_frame and seen.picture is not None else None
        return Moment(fix, self._utc.of(fix.t), delay_s, seen.resets, observation, jpeg)

    def _guarded(self, do: Callable[[], None]) -> bool:
        """Tell whether something went well; a failure is told once, whatever it is."""
        try:
            do()
        except OSError as error:
            # Those of libraries have their text elsewhere.
            self._lost(error.strerror or str(error) or type(error).__name__)
        except Exception as error:  # of a library, or ours: the others go on
            self._lost(f"{type(error).__name__}: {error}")
        else:
            return True
        return False

    def _lost(self, why: str) -> None:
        self._error = " ".join(why.split())
        now_s = time.monotonic()
        is_news = self._state != "lost"
        self._state = "lost"
        if is_news and (self._told_s is None or now_s - self._told_s >= _QUIET_S):
            self._told_s = now_s
            self._is_loss_told = True
            tell_user(f"output {self._sink.name}: {self._error}; fixes go on, it is tried again")


def _pace(sink: Sink, rate_hz: float | None, is_now: bool) -> Pace:
    if rate_hz is None or sink.wants_frames:
        return EachFrame()
    return Ticks(rate_hz) if is_now else Multiples(rate_hz)
