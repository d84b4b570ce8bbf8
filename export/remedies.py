"""What to do about a back end that is missing: it depends on the machine.

JetPack brings TensorRT, CUDA and Python in fixed versions; elsewhere they are installed freely.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Any of these shows a GPU of NVIDIA with its driver, on a PC or on a Jetson.
_GPU_DEVICES = ("dev/nvidiactl", "dev/nvhost-gpu", "dev/nvmap", "dev/dxg")
_OLDEST_JETPACK = (6, 1)  # the first with TensorRT 10.3
# JetPack of a release of Jetson Linux (L4T), for systems without the package nvidia-jetpack.
_JETPACK_OF_L4T = {
    (36, 2): (6, 0),
    (36, 3): (6, 0),
    (36, 4): (6, 1),
    (38, 0): (7, 0),
    (39, 0): (7, 2),
}


@dataclass(frozen=True)
class JetPack:
    """What a JetPack brings."""

    tensorrt: str
    cuda: str
    python: str

    @property
    def wheel(self) -> str:
        """Tag of Python in the name of a wheel."""
        return f"cp{self.python.replace('.', '')}"


_JETPACKS = {
    6: JetPack(tensorrt="10.3", cuda="12.6", python="3.10"),
    7: JetPack(tensorrt="10.13, from 7.2 on 10.16", cuda="13", python="3.12"),
}


@dataclass(frozen=True)
class Platform:
    """Where remedies must work.

    Attributes:
        jetpack: version of JetPack, None where this is no Jetson.
        machine: `x86_64` or `aarch64`.
        gpu: whether a GPU of NVIDIA shows itself.
    """

    jetpack: tuple[int, int] | None
    machine: str
    gpu: bool

    @property
    def name(self) -> str:
        """The platform, for people."""
        if self.jetpack:
            return f"JetPack {self.jetpack[0]}.{self.jetpack[1]}"
        return f"{self.machine}, {'an' if self.gpu else 'no'} NVIDIA GPU visible"


def find_platform(where: Mapping[str, Any], root: Path = Path("/")) -> Platform:
    """Return the platform; `where` is `machine.machine`, `root` has the folder `dev`."""
    jetpack = _jetpack(where["jetpack"], where["l4t"])
    gpu = jetpack is not None or any((root / name).exists() for name in _GPU_DEVICES)
    return Platform(jetpack, platform.machine(), gpu)


def _jetpack(package: str | None, l4t: str | None) -> tuple[int, int] | None:
    """Return JetPack's version from its package ("6.2+b77"), else from Jetson Linux ("36.4.3")."""
    if found := re.match(r"(\d+)\.(\d+)", package or ""):
        return int(found[1]), int(found[2])
    if found := re.match(r"(\d+)\.(\d+)", l4t or ""):
        release = int(found[1]), int(found[2])
        known = [r for r in _JETPACK_OF_L4T if r <= release]
        return _JETPACK_OF_L4T[max(known)] if known else (5, 0)
    return None


def remedy(piece: str, where: Platform) -> str:
    """Return what to do about a missing piece on a platform.

    Args:
        piece: `onnxruntime`, `openvino`, `cuda`, `ort-tensorrt`, `tensorrt`, `pycuda` or `kernel`.
        where: the platform.
    """
    if piece == "onnxruntime":
        return "pip install --force-reinstall onnxruntime"
    if piece == "openvino":
        return "pip install 's4g[openvino]'"
    if not where.gpu:
        return "it needs an NVIDIA GPU with its driver, and none shows itself here"
    if where.jetpack:
        return _on_jetson(piece, where.jetpack)
    return _on_pc(piece, where.machine)


def _on_jetson(piece: str, version: tuple[int, int]) -> str:
    if version < _OLDEST_JETPACK:
        return (
            f"JetPack {version[0]}.{version[1]} is too old (its TensorRT 8 has no strongly typed "
            "networks): update to JetPack 6.1 or newer"
        )
    pack = _JETPACKS[min(version[0], max(_JETPACKS))]
    if piece == "tensorrt":
        return (
            f"sudo apt install nvidia-jetpack, or python3-libnvinfer alone (TensorRT "
            f"{pack.tensorrt}); it lies in the system's dist-packages, so make the virtual "
            f"environment with python{pack.python} -m venv --system-site-packages"
        )
    if piece == "pycuda":
        return (
            "export PATH=/usr/local/cuda/bin:$PATH CUDA_ROOT=/usr/local/cuda; pip install pycuda "
            "(cuda.h not found: sudo or the virtual environment lost PATH)"
        )
    if piece == "kernel":
        return f"sudo apt install nvidia-jetpack, which brings NVRTC of CUDA {pack.cuda}"
    newer = "; TensorRT 11 needs ONNX Runtime 1.27 or newer" if version[0] >= 7 else ""
    return (
        "PyPI has no onnxruntime-gpu for aarch64: pip uninstall onnxruntime, then install a wheel "
        f"that was built for JetPack {version[0]} (CUDA {pack.cuda}, {pack.wheel}); one for "
        f"another GPU lists the provider and fails at the first kernel{newer}"
    )


def _on_pc(piece: str, machine: str) -> str:
    if piece == "tensorrt":
        return "pip install tensorrt (10.3 or newer, for the CUDA of the driver: see nvidia-smi)"
    if piece == "pycuda":
        return (
            "install the CUDA toolkit, then export PATH=/usr/local/cuda/bin:$PATH "
            "CUDA_ROOT=/usr/local/cuda; pip install pycuda"
        )
    if piece == "kernel":
        return "install NVRTC, which comes with the CUDA toolkit, and name its folder in CUDA_ROOT"
    if machine != "x86_64":
        return (
            f"PyPI has no onnxruntime-gpu for {machine}: pip uninstall onnxruntime, then install a "
            "wheel that was built for this GPU and CUDA"
        )
    libraries = "CUDA and cuDNN 9"
    if piece == "ort-tensorrt":
        libraries += " and TensorRT (TensorRT 11 needs ONNX Runtime 1.27 or newer)"
    return f"pip uninstall onnxruntime; pip install onnxruntime-gpu; it loads {libraries}"
