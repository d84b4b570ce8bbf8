"""How long a flight took to be found, to be found again, and went without a position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_CLOCK_S = 1e-6  # times in files are rounded to this


@dataclass(frozen=True)
class Relocalisation:
    """How an event of the truth was got over.

    Attributes:
        event: in the words of the file.
        t_s: when it was.
        after_s: from then to the first right fix in TRACK; None where there was none before the
            next event or the end.
    """

    event: str
    t_s: float
    after_s: float | None


@dataclass(frozen=True)
class Times:
    """How long things took; None where the frames bear no times.

    Attributes:
        duration_s: from the first frame to the last, and a frame period.
        first_fix_s: to the first right fix in TRACK, None also where there was none.
        longest_outage_s: longest time between two positions less a frame period, also to the end.
        longest_outage_from_s: when it began, None also where there was none.
        relocalisations: of the events within the flight.
    """

    duration_s: float | None = None
    first_fix_s: float | None = None
    longest_outage_s: float | None = None
    longest_outage_from_s: float | None = None
    relocalisations: tuple[Relocalisation, ...] = ()


def running(t_s: Floats) -> Mask:
    """Return the frames (N,) that tell the time: not those of which one before was later.

    Args:
        t_s: (N,) seconds, NaN where a frame bears no time.
    """
    return t_s >= np.fmax.accumulate(t_s) if len(t_s) else np.zeros(0, bool)


def frame_period_s(t_s: Floats) -> float:
    """Return the median step of times that do not go back, 0 where there is none."""
    steps = np.diff(t_s)
    return float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0


def first_fix_s(t_s: Floats, found: Mask) -> float | None:
    """Return the time from the first frame to the first that is `found`, both (N,)."""
    return float(t_s[found][0] - t_s[0]) if found.any() else None


def longest_outage(t_s: Floats, issued: Mask, period_s: float) -> tuple[float, float | None]:
    """Return how long the longest time without a new position was, and when it began, if it did.

    Before the first position there is nothing to lose, unless none comes at all.

    Args:
        t_s: (N,) seconds, not going back, N > 0.
        issued: (N,) which frames got a position.
        period_s: between frames: one missing frame is an outage of this length.
    """
    end_s = float(t_s[-1]) + period_s
    if not issued.any():
        return end_s - float(t_s[0]), float(t_s[0])
    had_s = np.append(t_s[issued], end_s)
    gaps_s = np.diff(had_s) - period_s
    worst = int(np.argmax(gaps_s))
    if gaps_s[worst] <= _CLOCK_S:
        return 0.0, None
    return float(gaps_s[worst]), float(had_s[worst]) + period_s


def relocalisations(
    t_s: Floats, found: Mask, period_s: float, events: Sequence[tuple[str, float]]
) -> tuple[Relocalisation, ...]:
    """Return how each event within the flight was got over.

    Args:
        t_s: (N,) seconds, not going back.
        found: (N,) frames with a right fix in TRACK.
        period_s: between frames: an event may come so much before the first.
        events: names and times, by time.
    """
    if not len(t_s):
        return ()
    within = [(n, t) for n, t in events if t_s[0] - period_s <= t <= t_s[-1] + _CLOCK_S]
    got_over = []
    for number, (name, start_s) in enumerate(within, 1):
        end_s = within[number][1] if number < len(within) else np.inf
        later_s = t_s[found & (t_s >= start_s - _CLOCK_S) & (t_s < end_s - _CLOCK_S)]
        after_s = max(float(later_s[0]) - start_s, 0.0) if len(later_s) else None
        got_over.append(Relocalisation(name, start_s, after_s))
    return tuple(got_over)
