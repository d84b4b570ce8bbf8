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

# How far heading (radians) and the logarithm of height are off, standard deviation, and after how
# many seconds they have forgotten how far: hills pass sooner than iron.
_TURN_SIGMA, _TURN_LASTS_S = math.radians(5.0), 1500.0
_HEIGHT_SIGMA, _HEIGHT_LASTS_S = 0.15, 450.0
# Heights are corrected in steps: one that wobbled with every frame would have the ground of the map
# drawn anew for each.
_HEIGHT_STEP = math.log(1.02)
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
        self._turn = _Followed(_TURN_SIGMA, _TURN_LASTS_S)
        self._height = _Followed(_HEIGHT_SIGMA, _HEIGHT_LASTS_S)
        self.correction = Correction()

    def passed(self, seconds: float) -> None:
        """Take note of time that passed."""
        self._turn.passed(seconds)
        self._height.passed(seconds)
        self._renew()

    def learn_turn(self, turn_rad: float, sigma_rad: float) -> None:
        """Take in that a reported heading lacks `turn_rad`, clockwise."""
        self._turn.learn(turn_rad, sigma_rad)
        self._renew()

    def learn_height(self, factor: float, sigma: float) -> None:
        """Take in that a reported height has to be multiplied; `sigma` is a share of it."""
        self._height.learn(math.log(factor), sigma)
        self._renew()

    def _renew(self) -> None:
        height = self.correction.height_factor
        if abs(self._height.mean - math.log(height)) > 0.75 * _HEIGHT_STEP:
            height = math.exp(_HEIGHT_STEP * round(self._height.mean / _HEIGHT_STEP))
        self.correction = Correction(math.degrees(self._turn.mean), height)


class _Followed:
    """A number that wanders about zero (Ornstein and Uhlenbeck 1930), seen now and then."""

    def __init__(self, sigma: float, lasts_s: float) -> None:
        self.mean = 0.0
        self._usual = self._variance = sigma**2
        self._lasts_s = lasts_s

    def passed(self, seconds: float) -> None:
        keep = math.exp(-seconds / self._lasts_s)
        self.mean *= keep
        self._variance = self._usual + (self._variance - self._usual) * keep**2

    def learn(self, value: float, sigma: float) -> None:
        total, news = self._variance + sigma**2, value - self.mean
        if news**2 > _GATE_SIGMAS**2 * total:
            return
        gain = self._variance / total
        self.mean += gain * news
        self._variance *= 1 - gain
