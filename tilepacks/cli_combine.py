"""What `s4g-pack` makes of packs: the part of one, several as one, what differs between two."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.console import debug_option, parse_metres, progress, say
from .cli_out import out_file
from .words import counted

if TYPE_CHECKING:
    from ..core.geo import BBox
    from .area import Area
    from .diff import LevelDiff, PackDiff

_FILE = click.Path(path_type=Path)
_SHOWN = 60  # characters of a value


@click.command()
@click.argument("pack", type=_FILE)
@click.option("--bbox", metavar="W,S,E,N", help="The box to take, WGS84 degrees.")
@click.option("--area", type=_FILE, help="Take the polygons of a GeoJSON file instead.")
@click.option(
    "--route",
    type=_FILE,
    help="Take a corridor along a route instead: GPX, GeoJSON, .waypoints or .plan.",
)
@click.option("--width", help="Width of the corridor, for example 800m or 2km.")
@click.option("--levels", metavar="M,M,…", help="Tile footprints to take, metres.  [default: all]")
@click.option(
    "--out", required=True, type=out_file(".s4gpack"), help="The pack to write (.s4gpack)."
)
@click.option("--overwrite", is_flag=True, help="Replace an existing pack.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@debug_option
def extract(
    pack: Path,
    bbox: str | None,
    area: Path | None,
    route: Path | None,
    width: str | None,
    levels: str | None,
    out: Path,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Take the part of a pack, or of a set of packs, for one flight.

    No imagery and no encoder is needed.

    Of a box the tiles that lie wholly in it, as a build would; of an area or a corridor those whose
    centres do. Vectors stay as they are.

    Example: s4g-pack extract region.s4gpack --route plan.waypoints --width 2km --out flight.s4gpack
    """
    from .cli import _levels
    from .combine import CombineOptions
    from .extract import extract_from_set, extract_pack
    from .pack_set import is_set, open_set
    from .reader import open_pack

    region = _region(bbox, area, route, width)
    footprints = None if levels is None else _levels(levels)
    options = CombineOptions(progress=progress, overwrite=overwrite)
    if is_set(pack):
        with open_set(pack) as packs:
            notes = extract_from_set(packs, region, out, footprints, options)
    else:
        with open_pack(pack) as opened:
            notes = extract_pack(opened, region, out, footprints, options)
    for note in notes:
        say(f"note: {note}")
    _show(out, as_json, {"from": str(pack)})


@click.command()
@click.argument("packs", type=_FILE, nargs=-1, required=True, metavar="PACK PACK…")
@click.option(
    "--out", required=True, type=out_file(".s4gpack"), help="The pack to write (.s4gpack)."
)
@click.option("--overwrite", is_flag=True, help="Replace an existing pack.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@debug_option
def merge(packs: tuple[Path, ...], out: Path, overwrite: bool, as_json: bool) -> None:
    """Make one pack of several that were built --like each other, or extracted from one.

    Where a place is in several, the pack named first is taken. Imagery of another name counts as
    another date: its tiles are kept beside the others.

    Example: s4g-pack merge north.s4gpack south.s4gpack --out all.s4gpack
    """
    from .combine import CombineOptions, merge_packs
    from .reader import open_pack

    with ExitStack() as stack:
        opened = [stack.enter_context(open_pack(pack)) for pack in packs]
        options = CombineOptions(progress=progress, overwrite=overwrite)
        shared, notes = merge_packs(opened, out, options)
    if shared:
        notes.append(f"{counted(shared, 'tile')} left out: a pack named before has the same place")
    for note in notes:
        say(f"note: {note}")
    _show(out, as_json, {"from": [str(pack) for pack in packs], "tiles_left_out": shared})


@click.command()
@click.argument("a", type=_FILE)
@click.argument("b", type=_FILE)
@click.option("--level", type=float, help="Footprint of the level, metres.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@debug_option
def diff(a: Path, b: Path, level: float | None, as_json: bool) -> int:
    """Tell what differs between two packs: what they are made of, their places, their vectors.

    Exit code 0: nothing differs, 1: something does, 2: a file is missing, damaged or no pack.

    Example: s4g-pack diff spring.s4gpack autumn.s4gpack --level 80
    """
    from .diff import compare_packs
    from .reader import open_pack

    with open_pack(a) as one, open_pack(b) as other:
        found = compare_packs(one, other, level, progress)
    if as_json:
        told = {
            "a": str(a),
            "b": str(b),
            "identical": found.identical,
            "different": found.different,
            "differences": [asdict(difference) for difference in found.differences],
            "levels": [asdict(compared) for compared in found.levels],
        }
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo("\n".join(_diff_lines(a, b, found)))
    return int(found.different)


def _diff_lines(a: Path, b: Path, found: PackDiff) -> list[str]:
    if found.identical:
        return [f"{a} and {b} are identical"]
    lines = [
        f"{difference.what}: {_short(difference.a)} | {_short(difference.b)}"
        for difference in found.differences
    ]
    for level in found.levels:
        lines += _level_lines(level)
    if not found.different:
        lines.append(f"{a} and {b} hold the same; only how they were written differs")
    return lines


def _level_lines(level: LevelDiff) -> list[str]:
    lines = [
        f"level {level.level_m:g} m: {counted(level.only_a, 'tile')} only in the first, "
        f"{level.only_b} only "
        f"in the second, {level.same} with the same vector, {level.changed} with another"
    ]
    if level.changed:
        cosine = ", ".join(f"{name} {value}" for name, value in level.cosine.items())
        lines.append(f"  cosine of the changed ones: {cosine}")
    lines += [
        f"  changed most at {place.lat:.6f},{place.lon:.6f}: cosine {place.cosine}"
        for place in level.most_changed
    ]
    return lines


def _short(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _region(
    bbox: str | None, area: Path | None, route: Path | None, width: str | None
) -> BBox | Area:
    """Return the one region that was given."""
    from ..core.geo import BBox
    from .area import read_area, read_route
    from .cli import _bbox

    if sum(given is not None for given in (bbox, area, route)) != 1:
        raise click.UsageError("--bbox, --area and --route: give one of them.")
    if (route is None) != (width is None):
        raise click.UsageError("--route and --width go together.")
    if area is not None:
        return read_area(area)
    if route is not None:
        return read_route(route, parse_metres(width or "", "--width"))
    box = _bbox(bbox or "")
    assert isinstance(box, BBox)
    return box


def _show(path: Path, as_json: bool, more: dict[str, Any]) -> None:
    """Tell what was written, as `s4g-pack info` does."""
    from .info import pack_info, pack_text
    from .reader import open_pack

    with open_pack(path) as pack:
        told = pack_info(pack)
    click.echo(json.dumps({**told, **more}, indent=2) if as_json else pack_text(told))
