"""What a CPU could do at best: its measured rates of INT8 and FP32 products, and its memory's.

The rates are those of the fastest large product that ONNX Runtime itself offers on this machine,
not of the bare instructions, which are somewhat faster (docs/exporting.md).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from .tiny_onnx import Array, Kind, one_operator

# Rows, columns and depth of matrix products; channels and side of 3x3 convolutions. Large enough to
# reach the limit, small enough to stay in a cache.
_MATRICES = ((256, 512, 512), (384, 1536, 384), (512, 1024, 1024))
_CONVOLUTIONS = ((256, 14), (256, 28))
_RUNS = 12
_COPIED_BYTES = 128 << 20  # beyond any cache


@dataclass(frozen=True)
class Roofline:
    """Measured limits of a CPU.

    Attributes:
        threads: threads used, 0: as many as there are cores.
        int8_gmacs_per_s: fastest product of uint8 by int8 in ONNX Runtime, 10^9 multiply-adds/s.
        fp32_gmacs_per_s: fastest product of float32 in ONNX Runtime.
        memory_gbytes_per_s: bytes read and written by a copy, 10^9/s.
    """

    threads: int
    int8_gmacs_per_s: float
    fp32_gmacs_per_s: float
    memory_gbytes_per_s: float

    def attainable_gmacs_per_s(
        self, precision: str, macs: float, weight_bytes: float | None
    ) -> float | None:
        """Return the roofline over one call: the lower of arithmetic and memory.

        Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009: min(peak, intensity x
        bandwidth). Memory traffic is taken as the weights read once, activations stay in a cache.

        Args:
            precision: `int8` or `fp32`; for any other the limit was not measured: None.
            macs: multiply-adds of the call.
            weight_bytes: of the file; None leaves memory out.
        """
        peaks = {"int8": self.int8_gmacs_per_s, "fp32": self.fp32_gmacs_per_s}
        peak = peaks.get(precision)
        if peak is None or not weight_bytes:
            return peak
        return min(peak, macs / weight_bytes * self.memory_gbytes_per_s)


def measure_roofline(threads: int) -> Roofline:
    """Measure the limits of this machine; takes about a second.

    Args:
        threads: threads to use, 0: as many as there are cores.
    """
    return Roofline(
        threads=threads,
        int8_gmacs_per_s=max(_rate(p, threads) for p in int8_products()),
        fp32_gmacs_per_s=max(_rate(p, threads) for p in fp32_products()),
        memory_gbytes_per_s=_copy_rate(threads or os.cpu_count() or 1),
    )


@dataclass(frozen=True)
class Product:
    """A product to time: an ONNX file with the input `x` and the output `y`."""

    model: bytes
    x: Array
    macs: int


def int8_products() -> Iterator[Product]:
    """Yield products of uint8 by int8."""
    rng = np.random.default_rng(0)
    for rows, columns, depth in _MATRICES:
        x = rng.integers(0, 256, (rows, depth), dtype=np.uint8)
        w = rng.integers(-127, 128, (depth, columns), dtype=np.int8)
        model = one_operator("MatMulInteger", _inputs(x, w), ("int32", (rows, columns)))
        yield Product(model, x, rows * columns * depth)
    for channels, side in _CONVOLUTIONS:
        x = rng.integers(0, 256, (1, channels, side, side), dtype=np.uint8)
        w = rng.integers(-127, 128, (channels, channels, 3, 3), dtype=np.int8)
        scale, zero = np.array(0.02, np.float32), np.array(128, np.uint8)
        inputs: dict[str, Kind | Array] = {
            "x": ("uint8", x.shape),
            "x_scale": scale,
            "x_zero": zero,
            "w": w,
            "w_scale": np.full(channels, 0.01, np.float32),
            "w_zero": np.zeros(channels, np.int8),
            "y_scale": np.array(1, np.float32),
            "y_zero": zero,
        }
        model = one_operator("QLinearConv", inputs, ("uint8", x.shape), pads=[1, 1, 1, 1])
        yield Product(model, x, 9 * channels**2 * side**2)


def fp32_products() -> Iterator[Product]:
    """Yield products of float32."""
    rng = np.random.default_rng(0)
    for rows, columns, depth in _MATRICES:
        x = rng.standard_normal((rows, depth), np.float32)
        w = rng.standard_normal((depth, columns), np.float32)
        model = one_operator("MatMul", _inputs(x, w), ("float32", (rows, columns)))
        yield Product(model, x, rows * columns * depth)
    for channels, side in _CONVOLUTIONS:
        x = rng.standard_normal((1, channels, side, side), np.float32)
        w = rng.standard_normal((channels, channels, 3, 3), np.float32)
        model = one_operator("Conv", _inputs(x, w), ("float32", x.shape), pads=[1, 1, 1, 1])
        yield Product(model, x, 9 * channels**2 * side**2)


def _inputs(x: Array, w: Array) -> dict[str, Kind | Array]:
    return {"x": (x.dtype.name, x.shape), "w": w}


def _rate(product: Product, threads: int) -> float:
    """Return 10^9 multiply-adds per second of the fastest of several runs."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(product.model, options, providers=providers)
    return product.macs / _fastest_s(lambda: session.run(None, {"x": product.x})) / 1e9


def _copy_rate(threads: int) -> float:
    """Return 10^9 bytes per second that `threads` copies read and write together."""
    source = np.ones(_COPIED_BYTES, np.uint8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:  # numpy copies without Python's lock

        def copy_all() -> None:
            for done in [pool.submit(np.copyto, to, given) for given, to in parts]:
                done.result()

        return 2 * _COPIED_BYTES / _fastest_s(copy_all) / 1e9


def _fastest_s(call: Callable[[], object]) -> float:
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
