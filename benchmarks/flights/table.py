"""The results as Markdown and JSON: a row for each scenario and way, and all flights together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from scenario import Scenario

from s4g.runtime.score import Flight, Score, pool_flights, score_flight
from s4g.runtime.score_table import percent

HEADINGS = (
    "scenario", "way", "fixes", "available", "CEP50 m", "R95 m", "false", "> HPL", "first fix s",
    "outage s", "ms",
)  # fmt: skip
_LEFT = 2  # columns of words
_NONE = "–"
_BASELINE, _PRODUCT = "top1", "filtered"


@dataclass(frozen=True)
class Result:
    """What came of one way in one scenario."""

    scenario: Scenario
    way: str
    flight: Flight

    @property
    def score(self) -> Score:
        """Its figures."""
        return score_flight(self.flight)


def markdown(results: list[Result], skipped: dict[str, str]) -> str:
    """Return the table, what all flights give together, and what was left out and why."""
    rows = [HEADINGS, *(_row(result) for result in results)]
    parts = ["\n".join(_lines(rows)), *_events(results), *_together(results), *_verdicts(results)]
    parts += [f"Left out: {name}: {reason}" for name, reason in skipped.items()]
    return "\n\n".join(parts) + "\n"


def to_json(results: list[Result], skipped: dict[str, str], about: dict[str, Any]) -> Any:
    """Return all figures for programs."""
    found: dict[str, Any] = {}
    for result in results:
        found.setdefault(result.scenario.name, {})[result.way] = result.score.to_dict()
    return {**about, "scenarios": found, "left_out": skipped}


def _row(result: Result) -> tuple[str, ...]:
    scenario, score = result.scenario, result.score
    title = f"{scenario.title} ({scenario.alert_limit_m:g} m)"
    return title, result.way, *_figures(score)


def _figures(score: Score) -> tuple[str, ...]:
    bounded = score.misleading_rate is not None
    return (
        percent(score.coverage),
        percent(score.availability) if bounded else _NONE,
        _number(score.median_m),
        _number(score.r95_m),
        _rate(score.false_fixes, score.false_fix_rate),
        _rate(score.misleading, score.misleading_rate),
        _number(score.first_fix_s),
        _number(score.longest_outage_s),
        _number(score.latency_p50_ms),
    )


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1f}"


def _rate(count: int, share: float | None) -> str:
    return _NONE if share is None else f"{count} ({percent(share)})"


def _lines(rows: list[tuple[str, ...]]) -> Iterator[str]:
    for number, cells in enumerate(rows):
        yield "| " + " | ".join(cells) + " |"
        if number == 0:
            yield "|" + "---|" * _LEFT + "---:|" * (len(cells) - _LEFT)


def _events(results: list[Result]) -> Iterator[str]:
    """Yield how long finding again took, where finding began anew."""
    rows = [
        (result.scenario.title, result.way, event["event"], _number(event["after_s"]))
        for result in results
        for event in result.score.relocalisations
    ]
    if rows:
        yield "\n".join(_lines([("scenario", "way", "event", "right again after s"), *rows]))


def _together(results: list[Result]) -> Iterator[str]:
    """Yield the figures of all flights that share an alert limit, with intervals over flights."""
    limits_m = sorted({result.scenario.alert_limit_m for result in results})
    rows = []
    for limit_m in limits_m:
        for way in dict.fromkeys(result.way for result in results):
            flights = [
                result.flight
                for result in results
                if result.way == way and result.scenario.alert_limit_m == limit_m
            ]
            if len(flights) > 1:
                pool = pool_flights(flights)
                title = f"all {len(flights)} with {limit_m:g} m"
                rows.append((title, way, *_figures(pool.score)))
    if rows:
        yield "\n".join(_lines([HEADINGS, *rows]))


def _verdicts(results: list[Result]) -> Iterator[str]:
    """Yield how the product stands to what is wanted of it."""
    by_way = {(result.scenario.name, result.way): result for result in results}
    both = [
        (by_way[name, _PRODUCT], by_way[name, _BASELINE])
        for name in dict.fromkeys(result.scenario.name for result in results)
        if (name, _PRODUCT) in by_way and (name, _BASELINE) in by_way
    ]
    if not both:
        return
    missed = [ours.scenario.title for ours, theirs in both if not _is_half(ours, theirs)]
    yield _verdict(f"CEP50 of `{_PRODUCT}` at most half of that of `{_BASELINE}`", both, missed)
    beyond = [f"{ours.scenario.title} ({ours.score.misleading})" for ours, _ in both
              if ours.score.misleading]  # fmt: skip
    yield _verdict(f"no fix of `{_PRODUCT}` beyond its HPL", both, beyond)
    false = [f"{ours.scenario.title} ({ours.score.false_fixes})" for ours, _ in both
             if ours.score.false_fixes]  # fmt: skip
    yield _verdict(f"no false fix of `{_PRODUCT}`", both, false)


def _is_half(ours: Result, theirs: Result) -> bool:
    mine, other = ours.score.median_m, theirs.score.median_m
    return mine is not None and other is not None and mine <= other / 2


def _verdict(wanted: str, both: list[Any], missed: Iterable[str]) -> str:
    failed = list(missed)
    text = f"{wanted[0].upper()}{wanted[1:]}: in {len(both) - len(failed)} of {len(both)} scenarios"
    return text + (f"; not in {', '.join(failed)}." if failed else ".")
