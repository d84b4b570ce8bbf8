"""What this machine can run, found out by running it.

A list of providers says what a library was compiled with, not what works: a wheel for another
GPU lists CUDA and fails at the first kernel. So every provider embeds real images here.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np

from ..core.engine import load_engine
from ..core.errors import S4GError
from .bench import machine

_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "torch", "onnx", "tensorrt", "pycuda")
# Listed by every build of ONNX Runtime, but it only forwards to a service: no local device.
_REMOTE_PROVIDERS = frozenset({"AzureExecutionProvider"})
_RUNS = 10
# TensorRT and CUDA may round to TF32; a wrong kernel is off by far more.
_MIN_COSINE = 0.99


@dataclass(frozen=True)
class ProviderCheck:
    """What happened when a provider was asked to embed images.

    Attributes:
        provider: ONNX Runtime's name.
        works: whether it ran and agrees with the CPU.
        detail: why not, or what to know.
        p50_ms: median time of one image, None where it did not run.
        cosine: smallest cosine to the CPU's embeddings.
    """

    provider: str
    works: bool
    detail: str = ""
    p50_ms: float | None = None
    cosine: float | None = None


@dataclass(frozen=True)
class LibraryCheck:
    """Whether an optional library is there and answers.

    Attributes:
        name: of the library.
        version: None where it is not installed.
        works: whether its device could be reached.
        detail: what it found, or why it fails.
    """

    name: str
    version: str | None
    works: bool
    detail: str


@dataclass(frozen=True)
class Diagnosis:
    """Everything `s4g-export doctor` reports."""

    encoder: str
    providers: tuple[ProviderCheck, ...]
    libraries: tuple[LibraryCheck, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values, with the machine and the versions found."""
        return {"machine": machine(), "versions": versions(), **asdict(self)}

    def as_table(self) -> str:
        """Return it as text."""
        where = machine()
        lines = [f"{where['processor']}, {where['cores']} cores, {where['system']}"]
        lines += [f"{name:<18}{version or 'not installed'}" for name, version in versions().items()]
        lines += ["", f"encoder {self.encoder}"]
        for check in self.providers:
            said = f"runs, {check.p50_ms:.2f} ms" if check.works else "does not run"
            lines.append(f"{check.provider:<28}{said}{', ' if check.detail else ''}{check.detail}")
        for library in self.libraries:
            lines.append(f"{library.name:<28}{library.detail}")
        return "\n".join(lines)


def diagnose(encoder: Path | None) -> Diagnosis:
    """Embed images with every provider of ONNX Runtime, and reach for TensorRT and CUDA.

    Args:
        encoder: ONNX file or bundle, None for the one the package carries.

    Raises:
        S4GError: there is no encoder to run.
    """
    import onnxruntime as ort

    reference = load_engine(encoder, "cpu", threads=1)
    side = reference.spec.input_px
    images = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), dtype=np.uint8)
    expected = reference.embed(images)
    providers = tuple(
        check_provider(name, Path(reference.name), images, expected)
        for name in ort.get_available_providers()
    )
    return Diagnosis(reference.name, providers, (check_tensorrt(), check_pycuda()))


def versions() -> dict[str, str | None]:
    """Return the version of every package that matters here, None where it is missing."""
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def check_provider(
    provider: str,
    encoder: Path,
    images: np.ndarray[Any, np.dtype[np.uint8]],
    expected: np.ndarray[Any, np.dtype[np.float32]],
) -> ProviderCheck:
    """Run one provider on images (B, H, W, 3) uint8; `expected` is what the CPU returns."""
    import onnxruntime as ort

    if provider in _REMOTE_PROVIDERS:
        return ProviderCheck(provider, False, "forwards to a remote service, no local device")
    options = ort.SessionOptions()
    options.log_severity_level = 4  # fatal only: the reason is reported below
    try:
        session = ort.InferenceSession(encoder.read_bytes(), options, providers=[provider])
        if provider not in session.get_providers():
            return ProviderCheck(provider, False, "ONNX Runtime fell back to another provider")
        feed = session.get_inputs()[0].name
        found = session.run(None, {feed: images})[0]
        times = []
        for _ in range(_RUNS):
            start = time.perf_counter()
            session.run(None, {feed: images[:1]})
            times.append(1e3 * (time.perf_counter() - start))
    except Exception as error:  # every provider has its own kinds of failure
        return ProviderCheck(provider, False, _one_line(error))
    cosine = float(np.einsum("nd,nd->n", found, expected).min())
    agrees = cosine >= _MIN_COSINE
    detail = "" if agrees else f"but its embeddings are wrong (cosine to the CPU {cosine:.3f})"
    return ProviderCheck(provider, agrees, detail, float(np.median(times)), cosine)


def check_tensorrt() -> LibraryCheck:
    """Import TensorRT and create a builder, which needs a GPU and its driver."""
    try:
        tensorrt = import_module("tensorrt")
    except ImportError as error:
        return _absent("tensorrt", error, "on Jetson it comes with JetPack (python3-libnvinfer)")
    version = str(tensorrt.__version__)
    try:
        tensorrt.Builder(tensorrt.Logger(tensorrt.Logger.ERROR))
    except Exception as error:  # the bindings raise TypeError where there is no GPU
        return LibraryCheck("tensorrt", version, False, f"cannot build: {_one_line(error)}")
    return LibraryCheck("tensorrt", version, True, "can build engines")


def check_pycuda() -> LibraryCheck:
    """Import PyCUDA and ask the driver for its devices."""
    try:
        driver = import_module("pycuda.driver")
    except ImportError as error:
        return _absent("pycuda", error, "install it with pip install 's4g[jetson]'")
    version = metadata.version("pycuda")
    try:
        driver.init()
        names = [driver.Device(i).name() for i in range(driver.Device.count())]
    except Exception as error:  # pycuda raises its own RuntimeError where there is no GPU
        return LibraryCheck("pycuda", version, False, f"no device: {_one_line(error)}")
    return LibraryCheck("pycuda", version, bool(names), ", ".join(names) or "no device")


def _absent(name: str, error: ImportError, remedy: str) -> LibraryCheck:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return LibraryCheck(name, None, False, f"not installed; {remedy}")
    return LibraryCheck(name, version, False, f"cannot be imported: {_one_line(error)}")


def check_usable(diagnosis: Diagnosis) -> None:
    """Refuse a machine on which no provider runs.

    Raises:
        S4GError: none works.
    """
    if not any(check.works for check in diagnosis.providers):
        raise S4GError(
            f"{diagnosis.encoder}: no provider of ONNX Runtime can run it; reinstall onnxruntime"
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
