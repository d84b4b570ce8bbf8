"""The diagram of claims and truth: what is put together, what is drawn, what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from s4g.core.errors import InputError
from s4g.core.images import read_rgb

NAN = float("nan")


@pytest.fixture(autouse=True)
def benchmark_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[1] / "benchmarks" / "encoder"
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])


def bins(*parts: tuple[float, float, int]) -> list[dict[str, float]]:
    return [dict(zip(("claimed", "right", "count"), part, strict=True)) for part in parts]


def results(**changes: Any) -> dict[str, Any]:
    """Two conditions of an encoder and a baseline, the second on trained ground."""
    calibration = {
        "reliability": bins((0.3, 0.5, 10), (0.9, 1.0, 30)),
        "reliability_with_foreign": bins((0.1, 0.0, 20), (0.9, 1.0, 30)),
    }
    of = {"mine": {"calibration": calibration}, "HOG": {}}
    return {
        "conditions": {"one": {"seen": False}, "two": {"seen": True}},
        "results": {"one": of, "two": of},
        **changes,
    }


def drawn(tmp_path: Path, value: object, *options: str) -> Any:
    import reliability

    path = tmp_path / "results.json"
    path.write_text(json.dumps(value))
    return CliRunner().invoke(reliability.cli, [str(path), str(tmp_path / "out.png"), *options])


def test_the_command_draws_a_column_for_each_encoder(tmp_path: Path) -> None:
    assert drawn(tmp_path, results()).exit_code == 0
    one = read_rgb(tmp_path / "out.png")
    value = results()
    value["results"]["one"]["other"] = value["results"]["one"]["mine"]
    assert drawn(tmp_path, value, "--overwrite").exit_code == 0
    two = read_rgb(tmp_path / "out.png")
    assert two.shape[0] == one.shape[0]
    assert two.shape[1] == 2 * one.shape[1]


def test_only_encoders_on_unseen_ground_are_drawn(tmp_path: Path) -> None:
    from reliability import read_calibrations

    path = tmp_path / "results.json"
    path.write_text(json.dumps(results()))
    read = read_calibrations(path)
    assert list(read) == ["mine"]
    assert len(read["mine"]) == 1


def test_answers_of_all_conditions_are_counted_together() -> None:
    from reliability import pooled

    claimed, right, count = pooled(bins((0.31, 0.5, 10), (0.34, 1.0, 30), (1.0, 1.0, 5)))
    assert claimed == pytest.approx([(3.1 + 10.2) / 40, 1.0])
    assert right == pytest.approx([35 / 40, 1.0])
    assert count.tolist() == [40, 5]


def test_a_file_without_foreign_ground_is_drawn_with_one_line(tmp_path: Path) -> None:
    from reliability import read_calibrations

    value = results()
    del value["results"]["one"]["mine"]["calibration"]["reliability_with_foreign"]
    assert drawn(tmp_path, value).exit_code == 0
    (condition,) = read_calibrations(tmp_path / "results.json")["mine"]
    assert list(condition) == ["reliability"]


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"results": 5, "conditions": {}},
        results(conditions={}),
        results(results={"one": {"mine": {"calibration": {"reliability": [{"claimed": 1}]}}}}),
        results(results={"one": {"mine": {"calibration": {"reliability": [{"claimed": "x"}]}}}}),
        results(results={"one": {"mine": {"calibration": {"reliability": bins((1.1, 1, 1))}}}}),
        results(results={"one": {"mine": {"calibration": {"reliability": bins((NAN, 1, 1))}}}}),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, value: object) -> None:
    result = drawn(tmp_path, value)
    path = tmp_path / "results.json"
    assert isinstance(result.exception, InputError)
    assert str(result.exception) == f"{path}: no results; write them with run.py --json"
    assert not (tmp_path / "out.png").exists()


def test_results_of_baselines_alone_are_refused(tmp_path: Path) -> None:
    result = drawn(tmp_path, results(results={"one": {"HOG": {}}}))
    assert str(result.exception) == (
        f"{tmp_path / 'results.json'}: judges no encoder on unseen ground; run.py judges some"
    )


def test_a_picture_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    path.write_bytes(b"mine")
    result = drawn(tmp_path, results())
    assert isinstance(result.exception, InputError)
    assert path.read_bytes() == b"mine"
