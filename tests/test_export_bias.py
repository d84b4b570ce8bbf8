"""Bias correction: with rounded weights, the mean of each layer's output is what it was."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="export needs torch (the export extra)")
onnx = pytest.importorskip("onnx", reason="export needs onnx (the export extra)")

from s4g.export.bias import correct_biases, mean_shifts, rounded  # noqa: E402
from s4g.export.onnx_graph import OnnxGraph, attribute  # noqa: E402
from s4g.export.parity import Agreement, embed_graph  # noqa: E402
from s4g.export.quantise import quantise_cpu  # noqa: E402
from s4g.export.ranges import choose_ranges, measure  # noqa: E402

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_graphs.py"))))

STEM = "s = Conv <strides = [2, 2], kernel_shape = [2, 2]> (pixels, stem, stem_bias) r = Relu(s) "
POOL = " features = ReduceMean <keepdims = 0> (y, space)"
LAYERS = {
    "a 1x1 convolution": ("y = Conv(r, w, bias)", (5, 6, 1, 1)),
    "a convolution": ("y = Conv(r, w, bias)", (5, 6, 3, 3)),
    "a convolution with padding": ("y = Conv <pads = [1, 1, 1, 1]> (r, w, bias)", (5, 6, 3, 3)),
    # Three of four taps lie outside the image.
    "a kernel larger than its image": (
        "y = Conv <group = 6, pads = [3, 3, 3, 3]> (r, w, bias)",
        (6, 1, 7, 7),
    ),
    "strides, dilations and uneven padding": (
        "y = Conv <strides = [2, 1], dilations = [1, 2], pads = [0, 1, 1, 2]> (r, w, bias)",
        (5, 6, 2, 2),
    ),
    "padding by name": (
        'y = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (r, w, bias)',
        (5, 6, 3, 3),
    ),
    "a grouped convolution": ("y = Conv <group = 2> (r, w, bias)", (4, 3, 2, 2)),
    "a depthwise convolution with two outputs a channel": (
        "y = Conv <group = 6> (r, w, bias)",
        (12, 1, 2, 2),
    ),
}
FLAT = {
    "a projection": ("m = ReduceMean <keepdims = 0> (r, space) y = Gemm(m, w, bias)", (6, 5)),
    "a projection whose weights are turned, and scaled": (
        "m = ReduceMean <keepdims = 0> (r, space) y = Gemm <transB = 1, alpha = 0.5> (m, w, bias)",
        (5, 6),
    ),
    "a product and a sum": (
        "t = Transpose <perm = [0, 2, 3, 1]> (r) y_plain = MatMul(t, w) y = Add(y_plain, bias)",
        (6, 5),
    ),
    "a sum that names the bias first": (
        "t = Transpose <perm = [0, 2, 3, 1]> (r) y_plain = MatMul(t, w) y = Add(bias, y_plain)",
        (6, 5),
    ),
}
ENDS = {
    **dict.fromkeys(LAYERS, POOL),
    "a projection": " features = Identity(y)",
    "a projection whose weights are turned, and scaled": " features = Identity(y)",
    "a product and a sum": " features = ReduceMean <keepdims = 0> (y, middle_axes)",
    "a sum that names the bias first": " features = ReduceMean <keepdims = 0> (y, middle_axes)",
}


def net(nodes: str, weights: npt.NDArray[Any], bias: npt.ArrayLike) -> bytes:
    """Build stem, layer `y` and what follows, with the constants it reads."""
    constants = {
        "stem": toy.normal(6, 3, 2, 2),
        "stem_bias": toy.normal(6, seed=1),
        "w": weights,
        "bias": bias,
        "space": [2, 3],
        "middle_axes": [1, 2],
    }
    nodes = STEM + nodes
    model: bytes = toy.encoder(nodes, **{k: v for k, v in constants.items() if k in nodes})
    return model


def layer(model: bytes, name: str) -> Any:
    (found,) = [n for n in OnnxGraph(model).weighted() if n.name == name]
    return found


def with_rounded_weights(model: bytes, name: str) -> bytes:
    graph = OnnxGraph(model)
    node = layer(model, name)
    outputs = 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1
    weights = rounded(graph.value(node.input[1]), outputs)
    graph.set_value(node.input[1], weights.astype(np.float32))
    return graph.to_bytes()


def mean_output(model: bytes, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return the mean of `y` over images and positions, by channel."""
    (y,) = toy.run(model, ["y"], images)
    channels = 1 if OnnxGraph(model).producers["y"].op_type == "Conv" else -1
    rows = np.moveaxis(y, channels, -1).reshape(-1, y.shape[channels])
    mean: npt.NDArray[np.float64] = rows.mean(axis=0, dtype=np.float64)
    return mean


def coarse(
    rng: np.random.Generator, shape: tuple[int, ...], outputs: int
) -> npt.NDArray[np.float64]:
    """Return weights with a step of 1, each of them rounded down by a third of it."""
    rows = rng.integers(-3, 3, shape) + 1 / 3
    np.moveaxis(rows, outputs, -1)[(0,) * (len(shape) - 1)] = 127
    return rows


@pytest.mark.parametrize("kind", LAYERS | FLAT)
@settings(max_examples=4)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_mean_of_the_output_is_restored(kind: str, seed: int) -> None:
    nodes, shape = (LAYERS | FLAT)[kind]
    rng = np.random.default_rng(seed)
    outputs = 1 if kind in FLAT and "transB" not in nodes else 0
    weights = coarse(rng, shape, outputs)
    model = net(nodes + ENDS[kind], weights, rng.standard_normal(shape[outputs]))
    images = toy.images(11)
    name = "y" if "y_plain" not in nodes else "y_plain"
    shifts = mean_shifts(model, images)
    made = correct_biases(model, {name: shifts[name]})
    wanted = mean_output(model, images)
    off = mean_output(with_rounded_weights(model, name), images) - wanted
    assert np.abs(off).max() > 0.05  # there is something to correct
    found = mean_output(with_rounded_weights(made, name), images)
    np.testing.assert_allclose(found, wanted, atol=2e-4 * max(1, np.abs(wanted).max()))


@pytest.mark.parametrize("kind", ["a convolution", "a grouped convolution", *FLAT])
def test_weights_are_rounded_as_the_cpus_graph_holds_them(kind: str) -> None:
    nodes, shape = (LAYERS | FLAT)[kind]
    bias = toy.normal(shape[1] if kind in FLAT and "transB" not in nodes else shape[0])
    model = net(nodes + ENDS[kind], toy.normal(*shape), bias)
    ranges = choose_ranges(measure(model, toy.images(3), lambda count: None), "minmax")
    graph = OnnxGraph(quantise_cpu(model, ranges))
    (node,) = [n for n in graph if n.name == ("y_plain" if "y_plain" in nodes else "y")]
    held = graph.producers[node.input[1]]
    steps, scale = (graph.value(name).astype(np.float64) for name in held.input[:2])
    axis = attribute(held, "axis", 1)
    wide = [1] * len(shape)
    wide[axis] = -1
    found = rounded(toy.normal(*shape), axis)
    np.testing.assert_allclose(found, steps * scale.reshape(wide), rtol=1e-6)
    assert axis == (0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1)


@pytest.mark.parametrize("axis", [0, 1])
def test_rounded_weights_lie_on_127_steps_of_each_channels_largest(axis: int) -> None:
    weights = toy.normal(6, 7) * np.geomspace(0.01, 100, 6)[:, None]
    found = np.moveaxis(rounded(weights.astype(np.float32), axis), axis, 0)
    wanted = np.moveaxis(weights, axis, 0)
    step = np.abs(wanted).max(axis=1, keepdims=True) / 127
    np.testing.assert_allclose(found / step, np.rint(found / step), atol=1e-3)
    assert (np.abs(found - wanted) <= 0.501 * step).all()


def test_a_channel_of_zeros_stays_zero() -> None:
    weights = toy.normal(3, 4)
    weights[1] = 0
    np.testing.assert_array_equal(rounded(weights, 0)[1], 0)


def test_layers_without_a_constant_bias_have_no_shift() -> None:
    model = toy.encoder(
        "a = Conv(pixels, w) t = Transpose <perm = [0, 2, 3, 1]> (a) u = MatMul(t, table) "
        "v = Relu(u) features = ReduceMean <keepdims = 0> (v, middle_axes)",
        w=toy.normal(6, 3, 1, 1),
        table=toy.normal(6, 5),
        middle_axes=[1, 2],
    )
    assert mean_shifts(model, toy.images(2)) == {}


def test_only_the_named_layers_are_corrected() -> None:
    nodes, shape = LAYERS["a convolution"]
    model = net(nodes + POOL, toy.normal(*shape), toy.normal(5))
    shifts = mean_shifts(model, toy.images(3))
    assert sorted(shifts) == ["s", "y"]
    made = OnnxGraph(correct_biases(model, {"y": shifts["y"]}))
    np.testing.assert_array_equal(made.value("stem_bias"), toy.normal(6, seed=1))
    np.testing.assert_allclose(made.value("bias"), toy.normal(5) - shifts["y"], rtol=1e-5)
    assert correct_biases(model, {}) == OnnxGraph(model).to_bytes()


def test_layers_that_share_a_bias_get_their_own() -> None:
    """The exporter merges constants that are equal, such as biases of zeros."""
    model = toy.encoder(
        "a = Conv(pixels, first, none) b = Conv(a, second, none) "
        "features = ReduceMean <keepdims = 0> (b, space)",
        first=toy.normal(4, 3, 1, 1),
        second=toy.normal(4, 4, 1, 1, seed=1),
        none=np.zeros(4),
        space=[2, 3],
    )
    shifts = mean_shifts(model, toy.images(3))
    made = OnnxGraph(correct_biases(model, shifts))
    for name, node in zip("ab", made.weighted(), strict=True):
        np.testing.assert_allclose(made.value(node.input[2]), -shifts[name], rtol=1e-5)


def test_a_bias_that_is_weighed_is_left_alone() -> None:
    nodes = "m = ReduceMean <keepdims = 0> (r, space) features = Gemm <beta = 0.5> (m, w, bias)"
    model = net(nodes, toy.normal(6, 5), toy.normal(5))
    assert sorted(mean_shifts(model, toy.images(3))) == ["s"]


def test_a_bias_of_one_number_becomes_one_for_each_channel() -> None:
    nodes, shape = FLAT["a product and a sum"]
    model = net(nodes + ENDS["a product and a sum"], toy.normal(*shape), [0.5])
    images = toy.images(3)
    made = correct_biases(model, mean_shifts(model, images))
    assert OnnxGraph(made).value("bias").shape == (5,)
    assert embed_graph(made, images).shape == (3, 5)


def test_int8_comes_closer_to_float() -> None:
    """A deep kernel on a small map, where rounding errors of one sign add up."""
    nodes, shape = LAYERS["a kernel larger than its image"]
    weights = coarse(np.random.default_rng(0), shape, 0)
    model = net(nodes + POOL, weights, np.zeros(6))
    images = toy.images(16)
    ranges = choose_ranges(measure(model, images, lambda count: None), "minmax")
    wanted = embed_graph(model, images)

    def loss(graph: bytes) -> float:
        found = embed_graph(quantise_cpu(graph, ranges), images)
        return 1 - Agreement.between(wanted, found).mean

    assert loss(correct_biases(model, mean_shifts(model, images))) < 0.5 * loss(model)
