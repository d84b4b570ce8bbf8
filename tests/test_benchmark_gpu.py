"""The benchmarks of the GPU: what they print on a stand-in, and one line where there is no GPU."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from s4g.core.errors import InputError, S4GError


def load(name: str, folder: str = "tests") -> ModuleType:
    """Import a file of the project that is no module of the package."""
    if name not in sys.modules:
        path = Path(__file__).parents[1] / folder / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
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


@pytest.fixture
def plan(gpu: Any, tmp_path: Path, toy_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    told = fake_tensorrt.Behaviour(enqueue=gpu.enqueue)
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.make(told))
    path: Path = load("toy_plan").build(tmp_path / "encoder.fp16.plan", toy_encoder, told, gpu)
    return path


def run(name: str, *arguments: str) -> list[list[str]]:
    """Return the words of each line on stdout."""
    command = load(name, "benchmarks").cli
    result = CliRunner().invoke(command, arguments, catch_exceptions=False, standalone_mode=False)
    return [line.split() for line in result.stdout.splitlines()]


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile the kernel for the CPU")
def test_the_kernel_is_measured_against_opencv(gpu: Any) -> None:
    small = ("--size", "320", "240", "--patches", "2", "--px", "32", "--runs", "10")
    header, *rows = run("gpu_warp", *small)
    assert header[:8] == ["lens", "shrink", "max", "diff", "mean", "diff", "dusk", "diff"]
    assert [row[0] for row in rows] == ["perfect", "drone"]
    for _, shrink, most, mean, dusk, *times_ms in rows:
        assert float(shrink) == 3
        assert float(most) <= 8 and float(mean) < 1
        assert float(dusk) == 0
        assert len(times_ms) == 4
    assert gpu.live == {}


def test_the_network_is_measured_with_and_without_graph(gpu: Any, plan: Path) -> None:
    arguments = ("--batch", "1", "--batch", "4", "--runs", "10")
    _, *rows = run("tensorrt_latency", str(plan), *arguments)
    assert [row[:2] for row in rows] == [["1", "yes"], ["1", "no"], ["4", "yes"], ["4", "no"]]
    assert all(len(row) == 8 and float(row[6]) > 0 for row in rows)
    assert gpu.calls.count("cuStreamBeginCapture_v2") == 4  # engine and network, two batches
    assert gpu.live == {}


def test_a_batch_that_the_plan_does_not_take_is_refused(gpu: Any, plan: Path) -> None:
    with pytest.raises(InputError) as caught:
        run("tensorrt_latency", str(plan), "--batch", "8")
    assert str(caught.value) == f"--batch 8: {plan} takes 4 at most"


def test_without_a_gpu_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setattr("s4g.core.cuda._devices", [])
    with pytest.raises(S4GError, match="pycuda is not installed"):
        run("gpu_warp")
