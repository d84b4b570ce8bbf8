"""Latency of engines, measured side by side: every file on every back end that is here."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.devices import DEVICE_FILES, PLAN_SUFFIX, why_absent
from ..core.engine import Engine, embedded_encoder_path, load_engine
from ..core.errors import InputError, S4GError
from ..core.files import read_bytes
from ..core.onnx_file import open_to_look, read_facts, read_spec
from .roofline import Roofline, measure_roofline

_WARM_UP_RUNS = 5
# Closer than this, two engines count as equally fast: repeats differ by as much.
_SAME_SPEED = 1.1
# What runs a file whose name says nothing. INT8 files are laid out for CPUs unless named otherwise.
_DEVICES_OF_PRECISION = {
    "fp32": ("cpu", "openvino", "cuda", "ort-tensorrt"),
    "fp16": ("cuda", "ort-tensorrt"),
    "int8": ("cpu", "openvino"),
}
_CPU_DEVICES = ("cpu", "openvino")  # whose limits are measured


@dataclass(frozen=True)
class Latency:
    """Percentiles of the time one call of `embed` takes, milliseconds for the whole batch."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Timing:
    """What became of one file on one device at one setting.

    Attributes:
        file: its name.
        device: as in `core.devices.DEVICES`.
        threads: threads asked for (0: the library's choice); a GPU ignores them.
        batch: images in one call.
        backend: library and device that ran it, empty where none did.
        precision: of the file's spec, empty where it was not read.
        latency: of one call, None where it did not run.
        error: why it did not run.
        gmacs_per_s: 10^9 multiply-adds per second at the median, None where unknown.
        limit_gmacs_per_s: the roofline of this machine for that precision, None where unknown.
    """

    file: str
    device: str
    threads: int
    batch: int
    backend: str = ""
    precision: str = ""
    latency: Latency | None = None
    error: str = ""
    gmacs_per_s: float | None = None
    limit_gmacs_per_s: float | None = None

    @property
    def images_per_s(self) -> float | None:
        """Images per second at the median latency."""
        return None if self.latency is None else 1e3 * self.batch / self.latency.p50_ms

    @property
    def share_of_limit(self) -> float | None:
        """How much of the roofline it reaches, 0 to 1."""
        if self.gmacs_per_s is None or self.limit_gmacs_per_s is None:
            return None
        return self.gmacs_per_s / self.limit_gmacs_per_s


@dataclass(frozen=True)
class Bench:
    """Everything that was measured.

    Attributes:
        rows: one for each file, device and setting.
        absent: devices that could not be tried, and why.
        limits: the machine's, for each number of threads; empty where no file tells its size.
    """

    rows: tuple[Timing, ...]
    absent: Mapping[str, str]
    limits: tuple[Roofline, ...]


def side_by_side(engines: Mapping[str, Engine], batch: int, runs: int) -> dict[str, Latency]:
    """Time engines in turn, run by run, so that a busy moment of the machine hits them alike.

    Args:
        engines: by name; all take the same input size.
        batch: images per call.
        runs: timed calls per engine, after a warm-up.
    """
    images = _images(next(iter(engines.values())), batch)
    times: dict[str, list[float]] = {name: [] for name in engines}
    for run in range(_WARM_UP_RUNS + runs):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine.embed(images)
            if run >= _WARM_UP_RUNS:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {
        name: Latency(*(float(v) for v in np.percentile(values, (50, 95, 99))))
        for name, values in times.items()
    }


def run_bench(
    path: Path | None,
    devices: Sequence[str],
    threads: Sequence[int],
    batches: Sequence[int],
    runs: int,
) -> Bench:
    """Time every file of an encoder on every device that can be tried.

    Args:
        path: bundle, ONNX file or plan; None for the embedded encoder.
        devices: which to try, without `auto`.
        threads: numbers of threads inside one operator; 0 leaves it to the library.
        batches: numbers of images in one call.
        runs: timed calls for each engine.

    Raises:
        InputError: the path holds no engine, or none of the devices can be tried.
    """
    path = embedded_encoder_path() if path is None else path
    files = {device: _files(path, device) for device in devices}
    absent = {device: reason for device in devices if (reason := _absent(path, device, files))}
    pairs = [(d, file) for d in devices if d not in absent for file in files[d]]
    if not pairs:
        raise InputError(f"{path}: nothing to time: {_listed(absent)}")
    sizes = _sizes(file for _, file in pairs)
    rows: list[Timing] = []
    limits = []
    for count in threads:
        rated = sizes.macs and any(device in _CPU_DEVICES for device, _ in pairs)
        limit = measure_roofline(count) if rated else None
        limits += [limit] if limit else []
        with ExitStack() as stack:
            engines = {pair: _open(stack, *pair, count) for pair in pairs}
            for batch in batches:
                timed = _setting(engines, count, batch, runs)
                rows += [sizes.rated(row, pair[1], limit) for pair, row in timed.items()]
    return Bench(tuple(rows), absent, tuple(limits))


def _files(path: Path, device: str) -> list[Path]:
    """Return which files of an encoder make sense on a device."""
    if path.is_dir():
        return [path / name for name in DEVICE_FILES[device] if (path / name).is_file()]
    if not path.exists():
        raise InputError(f"{path}: no such encoder; give a bundle or a file of s4g-export")
    if path.suffix == PLAN_SUFFIX:
        fits = device == "tensorrt"
    elif any(path.name in names for names in DEVICE_FILES.values()):
        fits = path.name in DEVICE_FILES[device]
    else:
        precision = read_spec(path, open_to_look(path, read_bytes(path))).precision
        fits = device in _DEVICES_OF_PRECISION.get(precision, ())
    return [path] if fits else []


def _absent(path: Path, device: str, files: Mapping[str, list[Path]]) -> str:
    if reason := why_absent(device):
        return reason
    if files[device]:
        return ""
    if device == "tensorrt":
        return f"no plan; build one on this machine with s4g-export build {path}"
    return f"{path.name} holds nothing for it"


def _listed(absent: Mapping[str, str]) -> str:
    return "; ".join(f"device {device}: {reason}" for device, reason in absent.items())


def _open(stack: ExitStack, device: str, file: Path, threads: int) -> Engine | str:
    """Return an engine, or why there is none."""
    try:
        return stack.enter_context(closing(load_engine(file, device, threads)))
    except S4GError as error:
        return str(error)


Pair = tuple[str, Path]  # device and file


def _setting(
    engines: Mapping[Pair, Engine | str], threads: int, batch: int, runs: int
) -> dict[Pair, Timing]:
    """Time all engines at one setting; an engine that fails does not stop the others."""
    rows: dict[Pair, Timing] = {}
    sound: dict[Pair, Engine] = {}
    for pair, engine in engines.items():
        device, file = pair
        if not isinstance(engine, str):
            try:
                engine.embed(_images(engine, batch))
                sound[pair] = engine
                continue
            except S4GError as error:
                engine = str(error)
        rows[pair] = Timing(file.name, device, threads, batch, error=engine)
    if sound:
        names = {f"{device} {file}": (device, file) for device, file in sound}
        timed = side_by_side({name: sound[pair] for name, pair in names.items()}, batch, runs)
        for name, (device, file) in names.items():
            engine = sound[device, file]
            said = (engine.backend, engine.spec.precision, timed[name])
            rows[device, file] = Timing(file.name, device, threads, batch, *said)
    return {pair: rows[pair] for pair in engines}


def _images(engine: Engine, batch: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    side = engine.spec.input_px
    return np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)


@dataclass(frozen=True)
class _Sizes:
    """How much work the network is, where the exporter wrote it down.

    Attributes:
        macs: multiply-adds of one image, the same in all files of one encoder; 0 where unknown.
        weight_bytes: of the ONNX files that tell.
    """

    macs: int
    weight_bytes: Mapping[Path, int]

    def rated(self, row: Timing, file: Path, limit: Roofline | None) -> Timing:
        """Return the row with its rate and, on a CPU, the limit."""
        if row.latency is None or not self.macs:
            return row
        macs = float(self.macs * row.batch)
        bound = None
        if limit is not None and row.device in _CPU_DEVICES:
            weights = self.weight_bytes.get(file)
            bound = limit.attainable_gmacs_per_s(row.precision, macs, weights)
        rate = macs / (1e6 * row.latency.p50_ms)
        return replace(row, gmacs_per_s=rate, limit_gmacs_per_s=bound)


def _sizes(files: Iterable[Path]) -> _Sizes:
    macs, weights = 0, {}
    for file in _with_siblings(files):
        try:
            facts = read_facts(file)
        except InputError:
            continue  # an engine that cannot be opened says so in its row
        if type(found := facts.get("macs")) is int and found > 0:
            macs = macs or found
        if type(found := facts.get("weight_bytes")) is int and found > 0:
            weights[file] = found
    return _Sizes(macs, weights)


def _with_siblings(files: Iterable[Path]) -> Iterator[Path]:
    """Yield the ONNX file of each engine: of a plan, the graph it was built from."""
    yield from sorted({f.with_suffix(".onnx") if f.suffix == PLAN_SUFFIX else f for f in files})


def verdict(plain: Latency, int8: Latency, name: str = "FP32") -> str:
    """Say in one sentence whether INT8 pays on this machine; `name` is the other precision."""
    gain = plain.p50_ms / int8.p50_ms
    if gain >= _SAME_SPEED:
        return f"INT8 is {gain:.1f} times as fast as {name} on this machine"
    if gain > 1 / _SAME_SPEED:
        return f"INT8 is no faster than {name} on this machine: {name} loses nothing"
    return f"INT8 is slower than {name} on this machine ({gain:.2f} times its speed): use {name}"
