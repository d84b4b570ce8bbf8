"""How a simulated flight's telemetry is off where a condition says nothing else."""

from __future__ import annotations

import numpy as np

from s4g.core.camera import Attitude

# One sigma of an autopilot in level flight: compass, gimbal or airframe tilt, barometer.
HEADING_DEG = 3.0
TILT_DEG = 1.0
HEIGHT_SHARE = 0.04
# Tilt that is reported and taken out.
FLOWN_TILT_DEG = 3.0


def draw_attitude(agl_m: float, rng: np.random.Generator) -> Attitude:
    """Draw the attitude of a camera in flight, any heading."""
    pitch, roll = np.clip(rng.normal(0, FLOWN_TILT_DEG, 2), -10, 10)
    return Attitude(float(rng.uniform(0, 360)), float(pitch), float(roll), agl_m)


def usual_errors(true: Attitude, rng: np.random.Generator) -> Attitude:
    """Return what telemetry reports of an attitude."""
    error = np.clip(rng.standard_normal(4), -2.5, 2.5)
    return Attitude(
        true.yaw_deg + HEADING_DEG * float(error[0]),
        true.pitch_deg + TILT_DEG * float(error[1]),
        true.roll_deg + TILT_DEG * float(error[2]),
        true.agl_m * float(np.exp(HEIGHT_SHARE * error[3])),
    )
