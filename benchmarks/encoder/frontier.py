"""Draw how much encoders find against how long they take: which of them pay.

What they find is the mean of R@1 over the conditions of unseen ground that all of them were judged
by; their times are measured here, in turns, one image at a time on one thread. An encoder pays
that no other beats in both: a line joins these.

\b
Examples:
    python benchmarks/encoder/run.py --no-baselines --json results.json \\
        --encoder small= --encoder tiny=tiny.bundle > tables.md
    python benchmarks/encoder/frontier.py results.json frontier.png \\
        --encoder small= --encoder tiny=tiny.bundle
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import click
from run import named

from s4g.core.console import run_command
from s4g.core.engine import Engine, embedded_encoder_path, load_engine
from s4g.core.errors import InputError
from s4g.core.files import atomic_file, read_bytes
from s4g.export.bench import side_by_side

_RUNS = 200
_INCHES = (6.4, 4.4)
_DPI = 120


class Point(NamedTuple):
    """One encoder: milliseconds an image (median), mean R@1 as a share, whether it pays."""

    name: str
    p50_ms: float
    p95_ms: float
    recall: float
    pays: bool


@click.command(help=__doc__)
@click.argument("results", type=click.Path(path_type=Path))
@click.argument("picture", type=click.Path(path_type=Path))
@click.option(
    "--encoder", "encoders", multiple=True, required=True, metavar="NAME=FILE", help="Of RESULTS."
)
@click.option("--overwrite", is_flag=True, help="Replace what exists.")
def cli(results: Path, picture: Path, encoders: tuple[str, ...], overwrite: bool) -> None:
    """Print a Markdown table and write the PNG."""
    files = dict(named(text) for text in encoders)
    found, conditions = mean_recall(results, list(files))
    engines: dict[str, Engine] = {
        name: load_engine(path or embedded_encoder_path(), "cpu", 1) for name, path in files.items()
    }
    points = rated(found, {n: (t.p50_ms, t.p95_ms) for n, t in _timed(engines).items()})
    click.echo(
        f"Mean R@1 over {conditions} conditions; one image, one thread, {_RUNS} runs each.\n"
    )
    click.echo("| encoder | ms, p50 | ms, p95 | mean R@1, % | pays |\n|---|---|---|---|---|")
    for p in points:
        cells = (
            f"{p.p50_ms:.2f} | {p.p95_ms:.2f} | {100 * p.recall:.1f} | {'yes' if p.pays else ''}"
        )
        click.echo(f"| {p.name} | {cells} |")
    draw(points, conditions, picture, overwrite)


def _timed(engines: dict[str, Engine]) -> dict[str, Any]:
    """Time engines of one input size together."""
    timed: dict[str, Any] = {}
    for px in {engine.spec.input_px for engine in engines.values()}:
        timed |= side_by_side({n: e for n, e in engines.items() if e.spec.input_px == px}, 1, _RUNS)
    return timed


def mean_recall(path: Path, names: list[str]) -> tuple[dict[str, float], int]:
    """Return each encoder's mean over the conditions of unseen ground, and how many these are.

    Raises:
        InputError: the file is none of `run.py --json`, or does not judge one of the encoders.
    """
    try:
        value = json.loads(read_bytes(path))
        unseen = [c for c in value["results"] if not value["conditions"][c]["seen"]]
        rows = [value["results"][c] for c in unseen]
        for name in names:
            if not all(name in row for row in rows):
                raise InputError(f"--encoder {name}: {path} does not judge it by all conditions")
        found = {
            name: sum(float(row[name]["figures"]["recall_at_1"]["value"]) for row in rows)
            / len(rows)
            for name in names
        }
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        raise InputError(f"{path}: no results; write them with run.py --json") from None
    return found, len(rows)


def rated(recall: dict[str, float], times: dict[str, tuple[float, float]]) -> list[Point]:
    """Return the encoders, the fastest first; one pays if each faster one finds less."""
    points, best = [], -1.0
    for name in sorted(recall, key=lambda n: (times[n][0], -recall[n])):
        points.append(Point(name, *times[name], recall[name], recall[name] > best))
        best = max(best, recall[name])
    return points


def draw(points: list[Point], conditions: int, path: Path, overwrite: bool) -> None:
    """Write the PNG.

    Raises:
        InputError: the file exists, or cannot be written.
    """
    # No pyplot: it keeps every figure and picks a back end for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    front = [p for p in points if p.pays]
    axes.step(
        [p.p50_ms for p in front],
        [100 * p.recall for p in front],
        where="post",
        color="tab:blue",
        linewidth=1,
    )
    middle_ms = (points[0].p50_ms + points[-1].p50_ms) / 2
    for p in points:
        axes.plot(p.p50_ms, 100 * p.recall, "o", color="tab:blue" if p.pays else "0.6")
        # Towards the middle, and those that pay above: close neighbours do not hide each other.
        left = p.p50_ms > middle_ms
        axes.annotate(
            p.name,
            (p.p50_ms, 100 * p.recall),
            (-6 if left else 6, 4 if p.pays else -12),
            textcoords="offset points",
            ha="right" if left else "left",
            fontsize=8,
        )
    axes.set(
        xlabel="ms an image, one thread (p50)", ylabel=f"mean R@1 of {conditions} conditions, %"
    )
    axes.margins(x=0.25, y=0.12)
    axes.grid(alpha=0.3)
    with atomic_file(path, overwrite) as temporary:
        figure.savefig(temporary, format="png")


if __name__ == "__main__":
    run_command(cli)
