"""By how much reported heading and height are off, learnt while flying.

A compass is off by its mounting, by iron, by a declination that nobody entered; a barometric height
by the hills since take-off. Both stay much the same from one frame to the next, and both show in
every frame that is matched: patches lie turned about the drone, or nearer, and the frame has to be
turned or enlarged to lie on the pack's imagery. Each is followed by a Kalman filter of one number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from .telemetry import Sample

# How far heading (radians) and the logarithm of height are off at first, standard deviation, and
# what is added to the variance in a second: a degree in half a minute, a percent a second.
_TURN_SIGMA, _TURN_DRIFT2 = math.radians(5.0), math.radians(1.0) ** 2 / 30
_HEIGHT_SIGMA, _HEIGHT_DRIFT2 = 0.15, 0.01**2
# What says that they are off by more than this many standard deviations is not believed.
_GATE_SIGMAS = 4.0


@dataclass(frozen=True)
class Correction:
    """What to add to what telemetry tells.

    Attributes:
        turn_deg: to the heading, clockwise.
        height_factor: height by reported height.
    """

    turn_deg: float = 0.0
    height_factor: float = 1.0

    def of(self, sample: Sample) -> Sample:
        """Return a sample that is corrected where telemetry tells heading or height."""
        attitude = sample.attitude
        if sample.yaw_known:
            attitude = replace(attitude, yaw_deg=(attitude.yaw_deg + self.turn_deg) % 360.0)
        if sample.agl_known:
            attitude = replace(attitude, agl_m=attitude.agl_m * self.height_factor)
        return replace(sample, attitude=attitude)


class PoseBias:
    """Learns what is wrong with reported headings and heights.

    Attributes:
        correction: as far as it is known.
    """

    def __init__(self) -> None:
        """Suppose that nothing is wrong."""
        self._turn = _Followed(_TURN_SIGMA, _TURN_DRIFT2)
        self._height = _Followed(_HEIGHT_SIGMA, _HEIGHT_DRIFT2)
        self.correction = Correction()

    def passed(self, seconds: float) -> None:
        """Take note of time that passed."""
        self._turn.passed(seconds)
        self._height.passed(seconds)

    def learn_turn(self, turn_rad: float, sigma_rad: float) -> None:
        """Take in that a corrected heading still lacked `turn_rad`, clockwise."""
        self._turn.learn(turn_rad, sigma_rad)
        self._renew()

    def learn_height(self, factor: float, sigma: float) -> None:
        """Take in that a corrected height still had to be multiplied; `sigma` is a share of it."""
        self._height.learn(math.log(factor), sigma)
        self._renew()

    def _renew(self) -> None:
        self.correction = Correction(math.degrees(self._turn.mean), math.exp(self._height.mean))


class _Followed:
    """A number that wanders (Kalman 1960, of one dimension)."""

    def __init__(self, sigma: float, drift2: float) -> None:
        self.mean = 0.0
        self._first2 = self._variance = sigma**2
        self._drift2 = drift2

    def passed(self, seconds: float) -> None:
        self._variance = min(self._variance + self._drift2 * seconds, self._first2)

    def learn(self, missing: float, sigma: float) -> None:
        total = self._variance + sigma**2
        if missing**2 > _GATE_SIGMAS**2 * total:
            return
        gain = self._variance / total
        self.mean += gain * missing
        self._variance *= 1 - gain
