"""Remedies: which machine this is, and what to do there."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest

from s4g.export.remedies import Platform, find_platform, remedy

PIECES = ("onnxruntime", "openvino", "cuda", "ort-tensorrt", "tensorrt", "pycuda", "kernel")
ORIN_6 = Platform((6, 2), "aarch64", True)
ORIN_7 = Platform((7, 2), "aarch64", True)
PC = Platform(None, "x86_64", True)


def where(**told: Any) -> dict[str, Any]:
    return {"jetpack": None, "l4t": None, **told}


@pytest.mark.parametrize(
    ("told", "jetpack"),
    [
        ({"jetpack": "6.2+b77", "l4t": "36.4.3"}, (6, 2)),
        ({"jetpack": "7.2.2-b1"}, (7, 2)),
        ({"l4t": "35.6.1"}, (5, 0)),
        ({"l4t": "36.3.0"}, (6, 0)),
        ({"l4t": "36.4.3"}, (6, 1)),
        ({"l4t": "38.2.1"}, (7, 0)),
        ({"l4t": "39.2.0"}, (7, 2)),
        ({}, None),
    ],
)
def test_jetpack_is_told_by_its_package_or_by_jetson_linux(
    tmp_path: Path, told: dict[str, str], jetpack: tuple[int, int] | None
) -> None:
    assert find_platform(where(**told), tmp_path).jetpack == jetpack


def test_a_gpu_shows_itself_by_its_driver(tmp_path: Path) -> None:
    assert not find_platform(where(), tmp_path).gpu
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()
    assert find_platform(where(), tmp_path).gpu
    assert find_platform(where(l4t="36.4.3"), tmp_path / "dev").gpu


def test_a_platform_has_a_name() -> None:
    assert ORIN_6.name == "JetPack 6.2"
    assert PC.name == "x86_64, an NVIDIA GPU visible"
    assert find_platform(where(), Path("/nowhere")).name == (
        f"{platform.machine()}, no NVIDIA GPU visible"
    )


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("place", [ORIN_6, ORIN_7, PC, Platform(None, "aarch64", True)])
def test_there_is_a_remedy_for_every_piece_everywhere(piece: str, place: Platform) -> None:
    assert remedy(piece, place)


def test_tensorrt_comes_from_apt_on_a_jetson_and_needs_an_open_environment() -> None:
    assert remedy("tensorrt", ORIN_6) == (
        "sudo apt install nvidia-jetpack, or python3-libnvinfer alone (TensorRT 10.3); it lies in "
        "the system's dist-packages, so make the virtual environment with python3.10 -m venv "
        "--system-site-packages"
    )
    told = remedy("tensorrt", ORIN_7)
    assert "(TensorRT 10.13, from 7.2 on 10.16)" in told
    assert told.endswith("python3.12 -m venv --system-site-packages")


def test_pycuda_needs_nvidias_compiler_on_the_path() -> None:
    for place in (ORIN_6, ORIN_7, PC):
        assert (
            "export PATH=/usr/local/cuda/bin:$PATH CUDA_ROOT=/usr/local/cuda; pip install pycuda"
        ) in remedy("pycuda", place)


def test_onnx_runtime_for_a_jetson_is_a_wheel_built_for_its_jetpack() -> None:
    assert remedy("cuda", ORIN_6) == (
        "PyPI has no onnxruntime-gpu for aarch64: pip uninstall onnxruntime, then install a wheel "
        "that was built for JetPack 6 (CUDA 12.6, cp310); one for another GPU lists the provider "
        "and fails at the first kernel"
    )
    told = remedy("ort-tensorrt", ORIN_7)
    assert "built for JetPack 7 (CUDA 13, cp312)" in told
    assert told.endswith("; TensorRT 11 needs ONNX Runtime 1.27 or newer")


def test_onnx_runtime_for_a_pc_comes_from_pypi() -> None:
    assert remedy("cuda", PC) == (
        "pip uninstall onnxruntime; pip install onnxruntime-gpu; it loads CUDA and cuDNN 9"
    )
    assert remedy("ort-tensorrt", PC).endswith(
        "and TensorRT (TensorRT 11 needs ONNX Runtime 1.27 or newer)"
    )
    assert remedy("cuda", Platform(None, "aarch64", True)).startswith(
        "PyPI has no onnxruntime-gpu for aarch64"
    )


@pytest.mark.parametrize("version", [(5, 1), (6, 0)])
@pytest.mark.parametrize("piece", ["tensorrt", "pycuda", "cuda", "ort-tensorrt"])
def test_an_old_jetpack_is_to_be_updated(piece: str, version: tuple[int, int]) -> None:
    assert remedy(piece, Platform(version, "aarch64", True)) == (
        f"JetPack {version[0]}.{version[1]} is too old (its TensorRT 8 has no strongly typed "
        "networks): update to JetPack 6.1 or newer"
    )


def test_a_newer_jetpack_is_treated_as_the_newest_known() -> None:
    assert remedy("tensorrt", Platform((8, 0), "aarch64", True)) == remedy("tensorrt", ORIN_7)


@pytest.mark.parametrize("piece", ["cuda", "ort-tensorrt", "tensorrt", "pycuda", "kernel"])
def test_without_a_gpu_nothing_is_to_be_installed(piece: str) -> None:
    assert remedy(piece, Platform(None, "x86_64", False)) == (
        "it needs an NVIDIA GPU with its driver, and none shows itself here"
    )
