"""`s4g-train`: imagery in, checkpoint out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..core.console import (
    CommandGroup,
    MainCommand,
    debug_option,
    progress,
    run_command,
    say,
)
from ..core.errors import InputError

if TYPE_CHECKING:
    from ..core.spec import EncoderSpec
    from .evaluate import Validation
    from .grounds import Ground
    from .model import Encoder
    from .recipe import Recipe


@click.group(cls=CommandGroup)
def cli() -> None:
    """Train and evaluate the shared encoder."""


_recipe_option = click.option(
    "--recipe", "recipe_name", required=True, help="A shipped recipe's name, or a .toml file."
)
_data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder with the imagery the recipe names; landscape recipes need none.",
)
_device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute.",
)


@cli.main_job
@click.command(cls=MainCommand)
@_recipe_option
@_data_option
@click.option("--out", "run", type=click.Path(path_type=Path), required=True, help="Run folder.")
@click.option("--resume", is_flag=True, help="Go on from the run folder's last save.")
@click.option("--steps", type=click.IntRange(min=1), help="Train this many steps instead.")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Threads that make batches.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of the model.")
@_device_option
@debug_option
def train(
    recipe_name: str,
    data: Path | None,
    run: Path,
    resume: bool,
    steps: int | None,
    workers: int,
    threads: int | None,
    device: str,
) -> None:
    """Train an encoder on pairs of tiles and drone views cut from imagery.

    The run folder receives encoder.safetensors (the checkpoint), metrics.jsonl, recipe.json and
    state.safetensors (to resume). SIGINT and SIGTERM save and stop.

    Example: s4g-train --recipe landscape --out runs/first
    """
    import dataclasses

    import torch

    from .loop import CHECKPOINT_NAME, STATE_NAME, Trainer
    from .recipe import load_recipe

    recipe = load_recipe(recipe_name)
    if steps is not None:
        recipe = dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, steps=steps))
    _check_run(run, resume, STATE_NAME)
    if threads is not None:
        torch.set_num_threads(threads)
    place = _torch_device(device)
    grounds = _load(recipe, data)
    run.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(recipe, grounds, run, place, workers)
    if resume:
        trainer.resume()
        say(f"going on from step {trainer.step}")
    trainer.write_recipe()
    left = recipe.optim.steps - trainer.step
    if left <= 0:
        raise InputError(f"{run}: already trained to step {trainer.step}; give more with --steps")
    with progress("training", left, "steps") as advance:
        validation = trainer.train(advance)
    if validation is not None:
        print(json.dumps(validation.as_dict()))
    if (run / CHECKPOINT_NAME).is_file():  # a training stopped early may not have one yet
        say(f"checkpoint: {run / CHECKPOINT_NAME}")


@cli.command("eval")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@_recipe_option
@_data_option
@_device_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@debug_option
def evaluate(
    checkpoint: Path, recipe_name: str, data: Path | None, device: str, as_json: bool
) -> None:
    """Validate a checkpoint on a recipe's held-out places.

    Example: s4g-train eval runs/first/encoder.safetensors --recipe landscape
    """
    result = _validate(checkpoint, recipe_name, data, device)[2]
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


@cli.command("calibrate")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@_recipe_option
@_data_option
@_device_option
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New checkpoint.")
@click.option("--overwrite", is_flag=True, help="Replace an existing --out.")
@debug_option
def calibrate(
    checkpoint: Path,
    recipe_name: str,
    data: Path | None,
    device: str,
    out: Path,
    overwrite: bool,
) -> None:
    """Calibrate a checkpoint's scores on a recipe's held-out places; its weights stay.

    Example: s4g-train calibrate old.safetensors --recipe mine.toml --data D --out new.safetensors
    """
    import dataclasses

    from ..core.files import check_output
    from .checkpoint import save_checkpoint

    check_output(out, overwrite)
    encoder, spec, result = _validate(checkpoint, recipe_name, data, device)
    provenance = {**spec.provenance, "validation": result.as_dict()}
    spec = dataclasses.replace(
        spec,
        temperature=result.temperature,
        unknown_score=result.unknown_score,
        provenance=provenance,
    )
    save_checkpoint(out, encoder, spec, overwrite)
    print(json.dumps(result.as_dict()))


def _validate(
    checkpoint: Path, recipe_name: str, data: Path | None, device: str
) -> tuple[Encoder, EncoderSpec, Validation]:
    from .checkpoint import load_checkpoint
    from .evaluate import embed, validate, validation_regions
    from .recipe import load_recipe

    encoder, spec = load_checkpoint(checkpoint)
    encoder.to(_torch_device(device))
    recipe = load_recipe(recipe_name)
    if recipe.model.input_px != spec.input_px:
        raise InputError(
            f"{checkpoint}: takes {spec.input_px} px, recipe {recipe_name} cuts "
            f"{recipe.model.input_px} px; evaluate with a recipe of the same input_px"
        )
    regions = validation_regions(_load(recipe, data, only_validation=True), recipe)
    if not regions:
        raise InputError(f"recipe {recipe_name}: holds out no place to validate on")
    result = validate(regions, lambda images: embed(encoder, images, spec.mean, spec.std))
    return encoder, spec, result


def _load(recipe: Recipe, data: Path | None, only_validation: bool = False) -> list[Ground]:
    from .grounds import held_out_only, load_grounds

    configs = recipe.grounds
    if only_validation:
        configs = tuple(map(held_out_only, configs))
    if data is not None and not data.is_dir():
        raise InputError(f"--data {data}: no such folder")
    with progress("imagery", sum(max(1, c.worlds + c.val_worlds) for c in configs)) as tick:
        grounds = load_grounds(configs, data, lambda name: tick(1))
    say(f"{len(grounds)} grounds, {sum(g.validates for g in grounds)} of them held out")
    return [g for g in grounds if g.validates] if only_validation else grounds


def _check_run(run: Path, resume: bool, state_name: str) -> None:
    has_state = (run / state_name).is_file()
    if resume and not has_state:
        raise InputError(f"{run}: holds no {state_name} to resume from; start without --resume")
    if not resume and run.exists() and any(run.iterdir()):
        raise InputError(
            f"{run}: already holds a training; pass --resume to go on or choose another --out"
        )


def _torch_device(device: str) -> str:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no CUDA device; use --device cpu")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def main() -> None:
    """Run the command."""
    run_command(cli)
