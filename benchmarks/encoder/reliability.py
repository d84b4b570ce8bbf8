"""Draw what encoders claim of their answers against what holds, over all conditions of a run.

Dots are single conditions, by size the number of answers; lines are all conditions together, with
and without queries of foreign ground, whose share is the benchmark's own and no flight's.
Conditions on trained ground are left out.

\b
Examples:
    python benchmarks/encoder/run.py --no-baselines --json results.json > tables.md
    python benchmarks/encoder/reliability.py results.json reliability.png
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from calibration import DIAGRAM_BINS
from condition import Floats

from s4g.core.console import run_command
from s4g.core.errors import InputError
from s4g.core.files import atomic_file, read_bytes

# Key of a result's calibration, what its line is called, its colour.
_LINES = (
    ("reliability", "ground in the map", "tab:blue"),
    ("reliability_with_foreign", "foreign ground included", "tab:orange"),
)
_PANEL_INCHES = (4.6, 5.6)
_DPI = 120
_DOT_PER_ANSWER = 0.8  # square points

# Claim, truth and count of each bin.
Bins = list[dict[str, float]]


@click.command(help=__doc__)
@click.argument("results", type=click.Path(path_type=Path))
@click.argument("picture", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace what exists.")
def cli(results: Path, picture: Path, overwrite: bool) -> None:
    """Write the PNG."""
    draw(read_calibrations(results), picture, overwrite)


def read_calibrations(path: Path) -> dict[str, list[dict[str, Bins]]]:
    """Return of each encoder the bins of its conditions, by the keys of `_LINES`.

    Files of earlier runs lack foreign ground.

    Raises:
        InputError: the file is none of `run.py --json`, or judges no encoder.
    """
    found: dict[str, list[dict[str, Bins]]] = {}
    try:
        value = json.loads(read_bytes(path))
        for condition, methods in value["results"].items():
            for name, result in methods.items():
                if "calibration" in result and not value["conditions"][condition]["seen"]:
                    found.setdefault(name, []).append(_bins(result["calibration"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: no results; write them with run.py --json") from None
    if not found:
        raise InputError(f"{path}: judges no encoder on unseen ground; run.py judges some")
    return found


def _bins(calibration: dict[str, Any]) -> dict[str, Bins]:
    names = ("claimed", "right", "count")
    found = {
        key: [{name: float(part[name]) for name in names} for part in calibration[key]]
        for key, _, _ in _LINES
        if key in calibration
    }
    # A sum of probabilities may be off by its rounding.
    if not all(-1e-6 <= part["claimed"] <= 1 + 1e-6 for bins in found.values() for part in bins):
        raise ValueError
    return found


def pooled(parts: Bins) -> tuple[Floats, Floats, Floats]:
    """Return claim, truth and count (B,) of the bins of several conditions together."""
    sums = np.zeros((DIAGRAM_BINS, 3))
    for part in parts:
        number = min(int(part["claimed"] * DIAGRAM_BINS), DIAGRAM_BINS - 1)
        sums[number] += part["count"] * np.array([part["claimed"], part["right"], 1.0])
    sums = sums[sums[:, 2] > 0]
    return sums[:, 0] / sums[:, 2], sums[:, 1] / sums[:, 2], sums[:, 2]


def draw(encoders: dict[str, list[dict[str, Bins]]], path: Path, overwrite: bool) -> None:
    """Write a column of two panels for each encoder: the diagram, and how many answers it counts.

    Raises:
        InputError: the file exists, or cannot be written.
    """
    # No pyplot: it keeps every figure and picks a back end for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = (_PANEL_INCHES[0] * len(encoders), _PANEL_INCHES[1])
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        2, len(encoders), squeeze=False, sharex=True, height_ratios=(4, 1), sharey="row"
    )
    for column, (name, conditions) in enumerate(encoders.items()):
        _draw_column(*axes[:, column], name, conditions)
    with atomic_file(path, overwrite) as temporary:
        figure.savefig(temporary, format="png")


def _draw_column(diagram: Any, counts: Any, name: str, conditions: list[dict[str, Bins]]) -> None:
    diagram.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    for number, (key, label, colour) in enumerate(_LINES):
        parts = [part for condition in conditions for part in condition.get(key, [])]
        if not parts:
            continue
        claimed, right, count = pooled(parts)
        if number == 0:
            x, y, area = zip(*((p["claimed"], p["right"], p["count"]) for p in parts), strict=True)
            area = _DOT_PER_ANSWER * np.array(area)
            diagram.scatter(x, y, s=area, color=colour, alpha=0.25, linewidths=0)
        gap = float(np.abs(claimed - right) @ count / count.sum())
        label = f"{label}: {count.sum():.0f} answers, {100 * gap:.1f} % off"
        diagram.plot(claimed, right, color=colour, marker="o", markersize=4)
        counts.plot(claimed, count, color=colour, marker="o", markersize=3, label=label)
    diagram.set(title=f"{name}, {len(conditions)} conditions", ylabel="share that is right")
    diagram.set(xlim=(0, 1), ylim=(-0.02, 1.02))
    diagram.grid(alpha=0.3)
    counts.set(yscale="log", xlabel="claimed probability", ylabel="answers")
    counts.grid(alpha=0.3)
    # Below, where no line runs behind it.
    counts.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.45))


if __name__ == "__main__":
    run_command(cli)
