"""`s4g-export bench`: every engine file on every back end that is here, side by side."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..core.console import debug_option
from ..core.devices import DEVICE_FILES
from ..core.errors import InputError


@click.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option(
    "--device",
    "devices",
    multiple=True,
    type=click.Choice(tuple(DEVICE_FILES)),
    help="Back end to time, may be repeated.  [default: every one that is here]",
)
@click.option(
    "--threads",
    default="1",
    show_default=True,
    metavar="N[,N…]",
    help="Threads inside an operator on a CPU; 0: the library's choice.",
)
@click.option(
    "--batch", default="1", show_default=True, metavar="N[,N…]", help="Images in one call."
)
@click.option(
    "--runs",
    default=100,
    show_default=True,
    type=click.IntRange(min=1),
    help="Timed calls for each engine, after a warm-up.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@debug_option
def bench(
    bundle: Path | None,
    devices: tuple[str, ...],
    threads: str,
    batch: str,
    runs: int,
    as_json: bool,
) -> None:
    """Time the engines of BUNDLE, or one file, side by side (default: the embedded encoder).

    \b
    Example:
      s4g-export bench bundle --threads 1,2 --batch 1,8
    """
    from . import bench_report as report
    from .bench import run_bench

    counts, batches = _counts(threads, "--threads", least=0), _counts(batch, "--batch", least=1)
    chosen = tuple(dict.fromkeys(devices)) or tuple(DEVICE_FILES)
    measured = run_bench(bundle, chosen, counts, batches, runs)
    click.echo(json.dumps(report.as_json(measured)) if as_json else report.as_table(measured))


def _counts(text: str, option: str, least: int) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < least:
        raise InputError(
            f"{option} {text}: expected whole numbers of at least {least}, separated by commas"
        )
    return values
