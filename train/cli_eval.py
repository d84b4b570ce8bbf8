"""`s4g-train eval`: an encoder in, figures of retrieval out."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from ..core.console import debug_option, say
from ..core.errors import InputError
from ..core.files import check_output
from .dataset import DATA_KINDS, DataConfig, RetrievalTask
from .opening import DEVICES

if TYPE_CHECKING:
    from .embedders import Embedder
    from .recipe import Recipe
    from .report import Scored

# The options that say which part of a data set, by their name in `DataConfig`.
_PART_OPTIONS = {
    "area": "--area",
    "height_m": "--height",
    "photos": "--photos",
    "source": "--source",
    "footprint_m": "--footprint",
    "stride": "--stride",
}


@click.command("eval")
@click.argument("encoder", type=click.Path(path_type=Path))
@click.option("--recipe", "recipe_name", help="A shipped recipe's name, or a .toml file.")
@click.option("--kind", type=click.Choice(DATA_KINDS), help="A data set, instead of a recipe.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the data set or imagery.")
@click.option(
    "--grounds",
    "prepared",
    type=click.Path(path_type=Path),
    help="[[ground]] recipes: imagery as s4g-train prepare wrote it, in place of --data.",
)
@click.option(
    "--skip-missing",
    is_flag=True,
    help="[[ground]] recipes: leave out entries whose files are absent.",
)
@click.option("--area", type=click.Choice(["same", "cross"]), help="VIGOR, GTA-UAV: which split.")
@click.option("--height", "height_m", type=int, help="SUES-200: 150, 200, 250 or 300 metres.")
@click.option("--photos", help="own: CSV or folder of photos, below --data.")
@click.option("--source", help="own: imagery to cut tiles from, below --data.")
@click.option("--footprint", "footprint_m", type=float, help="own: side of a tile, metres.")
@click.option("--stride", type=float, help="own: step between tiles, share of the footprint.")
@click.option(
    "--protocol",
    type=click.Choice(["all", "official", "reduced"]),
    default="all",
    show_default=True,
    help="University-1652, SUES-200: gallery with distractors, without, or both.",
)
@click.option("--dims", default="", help="Also score these prefixes, such as 64,128.")
@click.option("--out", type=click.Path(path_type=Path), help="New folder: eval.json, eval.html.")
@click.option("--overwrite", is_flag=True, help="Replace an existing --out.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Images embedded at a time.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Processes that read images.",
)
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="auto",
    show_default=True,
    help="Where to compute.",
)
@debug_option
def evaluate(
    encoder: Path,
    recipe_name: str | None,
    kind: str | None,
    data: Path | None,
    prepared: Path | None,
    skip_missing: bool,
    protocol: str,
    dims: str,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    batch: int,
    workers: int,
    device: str,
    **part: Any,
) -> None:
    """Evaluate a checkpoint or an exported engine on a data set's test split.

    Every row of the output names its protocol and the size of its gallery. A recipe of [[ground]]
    imagery is validated on its held-out places instead (checkpoints only).

    Example: s4g-train eval encoder.safetensors --kind university1652 --data D --out report
    """
    part = {name: value for name, value in part.items() if value is not None}
    recipe, config = _what(recipe_name, kind, part)
    if recipe is not None and config is None:
        if out is not None or dims or protocol != "all":
            raise InputError(
                f"--recipe {recipe_name}: trains on [[ground]] imagery, for which there is no "
                "--out, --dims or --protocol; leave them away"
            )
        _evaluate_grounds(encoder, recipe, data, prepared, skip_missing, device, as_json)
        return
    if prepared is not None or skip_missing:
        option = "--skip-missing" if prepared is None else f"--grounds {prepared}"
        raise InputError(f"{option}: means nothing to a data set, only to [[ground]] imagery")
    assert config is not None, "a kind, or a recipe with a [data] table"

    from .datasets import open_dataset
    from .embedders import open_embedder
    from .opening import torch_device
    from .page import render_page
    from .report import as_table, document, write_report

    if data is None:
        raise InputError(f"{config.kind}: give the folder of the data set with --data")
    if out is not None:
        _check_out(out, overwrite)
    place = torch_device(device)
    tasks = _chosen(open_dataset(config, data).tasks(), protocol, config.kind)
    embedder = open_embedder(encoder, device)
    lengths = _lengths(dims, embedder.spec.embedding_dim)
    scored = _score_all(tasks, embedder, lengths, place, batch, workers, out)
    content = document(embedder.file, embedder.format, embedder.spec, config, data, place, scored)
    print(json.dumps(content, indent=2) if as_json else as_table(content))
    if out is not None:
        write_report(out, content, render_page(content, scored, embedder.size_px), overwrite)
        say(f"report: {out}")


def _what(
    recipe_name: str | None, kind: str | None, part: dict[str, Any]
) -> tuple[Recipe | None, DataConfig | None]:
    """Return the recipe, if one is named, and the data set, if it is one."""
    if (recipe_name is None) == (kind is None):
        raise InputError("give one of --recipe NAME and --kind KIND")
    if recipe_name is None:
        return None, DataConfig(kind or "", **part)
    from .recipe import load_recipe

    if part:
        option = _PART_OPTIONS[next(iter(part))]
        raise InputError(f"{option}: the recipe says which part of the data; leave it away")
    recipe = load_recipe(recipe_name)
    return recipe, recipe.data


def _check_out(out: Path, overwrite: bool) -> None:
    """Refuse early what cannot be written, and a folder that holds more than a report."""
    from .report import JSON_NAME, PAGE_NAME

    check_output(out, overwrite)
    if out.is_dir():
        others = sorted({p.name for p in out.iterdir()} - {JSON_NAME, PAGE_NAME})
        if others:
            raise InputError(
                f"--out {out}: holds other files, such as {others[0]}, which --overwrite would "
                "remove; choose another folder"
            )


def _chosen(tasks: list[RetrievalTask], protocol: str, kind: str) -> list[RetrievalTask]:
    """Return the tasks of a protocol; what is not reduced is official."""
    kept = [
        task
        for task in tasks
        if protocol == "all" or task.protocol.startswith("reduced") == (protocol == "reduced")
    ]
    if not kept:
        raise InputError(f"--protocol {protocol}: {kind} has no such protocol; use --protocol all")
    return kept


def _lengths(dims: str, whole: int) -> list[int]:
    """Return the lengths to score, the whole embedding first."""
    try:
        asked = {int(text) for text in dims.split(",")} if dims else set()
    except ValueError:
        asked = {0}
    if any(not 0 < dim <= whole for dim in asked):
        raise InputError(
            f"--dims {dims}: expected whole numbers from 1 to {whole}, the length of this "
            "encoder's embedding, such as 64,128"
        )
    return [whole, *sorted(asked - {whole}, reverse=True)]


def _score_all(
    tasks: Sequence[RetrievalTask],
    embedder: Embedder,
    lengths: list[int],
    device: str,
    batch: int,
    workers: int,
    out: Path | None,
) -> list[Scored]:
    from .embedders import EmbeddedImages
    from .report import Scored
    from .retrieval import score

    scored = []
    with TemporaryDirectory(prefix=".s4g-eval.", dir=out.parent if out else None) as folder:
        embedded = EmbeddedImages(embedder, Path(folder), batch, workers)
        for task in tasks:
            say(f"{task.name}, {task.protocol}")
            start_s = time.perf_counter()
            queries = embedded.of(task.queries, task.query_view, "queries")
            gallery = embedded.of(task.gallery, task.gallery_view, "gallery")
            embedding_s = time.perf_counter() - start_s
            for dim in lengths:
                start_s = time.perf_counter()
                result = score(task, queries, gallery, device, dim=dim)
                scoring_s = time.perf_counter() - start_s
                scored.append(Scored(task, result, embedding_s, scoring_s))
                embedding_s = 0.0
    return scored


def _evaluate_grounds(
    checkpoint: Path,
    recipe: Recipe,
    data: Path | None,
    prepared: Path | None,
    skip_missing: bool,
    device: str,
    as_json: bool,
) -> None:
    from .opening import check_imagery_options, validate_on_grounds, without_missing

    check_imagery_options(recipe, data, prepared, skip_missing)
    if skip_missing:
        recipe = without_missing(recipe, data)
    result = validate_on_grounds(checkpoint, recipe, data, device, prepared)[2]
    if as_json:
        print(json.dumps(result.as_dict()))
        return
    for name, recall in result.by_region.items():
        print(f"{recall:6.3f}  {name}")
    for k, recall in result.recall.items():
        print(f"R@{k:<3} {recall:.3f}")
    print(f"median error {result.median_error:.2f} footprints")
    print(f"temperature {result.temperature:.4f}, unknown score {result.unknown_score:.3f}, which")
    print(f"recognises {100 * result.unknown_recognised:.0f} % of the views of foreign ground")
