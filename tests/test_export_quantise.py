"""INT8 for the CPU: what is quantised, what stays in float, how close it stays."""

from __future__ import annotations

import logging
import runpy
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch", reason="export needs torch (the export extra)")
onnx = pytest.importorskip("onnx", reason="export needs onnx (the export extra)")

from s4g.core.engine import load_engine  # noqa: E402
from s4g.core.errors import InputError, S4GError  # noqa: E402
from s4g.export.graph import export_graph, with_metadata  # noqa: E402
from s4g.export.onnx_graph import OnnxGraph  # noqa: E402
from s4g.export.parity import Agreement, embed_graph  # noqa: E402
from s4g.export.prepare import prepare  # noqa: E402
from s4g.export.quantise import (  # noqa: E402
    count_quantised,
    matching_nodes,
    quantise_cpu,
    quiet,
    unweighted_ends,
)
from s4g.export.ranges import METHODS, Histograms, Ranges, choose_ranges, measure  # noqa: E402
from s4g.train.checkpoint import load_checkpoint  # noqa: E402

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_graphs.py"))))


def tiles(count: int, seed: int) -> npt.NDArray[np.uint8]:
    """Soft noise: smooth, unlike each other, within the range of imagery."""
    import cv2

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 9, 9, 3), dtype=np.uint8)
    return np.stack([cv2.resize(c, (64, 64), interpolation=cv2.INTER_CUBIC) for c in coarse])


@pytest.fixture(scope="module")
def prepared(toy_checkpoint: Path) -> bytes:
    return prepare(export_graph(*load_checkpoint(toy_checkpoint)))


@pytest.fixture(scope="module")
def histograms(prepared: bytes) -> Histograms:
    return measure(prepared, tiles(16, seed=1), lambda count: None)


@pytest.fixture(scope="module")
def ranges(histograms: Histograms) -> Ranges:
    return choose_ranges(histograms, "minmax")


@pytest.fixture(scope="module")
def int8(prepared: bytes, ranges: Ranges) -> bytes:
    return quantise_cpu(prepared, ranges)


def nodes_of(model: bytes, kind: str) -> list[Any]:
    return [n for n in OnnxGraph(model) if n.op_type == kind]


# `entropy` clips too much for a bar, and takes long: test_export_ranges.py judges it.
@pytest.mark.parametrize("method", [m for m in METHODS if m != "entropy"])
def test_int8_stays_close_to_fp32_on_images_it_has_not_seen(
    prepared: bytes, histograms: Histograms, method: str
) -> None:
    made = quantise_cpu(prepared, choose_ranges(histograms, method))
    images = tiles(32, seed=2)
    wanted = embed_graph(prepared, images)
    for literal in (True, False):
        agreement = Agreement.between(wanted, embed_graph(made, images, literal))
        assert agreement.p1 > 0.98
        assert agreement.mean < 0.9999999  # it did quantise


def test_embeddings_have_unit_length_and_are_not_rounded_to_256_steps(int8: bytes) -> None:
    found = embed_graph(int8, tiles(64, seed=2), literal=True)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert len(np.unique(found)) > found.size / 2


def test_activations_are_unsigned_weights_signed_per_channel_and_biases_whole(int8: bytes) -> None:
    graph = OnnxGraph(int8)
    for node in nodes_of(int8, "QuantizeLinear"):
        assert graph.value(node.input[2]).dtype == np.uint8
    layers = [*nodes_of(int8, "Conv"), *nodes_of(int8, "Gemm")]
    assert len(layers) == 17
    for layer in layers:
        weight, bias = (graph.producers[name] for name in layer.input[1:])
        assert weight.op_type == bias.op_type == "DequantizeLinear"
        held = graph.value(weight.input[0])
        assert held.dtype == np.int8
        assert graph.value(weight.input[1]).shape == (held.shape[0],)
        assert not graph.value(weight.input[2]).any()
        assert graph.value(bias.input[0]).dtype == np.int32


def test_normalisation_and_l2_norm_stay_in_float(int8: bytes) -> None:
    graph = OnnxGraph(int8)
    (norm,) = nodes_of(int8, "ReduceL2")
    assert graph.producers[norm.input[0]].op_type == "Gemm"
    first = nodes_of(int8, "Conv")[0]
    dequantise = graph.producers[first.input[0]]
    quantise = graph.producers[dequantise.input[0]]
    assert (dequantise.op_type, quantise.op_type) == ("DequantizeLinear", "QuantizeLinear")
    assert graph.producers[quantise.input[0]].op_type == "Transpose"  # of normalised pixels


def test_nodes_before_the_first_and_behind_the_last_weights_are_ends(prepared: bytes) -> None:
    graph = OnnxGraph(prepared)
    kinds = {n.name: n.op_type for n in graph}
    ends = [kinds[name] for name in unweighted_ends(graph)]
    assert ends[:6] == ["Cast", "Reshape", "Mul", "Add", "Reshape", "Transpose"]
    assert set(ends[6:]) == {"Shape", "ReduceL2", "Clip", "Expand", "Div"}


def test_every_convolution_and_the_projection_are_quantised(prepared: bytes, int8: bytes) -> None:
    counts = count_quantised(int8)
    assert counts["Conv"] == len(nodes_of(prepared, "Conv")) == 16
    assert counts["Gemm"] == 1
    assert counts["Add"] == 4  # of the residual blocks


def test_nothing_of_a_float_graph_counts_as_quantised(prepared: bytes) -> None:
    assert count_quantised(prepared) == {}


def test_the_file_is_a_third_of_the_float_file_or_less(prepared: bytes, int8: bytes) -> None:
    assert len(int8) < len(prepared) / 3


def test_the_file_is_valid_and_holds_no_constant_that_no_node_reads(int8: bytes) -> None:
    graph = OnnxGraph(int8)
    onnx.checker.check_model(graph.model)
    assert set(graph.constants) <= set(graph.consumers)


def float_layers(model: bytes) -> set[str]:
    """Return the layers whose weights are still float constants."""
    return {node.name for node in OnnxGraph(model).weighted()}


def test_nodes_kept_in_float_are_untouched(prepared: bytes, ranges: Ranges, int8: bytes) -> None:
    kept = [n.name for n in OnnxGraph(prepared).weighted()][3:6]
    made = quantise_cpu(prepared, ranges, keep_float=kept)
    assert float_layers(int8) == set()
    assert float_layers(made) == set(kept)
    before, after = OnnxGraph(prepared), OnnxGraph(made)
    for name in kept:
        (first,), (second,) = ([n for n in g if n.name == name] for g in (before, after))
        for position in (1, 2):
            np.testing.assert_array_equal(
                before.value(first.input[position]), after.value(second.input[position])
            )


def test_layers_kept_in_float_are_served_in_float(
    prepared: bytes, ranges: Ranges, toy_checkpoint: Path, tmp_path: Path
) -> None:
    """One of ONNX Runtime's optimisers would round their weights after all."""
    import onnxruntime as ort

    kept = [n.name for n in OnnxGraph(prepared).weighted()][2:-2]
    made = quantise_cpu(prepared, ranges, keep_float=kept)
    made = with_metadata(made, load_checkpoint(toy_checkpoint)[1], {})
    (tmp_path / "int8.onnx").write_bytes(made)
    images = tiles(8, seed=3)
    literal = embed_graph(made, images, literal=True)
    served = load_engine(tmp_path / "int8.onnx", "cpu", 1).embed(images)
    (usual,) = ort.InferenceSession(made, providers=["CPUExecutionProvider"]).run(
        None, {"images": images}
    )
    # Over all images: on another processor a rounding may fall the other way in one of them.
    assert np.linalg.norm(served - literal) < 0.3 * np.linalg.norm(usual - literal)


def test_only_the_named_node_is_quantised(prepared: bytes, ranges: Ranges) -> None:
    layers = OnnxGraph(prepared).weighted()
    for layer, rounded in (
        (layers[0], [layers[0].input[0], layers[0].output[0]]),
        (layers[5], [layers[5].input[0], layers[5].output[0]]),
        (layers[-1], [layers[-1].input[0]]),
    ):
        made = quantise_cpu(prepared, ranges, only=[layer.name])
        assert float_layers(made) == {n.name for n in layers} - {layer.name}
        assert [n.input[0] for n in nodes_of(made, "QuantizeLinear")] == rounded


def test_an_encoder_that_ends_in_a_product_and_a_sum_returns_float() -> None:
    """The sum behind the last weights is an end as well."""
    model = toy.encoder(
        "a = Conv(pixels, w, b) r = Relu(a) m = ReduceMean <keepdims = 0> (r, space) "
        "p = MatMul(m, table) features = Add(p, shift)",
        w=toy.normal(4, 3, 3, 3),
        b=toy.normal(4),
        table=toy.normal(4, 32),
        shift=toy.normal(32, seed=1),
        space=[2, 3],
    )
    images = toy.images(9)
    ranges = choose_ranges(measure(model, images, lambda count: None), "minmax")
    made = quantise_cpu(model, ranges)
    graph = OnnxGraph(made)
    (norm,) = nodes_of(made, "ReduceL2")
    assert graph.producers[norm.input[0]].name == "features"
    assert graph.producers[graph.producers["features"].input[0]].name == "p"
    assert count_quantised(made)["MatMul"] == 1
    assert Agreement.between(embed_graph(model, images), embed_graph(made, images)).min > 0.999


def test_an_activation_of_zeros_is_quantised_without_harm() -> None:
    model = toy.encoder(
        "a = Conv(pixels, w, below) r = Relu(a) c = Conv(r, v, bias) "
        "features = ReduceMean <keepdims = 0> (c, space)",
        w=0.01 * toy.normal(4, 3, 1, 1),
        below=np.full(4, -5.0),
        v=toy.normal(8, 4, 1, 1),
        bias=toy.normal(8),
        space=[2, 3],
    )
    images = toy.images(5)
    ranges = choose_ranges(measure(model, images, lambda count: None), "minmax")
    assert ranges["r"] == (0.0, 0.0)
    found = embed_graph(quantise_cpu(model, ranges), images)
    assert Agreement.between(embed_graph(model, images), found).min > 0.999


def test_the_same_ranges_give_the_same_bytes(prepared: bytes, ranges: Ranges) -> None:
    assert quantise_cpu(prepared, ranges) == quantise_cpu(prepared, ranges)


def test_a_layer_without_a_range_is_named(prepared: bytes, ranges: Ranges) -> None:
    layer = OnnxGraph(prepared).weighted()[4]
    known: Mapping[str, tuple[float, float]] = {
        name: ends for name, ends in ranges.items() if name != layer.output[0]
    }
    with pytest.raises(S4GError) as failure:
        quantise_cpu(prepared, known)
    message = str(failure.value)
    assert message.startswith("cannot be quantised (")
    assert layer.output[0] in message
    assert message.endswith("); keep the layer it names in float (--keep-float)")
    assert "\n" not in message


def test_nothing_is_printed_and_logging_is_left_as_it_was(
    prepared: bytes, ranges: Ranges, capfd: pytest.CaptureFixture[str]
) -> None:
    quantise_cpu(prepared, ranges)
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET


def test_logging_is_left_as_it_was_after_a_failure_and_when_someone_disabled_it() -> None:
    with pytest.raises(ValueError), quiet():
        raise ValueError
    assert logging.root.manager.disable == logging.NOTSET
    logging.disable(logging.ERROR)
    try:
        with quiet():
            pass
        assert logging.root.manager.disable == logging.ERROR
    finally:
        logging.disable(logging.NOTSET)


def test_a_regular_expression_finds_nodes_by_name(prepared: bytes) -> None:
    assert matching_nodes(prepared, "") == ()
    assert matching_nodes(prepared, "/project/") == ("/encoder/project/Gemm",)
    assert len(matching_nodes(prepared, r"conv1/.*/Conv$")) == 3


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
def test_a_useless_keep_float_is_refused(prepared: bytes, expression: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        matching_nodes(prepared, expression)
    assert str(error.value) == message
