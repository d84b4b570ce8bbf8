"""`s4g-pack`: build, inspect and verify region packs."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import click

from ..core.console import (
    CommandGroup,
    MainCommand,
    debug_option,
    parse_numbers,
    progress,
    run_command,
    say,
)
from ..core.devices import DEVICES
from ..core.errors import InputError

_MAIN_HELP = """Build a region pack: imagery in, one searchable file out.

\b
Examples:
  s4g-pack --bbox 8.53,47.37,8.55,47.39 --source ortho.tif --out region.s4gpack
  s4g-pack --source landscape --levels 80,160 --out demo.s4gpack
  s4g-pack info region.s4gpack
"""

_FILE = click.Path(path_type=Path)


@click.group(cls=CommandGroup)
def cli() -> None:
    """Build, inspect and verify region packs."""


@cli.main_job
@click.command(cls=MainCommand, help=_MAIN_HELP)
@click.option("--bbox", metavar="W,S,E,N", help="Region, WGS84 degrees.  [default: the source's]")
@click.option("--source", help="GeoTIFF or other georeferenced raster, or landscape[:key=value,…].")
@click.option("--out", type=_FILE, help="The pack to write (.s4gpack).")
@click.option(
    "--levels", metavar="M,M,…", help="Tile footprints, metres.  [default: chosen and told]"
)
@click.option(
    "--stride",
    type=float,
    default=0.25,
    show_default=True,
    help="Distance of neighbouring tiles as a share of the footprint, 0.05 to 1.",
)
@click.option("--encoder", type=_FILE, help="Bundle or ONNX file.  [default: the embedded one]")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    type=click.Choice(DEVICES),
    help="What runs the encoder; auto: TensorRT where the bundle has a plan, else CUDA, else CPU.",
)
@click.option(
    "--min-valid",
    type=float,
    default=0.6,
    show_default=True,
    help="Least share of a tile that must be imagery, 0 to 1.",
)
@click.option(
    "--imagery/--no-imagery",
    default=True,
    show_default=True,
    help="Carry a picture of the region (at most 2048 px) for plots and maps.",
)
@click.option(
    "--threads", type=click.IntRange(0), default=0, help="CPU threads; 0: as many as fit."
)
@click.option("--overwrite", is_flag=True, help="Replace an existing pack.")
@click.option("--dry-run", is_flag=True, help="Tell tiles and bytes, write nothing.")
@click.option("--info", type=_FILE, metavar="PACK", help="Tell what a pack holds, build nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@debug_option
def build(
    bbox: str | None,
    source: str | None,
    out: Path | None,
    levels: str | None,
    stride: float,
    encoder: Path | None,
    device: str,
    min_valid: float,
    imagery: bool,
    threads: int,
    overwrite: bool,
    dry_run: bool,
    info: Path | None,
    as_json: bool,
) -> None:
    """Build a pack (the main job)."""
    if info is not None:
        _show_pack(info, as_json)
        return
    if source is None:
        raise click.UsageError("Missing option '--source'.")
    if out is None and not dry_run:
        raise click.UsageError("Missing option '--out'.")
    _check_share("--stride", stride, 0.05)
    _check_share("--min-valid", min_valid, 0.0)
    box = None if bbox is None else _bbox(bbox)
    footprints = None if levels is None else _levels(levels)

    from ..core.engine import describe, load_engine
    from ..core.files import check_output
    from ..core.sources import open_ground
    from .build import build_pack
    from .info import plan_info, plan_text
    from .plan import plan_pack
    from .writer import write_pack

    if out is not None and not dry_run:
        check_output(out, overwrite)
    with ExitStack() as stack:
        ground = stack.enter_context(closing(open_ground(source)))
        engine = stack.enter_context(closing(load_engine(encoder, device, threads)))
        plan = plan_pack(ground, engine.spec, box, footprints, stride)
        for note in plan.notes:
            say(f"note: {note}")
        if out is None or dry_run:
            told = plan_info(plan, engine.spec, ground.gsd_m, imagery)
            click.echo(json.dumps(told, indent=2) if as_json else plan_text(told))
            return
        say(f"encoder: {describe(engine)}")
        content = build_pack(ground, engine, plan, min_valid, imagery, progress)
    write_pack(out, content, overwrite)
    _show_pack(out, as_json)


@cli.command("info")
@click.argument("pack", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@debug_option
def info_command(pack: Path, as_json: bool) -> None:
    """Tell what a pack holds: region, levels, sizes, encoder, credit.

    Example: s4g-pack info region.s4gpack --json
    """
    _show_pack(pack, as_json)


@cli.command("verify")
@click.argument("pack", type=_FILE)
@debug_option
def verify_command(pack: Path) -> None:
    """Check every byte and every value of a pack; exit code 2 if it is damaged.

    Example: s4g-pack verify region.s4gpack
    """
    from .reader import open_pack

    with open_pack(pack) as opened:
        opened.overview()
        tiles = sum(level.count for level in opened.levels)
    click.echo(f"{pack}: whole, {tiles} tiles")


def _show_pack(path: Path, as_json: bool) -> None:
    from .info import pack_info, pack_text
    from .reader import open_pack

    with open_pack(path) as pack:
        told: dict[str, Any] = pack_info(pack)
    click.echo(json.dumps(told, indent=2) if as_json else pack_text(told))


def _bbox(text: str) -> Any:
    from ..core.geo import BBox

    try:
        return BBox(*parse_numbers(text, 4, "--bbox", "W,S,E,N in degrees"))
    except InputError as error:
        message = str(error)
        raise InputError(message if message.startswith("--bbox") else f"--{message}") from None


def _levels(text: str) -> tuple[float, ...]:
    from .plan import check_levels

    meaning = "footprints in metres, for example 80,160"
    return check_levels(parse_numbers(text, text.count(",") + 1, "--levels", meaning), "--levels")


def _check_share(option: str, value: float, least: float) -> None:
    if not least <= value <= 1:
        raise InputError(f"{option} {value:g}: expected a share between {least:g} and 1")


def main() -> None:
    """Run `s4g-pack`."""
    run_command(cli)
