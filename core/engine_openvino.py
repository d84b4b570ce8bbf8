"""OpenVINO as an engine: the same ONNX files on a CPU, often faster than in ONNX Runtime."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from .devices import BACKENDS
from .engine import Embeddings, Images, check_images
from .errors import InputError, S4GError
from .onnx_file import check_signature, no_spec
from .spec import SPEC_KEY, EncoderSpec

# Batch sizes compiled for themselves, which saves some 7 %; further sizes share one program.
# Each holds its own copy of the weights, and a flight uses one or two sizes.
_OWN_PROGRAMS = 3
_ANY_BATCH = 0


class OpenVinoEngine:
    """An ONNX file run by OpenVINO on the CPU; it reads our Q/DQ files as they are.

    Safe to use from several threads at once; they take turns.
    """

    backend = BACKENDS["openvino"]

    def __init__(self, path: Path, threads: int = 0) -> None:
        """Load the file.

        Args:
            path: ONNX file.
            threads: threads of one inference; 0 leaves the choice to OpenVINO.

        Raises:
            InputError: the file is no encoder.
        """
        import openvino as ov
        from openvino.frontend import FrontEndManager

        self.name = str(path)
        self._ov = ov
        self._core = ov.Core()
        self._config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            # The default is bfloat16 where the CPU has it, which is slower there (docs).
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if threads:
            self._config["INFERENCE_NUM_THREADS"] = threads
        try:
            # Named, because `read_model` tries every format it knows on a file that is no ONNX.
            reader = FrontEndManager().load_by_framework("onnx")
            self._model = reader.convert(reader.load(str(path)))
        except Exception as error:
            raise self._unreadable(error) from None
        self.spec = self._read_spec()
        self._check_signature()
        self._lock = threading.Lock()
        self._requests: dict[int, Any] = {}  # by batch size
        self._request(1)  # a graph that cannot be compiled is refused here, not in flight

    def embed(self, images: Images) -> Embeddings:
        """Embed images (B, H, W, 3) uint8 RGB; return (B, D) float32, L2-normalised.

        Raises:
            InputError: shape or dtype is wrong.
            S4GError: inference fails, or the engine is closed.
        """
        check_images(images, self.spec)
        if len(images) == 0:
            return np.empty((0, self.spec.embedding_dim), np.float32)
        with self._lock:
            if self._model is None:
                raise S4GError(f"{self.name}: the engine is closed")
            tensor = self._ov.Tensor(np.ascontiguousarray(images), shared_memory=True)
            try:
                result = self._request(len(images)).infer({0: tensor}, share_outputs=True)
            except Exception as error:
                raise S4GError(f"{self.name}: inference failed ({_last_line(error)})") from error
            return np.array(result[0], np.float32)

    def close(self) -> None:
        """Release the compiled programs; a second call does nothing."""
        with self._lock:
            self._requests.clear()
            self._model = self._core = None

    def _request(self, batch: int) -> Any:
        """Return the program for a batch size, compiled at first need."""
        if batch not in self._requests and len(self._requests) >= _OWN_PROGRAMS:
            batch = _ANY_BATCH
        if batch not in self._requests:
            model = self._model.clone()
            side = self.spec.input_px
            model.reshape([batch if batch != _ANY_BATCH else -1, side, side, 3])
            try:
                compiled = self._core.compile_model(model, "CPU", self._config)
            except Exception as error:
                raise self._unreadable(error) from None
            self._requests[batch] = compiled.create_infer_request()
        return self._requests[batch]

    def _read_spec(self) -> EncoderSpec:
        place = ["framework", SPEC_KEY]  # where OpenVINO keeps the metadata of an ONNX file
        if not self._model.has_rt_info(place):
            raise no_spec(Path(self.name))
        return EncoderSpec.from_json(self._model.get_rt_info(place).astype(str), self.name)

    def _check_signature(self) -> None:
        sides = (self._model.inputs, self._model.outputs)
        inputs, outputs = (
            [(v.any_name, v.element_type.to_string(), _shape(v.partial_shape)) for v in side]
            for side in sides
        )
        check_signature(self.name, self.spec, inputs, outputs, ("u8", "f32"))

    def _unreadable(self, error: Exception) -> InputError:
        return InputError(
            f"{self.name}: OpenVINO cannot load it ({_last_line(error)}); export it again"
        )


def _last_line(error: Exception) -> str:
    """Return what went wrong: OpenVINO begins with where in its sources, and ends with what."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _shape(shape: Any) -> list[int | str]:
    return [size.get_length() if size.is_static else "?" for size in shape]
