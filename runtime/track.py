"""What is known of the drone after a frame, and what is said of it then and until the next one.

A track never changes: another thread may ask where the drone is while the next frame is matched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..core.geo import LocalFrame
from .fix import Fix, Reason, State
from .locate import HPL_PER_SIGMA
from .tail import Floats, MotionModel, Tail

# Below this share of the belief around it a position is not given.
_KEPT_MASS = 0.95
# A frame that surely sees a place far away withdraws the position; frames that see another place
# nearby do so after so long.
_CONTRADICTED_S = 1.5
# A position without a match is given up when it is this uncertain, in footprints.
_LOST_FOOTPRINTS = 0.5
# A match this long ago is none any more between two frames.
_FRESH_S = 1.0
# What a drone that flies by a reported velocity may have turned or braked since, per axis.
_TURN_MPS2 = 2.0


@dataclass(frozen=True)
class Track:
    """What is known after a frame.

    Attributes:
        ground: metres on the ground.
        bounds_m: west, south, east, north of the region.
        t: time of the frame.
        fix: what is said of the frame itself; its position is left out here.
        tail: position and velocity, None where no place is known.
        velocity_mps: (2,) east, north as reported; zeros where nobody knows.
        model: how far it is off.
        steady_m: error per axis besides the tail's: what lasts for a whole flight, and doubt.
        held: probability that the belief holds around the tail.
        footprint_m: side of the tiles that were matched last.
        anchored_t: time of the last match, None where there was none.
        doubted_t: since when frames see another place.
        sees_elsewhere: whether that is far away.
    """

    ground: LocalFrame
    bounds_m: tuple[float, float, float, float]
    t: float
    fix: Fix
    tail: Tail | None
    velocity_mps: Floats
    model: MotionModel
    steady_m: float
    held: float
    footprint_m: float
    anchored_t: float | None
    doubted_t: float | None
    sees_elsewhere: bool = False

    def said(self) -> Fix:
        """Return the fix of the frame itself."""
        anchored = self.anchored_t == self.t
        fix = self._with_position(self.fix, self.tail, anchored)
        if fix.lat is None:
            return fix
        return replace(fix, source="visual" if anchored else "propagated")

    def at(self, t: float) -> Fix:
        """Return what is said of a time after the frame, no other having come; earlier: of then."""
        t = max(t, self.t)
        tail = self.expected(t)
        age_s = None if self.anchored_t is None else t - self.anchored_t
        fix = replace(
            self.fix, t=t, file=None, anchor_age_s=age_s, score=None, top=(), latency_ms=None,
            diagnostics=None,
        )  # fmt: skip
        matched = self.anchored_t == self.t and age_s is not None and age_s <= _FRESH_S
        fix = self._with_position(fix, tail, matched)
        return fix if fix.lat is None else replace(fix, source="propagated")

    def expected(self, t: float) -> Tail | None:
        """Return where the drone is likely to be at a time after the frame."""
        if self.tail is None:
            return None
        seconds = max(t - self.t, 0.0)
        tail = self.tail.copy()
        tail.predict(self.velocity_mps, seconds, self.model)
        turned_m = _TURN_MPS2 * seconds**2 / 2 if self.velocity_mps.any() else 0.0
        tail.covariance[[0, 1], [0, 1]] += turned_m**2
        return tail

    def _with_position(self, fix: Fix, tail: Tail | None, matched: bool) -> Fix:
        """Set the state, and the position where it may be given."""
        assert fix.t is not None
        if tail is None:
            return replace(fix, reason=fix.reason or Reason.AMBIGUOUS)
        if not matched and self._is_beyond(tail):
            return replace(fix, state=State.OUT_OF_PACK)
        doubted = self.doubted_t is not None and fix.t - self.doubted_t >= _CONTRADICTED_S
        if self.sees_elsewhere or doubted or self.held < _KEPT_MASS:
            return replace(fix, state=State.NO_FIX, reason=fix.reason or Reason.AMBIGUOUS)
        if tail.sigma_m > _LOST_FOOTPRINTS * self.footprint_m:
            return replace(fix, state=State.NO_FIX, reason=fix.reason or Reason.STALE)
        sigma_m = math.hypot(tail.sigma_m, self.steady_m)
        east_mps, north_mps = self.velocity_mps + tail.state[2:]
        lat, lon = (float(v) for v in self.ground.to_wgs84(*tail.position_m))
        return replace(
            fix,
            state=State.TRACK if matched else State.DEGRADED,
            reason=None if matched else fix.reason,
            lat=lat,
            lon=lon,
            sigma_m=sigma_m,
            hpl_m=HPL_PER_SIGMA * sigma_m,
            ve_mps=float(east_mps),
            vn_mps=float(north_mps),
        )

    def _is_beyond(self, tail: Tail) -> bool:
        """Tell whether a frame there may see past the pack's border."""
        margin_m = self.footprint_m / 2 + 3 * tail.sigma_m
        west, south, east, north = self.bounds_m
        x, y = tail.position_m
        return not (
            west + margin_m <= x <= east - margin_m and south + margin_m <= y <= north - margin_m
        )
