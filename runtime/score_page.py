"""The page of a score: one HTML file with figures, plots, the map and the worst fixes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

import numpy as np

from ..tilepacks.reader import Pack
from .score_figures import Group, Score, score_flight
from .score_flight import Flight
from .score_html import PAGE_STYLE, definitions, dot, legend, table
from .score_map import Map, draw_map
from .score_plots import error_plot, stanford_plot
from .score_table import (
    GROUP_HEADINGS,
    error_rows,
    group_cells,
    percent,
    ratio,
    time_rows,
    trust_rows,
)

_NONE = "–"  # where there is nothing to show
_WORST = 10
_APART_S = 5.0  # of the worst fixes, so that one bad stretch does not fill the table
_APART_FRAMES = 5  # where they bear no times


def render_page(flight: Flight, fixes: str, truth: str, pack: Pack | None) -> str:
    """Return the page as HTML that loads nothing from elsewhere; the same for the same input.

    Args:
        flight: of `match_flight`.
        fixes: name of the fixes file.
        truth: name of the truth file.
        pack: whose imagery is the map's background.

    Raises:
        InputError: the flight lies wholly outside the pack.
        IntegrityError: the pack's imagery is damaged.
    """
    score, worst = score_flight(flight), worst_fixes(flight)
    parts = [
        *_head(score, fixes, truth),
        *_cards(score),
        *_error_section(flight, score),
        *_map_section(flight, draw_map(flight, pack, worst)),
        *_stanford_section(flight, score),
        *_tables(score),
        *_worst_table(flight, worst),
        "<h2>All figures</h2>",
        *definitions([*_counts(score), *error_rows(score), *trust_rows(score), *time_rows(score)]),
        '<p class="faint">Every figure is defined in docs/scoring.md of s4g.</p>',
        "</body>",
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def worst_fixes(flight: Flight) -> list[int]:
    """Return the rows of the worst fixes, worst first, none close in time to a worse one."""
    chosen: list[int] = []
    t_s, error_m = flight.t_s, flight.frames.error_m
    for row in np.argsort(-error_m, kind="stable").tolist():  # those without an error come last
        if len(chosen) == _WORST or not np.isfinite(error_m[row]):
            break
        near = (
            abs(t_s[row] - t_s[other]) < _APART_S
            if np.isfinite(t_s[[row, other]]).all()
            else abs(row - other) < _APART_FRAMES
            for other in chosen
        )
        if not any(near):
            chosen.append(row)
    return chosen


def _head(score: Score, fixes: str, truth: str) -> Iterator[str]:
    yield f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Score · {escape(fixes)}</title>
<style>{PAGE_STYLE}</style>
</head>
<body>
<h1>Score of {escape(fixes)}</h1>"""
    lasted = "" if score.duration_s is None else f", {score.duration_s:.1f} s"
    frames = "1 frame" if score.frames == 1 else f"{score.frames} frames"
    yield f"<p>{frames}{lasted}, against <code>{escape(truth)}</code></p>"
    for note in score.notes:
        yield f'<p class="note">{escape(note)}</p>'


def _cards(score: Score) -> Iterator[str]:
    def value_of(value: float | None, unit: str) -> str:
        return _NONE if value is None else f"{value:.1f} {unit}"

    limit = "a tile" if score.alert_limit_m is None else f"{score.alert_limit_m:g} m"
    cards = [
        ("availability", percent(score.availability), False),
        ("CEP50", value_of(score.median_m, "m"), False),
        ("R95", value_of(score.r95_m, "m"), False),
        ("RMSE", value_of(score.rmse_m, "m"), False),
        ("largest error", value_of(score.max_m, "m"), False),
        (f"farther off than {limit}", str(score.false_fixes), score.false_fixes > 0),
        ("error > HPL", str(score.misleading), score.misleading > 0),
        ("NEES, 2 is honest", _NONE if score.nees is None else ratio(score.nees), False),
        ("first fix", value_of(score.first_fix_s, "s"), False),
        ("longest outage", value_of(score.longest_outage_s, "s"), False),
    ]
    yield '<div class="figures">'
    for name, value, bad in cards:
        yield f"<div{' class=bad' if bad else ''}><b>{value}</b>{name}</div>"
    yield "</div>"


def _error_section(flight: Flight, score: Score) -> Iterator[str]:
    yield "<h2>Error over time</h2>"
    yield error_plot(flight)
    yield from legend(
        *_states(score),
        ('<path class="line hpl" d="M0 5H32"/>', "protection level"),
        ('<path class="line r95" d="M0 5H32"/>', "95 % radius, 2.448 sigma"),
        *_limit_entry(flight),
        ('<path class="none" d="M0 0H32V10H0z"/>', "no position"),
    )


def _stanford_section(flight: Flight, score: Score) -> Iterator[str]:
    yield "<h2>Error against protection level (Stanford plot)</h2>"
    if not np.isfinite(flight.frames.hpl_m[flight.frames.issued]).any():
        yield "<p>No fix bears a protection level.</p>"
        return
    yield '<div class="side"><div>'
    yield stanford_plot(flight)
    yield from legend(
        *_states(score),
        ('<path class="line diagonal" d="M0 5H32"/>', "error = HPL"),
        *_limit_entry(flight),
    )
    yield "</div><div>"
    yield (
        "<p>Right of the diagonal a fix is farther off than its own protection level: misleading. "
        "It is hazardous where it is beyond the alert limit and its protection level is not.</p>"
    )
    yield from definitions(trust_rows(score))
    yield "</div></div>"


def _map_section(flight: Flight, drawn: Map) -> Iterator[str]:
    yield "<h2>Map</h2>"
    yield drawn.svg
    bar = f"{drawn.bar_m / 1000:g} km" if drawn.bar_m >= 1000 else f"{drawn.bar_m:g} m"
    yield f'<div class="bar" style="width: {100 * drawn.bar_share:.2f}%"></div>'
    frames = flight.frames
    entries = [(dot(state), state) for state in _issued_states(frames.state[frames.issued])]
    entries.append(('<path class="truth" d="M0 5H32"/>', "true path"))
    if not frames.issued.all():
        entries.append((dot("missed"), "true, no position"))
    entries.append(('<path class="join" d="M0 5H32"/>', "error of a false fix or a worst one"))
    yield f"<p>{bar}, north is up.</p>"
    yield from legend(*entries, kind="map")
    every = "every fix" if drawn.every == 1 else f"one fix in {drawn.every}"
    facts = [f"Circles hold 95 %, drawn of {every}."]
    if drawn.beyond:
        facts.append(f"{drawn.beyond} fixes lie beyond the map.")
    if drawn.credit:
        facts.append(f"Imagery: {escape(drawn.credit)}.")
    yield f'<p class="faint">{" ".join(facts)}</p>'


def _tables(score: Score) -> Iterator[str]:
    yield '<div class="side">'
    if score.by_state:
        yield "<div><h2>By state</h2>"
        yield from _groups("state", score.by_state)
        yield "</div>"
    if score.by_anchor_age:
        yield "<div><h2>By time since the last match</h2>"
        yield from _groups("age", score.by_anchor_age)
        yield "</div>"
    if score.reasons:
        missing = score.frames - score.fixes
        yield "<div><h2>Frames without a position</h2>"
        by_count = sorted(score.reasons.items(), key=lambda item: (-item[1], item[0]))
        rows = [(n.replace("_", " "), str(c), percent(c / score.frames)) for n, c in by_count]
        whole = ("all", str(missing), percent(missing / score.frames))
        yield from table(("reason", "frames", "share"), [*rows, whole])
        yield "</div>"
    if score.relocalisations:
        yield "<div><h2>After events</h2>"
        rows = [
            (event["event"], f"{event['t_s']:.1f}", _number(event["after_s"], 1))
            for event in score.relocalisations
        ]
        yield from table(("event", "at, s", "found after, s"), rows)
        yield "</div>"
    yield "</div>"


def _groups(name: str, groups: Iterable[Group]) -> Iterator[str]:
    yield from table((name, *GROUP_HEADINGS[1:]), [group_cells(group) for group in groups])


def _worst_table(flight: Flight, worst: Sequence[int]) -> Iterator[str]:
    if not worst:
        return
    yield "<h2>Worst fixes</h2>"
    yield f'<p class="faint">At most one in {_APART_S:g} s.</p>'
    headings = (
        "frame", "t, s", "state", "error, m", "sigma, m", "error / sigma", "HPL, m", "age, s",
        "score", "lat", "lon",
    )  # fmt: skip
    rows = []
    for row in worst:
        fix, error_m = flight.fixes[row], float(flight.frames.error_m[row])
        in_sigmas = None if fix.sigma_m is None else error_m / fix.sigma_m
        numbers = ((fix.sigma_m, 1), (in_sigmas, 1), (fix.hpl_m, 1), (fix.anchor_age_s, 1))
        more = ((fix.score, 3), (fix.lat, 6), (fix.lon, 6))
        rows.append((
            fix.file or str(fix.frame), _number(fix.t, 2), fix.state, f"{error_m:.1f}",
            *(_number(value, digits) for value, digits in (*numbers, *more)),
        ))  # fmt: skip
    yield from table(headings, rows)


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def _counts(score: Score) -> Iterator[tuple[str, str]]:
    yield "fixes", f"{score.fixes} of {score.frames} frames ({percent(score.coverage)})"
    yield "states", ", ".join(f"{count} {state}" for state, count in score.states.items())


def _issued_states(states: Iterable[str]) -> list[str]:
    return sorted(set(map(str, states)), reverse=True)


def _states(score: Score) -> list[tuple[str, str]]:
    return [(dot(group.name), group.name) for group in score.by_state]


def _limit_entry(flight: Flight) -> list[tuple[str, str]]:
    if flight.alert_limit_m is None:
        return []
    return [('<path class="line limit" d="M0 5H32"/>', f"alert limit {flight.alert_limit_m:g} m")]
