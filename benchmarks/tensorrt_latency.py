"""Latency of a plan: `python benchmarks/tensorrt_latency.py bundle/encoder.fp16.plan`.

Needs the GPU that the plan was built on. For each batch, with and without CUDA graph: a whole call
of `embed` (copies included), the network alone as the CPU sees it (start and wait), and as the GPU
does (events around it). Without CUDA graph the network alone is a bare `execute_async_v3`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from s4g.core.console import run_command, say
from s4g.core.cuda import Buffer, Device, Stream, open_device
from s4g.core.engine_tensorrt import TensorRtEngine
from s4g.core.errors import InputError
from s4g.core.plan import import_tensorrt, read_plan
from s4g.core.tensorrt_network import Network
from s4g.export.machine import describe, machine

_WARM_UP = 20
_HEADER = ("batch", "graph", "call p50", "call p99", "start+wait p50", "p99", "GPU p50", "p99")


def _percentiles(times_ms: list[float]) -> tuple[float, float]:
    median, slow = np.percentile(times_ms[_WARM_UP:], [50, 99])
    return float(median), float(slow)


def _wall_ms(work: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start_s)


class Alone:
    """The network of a plan without what the engine does around it."""

    def __init__(self, path: Path, graphs: bool) -> None:
        """Load it; the device's context must be current."""
        plan, info = read_plan(path)
        spec, self._device = info.spec, open_device()
        self._stream = Stream(self._device)
        self._network = Network(import_tensorrt(), path, plan, info, self._device, graphs)
        most, side = self._network.batch_max, spec.input_px
        self._images = Buffer(self._device, (most, side, side, 3), np.uint8, "images")
        self._embeddings = Buffer(self._device, (most, spec.embedding_dim), np.float32, "results")
        self._images.host[:] = 127
        self._images.to_device(most, self._stream)
        self._network.bind(self._images.address, self._embeddings.address)

    def run(self, batch: int) -> None:
        """Start one inference and wait for it."""
        self._network.run(batch, self._stream)
        self._stream.wait()

    def run_ms(self, batch: int) -> float:
        """Return the milliseconds one inference takes on the GPU."""
        event = self._device.driver.Event
        start, end = event(), event()
        start.record(self._stream.raw)
        self._network.run(batch, self._stream)
        end.record(self._stream.raw)
        end.synchronize()
        return float(start.time_till(end))

    def close(self) -> None:
        """Release everything; the device's context must be current."""
        self._stream.wait()
        self._network.close()
        self._images.free()
        self._embeddings.free()
        self._stream.close()


def measure(path: Path, graphs: bool, batch: int, runs: int, device: Device) -> list[float]:
    """Return median and 99th percentile of call, start and wait, and GPU, milliseconds."""
    count = _WARM_UP + runs
    engine = TensorRtEngine(path, graphs)
    side = engine.spec.input_px
    images: npt.NDArray[np.uint8] = np.full((batch, side, side, 3), 127, np.uint8)
    calls_ms = [_wall_ms(lambda: engine.embed(images)) for _ in range(count)]
    engine.close()
    with device.current():
        alone = Alone(path, graphs)
        alone_ms = [_wall_ms(lambda: alone.run(batch)) for _ in range(count)]
        gpu_ms = [alone.run_ms(batch) for _ in range(count)]
        alone.close()
    return [v for times in (calls_ms, alone_ms, gpu_ms) for v in _percentiles(times)]


@click.command()
@click.argument("plan", type=click.Path(path_type=Path))
@click.option("--batch", "batches", multiple=True, type=click.IntRange(1), default=(1, 8))
@click.option("--runs", type=click.IntRange(10), default=500, show_default=True)
def cli(plan: Path, batches: tuple[int, ...], runs: int) -> None:
    """Print a table of milliseconds."""
    _, info = read_plan(plan)
    if max(batches) > info.batch_max:
        raise InputError(f"--batch {max(batches)}: {plan} takes {info.batch_max} at most")
    device = open_device()
    say(f"{device.name} ({device.capability}); {describe(machine())}")
    click.echo("  ".join(f"{name:>9}" for name in _HEADER))
    for batch in batches:
        for graphs in (True, False):
            say(f"measuring batch {batch}, {'with' if graphs else 'without'} CUDA graph")
            values = measure(plan, graphs, batch, runs, device)
            cells = [f"{batch:>9}", f"{'yes' if graphs else 'no':>9}"]
            widths = (max(9, len(name)) for name in _HEADER[2:])
            cells += [f"{v:>{width}.3f}" for v, width in zip(values, widths, strict=True)]
            click.echo("  ".join(cells))


if __name__ == "__main__":
    run_command(cli)
