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

from ..core.cuda import one_line
from ..core.devices import (
    ASK_DOCTOR,
    BACKENDS,
    BUNDLE_TRT_INT8,
    PLAN_SUFFIX,
    device_file,
    plans_of,
    why_absent,
)
from ..core.engine import Embeddings, Images, embedded_encoder_path, load_engine
from ..core.engine_onnx import PROVIDERS
from ..core.errors import InputError, S4GError
from ..core.files import read_bytes
from ..core.onnx_file import open_to_look, read_spec
from .agreement import agreement, embed_every_way, repeated
from .diagnosis import ABSENT, FAILS, WORKS, Check, Diagnosis
from .doctor_gpu import check_gpu, check_tensorrt
from .machine import machine
from .remedies import Platform, find_platform, remedy

# Listed by every build of ONNX Runtime, but it only forwards to a service: no local device.
_REMOTE_PROVIDERS = frozenset({"AzureExecutionProvider"})
_RUNS = 10


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
    name = file.name if device == "tensorrt" else BACKENDS[device]
    if reason := why_absent(device):
        missing = reason.split()[0] if device == "tensorrt" else device
        return Check(name, ABSENT, reason.partition("; ")[0], remedy(missing, where))
    try:
        with closing(load_engine(file, device, threads=1)) as engine:
            images = _images(engine.spec.input_px)
            found = embed_every_way(engine.embed, images)
            p50_ms = _median_ms(lambda: engine.embed(images[:1]))
        expected = _literal(file, images)
    except S4GError as error:  # what is wrong with a plan, or with a file, names its own remedy
        about_file = device in ("cpu", "tensorrt")
        detail = str(error).removesuffix(ASK_DOCTOR)
        return Check(name, FAILS, detail, "" if about_file else remedy(device, where))
    return _judged(name, found, expected, p50_ms)


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
        found = embed_every_way(lambda batch: session.run(None, {given.name: batch})[0], images)
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
        yield from (_on_device(path, device, where) for device in BACKENDS)
        others = set(ort.get_available_providers()) - set(PROVIDERS.values()) - _REMOTE_PROVIDERS
        yield from (check_provider(name, device_file(path, "cpu")) for name in sorted(others))
    yield from (check_device("tensorrt", plan, where) for plan in plans_of(path))


def _on_device(path: Path, device: str, where: Platform) -> Check:
    """Check a device with the file of an encoder that suits it."""
    try:
        file = device_file(path, device)
    except InputError as error:
        return Check(BACKENDS[device], ABSENT, str(error))
    try:
        for_cpus = device == "ort-tensorrt" and not why_absent(device) and _is_for_cpus(file)
    except InputError as error:  # a damaged file is no reason to look at nothing else
        return Check(BACKENDS[device], FAILS, str(error))
    if for_cpus:
        detail = "not tried: TensorRT refuses a file that is quantised for CPUs; give a bundle"
        return Check(BACKENDS[device], ABSENT, detail)
    return check_device(device, file, where)


def _is_for_cpus(file: Path) -> bool:
    spec = read_spec(file, open_to_look(file, read_bytes(file)))
    return spec.precision == "int8" and file.name != BUNDLE_TRT_INT8


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
    """Return what became of a back end whose embeddings are those of `embed_every_way`."""
    seen = agreement(found, found if expected is None else repeated(expected))
    cosine = None if expected is None else seen.cosine
    if seen.fault:
        detail = f"its embeddings are wrong, held against its graph ({seen.fault})"
        return Check(name, FAILS, detail, "", p50_ms, cosine)
    compared = "its graph is not here to compare" if cosine is None else f"cosine {cosine:.4f}"
    return Check(name, WORKS, f"{p50_ms:.2f} ms, {compared}", "", p50_ms, cosine)


def _median_ms(call: Callable[[], object]) -> float:
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))
