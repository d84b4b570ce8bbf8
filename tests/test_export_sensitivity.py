"""The sensitivity scan: it finds the layer that was made fragile, and blames no other."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="export needs torch (the export extra)")
pytest.importorskip("onnx", reason="export needs onnx (the export extra)")

from s4g.export.bias import correct_biases, mean_shifts
from s4g.export.onnx_graph import OnnxGraph
from s4g.export.parity import Agreement, embed_graph
from s4g.export.quantise import quantise_cpu
from s4g.export.ranges import Ranges, choose_ranges, measure
from s4g.export.sensitivity import LayerLoss, scan_layers

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_graphs.py"))))

IMAGES = toy.images(12)
CHANNELS = 6


def net(fragile: str) -> bytes:
    """Four layers; what `fragile` reads has a channel 1000 times as wide as the others."""
    constants = {
        "w0": toy.normal(CHANNELS, 3, 3, 3),
        **{
            f"w{i}": toy.normal(CHANNELS, CHANNELS, 1, 1, seed=i, scale=CHANNELS**-0.5)
            for i in (1, 2)
        },
        "table": toy.normal(CHANNELS, 16, seed=3),
        "b": np.full(CHANNELS, 0.1),
        "space": [2, 3],
    }
    if fragile:
        widen = np.ones(CHANNELS, np.float32)
        widen[2] = 1000
        number = int(fragile[-1])
        constants[f"w{number - 1}"] *= widen[:, None, None, None]
        constants[fragile] = constants[fragile] / widen[:, None, None]
    model: bytes = toy.encoder(
        "c0 = Conv(pixels, w0, b) r0 = Relu(c0) c1 = Conv(r0, w1, b) r1 = Relu(c1) "
        "c2 = Conv(r1, w2, b) r2 = Relu(c2) m = ReduceMean <keepdims = 0> (r2, space) "
        "features = Gemm(m, table)",
        **constants,
    )
    return model


def ranges_of(model: bytes) -> Ranges:
    return choose_ranges(measure(model, IMAGES, lambda count: None), "minmax")


def scan(model: bytes, corrected: bool = False) -> list[LayerLoss]:
    shifts = mean_shifts(model, IMAGES) if corrected else {}
    return scan_layers(model, ranges_of(model), shifts, IMAGES, lambda count: None)


@pytest.mark.parametrize(("fragile", "blamed"), [("w1", {"c0", "c1"}), ("w2", {"c1", "c2"})])
def test_the_layers_around_a_fragile_activation_come_first(fragile: str, blamed: set[str]) -> None:
    found = scan(net(fragile))
    assert {layer.node for layer in found[:2]} == blamed
    assert found[1].loss > 20 * found[2].loss


def test_every_weighted_layer_is_told_with_its_operator_the_worst_first() -> None:
    found = scan(net(""))
    assert sorted((layer.node, layer.operator) for layer in found) == [
        ("c0", "Conv"),
        ("c1", "Conv"),
        ("c2", "Conv"),
        ("features", "Gemm"),
    ]
    losses = [layer.loss for layer in found]
    assert losses == sorted(losses, reverse=True)
    assert all(0 <= loss < 0.01 for loss in losses)


def test_a_loss_is_that_of_the_layer_quantised_alone() -> None:
    model = net("w2")
    ranges, shifts = ranges_of(model), mean_shifts(model, IMAGES)
    wanted = embed_graph(model, IMAGES)
    own = correct_biases(model, {"c2": shifts["c2"]})
    alone = embed_graph(quantise_cpu(own, ranges, only=["c2"]), IMAGES)
    (found,) = [layer.loss for layer in scan(model, corrected=True) if layer.node == "c2"]
    assert found == pytest.approx(1 - Agreement.between(wanted, alone).mean)


def test_what_bias_correction_takes_away_is_no_loss() -> None:
    """Weights rounded down throughout: the mean moves, little else."""
    coarse = np.full((CHANNELS, 3, 1, 1), 1 / 3)
    coarse[:, 0] = np.where(np.arange(CHANNELS) % 2, 127, -127)[:, None, None]
    model = toy.encoder(
        "c0 = Conv(pixels, w0, b) m = ReduceMean <keepdims = 0> (c0, space) "
        "centred = Sub(m, offset) features = Gemm(centred, table)",
        w0=coarse / 127,
        b=np.full(CHANNELS, 0.5),
        offset=np.full(CHANNELS, 0.5),
        table=toy.normal(CHANNELS, 16, seed=3),
        space=[2, 3],
    )
    plain, corrected = ({x.node: x.loss for x in scan(model, c)}["c0"] for c in (False, True))
    assert corrected < 0.1 * plain


def test_progress_counts_every_layer() -> None:
    counts: list[int] = []
    model = net("")
    scan_layers(model, ranges_of(model), {}, IMAGES, counts.append)
    assert counts == [1] * len(OnnxGraph(model).weighted())
