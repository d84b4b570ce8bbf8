"""Engines: a trained encoder that turns images into embeddings, whatever runs it.

`load_engine` picks the back end and the file of a bundle that suits it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from .console import say
from .devices import (
    DEVICES,
    PLAN_SUFFIX,
    device_file,
    plans_of,
    why_absent,
)
from .errors import InputError, S4GError
from .spec import EncoderSpec

if TYPE_CHECKING:
    from .warp import FrameWarp

Embeddings = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]


class Engine(Protocol):
    """An encoder ready to run. Engines are safe to use from several threads at once."""

    spec: EncoderSpec
    name: str  # the file it came from
    backend: str  # the library and device that run it, for example "onnxruntime cpu"

    def embed(self, images: Images) -> Embeddings:
        """Embed a batch of images.

        Args:
            images: (B, H, W, 3) uint8 RGB, H = W = `spec.input_px`.

        Returns:
            (B, D) float32, L2-normalised.

        Raises:
            InputError: shape or dtype is wrong.
            S4GError: inference fails, or the engine is closed.
        """
        ...

    def close(self) -> None:
        """Release everything the engine holds; a second call does nothing."""
        ...


@runtime_checkable
class FrameEngine(Engine, Protocol):
    """An engine that also warps: the raw frame goes to the device once, not once per patch."""

    def embed_frame(
        self, frame: Images, warps: Sequence[FrameWarp], patches: Images | None = None
    ) -> Embeddings:
        """Cut patches out of a frame on the device and embed them, dark ones brightened.

        Args:
            frame: (H, W, 3) uint8 RGB.
            warps: how each of the P patches lies in the frame.
            patches: (>= P, S, S, 3) uint8, filled with the patches as they were cut in its first
                P places.

        Returns:
            (P, D) float32, L2-normalised.

        Raises:
            InputError: a shape or dtype is wrong.
            S4GError: the device fails, or the engine is closed.
        """
        ...


def load_engine(path: Path | None = None, device: str = "auto", threads: int = 0) -> Engine:
    """Load an encoder.

    `auto` takes the first of these that works: each plan of the bundle on TensorRT, CUDA through
    ONNX Runtime, the CPU. What is there but does not work is named on stderr. Any other device is
    taken at its word: it runs there or the call fails.

    Args:
        path: an ONNX file or plan of `s4g-export`, its bundle folder, or None for the embedded
            encoder.
        device: one of `DEVICES`.
        threads: threads inside one operator on a CPU; 0 leaves the choice to the library.

    Raises:
        InputError: the path holds no engine for the device, or the device is unknown, not there or
            does not work.
        S4GError: this installation carries no encoder.
    """
    if device not in DEVICES:
        raise InputError(f"device {device}: expected one of {', '.join(DEVICES)}")
    path = embedded_encoder_path() if path is None else path
    if not path.exists():
        raise InputError(f"{path}: no such encoder; give an ONNX file or a bundle of s4g-export")
    if device != "auto":
        return _open(device_file(path, device), device, threads)
    if path.is_dir():
        return _first_of_bundle(path, threads)
    if path.suffix == PLAN_SUFFIX:
        return _open(path, "tensorrt", threads)
    return _best_of_file(path, threads)


def check_images(images: Images, spec: EncoderSpec) -> None:
    """Check shape and dtype of a batch of images.

    Raises:
        InputError: they do not fit the spec.
    """
    side = spec.input_px
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (side, side, 3):
        raise InputError(
            f"images of shape {images.shape} and type {images.dtype}; "
            f"this encoder takes (B, {side}, {side}, 3) uint8 RGB"
        )


def describe(engine: Engine) -> str:
    """Return which file runs on which back end, for people."""
    return f"{Path(engine.name).name} on {engine.backend}"


def embedded_encoder_path() -> Path:
    """Return the path of the encoder that the package carries.

    Raises:
        S4GError: this installation carries none.
    """
    path = Path(str(resources.files("s4g.core") / "encoder" / "encoder.onnx"))
    if not path.is_file():
        raise S4GError("this installation carries no encoder; pass --encoder BUNDLE or FILE")
    return path


def _first_of_bundle(bundle: Path, threads: int) -> Engine:
    for plan in plans_of(bundle):
        if (engine := _try(plan, "tensorrt", threads)) is not None:
            return engine
        if why_absent("tensorrt"):
            break  # which was said of the first plan
    if not why_absent("cuda"):  # else the bundle asks for no GPU, other than by a plan
        with contextlib.suppress(InputError):  # nothing for CUDA was exported
            file = device_file(bundle, "cuda")
            if (engine := _try(file, "cuda", threads)) is not None:
                return engine
    return _open(device_file(bundle, "cpu"), "cpu", threads)


def _best_of_file(path: Path, threads: int) -> Engine:
    engine = _open(path, "cpu", threads)
    # On a GPU a graph quantised for CPUs is float with rounding in between: slower than either.
    if engine.spec.precision == "int8" or why_absent("cuda"):
        return engine
    faster = _try(path, "cuda", threads)
    if faster is None:
        return engine
    engine.close()
    return faster


def _try(file: Path, device: str, threads: int) -> Engine | None:
    try:
        return _open(file, device, threads)
    except S4GError as error:
        say(f"note: {file.name} is not used: {error}")
        return None


def _open(file: Path, device: str, threads: int) -> Engine:
    reason = why_absent(device)
    if reason:
        raise InputError(f"device {device}: {reason}")
    if device == "tensorrt":
        from .engine_tensorrt import TensorRtEngine

        return TensorRtEngine(file)
    if device == "openvino":
        from .engine_openvino import OpenVinoEngine

        return OpenVinoEngine(file, threads)
    from .engine_onnx import OnnxEngine

    return OnnxEngine(file, device, threads)
