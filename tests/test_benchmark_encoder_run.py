"""The benchmark of conditions as a command: what it is told, what it prints, its baselines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from s4g.core.errors import InputError
from s4g.core.images import read_rgb

FOOTPRINT_M = 40.0


@pytest.fixture(autouse=True)
def benchmark_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[1] / "benchmarks" / "encoder"
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])


def picture(seed: int, side_px: int = 320) -> npt.NDArray[np.uint8]:
    """Return ground (side, side, 3) with edges everywhere."""
    import cv2

    rng = np.random.default_rng(seed)
    image = np.full((side_px, side_px, 3), 120, np.uint8)
    for _ in range(side_px * side_px // 250):
        x, y = (int(v) for v in rng.integers(0, side_px, 2))
        w, h = (int(v) for v in rng.integers(5, 30, 2))
        cv2.rectangle(image, (x, y), (x + w, y + h), rng.integers(0, 256, 3).tolist(), -1)
    return image


def toy_region(size_px: int, seed: int) -> Any:
    """A map of 100 x 100 m, and six queries that are tiles moved by a metre."""
    from condition import Region
    from scene import agl_for, scene_of, shots

    from s4g.core.camera import Attitude
    from s4g.core.geo import LocalFrame
    from s4g.core.ground import ArrayGround

    image = picture(seed)
    valid = np.ones(image.shape[:2], np.bool_)
    ground = ArrayGround(image, valid, LocalFrame(47.0, 8.0), -50.0, 50.0, 100.0 / 320)
    scene = scene_of(f"toy {seed}", f"toy {seed}", ground)
    gallery = scene.gallery(FOOTPRINT_M, size_px)
    rows = np.array([0, 8, 17, 24, 33, 47])
    center_m = gallery.center_m[rows] + [1.0, -1.0]
    queries = np.stack([scene.tile(*place, FOOTPRINT_M, size_px) for place in center_m])
    pose = Attitude(0.0, 0.0, 0.0, agl_for(FOOTPRINT_M))
    frames = [scene.frame(pose, (float(east), float(north))) for east, north in center_m]
    cluster = np.arange(6) // 2
    flown = shots(frames, [pose] * 6, FOOTPRINT_M, center_m, cluster)
    return Region(gallery, queries[:, None], center_m, cluster, flown)


def toy_condition(size_px: int, name: str = "toy") -> Any:
    from condition import Condition

    return Condition(name, "a toy", (toy_region(size_px, 1), toy_region(size_px, 2)))


def toy_groups() -> tuple[Any, ...]:
    from condition import Group

    def make(setting: Any, names: tuple[str, ...]) -> Iterator[Any]:
        if "toy" in names:
            yield toy_condition(setting.size_px)

    return (
        Group(("toy",), (), make),
        Group(("elsewhere",), ("no_such_imagery",), make),
    )


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Let the command know two toy conditions, the imagery of one of which is absent."""
    import run

    monkeypatch.setattr(run, "GROUPS", toy_groups())
    monkeypatch.setattr(run, "NAMES", ("toy", "elsewhere"))
    monkeypatch.setattr(run, "foreign_pool", lambda setting: [])
    return ["--data", str(tmp_path), "--no-baselines"]


def test_a_moved_tile_is_found_by_every_baseline() -> None:
    from evaluate import Kept, answer, summary
    from methods import hog_method
    from pairwise import pairwise_methods

    condition = toy_condition(128)
    for method in [hog_method(), *pairwise_methods(quick=False)]:
        result = summary(answer(condition, method, [], Kept()), method)
        assert result["figures"]["recall_at_1"]["value"] == 1.0, method.name
        assert result["figures"]["auc_foreign"]["value"] > 0.9, method.name
        assert "calibration" not in result


def test_a_tile_of_few_features_takes_no_match_twice() -> None:
    from pairwise import _Keys, _matches

    rng = np.random.default_rng(9)
    tile = _Keys(rng.uniform(0, 128, (3, 2)), np.eye(3, 128, dtype=np.float32))
    blurred = np.repeat(tile.descriptors, 50, axis=0)
    blurred[:, 3:] = rng.uniform(0, 0.1, (150, 125))
    blurred /= np.linalg.norm(blurred, axis=1, keepdims=True)
    query = _Keys(rng.uniform(0, 128, (150, 2)), blurred)
    source, target = _matches(query, tile)
    assert len(source) == 3
    assert sorted(target.tolist()) == sorted(tile.points.tolist())


def test_methods_that_compare_pairs_are_asked_few_queries() -> None:
    import dataclasses

    from evaluate import Kept, answer
    from pairwise import pairwise_methods

    few = dataclasses.replace(pairwise_methods(quick=True)[0], views=6)
    answers = answer(toy_condition(128), few, [], Kept())
    assert [len(of.scores) for of in answers] == [3, 3]
    assert [len(of.foreign) for of in answers] == [3, 3]


def test_queries_of_the_pool_are_foreign_unless_they_show_the_same_source(
    toy_encoder: Path,
) -> None:
    from condition import Condition
    from evaluate import Foreign, Kept, answer
    from methods import encoder_method

    method = encoder_method("toy", toy_encoder)
    region, other = toy_region(64, 1), toy_region(64, 3)
    pool = [Foreign(of.gallery.source, of.queries, of.cluster) for of in (region, other)]
    (of,) = answer(Condition("one", "", (region,)), method, pool, Kept())
    assert len(of.foreign) == len(other.queries)
    assert of.scores.shape == (6, len(region.gallery.tiles))


def test_the_best_of_several_views_counts(toy_encoder: Path) -> None:
    import dataclasses

    from condition import Condition
    from evaluate import Kept, answer
    from methods import encoder_method

    region = toy_region(64, 1)
    turned = np.concatenate([region.queries[:, :, ::-1], region.queries], axis=1)
    method, kept = encoder_method("toy", toy_encoder), Kept()
    (once,) = answer(Condition("", "", (region,)), method, [], kept)
    both = dataclasses.replace(region, queries=turned)
    (twice,) = answer(Condition("", "", (both,)), method, [], kept)
    assert (twice.scores >= once.scores - 1e-6).all()
    assert (twice.scores > once.scores + 1e-3).any()


def test_the_command_prints_tables_and_writes_figures(
    toys: list[str], toy_encoder: Path, tmp_path: Path
) -> None:
    import run

    json_path, sheets = tmp_path / "out.json", tmp_path / "sheets"
    options = [*toys, "--encoder", f"mine={toy_encoder}", "--json", str(json_path)]
    result = CliRunner().invoke(run.cli, [*options, "--failures", str(sheets)])
    assert result.exit_code == 0, result.output
    assert f"left out: elsewhere (no no_such_imagery in {tmp_path})" in result.stderr
    assert "| toy | 100.0 [100.0, 100.0] |" in result.stdout
    assert "### Calibration error of the answers, %" in result.stdout
    value = json.loads(json_path.read_text())
    assert value["results"]["toy"]["mine"]["queries"] == 12
    of = value["results"]["toy"]["mine"]
    assert of["figures"]["recall_at_1"]["value"] == 1.0
    assert of["figures"]["auc_foreign_claimed"]["value"] is not None
    parts = of["calibration"]["reliability_with_foreign"]
    assert sum(part["count"] for part in parts) == of["queries"] + of["foreign"]
    assert (of["frames"]["count"], of["frames"]["foreign"]) == (12, 12)
    assert of["frames"]["figures"]["issued"]["value"] is not None
    assert "### Whole frame, as flown: mine\n" in result.stdout
    assert value["methods"]["mine"].startswith("toy.onnx, SHA-256 ")
    assert read_rgb(sheets / "toy_mine.png").shape == (12 * 194, 3 * 164, 3)


def test_figures_are_not_overwritten(toys: list[str], tmp_path: Path) -> None:
    import run

    there = tmp_path / "there.json"
    there.write_text("{}")
    result = CliRunner().invoke(run.cli, [*toys, "--json", str(there)])
    assert str(result.exception) == f"--json {there}: exists; add --overwrite to replace it"


def test_sheets_of_another_run_are_not_overwritten(toys: list[str], tmp_path: Path) -> None:
    import run

    sheets = tmp_path / "sheets"
    sheets.mkdir()
    (sheets / "toy_mine.png").write_text("")
    result = CliRunner().invoke(run.cli, [*toys, "--failures", str(sheets)])
    assert isinstance(result.exception, InputError)
    assert str(result.exception) == (
        f"--failures {sheets}: is not empty; add --overwrite to replace sheets"
    )


def test_every_condition_has_a_sheet_of_its_own() -> None:
    from conditions import NAMES
    from failures import sheet_name

    assert len({sheet_name(f"{name} now") for name in NAMES}) == len(NAMES)


def test_a_condition_that_does_not_exist_is_refused(toys: list[str]) -> None:
    import run

    result = CliRunner().invoke(run.cli, [*toys, "--only", "toi"])
    message = "--only 'toi': no such condition; there are toy, elsewhere"
    assert isinstance(result.exception, InputError) and str(result.exception) == message


def test_an_encoder_needs_a_name(toys: list[str]) -> None:
    import run

    result = CliRunner().invoke(run.cli, [*toys, "--encoder", "mine.onnx"])
    message = "--encoder mine.onnx: write NAME=FILE, or NAME= for the packaged encoder"
    assert str(result.exception) == message


def test_without_any_imagery_there_is_nothing_to_run(
    toys: list[str], toy_encoder: Path, tmp_path: Path
) -> None:
    import run

    options = [*toys, "--encoder", f"mine={toy_encoder}", "--only", "elsewhere"]
    result = CliRunner().invoke(run.cli, options)
    message = f"--data {tmp_path}: holds no imagery of the conditions asked for"
    assert str(result.exception) == message


def test_every_condition_has_one_name() -> None:
    import conditions

    assert len(set(conditions.NAMES)) == len(conditions.NAMES) >= 20


def test_a_checkpoint_and_its_random_weights_are_judged(toy_checkpoint: Path) -> None:
    from evaluate import Kept, answer, summary
    from methods import encoder_method, random_weights

    trained = encoder_method("trained", toy_checkpoint)
    assert trained.spec is not None
    for method in (trained, random_weights(trained.spec)):
        assert method is not None and method.size_px == 64
        result = summary(answer(toy_condition(64), method, [], Kept()), method)
        assert result["queries"] == 12
    assert trained.about.startswith("toy.safetensors, SHA-256 ")


def test_pictures_register_by_their_ground() -> None:
    import cv2
    from registration import features, project, register

    ground = picture(7, 480)
    turn = np.vstack([cv2.getRotationMatrix2D((240, 240), 25.0, 0.9), [0, 0, 1]])
    turned = np.asarray(cv2.warpPerspective(ground, turn, (480, 480)), np.uint8)
    matrix = register(features(ground), features(turned))
    assert matrix is not None
    places = np.array([[150.0, 200.0], [300.0, 280.0]])
    assert project(matrix, places) == pytest.approx(project(turn, places), abs=1.0)
    assert register(features(ground), features(picture(8, 480))) is None


def test_a_quick_look_registers_no_flight(
    capfd: pytest.CaptureFixture[str],
) -> None:
    import conditions
    import run

    names = run.chosen((), quick=True)
    told = capfd.readouterr().err
    assert told.startswith("left out of a quick look: same flight: caliterra, same flight: garf")
    assert set(conditions.NAMES) - set(names) == {
        name for name in conditions.NAMES if "flight" in name or "colour" in name or "NIR" in name
    }
    assert run.chosen(("other sensor: garfield NIR",), quick=True) == (
        "other sensor: garfield NIR",
    )
