"""What `s4g-pack` does with packs that exist: keys, signatures, pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..core.console import debug_option, progress
from ..core.errors import InputError

if TYPE_CHECKING:
    from .reader import Pack

_FILE = click.Path(path_type=Path)
_level_option = click.option(
    "--level", type=float, help="Footprint of the level, metres.  [default: the finest]"
)


@click.command()
@click.argument("name", type=_FILE)
@click.option("--overwrite", is_flag=True, help="Replace existing keys.")
@debug_option
def keygen(name: Path, overwrite: bool) -> None:
    """Make a key to sign packs with: NAME.key, to be kept secret, and NAME.pub for every drone.

    Example: s4g-pack keygen ops
    """
    from .signature import key_id, make_keys, read_public_key

    private, public = make_keys(name, overwrite)
    click.echo(f"{private}: keep it secret")
    click.echo(f"{public}: key {key_id(read_public_key(public))}, give it to those who fly")


@click.command()
@click.argument("pack", type=_FILE)
@click.option("--key", required=True, type=_FILE, help="The .key file of s4g-pack keygen.")
@debug_option
def sign(pack: Path, key: Path) -> None:
    """Verify a pack and sign it: s4g-run --require-signature then takes no other.

    Example: s4g-pack sign region.s4gpack --key ops.key
    """
    from .signature import sign_pack

    click.echo(f"{pack}: signed by key {sign_pack(pack, key)}")


@click.command()
@click.argument("pack", type=_FILE)
@click.option("--key", type=_FILE, help="The .pub file of whoever must have signed it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@debug_option
def verify(pack: Path, key: Path | None, as_json: bool) -> None:
    """Check every byte and every value of a pack, and its signature; exit code 2 if it is damaged.

    Example: s4g-pack verify region.s4gpack --key ops.pub
    """
    from .reader import open_pack
    from .signature import check_signature, read_public_key

    trusted = None if key is None else read_public_key(key)
    with open_pack(pack) as opened:
        opened.verify()
        signed = None
        if trusted is not None or opened.container.seal is not None:
            signed = check_signature(opened.container, trusted)
        tiles = sum(level.count for level in opened.levels)
    if as_json:
        click.echo(json.dumps({"file": str(pack), "tiles": tiles, "signed_by": signed}))
        return
    who = "not signed" if signed is None else f"signed by key {signed}"
    click.echo(f"{pack}: whole, {tiles} tiles, {who}" + (", which you trust" if trusted else ""))


@click.command()
@click.argument("pack", type=_FILE)
@click.option("--out", required=True, type=_FILE, help="The picture to write (.png).")
@_level_option
@click.option("--overwrite", is_flag=True, help="Replace an existing picture.")
@debug_option
def preview(pack: Path, out: Path, level: float | None, overwrite: bool) -> None:
    """Draw what a pack covers, and how much there is to see in each tile.

    Example: s4g-pack preview region.s4gpack --out region.png
    """
    from ..core.files import check_output, write_bytes
    from .pictures import draw_preview
    from .reader import open_pack

    check_output(out, overwrite)
    with open_pack(pack) as opened:
        write_bytes(out, draw_preview(opened, _level(opened, level)), overwrite)
    click.echo(str(out))


@click.command()
@click.argument("pack", type=_FILE)
@click.option("--out", type=_FILE, help="A picture of it to write (.png).")
@_level_option
@click.option(
    "--tiles",
    type=click.IntRange(2),
    default=20_000,
    show_default=True,
    help="Compare at most so many tiles with all others.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing picture.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@debug_option
def ambiguity(
    pack: Path, out: Path | None, level: float | None, tiles: int, overwrite: bool, as_json: bool
) -> None:
    """Tell where a region will be hard: how like each tile the most similar place elsewhere is.

    Example: s4g-pack ambiguity region.s4gpack --out hard.png
    """
    import numpy as np

    from ..core.files import check_output, write_bytes
    from .ambiguity import find_ambiguity
    from .pictures import draw_ambiguity
    from .reader import open_pack

    if out is not None:
        check_output(out, overwrite)
    with open_pack(pack) as opened:
        number = _level(opened, level)
        record = opened.levels[number]
        with progress("comparing", min(tiles, record.count), "tiles") as advance:
            found = find_ambiguity(opened, number, tiles, advance)
        if out is not None:
            write_bytes(out, draw_ambiguity(opened, number, found), overwrite)
        worst = np.argsort(-found.cosine, kind="stable")[:5]
        lat, lon = opened.frame.to_wgs84(found.east_m[worst], found.north_m[worst])
        cosine = {
            name: round(float(np.percentile(found.cosine, share)), 4)
            for name, share in (("p5", 5), ("p50", 50), ("p95", 95), ("max", 100))
        }
        hardest = [
            {
                "lat": round(float(lat[i]), 7),
                "lon": round(float(lon[i]), 7),
                "cosine": round(float(found.cosine[row]), 4),
                "rival_away_m": round(float(found.away_m[row]), 1),
            }
            for i, row in enumerate(worst)
        ]
    if as_json:
        told = {"file": str(pack), "level_m": record.footprint_m, "tiles": len(found.tiles)}
        click.echo(json.dumps({**told, "cosine": cosine, "hardest": hardest}, indent=2))
        return
    click.echo(
        f"level {record.footprint_m:g} m, {len(found.tiles)} tiles: the most similar place "
        f"elsewhere has a cosine of {cosine['p50']} (median), {cosine['p95']} (95 %), "
        f"{cosine['max']} (most)"
    )
    for place in hardest:
        click.echo(
            f"  hard at {place['lat']:.6f},{place['lon']:.6f}: cosine {place['cosine']} to a "
            f"place {place['rival_away_m']:.0f} m away"
        )
    if out is not None:
        click.echo(str(out))


def _level(pack: Pack, footprint_m: float | None) -> int:
    if footprint_m is None:
        return 0
    footprints = [level.footprint_m for level in pack.levels]
    if footprint_m not in footprints:
        raise InputError(
            f"--level {footprint_m:g}: {pack.path} has {', '.join(f'{v:g}' for v in footprints)}"
        )
    return footprints.index(footprint_m)
