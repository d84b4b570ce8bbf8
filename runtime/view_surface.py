"""Where a frame fits, as points for the live map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.geo import LocalFrame
from ..core.spec import EncoderSpec
from .locate import KERNEL_SHARE, joint_weights, tile_probabilities

if TYPE_CHECKING:
    from .localise import Finding

_MOST_POINTS = 120
_LEAST_SHARE = 0.02  # of the likeliest, for a point to be seen at all


def score_surface(frame: LocalFrame, finding: Finding, spec: EncoderSpec) -> dict[str, Any] | None:
    """Return the places of the drone that a frame's tiles imply, the likeliest first.

    Args:
        frame: of the pack.
        finding: of a frame.
        spec: contract of the encoder.

    Returns:
        `kernel_m`, the standard deviation to draw each point with, and `points`: latitude,
        longitude, and the probability by `locate.joint_weights` as a share of the likeliest. None
        where nothing was matched.
    """
    evidence, plan = finding.evidence, finding.plan
    if evidence is None or plan is None:
        return None
    positions = evidence.tiles_m - evidence.offsets_m[:, None, :]
    logits = evidence.scores.astype(np.float64) / spec.temperature
    own = tile_probabilities(logits, spec.unknown_score / spec.temperature)
    # A search near a place fills up with tiles of cosine -1, which are none.
    weights = np.where(evidence.scores > -1, joint_weights(positions, own, plan.footprint_m), 0.0)
    flat = weights.ravel()
    order = np.argsort(-flat, kind="stable")[:_MOST_POINTS]
    shares = flat[order] / max(float(flat.max()), 1e-300)
    order, shares = order[shares >= _LEAST_SHARE], shares[shares >= _LEAST_SHARE]
    lat, lon = frame.to_wgs84(*positions.reshape(-1, 2)[order].T)
    points = zip(lat.tolist(), lon.tolist(), shares.tolist(), strict=True)
    return {
        "kernel_m": round(KERNEL_SHARE * plan.footprint_m, 2),
        "points": [[round(a, 6), round(o, 6), round(s, 3)] for a, o, s in points],
    }
