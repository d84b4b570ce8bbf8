"""INT8 for the CPU: what is quantised, what stays in float, how close it stays."""

import logging
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="export needs torch (the export extra)")
onnx = pytest.importorskip("onnx", reason="export needs onnx (the export extra)")

from s4g.core.errors import InputError  # noqa: E402
from s4g.export.graph import export_graph  # noqa: E402
from s4g.export.parity import Agreement, embed_literal  # noqa: E402
from s4g.export.quantise import METHODS, quantise_cpu  # noqa: E402
from s4g.train.checkpoint import load_checkpoint  # noqa: E402


def tiles(count: int, seed: int) -> np.ndarray:
    """Soft noise: smooth, unlike each other, within the range of imagery."""
    import cv2

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 9, 9, 3), dtype=np.uint8)
    return np.stack([cv2.resize(c, (64, 64), interpolation=cv2.INTER_CUBIC) for c in coarse])


@pytest.fixture(scope="module")
def fp32(toy_checkpoint: Path) -> bytes:
    return export_graph(*load_checkpoint(toy_checkpoint))


@pytest.fixture(scope="module")
def int8(fp32: bytes) -> bytes:
    return quantise_cpu(fp32, tiles(32, seed=1)).model


def nodes_of(model: bytes, kind: str) -> list:
    return [n for n in onnx.load_from_string(model).graph.node if n.op_type == kind]


def constant(model: bytes, name: str) -> np.ndarray:
    (found,) = [i for i in onnx.load_from_string(model).graph.initializer if i.name == name]
    return onnx.numpy_helper.to_array(found)


@pytest.mark.parametrize("method", METHODS)
def test_int8_stays_close_to_fp32_on_images_it_has_not_seen(fp32, method, capfd):
    made = quantise_cpu(fp32, tiles(32, seed=1), method)
    images = tiles(32, seed=2)
    agreement = Agreement.between(embed_literal(fp32, images), embed_literal(made.model, images))
    assert agreement.p1 > 0.98
    assert agreement.mean < 0.9999999  # it did quantise
    assert capfd.readouterr().out == ""  # the calibrator's prints are no results of ours


def test_embeddings_have_unit_length_and_are_not_rounded_to_256_steps(int8):
    found = embed_literal(int8, tiles(64, seed=2))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    steps = len(np.unique(found))
    assert steps > found.size / 2


def test_activations_are_unsigned_and_weights_signed_per_channel(int8):
    for node in nodes_of(int8, "QuantizeLinear"):
        assert constant(int8, node.input[2]).dtype == np.uint8
    made_by = {o: n for n in onnx.load_from_string(int8).graph.node for o in n.output}
    for conv in nodes_of(int8, "Conv"):
        weight = made_by[conv.input[1]]
        assert weight.op_type == "DequantizeLinear"
        assert constant(int8, weight.input[0]).dtype == np.int8
        channels = constant(int8, weight.input[0]).shape[0]
        assert constant(int8, weight.input[1]).shape == (channels,)


def test_normalisation_and_l2_norm_stay_in_float(int8):
    graph = onnx.load_from_string(int8).graph
    made_by = {o: n for n in graph.node for o in n.output}
    (norm,) = nodes_of(int8, "ReduceL2")
    assert made_by[norm.input[0]].op_type == "Gemm"
    (transpose,) = nodes_of(int8, "Transpose")
    assert made_by[transpose.input[0]].op_type == "Div"


def test_every_convolution_and_the_projection_are_quantised(fp32):
    made = quantise_cpu(fp32, tiles(16, seed=1))
    assert made.quantised["Conv"] == len(nodes_of(made.model, "Conv"))
    assert made.quantised["Gemm"] == 1
    assert made.kept_float == ()


def test_the_file_is_a_third_of_the_float_file_or_less(fp32, int8):
    assert len(int8) < len(fp32) / 3


def test_nodes_named_by_keep_float_stay_in_float(fp32):
    made = quantise_cpu(fp32, tiles(16, seed=1), keep_float="/project/")
    assert made.kept_float == ("/encoder/project/Gemm",)
    assert "Gemm" not in made.quantised


def test_the_same_tiles_give_the_same_bytes(fp32, int8):
    assert quantise_cpu(fp32, tiles(32, seed=1)).model == int8


def test_a_number_of_tiles_without_small_divisors_serves(fp32):
    assert quantise_cpu(fp32, tiles(17, seed=1)).quantised["Gemm"] == 1


def test_logging_is_left_as_it_was(fp32):
    quantise_cpu(fp32, tiles(1, seed=1))
    assert logging.getLogger().isEnabledFor(logging.ERROR)
    assert logging.root.manager.disable == logging.NOTSET


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (
            "(",
            "--keep-float (: not a regular expression (missing ), unterminated subpattern at "
            "position 0)",
        ),
        (
            "nothing",
            "--keep-float nothing: matches no node; the first and last weighted nodes are "
            "/encoder/backbone/conv1/conv1.0/Conv and /encoder/project/Gemm",
        ),
        (".", "--keep-float .: matches every layer; leave out --int8"),
    ],
)
def test_a_useless_keep_float_is_refused(fp32, expression, message):
    with pytest.raises(InputError) as error:
        quantise_cpu(fp32, tiles(1, seed=1), keep_float=expression)
    assert str(error.value) == message
