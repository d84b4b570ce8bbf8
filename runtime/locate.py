"""From tile scores to a position: pure functions of the pack and the queries.

Every patch of a frame lies at a known offset from the drone, so every tile that looks like a
patch implies a position of the drone. A softmax turns a patch's scores into probabilities; the
patches' opinions are multiplied at the implied positions; the densest cluster wins, and the
share of probability it holds says how far to trust it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]

# Tiles looked at per patch: with tiles at half a footprint, the true place shows in 9 of them.
MAX_CANDIDATES = 64
# Standard deviation of the kernel that joins neighbouring tiles, as a share of the footprint:
# two half-strides of the usual lattice, so that a mode is one hill and not a row of peaks.
KERNEL_SHARE = 0.25
# A mode reaches this far from its peak, as a share of the footprint: tiles beyond share less
# than half their ground with the place itself.
MODE_REACH = 0.75
# A patch that contradicts the others (a new house, ground outside the pack) may lower a place by
# this factor at most: otherwise one bad patch could veto the truth.
OUTLIER_FLOOR = 0.05
# Least probability in the dominant mode for a fix, and for being content with the first patches.
# The best known of many patches is well known by chance: once more than a few were matched, more
# is asked for. On the calibration flights (benchmarks/calibration_flights.py) 596 of 798 frames
# have a fix so, 11 of them a tile or more off; 0.8 throughout gave 78 % and 23.
MIN_MASS = 0.8
MIN_MASS_OF_MANY = 0.97
FEW_PATCHES = 5
SURE_MASS = 0.9
# The position is the mean of the tiles this near the peak, as a share of the footprint, weighted
# by this power of their probability: a sharp softmax would snap to the best tile. On the
# calibration flights 0.4 took the median error from 0.067 to 0.056 footprints.
PEAK_REACH = 0.35
PEAK_POWER = 0.4
# sigma_m: in-mode spread, what matching at tile level cannot resolve (a share of the footprint),
# what a one degree error of the reported attitude makes at this height, and what two degrees of
# heading and three percent of height make of the way from the matched patches to the drone; doubt
# (mass below 1) widens it. On the calibration flights errors are 1.26 sigma rms with a floor of
# 0.04 (1.41 were exact), the largest 4.3: on the safe side, as real telemetry errs more than
# simulated.
SPREAD_SCALE = 0.5
FLOOR_SHARE = 0.05
TILT_SIGMA_RAD = 0.0175
LEVER_SHARE = 0.046
# A circular Gaussian exceeds 3.72 sigma once in a thousand (Rayleigh: sqrt(2 ln 1000)).
HPL_PER_SIGMA = 3.72
_STARTS = 64  # likeliest positions among which the highest peak is looked for
_SHIFTS = 30  # mean-shift steps; it converges in five to ten


class TileScores(Protocol):
    """The part of a pack that search needs (see tilepacks.reader.Pack)."""

    @property
    def east_m(self) -> Floats:
        """Tile centres, (N,) metres."""
        ...

    @property
    def north_m(self) -> Floats:
        """Tile centres, (N,) metres."""
        ...

    def search(
        self, queries: npt.NDArray[np.float32], level: int, k: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return ids and cosines (B, k), best first."""
        ...

    def search_near(
        self,
        queries: npt.NDArray[np.float32],
        level: int,
        k: int,
        points_m: Floats,
        radius_m: float,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]] | None:
        """Return the same of the tiles near a point of each query, or None where that is slower."""
        ...


@dataclass(frozen=True)
class Gate:
    """Where the drone is supposed to be.

    Attributes:
        east_m: in the pack's frame.
        north_m: in the pack's frame.
        radius_m: how far off it may be.
        sure_score: cosine from which on the middle of a frame is not looked up elsewhere as well.
    """

    east_m: float
    north_m: float
    radius_m: float
    sure_score: float = math.inf


@dataclass(frozen=True)
class Evidence:
    """What the pack says about the patches of one frame.

    Attributes:
        ids: (P, k) int64 tiles, best first.
        scores: (P, k) float32 cosines.
        tiles_m: (P, k, 2) float64 east, north of the tiles' centres in the pack's frame.
        offsets_m: (P, 2) float64 east, north of the patches' centres from the drone.
        within: where the drone was looked for; None: in all of the pack. Of the ground beyond
            nothing is known then, good or bad.
    """

    ids: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    tiles_m: Floats
    offsets_m: Floats
    within: Gate | None = None


@dataclass(frozen=True)
class Estimate:
    """The most likely position of the drone.

    Attributes:
        east_m: in the pack's frame.
        north_m: in the pack's frame.
        mass: probability inside the mode, 0 to 1.
        spread_m: standard deviation per axis inside the mode.
        sigma_m: standard deviation per axis of the position.
        hpl_m: bound on the error at 1e-3.
        patches: how many were matched.
    """

    east_m: float
    north_m: float
    mass: float
    spread_m: float
    sigma_m: float
    hpl_m: float
    patches: int = 1

    @property
    def is_certain(self) -> bool:
        """Whether the mode is dominant enough to be called a fix."""
        return self.mass >= (MIN_MASS if self.patches <= FEW_PATCHES else MIN_MASS_OF_MANY)

    @property
    def is_sure(self) -> bool:
        """Whether more patches are not worth their time."""
        return self.mass >= SURE_MASS


def gather(
    pack: TileScores,
    level: int,
    queries: npt.NDArray[np.float32],
    offsets_m: Floats,
    within: Gate | None = None,
) -> Evidence:
    """Search the pack for the patches' embeddings (P, D) float32, at offsets (P, 2).

    With `within` only tiles count that put the drone there, all of them, compared exactly. Where
    that would take longer than a search of the whole level, or no tile is there, that is done.
    """
    near = None
    if within is not None:
        points_m = offsets_m + [within.east_m, within.north_m]
        near = pack.search_near(queries, level, MAX_CANDIDATES, points_m, within.radius_m)
    ids, scores = near or pack.search(queries, level, MAX_CANDIDATES)
    tiles_m = np.stack([pack.east_m[ids], pack.north_m[ids]], axis=-1)
    return Evidence(ids, scores, tiles_m, offsets_m, within if near else None)


def joined(first: Evidence, second: Evidence) -> Evidence:
    """Return the evidence of more patches of the same frame together."""
    return Evidence(
        np.concatenate([first.ids, second.ids]),
        np.concatenate([first.scores, second.scores]),
        np.concatenate([first.tiles_m, second.tiles_m]),
        np.concatenate([first.offsets_m, second.offsets_m]),
        first.within or second.within,
    )


def locate(
    evidence: Evidence,
    footprint_m: float,
    temperature: float,
    unknown_score: float,
    agl_m: float,
) -> Estimate:
    """Return the position of the drone that the evidence makes most likely.

    Args:
        evidence: of `gather`.
        footprint_m: side of the tiles.
        temperature: softmax temperature of the encoder's scores (`EncoderSpec.temperature`).
        unknown_score: cosine of the rival "this ground is in no tile" (`EncoderSpec`).
        agl_m: height above ground, for the share of `sigma_m` that attitude errors make.
    """
    positions = evidence.tiles_m - evidence.offsets_m[:, None, :]
    logits = evidence.scores.astype(np.float64) / temperature
    own = tile_probabilities(logits, unknown_score / temperature)
    weights = joint_weights(positions, own, footprint_m).ravel()
    points = positions.reshape(-1, 2)
    peak = _mode(points, weights, KERNEL_SHARE * footprint_m)
    # A frame is as well known as its best known patch: the others may see ground beyond the map.
    known = float(own.sum(axis=1).max())
    lever_m = np.linalg.norm(evidence.offsets_m, axis=1).repeat(positions.shape[1])
    found = _summary(points, weights, peak, lever_m, footprint_m, agl_m, known)
    return replace(found, patches=len(own))


def locate_near(
    evidence: Evidence,
    own: Floats,
    footprint_m: float,
    agl_m: float,
    place_m: Floats,
    reach_m: float,
) -> Estimate | None:
    """Return the position that the evidence makes likely near a place, or None if it has none.

    Args:
        evidence: of `gather`.
        own: (P, k) from `tile_probabilities`.
        footprint_m: side of the tiles.
        agl_m: height above ground.
        place_m: (2,) east, north.
        reach_m: how far from it.

    Returns:
        The estimate; its mass is the probability that a patch of the frame is near the place.
    """
    positions = evidence.tiles_m - evidence.offsets_m[:, None, :]
    near = np.linalg.norm(positions - place_m, axis=2) <= reach_m
    most = int(near.sum(axis=1).max())
    if not most:
        return None
    # Each patch's tiles that are near come first; the others would only cost time.
    order = np.argsort(~near, axis=1, kind="stable")[:, :most]
    positions = np.take_along_axis(positions, order[..., None], axis=1)
    near, own = (np.take_along_axis(values, order, axis=1) for values in (near, own))
    there = np.where(near, own, 0.0)
    weights = (joint_weights(positions, there, footprint_m) * near).ravel()
    weights /= weights.sum()
    points = positions.reshape(-1, 2)
    peak = _mode(points, weights, KERNEL_SHARE * footprint_m)
    lever_m = np.linalg.norm(evidence.offsets_m, axis=1).repeat(positions.shape[1])
    known = float(there.sum(axis=1).max())
    return _summary(points, weights, peak, lever_m, footprint_m, agl_m, known)


def joint_weights(positions: Floats, own: Floats, footprint_m: float) -> Floats:
    """Return the probability (P, k) of each implied position, all patches together; sum 1.

    Args:
        positions: (P, k, 2) east, north of the drone that each patch's tiles imply.
        own: (P, k) probabilities of each patch's tiles, from `tile_probabilities`.
        footprint_m: side of the tiles.

    With one patch the result is its softmax. With several, each position is weighted by its own
    patch's probability times the density that every other patch puts there: an importance sample
    of the product of the patches' densities. A patch counts by the height of its own highest
    peak, so that one whose candidates lie scattered all over the pack, or that matches nothing,
    has little say.
    """
    log_weights = np.log(own + 1e-300)
    near = _from_middle(positions)
    kernel_m = KERNEL_SHARE * footprint_m
    closeness, scratch = np.empty((2, own.size, own.shape[1]), np.float32)
    for patch, probabilities in enumerate(own.astype(np.float32)):
        _kernel(near.reshape(-1, 2), near[patch], kernel_m, closeness, scratch)
        density = (closeness @ probabilities).reshape(own.shape)
        factor = OUTLIER_FLOOR + (1 - OUTLIER_FLOOR) * density.astype(np.float64)
        factor[patch] = float(density[patch].max()) + 1e-300
        log_weights += np.log(factor)
    weights = np.exp(log_weights - log_weights.max())
    result: Floats = weights / weights.sum()
    return result


def _from_middle(points: Floats) -> Floats32:
    """Return points (…, 2) from their middle, float32: over 100 km that is off by a centimetre."""
    near: Floats32 = (points - points.mean(axis=tuple(range(points.ndim - 1)))).astype(np.float32)
    return near


def _kernel(
    points: Floats32, centers: Floats32, kernel_m: float, out: Floats32, scratch: Floats32
) -> None:
    """Fill `out` (N, M) with the Gaussian kernel between points (N, 2) and centres (M, 2), peak 1.

    Float32 halves the time of exp; `scratch` is another (N, M).
    """
    np.subtract.outer(points[:, 0], centers[:, 0], out=out)
    np.subtract.outer(points[:, 1], centers[:, 1], out=scratch)
    out *= out
    scratch *= scratch
    out += scratch
    out *= np.float32(-0.5 / kernel_m**2)
    np.exp(out, out=out)


def tile_probabilities(logits: Floats, unknown_logit: float) -> Floats:
    """Return the softmax of each row (P, k) with one more entry, which is left out.

    The entry is the rival `unknown_logit`: ground that the pack does not hold, or that has changed.
    """
    highest = np.maximum(logits.max(axis=1, keepdims=True), unknown_logit)
    powers = np.exp(logits - highest)
    rival = np.exp(unknown_logit - highest)
    result: Floats = powers / (powers.sum(axis=1, keepdims=True) + rival)
    return result


def _mode(points: Floats, weights: Floats, kernel_m: float) -> Floats:
    """Return the highest peak of the kernel density (mean shift, Comaniciu and Meer 2002)."""
    scale = -0.5 / kernel_m**2
    near = _from_middle(points)
    first = np.argsort(-weights, kind="stable")[:_STARTS]
    closeness, scratch = np.empty((2, len(first), len(points)), np.float32)
    _kernel(near[first], near, kernel_m, closeness, scratch)
    peak: Floats = points[first[np.argmax(closeness @ weights.astype(np.float32))]]
    for _ in range(_SHIFTS):
        pull = weights * np.exp(scale * _squares(points, peak))
        shifted = pull @ points / pull.sum()
        moved = float(np.abs(shifted - peak).max())
        peak = shifted
        if moved < 1e-3 * kernel_m:
            break
    return peak


def _squares(points: Floats, place: Floats) -> Floats:
    """Return the square of each point's (N, 2) distance from a place (2,)."""
    east, north = points[:, 0] - place[0], points[:, 1] - place[1]
    squares: Floats = east * east + north * north
    return squares


def _summary(
    points: Floats,
    weights: Floats,
    peak: Floats,
    lever_m: Floats,
    footprint_m: float,
    agl_m: float,
    known: float,
) -> Estimate:
    distance2 = _squares(points, peak)
    inside = distance2 <= (MODE_REACH * footprint_m) ** 2
    mass = known * float(weights[inside].sum())
    near = distance2 <= (PEAK_REACH * footprint_m) ** 2
    pull = weights[near] ** PEAK_POWER
    middle = pull @ points[near] / pull.sum()
    share = weights[inside] / weights[inside].sum()
    variance = float(share @ _squares(points[inside], middle)) / 2
    spread_m = variance**0.5
    parts = (
        SPREAD_SCALE * spread_m,
        FLOOR_SHARE * footprint_m,
        TILT_SIGMA_RAD * agl_m,
        LEVER_SHARE * float(pull @ lever_m[near] / pull.sum()),
    )
    sigma_m = float(np.linalg.norm(parts)) / mass
    return Estimate(
        float(middle[0]),
        float(middle[1]),
        min(mass, 1.0),
        spread_m,
        sigma_m,
        HPL_PER_SIGMA * sigma_m,
    )
