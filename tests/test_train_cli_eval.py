"""`s4g-train eval`: checkpoints and engines on data sets, both protocols, one line on bad input."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch", reason="evaluation needs torch (the train extra)")
pytest.importorskip("jinja2", reason="the page needs jinja2 (the train extra)")

from s4g.core.console import run_command
from s4g.core.images import encode_rgb
from s4g.core.spec import SPEC_KEY, EncoderSpec
from s4g.train.cli_eval import evaluate
from s4g.train.dataset import DATA_KINDS

PLACES, DISTRACTORS, VIEWS = 4, 2, 3


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        run_command(evaluate, [str(a) for a in arguments])
    return int(ended.value.code or 0)


def picture(place: int, view: int) -> npt.NDArray[np.uint8]:
    """Return 64 x 64 px: patches of random colours, shifted a little in each view."""
    rng = np.random.default_rng(place)
    coarse = rng.integers(0, 256, (10, 10, 3), dtype=np.uint8)
    fine = coarse.repeat(8, 0).repeat(8, 1)
    return np.ascontiguousarray(fine[view : view + 64, 2 * view : 2 * view + 64])


@pytest.fixture(scope="module")
def university(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test split of a tiny University-1652; places 4 and 5 are distractors."""
    root = tmp_path_factory.mktemp("university")
    for folder, places, views in (
        ("query_drone", PLACES, range(1, 1 + VIEWS)),
        ("gallery_satellite", PLACES + DISTRACTORS, range(1)),
        ("query_satellite", PLACES, range(1)),
        ("gallery_drone", PLACES + DISTRACTORS, range(1, 1 + VIEWS)),
    ):
        for place in range(places):
            home = root / "test" / folder / f"{place:04d}"
            home.mkdir(parents=True)
            for view in views:
                (home / f"{view}.jpg").write_bytes(encode_rgb(picture(place, view), ".jpg"))
    return root


@pytest.fixture
def engine(toy_encoder: Path) -> Path:
    return toy_encoder


def on(university: Path) -> list[object]:
    return ["--kind", "university1652", "--data", university, "--workers", 0, "--device", "cpu"]


# ---- figures -------------------------------------------------------------------------------------


def test_every_row_of_the_table_names_its_protocol_and_gallery(
    engine: Path, university: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(engine, *on(university)) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    rows = [(line.split()[0], line.split()[3]) for line in lines]
    assert rows == [
        ("drone→satellite", "6"),
        ("drone→satellite", "4"),
        ("satellite→drone", "18"),
        ("satellite→drone", "12"),
    ]
    for line, (task, gallery) in zip(lines, rows, strict=True):
        whole = gallery in ("6", "18")
        what = "satellite tiles" if task.endswith("satellite") else "drone images"
        assert line.endswith(
            f"official: all {gallery} {what}, distractors included"
            if whole
            else f"reduced, as in the literature: {gallery} {what}, distractors dropped"
        )


def test_a_checkpoint_and_prefixes_are_scored_into_json_and_a_page(
    toy_checkpoint: Path, university: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    code = run(toy_checkpoint, *on(university), "--dims", "8,16", "--out", out, "--json")
    shown = capsys.readouterr()
    assert code == 0, shown.err
    content = json.loads(shown.out)
    assert content == json.loads((out / "eval.json").read_text())
    assert [row["dim"] for row in content["tasks"]] == [32, 16, 8] * 4
    assert content["encoder"]["format"] == "checkpoint"
    assert content["tasks"][0]["metrics"]["ap"] >= content["tasks"][0]["metrics"]["recall_at_1"]
    page = (out / "eval.html").read_text()
    assert (
        page.count("distractors dropped") == 3 * 2 + 2 * 2 + 2
    )  # rows, lines and legend, sections
    assert shown.err.endswith(f"report: {out}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_an_int8_engine_is_evaluated_too(
    engine: Path, university: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    path = tmp_path / "encoder.cpu.int8.onnx"
    quantization.quantize_dynamic(engine, path, op_types_to_quantize=["MatMul"])
    assert run(path, *on(university), "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["encoder"]["file"] == str(path)
    assert content["tasks"][0]["metrics"]["recall_at_10"] == 1.0


@pytest.mark.parametrize(
    ("protocol", "galleries"),
    [("official", [6, 18]), ("reduced", [4, 12]), ("all", [6, 4, 18, 12])],
)
def test_one_protocol_alone_can_be_asked_for(
    engine: Path,
    university: Path,
    protocol: str,
    galleries: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(engine, *on(university), "--protocol", protocol, "--json") == 0
    rows = json.loads(capsys.readouterr().out)["tasks"]
    assert [row["gallery"] for row in rows] == galleries


def test_a_recipe_names_the_data_set_as_well(
    engine: Path, university: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[data]\nkind = "university1652"\n')
    options = ["--recipe", recipe, "--data", university, "--workers", 0]
    assert run(engine, *options, "--json") == 0
    assert json.loads(capsys.readouterr().out)["data"]["kind"] == "university1652"


def test_a_recipe_of_ground_imagery_is_validated_on_its_held_out_places(
    toy_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        "[model]\ninput_px = 64\nembedding_dim = 32\n[views]\nfootprint_max_m = 100\n"
        '[[ground]]\nkind = "landscape"\nworlds = 1\nval_worlds = 1\nsize_m = 256\nrenders = 2\n'
    )
    assert run(toy_checkpoint, "--recipe", recipe) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[1].startswith("R@1   ")
    assert "footprints" in shown.out


GROUND_RECIPE = """
[model]
input_px = 64
embedding_dim = 32

[views]
footprint_min_m = 20
footprint_max_m = 60

[[ground]]
kind = "pictures"
files = ["own/*.png"]
gsd_m = 1.0
split = "west"
split_value = 0.5

[[ground]]
kind = "pictures"
files = ["train only/*.png"]
gsd_m = 1.0

[[ground]]
kind = "rasters"
files = ["absent/*.tif"]
split = "val"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe of imagery, of which `data` holds the first source alone."""
    path = tmp_path / "mine.toml"
    path.write_text(GROUND_RECIPE)
    (tmp_path / "data" / "own").mkdir(parents=True)
    image = np.random.default_rng(0).integers(1, 255, (160, 320, 3), dtype=np.uint8)
    (tmp_path / "data" / "own" / "a.png").write_bytes(encode_rgb(image, ".png"))
    return path


def test_prepared_imagery_is_validated_on_as_its_folder_is(
    toy_checkpoint: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from s4g.train.grounds_file import LOSSLESS, write_grounds_file
    from s4g.train.recipe import load_recipe

    recipe.write_text(GROUND_RECIPE.partition('[[ground]]\nkind = "rasters"')[0])
    shutil.copytree(tmp_path / "data" / "own", tmp_path / "data" / "train only")
    grounds = load_recipe(str(recipe)).grounds
    prepared = tmp_path / "mine.grounds"
    write_grounds_file(prepared, grounds, tmp_path / "data", LOSSLESS, False, lambda: None)
    common = [toy_checkpoint, "--recipe", recipe, "--device", "cpu", "--json"]
    assert run(*common, "--data", tmp_path / "data") == 0
    from_folder = capsys.readouterr().out
    assert run(*common, "--grounds", prepared) == 0
    assert capsys.readouterr().out == from_folder
    assert json.loads(from_folder)["recall_at_1_by_region"].keys() == {"a.png (east) @ 45 m"}


def test_sources_that_only_train_need_not_be_there_to_validate_and_others_may_be_left_out(
    toy_checkpoint: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [toy_checkpoint, "--recipe", recipe, "--data", tmp_path / "data", "--device", "cpu"]
    assert run(*common) == 2
    data = tmp_path / "data"
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: --data {data}: holds no files for 1 of 2 [[ground]] entries: rasters of "
        "absent/*.tif; fetch them, or leave these entries out with --skip-missing"
    )
    assert run(*common, "--skip-missing", "--json") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["recall_at_1_by_region"].keys() == {"a.png (east) @ 45 m"}
    assert shown.err.splitlines()[0].startswith("left out: pictures of train only/*.png; rasters")


# ---- refusals ------------------------------------------------------------------------------------


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Return the one line of a command that ends with exit code 2 and no output."""
    assert run(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err.splitlines()[-1]


def test_neither_or_both_of_recipe_and_kind_are_refused(
    engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = "error: give one of --recipe NAME and --kind KIND"
    assert refusal(capsys, engine) == message
    assert refusal(capsys, engine, "--recipe", "edge", "--kind", "cvusa") == message


def test_a_part_of_the_data_beside_a_recipe_is_refused(
    engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(capsys, engine, "--recipe", "edge", "--height", 150) == (
        "error: --height: the recipe says which part of the data; leave it away"
    )


@pytest.mark.parametrize(
    ("options", "named"),
    [(["--grounds", "a.grounds"], "--grounds a.grounds"), (["--skip-missing"], "--skip-missing")],
)
def test_options_of_imagery_beside_a_data_set_are_refused(
    engine: Path,
    university: Path,
    options: list[str],
    named: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert refusal(capsys, engine, *on(university), *options) == (
        f"error: {named}: means nothing to a data set, only to [[ground]] imagery"
    )


def test_prepared_imagery_and_a_folder_are_refused(
    toy_checkpoint: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["--grounds", "a.grounds", "--data", "d"]
    assert refusal(capsys, toy_checkpoint, "--recipe", recipe, *both) == (
        "error: --grounds a.grounds: cannot be joined with --data; give one of the two"
    )


def test_a_report_of_ground_imagery_is_refused(
    engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(capsys, engine, "--recipe", "edge", "--out", tmp_path / "r") == (
        "error: --recipe edge: trains on [[ground]] imagery, for which there is no --out, --dims "
        "or --protocol; leave them away"
    )


def test_a_data_set_without_its_folder_is_refused(
    engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(capsys, engine, "--kind", "cvusa") == (
        "error: cvusa: give the folder of the data set with --data"
    )


def test_a_missing_split_is_named(
    engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(capsys, engine, *on(tmp_path)).startswith(
        f"error: {tmp_path / 'test' / 'query_drone'}: no such folder; University-1652 looks like"
    )


def test_a_protocol_that_the_set_does_not_have_is_refused(
    engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, folder in (("satellite", "bingmap/19"), ("ground", "streetview/panos")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"{name}.jpg").write_bytes(encode_rgb(picture(0, 0), ".jpg"))
    (tmp_path / "splits").mkdir()
    row = "bingmap/19/satellite.jpg,streetview/panos/ground.jpg,none\n"
    row = row.replace("satellite.jpg", "0000001.jpg")
    for split in ("train", "val"):
        (tmp_path / "splits" / f"{split}-19zl.csv").write_text(row)
    options = ["--kind", "cvusa", "--data", tmp_path, "--protocol", "reduced"]
    assert refusal(capsys, engine, *options) == (
        "error: --protocol reduced: cvusa has no such protocol; use --protocol all"
    )


@pytest.mark.parametrize("dims", ["8,x", "0", "33", "-1", "8,,16"])
def test_lengths_that_the_embedding_does_not_have_are_refused(
    engine: Path, university: Path, dims: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(capsys, engine, *on(university), "--dims", dims) == (
        f"error: --dims {dims}: expected whole numbers from 1 to 32, the length of this encoder's "
        "embedding, such as 64,128"
    )


def test_an_engine_of_a_panorama_encoder_is_refused_before_anything_is_embedded(
    engine: Path, university: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx = pytest.importorskip("onnx", reason="the toy encoder needs onnx (the export extra)")
    model = onnx.load(engine)
    spec = EncoderSpec.from_json(model.metadata_props[0].value, "toy")
    spec = dataclasses.replace(spec, head="pool", query_px=(64, 256))
    onnx.helper.set_model_props(model, {SPEC_KEY: spec.to_json()})
    path = tmp_path / "panorama.onnx"
    onnx.save(model, path)
    assert refusal(capsys, path, *on(university)) == (
        f"error: {path}: its encoder takes queries of 64 x 256 px, this engine only images of "
        "64 x 64; evaluate the checkpoint instead"
    )


def test_an_unreadable_picture_ends_the_evaluation_without_a_report(
    engine: Path, university: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(university / "test", tmp_path / "data" / "test")
    broken = tmp_path / "data" / "test" / "gallery_satellite" / "0005" / "0.jpg"
    broken.write_bytes(b"no picture")
    out = tmp_path / "report"
    assert refusal(capsys, engine, *on(tmp_path / "data"), "--out", out) == (
        f"error: {broken}: not an image that can be decoded; replace or remove the file; an "
        "evaluation needs every image of its protocol"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_an_existing_report_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    out.mkdir()
    assert refusal(capsys, "none.onnx", *on(tmp_path), "--out", out) == (
        f"error: {out}: already exists; pass --overwrite to replace it"
    )


def test_overwriting_never_removes_what_is_no_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "encoder.safetensors").touch()
    arguments = ["none.onnx", *on(tmp_path), "--out", tmp_path, "--overwrite"]
    assert refusal(capsys, *arguments) == (
        f"error: --out {tmp_path}: holds other files, such as encoder.safetensors, which "
        "--overwrite would remove; choose another folder"
    )


def test_all_data_sets_are_offered() -> None:
    from s4g.train.datasets import KIND

    kind = next(p for p in evaluate.params if p.name == "kind")
    assert isinstance(kind.type, click.Choice)
    assert set(kind.type.choices) == set(DATA_KINDS) == set(KIND)
