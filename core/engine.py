"""Engines: a trained encoder that turns images into embeddings, behind one interface."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .errors import InputError, S4GError
from .spec import SPEC_KEY, EncoderSpec

Embeddings = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]

# File names inside an export bundle, best first for a CPU.
BUNDLE_CPU_INT8 = "encoder.cpu.int8.onnx"
BUNDLE_FP32 = "encoder.fp32.onnx"
DEVICES = ("auto", "cpu", "cuda")


class Engine(Protocol):
    """An encoder ready to run."""

    spec: EncoderSpec
    name: str  # the file it came from

    def embed(self, images: Images) -> Embeddings:
        """Embed a batch of images.

        Args:
            images: (B, H, W, 3) uint8 RGB, H = W = `spec.input_px`.

        Returns:
            (B, D) float32, L2-normalised.

        Raises:
            InputError: shape or dtype is wrong.
        """
        ...


class OnnxEngine:
    """An ONNX file run by ONNX Runtime; normalisation and L2 norm live in the graph."""

    def __init__(self, path: Path, device: str = "auto", threads: int = 0) -> None:
        """Load the file; see `load_engine`."""
        import onnxruntime as ort

        self.name = str(path)
        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors only: warnings go to stderr, which is the user's
        options.intra_op_num_threads = threads
        providers = _providers(device, ort)
        try:
            self._session = ort.InferenceSession(path.read_bytes(), options, providers=providers)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        except Exception as error:
            raise InputError(
                f"{path}: ONNX Runtime cannot load it ({_first_line(error)}); export it again"
            ) from None
        metadata = self._session.get_modelmeta().custom_metadata_map
        if SPEC_KEY not in metadata:
            raise InputError(
                f"{path}: an ONNX file without an encoder spec; make it with s4g-export"
            )
        self.spec = EncoderSpec.from_json(metadata[SPEC_KEY], self.name)
        self._input = self._check_signature()

    def _check_signature(self) -> str:
        """Return the input's name; refuse a graph that does not do what its spec says."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        side, dim = self.spec.input_px, self.spec.embedding_dim
        fits = (
            len(inputs) == len(outputs) == 1
            and inputs[0].type == "tensor(uint8)"
            and _may_be(inputs[0].shape, (None, side, side, 3))
            and outputs[0].type == "tensor(float)"
            and _may_be(outputs[0].shape, (None, dim))
        )
        if not fits:
            seen = ", ".join(f"{v.name} {v.type} {v.shape}" for v in (*inputs, *outputs))
            raise InputError(
                f"{self.name}: its graph ({seen}) is not the encoder of its spec "
                f"(uint8 (B, {side}, {side}, 3) to float (B, {dim})); export it again"
            )
        name: str = inputs[0].name
        return name

    def embed(self, images: Images) -> Embeddings:
        """Embed images (B, H, W, 3) uint8 RGB; return (B, D) float32, L2-normalised."""
        check_images(images, self.spec)
        try:
            (embeddings,) = self._session.run(None, {self._input: images})
        except Exception as error:
            raise S4GError(f"{self.name}: inference failed ({_first_line(error)})") from error
        result: Embeddings = embeddings
        return result


def _may_be(shape: Sequence[object], wanted: tuple[int | None, ...]) -> bool:
    """Return whether a shape of ONNX, in which names stand for sizes left open, fits."""
    return len(shape) == len(wanted) and all(
        not isinstance(seen, int) or expected in (None, seen)
        for seen, expected in zip(shape, wanted, strict=True)
    )


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


def load_engine(path: Path | None = None, device: str = "auto", threads: int = 0) -> Engine:
    """Load an encoder.

    Args:
        path: an ONNX file of `s4g-export`, its bundle folder, or None for the embedded encoder.
        device: `auto`, `cpu` or `cuda`; `auto` takes the fastest that ONNX Runtime offers.
        threads: threads inside one operator; 0 leaves the choice to ONNX Runtime.

    Raises:
        InputError: the path holds no engine, or the device is unknown or not available.
    """
    if device not in DEVICES:
        raise InputError(f"device {device}: expected one of {', '.join(DEVICES)}")
    path = embedded_encoder_path() if path is None else _engine_file(path)
    return OnnxEngine(path, device, threads)


def embedded_encoder_path() -> Path:
    """Return the path of the encoder that the package carries.

    Raises:
        S4GError: this installation carries none.
    """
    path = Path(str(resources.files("s4g.core") / "encoder" / "encoder.onnx"))
    if not path.is_file():
        raise S4GError("this installation carries no encoder; pass --encoder BUNDLE or FILE")
    return path


def _engine_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.exists():
        raise InputError(f"{path}: no such encoder; give an ONNX file or a bundle of s4g-export")
    for name in (BUNDLE_CPU_INT8, BUNDLE_FP32):
        if (path / name).is_file():
            return path / name
    raise InputError(f"{path}: holds neither {BUNDLE_CPU_INT8} nor {BUNDLE_FP32}; export again")


def _providers(device: str, ort: Any) -> list[str]:
    available = ort.get_available_providers()
    if device == "cuda" and "CUDAExecutionProvider" not in available:
        raise InputError(
            "device cuda: this ONNX Runtime has no CUDA provider; install onnxruntime-gpu"
        )
    wanted = (
        ["CPUExecutionProvider"]
        if device == "cpu"
        else ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    return [name for name in wanted if name in available]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
