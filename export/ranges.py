"""The range of every activation: one pass over the calibration images, four ways to read it.

ONNX Runtime's calibrator collects a histogram of each tensor. From it follow the whole range
(`minmax`), the range that leaves out a share of the values (`percentile`), the one that keeps
most information (`entropy`, Migacz, 8-bit inference with TensorRT, GTC 2017) and the one with the
least squared rounding and clipping error (`mse`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import S4GError
from .activations import batch_size, observe
from .graph import INPUT_NAME
from .onnx_graph import OnnxGraph
from .quantise import quiet

METHODS = ("minmax", "percentile", "entropy", "mse")
PERCENTILE = 99.99  # share of each activation's histogram that stays unclipped

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Ranges = dict[str, tuple[float, float]]

_BATCH = 4
# Four to a step of an activation that is never negative: `mse` rounds the middles of bins.
_BINS = 2048
# The search for the entropy's optimum is quadratic in bins; neighbours are added up to these.
_ENTROPY_BINS = 512
_LEVELS = 256
# Ends tried by `mse`: shares of the whole range.
_SHARES = np.linspace(0.2, 1.0, 33)


@dataclass(frozen=True)
class Histogram:
    """Values of one tensor: counts between edges that lie symmetrically around zero."""

    counts: Floats
    edges: Floats
    low: float
    high: float


Histograms = dict[str, Histogram]


def measure(model: bytes, images: Images, advance: Callable[[int], None]) -> Histograms:
    """Collect the histogram of every activation.

    Args:
        model: prepared FP32 ONNX file.
        images: (N, H, W, 3) uint8.
        advance: hears how many images are done.

    Raises:
        S4GError: an activation is not finite.
    """
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    with tempfile.TemporaryDirectory(prefix="s4g-calibrate-") as folder, quiet():
        path = Path(folder, "prepared.onnx")
        path.write_bytes(model)
        calibrator: Any = create_calibrator(
            path,
            augmented_model_path=str(Path(folder, "augmented.onnx")),
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"num_bins": _BINS, "symmetric": False},
        )
        measured: set[str] = calibrator.tensors_to_calibrate
        made = [name for node in OnnxGraph(model) for name in node.output if name in measured]
        # Not the calibrator's own first batch: the width of its bins is set by that.
        size = batch_size(next(observe(model, made, images[:1])), _BATCH)
        calibrator.collector = _finite_collector(made)
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            calibrator.collect_data(_Reader(batch))
            advance(len(batch))
        collected = calibrator.collector.get_histogram_dict()
    return {
        name: Histogram(
            np.asarray(counts, np.float64), np.asarray(edges, np.float64), float(low), float(high)
        )
        for name, (counts, edges, low, high, _) in collected.items()
    }


def _finite_collector(tensors: Sequence[str]) -> Any:
    """Return ONNX Runtime's collector of histograms, which by itself passes over NaN, dies of inf.

    Args:
        tensors: in the order in which they are computed, so that the first fault is named.
    """
    from onnxruntime.quantization.calibrate import HistogramCollector

    class FiniteCollector(HistogramCollector):  # type: ignore[misc]  # it has no types
        def collect(self, name_to_arr: Mapping[str, Any]) -> Any:
            for name in tensors:
                if not all(np.isfinite(array).all() for array in name_to_arr.get(name, ())):
                    raise S4GError(
                        f"activation {name} is not finite on the calibration images; the weights "
                        "are damaged, train again"
                    )
            return super().collect(name_to_arr)

    return FiniteCollector("percentile", False, _BINS, 128, PERCENTILE, "same")


class _Reader:
    """Feeds one batch to ONNX Runtime's calibrator."""

    def __init__(self, batch: Images) -> None:
        self._batches = iter([batch])

    def get_next(self) -> dict[str, Images] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT_NAME: batch}


def choose_ranges(
    histograms: Mapping[str, Histogram], method: str, symmetric: bool = False
) -> Ranges:
    """Return each tensor's (low, high); zero always lies inside.

    Args:
        histograms: of `measure`.
        method: one of `METHODS`.
        symmetric: the levels will lie symmetrically around zero, as in TensorRT; `mse` counts
            their errors then.
    """
    if method == "minmax":
        found = {name: (h.low, h.high) for name, h in histograms.items()}
    elif method == "mse":
        least = least_symmetric_error if symmetric else least_error
        found = {name: least(h) for name, h in histograms.items()}
    else:
        found = _by_collector(histograms, method)
    return {name: (min(low, 0.0), max(high, 0.0)) for name, (low, high) in found.items()}


def _by_collector(histograms: Mapping[str, Histogram], method: str) -> Ranges:
    from onnxruntime.quantization.calibrate import HistogramCollector

    collector = HistogramCollector(method, False, _BINS, 128, PERCENTILE, "same")
    for name, h in histograms.items():
        coarse = _coarser(h, _ENTROPY_BINS) if method == "entropy" else h
        collector.histogram_dict[name] = (
            coarse.counts,
            coarse.edges.astype(np.float32),
            np.float32(h.low),
            np.float32(h.high),
            np.float32(h.edges[-1]),
        )
    with quiet():
        found = collector.compute_collection_result()
    return {
        # A tensor that is zero throughout has an empty histogram.
        name: (max(float(low), histograms[name].low), min(float(high), histograms[name].high))
        for name, (low, high, *_) in found.items()
    }


def _coarser(histogram: Histogram, bins: int) -> Histogram:
    """Add up neighbouring bins, evenly to both sides of zero, until at most `bins` are left."""
    half = len(histogram.counts) // 2
    factor = -(-half // (bins // 2))
    padding = -half % factor
    counts = np.pad(histogram.counts, padding).reshape(-1, factor).sum(axis=1)
    width = histogram.edges[-1] / half if half else 0.0
    limit = (half + padding) * width
    edges = np.linspace(-limit, limit, len(counts) + 1)
    return Histogram(counts, edges, histogram.low, histogram.high)


def least_error(histogram: Histogram) -> tuple[float, float]:
    """Return the (low, high) whose 256 levels reproduce the values with the least squared error.

    Both ends are tried at shares of the whole range: a shorter range has finer steps and clips
    the values outside.
    """
    centres = (histogram.edges[:-1] + histogram.edges[1:]) / 2
    used = histogram.counts > 0
    values, weights = centres[used], histogram.counts[used]
    lows = histogram.low * _SHARES if histogram.low < 0 else np.zeros(1)
    highs = histogram.high * _SHARES if histogram.high > 0 else np.zeros(1)
    best, least = (histogram.low, histogram.high), np.inf
    for low in lows:
        step = (highs - low)[:, None] / (_LEVELS - 1)
        step = np.where(step > 0, step, 1.0)
        # Rounded for real, and not off by step²/12 as on average: of a tensor behind a ReLU most
        # values are 0, which every range holds exactly.
        rounded = np.rint(np.clip(values, low, highs[:, None]) / step) * step
        errors = (rounded - values) ** 2 @ weights
        index = int(errors.argmin())
        if errors[index] < least:
            best, least = (float(low), float(highs[index])), float(errors[index])
    return best


def least_symmetric_error(histogram: Histogram) -> tuple[float, float]:
    """Return the (low, high) of least squared error where 255 levels lie around zero.

    One end decides: the levels reach as far to the other side of zero, whether values do or not.
    """
    values = (histogram.edges[:-1] + histogram.edges[1:]) / 2
    peaks = (max(-histogram.low, histogram.high) * _SHARES)[:, None]
    step = np.where(peaks > 0, peaks, 1.0) / (_LEVELS // 2 - 1)
    rounded = np.rint(np.clip(values, -peaks, peaks) / step) * step
    best = float(peaks[int(((rounded - values) ** 2 @ histogram.counts).argmin()), 0])
    return max(histogram.low, -best), min(histogram.high, best)
