"""A drone that flies east at 20 m/s and was in the middle at 0 s, for tests of what looks on."""

from __future__ import annotations

import numpy as np

from s4g.core.geo import LocalFrame
from s4g.runtime.fix import Fix, State
from s4g.runtime.tail import REPORTED, Tail
from s4g.runtime.track import Track

GROUND = LocalFrame(47.0, 8.0)
EAST_MPS = np.array([20.0, 0.0])


def track(t: float, frame: int = 0) -> Track:
    """What is known after a frame at that time that was matched."""
    tail = Tail(20.0 * t, 0.0, 2.0, REPORTED)
    fix = Fix(frame, t, State.ACQUIRING, file=f"{frame}.jpg", heading_deg=90.0, agl_m=100.0)
    bounds_m = (-5e4, -5e4, 5e4, 5e4)
    return Track(GROUND, bounds_m, t, fix, tail, EAST_MPS, REPORTED, 0.5, 1.0, 80.0, t, None)
