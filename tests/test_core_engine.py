"""Engines: which file of what is run by which back end, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from s4g.core import engine as engine_module
from s4g.core import engine_onnx
from s4g.core.devices import (
    BUNDLE_CPU_INT8,
    BUNDLE_FP16,
    BUNDLE_FP16_PLAN,
    BUNDLE_FP32,
    BUNDLE_TRT_INT8,
    BUNDLE_TRT_INT8_PLAN,
    DEVICE_FILES,
    DEVICES,
    device_file,
    why_absent,
)
from s4g.core.engine import FrameEngine, embedded_encoder_path, load_engine
from s4g.core.errors import InputError, S4GError

pytest.importorskip("onnx", reason="the toy encoder needs onnx (the export extra)")

ALL_FILES = (
    BUNDLE_CPU_INT8,
    BUNDLE_FP32,
    BUNDLE_FP16,
    BUNDLE_TRT_INT8,
    BUNDLE_TRT_INT8_PLAN,
    BUNDLE_FP16_PLAN,
)


def some_images(count: int, side_px: int = 64) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, side_px, side_px, 3), np.uint8)


def message_of(path: Path, device: str) -> str:
    with pytest.raises(InputError) as caught:
        load_engine(path, device)
    return str(caught.value)


def make_bundle(folder: Path, encoder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_bytes(encoder.read_bytes())
    return folder


class FakeTensorRt:
    """Stands for an engine of TensorRT, which needs a GPU."""

    backend = "tensorrt"

    def __init__(self, path: Path) -> None:
        self.name = str(path)


def have_tensorrt(monkeypatch: pytest.MonkeyPatch, engine: Any = FakeTensorRt) -> None:
    for name in ("tensorrt", "pycuda"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    module = ModuleType("s4g.core.engine_tensorrt")
    module.TensorRtEngine = engine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)


def have_no(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    for name in modules:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize(
    ("device", "names"),
    [
        ("cpu", [BUNDLE_CPU_INT8, BUNDLE_FP32]),
        ("openvino", [BUNDLE_CPU_INT8, BUNDLE_FP32]),
        ("cuda", [BUNDLE_FP16, BUNDLE_FP32]),
        ("ort-tensorrt", [BUNDLE_TRT_INT8, BUNDLE_FP16, BUNDLE_FP32]),
        ("tensorrt", [BUNDLE_TRT_INT8_PLAN, BUNDLE_FP16_PLAN]),
    ],
)
def test_a_device_takes_the_best_file_of_a_bundle_that_suits_it(
    tmp_path: Path, toy_encoder: Path, device: str, names: list[str]
) -> None:
    bundle = make_bundle(tmp_path, toy_encoder, *ALL_FILES)
    taken = []
    while len(taken) < len(names):
        taken.append(device_file(bundle, device).name)
        (bundle / taken[-1]).unlink()
    assert taken == names
    with pytest.raises(InputError):
        device_file(bundle, device)


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("cpu", "holds neither encoder.cpu.int8.onnx nor encoder.fp32.onnx; export again"),
        ("cuda", "holds neither encoder.fp16.onnx nor encoder.fp32.onnx; export again"),
        (
            "ort-tensorrt",
            "holds none of encoder.trt.int8.onnx, encoder.fp16.onnx, encoder.fp32.onnx; "
            "export again",
        ),
        (
            "tensorrt",
            "holds no plan (encoder.trt.int8.plan or encoder.fp16.plan); build one on this "
            "machine with s4g-export build {}",
        ),
        ("auto", "holds neither encoder.cpu.int8.onnx nor encoder.fp32.onnx; export again"),
    ],
)
def test_a_bundle_that_holds_nothing_for_a_device_is_refused(
    tmp_path: Path, device: str, reason: str
) -> None:
    assert message_of(tmp_path, device) == f"{tmp_path}: {reason.format(tmp_path)}"


def test_the_graph_for_tensorrt_is_not_given_to_a_cpu(tmp_path: Path, toy_encoder: Path) -> None:
    bundle = make_bundle(tmp_path, toy_encoder, BUNDLE_TRT_INT8)
    assert message_of(bundle, "auto") == (
        f"{bundle}: holds neither encoder.cpu.int8.onnx nor encoder.fp32.onnx; export again"
    )


def test_a_missing_encoder_is_refused(tmp_path: Path) -> None:
    assert message_of(tmp_path / "no.onnx", "cpu") == (
        f"{tmp_path / 'no.onnx'}: no such encoder; give an ONNX file or a bundle of s4g-export"
    )


def test_an_unknown_device_is_refused(toy_encoder: Path) -> None:
    assert message_of(toy_encoder, "tpu") == (
        "device tpu: expected one of auto, cpu, openvino, cuda, ort-tensorrt, tensorrt"
    )


@pytest.mark.parametrize("device", ["cpu", "openvino", "cuda", "ort-tensorrt"])
def test_a_plan_runs_on_tensorrt_only(tmp_path: Path, device: str) -> None:
    plan = tmp_path / BUNDLE_FP16_PLAN
    plan.write_bytes(b"plan")
    assert message_of(plan, device) == (
        f"{plan}: a TensorRT plan does not run on device {device}; pass --device tensorrt"
    )


def test_tensorrt_runs_plans_only(toy_encoder: Path) -> None:
    assert message_of(toy_encoder, "tensorrt") == (
        f"{toy_encoder}: device tensorrt runs plans; build one on this machine with s4g-export "
        "build BUNDLE"
    )


@pytest.mark.parametrize(("device", "kind"), [("cuda", "CUDA"), ("ort-tensorrt", "TensorRT")])
def test_a_provider_that_onnx_runtime_lacks_is_named(
    toy_encoder: Path, monkeypatch: pytest.MonkeyPatch, device: str, kind: str
) -> None:
    monkeypatch.setattr(engine_onnx, "has_provider", lambda name: False)
    assert message_of(toy_encoder, device) == (
        f"device {device}: this ONNX Runtime has no {kind} provider; install onnxruntime-gpu"
    )


def test_openvino_is_named_where_it_is_not_installed(
    toy_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_no(monkeypatch, "openvino")
    assert message_of(toy_encoder, "openvino") == (
        "device openvino: OpenVINO is not installed; pip install 's4g[openvino]'"
    )


@pytest.mark.parametrize("module", ["tensorrt", "pycuda"])
def test_what_tensorrt_needs_is_named_where_it_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    have_tensorrt(monkeypatch)
    have_no(monkeypatch, module)
    plan = tmp_path / BUNDLE_FP16_PLAN
    plan.write_bytes(b"plan")
    assert message_of(plan, "auto") == (
        f"device tensorrt: {module} is not installed; s4g-export doctor tells what is missing"
    )


def test_nothing_is_absent_for_a_cpu() -> None:
    assert why_absent("cpu") == ""


def test_auto_runs_the_plan_of_a_bundle(
    tmp_path: Path, toy_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_tensorrt(monkeypatch)
    bundle = make_bundle(tmp_path, toy_encoder, *ALL_FILES)
    engine = load_engine(bundle)
    assert (engine.backend, engine.name) == ("tensorrt", str(bundle / BUNDLE_TRT_INT8_PLAN))
    assert load_engine(bundle / BUNDLE_FP16_PLAN).name == str(bundle / BUNDLE_FP16_PLAN)


def test_auto_says_why_a_plan_is_not_used(
    tmp_path: Path,
    toy_encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(path: Path) -> None:
        raise InputError(f"{path}: built by TensorRT 10.3.0, this machine has 10.16.2")

    have_tensorrt(monkeypatch, refuse)
    monkeypatch.setattr(engine_onnx, "has_provider", lambda name: False)
    bundle = make_bundle(tmp_path, toy_encoder, BUNDLE_CPU_INT8, BUNDLE_TRT_INT8_PLAN)
    engine = load_engine(bundle)
    assert (engine.backend, engine.name) == ("onnxruntime cpu", str(bundle / BUNDLE_CPU_INT8))
    assert capsys.readouterr() == (
        "",
        f"note: encoder.trt.int8.plan is not used: {bundle / BUNDLE_TRT_INT8_PLAN}: built by "
        "TensorRT 10.3.0, this machine has 10.16.2\n",
    )


def test_auto_runs_the_next_plan_where_the_first_does_not_work(
    tmp_path: Path,
    toy_encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse_int8(path: Path) -> FakeTensorRt:
        if path.name == BUNDLE_TRT_INT8_PLAN:
            raise InputError("built by TensorRT 10.3.0")
        return FakeTensorRt(path)

    have_tensorrt(monkeypatch, refuse_int8)
    engine = load_engine(make_bundle(tmp_path, toy_encoder, *ALL_FILES))
    assert engine.name == str(tmp_path / BUNDLE_FP16_PLAN)
    assert capsys.readouterr().err == (
        "note: encoder.trt.int8.plan is not used: built by TensorRT 10.3.0\n"
    )


def test_auto_says_once_that_plans_cannot_run_here(
    tmp_path: Path,
    toy_encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    have_no(monkeypatch, "tensorrt")
    monkeypatch.setattr(engine_onnx, "has_provider", lambda name: False)
    load_engine(make_bundle(tmp_path, toy_encoder, *ALL_FILES))
    assert capsys.readouterr().err == (
        "note: encoder.trt.int8.plan is not used: device tensorrt: tensorrt is not installed; "
        "s4g-export doctor tells what is missing\n"
    )


def test_auto_says_nothing_where_no_gpu_was_asked_for(
    tmp_path: Path,
    toy_encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(engine_onnx, "has_provider", lambda name: False)
    bundle = make_bundle(tmp_path, toy_encoder, BUNDLE_CPU_INT8, BUNDLE_FP16)
    assert load_engine(bundle).name == str(bundle / BUNDLE_CPU_INT8)
    assert load_engine(toy_encoder).name == str(toy_encoder)
    assert capsys.readouterr() == ("", "")


class Opened:
    """Stands for OnnxEngine: records what was opened where; devices in `broken` fail."""

    def __init__(self, precision: str = "fp32", broken: bool = False) -> None:
        self.precision, self.broken, self.log = precision, broken, list[str]()

    def __call__(self, path: Path, device: str, threads: int) -> Any:
        log, precision = self.log, self.precision
        log.append(f"{path.name} on {device}")
        if device == "cuda" and self.broken:
            raise InputError("device cuda: does not work here (no kernel image)")

        class Engine:
            name, backend = path.name, device
            spec = type("Spec", (), {"precision": precision})

            def close(self) -> None:
                log.append(f"closed {device}")

        return Engine()


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(engine_onnx, "has_provider", lambda name: True)
    return monkeypatch


def test_auto_prefers_cuda_for_a_float_file(
    toy_encoder: Path, with_cuda: pytest.MonkeyPatch
) -> None:
    opened = Opened("fp32")
    with_cuda.setattr(engine_onnx, "OnnxEngine", opened)
    assert load_engine(toy_encoder).backend == "cuda"
    assert opened.log == ["toy.onnx on cpu", "toy.onnx on cuda", "closed cpu"]


def test_auto_keeps_a_graph_quantised_for_cpus_on_the_cpu(
    toy_encoder: Path, with_cuda: pytest.MonkeyPatch
) -> None:
    opened = Opened("int8")
    with_cuda.setattr(engine_onnx, "OnnxEngine", opened)
    assert load_engine(toy_encoder).backend == "cpu"
    assert opened.log == ["toy.onnx on cpu"]


def test_auto_falls_back_to_the_cpu_and_says_so(
    tmp_path: Path,
    toy_encoder: Path,
    with_cuda: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    opened = Opened(broken=True)
    with_cuda.setattr(engine_onnx, "OnnxEngine", opened)
    bundle = make_bundle(tmp_path, toy_encoder, BUNDLE_CPU_INT8, BUNDLE_FP16)
    assert load_engine(bundle).backend == "cpu"
    assert load_engine(toy_encoder).backend == "cpu"
    reason = "device cuda: does not work here (no kernel image)"
    assert capsys.readouterr().err == (
        f"note: encoder.fp16.onnx is not used: {reason}\nnote: toy.onnx is not used: {reason}\n"
    )


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 32, 32, 3), np.uint8),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((1, 3, 64, 64), np.uint8),
        np.zeros((1, 64, 64, 3), np.float32),
    ],
)
def test_images_that_do_not_fit_are_refused(
    toy_encoder: Path, images: npt.NDArray[np.uint8]
) -> None:
    with pytest.raises(InputError) as caught:
        load_engine(toy_encoder, "cpu").embed(images)
    assert str(caught.value) == (
        f"images of shape {images.shape} and type {images.dtype}; "
        "this encoder takes (B, 64, 64, 3) uint8 RGB"
    )


def test_an_engine_of_onnx_runtime_takes_no_frames(toy_encoder: Path) -> None:
    assert not isinstance(load_engine(toy_encoder, "cpu"), FrameEngine)


def test_every_device_but_auto_knows_its_files() -> None:
    assert tuple(DEVICES) == ("auto", *DEVICE_FILES)


def test_an_installation_without_encoder_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module.resources, "files", lambda package: tmp_path)
    with pytest.raises(S4GError) as caught:
        load_engine()
    assert str(caught.value) == (
        "this installation carries no encoder; pass --encoder BUNDLE or FILE"
    )


def test_the_encoder_that_the_package_carries_works() -> None:
    try:
        path = embedded_encoder_path()
    except S4GError as error:
        pytest.skip(str(error))
    engine = load_engine(path, "cpu")
    embeddings = engine.embed(some_images(2, engine.spec.input_px))
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3)
    assert path.stat().st_size <= 12_000_000
