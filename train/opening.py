"""What the commands open: the device, a recipe's grounds, a checkpoint to validate on them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.console import progress, say
from ..core.errors import InputError

if TYPE_CHECKING:
    from ..core.spec import EncoderSpec
    from .evaluate import GroundValidation
    from .grounds import Ground
    from .model import Encoder
    from .qat import QatConfig
    from .recipe import OptimConfig, Recipe

DEVICES = ("auto", "cpu", "cuda")


def torch_device(device: str) -> str:
    """Return `cpu` or `cuda` for what `--device` says.

    Raises:
        InputError: `cuda` is asked for and there is none.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no CUDA device; use --device cpu")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def open_grounds(
    recipe: Recipe,
    data: Path | None,
    only_validation: bool = False,
    prepared: Path | None = None,
) -> list[Ground]:
    """Load the imagery of a recipe's `[[ground]]` entries, or only what is held out of it.

    Args:
        recipe: the recipe.
        data: the folder of its files.
        only_validation: leave out what trains.
        prepared: a grounds file (`s4g-train prepare`), in place of the folder.

    Raises:
        InputError: there is no such folder, or imagery is missing or unreadable; or the grounds
            file does not fit the recipe.
        IntegrityError: the grounds file is damaged.
    """
    from .grounds import held_out_only, holds_out, load_grounds

    configs = recipe.grounds
    if only_validation:
        configs = tuple(held_out_only(c) for c in configs if holds_out(c))
    with progress("imagery", sum(max(1, c.worlds + c.val_worlds) for c in configs)) as tick:
        grounds = load_grounds(configs, data, lambda name: tick(1), prepared)
    say(f"{len(grounds)} grounds, {sum(g.validates for g in grounds)} of them held out")
    return [g for g in grounds if g.validates] if only_validation else grounds


def check_imagery_options(
    recipe: Recipe, data: Path | None, prepared: Path | None, skip_missing: bool
) -> None:
    """Refuse options of imagery that do not go together, or not with the recipe.

    Raises:
        InputError: they do not.
    """
    if prepared is not None and (data is not None or recipe.data is not None):
        why = "--data" if data is not None else f"the [data] set of recipe {recipe.name}"
        raise InputError(f"--grounds {prepared}: cannot be joined with {why}; give one of the two")
    if skip_missing and (prepared is not None or recipe.data is not None):
        why = f"--grounds {prepared}" if prepared is not None else f"recipe {recipe.name}"
        raise InputError(
            f"--skip-missing: {why} has no [[ground]] files to look for; leave the option away"
        )


def without_missing(recipe: Recipe, data: Path | None) -> Recipe:
    """Return a recipe without the sources whose files are absent.

    Its name says what is left out, in the run's `recipe.json` and in the checkpoint's provenance.

    Raises:
        InputError: there is no such folder, or nothing is left.
    """
    from .grounds import missing_sources

    if not (missing := missing_sources(recipe.grounds, data)):
        return recipe
    what = "; ".join(missing.values())
    kept = tuple(c for index, c in enumerate(recipe.grounds) if index not in missing)
    if not kept:
        raise InputError(
            f"--skip-missing: nothing of recipe {recipe.name} is left without {what}; fetch the "
            "files and name their folder with --data"
        )
    say(f"left out: {what}")
    return dataclasses.replace(recipe, name=f"{recipe.name} without {what}", grounds=kept)


def validate_on_grounds(
    checkpoint: Path, recipe: Recipe, data: Path | None, device: str, prepared: Path | None = None
) -> tuple[Encoder, EncoderSpec, GroundValidation]:
    """Validate a checkpoint on the held-out grounds of a recipe.

    Args:
        checkpoint: the encoder.
        recipe: whose sources say what is held out.
        data: the folder of their files.
        device: where to compute.
        prepared: a grounds file, in place of the folder.

    Raises:
        InputError: the checkpoint or the imagery cannot be used, or nothing is held out.
    """
    from .checkpoint import load_checkpoint
    from .evaluate import embed, validate, validation_regions

    encoder, spec = load_checkpoint(checkpoint)
    encoder.to(torch_device(device))
    if recipe.model.input_px != spec.input_px:
        raise InputError(
            f"{checkpoint}: takes {spec.input_px} px, recipe {recipe.name} cuts "
            f"{recipe.model.input_px} px; evaluate with a recipe of the same input_px"
        )
    grounds = open_grounds(recipe, data, only_validation=True, prepared=prepared)
    regions = validation_regions(grounds, recipe)
    if not regions:
        raise InputError(f"recipe {recipe.name}: holds out no place to validate on")
    result = validate(regions, lambda images: embed(encoder, images, spec.mean, spec.std))
    return encoder, spec, result


def with_overrides(
    recipe: Recipe,
    steps: int | None,
    epochs: int | None,
    seed: int | None,
    init: Path | None = None,
    qat: bool = False,
) -> Recipe:
    """Return a recipe with what the command line says instead.

    Quantisation-aware training has the recipe's length and learning rate shortened as its `[qat]`
    says; a length given on the command line stays as it is.

    Raises:
        InputError: `--steps` for a data set, `--epochs` for imagery, or `--qat` without weights
            to start from.
    """
    if steps is not None and recipe.data is not None:
        raise InputError(f"--steps {steps}: recipe {recipe.name} trains in epochs; use --epochs")
    if epochs is not None and recipe.data is None:
        raise InputError(f"--epochs {epochs}: recipe {recipe.name} trains in steps; use --steps")
    if init is not None:
        model = dataclasses.replace(recipe.model, init=str(init))
        recipe = dataclasses.replace(recipe, model=model)
    if qat:
        recipe = dataclasses.replace(recipe, qat=dataclasses.replace(recipe.qat, enabled=True))
    if recipe.qat.enabled and not recipe.model.init:
        raise InputError(
            f"recipe {recipe.name}: quantisation-aware training goes on from a trained encoder; "
            "give its checkpoint with --init"
        )
    optim = _for_qat(recipe.optim, recipe.qat) if recipe.qat.enabled else recipe.optim
    if steps is not None:
        optim = dataclasses.replace(optim, steps=steps)
    if epochs is not None:
        optim = dataclasses.replace(optim, epochs=epochs)
    return dataclasses.replace(recipe, optim=optim, seed=recipe.seed if seed is None else seed)


def _for_qat(optim: OptimConfig, qat: QatConfig) -> OptimConfig:
    return dataclasses.replace(
        optim,
        steps=max(1, round(optim.steps * qat.length)),
        epochs=max(1, round(optim.epochs * qat.length)),
        warmup_steps=round(optim.warmup_steps * qat.length),
        warmup_epochs=optim.warmup_epochs * qat.length,
        learning_rate=optim.learning_rate * qat.learning_rate_factor,
    )
