"""The figures of several flights together, with intervals that draw flights, not frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .score_figures import Score, main_figures, score_frames
from .score_flight import Flight, Frames
from .score_times import Times

_RESAMPLES = 1000
_SEED = 2023


@dataclass(frozen=True)
class Pool:
    """Several flights together.

    Attributes:
        score: of all frames, so that a flight weighs as its frames do. Of the times, the first fix
            is the median over flights (None where half of them have none), the longest outage
            that of the worst flight (its beginning None), the duration their sum.
        intervals: 95 % bootstrap intervals over flights (percentile method), by the name of the
            figure in `Score`; none for fewer than two flights.
    """

    score: Score
    intervals: dict[str, tuple[float, float]]


def pool_flights(flights: Sequence[Flight], resamples: int = _RESAMPLES) -> Pool:
    """Score flights together; the same input gives the same intervals.

    Frames of one flight fail together: drawing them one by one would make the intervals several
    times too narrow.

    Args:
        flights: at least one, all with the same alert limit.
        resamples: draws of as many flights as there are.
    """
    limits_m = {flight.alert_limit_m for flight in flights}
    assert len(limits_m) == 1, "flights of one alert limit"
    (limit_m,) = limits_m
    parts = [flight.frames for flight in flights]
    notes = [note for flight in flights for note in flight.notes]
    score = score_frames(Frames.joined(parts), _together(flights), limit_m, notes)
    drawn: dict[str, list[float]] = {}
    rng = np.random.default_rng(_SEED)
    for _ in range(resamples if len(parts) > 1 else 0):
        chosen = rng.integers(0, len(parts), len(parts))
        figures = main_figures(Frames.joined([parts[i] for i in chosen]), limit_m)
        for name, value in figures.items():
            drawn.setdefault(name, []).append(value)
    intervals = {}
    for name, values in drawn.items():
        low, high = np.percentile(values, [2.5, 97.5])
        intervals[name] = (float(low), float(high))
    return Pool(score, intervals)


def _together(flights: Sequence[Flight]) -> Times:
    timed = [flight.times for flight in flights if flight.times.duration_s is not None]
    if not timed:
        return Times()
    first_s = float(np.median([np.inf if t.first_fix_s is None else t.first_fix_s for t in timed]))
    return Times(
        duration_s=sum(t.duration_s or 0.0 for t in timed),
        first_fix_s=first_s if np.isfinite(first_s) else None,
        longest_outage_s=max(t.longest_outage_s or 0.0 for t in timed),
        relocalisations=tuple(event for t in timed for event in t.relocalisations),
    )
