"""The smooth end of the filter: position, velocity error and their covariance (Kalman 1960).

The state is where the drone is and how far its reported velocity is off: an error that lasts (wind,
a compass, a bad scale) is learnt from the fixes. Without a reported velocity it is the velocity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# 99 % of a two-dimensional Gaussian lie within this squared distance (chi-square, 2 degrees).
GATE = 9.21


@dataclass(frozen=True)
class MotionModel:
    """How far a velocity is off.

    Attributes:
        sigma_mps: standard deviation per axis of the error.
        share: of the speed, added to it.
        correlation_s: time after which the error has forgotten itself (Ornstein and Uhlenbeck).
        jitter_mps: error that changes from frame to frame.
    """

    sigma_mps: float
    share: float
    correlation_s: float
    jitter_mps: float


# An autopilot's ground speed without GNSS drifts; a drone of which nothing is known turns and
# brakes, the more so the faster it flies.
REPORTED = MotionModel(0.7, 0.03, 30.0, 0.3)
UNKNOWN = MotionModel(10.0, 0.5, 5.0, 0.0)


class Tail:
    """A Kalman filter of four numbers: east, north, and the error of the velocity.

    Attributes:
        state: (4,) metres, metres, m/s, m/s.
        covariance: (4, 4).
    """

    def __init__(self, east_m: float, north_m: float, sigma_m: float, model: MotionModel) -> None:
        """Start at a place known to `sigma_m` per axis."""
        self.state: Floats = np.array([east_m, north_m, 0.0, 0.0])
        speed = model.sigma_mps**2
        self.covariance: Floats = np.diag([sigma_m**2, sigma_m**2, speed, speed])

    def copy(self) -> Tail:
        """Return one that goes its own way from here."""
        other = Tail.__new__(Tail)
        other.state, other.covariance = self.state.copy(), self.covariance.copy()
        return other

    @property
    def position_m(self) -> Floats:
        """East, north (2,)."""
        return self.state[:2]

    @property
    def sigma_m(self) -> float:
        """Standard deviation per axis of the position."""
        return math.sqrt(float(np.trace(self.covariance[:2, :2])) / 2)

    def predict(self, velocity_mps: Floats, seconds: float, model: MotionModel) -> None:
        """Move on.

        Args:
            velocity_mps: (2,) east, north as reported; zeros where nobody knows.
            seconds: since the last step.
            model: how far it is off.
        """
        keep = math.exp(-seconds / model.correlation_s)
        step = np.eye(4)
        # The error's effect while it fades.
        step[0, 2] = step[1, 3] = model.correlation_s * (1 - keep)
        step[2, 2] = step[3, 3] = keep
        self.state = step @ self.state
        self.state[:2] += np.asarray(velocity_mps) * seconds
        speed = float(np.linalg.norm(self.state[2:] + velocity_mps))
        variance = (model.sigma_mps + model.share * speed) ** 2 * (1 - keep**2)
        noise = np.zeros((4, 4))
        noise[2, 2] = noise[3, 3] = variance
        noise[0, 0] = noise[1, 1] = (model.jitter_mps * seconds) ** 2 + variance * seconds**2 / 3
        noise[0, 2] = noise[2, 0] = noise[1, 3] = noise[3, 1] = variance * seconds / 2
        self.covariance = step @ self.covariance @ step.T + noise

    def trust(self, velocity_mps: Floats, model: MotionModel) -> None:
        """Begin with a velocity (2,) that is reported from now on, and off as a model says."""
        speed = float(np.linalg.norm(velocity_mps))
        self.state[2:] = 0.0
        self.covariance[2:, :] = self.covariance[:, 2:] = 0.0
        self.covariance[[2, 3], [2, 3]] = (model.sigma_mps + model.share * speed) ** 2

    def distance2(self, position_m: Floats, sigma_m: float) -> float:
        """Return the squared Mahalanobis distance of a measured position."""
        innovation = np.asarray(position_m) - self.state[:2]
        spread = self.covariance[:2, :2] + sigma_m**2 * np.eye(2)
        return float(innovation @ np.linalg.solve(spread, innovation))

    def correct(self, position_m: Floats, sigma_m: float) -> None:
        """Take in a measured position (2,), known to `sigma_m` per axis (Joseph's form)."""
        observe = np.eye(2, 4)
        noise = sigma_m**2 * np.eye(2)
        spread = observe @ self.covariance @ observe.T + noise
        gain = np.linalg.solve(spread, observe @ self.covariance).T
        self.state = self.state + gain @ (np.asarray(position_m) - self.state[:2])
        rest = np.eye(4) - gain @ observe
        self.covariance = rest @ self.covariance @ rest.T + gain @ noise @ gain.T
