"""What `s4g-pack` shows of a pack before a flight: pictures, hard places, files for a GIS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.console import debug_option, parse_metres, progress, say
from ..core.errors import InputError
from .cli_out import out_file
from .words import counted

if TYPE_CHECKING:
    from .ambiguity import Ambiguity
    from .area import Area
    from .reader import Pack

_FILE = click.Path(path_type=Path)
_TIFF = (".tif", ".tiff")
_PICTURE = out_file(".png", *_TIFF)
_ROWS = 10  # stretches that are told; --json has all
_level_option = click.option(
    "--level", type=float, help="Footprint of the level, metres.  [default: the finest]"
)
_tiles_option = click.option(
    "--tiles",
    type=click.IntRange(2),
    help="Compare at most so many tiles, evenly spread, with all others.  [default: 20000]",
)
_overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an existing file.")


@click.command()
@click.argument("pack", type=_FILE)
@click.option("--out", required=True, type=_PICTURE, help="What to write: .png, or .tif for a GIS.")
@_level_option
@_overwrite_option
@debug_option
def preview(pack: Path, out: Path, level: float | None, overwrite: bool) -> None:
    """Draw what a pack covers, and how much there is to see in each tile.

    Example: s4g-pack preview region.s4gpack --out region.png
    """
    from ..core.files import check_output, write_bytes
    from .geotiff import write_detail
    from .pictures import draw_preview
    from .reader import open_pack

    check_output(out, overwrite)
    with open_pack(pack) as opened:
        number = _level(opened, level)
        if out.suffix.lower() in _TIFF:
            write_detail(out, opened, number, overwrite)
        else:
            write_bytes(out, draw_preview(opened, number), overwrite)
    click.echo(str(out))


@click.command()
@click.argument("pack", type=_FILE)
@click.option("--out", type=_PICTURE, help="Also write it: .png, or .tif for a GIS.")
@click.option(
    "--route", type=_FILE, help="Tell it along a route: GPX, GeoJSON, .waypoints or .plan."
)
@click.option("--spacing", help="Of the samples along it, for example 50m.  [default: the stride]")
@_level_option
@_tiles_option
@_overwrite_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, of a route with every sample.")
@debug_option
def ambiguity(
    pack: Path,
    out: Path | None,
    route: Path | None,
    spacing: str | None,
    level: float | None,
    tiles: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Tell where a region will be hard: how like each tile the most similar place elsewhere is.

    \b
    Examples:
      s4g-pack ambiguity region.s4gpack --out hard.png
      s4g-pack ambiguity region.s4gpack --route plan.waypoints --out hard.png
    """
    from ..core.files import check_output
    from .area import read_route
    from .reader import open_pack

    if tiles is not None and route is not None:
        raise click.UsageError("--tiles has no effect with --route; all along it are compared.")
    if spacing is not None and route is None:
        raise click.UsageError("--spacing goes with --route.")
    spacing_m = None if spacing is None else parse_metres(spacing, "--spacing")
    if out is not None:
        if route is not None and out.suffix.lower() in _TIFF:
            raise InputError(f"--out {out}: expected a name that ends in .png")
        check_output(out, overwrite)
    line = None if route is None else read_route(route, 1.0)
    with open_pack(pack) as opened:
        number = _level(opened, level)
        if line is not None:
            stride_m = opened.levels[number].stride_m
            if spacing_m is not None and spacing_m > stride_m:
                say(
                    f"note: samples {spacing_m:g} m apart, tiles every {stride_m:g} m: what is "
                    "hard between samples is missed"
                )
            spacing_m = spacing_m or stride_m
            _along(opened, number, line, spacing_m, out, overwrite, as_json)
        else:
            _everywhere(opened, number, tiles, out, overwrite, as_json)
    if out is not None and not as_json:
        click.echo(str(out))


@click.command()
@click.argument("pack", type=_FILE)
@click.option(
    "--out", required=True, type=out_file(".gpkg"), help="The GeoPackage to write (.gpkg)."
)
@click.option("--level", type=float, help="Footprint of the level, metres.  [default: all]")
@click.option("--ambiguity", "compare", is_flag=True, help="Tell also where it will be hard.")
@_tiles_option
@_overwrite_option
@debug_option
def export(
    pack: Path, out: Path, level: float | None, compare: bool, tiles: int | None, overwrite: bool
) -> None:
    """Write a pack for QGIS: tiles with what is known about them, the region and its picture.

    Example: s4g-pack export region.s4gpack --out region.gpkg --ambiguity
    """
    from ..core.files import check_output
    from .geopackage import export_geopackage
    from .reader import open_pack

    if tiles is not None and not compare:
        raise click.UsageError("--tiles goes with --ambiguity.")
    check_output(out, overwrite)
    with open_pack(pack) as opened:
        levels = range(len(opened.levels)) if level is None else [_level(opened, level)]
        found = {number: _compared(opened, number, tiles) for number in levels if compare}
        export_geopackage(opened, out, levels, found, overwrite, progress)
    click.echo(str(out))


def _compared(pack: Pack, level: int, tiles: int | None) -> Ambiguity:
    from .ambiguity import MAX_TILES, find_ambiguity

    record = pack.levels[level]
    most = min(tiles or MAX_TILES, record.count)
    with progress("comparing tiles", most) as advance:
        found = find_ambiguity(pack, level, most, advance)
    if len(found.tiles) < record.count:
        say(
            f"note: level {record.footprint_m:g} m: {len(found.tiles)} of {record.count} tiles "
            f"compared with all; --tiles {record.count} compares every one"
        )
    _note_unknown(pack, level)
    return found


def _note_unknown(pack: Pack, level: int) -> None:
    record = pack.levels[level]
    if record.stride_m >= record.footprint_m:
        say(
            f"note: level {record.footprint_m:g} m: its tiles do not overlap, so that nothing "
            "tells how like a tile a frame is: none is called hard"
        )


def _everywhere(
    pack: Pack, level: int, tiles: int | None, out: Path | None, overwrite: bool, as_json: bool
) -> None:
    import numpy as np

    from ..core.files import write_bytes
    from .geotiff import write_ambiguity
    from .pictures import draw_ambiguity

    found, record = _compared(pack, level, tiles), pack.levels[level]
    if (found.rival < 0).all():
        raise InputError(
            f"{pack.path}: level {record.footprint_m:g} m: its tiles are all less than a footprint "
            "apart, there is no other place to compare them with; choose a finer --level"
        )
    if out is not None and out.suffix.lower() in _TIFF:
        write_ambiguity(out, pack, level, found, overwrite)
    elif out is not None:
        write_bytes(out, draw_ambiguity(pack, level, found), overwrite)
    worst = np.argsort(-found.hardness, kind="stable")[:5]
    lat, lon = pack.frame.to_wgs84(found.east_m[worst], found.north_m[worst])
    cosine = {
        name: round(float(np.percentile(found.cosine, share)), 4)
        for name, share in (("p5", 5), ("p50", 50), ("p95", 95), ("max", 100))
    }
    hardest = [
        {
            "lat": round(float(lat[i]), 7),
            "lon": round(float(lon[i]), 7),
            "cosine": round(float(found.cosine[row]), 4),
            "rival_away_m": _rounded(found.away_m[row], 1),
            "margin": _rounded(found.margin[row], 4),
            "hard": bool(found.hard[row]),
        }
        for i, row in enumerate(worst)
    ]
    hard = round(float(found.hard.mean()), 4)
    if as_json:
        told = {"file": str(pack.path), "level_m": record.footprint_m, "tiles": len(found.tiles)}
        click.echo(
            json.dumps({**told, "hard": hard, "cosine": cosine, "hardest": hardest}, indent=2)
        )
        return
    click.echo(
        f"level {record.footprint_m:g} m, {counted(len(found.tiles), 'tile')}: the most similar "
        f"place elsewhere has a cosine of {cosine['p50']} (median), {cosine['p95']} (95 %), "
        f"{cosine['max']} (most); {hard:.1%} of them are hard"
    )
    for place in hardest:
        if place["rival_away_m"] is not None:
            margin = "" if place["margin"] is None else f", margin {place['margin']}"
            click.echo(
                f"  {'hard' if place['hard'] else 'least safe'} at {place['lat']:.6f},"
                f"{place['lon']:.6f}: cosine {place['cosine']} to a place "
                f"{place['rival_away_m']:.0f} m away{margin}"
            )


def _along(
    pack: Pack,
    level: int,
    route: Area,
    spacing_m: float,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    from ..core.files import write_bytes
    from .ambiguity_route import OUTSIDE, look_ahead, route_text, route_values, stretches
    from .pictures import draw_route

    ahead = look_ahead(pack, level, route, spacing_m, progress)
    _note_unknown(pack, level)
    if (ahead.kind == OUTSIDE).all():
        say(f"note: {route.name} lies wholly outside {pack.path}, which covers {pack.bounds}")
    found = stretches(ahead)
    if out is not None:
        name = Path(route.name).name
        write_bytes(out, draw_route(pack, level, ahead, found, name), overwrite)
    if as_json:
        told: dict[str, Any] = {
            "file": str(pack.path),
            "level_m": pack.levels[level].footprint_m,
            "route": route.name,
            "spacing_m": spacing_m,
        }
        click.echo(json.dumps({**told, **route_values(pack, ahead, found)}, indent=2))
    else:
        click.echo(route_text(pack, ahead, found, _ROWS))


def _level(pack: Pack, footprint_m: float | None) -> int:
    if footprint_m is None:
        return 0
    footprints = [level.footprint_m for level in pack.levels]
    if footprint_m not in footprints:
        raise InputError(
            f"--level {footprint_m:g}: {pack.path} has {', '.join(f'{v:g}' for v in footprints)}"
        )
    return footprints.index(footprint_m)


def _rounded(value: float, digits: int) -> float | None:
    """Return a number that JSON has: none for what is not finite."""
    return round(float(value), digits) if abs(value) < float("inf") else None
