"""How long frames have surely seen one place, each by itself: how a drone that hovers is found.

Many frames of the same ground are wrong alike, so they prove no more than one of them, and a drone
that shows no new ground would never be believed. One frame in a hundred or two that is sure by
itself is wrong where a map repeats itself; a drone that hovers over it for ten seconds is told a
wrong place then. That is the price, and why this serves for want of new ground alone.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Seconds of it; no longer than this may pass from one sure frame to the next.
LONG_S, _GAP_S = 10.0, 3.0
# How much of a place each frame renews.
_SHARE = 0.3


class Sights:
    """The place that frames surely see, followed over time."""

    def __init__(self) -> None:
        """Start without any."""
        self._place_m: Floats | None = None
        self._since_t = self._last_t = 0.0
        self._news = 0.0

    def moved(self, moved_m: Floats) -> None:
        """Move on by what the drone has moved, (2,)."""
        if self._place_m is not None:
            self._place_m = self._place_m + moved_m

    def shifted(self, seconds: float) -> None:
        """Take note that the clock was set."""
        self._since_t += seconds
        self._last_t += seconds

    def forget(self) -> None:
        """Begin anew."""
        self._place_m = None

    def note(self, t: float, place_m: Floats, news: float, reach_m: float) -> None:
        """Take note of a frame that is sure.

        Args:
            t: its time.
            place_m: (2,) where it puts the drone.
            news: how much new ground it shows, in frames.
            reach_m: how far apart sights of one place may be.
        """
        known = self._place_m
        if known is None or t - self._last_t > _GAP_S or math.dist(known, place_m) > reach_m:
            self._place_m, self._since_t, self._news = place_m, t, 0.0
        else:
            self._place_m = known + _SHARE * (place_m - known)
            self._news += news
        self._last_t = t

    def hovered_over(self, t: float, most_news: float) -> Floats | None:
        """Return the place (2,) that was seen for long, up to now, with little new ground."""
        is_long = t == self._last_t and t - self._since_t >= LONG_S
        return self._place_m if is_long and self._news < most_news else None
