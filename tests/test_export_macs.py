"""Multiply-adds counted by hand, and by torch."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="export needs torch (the export extra)")
onnx = pytest.importorskip("onnx", reason="export needs onnx (the export extra)")

from s4g.core.spec import EncoderSpec  # noqa: E402
from s4g.export.graph import export_graph  # noqa: E402
from s4g.export.half import to_half  # noqa: E402
from s4g.export.macs import count_macs, weight_bytes  # noqa: E402
from s4g.export.onnx_graph import OnnxGraph  # noqa: E402
from s4g.export.prepare import prepare  # noqa: E402
from s4g.export.quantise import quantise_cpu  # noqa: E402
from s4g.export.ranges import choose_ranges, measure  # noqa: E402
from s4g.train.model import Encoder, ModelConfig  # noqa: E402

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_graphs.py"))))

POOL = " features = ReduceMean <keepdims = 0> (y, space)"
SPACE = {"space": [2, 3]}
# Of images of 8 x 8 pixels.
BY_HAND: dict[str, tuple[str, dict[str, Any], int]] = {
    "a convolution": (
        "y = Conv(pixels, w)" + POOL,
        {"w": toy.normal(5, 3, 3, 3), **SPACE},
        6 * 6 * 5 * 3 * 9,
    ),
    "a convolution with stride, padding and bias": (
        "y = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (pixels, w, b)" + POOL,
        {"w": toy.normal(5, 3, 3, 3), "b": toy.normal(5), **SPACE},
        4 * 4 * 5 * 3 * 9,
    ),
    "a depthwise convolution": (
        "y = Conv <group = 3> (pixels, w)" + POOL,
        {"w": toy.normal(3, 1, 5, 5), **SPACE},
        4 * 4 * 3 * 25,
    ),
    "a grouped convolution behind a wide one": (
        "a = Conv(pixels, w) y = Conv <group = 2> (a, v)" + POOL,
        {"w": toy.normal(8, 3, 1, 1), "v": toy.normal(6, 4, 1, 1), **SPACE},
        64 * 8 * 3 + 64 * 6 * 4,
    ),
    "a transposed convolution": (
        "a = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (pixels) "
        "y = ConvTranspose <strides = [2, 2]> (a, w)" + POOL,
        {"w": toy.normal(3, 7, 2, 2), **SPACE},
        4 * 4 * 3 * 7 * 4,
    ),
    "projections": (
        "flat = Flatten(pixels) a = Gemm(flat, w) features = Gemm <transB = 1> (a, v, b)",
        {"w": toy.normal(192, 10), "v": toy.normal(4, 10), "b": toy.normal(4)},
        192 * 10 + 10 * 4,
    ),
    "a product at every position": (
        "t = Transpose <perm = [0, 2, 3, 1]> (pixels) m = MatMul(t, w) "
        "features = ReduceMean <keepdims = 0> (m, middle_axes)",
        {"w": toy.normal(3, 9), "middle_axes": [1, 2]},
        64 * 3 * 9,
    ),
    "a product of two activations": (
        "rows = Reshape(pixels, three) turned = Transpose <perm = [0, 2, 1]> (rows) "
        "m = MatMul(turned, rows) features = ReduceMean <keepdims = 0> (m, one)",
        {"three": [0, 3, -1], "one": [1]},
        64 * 64 * 3,
    ),
    # Windows are moved into the batch: no shape inference knows how many there are.
    "products in windows": (
        "split = Reshape(pixels, six) moved = Transpose <perm = [0, 2, 4, 1, 3, 5]> (split) "
        "windows = Reshape(moved, three) m = MatMul(windows, w) back = Reshape(m, four) "
        "features = ReduceMean <keepdims = 0> (back, ends)",
        {
            "six": [-1, 3, 2, 4, 2, 4],
            "three": [-1, 3, 16],
            "four": [-1, 4, 3, 5],
            "w": toy.normal(16, 5),
            "ends": [1, 2],
        },
        4 * 3 * 16 * 5,
    ),
    "nothing that multiplies": ("y = Relu(pixels)" + POOL, SPACE, 0),
}


@pytest.mark.parametrize("kind", BY_HAND)
def test_multiply_adds_are_those_counted_by_hand(kind: str) -> None:
    nodes, constants, wanted = BY_HAND[kind]
    assert count_macs(toy.encoder(nodes, **constants)) == wanted


@pytest.mark.parametrize(
    ("backbone", "head"),
    [("test_resnet", "layout"), ("test_convnext", "layout"), ("test_vit", "pool")],
)
def test_multiply_adds_are_those_that_torch_counts(backbone: str, head: str) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    px = 160 if head == "pool" else 64
    torch.manual_seed(0)
    encoder = Encoder(ModelConfig(backbone, px, 0 if head == "pool" else 16, head)).eval()
    dim = 16 if head == "layout" else encoder.backbone.num_features
    spec = EncoderSpec(
        "0" * 64, backbone, px, (0.5,) * 3, (0.25,) * 3, dim, (dim,), 0.3, 3.0, True, 0.1
    )
    # Attention in single products, which the counter knows.
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH), torch.inference_mode():
        encoder(torch.zeros(1, 3, px, px))
    assert count_macs(prepare(export_graph(encoder, spec))) == counter.get_total_flops() // 2


def test_resnet18_has_the_multiply_adds_that_its_paper_names() -> None:
    """1.8 x 10^9 at 224 pixels (He et al., CVPR 2016, table 1), 512 x 512 of them in our head."""
    torch.manual_seed(0)
    encoder = Encoder(ModelConfig("resnet18", 224, 0, "pool")).eval()
    spec = EncoderSpec(
        "0" * 64, "resnet18", 224, (0.5,) * 3, (0.25,) * 3, 512, (512,), 0.3, 3.0, True, 0.1
    )
    # 1,814,073,344 with the classifier of 512 x 1000.
    assert count_macs(prepare(export_graph(encoder, spec))) == 1_814_073_344 - 512 * 1000


def test_weight_bytes_are_those_of_all_constants() -> None:
    nodes, constants, _ = BY_HAND["a convolution with stride, padding and bias"]
    model = toy.encoder(nodes, **constants)
    # Weights and bias; two float32 of the pixels' scale; axes of the norm and of the pool, int64.
    assert weight_bytes(model) == 4 * (5 * 3 * 9 + 5) + 4 * 2 + 8 * 3


def test_weight_bytes_do_not_hang_on_how_a_file_stores_its_numbers() -> None:
    """ONNX Runtime's quantiser writes scales and zero points as lists, not as raw bytes."""
    nodes, constants, _ = BY_HAND["a grouped convolution behind a wide one"]
    model = toy.encoder(nodes, **constants)
    ranges = choose_ranges(measure(model, toy.images(2), lambda count: None), "minmax")
    for made in (quantise_cpu(model, ranges), to_half(model)):
        graph = OnnxGraph(made)
        assert weight_bytes(made) == sum(graph.value(name).nbytes for name in graph.constants)
    proto = onnx.load_from_string(model)
    (weights,) = [c for c in proto.graph.initializer if c.name == "w"]
    values = onnx.numpy_helper.to_array(weights)
    weights.CopyFrom(onnx.helper.make_tensor("w", 1, values.shape, np.ravel(values)))
    assert not weights.raw_data
    assert weight_bytes(proto.SerializeToString()) == weight_bytes(model)
