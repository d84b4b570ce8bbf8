"""A flight as it is scored: each frame beside its true position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from ..core.geo import distance_m
from .score_read import ScoredFix
from .score_times import (
    Times,
    first_fix_s,
    frame_period_s,
    longest_outage,
    relocalisations,
    running,
)
from .score_truth import HOLD_S, Truth

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Frames:
    """Frames with a known true position, one entry each (N,); NaN where there is no value.

    Attributes:
        state: names of the states.
        reason: why there is no position, or the state in lower case where nothing says why; empty
            where there is one.
        issued: whether a position was issued.
        error_m: horizontal distance from the true position.
        limit_m: what the error of a right fix stays within; infinite where nothing says.
        sigma_m: one standard deviation per axis, of the positions issued.
        hpl_m: horizontal protection level, of the positions issued.
        anchor_age_s: since the last match.
        latency_ms: from frame to fix.
    """

    state: npt.NDArray[np.str_]
    reason: npt.NDArray[np.str_]
    issued: Mask
    error_m: Floats
    limit_m: Floats
    sigma_m: Floats
    hpl_m: Floats
    anchor_age_s: Floats
    latency_ms: Floats

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.issued)

    @property
    def right(self) -> Mask:
        """Frames whose position is within its limit."""
        return self.issued & (self.error_m <= self.limit_m)

    @property
    def found(self) -> Mask:
        """Frames that end a search: matched, and right."""
        return np.asarray(self.right & (self.state == "TRACK"), bool)

    def where(self, chosen: Mask) -> Frames:
        """Return some of the frames."""
        return Frames(*(values[chosen] for values in vars(self).values()))

    @staticmethod
    def joined(parts: Sequence[Frames]) -> Frames:
        """Return the frames of several flights, one after another."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return Frames(*(np.concatenate(column) for column in columns))


@dataclass(frozen=True)
class Flight:
    """A flight beside its truth.

    Attributes:
        fixes: the N frames with a known true position.
        frames: the same as columns.
        t_s: (N,) seconds, NaN where a frame bears no time.
        true_lat: (N,) degrees.
        true_lon: (N,) degrees.
        alert_limit_m: of the caller, None where a fix is false if it is farther off than a tile.
        times: how long things took.
        notes: what a reader of the figures should know.
    """

    fixes: tuple[ScoredFix, ...]
    frames: Frames
    t_s: Floats
    true_lat: Floats
    true_lon: Floats
    alert_limit_m: float | None
    times: Times
    notes: tuple[str, ...]


def match_flight(
    fixes: Sequence[ScoredFix], truth: Truth, alert_limit_m: float | None = None
) -> Flight:
    """Set each frame beside its true position.

    Args:
        fixes: of one flight, in order.
        truth: of the same flight.
        alert_limit_m: farther off than this a fix is false; None: farther off than the tile that
            matched last.

    Raises:
        InputError: the truth covers none of the frames.
    """
    t_s = _column(fixes, "t")
    told = running(t_s)
    period_s = frame_period_s(t_s[told])
    places = [truth.at(fix.file, fix.t, period_s / 2 or HOLD_S) for fix in fixes]
    covered = np.array([place is not None for place in places], bool)
    if not covered.any():
        raise InputError(
            f"{truth.name}: covers none of the {len(fixes)} frames; its 'file' or 't' column must "
            "match the frames"
        )
    true_lat, true_lon = np.array([place for place in places if place is not None]).T
    kept = tuple(fix for fix, place in zip(fixes, places, strict=True) if place is not None)
    limits_m = _limits_m(fixes, alert_limit_m)[covered]
    frames = _frames(kept, limits_m, true_lat, true_lon)
    times = Times()
    if told.any():
        outage_s, outage_from_s = longest_outage(
            t_s[told], np.isfinite(_column(fixes, "lat"))[told], period_s
        )
        scored = covered & told
        found = frames.found[told[covered]]
        times = Times(
            duration_s=float(np.ptp(t_s[told])) + period_s,
            first_fix_s=first_fix_s(t_s[scored], found),
            longest_outage_s=outage_s,
            longest_outage_from_s=outage_from_s,
            relocalisations=relocalisations(t_s[scored], found, period_s, _events(truth, fixes)),
        )
    notes = _notes(covered, np.isfinite(t_s) & ~told)
    return Flight(kept, frames, t_s[covered], true_lat, true_lon, alert_limit_m, times, notes)


def _column(fixes: Sequence[ScoredFix], name: str) -> Floats:
    values = (getattr(fix, name) for fix in fixes)
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _limits_m(fixes: Sequence[ScoredFix], alert_limit_m: float | None) -> Floats:
    """Return what the error of a right fix stays within, for every frame (N,)."""
    limits_m = np.full(len(fixes), np.inf if alert_limit_m is None else alert_limit_m)
    if alert_limit_m is None:
        last_m = np.inf
        for i, fix in enumerate(fixes):
            # A position that is carried on is held to the match that it comes from, whatever its
            # own frame looks like.
            if fix.state == "TRACK" and fix.level_m is not None:
                last_m = fix.level_m
            limits_m[i] = last_m
    return limits_m


def _frames(
    fixes: Sequence[ScoredFix], limits_m: Floats, true_lat: Floats, true_lon: Floats
) -> Frames:
    lat, lon = _column(fixes, "lat"), _column(fixes, "lon")
    issued = np.isfinite(lat)
    error_m = np.full(len(fixes), np.nan)
    if issued.any():
        error_m[issued] = distance_m(lat[issued], lon[issued], true_lat[issued], true_lon[issued])
    reasons = ["" if fix.place else fix.reason or fix.state.lower() for fix in fixes]
    return Frames(
        state=np.array([fix.state for fix in fixes], np.str_),
        reason=np.array(reasons, np.str_),
        issued=issued,
        error_m=error_m,
        limit_m=limits_m,
        sigma_m=np.where(issued, _column(fixes, "sigma_m"), np.nan),
        hpl_m=np.where(issued, _column(fixes, "hpl_m"), np.nan),
        anchor_age_s=_column(fixes, "anchor_age_s"),
        latency_ms=_column(fixes, "latency_ms"),
    )


def _events(truth: Truth, fixes: Sequence[ScoredFix]) -> list[tuple[str, float]]:
    """Return name and time of the events whose time is known, by time."""
    t_of_file = {fix.file: fix.t for fix in fixes if fix.file is not None}
    file_of_row = {row: file for file, row in truth.row_of_file.items()}
    known = []
    for event in truth.events:
        t = t_of_file.get(file_of_row[event.row]) if truth.t is None else truth.t[event.row]
        if t is not None:
            known.append((event.name, float(t)))
    return sorted(known, key=lambda event: event[1])


def _notes(covered: Mask, backwards: Mask) -> tuple[str, ...]:
    notes = []
    if not covered.all():
        notes.append(
            f"the truth covers {covered.sum()} of {len(covered)} frames; the others are not scored"
        )
    if backwards.any():
        line = int(np.argmax(backwards)) + 1
        notes.append(
            f"t goes back at {backwards.sum()} frames, first on line {line}; their errors count, "
            "their times do not"
        )
    return tuple(notes)
