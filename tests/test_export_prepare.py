"""Graphs made ready for quantisation: folded, named, shaped, and computing what they did."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="export needs torch (the export extra)")
onnx = pytest.importorskip("onnx", reason="export needs onnx (the export extra)")

from s4g.core.errors import S4GError  # noqa: E402
from s4g.core.spec import SPEC_KEY  # noqa: E402
from s4g.export.graph import export_graph  # noqa: E402
from s4g.export.onnx_graph import OnnxGraph  # noqa: E402
from s4g.export.parity import embed_graph  # noqa: E402
from s4g.export.prepare import prepare  # noqa: E402
from s4g.train.checkpoint import load_checkpoint  # noqa: E402

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_graphs.py"))))

NORMED = """
    a = Conv(pixels, w)
    n = BatchNormalization(a, scale, bias, mean, variance)
    r = Relu(n)
    twice = Add(half, half)
    s = Mul(r, twice)
    features = ReduceMean <keepdims = 0> (s, space)
"""


def normed() -> bytes:
    rng = np.random.default_rng(0)
    vectors = {name: rng.uniform(0.5, 2, 4) for name in ("scale", "bias", "mean", "variance")}
    model: bytes = toy.encoder(NORMED, w=toy.normal(4, 3, 1, 1), half=0.75, space=[2, 3], **vectors)
    return model


def test_batch_norm_and_constants_are_folded_and_the_outputs_are_the_same() -> None:
    made = prepare(normed())
    assert [n.op_type for n in OnnxGraph(made)] == [
        *("Transpose", "Cast", "Sub", "Mul", "Conv", "Relu", "Mul", "ReduceMean", "ReduceL2", "Div")
    ]
    images = toy.images(5)
    np.testing.assert_allclose(embed_graph(made, images), embed_graph(normed(), images), atol=1e-6)


def with_names(*names: str) -> bytes:
    proto = onnx.load_from_string(normed())
    for node, name in zip(proto.graph.node, names, strict=False):
        node.name = name
    data: bytes = proto.SerializeToString()
    return data


def test_a_node_without_a_name_gets_one_that_no_other_has() -> None:
    named = ["Cast_1", "", "Sub_2", "", "", "", "", "", "", "", ""]
    found = [n.name for n in OnnxGraph(prepare(with_names(*named)))]
    assert all(found)
    assert len(set(found)) == len(found) == 10
    assert {"Cast_1", "Sub_2"} < set(found)  # and those that have one keep it


def test_an_exported_encoder_keeps_its_spec_and_computes_the_same(toy_checkpoint: Path) -> None:
    encoder, spec = load_checkpoint(toy_checkpoint)
    fp32 = export_graph(encoder, spec)
    made = prepare(fp32)
    images = toy.images(3, 64)
    np.testing.assert_allclose(embed_graph(made, images), embed_graph(fp32, images), atol=1e-6)
    graph = OnnxGraph(made)
    entries = {p.key: p.value for p in graph.model.metadata_props}
    before = {p.key: p.value for p in onnx.load_from_string(fp32).metadata_props}
    assert entries[SPEC_KEY] == before[SPEC_KEY]
    shapes = graph.shapes()
    assert all(o in shapes for n in graph for o in n.output)
    assert len({n.name for n in graph}) == len(list(graph))
    assert "BatchNormalization" not in {n.op_type for n in graph}


def test_the_same_graph_is_prepared_to_the_same_bytes() -> None:
    assert prepare(normed()) == prepare(normed())


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    prepare(normed())
    assert capfd.readouterr() == ("", "")


def test_an_operator_that_onnx_runtime_lacks_is_refused() -> None:
    proto = onnx.load_from_string(normed())
    proto.graph.node[4].op_type = "NoSuchOperator"
    with pytest.raises(S4GError) as failure:
        prepare(proto.SerializeToString())
    message = str(failure.value)
    assert message.startswith("the graph cannot be run by ONNX Runtime (")
    assert "NoSuchOperator" in message
    assert message.endswith("); choose another backbone")
    assert "\n" not in message
