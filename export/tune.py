"""From calibration to the INT8 graph of a target: what is tried, and what is kept.

Choices are made on images that were not calibrated on, of other ground: on the images it has seen,
a range that cuts off rare values looks better than it is. What is chosen is calibrated once more,
with those images as well. What is held out only judges.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import numpy as np

from ..core.engine import Embeddings, Images
from .bias import Doubles, correct_biases, mean_shifts
from .equalise import equalise
from .onnx_graph import OnnxGraph
from .parity import Agreement, Pairs, Recall, embed_graph
from .place_tensorrt import place
from .quantise import quantise_cpu
from .ranges import METHODS, Histograms, Ranges, choose_ranges, measure
from .sensitivity import LayerLoss, scan_layers

TARGETS = ("cpu", "tensorrt")
# More layers than this share in float, and INT8 is no longer what was asked for.
MAX_FLOAT_SHARE = 0.3
_STATISTICS_IMAGES = 64
_SCAN_IMAGES = 32

Progress = Callable[[str, int, str], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class Bars:
    """What an INT8 graph must reach.

    Attributes:
        min_cosine: lowest acceptable cosine to the checkpoint, 1st percentile.
        max_r1_drop: largest acceptable loss of R@1.
    """

    min_cosine: float
    max_r1_drop: float


@dataclass(frozen=True)
class Trial:
    """One way to quantise, judged on tuning images.

    Attributes:
        target: `cpu` or `tensorrt`.
        method: how ranges were chosen.
        equalised: whether channels were equalised first.
        corrected: whether biases were corrected.
        kept_float: nodes left in float.
        mean_cosine: to the FP32 graph, on images not calibrated on.
        p1_cosine: the same, 1st percentile.
        r1: views matched to tiles.
    """

    target: str
    method: str
    equalised: bool
    corrected: bool
    kept_float: int
    mean_cosine: float
    p1_cosine: float
    r1: float


@dataclass(frozen=True)
class Quantised:
    """The INT8 graph of a target and how it came about."""

    model: bytes
    trial: Trial
    kept_float: tuple[str, ...]


@dataclass(frozen=True)
class _Variant:
    """A float graph to quantise: equalised or not, with what was measured on it."""

    graph: bytes
    shifts: dict[str, Doubles]  # of `bias.mean_shifts`
    histograms: Histograms
    equalised: bool
    chosen: dict[tuple[str, bool], Ranges] = field(default_factory=dict)
    # Of the images to choose by as well; filled when a graph is finished.
    all_histograms: list[Histograms] = field(default_factory=list)

    def ranges(self, method: str, symmetric: bool) -> Ranges:
        """Return the ranges of a method, found once: some take seconds."""
        key = method, symmetric
        if key not in self.chosen:
            self.chosen[key] = choose_ranges(self.histograms, method, symmetric)
        return self.chosen[key]


@dataclass
class Tuner:
    """Tries ways to quantise one encoder.

    Attributes:
        prepared: FP32 ONNX file of `prepare.prepare`.
        images: (N, px, px, 3) uint8, to calibrate on.
        pairs: tiles and views of other places, to choose by.
        method: one of `METHODS`, or `auto`.
        depthwise: `float` or `int8`, for the TensorRT graph.
        progress: of `core.console`.
        trials: everything tried so far.
        layers: the sensitivity scan, worst first; empty where none was made.
        pairs_equalised: how many pairs of layers equalisation found.
    """

    prepared: bytes
    images: Images
    pairs: Pairs
    method: str
    depthwise: str
    progress: Progress
    trials: list[Trial] = field(default_factory=list)
    layers: list[LayerLoss] = field(default_factory=list)
    pairs_equalised: int = 0

    def __post_init__(self) -> None:
        """Calibrate: one pass over the images for each float graph that will be quantised."""
        self._wanted = embed_graph(self.prepared, self.pairs.images)
        statistics = self.images[:: -(-len(self.images) // _STATISTICS_IMAGES)]
        equalised, self.pairs_equalised = equalise(self.prepared, statistics)
        self._variants = [self._variant(self.prepared, statistics, False)]
        if self.pairs_equalised:
            self._variants.append(self._variant(equalised, statistics, True))

    def _variant(self, graph: bytes, statistics: Images, equalised: bool) -> _Variant:
        label = "calibrating, channels equalised" if equalised else "calibrating"
        with self.progress(label, len(self.images), "images") as advance:
            histograms = measure(graph, self.images, advance)
        return _Variant(graph, mean_shifts(graph, statistics), histograms, equalised)

    def tune(self, target: str, bars: Bars, keep_float: Collection[str]) -> Quantised:
        """Return the best graph found for a target.

        Methods are compared with equalisation and bias correction; then the best one without
        either and without both. Where the bars do not hold, the layers that lose most
        stay in float, more and more of them.

        Raises:
            S4GError: a layer cannot be quantised.
        """
        last = self._variants[-1]
        methods = METHODS if self.method == "auto" else (self.method,)
        tried = [self._try(target, last, method, True, keep_float) for method in methods]
        best = max(tried, key=_merit)
        for variant in self._variants:
            for corrected in (True, False):
                if variant is not last or not corrected:
                    again = self._try(target, variant, best.trial.method, corrected, keep_float)
                    tried.append(again)
        best = max(tried, key=_merit)
        holding = [one for one in tried if self._holds(one, bars)]
        chosen = max(holding, key=_merit) if holding else self._with_floats(best, bars, keep_float)
        return self._finished(chosen)

    def _try(
        self,
        target: str,
        variant: _Variant,
        method: str,
        corrected: bool,
        keep_float: Collection[str],
    ) -> Quantised:
        ranges = variant.ranges(method, target == "tensorrt")
        model = self._made(target, variant, ranges, corrected, keep_float)
        found = embed_graph(model, self.pairs.images)
        agreement = Agreement.between(self._wanted, found)
        trial = Trial(
            target,
            method,
            variant.equalised,
            corrected,
            len(keep_float),
            agreement.mean,
            agreement.p1,
            self._recall(found).r1,
        )
        self.trials.append(trial)
        return Quantised(model, trial, tuple(keep_float))

    def _made(
        self,
        target: str,
        variant: _Variant,
        ranges: Ranges,
        corrected: bool,
        keep_float: Collection[str],
    ) -> bytes:
        model = self._quantise(target, variant.graph, ranges, keep_float)
        if not corrected:
            return model
        # Weights that are still constants were not rounded: those layers' biases are right.
        exact = {node.name for node in OnnxGraph(model).weighted()}
        shifts = {name: s for name, s in variant.shifts.items() if name not in exact}
        return self._quantise(target, correct_biases(variant.graph, shifts), ranges, keep_float)

    def _finished(self, chosen: Quantised) -> Quantised:
        """Return the graph made again, with ranges of all images."""
        trial = chosen.trial
        variant = self._variants[-1 if trial.equalised else 0]
        if not variant.all_histograms:
            images = np.concatenate([self.images, self.pairs.images])
            with self.progress("calibrating what was chosen", len(images), "images") as advance:
                variant.all_histograms.append(measure(variant.graph, images, advance))
        symmetric = trial.target == "tensorrt"
        ranges = choose_ranges(variant.all_histograms[0], trial.method, symmetric)
        model = self._made(trial.target, variant, ranges, trial.corrected, chosen.kept_float)
        return replace(chosen, model=model)

    def _quantise(
        self, target: str, graph: bytes, ranges: Ranges, keep_float: Collection[str]
    ) -> bytes:
        if target == "cpu":
            return quantise_cpu(graph, ranges, keep_float)
        return place(graph, ranges, keep_float, self.depthwise)

    def _recall(self, embeddings: Embeddings) -> Recall:
        return self.pairs.paired(embeddings).recall

    def _holds(self, tried: Quantised, bars: Bars) -> bool:
        # One pair more or less says nothing here; the held-out places judge the drop.
        allowed = max(bars.max_r1_drop, 1 / len(self.pairs.tiles)) + 1e-9
        drop = self._recall(self._wanted).r1 - tried.trial.r1
        return tried.trial.p1_cosine >= bars.min_cosine and drop <= allowed

    def _with_floats(self, best: Quantised, bars: Bars, keep_float: Collection[str]) -> Quantised:
        """Leave the most sensitive layers in float: 1, 2, 4, … of them."""
        exact = {node.name for node in OnnxGraph(best.model).weighted()}
        layers = [layer.node for layer in self.scan() if layer.node not in exact]
        most = int(MAX_FLOAT_SHARE * len(layers))
        variant = self._variants[-1 if best.trial.equalised else 0]
        count = 1
        while count <= most:
            kept = (*keep_float, *layers[:count])
            tried = self._try(
                best.trial.target, variant, best.trial.method, best.trial.corrected, kept
            )
            best = max(best, tried, key=_merit)
            if self._holds(tried, bars):
                return tried
            count = min(2 * count, most) if count < most else most + 1
        return best

    def scan(self) -> list[LayerLoss]:
        """Return what each layer loses when it alone is quantised, the worst first.

        It is quantised as in the best trial so far.
        """
        if not self.layers:
            best = max(self.trials, key=lambda trial: trial.mean_cosine, default=None)
            method = METHODS[0] if best is None else best.method
            variant = self._variants[-1 if best is None or best.equalised else 0]
            ranges = variant.ranges(method, False)
            layers = len(OnnxGraph(variant.graph).weighted())
            images = self.pairs.images[:: -(-len(self.pairs.images) // _SCAN_IMAGES)]
            with self.progress("which layers lose", layers, "layers") as advance:
                self.layers = scan_layers(variant.graph, ranges, variant.shifts, images, advance)
        return self.layers


def _merit(tried: Quantised) -> float:
    return tried.trial.mean_cosine
