"""The figures of a score: accuracy, availability, integrity, honesty of sigma (docs/scoring.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .score_flight import Flight, Frames
from .score_statistics import R95_PER_SIGMA, honest_nees, share_interval
from .score_times import Times

Floats = npt.NDArray[np.float64]

# Seconds since the last match that are told apart; the first group was matched in the frame itself.
_AGES_S = (0.0, 1.0, 3.0, 10.0, 30.0)
_DIGITS = {"_m": 3, "_s": 3, "_ms": 3}  # of a figure's unit; shares and ratios have more
_SHARE_DIGITS = 6


@dataclass(frozen=True)
class Group:
    """Figures of some of the fixes; see `Score`.

    Attributes:
        name: the state, or the age of the last match.
    """

    name: str
    fixes: int
    median_m: float
    r95_m: float
    max_m: float
    false_fixes: int
    misleading: int
    nees: float | None


@dataclass(frozen=True)
class Score:
    """How good a run was; errors are horizontal, in metres, over the fixes issued.

    None stands where there is nothing to count: no fix, no sigma, no time, no alert limit.

    Attributes:
        frames: frames with a known true position.
        fixes: frames among them that got a position.
        coverage: share of the frames that got a position.
        availability: share of the frames that got one with `hpl_m` within the alert limit; without
            an alert limit the coverage.
        alert_limit_m: of the caller.
        states: frames per state.
        reasons: frames without a position, per reason.
        median_m: half of the fixes are closer (CEP50).
        r95_m: 95 % of the fixes are closer.
        rmse_m: root mean square.
        max_m: the worst.
        false_fixes: fixes beyond the alert limit, or else farther off than the tile that matched.
        false_fix_rate: their share of the fixes.
        misleading: fixes farther off than their own `hpl_m`.
        misleading_rate: their share of the fixes that have one.
        misleading_interval: its 95 % interval, of independent fixes.
        hazardous: fixes farther off than the alert limit whose `hpl_m` is within it.
        hazardous_rate: their share of the fixes that have a `hpl_m`.
        nees: mean of (error / sigma)^2; 2 is honest, more says that sigma is too small.
        nees_interval: 95 % interval of honest sigmas, of independent fixes.
        inside_r95: share of the fixes within 2.448 sigma; 0.95 is honest.
        duration_s: of the flight.
        first_fix_s: to the first right fix in TRACK.
        longest_outage_s: the longest time without a position.
        longest_outage_from_s: when it began.
        relocalisations: event, `t_s` and `after_s` to the first right fix in TRACK.
        by_state: figures of the fixes of each state.
        by_anchor_age: figures by the time since the last match.
        latency_p50_ms: median time from frame to fix.
        latency_p95_ms: 95 % of the frames were faster.
        notes: what a reader of the figures should know.
    """

    frames: int
    fixes: int
    coverage: float
    availability: float
    alert_limit_m: float | None
    states: dict[str, int]
    reasons: dict[str, int]
    median_m: float | None
    r95_m: float | None
    rmse_m: float | None
    max_m: float | None
    false_fixes: int
    false_fix_rate: float | None
    misleading: int
    misleading_rate: float | None
    misleading_interval: tuple[float, float] | None
    hazardous: int | None
    hazardous_rate: float | None
    nees: float | None
    nees_interval: tuple[float, float] | None
    inside_r95: float | None
    duration_s: float | None
    first_fix_s: float | None
    longest_outage_s: float | None
    longest_outage_from_s: float | None
    relocalisations: tuple[dict[str, Any], ...]
    by_state: tuple[Group, ...]
    by_anchor_age: tuple[Group, ...]
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the score for `--json`."""
        return {name: _rounded(name, value) for name, value in asdict(self).items()}


def _rounded(name: str, value: Any) -> Any:
    if isinstance(value, float):
        digits = next((d for unit, d in _DIGITS.items() if name.endswith(unit)), _SHARE_DIGITS)
        return round(value, digits)
    if isinstance(value, dict):
        return {key: _rounded(key, item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_rounded(name, item) for item in value]
    return value


def score_flight(flight: Flight) -> Score:
    """Return the figures of a flight."""
    return score_frames(flight.frames, flight.times, flight.alert_limit_m, flight.notes)


def score_frames(
    frames: Frames, times: Times, alert_limit_m: float | None, notes: Sequence[str] = ()
) -> Score:
    """Return the figures of frames, of one flight or of several."""
    fixes = frames.where(frames.issued)
    bounded = np.isfinite(fixes.hpl_m)
    misleading = int((fixes.error_m > fixes.hpl_m).sum())
    with_sigma = int(np.isfinite(fixes.sigma_m).sum())
    figures = main_figures(frames, alert_limit_m)
    hazardous = None
    if alert_limit_m is not None:
        beyond = fixes.error_m > alert_limit_m
        hazardous = int((beyond & (fixes.hpl_m <= alert_limit_m)).sum())
    latency_ms = frames.latency_ms[np.isfinite(frames.latency_ms)]
    return Score(
        frames=len(frames),
        fixes=len(fixes),
        coverage=len(fixes) / len(frames),
        availability=figures["availability"],
        alert_limit_m=alert_limit_m,
        states=_counts(frames.state),
        reasons=_counts(frames.reason[~frames.issued]),
        median_m=figures.get("median_m"),
        r95_m=figures.get("r95_m"),
        rmse_m=figures.get("rmse_m"),
        max_m=float(fixes.error_m.max()) if len(fixes) else None,
        false_fixes=int((~fixes.right).sum()),
        false_fix_rate=figures.get("false_fix_rate"),
        misleading=misleading,
        misleading_rate=figures.get("misleading_rate"),
        misleading_interval=(
            share_interval(misleading, int(bounded.sum())) if bounded.any() else None
        ),
        hazardous=hazardous,
        hazardous_rate=(
            hazardous / int(bounded.sum()) if hazardous is not None and bounded.any() else None
        ),
        nees=figures.get("nees"),
        nees_interval=honest_nees(with_sigma) if with_sigma else None,
        inside_r95=figures.get("inside_r95"),
        duration_s=times.duration_s,
        first_fix_s=times.first_fix_s,
        longest_outage_s=times.longest_outage_s,
        longest_outage_from_s=times.longest_outage_from_s,
        relocalisations=tuple(asdict(event) for event in times.relocalisations),
        by_state=tuple(
            _group(state, fixes.where(fixes.state == state))
            for state in sorted(set(fixes.state.tolist()), reverse=True)
        ),
        by_anchor_age=tuple(_by_age(fixes)),
        latency_p50_ms=float(np.percentile(latency_ms, 50)) if len(latency_ms) else None,
        latency_p95_ms=float(np.percentile(latency_ms, 95)) if len(latency_ms) else None,
        notes=tuple(notes),
    )


def main_figures(frames: Frames, alert_limit_m: float | None) -> dict[str, float]:
    """Return the figures that are worth an interval, by name; those that do not exist are absent.

    Percentiles are interpolated between neighbours.
    """
    fixes = frames.where(frames.issued)
    available = len(fixes)
    if alert_limit_m is not None:
        available = int((fixes.hpl_m <= alert_limit_m).sum())
    figures = {"availability": available / len(frames)}
    if not len(fixes):
        return figures
    error_m = fixes.error_m
    figures |= {
        "median_m": float(np.median(error_m)),
        "r95_m": float(np.percentile(error_m, 95)),
        "rmse_m": float(np.sqrt((error_m**2).mean())),
        "false_fix_rate": float((~fixes.right).mean()),
    }
    if (bounded := np.isfinite(fixes.hpl_m)).any():
        figures["misleading_rate"] = float((error_m > fixes.hpl_m)[bounded].mean())
    if (ratio := error_m / fixes.sigma_m)[np.isfinite(ratio)].size:
        figures["nees"] = float(np.nanmean(ratio**2))
        figures["inside_r95"] = float((ratio <= R95_PER_SIGMA)[np.isfinite(ratio)].mean())
    return figures


def _by_age(fixes: Frames) -> Iterator[Group]:
    """Yield the figures of each span of ages that has fixes."""
    between = [f"{low:g}–{high:g} s" for low, high in pairwise(_AGES_S)]
    names = [f"{_AGES_S[0]:g} s", *between, f"> {_AGES_S[-1]:g} s"]
    # An age on an edge belongs to the younger side.
    span = np.searchsorted(_AGES_S, fixes.anchor_age_s, side="left")
    for number, name in enumerate(names):
        chosen = (span == number) & np.isfinite(fixes.anchor_age_s)
        if chosen.any():
            yield _group(name, fixes.where(chosen))


def _group(name: str, fixes: Frames) -> Group:
    figures = main_figures(fixes, None)
    return Group(
        name=name,
        fixes=len(fixes),
        median_m=figures["median_m"],
        r95_m=figures["r95_m"],
        max_m=float(fixes.error_m.max()),
        false_fixes=int((~fixes.right).sum()),
        misleading=int((fixes.error_m > fixes.hpl_m).sum()),
        nees=figures.get("nees"),
    )


def _counts(names: npt.NDArray[np.str_]) -> dict[str, int]:
    found, counts = np.unique(names, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))
