"""The score of a run as lines of text, and the times of its stages."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .score_figures import Group, Score

_MOST_DIGITS = 6  # of a percentage


def score_table(score: Score) -> str:
    """Return the score as lines of text."""
    lines = [f"{name:<14}  {text}" for name, text in _rows(score)]
    if score.by_state:
        ages = [replace(group, name=f"age {group.name}") for group in score.by_anchor_age]
        lines += ["", *group_lines([*score.by_state, *ages])]
    return "\n".join([*lines, *(f"note: {note}" for note in score.notes)])


def _rows(score: Score) -> Iterator[tuple[str, str]]:
    yield "fixes", f"{score.fixes} of {score.frames} frames ({percent(score.coverage)})"
    if score.reasons:
        yield "without", counted(score.reasons)
    if score.alert_limit_m is not None:
        limit = f"{score.alert_limit_m:g} m"
        yield "available", f"{percent(score.availability)} of the frames (hpl within {limit})"
    yield from error_rows(score)
    yield from trust_rows(score)
    yield from time_rows(score)


def error_rows(score: Score) -> Iterator[tuple[str, str]]:
    """Yield name and text of the errors, none where there is no fix."""
    for name, value in (
        ("median (CEP50)", score.median_m),
        ("R95", score.r95_m),
        ("RMSE", score.rmse_m),
        ("max", score.max_m),
    ):
        if value is not None:
            yield name, f"{value:.1f} m"


def trust_rows(score: Score) -> Iterator[tuple[str, str]]:
    """Yield name and text of what tells how far to trust a fix, none where there is no fix."""
    if score.false_fix_rate is not None:
        limit = "a tile" if score.alert_limit_m is None else f"{score.alert_limit_m:g} m"
        share = percent(score.false_fix_rate)
        yield "false fixes", f"{score.false_fixes} ({share}), farther off than {limit}"
    if score.misleading_rate is not None and score.misleading_interval is not None:
        low, high = map(percent, score.misleading_interval)
        share = percent(score.misleading_rate)
        yield "error > hpl", f"{score.misleading} ({share}; 95 % interval {low} to {high})"
    if score.hazardous_rate is not None:
        share = percent(score.hazardous_rate)
        yield "hazardous", f"{score.hazardous} ({share}), error > {score.alert_limit_m:g} m >= hpl"
    if score.nees is not None and score.nees_interval is not None:
        nees, low, high = map(ratio, (score.nees, *score.nees_interval))
        yield "NEES", f"{nees} (2 is honest, by chance {low} to {high})"
    if score.inside_r95 is not None:
        yield "in 95 % circle", f"{percent(score.inside_r95)} (within 2.448 sigma)"


def time_rows(score: Score) -> Iterator[tuple[str, str]]:
    """Yield name and text of how long things took."""
    if score.duration_s is not None:
        none = "none that is right"
        yield "first fix", none if score.first_fix_s is None else f"{score.first_fix_s:.1f} s"
        for event in score.relocalisations:
            yield "after event", relocalised(event)
        yield "longest outage", outage(score)
    if score.latency_p50_ms is not None and score.latency_p95_ms is not None:
        p50, p95 = score.latency_p50_ms, score.latency_p95_ms
        yield "frame to fix", f"p50 {p50:.1f} ms, p95 {p95:.1f} ms"


def relocalised(event: dict[str, Any]) -> str:
    """Return how an event was got over: `kidnap at 20.0 s: found after 3.4 s`."""
    after = "not found" if event["after_s"] is None else f"found after {event['after_s']:.1f} s"
    return f"{event['event']} at {event['t_s']:.1f} s: {after}"


def outage(score: Score) -> str:
    """Return the longest outage and when it began."""
    if score.longest_outage_s is None:
        return "–"
    text = f"{score.longest_outage_s:.1f} s"
    if score.longest_outage_from_s is not None:
        text += f", from {score.longest_outage_from_s:.1f} s on"
    return text


GROUP_HEADINGS = ("", "fixes", "CEP50 m", "R95 m", "max m", "false", "> hpl", "NEES")


def group_cells(group: Group) -> tuple[str, ...]:
    """Return the cells of a row under `GROUP_HEADINGS`."""
    errors = (f"{value:.1f}" for value in (group.median_m, group.r95_m, group.max_m))
    nees = "–" if group.nees is None else ratio(group.nees)
    counts = str(group.false_fixes), str(group.misleading)
    return group.name, str(group.fixes), *errors, *counts, nees


def group_lines(groups: Sequence[Group]) -> Iterator[str]:
    """Yield the figures of groups as lines, under their headings."""
    for cells in (GROUP_HEADINGS, *map(group_cells, groups)):
        yield f"{cells[0]:<12}" + "".join(f" {cell:>8}" for cell in cells[1:])


def counted(counts: dict[str, int]) -> str:
    """Return counts in words, most first: `30 dark, 2 tilt`."""
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in by_count)


def ratio(value: float) -> str:
    """Return a ratio to a hundredth, and what is beyond all use in short."""
    return f"{value:.2f}" if value < 10_000 else f"{value:.1e}"


def percent(share: float) -> str:
    """Return a share in percent, to a tenth of itself or of what it lacks of all, if that is less.

    What is rare is what counts here: 1 of 18,000 is 0.006 %, not 0.0 %.
    """
    if share in (0.0, 1.0):
        return f"{100 * share:.0f} %"
    digits, off = 1, 10 * min(share, 1 - share)
    while digits < _MOST_DIGITS and abs(round(100 * share, digits) - 100 * share) > off:
        digits += 1
    return f"{100 * share:.{digits}f} %"


def stage_table(stages: Collection[dict[str, float]]) -> str:
    """Return p50 and p95 of each stage's milliseconds as lines of text."""
    names = list(dict.fromkeys(name for times in stages for name in times))
    lines = [f"{'stage':<10} {'p50 ms':>8} {'p95 ms':>8}"]
    for name in names:
        p50, p95 = np.percentile([times[name] for times in stages if name in times], [50, 95])
        lines.append(f"{name:<10} {p50:8.1f} {p95:8.1f}")
    return "\n".join(lines)
