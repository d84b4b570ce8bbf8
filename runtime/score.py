"""Scoring fixes against the truth: what commands and benchmarks use of it (docs/scoring.md)."""

from __future__ import annotations

from collections.abc import Sequence

from .score_figures import Score, score_flight
from .score_flight import Flight, match_flight
from .score_pool import Pool, pool_flights
from .score_read import ScoredFix, parse_fix, read_fixes
from .score_table import score_table, stage_table
from .score_truth import Truth, read_truth

__all__ = [
    "Flight",
    "Pool",
    "Score",
    "ScoredFix",
    "Truth",
    "match_flight",
    "parse_fix",
    "pool_flights",
    "read_fixes",
    "read_truth",
    "score_fixes",
    "score_flight",
    "score_table",
    "stage_table",
]


def score_fixes(
    fixes: Sequence[ScoredFix], truth: Truth, alert_limit_m: float | None = None
) -> Score:
    """Score the fixes of one flight against its truth; see `match_flight` and `Score`.

    Raises:
        InputError: the truth covers none of the frames.
    """
    return score_flight(match_flight(fixes, truth, alert_limit_m))
