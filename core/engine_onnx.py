"""ONNX Runtime as an engine: on the CPU, on CUDA, and on TensorRT through its provider."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .devices import BACKENDS, unusable
from .engine import Embeddings, Images, check_images
from .errors import S4GError
from .files import cache_folder, read_bytes, sha256_bytes
from .onnx_file import (
    first_line,
    open_to_look,
    read_spec,
    session_input,
    unreadable,
)

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "ort-tensorrt": "TensorrtExecutionProvider",
}
# This optimiser rounds the weights of layers that were left in float between Q/DQ pairs, with one
# scale for all channels (microsoft/onnxruntime pull request 22969, from 1.21): the file would not
# run as it was judged.
UNWANTED_OPTIMISERS = ["WeightBiasQuantization"]
# TensorRT builds for a range of batches; a larger batch is cut.
_TENSORRT_MAX_BATCH = 32
# ONNX Runtime's errors that blame the file; any other error of a GPU session blames the device.
_FILE_FAULTS = ("InvalidProtobuf", "InvalidGraph", "NoModel")
# FP16 kernels may round the last division; a wrong kernel is off by far more.
_UNIT_TOLERANCE = 1e-2


class OnnxEngine:
    """An ONNX file run by ONNX Runtime; normalisation and L2 norm live in the graph.

    Safe to use from several threads at once, as ONNX Runtime's sessions are.
    """

    def __init__(self, path: Path, device: str = "cpu", threads: int = 0) -> None:
        """Load the file; on a GPU, embed an image as well, for only that proves the device.

        Args:
            path: ONNX file.
            device: `cpu`, `cuda` or `ort-tensorrt`.
            threads: threads inside one operator on the CPU; 0 leaves the choice to ONNX Runtime.

        Raises:
            InputError: the file is no encoder, or the device does not run it.
        """
        self.name = str(path)
        self.backend = BACKENDS[device]
        model = read_bytes(path)
        self._max_batch = _TENSORRT_MAX_BATCH if device == "ort-tensorrt" else None
        with contextlib.ExitStack() as stack:
            folder = None
            if device == "ort-tensorrt":
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self._session = _open_session(path, model, device, threads, folder)
            self.spec = read_spec(path, self._session)
            self._input = session_input(self.name, self.spec, self._session)
            if device != "cpu":
                self._prove(device)

    def embed(self, images: Images) -> Embeddings:
        """Embed images (B, H, W, 3) uint8 RGB; return (B, D) float32, L2-normalised.

        Raises:
            InputError: shape or dtype is wrong.
            S4GError: inference fails, or the engine is closed.
        """
        check_images(images, self.spec)
        if len(images) == 0:
            return np.empty((0, self.spec.embedding_dim), np.float32)
        step = self._max_batch or len(images)
        if len(images) <= step:
            return self._run(images)
        parts = [self._run(images[start : start + step]) for start in range(0, len(images), step)]
        return np.concatenate(parts)

    def close(self) -> None:
        """Release the session and its memory; a second call does nothing."""
        self._session = None

    def _run(self, images: Images) -> Embeddings:
        session = self._session
        if session is None:
            raise S4GError(f"{self.name}: the engine is closed")
        try:
            (embeddings,) = session.run(None, {self._input: images})
        except Exception as error:
            raise S4GError(f"{self.name}: inference failed ({first_line(error)})") from error
        result: Embeddings = embeddings
        return result

    def _prove(self, device: str) -> None:
        """Embed one image on a GPU.

        Raises:
            InputError: it fails or returns nonsense, or TensorRT took no part of the graph.
        """
        side = self.spec.input_px
        image = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
        try:
            length = float(np.linalg.norm(self._run(image)))
        except S4GError as error:
            raise unusable(device, str(error)) from None
        if not abs(length - 1) <= _UNIT_TOLERANCE:
            raise unusable(device, f"{self.name}: an embedding of length {length:g}, expected 1")
        if device == "ort-tensorrt" and PROVIDERS[device] not in _providers_at_work(self._session):
            raise unusable(device, f"{self.name}: TensorRT took no part of this graph")


def has_provider(device: str) -> bool:
    """Return whether this build of ONNX Runtime knows the device; that is no proof it works."""
    import onnxruntime as ort

    return PROVIDERS[device] in ort.get_available_providers()


def _providers_at_work(session: Any) -> set[str]:
    """Return which providers ran nodes of a session that was opened with a profile; end that.

    An engine in TensorRT's cache is no proof: it may be from an earlier session.
    """
    events = json.loads(read_bytes(Path(session.end_profiling())))
    return {event.get("args", {}).get("provider", "") for event in events}


def _open_session(path: Path, model: bytes, device: str, threads: int, profile: Path | None) -> Any:
    """Open a session; where `profile` names a folder it notes there which provider runs what."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only: warnings go to stderr, which is the user's
    options.intra_op_num_threads = threads
    if threads == 1:  # there is no other thread to wait for
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile / "run")
    providers = _providers(device, path, model)
    told = "" if device == "cpu" else _preload(ort)
    try:
        # Without its own fallback, which prints to stdout and goes on with the CPU.
        session = ort.InferenceSession(
            model,
            options,
            providers=providers,
            enable_fallback=0,
            disabled_optimizers=UNWANTED_OPTIMISERS,
        )
    except Exception as error:
        if device == "cpu" or type(error).__name__ in _FILE_FAULTS:
            raise unreadable(path, error) from None
        raise unusable(device, f"{path}: {first_line(error)}") from None
    if session.get_providers()[0] != PROVIDERS[device]:
        raise unusable(device, told or "its libraries cannot be loaded")
    return session


def _preload(ort: Any) -> str:
    """Let ONNX Runtime find CUDA libraries that were installed with pip; return its complaint."""
    if not hasattr(ort, "preload_dlls"):  # before 1.21
        return ""
    with contextlib.redirect_stdout(io.StringIO()) as told:  # stdout is for results
        ort.preload_dlls()
    return told.getvalue().strip().partition("\n")[0]


def _providers(device: str, path: Path, model: bytes) -> list[Any]:
    """Return the providers in order of preference; what TensorRT cannot take goes to CUDA."""
    if device == "cpu":
        return [PROVIDERS["cpu"]]
    if device == "cuda":
        return [PROVIDERS["cuda"], PROVIDERS["cpu"]]
    cache = _tensorrt_cache(model)
    session = open_to_look(path, model)
    side, image = read_spec(path, session).input_px, session.get_inputs()[0].name
    options = {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(cache.parent),
        # One engine for all batches: without a range, every larger batch builds another.
        "trt_profile_min_shapes": f"{image}:1x{side}x{side}x3",
        "trt_profile_opt_shapes": f"{image}:1x{side}x{side}x3",
        "trt_profile_max_shapes": f"{image}:{_TENSORRT_MAX_BATCH}x{side}x{side}x3",
        # trt_fp16_enable and trt_int8_enable stay off: only then does the provider build a
        # strongly typed network, in which every precision is the graph's own.
    }
    return [(PROVIDERS["ort-tensorrt"], options), PROVIDERS["cuda"], PROVIDERS["cpu"]]


def _tensorrt_cache(model: bytes) -> Path:
    """Return the folder that keeps TensorRT's engines of one file, made where it is missing.

    One folder per file, because the provider's own names tell graphs apart, not weights.

    Raises:
        S4GError: it cannot be made.
    """
    folder = cache_folder("ort-tensorrt") / sha256_bytes(model)[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise S4GError(
            f"{folder}: cannot be made ({error.strerror}); set XDG_CACHE_HOME to another place"
        ) from error
    return folder
