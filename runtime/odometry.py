"""How the drone moved between two frames, seen in what they both show of the ground.

Each frame's view is registered with a key view: an earlier one that still shares much ground with
it. At high frame rates a chain of small steps would drift; steps that are differences to the same
key do not. A new key is taken when little of the old one is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from .correlate import Correlator, Detail, Grey, Match, about_middle, tent_peak
from .locate import TILT_SIGMA_RAD

Floats = npt.NDArray[np.float64]
RGB = npt.NDArray[np.uint8]

# Views are compared at this size: time grows with its square.
SIDE_PX = 128
# A registration is believed from this score and agreement on, unless another shift is nearly as
# good, or the view agrees as well with itself elsewhere: rows of trees, solar panels, furrows. Of
# 5,200 pairs of different places of the calibration flights 99.9 % score below 13, none passes.
_MIN_SCORE, _MAX_RIVAL, _ABOVE_REPEATS = 18.0, 0.9, 0.1
# Views of less detail show water or fog, and what agrees is dirt on the lens or the blocks of a
# codec. The calibration flights' views have 0.55 and more, calm water 0.05, ripples 0.26.
_MIN_STRENGTH = 0.3
# Longest shift along an axis that is looked for, and from which on the view becomes the next key,
# as shares of the side.
_REACH, _KEY_REACH = 0.8, 0.35
# Views whose scales differ by less are compared as they are.
_SAME_SCALE = 1e-3
# Turns that are tried where the heading is unknown, and the size at which that is done.
_TURN_STEP_DEG = 4.0
_TURNS_DEG = tuple(_TURN_STEP_DEG * step for step in range(-4, 5))
_TURN_SIDE_PX = 64
# A view turned further than this against the key becomes the next key.
_KEY_TURN_DEG = 6.0
# Standard deviation per axis of a registration: pixels, and a share of the shift, as unreported
# tilt makes the scale differ from side to side.
_SIGMA_PX, _SIGMA_SHARE = 0.1, 0.012
# Reported attitude errs by `TILT_SIGMA_RAD`, another way after so many seconds; the heading by two
# degrees and the height by three percent, which lasts: per axis this share of the way.
_TILT_S = 2.0
WAY_SHARE = 0.033


@dataclass(frozen=True)
class Step:
    """A movement of the drone that ends with the view just given.

    Attributes:
        seconds: how long it took: since the last step, unless only the two newest views show the
            same ground.
        moved_m: (2,) east, north of the drone; where the heading is unknown, right and up in the
            view that it began with.
        sigma_m: standard deviation per axis. What `WAY_SHARE` of the way adds to it lasts from
            step to step, the rest does not.
        turned_deg: clockwise turn of the view; 0 where the heading is known.
    """

    seconds: float
    moved_m: Floats
    sigma_m: float
    turned_deg: float


@dataclass(frozen=True)
class _Pose:
    """When and where a view was taken, in the plane that steps span from some view on."""

    t: float
    place_m: Floats  # of the drone
    heading_deg: float


@dataclass
class _View:
    """A view, and where it was taken if that is known."""

    grey: Grey
    detail: Detail
    t: float = -math.inf
    footprint_m: float = 0.0
    center_m: Floats = field(default_factory=lambda: np.zeros(2))
    pose: _Pose | None = None


class Odometry:
    """Turns the views of a flight into steps; owns its buffers."""

    def __init__(self) -> None:
        """Start without a view."""
        self._correlator = Correlator(SIDE_PX, _REACH)
        self._views = [
            _View(np.empty((SIDE_PX, SIDE_PX), np.uint8), self._correlator.new()) for _ in range(3)
        ]
        self._warped = np.empty((SIDE_PX, SIDE_PX), np.uint8)
        self._fitted, self._turned = self._correlator.new(), self._correlator.new()
        self._turner = Correlator(_TURN_SIDE_PX, _REACH)
        self._small = [self._turner.new() for _ in range(2)]
        side = (_TURN_SIDE_PX, _TURN_SIDE_PX)
        self._small_grey, self._small_turned = (np.empty(side, np.float32) for _ in range(2))
        self._key: _View | None = None
        self._last: _View | None = None
        self._end: _Pose | None = None  # of the last step

    def step(
        self,
        t: float,
        view: RGB,
        footprint_m: float,
        center_m: Sequence[float] | Floats = (0.0, 0.0),
        agl_m: float = 0.0,
        yaw_known: bool = True,
    ) -> Step | None:
        """Take in the view of a frame, and return how the drone moved to get there.

        Args:
            t: seconds; one that is not later than the last starts anew.
            view: (S, S, 3) uint8, tilt undone, north up, black where the frame shows nothing;
                where the heading is unknown, up is the image's top.
            footprint_m: its side on the ground, metres.
            center_m: east, north of its middle from the drone (`PatchPlan.centers_m[0]`): a nose
                that rises swings the view ahead, and is no movement.
            agl_m: height above ground, for what errors of the attitude add to `sigma_m`.
            yaw_known: whether views are north up; else turns of up to 16 degrees are found.

        Returns:
            The step; None for the first view, and for one that does not surely show the same
            ground as an earlier one.
        """
        if self._last is not None and t <= self._last.t:
            self._key = self._last = self._end = None
        new = next(v for v in self._views if v is not self._key and v is not self._last)
        if view.shape[0] != SIDE_PX:
            size = (SIDE_PX, SIDE_PX)
            view = np.asarray(cv2.resize(view, size, interpolation=cv2.INTER_AREA), np.uint8)
        cv2.cvtColor(view, cv2.COLOR_RGB2GRAY, new.grey)
        self._correlator.load(new.grey, new.detail)
        new.t, new.footprint_m, new.pose = t, footprint_m, None
        new.center_m = np.array(center_m, np.float64)
        last, self._last = self._last, new
        if self._key is None or last is None:
            self._key = new
            return None
        for base in (self._key,) if last is self._key else (self._key, last):
            turn_deg, found = self._register(base, new, yaw_known)
            if found is not None:
                return self._finish(base, new, turn_deg, found, agl_m)
        return None

    def _finish(self, base: _View, new: _View, turn_deg: float, found: Match, agl_m: float) -> Step:
        """Work out the step that ends with a registered view, and choose the next key."""
        if base.pose is None or self._end is None:  # nothing before is known to show this ground
            self._end = base.pose = _Pose(base.t, np.zeros(2), 0.0)
        start = self._end
        gsd_m = max(base.footprint_m, new.footprint_m) / SIDE_PX
        heading_deg = base.pose.heading_deg + turn_deg
        shift_m = np.array([found.right_px, -found.down_px]) * gsd_m
        look_m = base.pose.place_m + _clockwise(base.center_m + shift_m, base.pose.heading_deg)
        place_m = look_m - _clockwise(new.center_m, heading_deg)
        self._end = new.pose = _Pose(new.t, place_m, heading_deg)
        shift_px = math.hypot(found.right_px, found.down_px)
        far = max(abs(found.right_px), abs(found.down_px)) > _KEY_REACH * SIDE_PX
        rescaled = base.footprint_m != new.footprint_m
        self._key = new if far or rescaled or abs(turn_deg) > _KEY_TURN_DEG else base
        moved_m = _clockwise(place_m - start.place_m, -start.heading_deg)
        seconds = new.t - start.t
        tilt = TILT_SIGMA_RAD * math.sqrt(2 - 2 * math.exp(-seconds / _TILT_S))
        sigma_m = math.hypot(
            math.hypot(_SIGMA_PX, _SIGMA_SHARE * shift_px) * gsd_m,
            tilt * agl_m,
            WAY_SHARE * float(np.linalg.norm(moved_m)),
        )
        return Step(seconds, moved_m, sigma_m, heading_deg - start.heading_deg)

    def _register(self, base: _View, new: _View, yaw_known: bool) -> tuple[float, Match | None]:
        """Return how far a view is turned against another, and where it lies on it if that is sure.

        The finer view is shrunk to the scale of the coarser one, whose pixels are meant.
        """
        scale = new.footprint_m / base.footprint_m
        other, picture = base.detail, new.detail
        if scale > 1 + _SAME_SCALE:
            other = self._fit(base, 1 / scale, 0.0, self._fitted)
        elif scale < 1 - _SAME_SCALE:
            picture = self._fit(new, scale, 0.0, self._turned)
        turn_deg = 0.0
        if not yaw_known:
            turn_deg = self._turn_deg(picture, other)
            picture = self._fit(new, min(scale, 1.0), turn_deg, self._turned)
        found = self._correlator.match(picture, other)
        repeats = max(picture.repeats, other.repeats)
        sure = (
            min(picture.strength, other.strength) > _MIN_STRENGTH
            and found.score > _MIN_SCORE
            and found.rival < _MAX_RIVAL * found.score
            and found.agreement > repeats + _ABOVE_REPEATS
        )
        return turn_deg, found if sure else None

    def _fit(self, view: _View, scale: float, turn_deg: float, out: Detail) -> Detail:
        """Shrink a view and turn its content clockwise about its middle."""
        grey = view.grey
        if scale < 0.75:  # warpAffine takes no averages
            grey = np.asarray(cv2.blur(grey, (math.ceil(1 / scale),) * 2), np.uint8)
        cv2.warpAffine(grey, about_middle(SIDE_PX, scale, turn_deg), grey.shape, self._warped)
        self._correlator.load(self._warped, out)
        return out

    def _turn_deg(self, picture: Detail, other: Detail) -> float:
        """Return the clockwise turn of the view `picture` against `other`."""
        size = (_TURN_SIDE_PX, _TURN_SIDE_PX)
        fixed, turned = self._small
        cv2.resize(other.grey, size, self._small_grey, interpolation=cv2.INTER_AREA)
        self._turner.load_detail(self._small_grey, fixed)
        cv2.resize(picture.grey, size, self._small_grey, interpolation=cv2.INTER_AREA)

        def height(turn_deg: float) -> float:
            about = about_middle(_TURN_SIDE_PX, 1.0, turn_deg)
            cv2.warpAffine(self._small_grey, about, size, self._small_turned)
            self._turner.load_detail(self._small_turned, turned)
            return self._turner.height(turned, fixed)

        heights = {turn_deg: height(turn_deg) for turn_deg in _TURNS_DEG}
        best = max(heights, key=heights.__getitem__)
        top = heights[best]
        low, high = (
            heights[side] if side in heights else height(side)
            for side in (best - _TURN_STEP_DEG, best + _TURN_STEP_DEG)
        )
        return best + _TURN_STEP_DEG * tent_peak(low, top, high)


def _clockwise(vector: Floats, degrees: float) -> Floats:
    """Turn a vector (2,) east, north clockwise."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    east, north = vector
    return np.array([cos * east + sin * north, cos * north - sin * east])
