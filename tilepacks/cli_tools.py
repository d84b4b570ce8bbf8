"""What `s4g-pack` does with packs that exist: keys, signatures, verification."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from pathlib import Path

import click

from ..core.console import debug_option, progress, say
from .cli_out import key_name
from .words import counted

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("name", type=key_name)
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
    from .format import open_container
    from .pack_set import INDEX, is_set, open_set
    from .signature import key_id, sign_pack

    signed_file = pack
    if is_set(pack):
        signed_file = pack / INDEX
        with open_set(pack) as packs, progress("signing", len(packs.packs), "packs") as advance:
            packs.verify()
            for one in packs.packs:
                sign_pack(pack / one.file, key)
                advance(1)
    with closing(open_container(signed_file)) as container:
        before = None if container.seal is None else key_id(container.seal.public_key)
    signed = sign_pack(signed_file, key)
    if before not in (None, signed):
        say(f"note: the signature of key {before} was replaced")
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
    from .pack_set import is_set, open_set
    from .reader import open_pack
    from .signature import check_signature, read_public_key

    trusted = None if key is None else read_public_key(key)
    strangers: list[str] = []
    with ExitStack() as stack:
        if is_set(pack):
            packs = stack.enter_context(open_set(pack))
            advance = stack.enter_context(progress("verifying", len(packs.packs), "packs"))
            packs.verify(advance)
            strangers = [path.name for path in packs.strangers]
            container, tiles = packs.container, packs.tiles
        else:
            opened = stack.enter_context(open_pack(pack))
            opened.verify()
            container, tiles = opened.container, sum(level.count for level in opened.levels)
        signed = None
        if trusted is not None or container.seal is not None:
            signed = check_signature(container, trusted)
    for name in strangers:
        say(f"note: {pack / name}: is no part of the set and was not verified")
    if as_json:
        told = {"file": str(pack), "tiles": tiles, "signed_by": signed}
        click.echo(json.dumps({**told, "not_verified": strangers} if is_set(pack) else told))
        return
    who = "not signed" if signed is None else f"signed by key {signed}"
    click.echo(
        f"{pack}: whole, {counted(tiles, 'tile')}, {who}" + (", which you trust" if trusted else "")
    )
