"""`s4g-pack`: build, inspect, verify and sign region packs."""

from __future__ import annotations

import glob
import json
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..core.console import (
    CommandGroup,
    MainCommand,
    debug_option,
    parse_metres,
    parse_numbers,
    progress,
    run_command,
    say,
)
from ..core.devices import DEVICES
from ..core.errors import InputError
from .cli_combine import diff, extract, merge
from .cli_map import ambiguity, export, preview
from .cli_out import out_file
from .cli_source import SourceOptions, source_options
from .cli_tools import keygen, sign, verify

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
    """Build, inspect, verify and sign region packs."""


@cli.main_job
@click.command(cls=MainCommand, help=_MAIN_HELP)
@click.option("--bbox", metavar="W,S,E,N", help="Region, WGS84 degrees.  [default: the source's]")
@click.option("--area", type=_FILE, help="Pack the polygons of a GeoJSON file instead of a box.")
@click.option(
    "--route",
    type=_FILE,
    help="Pack a corridor along a route instead: GPX, GeoJSON, .waypoints or .plan.",
)
@click.option("--width", help="Width of the corridor, for example 800m or 2km.")
@source_options
@click.option(
    "--out",
    type=out_file(".s4gpack", ".s4gpacks"),
    help="The pack to write (.s4gpack), or the set of packs (.s4gpacks).",
)
@click.option(
    "--levels", metavar="M,M,…", help="Tile footprints, metres.  [default: chosen and told]"
)
@click.option(
    "--stride",
    type=float,
    help="Distance of neighbouring tiles as a share of the footprint, 0.05 to 1.  [default: 0.25]",
)
@click.option(
    "--like",
    type=_FILE,
    metavar="PACK",
    help="Lay the tiles on this pack's grid, so that both can be merged.",
)
@click.option(
    "--shard",
    metavar="LENGTH",
    help="Make a set of packs, each a square of about this side, for example 20km.",
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
    "--headings",
    type=click.IntRange(1, 36),
    default=1,
    show_default=True,
    help="Embed each tile at so many headings, for drones that do not know theirs.",
)
@click.option(
    "--dims",
    type=int,
    help="Length of a tile's vector.  [default: the shortest that loses nothing]",
)
@click.option("--compact", is_flag=True, help="The smallest pack: vectors of 64 bytes.")
@click.option(
    "--overview/--no-overview",
    default=True,
    show_default=True,
    help="Carry a picture of the region (at most 2048 px) for plots and maps.",
)
@click.option(
    "--imagery/--no-imagery",
    default=False,
    show_default=True,
    help="Carry the imagery itself, as fine as the finest level, to refine fixes and for maps.",
)
@click.option(
    "--imagery-quality",
    type=click.IntRange(1, 100),
    help="Of its WebP tiles, 1 to 100.  [default: 75]",
)
@click.option(
    "--threads",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="CPU threads of the encoder; 0: as many as fit, with --engine ray one for each actor.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Threads that read imagery while the encoder works; with --engine ray: actors.",
)
@click.option(
    "--engine",
    type=click.Choice(("local", "ray")),
    default="local",
    show_default=True,
    help="Who embeds: this process, or a Ray cluster ($RAY_ADDRESS; else one on this machine).",
)
@click.option("--restart", is_flag=True, help="Throw away what an interrupted build has done.")
@click.option("--overwrite", is_flag=True, help="Replace an existing pack.")
@click.option(
    "--dry-run", is_flag=True, help="Tell tiles, bytes, minutes and ground covered; write nothing."
)
@click.option("--info", type=_FILE, metavar="PACK", help="Tell what a pack holds, build nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@debug_option
def build(
    bbox: str | None,
    area: Path | None,
    route: Path | None,
    width: str | None,
    source: str | None,
    also: tuple[str, ...],
    attribution: str,
    stretch: str | None,
    zoom: str | None,
    rate: float | None,
    retries: int | None,
    contact: str,
    cache: Path | None,
    permission: bool,
    out: Path | None,
    levels: str | None,
    stride: float | None,
    like: Path | None,
    shard: str | None,
    encoder: Path | None,
    device: str,
    min_valid: float,
    headings: int,
    dims: int | None,
    compact: bool,
    overview: bool,
    imagery: bool,
    imagery_quality: int | None,
    threads: int,
    workers: int,
    engine: str,
    restart: bool,
    overwrite: bool,
    dry_run: bool,
    info: Path | None,
    as_json: bool,
) -> None:
    """Build a pack (the main job)."""
    if info is not None:
        _check_alone("info", "as_json", "debug")
        _show_pack(info, as_json)
        return
    if source is None:
        raise click.UsageError("Missing option '--source'.")
    if out is None and not dry_run:
        raise click.UsageError("Missing option '--out'.")
    if stride is not None and like is not None:
        raise click.UsageError("--stride is that of --like; give one of them.")
    _check_share("--stride", 0.25 if stride is None else stride, 0.05)
    shard_m = None if shard is None else parse_metres(shard, "--shard")
    if out is not None:
        _check_ending(out, shard_m)
    _check_share("--min-valid", min_valid, 0.0)
    box = None if bbox is None else _bbox(bbox)
    footprints = None if levels is None else _levels(levels)
    if sum(given is not None for given in (bbox, area, route)) > 1:
        raise click.UsageError("--bbox, --area and --route: give one of them.")
    if (route is None) != (width is None):
        raise click.UsageError("--route and --width go together.")

    from ..core.engine import describe, load_engine
    from ..core.files import check_output
    from ..core.ground import notes_of
    from .area import read_area, read_route
    from .build import build_pack
    from .build_set import build_set
    from .dims import COMPACT_DIMS, check_dims
    from .estimate import covered_km2, tiles_per_second
    from .imagery_plan import plan_imagery
    from .info import plan_info, plan_text
    from .options import BuildOptions
    from .plan import plan_pack
    from .ray_blocks import RayEmbedder, Recipe
    from .reader import open_pack
    from .shards import cut_plan
    from .variants import make_variants

    if out is not None and not dry_run:
        check_output(out, overwrite)
    if imagery_quality is not None and not imagery:
        raise click.UsageError("--imagery-quality is for --imagery; give both.")
    quality = (imagery_quality or 75) if imagery else None
    if compact and dims is not None:
        raise click.UsageError("--compact chooses --dims itself; give one of them.")
    if like is not None and (compact or dims is not None):
        raise click.UsageError("--dims and --compact are those of --like; give one of them.")
    with ExitStack() as stack:
        ground = None
        if area is not None:
            ground = read_area(area)
        elif route is not None:
            ground = read_route(route, parse_metres(width or "", "--width"))
        bounds = box if ground is None else ground.bounds
        opening = SourceOptions(
            attribution, stretch, zoom, rate, retries, contact, cache, permission, bounds
        )
        opening.check((source, *also))
        layers = [stack.enter_context(closing(opening.open(name))) for name in (source, *also)]
        opening.check_use(layers)
        encoding = stack.enter_context(closing(load_engine(encoder, device, threads)))
        wanted = min(COMPACT_DIMS, encoding.spec.embedding_dim) if compact else dims
        check_dims(wanted, encoding.spec)
        base = None if like is None else stack.enter_context(open_pack(like))
        plan = plan_pack(
            layers[0],
            encoding.spec,
            box,
            footprints,
            0.25 if stride is None else stride,
            ground,
            None if base is None else base.manifest,
        )
        for note in (*(note for layer in layers for note in notes_of(layer)), *plan.notes):
            say(f"note: {note}")
        variants = make_variants(len(layers), headings)
        if out is None or dry_run:
            # A tile server would have to be asked for all of it.
            looks = not any("{" in name for name in (source, *also))
            told = plan_info(
                plan,
                encoding.spec,
                layers[0].gsd_m,
                overview,
                wanted,
                len(variants),
                tiles_per_second(encoding),
                covered_km2(layers[0], plan) if looks else None,
                plan_imagery(plan, layers[0].gsd_m).count if imagery else 0,
                None if shard_m is None else len(cut_plan(plan, shard_m)),
            )
            click.echo(json.dumps(told, indent=2) if as_json else plan_text(told))
            return
        say(f"encoder: {describe(encoding)}")
        options = BuildOptions(
            min_valid=min_valid,
            overview=overview,
            dims=wanted,
            headings=headings,
            imagery_quality=quality,
            workers=workers,
        )
        embedder = None
        if engine == "ray":
            if any("{" in name for name in (source, *also)):
                raise InputError(
                    "--engine ray: several machines would ask the tile server at once, and none "
                    "would keep --rate; build without it"
                )
            recipe = Recipe(
                opening.open,
                tuple(_anywhere(name) for name in (source, *also)),
                None if encoder is None else encoder.resolve(),
                encoding.spec.model_id,
                device,
                threads,
                plan.frame,
                variants,
                min_valid,
            )
            embedder = stack.enter_context(RayEmbedder(recipe, workers))
        given = None if base is None else base.projection
        if shard_m is None:
            build_pack(
                layers, encoding, plan, out, options, progress, overwrite, restart, given, embedder
            )
        else:
            for note in build_set(
                layers,
                encoding,
                plan,
                shard_m,
                out,
                options,
                progress,
                overwrite,
                restart,
                given,
                embedder,
            ):
                say(f"note: {note}")
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


def _show_pack(path: Path, as_json: bool) -> None:
    from .info import pack_info, pack_text, set_info, set_text
    from .pack_set import is_set, open_set
    from .reader import open_pack

    if is_set(path):
        with open_set(path) as packs:
            told: dict[str, Any] = set_info(packs)
        click.echo(json.dumps(told, indent=2) if as_json else set_text(told))
        return
    with open_pack(path) as pack:
        pack.container.verify()
        told = pack_info(pack)
    click.echo(json.dumps(told, indent=2) if as_json else pack_text(told))


def _check_alone(option: str, *beside: str) -> None:
    """Refuse all options but these: a command that does something else has no use for them."""
    context, others = click.get_current_context(), []
    for parameter in context.command.params:
        name = str(parameter.name)
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            off = parameter.secondary_opts if context.params.get(name) is False else []
            others += [] if name in (option, *beside) else (off or parameter.opts)[:1]
    if others:
        raise click.UsageError(f"--{option} builds nothing; leave out {', '.join(others)}.")


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


def _anywhere(source: str) -> str:
    """Return a source as processes of another working folder find it."""
    there = Path(source.rpartition(":")[0] or source) if not Path(source).exists() else Path(source)
    if there.is_absolute() or not (there.exists() or glob.has_magic(source)):
        return source
    return str(Path.cwd() / source)


def _check_ending(out: Path, shard_m: float | None) -> None:
    from .pack_set import SUFFIX

    if (out.suffix == SUFFIX) != (shard_m is not None):
        raise click.UsageError(
            f"--shard makes a set of packs, whose name ends in {SUFFIX}: give both or none."
        )


def _check_share(option: str, value: float, least: float) -> None:
    if not least <= value <= 1:
        raise InputError(f"{option} {value:g}: expected a share between {least:g} and 1")


for _command in (
    verify, keygen, sign, extract, merge, diff, preview, ambiguity, export,
):  # fmt: skip
    cli.add_command(_command)


def main() -> None:
    """Run `s4g-pack`."""
    run_command(cli)
