"""The embedded encoder is what its card says, and the whole chain localises with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s4g.core.engine import embedded_encoder_path, load_engine

ROOT = Path(__file__).resolve().parents[1]


def test_the_embedded_encoder_is_small_calibrated_and_the_one_of_its_card() -> None:
    path = embedded_encoder_path()
    spec = load_engine().spec
    card = (path.parent / "MODEL_CARD.md").read_text()
    assert path.stat().st_size <= 12e6
    assert spec.precision == "int8"
    assert f"`{spec.model_id}`" in card
    assert spec.unknown_score > 0
    assert spec.provenance["recipe"] == "edge"
    for credit in ("USDA NAIP", "NEON", "OpenAerialMap", "Caliterra", "Ohio", "Garfield"):
        assert credit in card


def test_the_embedded_encoder_tells_places_apart_and_knows_one_again() -> None:
    from s4g.core.landscape import make_world, render_world

    world = make_world(77, 192.0, 0.5)
    summer = render_world(world, "summer", 0, 1, "a")
    autumn = render_world(world, "autumn", 1, 2, "b")
    cuts = [np.s_[y : y + 128, x : x + 128] for y in (0, 128, 256) for x in (0, 128, 256)]
    tiles = load_engine().embed(np.stack([summer[cut] for cut in cuts]))
    views = load_engine().embed(np.stack([autumn[cut] for cut in cuts]))
    np.testing.assert_allclose(np.linalg.norm(tiles, axis=1), 1.0, atol=1e-4)
    found = (views @ tiles.T).argmax(axis=1)
    assert (found == np.arange(len(cuts))).mean() >= 7 / 9


def command(module: str, *arguments: object) -> None:
    code = f"from s4g.{module} import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_flight_over_another_season_is_localised(tmp_path: Path) -> None:
    ground = "landscape:seed=11,size_m=1000"
    flight, pack = tmp_path / "flight", tmp_path / "region.s4gpack"
    fixes, picture = tmp_path / "fixes.jsonl", tmp_path / "track.png"
    command("tilepacks.cli", "--source", ground, "--levels", "80", "--out", pack)
    command(
        "runtime.sim_cli", "--source", f"{ground},season=autumn,year=1", "--pattern", "line",
        "--inset", "120", "--agl", "150", "--speed", "40", "--out", flight,
    )  # fmt: skip
    truth = flight / "truth.csv"
    command(
        "runtime.cli", "--camera", flight / "frames", "--telemetry", flight / "telemetry.csv",
        "--intrinsics", flight / "camera.json", "--pack", pack, "--truth", truth,
        "--out", fixes, "--plot", picture, "--quiet",
    )  # fmt: skip
    score = scored(fixes, truth)
    assert score["fixes"] >= 0.8 * score["frames"]
    assert score["false_fixes"] == 0
    assert score["median_m"] <= 10.0
    assert picture.stat().st_size > 10_000


def test_real_drone_photos_are_localised_on_an_orthophoto(data_dir: Path, tmp_path: Path) -> None:
    photos = data_dir / "brighton_beach"
    if not photos.is_dir():
        pytest.skip(f"no {photos}")
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "brighton.py"), str(photos), "--out", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    score = scored(tmp_path / "fixes.jsonl", tmp_path / "truth.csv")
    assert score["frames"] == 18
    # 16 where this was measured; two of them are near the threshold, and 8-bit arithmetic differs
    # a little between processors.
    assert score["fixes"] >= 14
    assert score["median_m"] <= 8.0
    assert score["false_fixes"] == 0


def scored(fixes: Path, truth: Path) -> dict[str, Any]:
    from s4g.runtime.score import read_fixes, read_truth, score_fixes

    return dict(vars(score_fixes(read_fixes(fixes), read_truth(truth))))
