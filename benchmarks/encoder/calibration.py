"""Whether an encoder's probabilities are what they say, with its own temperature and rival."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from condition import HIT_FOOTPRINTS, Floats

from s4g.core.spec import EncoderSpec
from s4g.runtime.locate import MAX_CANDIDATES, tile_probabilities

BINS = 10
# Bins of one width, so that the answers of many conditions can be put together.
DIAGRAM_BINS = 20


def claims(scores: Floats, center_m: Floats, footprint_m: float, spec: EncoderSpec) -> Floats:
    """Return what is claimed of each answer: the probability of the tiles around the best one.

    Args:
        scores: (Q, N) cosines.
        center_m: (N, 2) of the tiles.
        footprint_m: side of the tiles.
        spec: of the encoder.

    Returns:
        (Q,) the probability of the tiles within half a footprint of the best one.
    """
    count = min(MAX_CANDIDATES, scores.shape[1])
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    logits = np.take_along_axis(scores, best, axis=1) / spec.temperature
    probability = tile_probabilities(logits, spec.unknown_score / spec.temperature)
    away_m = np.linalg.norm(center_m[best] - center_m[best[:, :1]], axis=2)
    claimed: Floats = (probability * (away_m <= HIT_FOOTPRINTS * footprint_m)).sum(axis=1)
    return claimed


def calibration_error(claimed: Floats, right: npt.NDArray[np.bool_]) -> float:
    """Return the mean gap of claim and truth over bins of equally many answers."""
    order = np.argsort(claimed, kind="stable")
    gap = 0.0
    for rows in np.array_split(order, min(BINS, len(order))):
        gap += abs(float(claimed[rows].mean() - right[rows].mean())) * len(rows)
    return gap / max(1, len(order))


def reliability(claimed: Floats, right: npt.NDArray[np.bool_]) -> list[dict[str, float]]:
    """Return claim, truth and count of each bin of one width that holds answers, for plots."""
    number = np.minimum((claimed * DIAGRAM_BINS).astype(np.int64), DIAGRAM_BINS - 1)
    return [
        {
            "claimed": float(claimed[number == i].mean()),
            "right": float(right[number == i].mean()),
            "count": int((number == i).sum()),
        }
        for i in np.unique(number)
    ]
