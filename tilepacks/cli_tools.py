"""What `s4g-pack` does with packs that exist: keys, signatures, verification."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..core.console import debug_option

_FILE = click.Path(path_type=Path)


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

    Of a set of packs every pack is signed, and then the index.

    Example: s4g-pack sign region.s4gpack --key ops.key
    """
    from .pack_set import is_set
    from .signature import sign_pack, sign_set

    if is_set(pack):
        with progress("signing", None, "packs") as advance:
            signed = sign_set(pack, key, advance)
    else:
        signed = sign_pack(pack, key)
    click.echo(f"{pack}: signed by key {signed}")


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
