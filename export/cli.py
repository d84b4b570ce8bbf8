"""Command line of the exporter: `s4g-export` and its subcommands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..core.console import CommandGroup, MainCommand, debug_option, run_command, say
from ..core.errors import InputError
from .cli_bench import bench
from .cli_build import build, build_plans
from .cli_doctor import doctor

# As in ranges.py, which is slow to import.
_METHODS = ("auto", "minmax", "percentile", "entropy", "mse")
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
    "--tensorrt",
    is_flag=True,
    help="Make graphs for TensorRT as well (FP16, and INT8 with --int8), and build their plans "
    "where this machine can.",
)
@click.option(
    "--calib",
    default="",
    metavar="DIR|SOURCE",
    help="Imagery to calibrate on and to judge by: a georeferenced raster, a folder of rasters or "
    "pictures, or landscape[:seed=N,…]. Without --int8 the default is landscape.",
)
@click.option(
    "--frames",
    default="",
    metavar="DIR",
    help="A flight's frames, to calibrate on and judge by as well.",
)
@click.option(
    "--images",
    default=400,
    show_default=True,
    type=click.IntRange(min=1),
    help="Calibration images: half tiles, half camera-like views; fewer than 300 rarely cover "
    "the ground.",
)
@click.option(
    "--places",
    default=500,
    show_default=True,
    type=click.IntRange(min=10),
    help="Held-out places for cosine and recall.",
)
@click.option(
    "--method",
    default="auto",
    show_default=True,
    type=click.Choice(_METHODS),
    help="How an activation's range is chosen for INT8; auto tries all and keeps the best.",
)
@click.option(
    "--keep-float",
    default="",
    metavar="REGEX",
    help="Leave nodes whose name matches in float.",
)
@click.option(
    "--depthwise",
    default="float",
    show_default=True,
    type=click.Choice(("float", "int8")),
    help="Depthwise convolutions of the INT8 graph for TensorRT.",
)
@click.option(
    "--sensitivity",
    is_flag=True,
    help="Tell which layers lose most, also where all bars hold.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Seed of tiles, places and views.",
)
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
    "--max-recall-drop",
    "--min-recall-drop",
    "max_r1_drop",
    default=0.005,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Largest acceptable loss of R@1 on held-out places.",
)
@click.option(
    "--accept-loss", is_flag=True, help="Write the bundle even where cosine or R@1 miss their bar."
)
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle.")
@_JSON
@debug_option
def export(
    as_json: bool,
    calib: str,
    int8: bool,
    tensorrt: bool,
    min_cosine: float,
    max_r1_drop: float,
    **options: Any,
) -> None:
    """Write ONNX engines of CHECKPOINT, and a report of how far they depart from it.

    Example: s4g-export run/encoder.safetensors --int8 --tensorrt --calib tiles/ --out bundle

    The command fails, and writes nothing, where an engine's cosine falls below --min-cosine or it
    loses more than --max-recall-drop of R@1 on ground held out from calibration.
    """
    try:
        from .bundle import ExportJob, export_bundle
        from .tune import Bars
    except ImportError as error:
        raise _missing_extra(error) from None
    from . import report

    source = calib or ("" if int8 else "landscape")
    bars = Bars(min_cosine, max_r1_drop)
    job = ExportJob(int8=int8, tensorrt=tensorrt, source=source, bars=bars, **options)
    made = export_bundle(job, say)
    click.echo(json.dumps(report.as_json(made)) if as_json else report.as_table(made))
    if tensorrt:
        build_plans(job.out)


def _missing_extra(error: ImportError) -> InputError:
    return InputError(f"s4g-export needs {error.name}; install it with pip install 's4g[export]'")


cli.add_command(bench)
cli.add_command(build)
cli.add_command(doctor)


def main() -> None:
    """Run `s4g-export`."""
    run_command(cli)
