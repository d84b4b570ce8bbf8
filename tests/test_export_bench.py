"""Side-by-side latency: what is run, how often, and what is said about it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from s4g.core.engine import BUNDLE_CPU_INT8, BUNDLE_FP32
from s4g.core.errors import InputError
from s4g.core.spec import EncoderSpec
from s4g.export import bench
from s4g.export.bench import Latency, Timing, side_by_side, verdict

SPEC = EncoderSpec("0" * 64, "toy", 16, (0.5,) * 3, (0.25,) * 3, 8, (8,), 0.5, 4.0, True, 0.1)


class CountingEngine:
    spec = SPEC
    name = "counting"

    def __init__(self, log: list[str], label: str) -> None:
        self.log, self.label = log, label
        self.shapes: set[tuple[int, ...]] = set()

    def embed(self, images: np.ndarray) -> np.ndarray:
        self.log.append(self.label)
        self.shapes.add(images.shape)
        return np.zeros((len(images), 8), np.float32)


def test_engines_take_turns_run_by_run() -> None:
    log: list[str] = []
    engines = {"a": CountingEngine(log, "a"), "b": CountingEngine(log, "b")}
    timed = side_by_side(engines, batch=3, runs=4)
    assert log == ["a", "b"] * (bench._WARM_UP_RUNS + 4)
    assert engines["a"].shapes == {(3, 16, 16, 3)}
    assert set(timed) == {"a", "b"}
    assert 0 <= timed["a"].p50_ms <= timed["a"].p95_ms <= timed["a"].p99_ms


@pytest.mark.parametrize(
    ("int8_ms", "said"),
    [
        (5.0, "INT8 is 3.0 times as fast as FP32 on this machine"),
        (14.5, "INT8 is no faster than FP32 on this machine: FP32 loses nothing"),
        (30.0, "INT8 is slower than FP32 on this machine (0.50 times its speed): use FP32"),
    ],
)
def test_the_verdict_is_plain(int8_ms: float, said: str) -> None:
    assert verdict(Latency(15, 15, 15), Latency(int8_ms, int8_ms, int8_ms)) == said


@pytest.fixture
def bundle(toy_encoder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in (BUNDLE_FP32, BUNDLE_CPU_INT8):
        shutil.copy(toy_encoder, folder / name)
    return folder


def test_every_engine_is_timed_at_every_setting(bundle: Path) -> None:
    rows = bench.bench_bundle(bundle, threads=[1, 2], batches=[1, 3], runs=1)
    assert [(r.file, r.threads, r.batch) for r in rows] == [
        (name, threads, batch)
        for threads in (1, 2)
        for batch in (1, 3)
        for name in (BUNDLE_FP32, BUNDLE_CPU_INT8)
    ]


def test_a_bundle_without_int8_is_timed_as_it_is(bundle: Path) -> None:
    (bundle / BUNDLE_CPU_INT8).unlink()
    rows = bench.bench_bundle(bundle, threads=[1], batches=[1], runs=1)
    assert [r.file for r in rows] == [BUNDLE_FP32]
    assert "INT8" not in bench.as_table(rows)


def test_a_missing_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        bench.bench_bundle(tmp_path / "none", [1], [1], 1)
    assert str(error.value) == (
        f"{tmp_path / 'none'}: no such bundle; give a folder made by s4g-export"
    )


def test_a_folder_without_engines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        bench.bench_bundle(tmp_path, [1], [1], 1)
    assert str(error.value) == (
        f"{tmp_path}: holds neither encoder.fp32.onnx nor encoder.cpu.int8.onnx; "
        "export the checkpoint again"
    )


ROWS = [
    Timing(BUNDLE_FP32, 0, 1, Latency(15, 16, 17)),
    Timing(BUNDLE_CPU_INT8, 0, 1, Latency(5, 6, 7)),
]


def test_the_table_names_the_machine_and_gives_a_verdict() -> None:
    lines = bench.as_table(ROWS).splitlines()
    assert bench.machine()["processor"] in lines[0]
    assert lines[2].split() == [BUNDLE_FP32, "auto", "1", "15.00", "16.00", "17.00"]
    assert lines[-1] == ("threads auto, batch 1: INT8 is 3.0 times as fast as FP32 on this machine")


def test_the_json_holds_every_row() -> None:
    made = json.loads(json.dumps(bench.as_json(ROWS)))
    assert made["timings"][1] == {
        "file": BUNDLE_CPU_INT8,
        "threads": 0,
        "batch": 1,
        "p50_ms": 5,
        "p95_ms": 6,
        "p99_ms": 7,
    }
    assert made["machine"]["cores"] >= 1
