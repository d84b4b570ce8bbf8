"""The loop: frame and telemetry in, fix out."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Protocol

from ..core.camera import Attitude
from ..core.errors import InputError
from .fix import Fix, Reason
from .frames import Frame, FrameSource, Outage
from .hypotheses import Expected
from .localise import Finding, Localiser, StageClock, Stages
from .observe import Observation, Observer, tell
from .single import FixMaker
from .telemetry import Sample, Telemetry
from .track import Track

__all__ = [
    "Finding",
    "FixMaker",
    "Fixer",
    "Localiser",
    "Pace",
    "StageClock",
    "Stages",
    "run_frames",
]


class Fixer(Protocol):
    """Turns findings into fixes: each by itself (`FixMaker`), or over time (`Tracker`)."""

    @property
    def track(self) -> Track | None:
        """What is known until the next frame; None where nothing is carried on."""
        ...

    def expect(self, frame: Frame, sample: Sample) -> Expected:
        """Return what earlier frames tell of one that is to be matched."""
        ...

    def fix(self, frame: Frame, sample: Sample, finding: Finding) -> Fix:
        """Return the fix of a frame, its latency still open."""
        ...

    def without(self, frame: int, t: float | None, file: str | None, reason: Reason) -> Fix:
        """Return what is said of a frame that cannot be looked at, or of none at all."""
        ...


def run_frames(
    source: FrameSource,
    telemetry: Telemetry,
    localiser: Localiser,
    maker: Fixer,
    realtime: bool = False,
    max_frames: int | None = None,
    observers: Sequence[Observer] = (),
) -> Generator[tuple[Fix, Stages], None, None]:
    """Yield a fix and its stages' milliseconds for every frame of a source.

    A live source that shows nothing, and telemetry that tells nothing, give fixes that say so,
    without stages.

    Args:
        source: where the frames come from.
        telemetry: attitude and height for each of them.
        localiser: matches frames.
        maker: turns matches into fixes.
        realtime: hold files back to the pace of their own clock.
        max_frames: stop after this many.
        observers: are told of every frame before its fix is yielded.

    Raises:
        InputError: a frame is corrupt.
        S4GError: the camera was lost.
    """
    pace = Pace() if realtime else None
    latest = 0
    for frame in source.frames():
        if isinstance(frame, Outage):
            fix = replace(maker.without(latest, frame.t, None, Reason.NO_FRAMES), latency_ms=None)
            tell(observers, Observation(fix, {}, track=maker.track))
            yield fix, {}
            continue
        latest = frame.index
        if max_frames is not None and frame.index >= max_frames:
            return
        sample = telemetry.at(frame)
        if not isinstance(sample, Reason) and not _is_finite(sample.attitude):
            sample = Reason.NO_TELEMETRY
        if isinstance(sample, Reason):
            fix = maker.without(frame.index, frame.t, frame.file, sample)
            tell(observers, Observation(fix, {}, frame, track=maker.track))
            yield fix, {}
            continue
        if pace is not None:
            frame = pace.hold(frame, frame.t if frame.t is not None else sample.t)
        clock = StageClock()
        finding = localiser.find(frame, sample, clock, maker.expect(frame, sample))
        fix = maker.fix(frame, sample, finding)
        latency_ms = (time.monotonic() - frame.arrived_s) * 1e3
        fix, stages = replace(fix, latency_ms=latency_ms), clock.ms | {"total": latency_ms}
        tell(observers, Observation(fix, stages, frame, sample, finding, maker.track))
        yield fix, stages


def _is_finite(attitude: Attitude) -> bool:
    return all(
        map(
            math.isfinite, (attitude.yaw_deg, attitude.pitch_deg, attitude.roll_deg, attitude.agl_m)
        )
    )


class Pace:
    """Holds the frames of a file back until their time has come."""

    def __init__(self) -> None:
        """Start with the first frame."""
        self._start_s: float | None = None

    def hold(self, frame: Frame, t: float | None) -> Frame:
        """Wait for a frame's time and return it as if it had arrived just then.

        Raises:
            InputError: the frame has no time.
        """
        if t is None:
            raise InputError(
                f"--realtime: {frame.name} has no time; add a 't' column to the telemetry"
            )
        if self._start_s is None:
            self._start_s = time.monotonic() - t
        wait_s = self._start_s + t - time.monotonic()
        if wait_s <= 0:
            return frame
        time.sleep(wait_s)
        return replace(frame, arrived_s=time.monotonic() - frame.decode_s)
