"""What each part of a training brings: variants of one recipe on the same imagery, judged alike.

VARIANTS is a TOML file: `recipe`, `set` (changes to all, as `s4g-train --set` takes them) and a
list of `[[variant]]`, each with `name`, `set` and, if not all, the `sources` that train (numbers
of the recipe's [[ground]] entries). "{out}" in a change stands for the folder OUT. Imagery is
loaded once. Every variant is judged on the held-out views of the recipe itself, whatever the
variant changes, 200 a region; one that is done is not trained again, one that was cut off goes on.

\b
Example:
    s4g-train prepare --recipe edge --data DATA --out edge.grounds
    python benchmarks/train_variants.py benchmarks/train_variants.toml --grounds edge.grounds \\
        --out RUNS

\b
On a CPU, a smaller network on smaller pictures:
    python benchmarks/train_variants.py benchmarks/train_variants.toml --data DATA --out RUNS \\
        --set model.backbone=resnet10t --set model.input_px=64 --set optim.batch_pairs=128
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from s4g.core.console import run_command, say
from s4g.core.errors import InputError
from s4g.core.files import write_bytes
from s4g.train.checkpoint import CHECKPOINT_NAME, load_checkpoint
from s4g.train.device_imagery import DeviceImagery
from s4g.train.evaluate import HIT_FOOTPRINTS, ValidationRegion, embed, validation_regions
from s4g.train.ground_source import GroundSource
from s4g.train.grounds import Ground
from s4g.train.loop import Trainer
from s4g.train.model import MEAN, STD
from s4g.train.opening import open_grounds, torch_device
from s4g.train.recipe import Recipe, load_recipe
from s4g.train.state import STATE_NAME

QUERIES, FEW = 200, 40
RESULT = "result.json"


@click.command(help=__doc__)
@click.argument("variants", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), envvar="S4G_DATA", help="Imagery.")
@click.option("--grounds", "prepared", type=click.Path(path_type=Path), help="A grounds file.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the runs.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="To all variants.")
@click.option("--only", multiple=True, metavar="NAME", help="Of these; repeatable.")
@click.option("--device", default="auto", show_default=True, help="Where to train.")
@click.option("--workers", default=4, show_default=True, help="Threads that plan batches.")
@click.option("--minutes", type=float, default=math.inf, help="Stop training after so many.")
def cli(
    variants: Path,
    data: Path | None,
    prepared: Path | None,
    out: Path,
    changes: tuple[str, ...],
    only: tuple[str, ...],
    device: str,
    workers: int,
    minutes: float,
) -> None:
    """Train what is not trained yet and print the table."""
    until = time.monotonic() + 60 * minutes
    plan = tomllib.loads(variants.read_text())
    plan["set"] = (*plan.get("set", ()), *changes)
    chosen = [v for v in plan["variant"] if not only or v["name"] in only]
    if not chosen:
        raise InputError(f"--only {', '.join(only)}: {variants} names no such variant")
    recipe = load_recipe(plan["recipe"], plan["set"])
    place = torch.device(torch_device(device))
    grounds = open_grounds(recipe, None if prepared else data, prepared=prepared)
    views = Views(recipe, grounds, place)
    say(f"{len(grounds)} grounds, {views.count} views to judge by")
    for variant in chosen:
        run = out / variant["name"].replace(" ", "_")
        if not (run / RESULT).is_file() and time.monotonic() < until:
            train(variant, plan, views, run, workers, until)
    click.echo(table(chosen, out), nl=False)


class Views:
    """Imagery on the device and the held-out views of the recipe, cut once for each input size."""

    def __init__(self, recipe: Recipe, grounds: list[Ground], device: torch.device) -> None:
        """Cut those of the recipe itself."""
        self.grounds, self.device, self.recipe = grounds, device, recipe
        self.imagery: DeviceImagery | None = None
        self._cut: dict[int, list[ValidationRegion]] = {}
        self.count = sum(len(region.queries) for region in self.of(recipe.model.input_px))

    def of(self, input_px: int) -> list[ValidationRegion]:
        """Return the regions for a network of this input."""
        if input_px not in self._cut:
            model = dataclasses.replace(self.recipe.model, input_px=input_px)
            sized = dataclasses.replace(self.recipe, model=model)
            self._cut[input_px] = validation_regions(self.grounds, sized, QUERIES)
        return self._cut[input_px]

    def source(self, recipe: Recipe, only: list[int] | None, workers: int) -> GroundSource:
        """Return the batches of a variant."""
        grounds = [
            ground if only is None or ground.source in only else _silent(ground)
            for ground in self.grounds
        ]
        # Validating while training takes time, and chooses nothing here but when to mine.
        regions = [
            dataclasses.replace(r, queries=r.queries[:FEW], query_xy=r.query_xy[:FEW])
            for r in self.of(recipe.model.input_px)
        ]
        source = GroundSource(
            grounds, recipe, self.device, workers, regions=regions, imagery=self.imagery
        )
        self.imagery = source.imagery
        return source


def _silent(ground: Ground) -> Ground:
    return dataclasses.replace(ground, weight=0.0)


def train(
    variant: dict[str, Any],
    plan: dict[str, Any],
    views: Views,
    run: Path,
    workers: int,
    until: float,
) -> None:
    """Train one variant and write its result, unless it is cut off."""
    changes = [text.replace("{out}", str(run.parent)) for text in variant.get("set", [])]
    recipe = load_recipe(plan["recipe"], (*plan["set"], *changes))
    resuming = (run / STATE_NAME).is_file()
    run.mkdir(parents=True, exist_ok=True)
    source = views.source(recipe, variant.get("sources"), workers)
    trainer = Trainer(recipe, source, run, views.device, resuming=resuming)
    if resuming:
        trainer.resume()
    say(f"{variant['name']}: {trainer.steps} steps of {recipe.optim.batch_pairs} pairs")

    def on_step(done: int) -> None:
        if time.monotonic() > until:
            os.kill(os.getpid(), signal.SIGTERM)  # the trainer saves and stops

    if trainer.train(on_step) is None:
        return
    encoder, spec = load_checkpoint(run / CHECKPOINT_NAME)
    result = {
        "pairs": trainer.step * recipe.optim.batch_pairs,
        "seconds": round(trainer.seconds, 1),
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "input_px": spec.input_px,
        "recall_at_1": recall(encoder.to(views.device), views.of(spec.input_px)),
    }
    write_bytes(run / RESULT, json.dumps(result, indent=1).encode(), overwrite=True)


def recall(encoder: torch.nn.Module, regions: list[ValidationRegion]) -> dict[str, float]:
    """Return the share of views whose first tile is right, of all and by [[ground]] entry."""
    hits: dict[str, list[bool]] = {"all": []}
    for region in regions:
        tiles = embed(encoder, region.tiles, MEAN, STD)
        scores = embed(encoder, region.queries, MEAN, STD) @ tiles.T
        first = region.tile_xy[scores.argmax(axis=1)]
        right = np.linalg.norm(first - region.query_xy, axis=1) <= HIT_FOOTPRINTS
        for name in ("all", str(region.source)):
            hits.setdefault(name, []).extend(right.tolist())
    return {name: round(float(np.mean(found)), 4) for name, found in hits.items()}


def table(variants: list[dict[str, Any]], out: Path) -> str:
    """Return the results as a Markdown table; an interval covers chance among views alone."""
    results = []
    for variant in variants:
        path = out / variant["name"].replace(" ", "_") / RESULT
        if path.is_file():
            results.append((variant["name"], json.loads(path.read_text())))
    if not results:
        return "no variant is trained yet\n"
    sources = sorted((k for k in results[0][1]["recall_at_1"] if k != "all"), key=int)
    heads = ["variant", "pairs", "pairs/s", "R@1 of all", *(f"ground {k}" for k in sources)]
    rows = [heads, ["---"] * len(heads)]
    for name, result in results:
        shares = [result["recall_at_1"][k] for k in ("all", *sources)]
        rate = result["pairs"] / max(result["seconds"], 1e-9)
        cells = [f"{100 * share:.1f}" for share in shares]
        rows.append([name, f"{result['pairs']:,}", f"{rate:,.0f}", *cells])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    run_command(cli)
