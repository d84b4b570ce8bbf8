"""A grounds file trains as the folder does, and is verified before anything of it is used."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.numpy import save_file

from s4g.core.errors import InputError, IntegrityError
from s4g.core.images import encode_rgb
from s4g.train import grounds_file
from s4g.train.cli import cli
from s4g.train.grounds import Ground, load_grounds
from s4g.train.grounds_file import LOSSLESS, read_grounds_file, write_grounds_file
from s4g.train.recipe import GroundConfig

REMEDY = "; copy it again or prepare it anew with s4g-train prepare"
PHOTOS = GroundConfig(
    "pictures", files=("*.png",), gsd_m=0.5, weight=3.0, split="every", split_value=2
)
WORLD = GroundConfig("landscape", worlds=1, size_m=40.0, renders=1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        small = rng.integers(1, 255, (12, 16, 3), dtype=np.uint8)
        image = cv2.resize(small, (90, 70), interpolation=cv2.INTER_CUBIC)
        image[:, : 11 * number] = 0
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder


def prepare(
    path: Path, data: Path, *configs: GroundConfig, quality: int = LOSSLESS
) -> tuple[int, int]:
    return write_grounds_file(path, configs, data, quality, False, lambda: None)


def equal(a: Ground, b: Ground) -> bool:
    same = [
        np.array_equal(x, y)
        for one, other in zip(a.dates, b.dates, strict=True)
        for x, y in zip(one, other, strict=True)
    ]
    rest = [(g.name, g.gsd_m, g.weight, g.validates, g.source) for g in (a, b)]
    return all(same) and np.array_equal(a.invalid_area, b.invalid_area) and rest[0] == rest[1]


def test_a_lossless_file_gives_the_grounds_of_the_folder(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "a.grounds"
    assert prepare(path, data, WORLD, PHOTOS) == (2, 1)
    whole = load_grounds((WORLD, PHOTOS), data, lambda name: None)
    again = load_grounds((WORLD, PHOTOS), None, lambda name: None, path)
    assert len(whole) == 3
    assert all(equal(a, b) for a, b in zip(whole, again, strict=True))


def test_a_lossy_file_gives_nearly_the_same_pixels_and_the_same_holes(
    tmp_path: Path, data: Path
) -> None:
    path = tmp_path / "a.grounds"
    prepare(path, data, PHOTOS, quality=90)
    whole = load_grounds((PHOTOS,), data, lambda name: None)
    again = load_grounds((PHOTOS,), None, lambda name: None, path)
    for a, b in zip(whole, again, strict=True):
        off = np.abs(a.dates[0][0].astype(int) - b.dates[0][0])
        assert 0 < off.mean() < 6
        assert np.array_equal(a.invalid_area, b.invalid_area)


def test_a_ground_larger_than_a_picture_can_be_is_tiled(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grounds_file, "_TILE_PX", 32)
    path = tmp_path / "a.grounds"
    prepare(path, data, PHOTOS)
    assert len(contents(path)[1]) == 2 * 3 * 3 + 1
    whole = load_grounds((PHOTOS,), data, lambda name: None)
    again = load_grounds((PHOTOS,), None, lambda name: None, path)
    assert all(equal(a, b) for a, b in zip(whole, again, strict=True))


def test_the_same_imagery_gives_the_same_bytes(tmp_path: Path, data: Path) -> None:
    paths = [tmp_path / name for name in ("a.grounds", "b.grounds")]
    for path in paths:
        prepare(path, data, PHOTOS, quality=80)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_weight_and_order_may_change_and_a_source_may_be_left_out(
    tmp_path: Path, data: Path
) -> None:
    path = tmp_path / "a.grounds"
    first = dataclasses.replace(PHOTOS, files=("0.png",), split="train")
    prepare(path, data, first, PHOTOS)
    heavy = dataclasses.replace(PHOTOS, weight=9.0, credit="other")
    grounds = load_grounds((heavy, WORLD), None, lambda name: None, path)
    assert [(g.name, g.weight, g.source) for g in grounds] == [
        ("0.png", 9.0, 0), ("1.png", 9.0, 0), ("landscape 1000", 1.0, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"gsd_m": 0.25},
            "was prepared with gsd_m = 0.5 for *.png, the recipe says 0.25",
        ),
        (
            {"split_value": 3.0},
            "was prepared with split_value = 2 for *.png, the recipe says 3.0",
        ),
        (
            {"files": ("*.jpg", "*.tif")},
            "holds no pictures of *.jpg, *.tif, which the recipe needs",
        ),
    ],
)
def test_a_file_of_another_recipe_is_refused(
    tmp_path: Path, data: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "a.grounds"
    prepare(path, data, PHOTOS)
    with pytest.raises(InputError) as error:
        read_grounds_file(path, (dataclasses.replace(PHOTOS, **change),))
    assert str(error.value) == f"{path}: {message}; prepare it anew with s4g-train prepare"


def contents(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with safe_open(path, framework="np") as file:
        header = json.loads(file.metadata()["s4g_grounds"])
        return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


Damage = Callable[[dict[str, Any], dict[str, np.ndarray]], None]


def spoil(path: Path, damage: Damage, *, sealed: bool = True) -> None:
    """Change a file; sealed: under a checksum that fits, as somebody malicious would."""
    header, blobs = contents(path)
    damage(header, blobs)
    if sealed and "sha256" in header:
        header["sha256"] = grounds_file._digest(blobs)
    save_file(blobs, path, {"s4g_grounds": json.dumps(header)})


def flip(header: dict[str, Any], blobs: dict[str, np.ndarray]) -> None:
    blobs["0.0.0.0"] = blobs["0.0.0.0"].copy()
    blobs["0.0.0.0"][-9] ^= 1


def test_a_flipped_bit_is_found(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "a.grounds"
    prepare(path, data, PHOTOS)
    spoil(path, flip, sealed=False)
    with pytest.raises(IntegrityError) as error:
        read_grounds_file(path, (PHOTOS,))
    assert str(error.value) == (
        f"--grounds {path}: its pictures are not those of its checksum{REMEDY}"
    )


def a_larger_picture(header: dict[str, Any], blobs: dict[str, np.ndarray]) -> None:
    big = encode_rgb(np.zeros((4000, 4000, 3), np.uint8), ".webp", 50)
    blobs["0.0.0.0"] = np.frombuffer(big, np.uint8)


def no_picture(header: dict[str, Any], blobs: dict[str, np.ndarray]) -> None:
    blobs["0.0.0.0"] = blobs["0.0.0.0"][:40].copy()


def a_long_mask(header: dict[str, Any], blobs: dict[str, np.ndarray]) -> None:
    blobs["1.valid"] = np.frombuffer(zlib.compress(b"\1" * 3), np.uint8)


def floats(header: dict[str, Any], blobs: dict[str, np.ndarray]) -> None:
    blobs["0.0.0.0"] = blobs["0.0.0.0"].astype(np.float32)


def a_picture_too_many(header: dict[str, Any], blobs: dict[str, np.ndarray]) -> None:
    blobs["7.0.0.0"] = blobs["0.0.0.0"].copy()


def an_endless_ground(header: dict[str, Any], blobs: dict[str, np.ndarray]) -> None:
    header["grounds"][0] |= {"width_px": 1 << 18, "height_px": 1 << 18, "dates": 999}


def no_size(header: dict[str, Any], blobs: dict[str, np.ndarray]) -> None:
    header["grounds"][0]["gsd_m"] = float("nan")


def a_wrong_kind(header: dict[str, Any], blobs: dict[str, np.ndarray]) -> None:
    header["grounds"][0]["dates"] = True


def no_grounds(header: dict[str, Any], blobs: dict[str, np.ndarray]) -> None:
    del header["grounds"]


_HEADER = "its header is not as s4g-train prepare writes it"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (a_larger_picture, "picture 0.0.0.0 of 0.png cannot be decoded to 90x70 px"),
        (no_picture, "picture 0.0.0.0 of 0.png cannot be decoded to 90x70 px"),
        (a_long_mask, "the valid pixels of 1.png cannot be unpacked"),
        (floats, "it holds tensors that are no encoded pictures"),
        (a_picture_too_many, "it holds other pictures than its header lists"),
        (an_endless_ground, "it claims 68,650,757,265,564 pixels, more than 17,179,869,184"),
        (no_size, _HEADER),
        (a_wrong_kind, _HEADER),
        (no_grounds, _HEADER),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(
    tmp_path: Path, data: Path, damage: Damage, message: str
) -> None:
    path = tmp_path / "a.grounds"
    prepare(path, data, PHOTOS)
    spoil(path, damage)
    with pytest.raises(IntegrityError) as error:
        read_grounds_file(path, (PHOTOS,))
    assert str(error.value) == f"--grounds {path}: {message}{REMEDY}"


def test_a_file_of_a_later_version_is_refused(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "a.grounds"
    prepare(path, data, PHOTOS)
    spoil(path, lambda header, blobs: header.update(version=2))
    with pytest.raises(InputError) as error:
        read_grounds_file(path, (PHOTOS,))
    assert str(error.value) == (
        f"--grounds {path}: has version 2, this s4g reads 1; prepare it anew with s4g-train prepare"
    )


def test_a_file_cut_short_is_refused(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "a.grounds"
    prepare(path, data, PHOTOS)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(IntegrityError, match=rf"^--grounds {path}: not a safetensors file \(.*\)"):
        read_grounds_file(path, (PHOTOS,))


def test_a_checkpoint_is_no_grounds_file(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_file({"weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(InputError) as error:
        read_grounds_file(path, (PHOTOS,))
    assert str(error.value) == (
        f"--grounds {path}: holds no prepared imagery; make it with s4g-train prepare"
    )


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_grounds_file(tmp_path / "none", (PHOTOS,))
    assert str(error.value) == (
        f"--grounds {tmp_path / 'none'}: no such file; make it with s4g-train prepare"
    )


def test_procedural_worlds_alone_need_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^the recipe has procedural worlds alone, "):
        prepare(tmp_path / "a.grounds", tmp_path, WORLD)


RECIPE = """
[model]
backbone = "resnet10t"
input_px = 32
embedding_dim = 16

[views]
footprint_min_m = 15
footprint_max_m = 25

[optim]
steps = 1
batch_pairs = 4
neighbours = 2
precision = "fp32"

[[ground]]
kind = "pictures"
files = ["*.png"]
gsd_m = 0.5
"""


def test_the_command_writes_a_file_that_the_training_takes(tmp_path: Path, data: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE)
    out = tmp_path / "r.grounds"
    arguments = ["prepare", "--recipe", str(recipe), "--data", str(data), "--out", str(out)]
    done = CliRunner().invoke(cli, arguments)
    assert done.exception is None
    assert f"{out}: 2 grounds, 0 of them held out, 0.0 MB" in done.stderr
    again = CliRunner().invoke(cli, arguments)
    assert str(again.exception) == f"{out}: already exists; pass --overwrite to replace it"
    run = tmp_path / "run"
    trained = CliRunner().invoke(
        cli, ["--recipe", str(recipe), "--grounds", str(out), "--out", str(run), "--device", "cpu"]
    )
    assert trained.exception is None
    assert (run / "recipe.json").is_file()


def test_a_file_and_a_folder_cannot_be_joined(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE)
    both = ["--grounds", "a.grounds", "--data", str(tmp_path), "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(cli, ["--recipe", str(recipe), *both])
    assert str(done.exception) == (
        "--grounds a.grounds: cannot be joined with --data; give one of the two"
    )


def invoke(*arguments: object) -> tuple[str, str]:
    """Run s4g-train; return its error, if any, and what it told."""
    done = CliRunner().invoke(cli, [str(a) for a in arguments])
    return str(done.exception or ""), done.stderr


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    """A recipe whose second source is not in the data folder."""
    path = tmp_path / "r.toml"
    more = '[[ground]]\nkind = "rasters"\nfiles = ["ortho/*.tif"]\ncredit = "Nobody"\n'
    path.write_text(RECIPE.replace('["*.png"]', '["*.png"]\ncredit = "Us"') + more)
    return path


def test_a_training_without_absent_sources_says_so_in_its_files(
    tmp_path: Path, data: Path, partial: Path
) -> None:
    run = tmp_path / "run"
    common = ["--recipe", partial, "--data", data, "--device", "cpu", "--out", run]
    assert invoke(*common)[0] == (
        f"--data {data}: holds no files for 1 of 2 [[ground]] entries: rasters of ortho/*.tif; "
        "fetch them, or leave these entries out with --skip-missing"
    )
    assert not run.exists()
    error, told = invoke(*common, "--skip-missing")
    assert error == ""
    assert told.startswith("left out: rasters of ortho/*.tif\n")
    name = "r without rasters of ortho/*.tif"
    kept = json.loads((run / "recipe.json").read_text())
    assert kept["name"] == name
    assert [g["files"] for g in kept["grounds"]] == [["*.png"]]
    with safe_open(run / "encoder.safetensors", "np") as file:
        spec = json.loads(file.metadata()["s4g_encoder_spec"])
    assert spec["provenance"]["recipe"] == name
    assert spec["provenance"]["credits"] == ["Us"]
    longer = ["--skip-missing", "--resume", "--steps", 2]
    assert invoke(*common, *longer)[0] == ""


def test_nothing_left_to_train_on_is_refused(tmp_path: Path, partial: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    common = ["--recipe", partial, "--data", folder, "--out", tmp_path / "run", "--skip-missing"]
    assert invoke(*common)[0] == (
        "--skip-missing: nothing of recipe r is left without pictures of *.png; rasters of "
        "ortho/*.tif; fetch the files and name their folder with --data"
    )


def test_a_folder_that_is_not_there_is_no_absent_source(tmp_path: Path, partial: Path) -> None:
    gone = tmp_path / "gone"
    common = ["--recipe", partial, "--data", gone, "--out", tmp_path / "run", "--skip-missing"]
    assert invoke(*common)[0] == (
        f"--data {gone}: no such folder; 2 of 2 [[ground]] entries need it: pictures of *.png; "
        "rasters of ortho/*.tif; name the folder that holds the files"
    )


def test_absent_sources_of_prepared_imagery_cannot_be_left_out(
    tmp_path: Path, partial: Path
) -> None:
    common = ["--recipe", partial, "--out", tmp_path / "run", "--grounds", "a.grounds"]
    assert invoke(*common, "--skip-missing")[0] == (
        "--skip-missing: --grounds a.grounds has no [[ground]] files to look for; leave the option "
        "away"
    )


def test_preparing_names_all_sources_that_lack_files(
    tmp_path: Path, data: Path, partial: Path
) -> None:
    out = tmp_path / "r.grounds"
    assert invoke("prepare", "--recipe", partial, "--data", data, "--out", out)[0] == (
        f"--data {data}: holds no files for 1 of 2 [[ground]] entries: rasters of ortho/*.tif; "
        "fetch them, or prepare a recipe without these entries"
    )


def test_calibration_takes_prepared_imagery(tmp_path: Path, toy_checkpoint: Path) -> None:
    (tmp_path / "data").mkdir()
    image = np.random.default_rng(0).integers(1, 255, (160, 320, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "data" / "a.png"), image)
    recipe = tmp_path / "r.toml"
    text = RECIPE.replace("input_px = 32", "input_px = 64").replace("max_m = 25", "max_m = 60")
    recipe.write_text(text + 'split = "west"\nsplit_value = 0.5\n')
    prepared, out = tmp_path / "r.grounds", tmp_path / "new.safetensors"
    made = ["prepare", "--recipe", recipe, "--data", tmp_path / "data", "--out", prepared]
    assert invoke(*made)[0] == ""
    common = ["calibrate", toy_checkpoint, "--recipe", recipe, "--out", out, "--device", "cpu"]
    assert invoke(*common)[0].startswith("--data is missing; 1 of 1 [[ground]] entries need it: ")
    assert invoke(*common, "--grounds", prepared) == ("", "2 grounds, 1 of them held out\n")
    assert out.is_file()
