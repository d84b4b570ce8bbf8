"""Recipes are read whole or refused with the key, the value and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from s4g.core.errors import InputError
from s4g.train.recipe import load_recipe, shipped_recipes

MINIMAL = '[[ground]]\nkind = "landscape"\nworlds = 1\n'


def write(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads_and_says_how_to_run_it(name: str) -> None:
    recipe = load_recipe(name)
    assert f"s4g-train --recipe {name}" in recipe.description


def test_an_unknown_recipe_names_those_that_are_shipped() -> None:
    with pytest.raises(InputError) as error:
        load_recipe("edgy")
    assert str(error.value) == (
        "--recipe edgy: no such recipe; shipped are edge, landscape, or give a .toml file"
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    with pytest.raises(InputError, match=f"^{path}: no such recipe file$"):
        load_recipe(str(path))


def test_a_misspelt_key_names_its_nearest_neighbour(tmp_path: Path) -> None:
    path = write(tmp_path, "[optim]\nbatch_pair = 8\n" + MINIMAL)
    with pytest.raises(InputError) as error:
        load_recipe(path)
    assert str(error.value) == (
        f"recipe {path}, [optim]: unknown key 'batch_pair'; did you mean batch_pairs?"
    )


def test_a_value_of_another_type_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, '[optim]\nsteps = "many"\n' + MINIMAL)
    with pytest.raises(InputError) as error:
        load_recipe(path)
    assert str(error.value) == f"recipe {path}, [optim]: steps = 'many' must be of type int"


def test_a_whole_number_serves_where_a_fraction_is_expected(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "[views]\nfootprint_min_m = 15\n" + MINIMAL))
    assert recipe.views.footprint_min_m == 15.0


def test_text_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "steps = = 3")
    with pytest.raises(InputError, match="not valid TOML"):
        load_recipe(path)


def test_a_recipe_without_ground_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "seed = 1\n")
    with pytest.raises(InputError) as error:
        load_recipe(path)
    assert str(error.value) == (
        f"recipe {path}: has no [[ground]]; add at least one source of imagery"
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('kind = "moon"', "kind must be one of landscape, stack, rasters, pictures, xyz"),
        ('kind = "landscape"', "needs worlds = N"),
        ('kind = "stack"', "needs files = [glob, …]"),
        (
            'kind = "pictures"\nfiles = ["*.jpg"]',
            "needs gsd_m, the ground size of a pixel in metres",
        ),
        ('kind = "xyz"\nfiles = ["*"]', "needs zoom, between 1 and 24"),
        (
            'kind = "landscape"\nworlds = 1\nsplit = "north"',
            "split 'north' must be one of train, val, west, every",
        ),
    ],
)
def test_a_ground_that_cannot_be_loaded_says_what_it_needs(
    tmp_path: Path, entry: str, message: str
) -> None:
    path = write(tmp_path, "[[ground]]\n" + entry)
    kind = entry.split('"')[1]
    with pytest.raises(InputError) as error:
        load_recipe(path)
    assert str(error.value) == f"recipe {path}, ground of kind {kind!r}: {message}"
