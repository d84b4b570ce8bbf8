"""Latency of engines, measured side by side in one run."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.engine import BUNDLE_CPU_INT8, BUNDLE_FP32, Engine, load_engine
from ..core.errors import InputError

ENGINE_FILES = (BUNDLE_FP32, BUNDLE_CPU_INT8)
_WARM_UP_RUNS = 5
# Closer than this, two engines count as equally fast: repeats differ by as much.
_SAME_SPEED = 1.1


@dataclass(frozen=True)
class Latency:
    """Percentiles of the time one call of `embed` takes, milliseconds for the whole batch."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Timing:
    """Latency of one file at one batch size and number of threads (0 = ONNX Runtime's choice)."""

    file: str
    threads: int
    batch: int
    latency: Latency


def side_by_side(engines: Mapping[str, Engine], batch: int, runs: int) -> dict[str, Latency]:
    """Time engines in turn, run by run, so that a busy moment of the machine hits them alike.

    Args:
        engines: by name; all take the same input size.
        batch: images per call.
        runs: timed calls per engine, after a warm-up.
    """
    rng = np.random.default_rng(0)
    side = next(iter(engines.values())).spec.input_px
    images = rng.integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
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


def bench_bundle(
    bundle: Path, threads: Sequence[int], batches: Sequence[int], runs: int
) -> list[Timing]:
    """Time every engine of a bundle.

    Raises:
        InputError: the folder is missing or holds no engine.
    """
    if not bundle.is_dir():
        raise InputError(f"{bundle}: no such bundle; give a folder made by s4g-export")
    files = [name for name in ENGINE_FILES if (bundle / name).is_file()]
    if not files:
        raise InputError(
            f"{bundle}: holds neither {' nor '.join(ENGINE_FILES)}; export the checkpoint again"
        )
    rows = []
    for count in threads:
        engines = {name: load_engine(bundle / name, "cpu", count) for name in files}
        for batch in batches:
            timed = side_by_side(engines, batch, runs)
            rows += [Timing(name, count, batch, timed[name]) for name in files]
    return rows


def verdict(fp32: Latency, int8: Latency) -> str:
    """Say in one sentence whether INT8 pays on this machine."""
    gain = fp32.p50_ms / int8.p50_ms
    if gain >= _SAME_SPEED:
        return f"INT8 is {gain:.1f} times as fast as FP32 on this machine"
    if gain > 1 / _SAME_SPEED:
        return "INT8 is no faster than FP32 on this machine: FP32 loses nothing"
    return f"INT8 is slower than FP32 on this machine ({gain:.2f} times its speed): use FP32"


def machine() -> dict[str, Any]:
    """Return what latencies depend on: processor, cores, system."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(("model name", "Model")):
                model = line.partition(":")[2].strip()
                break
    return {"processor": model, "cores": os.cpu_count(), "system": platform.platform()}


def as_json(rows: Sequence[Timing]) -> dict[str, Any]:
    """Return timings and the machine they hold for."""
    timings = [
        {"file": r.file, "threads": r.threads, "batch": r.batch, **asdict(r.latency)} for r in rows
    ]
    return {"machine": machine(), "timings": timings}


def as_table(rows: Sequence[Timing]) -> str:
    """Return timings as text, one line each, a verdict per setting."""
    where = machine()
    lines = [
        f"{where['processor']}, {where['cores']} cores",
        f"{'file':<24}{'threads':>8}{'batch':>6}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}",
    ]
    by_setting: dict[tuple[int, int], dict[str, Latency]] = {}
    for row in rows:
        latency = row.latency
        threads = str(row.threads or "auto")
        lines.append(
            f"{row.file:<24}{threads:>8}{row.batch:>6}"
            f"{latency.p50_ms:>9.2f}{latency.p95_ms:>9.2f}{latency.p99_ms:>9.2f}"
        )
        by_setting.setdefault((row.threads, row.batch), {})[row.file] = latency
    for (count, batch), found in by_setting.items():
        if set(found) == set(ENGINE_FILES):
            said = verdict(found[BUNDLE_FP32], found[BUNDLE_CPU_INT8])
            lines.append(f"threads {count or 'auto'}, batch {batch}: {said}")
    return "\n".join(lines)
