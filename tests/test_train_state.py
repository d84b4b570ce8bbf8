"""A run is resumed under the recipe it was started with, or not at all."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from s4g.core.errors import InputError, IntegrityError
from s4g.train.recipe import load_recipe
from s4g.train.state import check_same_recipe, write_recipe


def test_the_same_recipe_is_no_objection(tmp_path: Path) -> None:
    recipe = load_recipe("edge")
    write_recipe(tmp_path, recipe)
    check_same_recipe(tmp_path, recipe)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optim.learning_rate=0.5", "optim.learning_rate = 0.002, the recipe now says 0.5"),
        ("loss.nested_dims=[32]", "loss.nested_dims = [64, 128], the recipe now says [32]"),
        (
            "model.backbone='resnet10t'",
            'model.backbone = "resnet18", the recipe now says "resnet10t"',
        ),
    ],
)
def test_a_changed_value_is_named_with_its_old_value(
    tmp_path: Path, change: str, message: str
) -> None:
    write_recipe(tmp_path, load_recipe("edge"))
    with pytest.raises(InputError) as error:
        check_same_recipe(tmp_path, load_recipe("edge", (change,)))
    assert str(error.value) == (
        f"{tmp_path / 'recipe.json'}: this run was started with {message}; restore it to resume, "
        "or train into a new --out"
    )


def test_a_source_of_imagery_that_is_gone_is_named(tmp_path: Path) -> None:
    recipe = load_recipe("edge")
    write_recipe(tmp_path, recipe)
    with pytest.raises(InputError, match=r"grounds\.8\.\w+ = .*, the recipe now says nothing; "):
        check_same_recipe(tmp_path, dataclasses.replace(recipe, grounds=recipe.grounds[:-1]))


def test_what_changes_no_weight_may_differ(tmp_path: Path) -> None:
    write_recipe(tmp_path, load_recipe("edge"))
    check_same_recipe(tmp_path, load_recipe("edge", ("optim.save_every=7",)))


def test_a_run_from_before_fine_tuning_goes_on(tmp_path: Path) -> None:
    recipe = load_recipe("edge")
    write_recipe(tmp_path, recipe)
    path = tmp_path / "recipe.json"
    kept = json.loads(path.read_text())
    del kept["qat"], kept["model"]["init"]
    path.write_text(json.dumps(kept))
    check_same_recipe(tmp_path, recipe)
    with pytest.raises(InputError, match=r"started with model\.init = nothing, the recipe now"):
        check_same_recipe(tmp_path, load_recipe("edge", ("model.init='a.safetensors'",)))
    with pytest.raises(InputError, match=r"with qat\.enabled = nothing, the recipe now says true"):
        check_same_recipe(tmp_path, load_recipe("edge", ("qat.enabled=true",)))


def test_settings_of_quantisation_matter_only_where_it_is_enabled(tmp_path: Path) -> None:
    write_recipe(tmp_path, load_recipe("edge"))
    check_same_recipe(tmp_path, load_recipe("edge", ("qat.length=0.5",)))
    write_recipe(tmp_path, load_recipe("edge", ("qat.enabled=true",)))
    with pytest.raises(InputError, match=r"with qat\.length = 0\.25, the recipe now says 0\.5"):
        check_same_recipe(tmp_path, load_recipe("edge", ("qat.enabled=true", "qat.length=0.5")))


def test_a_longer_training_may_be_asked_for(tmp_path: Path) -> None:
    write_recipe(tmp_path, load_recipe("edge"))
    longer = load_recipe("edge", ("optim.steps=9999",))
    check_same_recipe(tmp_path, longer, frozenset({"optim.steps"}))
    with pytest.raises(InputError, match=r"optim\.steps = 3000"):
        check_same_recipe(tmp_path, longer)


def test_a_recipe_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("steps = 3")
    with pytest.raises(IntegrityError, match="is no saved recipe; start anew in another --out$"):
        check_same_recipe(tmp_path, load_recipe("edge"))
