"""`s4g-train`: imagery or a data set in, checkpoint out."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from .cli_data import data
from .cli_eval import evaluate
from .cli_prepare import prepare
from .opening import DEVICES

if TYPE_CHECKING:
    import torch

    from .distributed import World
    from .recipe import Recipe
    from .source import BatchSource


@click.group(cls=CommandGroup)
def cli() -> None:
    """Train and evaluate the shared encoder."""


_recipe_option = click.option(
    "--recipe", "recipe_name", required=True, help="A shipped recipe's name, or a .toml file."
)
_data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder with the imagery or data set; landscape recipes need none.",
)
_grounds_option = click.option(
    "--grounds",
    "prepared",
    type=click.Path(path_type=Path),
    help="The recipe's imagery as s4g-train prepare wrote it, in place of --data.",
)
_skip_option = click.option(
    "--skip-missing",
    is_flag=True,
    help="Leave out [[ground]] entries whose files are absent, and record which.",
)
_device_option = click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="auto",
    show_default=True,
    help="Where to compute.",
)


@cli.main_job
@click.command(cls=MainCommand)
@_recipe_option
@_data_option
@_grounds_option
@_skip_option
@click.option("--out", "run", type=click.Path(path_type=Path), required=True, help="Run folder.")
@click.option(
    "--init",
    type=click.Path(path_type=Path),
    help="Start from the weights of this checkpoint (.safetensors) of s4g-train.",
)
@click.option(
    "--qat",
    is_flag=True,
    help="Fine-tune the encoder of --init for INT8: shorter, slower, with rounded layers.",
)
@click.option("--resume", is_flag=True, help="Go on from the run folder's last save.")
@click.option("--steps", type=click.IntRange(min=1), help="Train this many steps ([[ground]]).")
@click.option("--epochs", type=click.IntRange(min=1), help="Train this many epochs ([data]).")
@click.option("--seed", type=click.IntRange(min=0), help="Another seed than the recipe's.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="TABLE.KEY=VALUE",
    help="Change one value of the recipe, in TOML: --set optim.batch_pairs=16. May be repeated.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Threads ([[ground]]) or processes ([data]) that make batches, for each GPU.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of the model.")
@_device_option
@debug_option
def train(
    recipe_name: str,
    data: Path | None,
    prepared: Path | None,
    skip_missing: bool,
    run: Path,
    resume: bool,
    workers: int,
    threads: int | None,
    device: str,
    changes: tuple[str, ...],
    **overrides: Any,
) -> None:
    """Train an encoder, on imagery of your own or on a data set.

    The run folder receives encoder.safetensors (the best checkpoint on held-out places),
    metrics.jsonl, history.png, TensorBoard events, recipe.json and state.safetensors (to resume).
    SIGINT and SIGTERM save and stop. Under torchrun, all processes train one batch together.

    Examples: s4g-train --recipe landscape --out runs/first;
    torchrun --nproc-per-node 4 --no-python s4g-train --recipe sample4geo/vigor-same --data VIGOR
    --out runs/vigor --workers 8;
    s4g-train --recipe edge --data DATA --init edge.safetensors --qat --out runs/edge-qat
    """
    import torch

    from .distributed import join_world
    from .opening import check_imagery_options, torch_device, with_overrides, without_missing
    from .recipe import load_recipe

    recipe = with_overrides(load_recipe(recipe_name, changes), **overrides)
    check_imagery_options(recipe, data, prepared, skip_missing)
    if skip_missing:
        recipe = without_missing(recipe, data)
    _check_run(run, resume)
    if threads is not None:
        torch.set_num_threads(threads)
    place = torch.device(torch_device(device))
    with join_world(place) as world:
        if place.type == "cuda":
            place = torch.device("cuda", torch.cuda.current_device())
        _train(recipe, data, prepared, run, resume, overrides, workers, place, world)


def _train(
    recipe: Recipe,
    data: Path | None,
    prepared: Path | None,
    run: Path,
    resume: bool,
    overrides: dict[str, Any],
    workers: int,
    place: torch.device,
    world: World,
) -> None:
    from .checkpoint import CHECKPOINT_NAME
    from .loop import Trainer
    from .state import check_same_recipe, write_recipe

    if resume:
        lengths = {f"optim.{name}" for name in ("steps", "epochs") if overrides[name] is not None}
        check_same_recipe(run, recipe, frozenset(lengths))
    source = _source(recipe, data, prepared, workers, place, world)
    trainer = Trainer(recipe, source, run, place, world, resume)
    if resume:
        trainer.resume()
        say(f"going on from step {trainer.step}")
    left = trainer.steps - trainer.step
    if left <= 0 or trainer.epoch >= source.epochs:
        option = "--steps" if recipe.data is None else "--epochs"
        raise InputError(f"{run}: already trained to step {trainer.step}; give more with {option}")
    if world.is_first:
        run.mkdir(parents=True, exist_ok=True)
        write_recipe(run, recipe)
    with ExitStack() as stack:
        show = world.is_first and stack.enter_context(progress("training", left, "steps"))
        validation = trainer.train(show or (lambda steps: None))
    if not world.is_first:
        return
    if validation is not None:
        print(json.dumps(validation.as_dict()))
    if (run / CHECKPOINT_NAME).is_file():  # a training stopped early may not have one yet
        say(f"checkpoint: {run / CHECKPOINT_NAME}")


def _source(
    recipe: Recipe,
    data: Path | None,
    prepared: Path | None,
    workers: int,
    place: torch.device,
    world: World,
) -> BatchSource:
    if recipe.data is None:
        from .ground_source import GroundSource
        from .opening import open_grounds

        grounds = open_grounds(recipe, data, prepared=prepared)
        return GroundSource(grounds, recipe, place, workers, world)
    from .data_source import DataSource

    if data is None:
        raise InputError(f"recipe {recipe.name}: give the folder of the data set with --data")
    source = DataSource(recipe, data, place, workers, world)
    held = "none held out" if source.task is None else source.task.protocol
    say(f"{source.pairs.name}: {len(source.pairs):,} pairs, {held}")
    return source


cli.add_command(evaluate)
cli.add_command(data)
cli.add_command(prepare)


@cli.command("calibrate")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@_recipe_option
@_data_option
@_grounds_option
@_skip_option
@_device_option
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New checkpoint.")
@click.option("--overwrite", is_flag=True, help="Replace an existing --out.")
@debug_option
def calibrate(
    checkpoint: Path,
    recipe_name: str,
    data: Path | None,
    prepared: Path | None,
    skip_missing: bool,
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
    from .opening import check_imagery_options, validate_on_grounds, without_missing
    from .recipe import load_recipe

    check_output(out, overwrite)
    recipe = load_recipe(recipe_name)
    if recipe.data is not None:
        raise InputError(
            f"--recipe {recipe_name}: calibration needs [[ground]] imagery, half of whose views "
            "are searched where they are not; name a recipe with [[ground]]"
        )
    check_imagery_options(recipe, data, prepared, skip_missing)
    if skip_missing:
        recipe = without_missing(recipe, data)
    encoder, spec, result = validate_on_grounds(checkpoint, recipe, data, device, prepared)
    provenance = {**spec.provenance, "validation": result.as_dict()}
    spec = dataclasses.replace(
        spec,
        temperature=result.temperature,
        unknown_score=result.unknown_score,
        provenance=provenance,
    )
    save_checkpoint(out, encoder, spec, overwrite)
    print(json.dumps(result.as_dict()))


@cli.command("recipes")
@debug_option
def recipes() -> None:
    """List the shipped recipes: what each reproduces, what it needs, its command.

    Example: s4g-train recipes
    """
    from .recipe import load_recipe, shipped_recipes

    for name in shipped_recipes():
        print(f"{name}\n    " + load_recipe(name).description.strip().replace("\n", "\n    "))


def _check_run(run: Path, resume: bool) -> None:
    from .state import STATE_NAME

    has_state = (run / STATE_NAME).is_file()
    if resume and not has_state:
        raise InputError(f"{run}: holds no {STATE_NAME} to resume from; start without --resume")
    if not resume and run.exists() and any(run.iterdir()):
        raise InputError(
            f"{run}: already holds a training; pass --resume to go on or choose another --out"
        )


def main() -> None:
    """Run the command."""
    run_command(cli)


if __name__ == "__main__":
    main()
