"""What this machine can run, found out by running it, and the remedy for what it cannot.

A list of providers says what a library was compiled with, not what works: a wheel for another
GPU lists CUDA and fails at the first kernel. So every back end embeds images here, and the GPU
moves bytes and cuts a patch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from ..core.devices import (
    ASK_DOCTOR,
    BUNDLE_TRT_INT8,
    DEVICE_FILES,
    PLAN_SUFFIX,
    device_file,
    why_absent,
)
from ..core.engine import Embeddings, Images, embedded_encoder_path, load_engine
from ..core.engine_onnx import PROVIDERS
from ..core.errors import InputError, S4GError
from ..core.onnx_file import open_to_look, read_bytes, read_spec
from .diagnosis import ABSENT, FAILS, WORKS, Check, Diagnosis, one_line
from .doctor_gpu import check_gpu, check_tensorrt
from .machine import machine
from .remedies import Platform, find_platform, remedy

# Listed by every build of ONNX Runtime, but it only forwards to a service: no local device.
_REMOTE_PROVIDERS = frozenset({"AzureExecutionProvider"})
_BACKENDS = {
    "cpu": "onnxruntime cpu",
    "openvino": "openvino cpu",
    "cuda": "onnxruntime cuda",
    "ort-tensorrt": "onnxruntime tensorrt",
}
_RUNS = 10
# GPUs may round to TF32 or FP16; a wrong kernel is off by far more.
_MIN_COSINE = 0.99


def diagnose(encoder: Path | None) -> Diagnosis:
    """Embed images with every back end, and try TensorRT, the GPU and the plans of a bundle.

    Args:
        encoder: ONNX file, plan or bundle, None for the one the package carries.

    Raises:
        InputError: there is no such encoder.
        S4GError: this installation carries none.
    """
    path = embedded_encoder_path() if encoder is None else encoder
    if not path.exists():
        raise InputError(f"{path}: no such encoder; give an ONNX file or a bundle of s4g-export")
    where = find_platform(machine())
    checks = (*_backends(path, where), check_tensorrt(where), *check_gpu(where))
    return Diagnosis(str(path), where.name, checks)


def check_device(device: str, file: Path, where: Platform) -> Check:
    """Embed images with one file on one device, and compare with the arithmetic the file spells.

    Args:
        device: as in `core.devices.DEVICES`, without `auto`.
        file: ONNX file or plan.
        where: for the remedy.
    """
    name = file.name if device == "tensorrt" else _BACKENDS[device]
    if reason := why_absent(device):
        missing = reason.split()[0] if device == "tensorrt" else device
        return Check(name, ABSENT, reason.partition("; ")[0], remedy(missing, where))
    try:
        with closing(load_engine(file, device, threads=1)) as engine:
            images = _images(engine.spec.input_px)
            found = engine.embed(images)
            p50_ms = _median_ms(lambda: engine.embed(images[:1]))
    except S4GError as error:  # what is wrong with a plan, or with a file, names its own remedy
        about_file = device in ("cpu", "tensorrt")
        detail = str(error).removesuffix(ASK_DOCTOR)
        return Check(name, FAILS, detail, "" if about_file else remedy(device, where))
    return _judged(name, found, _literal(file, images), p50_ms)


def check_provider(provider: str, file: Path) -> Check:
    """Embed images with a provider of ONNX Runtime that is none of our devices."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # fatal only: the reason is reported below
    try:
        session = ort.InferenceSession(
            read_bytes(file), options, providers=[provider], enable_fallback=0
        )
        if provider not in session.get_providers():
            return Check(provider, FAILS, "ONNX Runtime fell back to another provider")
        given = session.get_inputs()[0]
        images = _images(given.shape[1])
        found = session.run(None, {given.name: images})[0]
        p50_ms = _median_ms(lambda: session.run(None, {given.name: images[:1]}))
    except Exception as error:  # every provider has its own kinds of failure
        return Check(provider, FAILS, one_line(error))
    return _judged(provider, found, _literal(file, images), p50_ms)


def _backends(path: Path, where: Platform) -> Iterator[Check]:
    """Yield a check for each device, and for each plan of a bundle."""
    try:
        import onnxruntime as ort
    except ImportError as error:  # a wheel for another Python, numpy or CUDA
        yield Check("onnxruntime", FAILS, one_line(error), remedy("onnxruntime", where))
        return
    if path.suffix != PLAN_SUFFIX:
        yield from (_on_device(path, device, where) for device in _BACKENDS)
        others = set(ort.get_available_providers()) - set(PROVIDERS.values()) - _REMOTE_PROVIDERS
        yield from (check_provider(name, device_file(path, "cpu")) for name in sorted(others))
    yield from (check_device("tensorrt", plan, where) for plan in _plans(path))


def _on_device(path: Path, device: str, where: Platform) -> Check:
    """Check a device with the file of an encoder that suits it."""
    try:
        file = device_file(path, device)
    except InputError as error:
        return Check(_BACKENDS[device], ABSENT, str(error))
    if device == "ort-tensorrt" and not why_absent(device) and _is_for_cpus(file):
        detail = "not tried: TensorRT refuses a file that is quantised for CPUs; give a bundle"
        return Check(_BACKENDS[device], ABSENT, detail)
    return check_device(device, file, where)


def _is_for_cpus(file: Path) -> bool:
    spec = read_spec(file, open_to_look(file, read_bytes(file)))
    return spec.precision == "int8" and file.name != BUNDLE_TRT_INT8


def _plans(path: Path) -> list[Path]:
    if path.is_dir():
        return [path / n for n in DEVICE_FILES["tensorrt"] if (path / n).is_file()]
    return [path] if path.suffix == PLAN_SUFFIX else []


def _images(side_px: int) -> Images:
    return np.random.default_rng(0).integers(0, 256, (4, side_px, side_px, 3), dtype=np.uint8)


def _literal(file: Path, images: Images) -> Embeddings | None:
    """Return what the graph of a file makes of images, every optimisation off.

    None for a plan whose graph is not beside it.
    """
    graph = file.with_suffix(".onnx")
    if not graph.is_file():
        return None
    session = open_to_look(graph, read_bytes(graph))
    embeddings: Embeddings = session.run(None, {session.get_inputs()[0].name: images})[0]
    return embeddings


def _judged(name: str, found: Embeddings, expected: Embeddings | None, p50_ms: float) -> Check:
    if expected is None:
        return Check(name, WORKS, f"{p50_ms:.2f} ms, its graph is not here to compare", "", p50_ms)
    cosine = float(np.einsum("nd,nd->n", found, expected).min())
    if not cosine >= _MIN_COSINE:
        detail = f"its embeddings are wrong (cosine {cosine:.3f} to the arithmetic of the file)"
        return Check(name, FAILS, detail, "", p50_ms, cosine)
    return Check(name, WORKS, f"{p50_ms:.2f} ms, cosine {cosine:.4f}", "", p50_ms, cosine)


def _median_ms(call: Callable[[], object]) -> float:
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))
