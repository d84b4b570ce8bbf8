"""Judge encoders by one condition at a time, on ground that they have never seen.

Queries are searched among all tiles of their region; places are split, never pictures. Then the
frames that they come from are located whole, several patches each, as `s4g-run` does. Beside the
encoders stand random weights, SIFT with RANSAC, phase correlation, normalised cross-correlation
and HOG. Conditions whose imagery is absent are left out and named.

\b
Examples:
    python benchmarks/encoder/run.py --json results.json > tables.md
    python benchmarks/encoder/run.py --quick --encoder mine=runs/edge/encoder.safetensors
    python benchmarks/encoder/run.py --only "other season" --only blur --no-baselines

\b
The encoder first shipped, to compare with (blob 5124590e, model id 173a2dbe...):
    git show 7789f6c:core/encoder/encoder.onnx > first.onnx
    python benchmarks/encoder/run.py --encoder first=first.onnx --encoder now=
"""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cv2
from condition import Condition, Group, Setting
from conditions import GROUPS, NAMES, foreign_pool
from evaluate import Foreign, Kept, answer, summary
from failures import write_sheet
from flown import fly
from methods import BASELINE_PX, Method, encoder_method, hog_method, random_weights
from pairwise import pairwise_methods
from tables import Results, report

from s4g.core.console import run_command, say
from s4g.core.errors import InputError
from s4g.core.files import write_bytes

QUERIES, QUICK_QUERIES = 300, 100
SHOTS, QUICK_SHOTS = 300, 30
_DEFAULT_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path), envvar="S4G_DATA", help="Imagery.")
@click.option("--encoder", "encoders", multiple=True, metavar="NAME=FILE", help="To judge.")
@click.option("--only", multiple=True, metavar="CONDITION", help="Of these; repeatable.")
@click.option("--baselines/--no-baselines", default=True, help="Judge them as well.")
@click.option(
    "--quick",
    is_flag=True,
    help="A look, no result: fewer queries and baselines, no flights to register.",
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="All figures.")
@click.option(
    "--failures", type=click.Path(path_type=Path), help="Folder for pictures of the worst answers."
)
@click.option("--overwrite", is_flag=True, help="Replace what exists.")
def cli(
    data: Path | None,
    encoders: tuple[str, ...],
    only: tuple[str, ...],
    baselines: bool,
    quick: bool,
    json_path: Path | None,
    failures: Path | None,
    overwrite: bool,
) -> None:
    """Print Markdown tables."""
    if json_path is not None and json_path.exists() and not overwrite:
        raise InputError(f"--json {json_path}: exists; add --overwrite to replace it")
    if failures is not None and failures.is_dir() and any(failures.iterdir()) and not overwrite:
        raise InputError(f"--failures {failures}: is not empty; add --overwrite to replace sheets")
    names = chosen(only, quick)
    methods = [encoder_method(*named(text)) for text in encoders or ("shipped=",)]
    if baselines:
        methods += baseline_methods(methods[0], quick)
    counts = (QUICK_QUERIES, QUICK_SHOTS) if quick else (QUERIES, SHOTS)
    setting = Setting(data or _DEFAULT_DATA, BASELINE_PX, *counts)
    sheets = Sheets(failures, overwrite) if failures is not None else None
    results, about = judge(methods, setting, names, sheets)
    if json_path is not None:
        value = {
            "methods": {method.name: method.about for method in methods},
            "conditions": about,
            "results": results,
        }
        write_bytes(json_path, json.dumps(value, indent=1).encode(), overwrite)
    click.echo(report(results, about, {m.name: m.about for m in methods}), nl=False)


def chosen(only: tuple[str, ...], quick: bool) -> tuple[str, ...]:
    """Return the conditions to run; a quick look takes none that are slow unless asked to.

    Raises:
        InputError: one of them does not exist.
    """
    for name in only:
        if name not in NAMES:
            raise InputError(f"--only {name!r}: no such condition; there are {', '.join(NAMES)}")
    if only or not quick:
        return only or NAMES
    slow = {name for group in GROUPS if group.slow for name in group.names}
    say(f"left out of a quick look: {', '.join(name for name in NAMES if name in slow)}")
    return tuple(name for name in NAMES if name not in slow)


def named(text: str) -> tuple[str, Path | None]:
    """Split NAME=FILE; an empty file stands for the packaged encoder.

    Raises:
        InputError: there is no name.
    """
    name, equals, path = text.partition("=")
    if not name or not equals:
        raise InputError(f"--encoder {text}: write NAME=FILE, or NAME= for the packaged encoder")
    return name, Path(path) if path else None


def baseline_methods(first: Method, quick: bool) -> list[Method]:
    """Return what every encoder must beat."""
    found: list[Method] = []
    assert first.spec is not None
    random = None if quick else random_weights(first.spec)
    if random is not None:
        found.append(random)
    elif not quick:
        say("random weights: left out, for torch is not installed")
    return [*found, hog_method(), *pairwise_methods(quick)]


@dataclass(frozen=True)
class Sheets:
    """Where pictures of the worst answers of encoders go."""

    folder: Path
    overwrite: bool


def judge(
    methods: list[Method],
    setting: Setting,
    names: tuple[str, ...],
    sheets: Sheets | None = None,
) -> tuple[Results, dict[str, dict[str, Any]]]:
    """Return the figures of each condition and method, and what each condition is.

    Raises:
        InputError: no condition is left.
    """
    groups = [group for group in GROUPS if set(group.names) & set(names)]
    groups = [group for group in groups if _is_there(group, setting.data)]
    if not groups:
        raise InputError(f"--data {setting.data}: holds no imagery of the conditions asked for")
    results: Results = {}
    about: dict[str, dict[str, Any]] = {}
    for size_px in sorted({method.size_px for method in methods}):
        mine = [method for method in methods if method.size_px == size_px]
        of_size = dataclasses.replace(setting, size_px=size_px)
        pool = foreign_pool(of_size)
        kept = [Kept() for _ in mine]
        for group in groups:
            for condition in group.make(of_size, names):
                about[condition.name] = {"about": condition.about, "seen": condition.seen}
                into = results.setdefault(condition.name, {})
                for method, store in zip(mine, kept, strict=True):
                    result = _judged(condition, method, pool, store, sheets, setting.shots)
                    into[method.name] = result
    return results, about


def _judged(
    condition: Condition,
    method: Method,
    pool: list[Foreign],
    kept: Kept,
    sheets: Sheets | None,
    shots: int,
) -> dict[str, Any]:
    start_s = time.monotonic()
    answers = answer(condition, method, pool, kept)
    result = summary(answers, method)
    if sheets is not None and method.spec is not None:
        name = f"{condition.name} {method.name}"
        write_sheet(sheets.folder, name, answers, sheets.overwrite)
    frames = fly(condition, method, pool, kept, shots)
    if frames is not None:
        result["frames"] = frames
    recall = 100 * (result["figures"]["recall_at_1"]["value"] or 0.0)
    took_s = time.monotonic() - start_s
    say(f"{condition.name}, {method.name}: R@1 {recall:.1f} % ({took_s:.0f} s)")
    return result


def _is_there(group: Group, data: Path) -> bool:
    missing = [name for name in group.folders if not (data / name).is_dir()]
    if missing:
        say(f"left out: {', '.join(group.names)} (no {', '.join(missing)} in {data})")
    return not missing


if __name__ == "__main__":
    cv2.setNumThreads(1)  # as the encoders run: what is measured is no speed
    run_command(cli)
