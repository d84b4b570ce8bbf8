"""Side-by-side latency: what is run, how often, and what becomes of what does not run."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s4g.core.devices import (
    BUNDLE_CPU_INT8,
    BUNDLE_FP16,
    BUNDLE_FP16_PLAN,
    BUNDLE_FP32,
    BUNDLE_TRT_INT8,
    BUNDLE_TRT_INT8_PLAN,
    DEVICE_FILES,
)
from s4g.core.engine import load_engine
from s4g.core.errors import InputError, S4GError
from s4g.core.onnx_file import EXPORT_KEY
from s4g.core.spec import SPEC_KEY, EncoderSpec
from s4g.export import bench
from s4g.export.bench import Latency, Timing, run_bench, side_by_side, verdict
from s4g.export.roofline import Roofline

onnx = pytest.importorskip("onnx", reason="the toy encoder needs onnx (the export extra)")

SPEC = EncoderSpec("0" * 64, "toy", 16, (0.5,) * 3, (0.25,) * 3, 8, (8,), 0.5, 4.0, True, 0.1)
LIMIT = Roofline(1, int8_gmacs_per_s=200, fp32_gmacs_per_s=50, memory_gbytes_per_s=10)


class CountingEngine:
    """Logs its calls; with `fails`, batches of at least that many images fail."""

    spec = SPEC
    name = "counting"

    def __init__(self, log: list[str], label: str, fails: int = 1000) -> None:
        self.log, self.label, self.backend, self.fails = log, label, f"fake {label}", fails
        self.shapes: set[tuple[int, ...]] = set()

    def embed(self, images: np.ndarray) -> np.ndarray:
        if len(images) >= self.fails:
            raise S4GError(f"{self.label}: out of memory")
        self.log.append(self.label)
        self.shapes.add(images.shape)
        return np.zeros((len(images), 8), np.float32)

    def close(self) -> None:
        self.log.append(f"closed {self.label}")


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
        (5.0, "INT8 is 3.0 times as fast as FP16 on this machine"),
        (14.5, "INT8 is no faster than FP16 on this machine: FP16 loses nothing"),
        (30.0, "INT8 is slower than FP16 on this machine (0.50 times its speed): use FP16"),
    ],
)
def test_the_verdict_is_plain(int8_ms: float, said: str) -> None:
    plain, int8 = Latency(15, 15, 15), Latency(int8_ms, int8_ms, int8_ms)
    assert verdict(plain, int8, "FP16") == said
    assert verdict(plain, int8) == said.replace("FP16", "FP32")


@pytest.fixture
def bundle(toy_encoder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in (BUNDLE_FP32, BUNDLE_CPU_INT8):
        shutil.copy(toy_encoder, folder / name)
    return folder


def with_entries(path: Path, spec: dict[str, Any], facts: dict[str, Any]) -> None:
    """Change the spec of an encoder's file and what the exporter wrote about it."""
    model = onnx.load(path)
    entries = {entry.key: entry.value for entry in model.metadata_props}
    changed = dataclasses.replace(EncoderSpec.from_json(entries[SPEC_KEY], "test"), **spec)
    onnx.helper.set_model_props(model, {SPEC_KEY: changed.to_json(), EXPORT_KEY: json.dumps(facts)})
    onnx.save(model, path)


def test_every_file_is_timed_at_every_setting(bundle: Path) -> None:
    found = run_bench(bundle, ["cpu"], threads=[1, 2], batches=[1, 3], runs=1)
    assert [(r.file, r.device, r.backend, r.threads, r.batch) for r in found.rows] == [
        (name, "cpu", "onnxruntime cpu", threads, batch)
        for threads in (1, 2)
        for batch in (1, 3)
        for name in (BUNDLE_CPU_INT8, BUNDLE_FP32)
    ]
    assert all(row.latency is not None and not row.error for row in found.rows)
    assert (dict(found.absent), found.limits) == ({}, ())


def test_a_missing_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        run_bench(tmp_path / "none", ["cpu"], [1], [1], 1)
    assert str(error.value) == (
        f"{tmp_path / 'none'}: no such encoder; give a bundle or a file of s4g-export"
    )


def test_a_folder_without_engines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        run_bench(tmp_path, ["cpu"], [1], [1], 1)
    assert str(error.value) == (
        f"{tmp_path}: nothing to time: device cpu: {tmp_path.name} holds nothing for it"
    )


def have(monkeypatch: pytest.MonkeyPatch, engines: dict[str, Any], missing: str = "") -> list[Path]:
    """Have `load_engine` return these, by device; an error stands for a device that fails."""
    opened: list[Path] = []

    def load(file: Path, device: str, threads: int) -> Any:
        opened.append(file)
        if isinstance(engines[device], Exception):
            raise engines[device]
        return engines[device]

    monkeypatch.setattr(bench, "load_engine", load)
    reason = "no provider; install it"
    monkeypatch.setattr(bench, "why_absent", lambda device: reason if device == missing else "")
    return opened


def test_files_are_timed_on_the_back_ends_they_suit(
    bundle: Path, toy_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (BUNDLE_FP16, BUNDLE_TRT_INT8, BUNDLE_FP16_PLAN, BUNDLE_TRT_INT8_PLAN):
        shutil.copy(toy_encoder, bundle / name)
    have(monkeypatch, {device: CountingEngine([], device) for device in DEVICE_FILES})
    found = run_bench(bundle, list(DEVICE_FILES), [1], [1], 1)
    assert [(r.device, r.file) for r in found.rows] == [
        (device, name) for device, names in DEVICE_FILES.items() for name in names
    ]


@pytest.mark.parametrize(
    ("name", "precision", "devices"),
    [
        ("any.onnx", "fp32", ["cpu", "openvino", "cuda", "ort-tensorrt"]),
        ("any.onnx", "fp16", ["cuda", "ort-tensorrt"]),
        ("any.onnx", "int8", ["cpu", "openvino"]),
        (BUNDLE_TRT_INT8, "int8", ["ort-tensorrt"]),
        (BUNDLE_FP16, "fp16", ["cuda", "ort-tensorrt"]),
        ("any.plan", "fp16", ["tensorrt"]),
    ],
)
def test_a_single_file_is_timed_where_it_makes_sense(
    tmp_path: Path,
    toy_encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    precision: str,
    devices: list[str],
) -> None:
    path = tmp_path / name
    shutil.copy(toy_encoder, path)
    with_entries(path, {"precision": precision}, {})
    have(monkeypatch, {device: CountingEngine([], device) for device in DEVICE_FILES})
    found = run_bench(path, list(DEVICE_FILES), [1], [1], 1)
    assert [row.device for row in found.rows] == devices
    assert list(found.absent) == [d for d in DEVICE_FILES if d not in devices]


def test_a_back_end_that_is_not_here_is_listed_once(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(monkeypatch, {"cpu": CountingEngine([], "cpu")}, missing="cuda")
    found = run_bench(bundle, ["cpu", "cuda", "tensorrt"], [1, 2], [1], 1)
    assert dict(found.absent) == {
        "cuda": "no provider; install it",
        "tensorrt": f"no plan; build one on this machine with s4g-export build {bundle}",
    }
    with pytest.raises(InputError) as error:
        run_bench(bundle, ["cuda"], [1], [1], 1)
    assert str(error.value) == (f"{bundle}: nothing to time: device cuda: no provider; install it")


def test_a_back_end_that_fails_does_not_stop_the_others(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    engines = {
        "cpu": CountingEngine(log, "cpu"),
        "openvino": CountingEngine(log, "openvino", fails=2),
        "cuda": InputError("device cuda: does not work here"),
    }
    have(monkeypatch, engines)
    found = run_bench(bundle, list(engines), [1], [1, 2], 1)
    assert [(r.device, r.batch, r.error) for r in found.rows if r.error] == [
        ("cuda", 1, "device cuda: does not work here"),
        ("openvino", 2, "openvino: out of memory"),
        ("openvino", 2, "openvino: out of memory"),
        ("cuda", 2, "device cuda: does not work here"),
    ]
    ran = [(r.device, r.batch) for r in found.rows if r.latency]
    assert ran == [("cpu", 1)] * 2 + [("openvino", 1)] * 2 + [("cpu", 2)] * 2
    assert log.count("closed cpu") == 2  # one engine for each file


def test_an_error_in_code_is_not_taken_for_a_failing_back_end(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(monkeypatch, {"cpu": TypeError("a mistake")})
    with pytest.raises(TypeError):
        run_bench(bundle, ["cpu"], [1], [1], 1)


def test_rates_follow_from_the_work_that_the_exporter_counted(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_entries(bundle / BUNDLE_FP32, {}, {"macs": 10_000_000, "weight_bytes": 40_000_000})
    with_entries(bundle / BUNDLE_CPU_INT8, {"precision": "int8"}, {})
    monkeypatch.setattr(bench, "measure_roofline", lambda threads: LIMIT)
    monkeypatch.setattr(
        bench, "side_by_side", lambda engines, batch, runs: dict.fromkeys(engines, Latency(2, 3, 4))
    )
    found = run_bench(bundle, ["cpu"], [1], [4], 1)
    int8, fp32 = found.rows
    assert found.limits == (LIMIT,)
    assert (int8.precision, int8.gmacs_per_s, int8.limit_gmacs_per_s) == ("int8", 20, 200)
    assert int8.share_of_limit == pytest.approx(0.1)
    # 40 million multiply-adds for 40 MB of weights: the memory's 10 GB/s are the limit.
    assert (fp32.precision, fp32.gmacs_per_s, fp32.limit_gmacs_per_s) == ("fp32", 20, 10)
    assert int8.images_per_s == 2000


@pytest.mark.parametrize("macs", [0, -1, True, "many", None])
def test_work_that_makes_no_sense_is_not_used(bundle: Path, macs: object) -> None:
    with_entries(bundle / BUNDLE_FP32, {}, {"macs": macs})
    found = run_bench(bundle, ["cpu"], [1], [1], 1)
    assert {row.gmacs_per_s for row in found.rows} == {None}
    assert {row.share_of_limit for row in found.rows} == {None}


def test_a_plan_does_the_work_of_the_graph_it_was_built_from(
    bundle: Path, toy_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (BUNDLE_FP16, BUNDLE_FP16_PLAN):
        shutil.copy(toy_encoder, bundle / name)
    with_entries(bundle / BUNDLE_FP16, {"precision": "fp16"}, {"macs": 10_000_000})
    have(monkeypatch, {"tensorrt": CountingEngine([], "tensorrt")})
    (row,) = run_bench(bundle, ["tensorrt"], [1], [1], 1).rows
    assert row.gmacs_per_s is not None
    assert row.limit_gmacs_per_s is None  # a GPU's limit is not measured


def test_a_damaged_file_says_so_in_its_row(bundle: Path) -> None:
    (bundle / BUNDLE_FP32).write_bytes(b"junk")
    int8, fp32 = run_bench(bundle, ["cpu"], [1], [1], 1).rows
    assert int8.latency is not None
    assert fp32.error.startswith(f"{bundle / BUNDLE_FP32}: ONNX Runtime cannot load it (")


def test_the_embedded_encoder_is_timed_without_a_name() -> None:
    try:
        name = Path(load_engine(None, "cpu", 1).name).name
    except S4GError as error:
        pytest.skip(str(error))
    assert [row.file for row in run_bench(None, ["cpu"], [1], [1], 1).rows] == [name]


def test_a_row_that_did_not_run_has_no_rates() -> None:
    row = Timing("a.onnx", "cpu", 1, 1, error="broken")
    assert (row.images_per_s, row.share_of_limit) == (None, None)
