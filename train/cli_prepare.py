"""`s4g-train prepare`: a recipe's imagery in one file, for a machine without the data folder."""

from __future__ import annotations

from pathlib import Path

import click

from ..core.console import debug_option, progress, say
from ..core.errors import InputError


@click.command("prepare")
@click.option(
    "--recipe", "recipe_name", required=True, help="A shipped recipe's name, or a .toml file."
)
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="Folder with the imagery."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New file: .grounds.")
@click.option(
    "--quality",
    type=click.IntRange(1, 100),
    default=90,
    show_default=True,
    help="Of WebP, 1 to 100.",
)
@click.option(
    "--lossless", is_flag=True, help="Keep every pixel as it is; about five times larger."
)
@click.option("--overwrite", is_flag=True, help="Replace an existing --out.")
@debug_option
def prepare(
    recipe_name: str, data: Path, out: Path, quality: int, lossless: bool, overwrite: bool
) -> None:
    """Write the imagery of a recipe's [[ground]] entries into one file.

    It is cut, split and compressed, and trains where neither the data folder nor rasterio is:
    s4g-train --recipe R --grounds FILE. Procedural worlds are not in it: they are made at every
    start.

    Example: s4g-train prepare --recipe edge --data DATA --out edge.grounds
    """
    from .grounds import check_sources
    from .grounds_file import LOSSLESS, write_grounds_file
    from .recipe import load_recipe

    recipe = load_recipe(recipe_name)
    if recipe.data is not None:
        raise InputError(
            f"--recipe {recipe_name}: has a [data] set, whose files are read as they are; only "
            "[[ground]] imagery is prepared"
        )
    check_sources(recipe.grounds, data, "prepare a recipe without these entries")
    with progress("imagery", len(recipe.grounds), "sources") as tick:
        count, held_out = write_grounds_file(
            out,
            recipe.grounds,
            data,
            LOSSLESS if lossless else quality,
            overwrite,
            lambda: tick(1),
        )
    say(f"{out}: {count} grounds, {held_out} of them held out, {out.stat().st_size / 1e6:.1f} MB")
