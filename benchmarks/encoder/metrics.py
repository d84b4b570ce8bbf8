"""Figures of a condition, with intervals from a bootstrap over clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from condition import HIT_FOOTPRINTS, Floats

RESAMPLES = 1000
_SEED = 64_000
_INTERVAL = (2.5, 97.5)
# Tiles this many footprints from the truth share no ground with it.
_APART_FOOTPRINTS = 1.0
# Fewer answers of a kind say nothing of how their scores lie.
_LEAST = 5

Figure = dict[str, float | None]


@dataclass(frozen=True, eq=False)
class Found:
    """What a method answered to the Q queries of one or several regions.

    Attributes:
        hit: (Q, 5) bool: the k-th tile is right.
        far: (Q,) bool: the first tile shows none of the query's ground.
        error_m: (Q,) from the first tile to the truth.
        score: (Q,) of the first tile.
        elsewhere: (Q,) of the first tile that shows none of the query's ground.
        cluster: (Q,) int64.
        foreign: (F,) best score of queries of foreign ground.
        foreign_cluster: (F,) int64.
        claimed: (Q,) probability of the first tile's place, NaN of methods that claim none.
        foreign_claimed: (F,) the same of queries of foreign ground.
    """

    hit: npt.NDArray[np.bool_]
    far: npt.NDArray[np.bool_]
    error_m: Floats
    score: Floats
    elsewhere: Floats
    cluster: npt.NDArray[np.int64]
    foreign: Floats
    foreign_cluster: npt.NDArray[np.int64]
    claimed: Floats
    foreign_claimed: Floats


@dataclass(frozen=True, eq=False)
class Flown:
    """What the runtime made of the F frames of one or several regions.

    Attributes:
        off: (F,) footprints from the ground located in the frame's middle to the truth, infinite
            where the runtime refuses the frame.
        mass: (F,) probability of the position, 0 where it refuses.
        issued: (F,) bool: it issues a fix.
        cluster: (F,) int64.
        foreign_issued: (G,) bool: the same of frames of foreign ground.
        foreign_cluster: (G,) int64.
    """

    off: Floats
    mass: Floats
    issued: npt.NDArray[np.bool_]
    cluster: npt.NDArray[np.int64]
    foreign_issued: npt.NDArray[np.bool_]
    foreign_cluster: npt.NDArray[np.int64]


def found(
    scores: Floats,
    distance_m: Floats,
    footprint_m: float,
    cluster: npt.NDArray[np.int64],
    foreign: Floats,
    foreign_cluster: npt.NDArray[np.int64],
    claimed: Floats | None = None,
    foreign_claimed: Floats | None = None,
) -> Found:
    """Reduce one region's scores.

    Args:
        scores: (Q, N) of queries and tiles.
        distance_m: (Q, N) from the tiles' centres to the truth.
        footprint_m: side of the tiles.
        cluster: (Q,).
        foreign: (F, N) scores of foreign queries.
        foreign_cluster: (F,).
        claimed: (Q,) probabilities, of methods that claim any.
        foreign_claimed: (F,) those of foreign queries.
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    ranked_m = np.take_along_axis(distance_m, order, axis=1)
    away = np.where(distance_m > _APART_FOOTPRINTS * footprint_m, scores, -np.inf)
    return Found(
        ranked_m <= HIT_FOOTPRINTS * footprint_m,
        ranked_m[:, 0] > _APART_FOOTPRINTS * footprint_m,
        ranked_m[:, 0],
        scores.max(axis=1),
        away.max(axis=1),
        cluster,
        foreign.max(axis=1) if len(foreign) else np.zeros(0),
        foreign_cluster,
        np.full(len(scores), np.nan) if claimed is None else claimed,
        np.full(len(foreign), np.nan) if foreign_claimed is None else foreign_claimed,
    )


def joined(parts: list[Found]) -> Found:
    """Return the answers of several regions together; no cluster spans two."""
    clusters = _numbered([part.cluster for part in parts])
    foreign = _numbered([part.foreign_cluster for part in parts])
    return Found(
        np.concatenate([part.hit for part in parts]),
        np.concatenate([part.far for part in parts]),
        np.concatenate([part.error_m for part in parts]),
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.elsewhere for part in parts]),
        clusters,
        np.concatenate([part.foreign for part in parts]),
        foreign,
        np.concatenate([part.claimed for part in parts]),
        np.concatenate([part.foreign_claimed for part in parts]),
    )


def joined_flown(parts: list[Flown]) -> Flown:
    """Return the frames of several regions together; no cluster spans two."""
    return Flown(
        np.concatenate([part.off for part in parts]),
        np.concatenate([part.mass for part in parts]),
        np.concatenate([part.issued for part in parts]),
        _numbered([part.cluster for part in parts]),
        np.concatenate([part.foreign_issued for part in parts]),
        _numbered([part.foreign_cluster for part in parts]),
    )


def _numbered(parts: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    start, out = 0, []
    for part in parts:
        _, number = np.unique(part, return_inverse=True)
        out.append(number + start)
        start += len(np.unique(part))
    return np.concatenate(out).astype(np.int64)


def figures(answers: Found, seed: int = _SEED) -> dict[str, Figure]:
    """Return each figure as its value, and the ends of its 95 % interval.

    `None` stands for what cannot be had: an AUC where nearly all answers are right, or by the
    probability of a method that claims none.
    """
    rng = np.random.default_rng(seed)
    weight = _weights(answers.cluster, rng)
    foreign_weight = _weights(answers.foreign_cluster, rng)
    right = answers.hit[:, 0]
    clear = right | answers.far
    known = np.concatenate([answers.score, answers.foreign])
    claimed = np.concatenate([answers.claimed, answers.foreign_claimed])
    every_weight = np.hstack([weight, foreign_weight])
    is_known = np.arange(len(known)) < len(answers.score)
    both = np.concatenate([answers.score, answers.elsewhere])
    is_there = np.arange(len(both)) < len(answers.score)
    return {
        "recall_at_1": _figure(_mean(right, weight)),
        "recall_at_5": _figure(_mean(np.asarray(answers.hit.any(axis=1)), weight)),
        "median_m": _figure(_median(answers.error_m, weight)),
        "auc_right": _figure(_auc(answers.score, right, weight)),
        "auc_far": _figure(_auc(answers.score[clear], right[clear], weight[:, clear])),
        "auc_foreign": _figure(_auc(known, is_known, every_weight)),
        "auc_left_out": _figure(_auc(both, is_there, np.hstack([weight, weight]))),
        "auc_right_claimed": _figure(_auc(answers.claimed, right, weight)),
        "auc_foreign_claimed": _figure(_auc(claimed, is_known, every_weight)),
    }


def frame_figures(flown: Flown, seed: int = _SEED) -> dict[str, Figure]:
    """Return the figures of whole frames, as `figures` does.

    Refused frames count as not found, but tell nothing of how right and wrong are told apart.
    """
    rng = np.random.default_rng(seed)
    weight = _weights(flown.cluster, rng)
    foreign_weight = _weights(flown.foreign_cluster, rng)
    right, matched = flown.off <= HIT_FOOTPRINTS, np.isfinite(flown.off)
    false = flown.off[flown.issued] > _APART_FOOTPRINTS
    return {
        "right": _figure(_mean(right, weight)),
        "auc_right": _figure(_auc(flown.mass[matched], right[matched], weight[:, matched])),
        "issued": _figure(_mean(flown.issued, weight)),
        "false": _figure(_mean(false, weight[:, flown.issued])),
        "foreign_issued": _figure(_mean(flown.foreign_issued, foreign_weight)),
        "refused": _figure(_mean(~matched, weight)),
    }


def _weights(cluster: npt.NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """Return how often each query counts: once in the first row, then as clusters are redrawn."""
    if not len(cluster):
        return np.zeros((1 + RESAMPLES, 0))
    _, number = np.unique(cluster, return_inverse=True)
    count = int(number.max()) + 1
    draws = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES)
    return np.vstack([np.ones(len(cluster)), draws[:, number]])


def _figure(values: Floats) -> Figure:
    """Return the first of the values with the interval of the others."""
    others = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]):
        return {"value": None, "low": None, "high": None}
    low, high = np.percentile(others, _INTERVAL) if len(others) else (None, None)
    return {
        "value": float(values[0]),
        "low": None if low is None else float(low),
        "high": None if high is None else float(high),
    }


def _mean(values: npt.NDArray[np.bool_], weight: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.asarray(weight @ values / weight.sum(axis=1), np.float64)


def _median(values: Floats, weight: Floats) -> Floats:
    order = np.argsort(values, kind="stable")
    total = weight[:, order].cumsum(axis=1)
    half = total[:, -1:] / 2
    lower = values[order][(total < half).sum(axis=1)]
    upper = values[order][np.minimum((total <= half).sum(axis=1), len(values) - 1)]
    return np.asarray((lower + upper) / 2, np.float64)


def _auc(scores: Floats, positive: npt.NDArray[np.bool_], weight: Floats) -> Floats:
    """Return how often a positive scores above a negative, ties by half.

    NaN with too few of either, and where a score is NaN.
    """
    few = min(int(positive.sum()), int((~positive).sum())) < _LEAST
    if few or np.isnan(scores).any():
        return np.full(len(weight), np.nan)
    order = np.argsort(scores, kind="stable")
    values, up, w = scores[order], positive[order], weight[:, order]
    plus, minus = np.where(up, w, 0), np.where(up, 0, w)
    below = minus.cumsum(axis=1) - minus
    # Within a run of equal scores every positive beats half of the run's negatives.
    start = np.concatenate([[True], values[1:] != values[:-1]])
    first = np.flatnonzero(start)[start.cumsum() - 1]
    last = np.concatenate([np.flatnonzero(start)[1:], [len(values)]])[start.cumsum() - 1] - 1
    before = below[:, first]
    through = below[:, last] + minus[:, last]
    wins = (plus * (before + through) / 2).sum(axis=1)
    pairs = plus.sum(axis=1) * minus.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(pairs > 0, wins / pairs, np.nan), np.float64)
