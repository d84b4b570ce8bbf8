"""What can run an encoder, and which file of a bundle it runs. Loads nothing heavy."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from .errors import InputError

# File names inside an export bundle.
BUNDLE_FP32 = "encoder.fp32.onnx"
BUNDLE_CPU_INT8 = "encoder.cpu.int8.onnx"
BUNDLE_TRT_INT8 = "encoder.trt.int8.onnx"
BUNDLE_FP16 = "encoder.fp16.onnx"
BUNDLE_TRT_INT8_PLAN = "encoder.trt.int8.plan"
BUNDLE_FP16_PLAN = "encoder.fp16.plan"

# What a device runs of a bundle, best first. The TensorRT graph is never given to a CPU: signed by
# signed products are an order of magnitude slower there (docs/exporting.md).
DEVICE_FILES = {
    "cpu": (BUNDLE_CPU_INT8, BUNDLE_FP32),
    "openvino": (BUNDLE_CPU_INT8, BUNDLE_FP32),
    "cuda": (BUNDLE_FP16, BUNDLE_FP32),
    "ort-tensorrt": (BUNDLE_TRT_INT8, BUNDLE_FP16, BUNDLE_FP32),
    "tensorrt": (BUNDLE_TRT_INT8_PLAN, BUNDLE_FP16_PLAN),
}
DEVICES = ("auto", *DEVICE_FILES)
# Library and hardware behind the devices that run ONNX files, for people.
BACKENDS = {
    "cpu": "onnxruntime cpu",
    "openvino": "openvino cpu",
    "cuda": "onnxruntime cuda",
    "ort-tensorrt": "onnxruntime tensorrt",
}
PLAN_SUFFIX = ".plan"
ASK_DOCTOR = "; s4g-export doctor tells what is missing"


def device_file(path: Path, device: str) -> Path:
    """Return what a device other than `auto` runs of an encoder: a file, or a bundle's best.

    Raises:
        InputError: it holds nothing for the device.
    """
    if path.is_file():
        if (path.suffix == PLAN_SUFFIX) != (device == "tensorrt"):
            raise InputError(_wrong_kind(path, device))
        return path
    names = DEVICE_FILES[device]
    for name in names:
        if (path / name).is_file():
            return path / name
    if device == "tensorrt":
        raise InputError(
            f"{path}: holds no plan ({' or '.join(names)}); build one on this machine with "
            f"s4g-export build {path}"
        )
    neither = "neither" if len(names) == 2 else "none of"
    listed = " nor ".join(names) if len(names) == 2 else ", ".join(names)
    raise InputError(f"{path}: holds {neither} {listed}; export again")


def plans_of(path: Path) -> list[Path]:
    """Return the plans of a bundle, best first, or the file itself where it is a plan."""
    if path.is_dir():
        return [path / name for name in DEVICE_FILES["tensorrt"] if (path / name).is_file()]
    return [path] if path.suffix == PLAN_SUFFIX else []


def why_absent(device: str) -> str:
    """Return why a device cannot even be tried, with the remedy; empty where its library is here.

    That the library is here proves nothing: only a run does.
    """
    if device == "openvino" and not installed("openvino"):
        return "OpenVINO is not installed; pip install 's4g[openvino]'"
    if device == "tensorrt":
        for module in ("tensorrt", "pycuda"):
            if not installed(module):
                return f"{module} is not installed{ASK_DOCTOR}"
    if device in ("cuda", "ort-tensorrt"):
        from .engine_onnx import has_provider

        if not has_provider(device):
            kind = "CUDA" if device == "cuda" else "TensorRT"
            return f"this ONNX Runtime has no {kind} provider; install onnxruntime-gpu"
    return ""


def unusable(device: str, reason: str) -> InputError:
    """Return the error about a device whose library is here but does not do its work."""
    return InputError(f"device {device}: does not work here ({reason}){ASK_DOCTOR}")


def _wrong_kind(path: Path, device: str) -> str:
    if device == "tensorrt":
        return (
            f"{path}: device tensorrt runs plans; build one on this machine with s4g-export build "
            "BUNDLE"
        )
    return f"{path}: a TensorRT plan does not run on device {device}; pass --device tensorrt"


def installed(module: str) -> bool:
    """Return whether a top-level module is here, without importing it."""
    if module in sys.modules:
        return sys.modules[module] is not None
    return importlib.util.find_spec(module) is not None
