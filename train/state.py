"""What a training needs to go on: weights, optimiser, lists, counters; and the recipe it has."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from ..core.errors import InputError, IntegrityError
from ..core.files import write_json
from .recipe import Recipe

STATE_NAME = "state.safetensors"
RECIPE_NAME = "recipe.json"

# What may differ in a resumed training: it changes neither weights nor order.
_HARMLESS = frozenset({"name", "description", "optim.save_every", "data.credit"})


def write_recipe(run: Path, recipe: Recipe) -> None:
    """Keep the resolved recipe beside the results."""
    write_json(run / RECIPE_NAME, dataclasses.asdict(recipe), overwrite=True)


def check_same_recipe(run: Path, recipe: Recipe, may_differ: frozenset[str] = frozenset()) -> None:
    """Refuse to resume a run under another recipe.

    Args:
        run: the run folder; without a recipe in it nothing is compared.
        recipe: the recipe asked for.
        may_differ: further keys, such as `optim.steps`, that the user changed on purpose.

    Raises:
        InputError: a key differs; the message names it, its old and its new value.
        IntegrityError: the saved recipe is no JSON object.
    """
    path = run / RECIPE_NAME
    if not path.is_file():
        return
    try:
        before = json.loads(path.read_text())
    except ValueError:
        before = None
    if not isinstance(before, dict):
        raise IntegrityError(f"{path}: is no saved recipe; start anew in another --out")
    old = _flat(before)
    new = _flat(json.loads(json.dumps(dataclasses.asdict(recipe))))
    rounds = old.get("qat.enabled") or new["qat.enabled"]
    # [qat] first: it changes length and rate in [optim].
    for key in sorted(old.keys() | new.keys(), key=lambda key: (not key.startswith("qat."), key)):
        if key in _HARMLESS | may_differ or old.get(key) == new.get(key):
            continue
        if not rounds and key.startswith("qat."):
            continue
        if key not in old and not new[key]:  # off, as it was before there was such a key
            continue
        raise InputError(
            f"{path}: this run was started with {key} = {_shown(old, key)}, the recipe now says "
            f"{_shown(new, key)}; restore it to resume, or train into a new --out"
        )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested tables as `table.key`, entries of lists of tables as `table.0.key`."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        items = {str(i): entry for i, entry in enumerate(value)}.items()
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, entry in items:
        flat |= _flat(entry, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _shown(table: dict[str, Any], key: str) -> str:
    return json.dumps(table[key], ensure_ascii=False) if key in table else "nothing"
