"""What heading and height a frame may have where its telemetry does not tell.

The encoder knows the same ground under some twelve degrees of turn and some forty percent of
scale, so sixteen headings and heights in steps of 1.4 miss nothing. The middle of the frame is
matched under each; the scores of a hypothesis and its neighbours tell where between them the truth
lies, and the places of a frame's patches to each other then tell it finely.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..core.camera import Attitude, Camera
from .bias import Correction
from .locate import MODE_REACH, PEAK_POWER, PEAK_REACH, Evidence, Gate
from .normalise import MIN_DETAIL
from .telemetry import Sample

Floats = npt.NDArray[np.float64]

HEADINGS = 16
HEADING_STEP_DEG = 360.0 / HEADINGS
# The three headings around an expected one serve a drone that has turned so far since.
COVERED_DEG = 1.5 * HEADING_STEP_DEG
HEIGHT_STEP = 1.4
# The frame's short side must be this much longer than a tile, or turned it would not cover one.
_TURNED = 1.2
# Standard deviation per axis of a tile's place, as a share of its side, and how well the places
# must tell turn and scale: 0.1 are six degrees and ten percent.
_TILE_SIGMA, _LEAST_TELLING = 0.1, 0.1
# Patches at least this far apart tell it, in tiles.
_LEAST_PATCHES = 3


@dataclass(frozen=True)
class Expected:
    """What earlier frames let one expect of the next.

    Attributes:
        yaw_deg: heading, None for any; only asked for where telemetry does not tell it.
        agl_m: height, None for any; the same.
        near: where the drone is likely to be, None for anywhere.
        only_near: whether to look nowhere else.
        turn: number of the search, of which each tries a part of what is possible; None for all
            of it at once.
        moves: whether to look for how the drone moved since the last frame.
        correction: of reported heading and height.
    """

    yaw_deg: float | None = None
    agl_m: float | None = None
    near: Gate | None = None
    only_near: bool = False
    turn: int | None = None
    moves: bool = False
    correction: Correction = Correction()

    @property
    def within(self) -> Gate | None:
        """Where alone to look for the drone, None for the whole pack."""
        return self.near if self.only_near else None


ANYTHING = Expected()


def heading_bin(yaw_deg: float) -> int:
    """Return the number of the nearest of the `HEADINGS`."""
    return round(yaw_deg / HEADING_STEP_DEG) % HEADINGS


def possible(sample: Sample, expected: Expected, heights_m: Sequence[float]) -> list[Attitude]:
    """Return the attitudes that a frame may have; one where its telemetry tells all.

    Args:
        sample: telemetry of the frame.
        expected: what earlier frames tell.
        heights_m: those at which the frame fits the pack, from `useful_heights_m`.
    """
    told = sample.attitude
    near: list[float] = [0.0, -HEADING_STEP_DEG, HEADING_STEP_DEG]
    yaws = [told.yaw_deg]
    if not sample.yaw_known:
        yaws = [number * HEADING_STEP_DEG for number in range(HEADINGS)]
        if expected.yaw_deg is not None:
            yaws = [(expected.yaw_deg + step) % 360.0 for step in near]
    heights = [told.agl_m]
    if not sample.agl_known:
        heights = list(heights_m)
        if expected.agl_m is not None:
            factors = (1.0, 1 / HEIGHT_STEP, HEIGHT_STEP) if len(yaws) <= len(near) else (1.0,)
            heights = [expected.agl_m * factor for factor in factors]
        elif expected.turn is not None and len(yaws) * len(heights) > HEADINGS:
            heights = [heights[expected.turn % len(heights)]] if heights else []
    if len(yaws) == 3 and len(heights) == 3:
        # Both are about known: a cross of five tells as much as all nine.
        pairs = [(yaws[0], heights[0])]
        pairs += [(yaw, heights[0]) for yaw in yaws[1:]] + [(yaws[0], h) for h in heights[1:]]
    else:
        pairs = [(yaw, height) for height in heights for yaw in yaws]
    return [replace(told, yaw_deg=yaw, agl_m=agl_m) for yaw, agl_m in pairs]


def useful_heights_m(camera: Camera, footprints_m: Sequence[float], input_px: int) -> list[float]:
    """Return heights in steps of `HEIGHT_STEP` at which a frame holds a tile in some detail."""
    slope = min(camera.width_px / camera.fx_px, camera.height_px / camera.fy_px)
    lowest = _TURNED * min(footprints_m) / slope
    highest = max(footprints_m) * camera.fx_px / (MIN_DETAIL * input_px)
    count = max(1, math.ceil(math.log(max(highest / lowest, 1.0)) / math.log(HEIGHT_STEP)))
    # As many equal steps as are needed, each tried in its middle.
    step = max(highest / lowest, 1.0) ** (1 / count)
    return [lowest * step ** (number + 0.5) for number in range(count)]


def best_score(evidence: Evidence, expected: Expected) -> float:
    """Return the cosine of the middle patch's best tile, of those near the expected place."""
    scores = evidence.scores[0]
    gate = expected.near
    if gate is None:
        return float(scores[0])
    east, north = (evidence.tiles_m[0] - evidence.offsets_m[0]).T
    near = np.hypot(east - gate.east_m, north - gate.north_m) <= gate.radius_m
    return float(scores[near][0]) if near.any() else float(scores[-1])


def best_of(attitudes: Sequence[Attitude], scores: Sequence[float]) -> tuple[int, Attitude]:
    """Return the number of the best hypothesis, and the attitude between it and its neighbours.

    Args:
        attitudes: that were tried.
        scores: cosine of the best tile under each.
    """
    best = int(np.argmax(scores))
    peak = attitudes[best]
    turns = [_turn_deg(peak.yaw_deg, a.yaw_deg) / HEADING_STEP_DEG for a in attitudes]
    climbs = [math.log(a.agl_m / peak.agl_m) / math.log(HEIGHT_STEP) for a in attitudes]
    turn = HEADING_STEP_DEG * _vertex(turns, climbs, scores)
    climb = HEIGHT_STEP ** _vertex(climbs, turns, scores)
    return best, replace(peak, yaw_deg=(peak.yaw_deg + turn) % 360.0, agl_m=peak.agl_m * climb)


def _vertex(along: Sequence[float], across: Sequence[float], scores: Sequence[float]) -> float:
    """Return where between -0.5 and 0.5 a parabola through 0 and its two neighbours peaks."""
    level = [i for i, off in enumerate(across) if abs(off) < 0.01]
    below = [i for i in level if -1.3 < along[i] < -0.7]
    above = [i for i in level if 0.7 < along[i] < 1.3]
    if not (below and above):
        return 0.0
    low, middle, high = scores[below[0]], max(scores), scores[above[0]]
    bend = low - 2 * middle + high
    return 0.0 if bend >= 0 else min(max((low - high) / (2 * bend), -0.5), 0.5)


def _turn_deg(first_deg: float, second_deg: float) -> float:
    """Return the turn from one heading to another, -180 to 180."""
    return (second_deg - first_deg + 180.0) % 360.0 - 180.0


def turned(
    attitude: Attitude,
    sample: Sample,
    evidence: Evidence,
    own: Floats,
    place_m: Floats,
    footprint_m: float,
) -> tuple[Attitude, Floats] | None:
    """Return heading and height as the places of the patches to each other tell them.

    Args:
        attitude: under which the patches were cut.
        sample: tells which of the two is asked for.
        evidence: of these patches.
        own: (P, k) from `tile_probabilities`.
        place_m: (2,) of the drone.
        footprint_m: side of the tiles.

    Returns:
        The attitude, and (P, 2) the offsets of the patches under it; None where the patches are
        too few or too close to tell.
    """
    fit = fit_places(evidence, own, place_m, footprint_m)
    if fit is None or fit.sigma > _LEAST_TELLING:
        return None
    factor = fit.factor
    if sample.agl_known:
        factor /= abs(factor)
    if sample.yaw_known:
        factor = complex(abs(factor))
    yaw_deg = (attitude.yaw_deg - math.degrees(math.atan2(factor.imag, factor.real))) % 360.0
    turned_offsets = evidence.offsets_m @ np.array([1, 1j]) * factor
    told = replace(attitude, yaw_deg=yaw_deg, agl_m=attitude.agl_m * abs(factor))
    return told, np.stack([turned_offsets.real, turned_offsets.imag], axis=1)


@dataclass(frozen=True)
class PlacesFit:
    """How the places of a frame's patches lie to each other, against how they were thought to.

    Attributes:
        factor: of east + i north: its length is true by supposed height, its angle, from east to
            north, what a supposed heading is too large by.
        sigma: standard deviation of length and angle (radians), from the tiles' size alone.
    """

    factor: complex
    sigma: float


def fit_places(
    evidence: Evidence, own: Floats, place_m: Floats, footprint_m: float
) -> PlacesFit | None:
    """Fit turn and scale to the places that a frame's patches were matched at.

    Under a wrong heading the patches do not lie where they were thought to be seen from the drone,
    but turned about it; under a wrong height nearer or farther. A least-squares fit of the tiles'
    places tells both.

    Args:
        evidence: of the patches.
        own: (P, k) from `tile_probabilities`.
        place_m: (2,) of the drone.
        footprint_m: side of the tiles.

    Returns:
        The fit; None where fewer than three patches are matched near the place.
    """
    seen = evidence.tiles_m - place_m
    near = np.linalg.norm(seen - evidence.offsets_m[:, None], axis=2) <= MODE_REACH * footprint_m
    there = np.where(near, own, 0.0)
    chosen = there.sum(axis=1) > 0.5
    if chosen.sum() < _LEAST_PATCHES:
        return None
    seen, there = seen[chosen], there[chosen]
    peaks = seen[np.arange(len(seen)), there.argmax(axis=1)]
    close = np.linalg.norm(seen - peaks[:, None], axis=2) <= PEAK_REACH * footprint_m
    pull = np.where(close, there, 0.0) ** PEAK_POWER
    matched = (pull[..., None] * seen).sum(axis=1) / pull.sum(axis=1)[:, None]
    offsets = evidence.offsets_m[chosen]
    # East + i north: a turn and a change of scale are one complex factor.
    away = (offsets - offsets.mean(axis=0)) @ np.array([1, 1j])
    there_away = (matched - matched.mean(axis=0)) @ np.array([1, 1j])
    spread2 = float((abs(away) ** 2).sum())
    if spread2 <= 0:
        return None
    factor = complex((away.conj() * there_away).sum() / spread2)
    if not 1 / HEIGHT_STEP < abs(factor) < HEIGHT_STEP:
        return None
    return PlacesFit(factor, _TILE_SIGMA * footprint_m / math.sqrt(spread2))
