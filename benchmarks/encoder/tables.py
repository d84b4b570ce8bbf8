"""The results as Markdown tables, one a figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Results = dict[str, dict[str, Any]]  # condition, method

FIGURES = {
    "recall_at_1": ("Best tile within half a footprint (R@1), %", 100.0, 1),
    "recall_at_5": ("One of the best five within half a footprint (R@5), %", 100.0, 1),
    "median_m": ("Median distance of the best tile, m", 1.0, 1),
    "auc_right": ("AUC, right against wrong answers: by score", 1.0, 3),
    "auc_right_claimed": ("AUC, right against wrong answers: by probability", 1.0, 3),
    "auc_far": ("AUC, right answers against those over a footprint off: by score", 1.0, 3),
    "auc_foreign": ("AUC, known against foreign ground: by score", 1.0, 3),
    "auc_foreign_claimed": ("AUC, known against foreign ground: by probability", 1.0, 3),
    "auc_left_out": ("AUC, with against without the query's own ground: by score", 1.0, 3),
}
CALIBRATION = {
    "error_known": "Calibration error of the answers, %",
    "error_with_foreign": "Calibration error, foreign ground included, %",
    "foreign_below_unknown": "Foreign queries below the unknown score, %",
    "known_below_unknown": "Known queries below the unknown score, %",
}
# Of a whole frame: key, title, scale, digits.
FRAMES = (
    ("right", "right, %", 100.0, 1),
    ("auc_right", "AUC, right against wrong", 1.0, 3),
    ("issued", "with a fix, %", 100.0, 1),
    ("false", "fixes over a footprint off, %", 100.0, 1),
    ("foreign_issued", "foreign frames with a fix, %", 100.0, 1),
    ("refused", "refused unmatched, %", 100.0, 1),
)
_INTERVALS = "95 % intervals in brackets, from a bootstrap over clusters."
# Marks ground that the recipe trains on.
_SEEN = " (trained ground)"


def report(results: Results, about: dict[str, dict[str, Any]], methods: dict[str, str]) -> str:
    """Return all tables.

    Args:
        results: of each condition and method, as `evaluate.summary` returns them.
        about: of each condition: `about`, `seen`.
        methods: what each method is.
    """
    lines = [f"- **{name}**: {text}" for name, text in methods.items()]
    lines += ["", *_conditions(results, about)]
    for key, (title, scale, digits) in FIGURES.items():
        lines += ["", f"### {title}", "", _INTERVALS, ""]
        lines += _table(results, about, list(methods), _figure_cell(key, scale, digits))
    asked = [
        name
        for name in methods
        if any("calibration" in of.get(name, {}) for of in results.values())
    ]
    for key, title in CALIBRATION.items() if asked else ():
        lines += ["", f"### {title}", ""]
        lines += _table(results, about, asked, _calibration_cell(key))
    for name in methods:
        lines += _frames(results, about, name)
    return "\n".join(lines) + "\n"


def _frames(results: Results, about: dict[str, dict[str, Any]], method: str) -> list[str]:
    """Return the table of one method's whole frames; nothing where it flew none."""
    rows = []
    for name, of in results.items():
        frames = of.get(method, {}).get("frames")
        if frames is None:
            continue
        counts = f"{frames['count']} ({frames['clusters']}), {frames['foreign']}"
        cells = [_value(frames["figures"][key], scale, digits) for key, _, scale, digits in FRAMES]
        rows.append("| " + " | ".join([_name(name, about), counts, *cells]) + " |")
    if not rows:
        return []
    titles = ["condition", "frames (clusters), foreign", *(title for _, title, *_ in FRAMES)]
    lines = ["", f"### Whole frame, as flown: {method}", "", _INTERVALS, ""]
    return [*lines, "| " + " | ".join(titles) + " |", "|---" * len(titles) + "|", *rows]


def _conditions(results: Results, about: dict[str, dict[str, Any]]) -> list[str]:
    lines = ["| condition | what | tiles | queries (clusters) | foreign |", "|---|---|---|---|---|"]
    for name, of in results.items():
        most = max(of.values(), key=lambda result: result["queries"])
        lines.append(
            f"| {_name(name, about)} | {about[name]['about']} | {most['tiles']} | "
            f"{most['queries']} ({most['clusters']}) | {most['foreign']} |"
        )
    return lines


def _name(condition: str, about: dict[str, dict[str, Any]]) -> str:
    return condition + (_SEEN if about[condition]["seen"] else "")


def _table(
    results: Results,
    about: dict[str, dict[str, Any]],
    methods: list[str],
    cell: Callable[[dict[str, Any], int], str],
) -> list[str]:
    lines = ["| condition | " + " | ".join(methods) + " |", "|---" * (1 + len(methods)) + "|"]
    for name, of in results.items():
        most = max(result["queries"] for result in of.values())
        cells = [cell(of[method], most) if method in of else "" for method in methods]
        lines.append(f"| {_name(name, about)} | " + " | ".join(cells) + " |")
    return lines


def _value(figure: dict[str, float | None], scale: float, digits: int) -> str:
    """Return a figure with its interval, "-" where it cannot be had."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None:
        return "-"
    text = f"{value * scale:.{digits}f}"
    if low is None or high is None:
        return text
    return text + f" [{low * scale:.{digits}f}, {high * scale:.{digits}f}]"


def _figure_cell(key: str, scale: float, digits: int) -> Callable[[dict[str, Any], int], str]:
    def cell(result: dict[str, Any], most: int) -> str:
        figure = result["figures"].get(key)  # files of earlier runs lack some
        if figure is None or figure["value"] is None:
            return "-"
        few = f", n={result['queries']}" if result["queries"] < most else ""
        return _value(figure, scale, digits) + few

    return cell


def _calibration_cell(key: str) -> Callable[[dict[str, Any], int], str]:
    def cell(result: dict[str, Any], most: int) -> str:
        value = result.get("calibration", {}).get(key)
        return "-" if value is None else f"{value * 100:.1f}"

    return cell
