"""The frontier of encoders: which pay, what is averaged, what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from s4g.core.engine import embedded_encoder_path
from s4g.core.errors import InputError
from s4g.core.images import read_rgb


@pytest.fixture(autouse=True)
def benchmark_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[1] / "benchmarks" / "encoder"
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])


def results(path: Path, **recalls: tuple[float, ...]) -> Path:
    """Conditions in order, the last on trained ground."""
    count = len(next(iter(recalls.values())))
    names = [str(number) for number in range(count)]
    rows: dict[str, Any] = {
        name: {
            encoder: {"figures": {"recall_at_1": {"value": values[number]}}}
            for encoder, values in recalls.items()
        }
        for number, name in enumerate(names)
    }
    seen = {name: {"seen": number == count - 1} for number, name in enumerate(names)}
    path.write_text(json.dumps({"conditions": seen, "results": rows}))
    return path


def test_an_encoder_pays_that_finds_more_than_every_faster_one() -> None:
    from frontier import rated

    recall = {"slow": 0.9, "quick": 0.8, "slower and worse": 0.85, "quick, too": 0.8}
    times = {
        "slow": (3.0, 4.0), "quick": (1.0, 2.0), "slower and worse": (5.0, 6.0),
        "quick, too": (2.0, 2.0),
    }  # fmt: skip
    assert [(p.name, p.pays) for p in rated(recall, times)] == [
        ("quick", True),
        ("quick, too", False),
        ("slow", True),
        ("slower and worse", False),
    ]


def test_of_two_that_are_as_fast_only_the_better_pays() -> None:
    from frontier import rated

    points = rated({"b": 0.5, "a": 0.7}, {"a": (1.0, 1.0), "b": (1.0, 1.0)})
    assert [(p.name, p.pays) for p in points] == [("a", True), ("b", False)]


def test_recall_is_averaged_over_conditions_of_unseen_ground(tmp_path: Path) -> None:
    from frontier import mean_recall

    path = results(tmp_path / "r.json", mine=(0.5, 0.7, 1.0), other=(0.1, 0.2, 1.0))
    assert mean_recall(path, ["mine", "other"]) == (
        pytest.approx({"mine": 0.6, "other": 0.15}),
        2,
    )


def test_an_encoder_that_was_not_judged_is_refused(tmp_path: Path) -> None:
    from frontier import mean_recall

    path = results(tmp_path / "r.json", mine=(0.5, 1.0))
    with pytest.raises(InputError) as refused:
        mean_recall(path, ["mine", "other"])
    assert str(refused.value) == (f"--encoder other: {path} does not judge it by all conditions")


@pytest.mark.parametrize("text", ["", "{}", '{"conditions": {}, "results": {}}', "[]"])
def test_a_file_without_results_is_refused(tmp_path: Path, text: str) -> None:
    from frontier import mean_recall

    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        mean_recall(path, ["mine"])
    assert str(refused.value) == f"{path}: no results; write them with run.py --json"


def test_the_command_times_what_it_is_given_and_draws(tmp_path: Path) -> None:
    import frontier

    path = results(tmp_path / "r.json", mine=(0.5, 1.0))
    picture = tmp_path / "out.png"
    given = f"mine={embedded_encoder_path()}"
    done = CliRunner().invoke(
        frontier.cli, [str(path), str(picture), "--encoder", given], catch_exceptions=False
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "Mean R@1 over 1 conditions; one image, one thread, 200 runs each."
    name, p50, p95, recall, pays = lines[-1].strip("| ").split(" | ")
    assert (name, recall, pays) == ("mine", "50.0", "yes")
    assert 0 < float(p50) <= float(p95)
    assert read_rgb(picture).shape[2] == 3
