"""Holds a new place back from an autopilot until it has stood for a while.

The tracker takes up another place after frames have seen it for ten seconds: that is how a drone
that began at the wrong place is put right. It is also what a place that only looks alike can do to
it. An autopilot that has had no position meanwhile takes the first that comes, so it does not get
one at once.
"""

from __future__ import annotations


class Hold:
    """Decides for one output.

    Args:
        seconds: for which a new place has to stand without a gap.
    """

    def __init__(self, seconds: float) -> None:
        """Start with the first place, which is none that was changed to."""
        self.seconds = seconds
        self._resets: int | None = None
        self._since_t: float | None = None  # None where nothing is held back

    def keeps(self, has_place: bool, t: float | None, resets: int) -> bool:
        """Tell whether a fix is held back.

        Args:
            has_place: whether it has a position.
            t: its time.
            resets: how often another place was taken up so far.
        """
        if self._resets is not None and resets != self._resets:
            self._since_t = t
        self._resets = resets
        if self._since_t is None or t is None:
            return False
        if not has_place or t < self._since_t:
            self._since_t = t
        if t - self._since_t < self.seconds:
            return True
        self._since_t = None
        return False
