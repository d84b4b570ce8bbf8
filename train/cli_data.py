"""`s4g-train data`: is a data set whole?"""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..core.console import debug_option
from .dataset import DATA_KINDS


@click.group("data", no_args_is_help=False)
def data() -> None:
    """Look at a data set on disk; see `s4g-train data check --help`."""


@data.command("check")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(DATA_KINDS), help="Which set; else told by its files.")
@click.option(
    "--area", type=click.Choice(["same", "cross"]), default="same", help="VIGOR, GTA-UAV."
)
@click.option("--height", "height_m", type=int, default=150, help="SUES-200: metres.")
@click.option("--recipe", "recipe_name", help="Take kind and part from this recipe's [data].")
@click.option("--counts-only", is_flag=True, help="Do not look at every file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@debug_option
def check(
    folder: Path,
    kind: str | None,
    area: str,
    height_m: int,
    recipe_name: str | None,
    counts_only: bool,
    as_json: bool,
) -> int:
    """Count a data set's pictures against the official numbers and look at every file's header.

    Exits with 1 where something is missing, damaged or of another number than published.

    Example: s4g-train data check University-Release
    """
    from .data_check import (
        check_dataset,
        check_files,
        detect_kind,
        format_counts,
        format_files,
        is_complete,
    )
    from .dataset import DataConfig
    from .datasets import open_dataset
    from .recipe import load_recipe

    if recipe_name is not None:
        config = load_recipe(recipe_name).data
    elif kind is not None:
        config = DataConfig(kind, area=area, height_m=height_m)
    else:
        config = detect_kind(folder)
    if config is None:
        raise click.UsageError(f"--recipe {recipe_name}: has no [data] table")
    dataset = open_dataset(config, folder)
    counts = check_dataset(dataset)
    files = None if counts_only else check_files(dataset)
    complete = is_complete(counts, files)
    if as_json:
        table = [{"what": c.what, "found": c.found, "official": c.official} for c in counts]
        looked = None
        if files is not None:
            looked = {
                "files": files.files,
                "missing": list(files.missing),
                "unreadable": list(files.unreadable),
            }
        print(
            json.dumps(
                {"name": dataset.name, "counts": table, "files": looked, "complete": complete}
            )
        )
    else:
        print(f"{dataset.name}\n{format_counts(counts)}")
        if files is not None:
            print(format_files(files))
        print("complete" if complete else "not complete")
    return 0 if complete else 1
