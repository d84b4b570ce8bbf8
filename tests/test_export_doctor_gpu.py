"""What the doctor finds out about a GPU, on stand-ins that really compute."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from s4g.core.errors import S4GError
from s4g.export import doctor_gpu
from s4g.export.diagnosis import ABSENT, FAILS, WORKS, Check
from s4g.export.doctor_gpu import check_gpu, check_tensorrt
from s4g.export.remedies import Platform

ORIN = Platform((6, 2), "aarch64", True)


def load(name: str) -> ModuleType:
    """Import a helper that lies beside this file."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


fake_pycuda = load("fake_pycuda")
fake_tensorrt = load("fake_tensorrt")


@pytest.fixture(params=[False, True], ids=["card", "jetson"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = fake_pycuda.Gpu(integrated=request.param)
    made.install(monkeypatch)
    return made


def have_tensorrt(monkeypatch: pytest.MonkeyPatch, **behaviour: Any) -> None:
    made = fake_tensorrt.make(fake_tensorrt.Behaviour(**behaviour))
    monkeypatch.setitem(sys.modules, "tensorrt", made)


def test_a_missing_tensorrt_comes_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    check = check_tensorrt(ORIN)
    assert (check.state, check.detail) == (ABSENT, "tensorrt is not installed")
    assert check.remedy.startswith("sudo apt install nvidia-jetpack, or python3-libnvinfer alone")


def test_a_builder_proves_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    have_tensorrt(monkeypatch, version="10.16.2")
    assert check_tensorrt(ORIN) == Check("tensorrt builder", WORKS, "TensorRT 10.16.2")


def test_a_builder_that_finds_no_gpu_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    have_tensorrt(monkeypatch, no_gpu=True)
    check = check_tensorrt(ORIN)
    assert (check.state, check.detail) == (
        FAILS,
        "pybind11::init(): factory function returned nullptr",
    )
    assert check.remedy


def test_a_tensorrt_that_is_too_old_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    have_tensorrt(monkeypatch, version="8.6.2")
    check = check_tensorrt(ORIN)
    assert check.state == FAILS
    assert check.detail.startswith("TensorRT 8.6.2 is too old")


def test_a_missing_pycuda_comes_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    (check,) = check_gpu(ORIN)
    assert (check.name, check.state) == ("pycuda", ABSENT)
    assert "pip install pycuda" in check.remedy


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile the kernel for the CPU")
def test_a_gpu_moves_bytes_and_cuts_a_patch(gpu: Any) -> None:
    pycuda, kernel = check_gpu(ORIN)
    assert pycuda == Check(
        "pycuda", WORKS, f"{gpu.name}, compute capability {'.'.join(map(str, gpu.capability))}"
    )
    assert (kernel.name, kernel.state) == ("patch kernel", WORKS)
    assert gpu.live == {}
    assert len(gpu.kernels) == 1


def test_a_gpu_that_cannot_be_reached_is_told(gpu: Any) -> None:
    gpu.fail = "count"
    (check,) = check_gpu(ORIN)
    assert (check.state, check.detail.startswith("no GPU can be used")) == (FAILS, True)
    assert check.remedy


def test_a_gpu_that_alters_bytes_is_told(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_gpu.np, "array_equal", lambda seen, sent: False)
    (check,) = check_gpu(ORIN)
    assert (check.state, check.detail) == (FAILS, "bytes come back from the GPU altered")
    assert check.remedy == ""


def test_a_gpu_without_memory_is_no_reason_to_install_anything(gpu: Any) -> None:
    gpu.free_bytes = 0
    (check,) = check_gpu(ORIN)
    assert check.state == FAILS
    assert check.detail.startswith("out of GPU memory while allocating ")
    assert check.remedy == ""


def test_a_kernel_that_finds_no_memory_is_no_reason_to_install_anything(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_gpu, "_move_bytes", lambda device: setattr(gpu, "free_bytes", 0))
    _, kernel = check_gpu(ORIN)
    assert kernel.detail.startswith("out of GPU memory while allocating ")
    assert kernel.remedy == ""


def test_a_builder_that_fails_otherwise_is_no_reason_to_install_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(self: Any, logger: Any) -> None:
        raise RuntimeError("out of memory")

    have_tensorrt(monkeypatch)
    monkeypatch.setattr(sys.modules["tensorrt"].Builder, "__init__", fail)
    assert check_tensorrt(ORIN) == Check("tensorrt builder", FAILS, "out of memory")


def test_a_kernel_that_cannot_be_compiled_is_told(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(device: Any) -> None:
        raise S4GError("no libnvrtc.so.12")

    monkeypatch.setattr(doctor_gpu, "FrameWarper", refuse)
    pycuda, kernel = check_gpu(ORIN)
    assert pycuda.state == WORKS
    assert (kernel.state, kernel.detail) == (FAILS, "no libnvrtc.so.12")
    assert kernel.remedy == "sudo apt install nvidia-jetpack, which brings NVRTC of CUDA 12.6"
    assert gpu.live == {}


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile the kernel for the CPU")
def test_a_kernel_that_draws_something_else_is_told(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = doctor_gpu.cut_with_opencv
    monkeypatch.setattr(doctor_gpu, "cut_with_opencv", lambda frame, warp: cut(255 - frame, warp))
    _, kernel = check_gpu(ORIN)
    assert kernel.state == FAILS
    assert kernel.detail.startswith("the patch it cuts is wrong (differs from OpenCV's by ")
    assert kernel.remedy == ""
