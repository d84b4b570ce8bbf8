"""Command line of the exporter: `s4g-export`, `s4g-export bench`, `s4g-export doctor`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..core.console import CommandGroup, MainCommand, debug_option, run_command, say
from ..core.errors import InputError

_METHODS = ("minmax", "percentile", "entropy")  # as in quantise.py, which is slow to import
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")


@click.group(cls=CommandGroup)
@click.version_option(package_name="s4g")
def cli() -> None:
    """Turn a trained checkpoint into engines for the drone."""


@cli.main_job
@click.command(cls=MainCommand)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Bundle folder to make."
)
@click.option("--int8", is_flag=True, help="Quantise to INT8 as well; needs --calib.")
@click.option(
    "--calib",
    default="",
    metavar="DIR|SOURCE",
    help="Imagery to calibrate on and to judge by: a georeferenced raster, a folder of rasters or "
    "pictures, or landscape[:seed=N,…]. Without --int8 the default is landscape.",
)
@click.option(
    "--images",
    default=300,
    show_default=True,
    type=click.IntRange(min=1),
    help="Calibration tiles; fewer than 300 rarely cover the ground.",
)
@click.option(
    "--places",
    default=400,
    show_default=True,
    type=click.IntRange(min=10),
    help="Held-out places for cosine and recall.",
)
@click.option(
    "--method",
    default="minmax",
    show_default=True,
    type=click.Choice(_METHODS),
    help="How an activation's range is chosen.",
)
@click.option(
    "--keep-float",
    default="",
    metavar="REGEX",
    help="Leave nodes whose name matches in float.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of tiles, places and views.")
@click.option(
    "--threads",
    default=1,
    show_default=True,
    type=click.IntRange(min=0),
    help="Threads for the latency figures; 0: ONNX Runtime's choice.",
)
@click.option(
    "--min-cosine",
    default=0.98,
    show_default=True,
    type=click.FloatRange(-1, 1),
    help="Lowest acceptable cosine to the checkpoint (1st percentile).",
)
@click.option(
    "--accept-loss", is_flag=True, help="Write the bundle even where cosine or R@1 miss their bar."
)
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle.")
@_JSON
@debug_option
def export(as_json: bool, calib: str, int8: bool, **options: Any) -> None:
    """Write ONNX engines of CHECKPOINT, and a report of how far they depart from it.

    Example: s4g-export run/best.safetensors --int8 --calib tiles/ --out bundle

    The command fails, and writes nothing, where INT8 loses more than --min-cosine or 0.02 of R@1
    on ground held out from calibration.
    """
    try:
        from .bundle import ExportJob, export_bundle
    except ImportError as error:
        raise _missing_extra(error) from None
    from . import report

    job = ExportJob(int8=int8, source=calib or ("" if int8 else "landscape"), **options)
    made = export_bundle(job, say)
    click.echo(json.dumps(report.as_json(made)) if as_json else report.as_table(made))


def _missing_extra(error: ImportError) -> InputError:
    return InputError(f"s4g-export needs {error.name}; install it with pip install 's4g[export]'")


@cli.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--threads",
    default="1",
    show_default=True,
    metavar="N[,N…]",
    help="Threads inside an operator; 0: ONNX Runtime's choice.",
)
@click.option(
    "--batch", default="1", show_default=True, metavar="N[,N…]", help="Images in one call."
)
@click.option(
    "--runs",
    default=100,
    show_default=True,
    type=click.IntRange(min=1),
    help="Timed calls for each engine.",
)
@_JSON
@debug_option
def bench(bundle: Path, threads: str, batch: str, runs: int, as_json: bool) -> None:
    """Time the engines of BUNDLE side by side.

    Example: s4g-export bench bundle --threads 1,2 --batch 1,8
    """
    from . import bench as timing

    counts = _counts(threads, "--threads", least=0)
    rows = timing.bench_bundle(bundle, counts, _counts(batch, "--batch", least=1), runs)
    click.echo(json.dumps(timing.as_json(rows)) if as_json else timing.as_table(rows))


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


@cli.command()
@click.argument("encoder", required=False, type=click.Path(path_type=Path))
@_JSON
@debug_option
def doctor(encoder: Path | None, as_json: bool) -> None:
    """Show what this machine can run, by running ENCODER (default: the embedded one).

    Example: s4g-export doctor bundle
    """
    from .doctor import check_usable, diagnose

    found = diagnose(encoder)
    click.echo(json.dumps(found.as_json()) if as_json else found.as_table())
    check_usable(found)


def main() -> None:
    """Run `s4g-export`."""
    run_command(cli)
