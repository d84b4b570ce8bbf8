"""Equalised channels: the same function, ranges more alike, and nothing else touched."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="export needs torch (the export extra)")
onnx = pytest.importorskip("onnx", reason="export needs onnx (the export extra)")

from s4g.export.activations import peaks_by_channel  # noqa: E402
from s4g.export.equalise import equalise, find_pairs  # noqa: E402
from s4g.export.onnx_graph import OnnxGraph  # noqa: E402
from s4g.export.parity import Agreement, embed_graph  # noqa: E402
from s4g.export.quantise import quantise_cpu  # noqa: E402
from s4g.export.ranges import choose_ranges, measure  # noqa: E402

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_graphs.py"))))

CHANNELS = 6
WIDE = np.geomspace(0.02, 20, CHANNELS)  # within a factor of 1000
CONSTANTS = {
    "w": toy.normal(CHANNELS, 3, 3, 3) * WIDE[:, None, None, None],
    "b": toy.normal(CHANNELS, seed=1) * WIDE,
    "each": toy.normal(CHANNELS, 1, 3, 3, seed=2),
    "pairs": toy.normal(CHANNELS, 2, 1, 1, seed=3),
    "mix": toy.normal(8, CHANNELS, 1, 1, seed=4),
    "b8": toy.normal(8, seed=5),
    "table": toy.normal(CHANNELS, 8, seed=6),
    "turned": toy.normal(8, CHANNELS, seed=7),
    "scale": WIDE,
    "shift": toy.normal(CHANNELS, seed=8) * WIDE,
    "space": [2, 3],
    "middle_axes": [1, 2],
    "zero": 0.0,
    "six": 6.0,
}
POOL = "features = ReduceMean <keepdims = 0> (last, space)"
LAST = "features = ReduceMean <keepdims = 0> (last, middle_axes)"


def net(nodes: str, **constants: Any) -> bytes:
    """Build an encoder with those of CONSTANTS that it reads."""
    known = CONSTANTS | constants
    words = set(nodes.replace(",", " ").replace("(", " ").replace(")", " ").split())
    used = {name: value for name, value in known.items() if name in words}
    model: bytes = toy.encoder(nodes, **used)
    return model


def names(model: bytes) -> list[tuple[str, str]]:
    return [(pair.first.name, pair.second.name) for pair in find_pairs(OnnxGraph(model))]


PAIRED = {
    "convolutions with a ReLU between": (
        f"a = Conv(pixels, w, b) r = Relu(a) last = Conv(r, mix, b8) {POOL}",
        [("a", "last")],
    ),
    "no bias and no activation": (
        f"a = Conv(pixels, w) last = Conv(a, mix) {POOL}",
        [("a", "last")],
    ),
    "a leaky ReLU and an identity": (
        "a = Conv(pixels, w, b) i = Identity(a) r = LeakyRelu <alpha = 0.1> (i) "
        f"last = Conv(r, mix) {POOL}",
        [("a", "last")],
    ),
    "a depthwise layer, equalised on both sides": (
        f"a = Conv(pixels, w, b) r = Relu(a) d = Conv <group = {CHANNELS}, pads = [1, 1, 1, 1]> "
        f"(r, each, b) s = Relu(d) last = Conv(s, mix, b8) {POOL}",
        [("a", "d"), ("d", "last")],
    ),
    "a grouped layer before, whose outputs are its own": (
        "a = Conv(pixels, w, b) c = Clip(a, zero, six) g = Conv <group = 3> (c, pairs, b) "
        f"last = Conv(g, mix) {POOL}",
        [("g", "last")],
    ),
    "layer norm, channels last, before a matrix product": (
        "a = Conv(pixels, w, b) t = Transpose <perm = [0, 2, 3, 1]> (a) "
        f"n = LayerNormalization <axis = -1> (t, scale, shift) last = MatMul(n, table) {LAST}",
        [("n", "last")],
    ),
    "layer norm turned before a 1x1 convolution": (
        "a = Conv(pixels, w, b) t = Transpose <perm = [0, 2, 3, 1]> (a) "
        "n = LayerNormalization <axis = -1> (t, scale, shift) "
        f"u = Transpose <perm = [0, 3, 1, 2]> (n) last = Conv(u, mix, b8) {POOL}",
        [("n", "last")],
    ),
    "layer norm without a bias, before a projection": (
        "a = Conv(pixels, w, b) m = ReduceMean <keepdims = 0> (a, space) "
        "n = LayerNormalization <axis = -1> (m, scale) features = Gemm(n, table, b8)",
        [("n", "features")],
    ),
    "a projection whose weights are turned": (
        "a = Conv(pixels, w, b) m = ReduceMean <keepdims = 0> (a, space) "
        "n = LayerNormalization <axis = -1> (m, scale, shift) "
        "features = Gemm <transB = 1> (n, turned, b8)",
        [("n", "features")],
    ),
    "a convolution whose output a matrix product reads turned": (
        "a = Conv(pixels, w, b) r = Relu(a) t = Transpose <perm = [0, 2, 3, 1]> (r) "
        f"last = MatMul(t, table) {LAST}",
        [("a", "last")],
    ),
}


@pytest.mark.parametrize("kind", PAIRED)
def test_the_graph_computes_the_same(kind: str) -> None:
    nodes, pairs = PAIRED[kind]
    model = net(nodes)
    assert names(model) == pairs
    images = toy.images(9)
    made, count = equalise(model, images)
    assert count == len(pairs)
    np.testing.assert_allclose(embed_graph(made, images), embed_graph(model, images), atol=1e-5)
    # On images it has not seen as well, and what it rescaled did change.
    others = toy.images(5, seed=1)
    np.testing.assert_allclose(embed_graph(made, others), embed_graph(model, others), atol=1e-5)
    first, second = OnnxGraph(model), OnnxGraph(made)
    changed = [name for name in second.constants if not same(first, second, name)]
    assert len(changed) >= 2 * count


def same(first: OnnxGraph, second: OnnxGraph, name: str) -> bool:
    return name in first.constants and np.array_equal(first.value(name), second.value(name))


UNPAIRED = {
    "a grouped layer, whose inputs are not its own": (
        f"a = Conv(pixels, w, b) r = Relu(a) last = Conv <group = 3> (r, pairs, b) {POOL}"
    ),
    "a tensor with two consumers": (
        f"a = Conv(pixels, w, b) r = Relu(a) c = Conv(r, square, b) last = Add(r, c) {POOL}"
    ),
    "an activation that feels the scale": (
        f"a = Conv(pixels, w, b) r = HardSwish(a) last = Conv(r, mix, b8) {POOL}"
    ),
    "a clipped activation": (
        f"a = Conv(pixels, w, b) r = Clip(a, zero, six) last = Conv(r, mix, b8) {POOL}"
    ),
    "layer norm over another axis than the channels": (
        "a = Conv <kernel_shape = [3, 3]> (pixels, w, b) "
        "n = LayerNormalization <axis = -1> (a, row, row) "
        f"last = Conv(n, mix, b8) {POOL}"
    ),
    "a layer norm over several axes": (
        "a = Conv(pixels, w, b) t = Transpose <perm = [0, 2, 3, 1]> (a) "
        f"n = LayerNormalization <axis = -2> (t, plane, plane) last = MatMul(n, table) {LAST}"
    ),
    "a bias that is computed": (
        "m = ReduceMean <keepdims = 0> (pixels, all_axes) computed = Mul(b, m) "
        f"a = Conv(pixels, w, computed) last = Conv(a, mix, b8) {POOL}"
    ),
    "nothing but pixels before the layer": f"last = Conv(pixels, w, b) {POOL}",
}
RARE = {
    "square": toy.normal(CHANNELS, CHANNELS, 1, 1, seed=9),
    "row": np.ones(6),
    "plane": np.ones((6, CHANNELS)),
    "all_axes": [0, 1, 2, 3],
}


@pytest.mark.parametrize("kind", UNPAIRED)
def test_what_would_change_is_left_alone(kind: str) -> None:
    model = net(UNPAIRED[kind], **RARE)
    assert names(model) == []
    assert equalise(model, toy.images(3)) == (model, 0)


def test_a_tensor_that_is_an_output_is_left_alone() -> None:
    proto = onnx.load_from_string(net(PAIRED["convolutions with a ReLU between"][0]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("r", 1, None))
    assert names(proto.SerializeToString()) == []


def test_layers_that_share_constants_get_their_own() -> None:
    """The exporter merges constants that are equal, such as biases of zeros."""
    model = net(
        "a = Conv(pixels, w, none) r = Relu(a) c = Conv(r, square, none) s = Relu(c) "
        f"d = Conv(s, square, none) t = Relu(d) last = Conv(t, square, none) {POOL}",
        square=toy.normal(CHANNELS, CHANNELS, 1, 1, seed=9),
        none=np.full(CHANNELS, 0.5),
    )
    images = toy.images(9)
    made, count = equalise(model, images)
    assert count == 3
    np.testing.assert_allclose(embed_graph(made, images), embed_graph(model, images), atol=1e-5)
    weights = {n.input[1] for n in OnnxGraph(made).weighted()}
    assert len(weights) == 4


def test_a_dead_channel_does_no_harm() -> None:
    w = CONSTANTS["w"].copy()
    w[2] = 0
    mix = CONSTANTS["mix"].copy()
    mix[:, 4] = 0
    model = net(f"a = Conv(pixels, w) r = Relu(a) last = Conv(r, mix, b8) {POOL}", w=w, mix=mix)
    images = toy.images(5)
    made, _ = equalise(model, images)
    found = embed_graph(made, images)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, embed_graph(model, images), atol=1e-5)


@settings(max_examples=15)
@given(exponents=st.lists(st.floats(-3, 3), min_size=CHANNELS, max_size=CHANNELS))
def test_any_imbalance_leaves_the_function_and_no_channel_is_scaled_beyond_the_bound(
    exponents: list[float],
) -> None:
    factors = np.power(10.0, exponents).astype(np.float32)
    w = toy.normal(CHANNELS, 3, 3, 3) * factors[:, None, None, None]
    mix = toy.normal(8, CHANNELS, 1, 1, seed=4) / factors[:, None, None]
    model = net(f"a = Conv(pixels, w) r = Relu(a) last = Conv(r, mix) {POOL}", w=w, mix=mix)
    images = toy.images(4)
    made, _ = equalise(model, images)
    np.testing.assert_allclose(embed_graph(made, images), embed_graph(model, images), atol=1e-5)
    scaled = OnnxGraph(made).value("w") / w
    assert scaled.max() <= 16 * 1.001
    assert scaled.min() >= 1 / 16 * 0.999


def unbalanced(factor: float = 1.0) -> bytes:
    """Channels of very unlike ranges, which the next layer makes up for."""
    w, mix = toy.normal(CHANNELS, 3, 3, 3), toy.normal(8, CHANNELS, 1, 1, seed=4)
    return net(
        f"a = Conv(pixels, w, b) r = Relu(a) last = Conv(r, mix, b8) {POOL}",
        w=factor * w * WIDE[:, None, None, None],
        b=factor * 0.2 * WIDE,
        mix=mix / WIDE[:, None, None],
    )


def spread(model: bytes) -> float:
    (peaks,) = peaks_by_channel(model, {"r": 1}, toy.images(16)).values()
    return float(peaks.max() / peaks.min())


@pytest.mark.parametrize("factor", [1.0, 1e4, 1e-4])
def test_ranges_of_channels_become_more_alike_however_large_they_are(factor: float) -> None:
    model = unbalanced(factor)
    made, _ = equalise(model, toy.images(16))
    assert spread(model) > 300
    assert spread(made) < 5


def test_int8_comes_closer_to_float() -> None:
    images = toy.images(16)
    wanted = embed_graph(unbalanced(), images)

    def cosine(model: bytes) -> float:
        ranges = choose_ranges(measure(model, images, lambda count: None), "minmax")
        return Agreement.between(wanted, embed_graph(quantise_cpu(model, ranges), images)).mean

    made, _ = equalise(unbalanced(), images)
    assert 1 - cosine(made) < 0.1 * (1 - cosine(unbalanced()))


def test_the_same_images_give_the_same_bytes() -> None:
    assert equalise(unbalanced(), toy.images(4)) == equalise(unbalanced(), toy.images(4))
