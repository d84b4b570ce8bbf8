"""Recipes are read whole or refused with the key, the value and a remedy."""

from __future__ import annotations

import dataclasses
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


@pytest.mark.parametrize("name", [n for n in shipped_recipes() if load_recipe(n).model.pretrained])
def test_pretrained_weights_that_a_shipped_recipe_names_are_published_by_timm(name: str) -> None:
    from s4g.train.model import MEAN, STD
    from s4g.train.timm_compat import import_timm

    backbone = load_recipe(name).model.backbone
    assert "." in backbone  # without a tag timm may change which weights are meant
    weights = import_timm().get_pretrained_cfg(backbone)
    assert weights.hf_hub_id
    assert (weights.mean, weights.std) == (MEAN, STD)


def test_the_pretrained_edge_encoder_is_of_the_edge_encoders_shape(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from s4g.train.model import Encoder

    model = load_recipe("edge-pretrained").model
    like = Encoder(load_recipe("edge").model)
    path = tmp_path / "resnet18.safetensors"  # as the hub's file, less the classes' layer
    save_file(like.backbone.state_dict(), path)
    model = dataclasses.replace(model, pretrained=False, pretrained_file=str(path))
    encoder = Encoder(model)
    kernel = "conv1.weight"
    assert torch.equal(encoder.backbone.state_dict()[kernel], like.backbone.state_dict()[kernel])
    shapes = [{k: v.shape for k, v in e.state_dict().items()} for e in (encoder, like)]
    assert shapes[0] == shapes[1]


def test_an_unknown_recipe_names_those_that_are_shipped() -> None:
    with pytest.raises(InputError) as error:
        load_recipe("edgy")
    assert str(error.value) == (
        f"--recipe edgy: no such recipe; shipped are {', '.join(shipped_recipes())}, or give a "
        ".toml file"
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
        f"recipe {path}: has no [[ground]] and no [data]; add imagery or a data set"
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
            "split 'north' must be one of train, val, west, every, apart",
        ),
        (
            'kind = "landscape"\nworlds = 1\nstyles = ["oak"]',
            "style 'oak' must be one of desert, floodplain, forest, groves, irrigated, "
            "mediterranean, oaks, patchwork, plains, prairie, savanna, shanty, smallholder, "
            "strips, suburb, terraces, works",
        ),
        (
            'kind = "rasters"\nfiles = ["*.tif"]\nsplit = "apart"',
            "split 'apart' is for pictures and needs positions = 'photos.csv', a table of file, "
            "lat, lon",
        ),
        (
            'kind = "rasters"\nfiles = ["*.tif"]\nsplit = "west"\nsplit_value = 1',
            "split 'west' needs split_value between 0 and 1, the share that trains",
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


DATA = '[data]\nkind = "university1652"\n'


def test_a_data_set_that_is_misspelt_names_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, '[data]\nkind = "vigour"\n')
    with pytest.raises(InputError) as error:
        load_recipe(path)
    assert str(error.value) == (
        f"recipe {path}, [data]: kind = 'vigour' is no data set; did you mean 'vigor'?"
    )


def test_imagery_and_a_data_set_do_not_go_together(tmp_path: Path) -> None:
    path = write(tmp_path, DATA + MINIMAL)
    with pytest.raises(InputError) as error:
        load_recipe(path)
    assert str(error.value) == f"recipe {path}: has both [[ground]] and [data]; keep one of them"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[views]\n" + DATA, "[views] means nothing without [[ground]]; remove it"),
        ("[sampling]\n" + MINIMAL, "[sampling] means nothing without [data]; remove it"),
        ("[augment]\n" + MINIMAL, "[augment] means nothing without [data]; remove it"),
    ],
)
def test_a_table_without_meaning_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as error:
        load_recipe(path)
    assert str(error.value) == f"recipe {path}: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[optim]\nbatch_pairs = 1\n",
            "[optim]: batch_pairs = 1; a batch of fewer than 2 pairs has no negatives",
        ),
        (
            "[optim]\nprecision = 'int8'\n",
            "[optim]: precision = 'int8' must be one of bf16, fp16, fp32",
        ),
        (
            "[optim]\nschedule = 'linear'\n",
            "[optim]: schedule = 'linear' must be one of cosine, polynomial, constant",
        ),
        ("[optim]\nema_decay = 1.0\n", "[optim]: ema_decay = 1.0 must lie in [0, 1)"),
        ("[model]\nhead = 'none'\n", "[model]: head = 'none' must be one of layout, pool"),
        (
            "[model]\nquery_px = [140, 768]\n",
            "[model]: head = 'layout' takes queries of 128 x 128 px"
            " only, query_px is [140, 768]; use head = 'pool'",
        ),
        (
            "[model]\nhead = 'pool'\nquery_px = [140]\n",
            "[model]: query_px = [140] must be [height, width] in pixels",
        ),
        (
            "[distill]\nkind = 'magic'\n",
            "[distill]: kind = 'magic' must be one of similarity, embedding",
        ),
    ],
)
def test_values_out_of_range_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text + MINIMAL)
    with pytest.raises(InputError) as error:
        load_recipe(path)
    assert str(error.value) == f"recipe {path}, {message}"


def test_panoramas_cannot_be_tilted(tmp_path: Path) -> None:
    path = write(tmp_path, '[data]\nkind = "cvusa"\n[augment]\ntilt_deg = 5\n')
    with pytest.raises(InputError, match="scale or tilt_deg needs queries that look down"):
        load_recipe(path)


def test_the_command_line_may_change_single_values() -> None:
    recipe = load_recipe("sample4geo/cvusa", ("optim.batch_pairs=16", "optim.precision = 'bf16'"))
    assert (recipe.optim.batch_pairs, recipe.optim.precision) == (16, "bf16")
    assert recipe.optim.epochs == 40


@pytest.mark.parametrize("change", ["batch_pairs=16", "optim.batch_pairs", "moon.phase=3"])
def test_a_change_that_names_no_value_of_a_table_is_refused(change: str) -> None:
    with pytest.raises(InputError) as error:
        load_recipe("edge", (change,))
    assert str(error.value) == (
        f"--set {change}: expected TABLE.KEY=VALUE with a value in TOML, such as "
        "optim.batch_pairs=16 or optim.precision='fp32'; tables are model, views, optim, data, "
        "loss, sampling, augment, distill, loading, qat, ground.1, ground.2, …"
    )


def test_the_command_line_may_change_one_entry_of_the_imagery() -> None:
    plain, changed = load_recipe("edge"), load_recipe("edge", ("ground.2.first_seed=4000",))
    assert changed.grounds[1] == dataclasses.replace(plain.grounds[1], first_seed=4000)
    assert (changed.grounds[0], changed.grounds[2:]) == (plain.grounds[0], plain.grounds[2:])


@pytest.mark.parametrize("change", ["ground.0.weight=2", "ground.10.weight=2"])
def test_a_change_of_imagery_that_the_recipe_lacks_is_refused(change: str) -> None:
    with pytest.raises(InputError) as error:
        load_recipe("edge", (change,))
    assert str(error.value) == f"--set {change}: the recipe has 9 [[ground]] entries"


def test_a_misspelt_change_names_its_nearest_neighbour() -> None:
    with pytest.raises(InputError) as error:
        load_recipe("edge", ("optim.batch_pair=16",))
    assert str(error.value) == (
        "recipe edge, [optim]: unknown key 'batch_pair'; did you mean batch_pairs?"
    )
