"""The curves of a training: lines, events and a picture that stay true after a resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import pytest

from s4g.train.monitor import Monitor


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def filled(run: Path, steps: range, start: int = 0) -> Monitor:
    monitor = Monitor(run, start)
    for step in steps:
        monitor.scalars(step, {"loss": 1 / step, "images_per_s": 100.0, "data_wait_share": 0.1})
    return monitor


def test_every_record_is_a_line_at_once(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path)
    monitor.scalars(1, {"loss": 2.5})
    assert lines_of(tmp_path) == [{"step": 1, "loss": 2.5}]  # before it is closed
    monitor.validation(2, {"drone→satellite": {"recall_at_1": 0.5}})
    monitor.event(2, {"mined": 7})
    monitor.close()
    assert lines_of(tmp_path)[1:] == [
        {"step": 2, "validation": {"drone→satellite": {"recall_at_1": 0.5}}},
        {"step": 2, "event": {"mined": 7}},
    ]


def test_what_json_cannot_spell_becomes_null(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path)
    monitor.scalars(1, {"loss": float("nan"), "scale": float("inf")})
    monitor.event(1, {"shares": [0.5, float("nan")]})
    monitor.draw()
    monitor.close()
    assert lines_of(tmp_path) == [
        {"step": 1, "loss": None, "scale": None},
        {"step": 1, "event": {"shares": [0.5, None]}},
    ]


def test_a_resumed_run_drops_the_lines_after_its_save(tmp_path: Path) -> None:
    filled(tmp_path, range(1, 9)).close()
    filled(tmp_path, range(6, 8), start=5).close()
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]


def test_a_line_cut_off_by_a_crash_is_dropped(tmp_path: Path) -> None:
    filled(tmp_path, range(1, 4)).close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    filled(tmp_path, range(4, 5), start=4).close()
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3, 4]


def test_tensorboard_reads_the_events_and_hides_those_made_again(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    filled(tmp_path, range(1, 9)).close()
    monitor = filled(tmp_path, range(6, 8), start=5)
    monitor.validation(7, {"task": {"recall_at_1": 0.25, "k": "no number"}})
    monitor.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert set(board.Tags()["scalars"]) == {
        "train/loss",
        "train/images_per_s",
        "train/data_wait_share",
        "validation/task/recall_at_1",
    }
    assert [event.step for event in board.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6, 7]
    assert board.Scalars("validation/task/recall_at_1")[0].value == 0.25


def test_the_history_is_a_picture_that_grows_with_the_panels(tmp_path: Path) -> None:
    monitor = filled(tmp_path, range(1, 300))
    monitor.draw()
    two_panels = cv2.imread(str(tmp_path / "history.png"))
    monitor.validation(300, {"recall_at_1": 0.5, "recall_at_5": 0.75})
    monitor.draw()
    three_panels = cv2.imread(str(tmp_path / "history.png"))
    monitor.close()
    assert two_panels is not None and three_panels is not None
    assert three_panels.shape[0] == 2 * two_panels.shape[0]
    assert three_panels.shape[1] == two_panels.shape[1]
    assert three_panels.std() > 10  # curves, not a blank sheet
    names = ["history.png", "metrics.jsonl", "tensorboard"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_curve_of_recall_alone_is_drawn(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path)
    monitor.validation(4, {"a": {"recall_at_1": 0.5, "AP": 0.6}, "b": {"recall_at_1": 0.4}})
    monitor.draw()
    monitor.close()
    assert cv2.imread(str(tmp_path / "history.png")) is not None


def test_nothing_is_drawn_before_there_is_a_curve(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path)
    monitor.event(1, {"started": True})
    monitor.draw()
    monitor.close()
    assert not (tmp_path / "history.png").exists()


def test_drawing_leaves_pyplot_alone(tmp_path: Path) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="the train extra has matplotlib")
    before = pyplot.get_fignums()
    monitor = filled(tmp_path, range(1, 3))
    monitor.draw()
    monitor.close()
    assert pyplot.get_fignums() == before
