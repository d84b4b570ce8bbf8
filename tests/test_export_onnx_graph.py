"""A graph's edges and constants, and edits that leave the rest of it alone."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="export needs onnx (the export extra)")

from s4g.export.onnx_graph import OnnxGraph, attribute  # noqa: E402

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_graphs.py"))))

FORK = """
    a = Conv <kernel_shape = [3, 3]> (pixels, w, bias)
    b = Conv <kernel_shape = [3, 3]> (pixels, w, bias)
    sum = Add(a, b)
    square = Mul(sum, sum)
    features = ReduceMean <keepdims = 0> (square, space)
"""


@pytest.fixture
def graph() -> OnnxGraph:
    model = toy.encoder(FORK, w=toy.normal(4, 3, 3, 3), bias=np.zeros(4), space=[2, 3])
    return OnnxGraph(model)


def node(graph: OnnxGraph, name: str) -> Any:
    (found,) = [n for n in graph if n.name == name]
    return found


def test_producers_and_consumers_are_found(graph: OnnxGraph) -> None:
    assert graph.producers["sum"].name == "sum"
    assert "pixels" in graph.producers
    assert "images" not in graph.producers
    assert [n.name for n in graph.consumers["pixels"]] == ["a", "b"]
    assert [n.name for n in graph.consumers["sum"]] == ["square"]  # once, though it reads twice


def test_nodes_with_constant_weights_are_found_in_order(graph: OnnxGraph) -> None:
    assert [n.name for n in graph.weighted()] == ["a", "b"]


def test_a_product_of_two_activations_has_no_weights() -> None:
    model = toy.encoder("""
        turned = Transpose <perm = [0, 1, 3, 2]> (pixels)
        product = MatMul(pixels, turned)
        features = Flatten(product)
    """)
    assert OnnxGraph(model).weighted() == []


def test_the_sole_consumer_of_a_tensor_with_several_or_of_an_output_is_none(
    graph: OnnxGraph,
) -> None:
    assert graph.sole_consumer("a") == node(graph, "sum")
    assert graph.sole_consumer("pixels") is None
    assert graph.sole_consumer("embeddings") is None
    output = onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, None)
    graph.graph.output.append(output)
    graph.index()
    assert graph.sole_consumer("a") is None


def test_a_value_is_a_copy_and_is_replaced_only_when_set(graph: OnnxGraph) -> None:
    value = graph.value("bias")
    value[:] = 7
    np.testing.assert_array_equal(graph.value("bias"), np.zeros(4))
    graph.set_value("bias", value)
    np.testing.assert_array_equal(OnnxGraph(graph.to_bytes()).value("bias"), np.full(4, 7))


def test_a_constant_gets_a_name_that_no_tensor_has(graph: OnnxGraph) -> None:
    names = [graph.add_constant(wanted, np.ones(2)) for wanted in ("new", "new", "sum", "images")]
    assert names == ["new", "new_2", "sum_2", "images_2"]


def test_a_shared_constant_is_copied_for_the_node_that_wants_its_own(graph: OnnxGraph) -> None:
    a, b = node(graph, "a"), node(graph, "b")
    name = graph.own_constant(a, 2)
    graph.set_value(name, np.full(4, 3, np.float32))
    assert (a.input[2], b.input[2]) == (name, "bias")
    assert name != "bias"
    np.testing.assert_array_equal(graph.value("bias"), np.zeros(4))
    assert graph.own_constant(a, 2) == name  # its own already
    assert graph.own_constant(b, 2) == "bias"


def test_a_constant_that_one_node_reads_twice_is_copied() -> None:
    model = toy.encoder(
        """
        last = Transpose <perm = [0, 2, 3, 1]> (pixels)
        normed = LayerNormalization(last, both, both)
        features = Flatten(normed)
        """,
        both=np.ones(3),
    )
    graph = OnnxGraph(model)
    normed = node(graph, "normed")
    graph.set_value(graph.own_constant(normed, 1), np.full(3, 2, np.float32))
    np.testing.assert_array_equal(graph.value(normed.input[1]), np.full(3, 2))
    np.testing.assert_array_equal(graph.value(normed.input[2]), np.ones(3))


def test_a_node_is_put_behind_the_one_that_makes_its_input(graph: OnnxGraph) -> None:
    graph.insert_after("a", onnx.helper.make_node("Relu", ["a"], ["a_relu"], name="new"))
    names = [n.name for n in graph]
    assert names[names.index("a") + 1] == "new"
    assert [n.name for n in graph.consumers["a"]] == ["new", "sum"]
    onnx.checker.check_model(graph.model)


def test_a_node_of_a_tensor_that_no_node_makes_is_put_first(graph: OnnxGraph) -> None:
    new = onnx.helper.make_node("Identity", ["w"], ["w_again"], name="new")
    graph.insert_after("w", new)
    assert next(iter(graph)).name == "new"


def test_known_shapes_are_told_and_a_free_length_is_0() -> None:
    model = toy.encoder(FORK, w=toy.normal(4, 3, 3, 3), bias=np.zeros(4), space=[2, 3])
    graph = OnnxGraph(onnx.shape_inference.infer_shapes(onnx.load_from_string(model)))
    shapes = graph.shapes()
    assert shapes["images"] == [0, 8, 8, 3]
    assert shapes["a"] == [0, 4, 6, 6]
    assert shapes["w"] == [4, 3, 3, 3]


def test_a_tensor_of_unknown_shape_is_left_out(graph: OnnxGraph) -> None:
    value = onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, None)
    graph.graph.value_info.append(value)
    assert "a" not in graph.shapes()


def test_constants_that_no_node_reads_are_dropped(graph: OnnxGraph) -> None:
    graph.add_constant("unread", np.ones(3))
    graph.drop_unused_constants()
    assert sorted(graph.constants) == ["bias", "last_axis", "middle", "space", "unit", "w"]
    onnx.checker.check_model(graph.model)


def test_the_same_graph_gives_the_same_bytes(graph: OnnxGraph) -> None:
    assert OnnxGraph(graph.to_bytes()).to_bytes() == graph.to_bytes()


def test_an_attribute_is_a_python_value_or_its_default(graph: OnnxGraph) -> None:
    assert list(attribute(node(graph, "a"), "kernel_shape")) == [3, 3]
    assert attribute(node(graph, "a"), "group", 1) == 1
    assert attribute(node(graph, "a"), "group") is None
