"""Whether an encoder's probabilities are what they say, with its own temperature and rival."""

from __future__ import annotations

import numpy as np
from condition import HIT_FOOTPRINTS, Floats

from s4g.core.spec import EncoderSpec
from s4g.runtime.locate import MAX_CANDIDATES, tile_probabilities

BINS = 10


def claims(
    scores: Floats, center_m: Floats, truth_m: Floats, footprint_m: float, spec: EncoderSpec
) -> tuple[Floats, Floats]:
    """Return what is claimed of each answer and whether it is so.

    Args:
        scores: (Q, N) cosines.
        center_m: (N, 2) of the tiles.
        truth_m: (Q, 2), NaN for foreign ground.
        footprint_m: side of the tiles.
        spec: of the encoder.

    Returns:
        (Q,) the probability of the tiles within half a footprint of the best one, and (Q,) 1 where
        that one is right.
    """
    count = min(MAX_CANDIDATES, scores.shape[1])
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    logits = np.take_along_axis(scores, best, axis=1) / spec.temperature
    probability = tile_probabilities(logits, spec.unknown_score / spec.temperature)
    near_m = HIT_FOOTPRINTS * footprint_m
    first = center_m[best[:, 0]]
    together = np.linalg.norm(center_m[best] - first[:, None], axis=2) <= near_m
    right = np.linalg.norm(first - truth_m, axis=1) <= near_m  # NaN: not
    return (probability * together).sum(axis=1), right.astype(np.float64)


def calibration_error(claimed: Floats, right: Floats) -> float:
    """Return the mean gap of claim and truth over bins of equally many answers."""
    order = np.argsort(claimed, kind="stable")
    gap = 0.0
    for rows in np.array_split(order, min(BINS, len(order))):
        gap += abs(float(claimed[rows].mean() - right[rows].mean())) * len(rows)
    return gap / max(1, len(order))


def reliability(claimed: Floats, right: Floats) -> list[dict[str, float]]:
    """Return claim, truth and count of each bin, for plots."""
    order = np.argsort(claimed, kind="stable")
    return [
        {
            "claimed": float(claimed[rows].mean()),
            "right": float(right[rows].mean()),
            "count": len(rows),
        }
        for rows in np.array_split(order, min(BINS, len(order)))
    ]
