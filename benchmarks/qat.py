"""Measure what quantisation-aware fine-tuning brings over the same fine-tuning without it.

`python benchmarks/qat.py CHECKPOINT --recipe benchmarks/int8_backbones.toml --data DATA --out runs`

Both trainings see the same pairs and have the same length and learning rate. Their weights at the
end (not the best of the training) are judged with layers rounded to --bits and in float, on the
recipe's held-out grounds. Few bits make INT8's error large, for networks that lose nothing at 8.
The checkpoints stay in --out, to be exported and compared as files.
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import click
import torch

from s4g.core.console import run_command
from s4g.core.errors import InputError
from s4g.train import qat
from s4g.train.checkpoint import load_checkpoint
from s4g.train.evaluate import ValidationRegion, embed, validate, validation_regions
from s4g.train.ground_source import GroundSource
from s4g.train.loop import Trainer
from s4g.train.model import MEAN, STD, Encoder
from s4g.train.opening import DEVICES, open_grounds, torch_device, with_overrides
from s4g.train.qat import QatConfig
from s4g.train.recipe import load_recipe


def recall(encoder: Encoder, regions: list[ValidationRegion], bits: int) -> float:
    """Return recall at 1 with layers rounded to `bits`; 0: in float."""
    encoder = copy.deepcopy(encoder).eval()
    if bits:
        qat.GREATEST = 2 ** (bits - 1) - 1
        qat.prepare(encoder, encoder.config.backbone)
    return validate(regions, lambda images: embed(encoder, images, MEAN, STD)).recall[1]


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--recipe", "recipe_name", required=True)
@click.option("--data", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--bits", type=click.IntRange(2, 8), default=8, show_default=True)
@click.option("--steps", type=click.IntRange(min=1))
@click.option("--set", "changes", multiple=True, metavar="TABLE.KEY=VALUE")
@click.option("--threads", type=int)
@click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True)
def main(
    checkpoint: Path,
    recipe_name: str,
    data: Path | None,
    out: Path,
    bits: int,
    steps: int | None,
    changes: tuple[str, ...],
    threads: int | None,
    device: str,
) -> None:
    """Fine-tune CHECKPOINT twice and print a table."""
    if threads:
        torch.set_num_threads(threads)
    place = torch.device(torch_device(device))
    start, spec = load_checkpoint(checkpoint)
    changes = (f"model.backbone='{spec.backbone}'", *changes)
    recipe = load_recipe(recipe_name, changes)
    if recipe.data is not None:
        raise InputError(f"--recipe {recipe_name}: has no [[ground]]; name one that has")
    rounded = with_overrides(recipe, steps, None, None, checkpoint, qat=True)
    plain = dataclasses.replace(rounded, qat=QatConfig())
    grounds = open_grounds(rounded, data)
    regions = validation_regions(grounds, rounded)
    views = sum(len(region.queries) for region in regions)
    optim = rounded.optim
    print(
        f"{spec.backbone}: {optim.steps} steps of {optim.batch_pairs} pairs at "
        f"{optim.learning_rate:g}, R@1 of {views} held-out views\n"
    )
    widths = sorted({8, bits}, reverse=True)
    print(f"{'':34}{'float':>8}" + "".join(f"{f'{width} bits':>8}" for width in widths))
    kinds = {"as trained": None, "fine-tuned": plain, f"fine-tuned with {bits} bits": rounded}
    for name, plan in kinds.items():
        encoder = start.to(place)
        if plan is not None:
            qat.GREATEST = 2 ** (bits - 1) - 1
            run = out / name.replace(" ", "_")
            run.mkdir(parents=True)
            trainer = Trainer(plan, GroundSource(grounds, plan, place, 1), run, place)
            trainer.train(lambda done: None)
            trained = trainer.averaged if optim.ema_decay > 0 else trainer.encoder
            encoder = Encoder(plan.model, initialise=False).to(place)
            encoder.load_state_dict(trained.state_dict())
        figures = [recall(encoder, regions, width) for width in (0, *widths)]
        print(f"{name:34}" + "".join(f"{100 * figure:8.2f}" for figure in figures), flush=True)


if __name__ == "__main__":
    run_command(main)
