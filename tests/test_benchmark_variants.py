"""Variants of a training: one imagery, one judge."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

RECIPE = """
description = "two worlds"
[model]
backbone = "resnet10t"
input_px = 64
embedding_dim = 32
[optim]
steps = 2
batch_pairs = 8
precision = "fp32"
[[ground]]
kind = "landscape"
worlds = 2
val_worlds = 1
size_m = 256
renders = 2
[[ground]]
kind = "landscape"
worlds = 1
first_seed = 3000
size_m = 256
renders = 2
"""
VARIANTS = """
recipe = "RECIPE"
set = ["optim.warmup_steps=1"]
[[variant]]
name = "whole"
[[variant]]
name = "no errors of view"
set = ["views.photometric=0.0", "views.yaw_error_deg=0.0"]
[[variant]]
name = "first source"
sources = [0]
set = ["model.init='{out}/whole/encoder.safetensors'"]
"""


@pytest.fixture(autouse=True)
def benchmarks_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "benchmarks"), *sys.path])


@pytest.fixture
def variants(tmp_path: Path) -> Path:
    (tmp_path / "two.toml").write_text(RECIPE)
    path = tmp_path / "variants.toml"
    path.write_text(VARIANTS.replace("RECIPE", str(tmp_path / "two.toml")))
    return path


def run(variants: Path, *options: str) -> str:
    from train_variants import cli

    out = variants.parent / "runs"
    arguments = [str(variants), "--out", str(out), "--device", "cpu", "--workers", "1", *options]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_each_variant_is_trained_judged_on_the_same_views_and_not_trained_again(
    variants: Path,
) -> None:
    table = run(variants, "--set", "optim.batch_pairs=6").splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in table] == [
        "variant", "---", "whole", "no errors of view", "first source",
    ]  # fmt: skip
    runs = variants.parent / "runs"
    result = json.loads((runs / "whole" / "result.json").read_text())
    assert (result["pairs"], result["input_px"]) == (12, 64)
    assert set(result["recall_at_1"]) == {"all", "0"}
    checkpoint = runs / "whole" / "encoder.safetensors"
    before = checkpoint.stat().st_mtime_ns
    assert run(variants).splitlines() == table  # not with the 8 pairs a batch of the recipe
    assert checkpoint.stat().st_mtime_ns == before


def test_a_source_that_a_variant_leaves_out_gives_no_pair(variants: Path) -> None:
    import torch
    from train_variants import Views

    from s4g.train.grounds import load_grounds
    from s4g.train.recipe import load_recipe

    recipe = load_recipe(str(variants.parent / "two.toml"))
    views = Views(
        recipe, load_grounds(recipe.grounds, None, lambda name: None), torch.device("cpu")
    )
    source = views.source(recipe, [0], 1)
    drawn = [source._sampler.plan(step).places.ground for step in range(20)]
    names = {source._sampler.grounds[number].source for part in drawn for number in part}
    assert names == {0}


def test_a_training_that_runs_out_of_time_is_left_out_of_the_table(variants: Path) -> None:
    assert run(variants, "--minutes", "0") == "no variant is trained yet\n"


def test_a_name_that_is_no_variant_is_refused(variants: Path) -> None:
    from train_variants import cli

    from s4g.core.errors import InputError

    with pytest.raises(InputError) as refused:
        CliRunner().invoke(
            cli,
            [str(variants), "--out", str(variants.parent), "--only", "none"],
            catch_exceptions=False,
        )
    assert str(refused.value) == f"--only none: {variants} names no such variant"
