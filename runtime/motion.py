"""How the drone moved since the last frame: reported by telemetry, seen in frames, or unknown."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .odometry import WAY_SHARE, Step
from .tail import REPORTED, UNKNOWN, MotionModel
from .telemetry import Sample

Floats = npt.NDArray[np.float64]

# The least that a velocity seen in frames is off, for long.
_SEEN_MPS = 0.1
# After a longer gap between frames nothing is known any more.
_LONGEST_GAP_S = 60.0


@dataclass(frozen=True)
class Passed:
    """What passed on the frames' clock since the last frame.

    Attributes:
        seconds: since then.
        shift_s: by how much the clock was set back; times remembered move with it.
        is_gap: whether it was too long to know anything still.
    """

    seconds: float
    shift_s: float = 0.0
    is_gap: bool = False


class FrameClock:
    """Tells what passed between frames, whatever their clock does.

    Attributes:
        t: time of the newest frame, None before the first.
    """

    def __init__(self) -> None:
        """Start before the first frame."""
        self.t: float | None = None
        self._period_s = 0.0

    def tick(self, t: float) -> Passed:
        """Take in the time of a frame."""
        before, self.t = self.t, t
        if before is None:
            return Passed(0.0)
        if t < before:
            # As long as last time may have passed.
            return Passed(self._period_s, t - self._period_s - before)
        if t - before > _LONGEST_GAP_S:
            return Passed(0.0, is_gap=True)
        self._period_s = t - before
        return Passed(self._period_s)


@dataclass(frozen=True)
class Motion:
    """A velocity since the last frame.

    Attributes:
        mean_mps: (2,) east, north on the way; zeros where it is unknown.
        now_mps: (2,) at its end; None where it is unknown.
        model: how far it is off.
        turned_mps: how much it changed on the way, which is known at its ends alone.
    """

    mean_mps: Floats
    now_mps: Floats | None
    model: MotionModel
    turned_mps: float = 0.0


NOT_KNOWN = Motion(np.zeros(2), None, UNKNOWN)


def motion(before: Motion, sample: Sample | None, step: Step | None) -> Motion:
    """Return the motion to a frame.

    Args:
        before: the motion to the frame before.
        sample: telemetry of the frame, None where there is no frame.
        step: what frames show of the motion.
    """
    now = None if sample is None else reported_mps(sample)
    if now is not None:
        last = now if before.now_mps is None else before.now_mps
        return Motion((now + last) / 2, now, REPORTED, float(np.linalg.norm(now - last)))
    if step is None:
        return NOT_KNOWN
    now = step.moved_m / step.seconds
    lasting_m = WAY_SHARE * float(np.linalg.norm(step.moved_m))
    rest_m = math.sqrt(max(step.sigma_m**2 - lasting_m**2, 0.0))
    model = MotionModel(_SEEN_MPS, WAY_SHARE, REPORTED.correlation_s, rest_m / step.seconds)
    return Motion(now, now, model)


def reported_mps(sample: Sample) -> Floats | None:
    """Return the velocity (2,) east, north that telemetry tells, None where it tells none."""
    if sample.vel_e_mps is None or sample.vel_n_mps is None:
        return None
    velocity = np.array([sample.vel_e_mps, sample.vel_n_mps])
    return velocity if np.isfinite(velocity).all() else None
