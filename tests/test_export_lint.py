"""The linter: a legal graph passes, and each edit that breaks a rule is named in one line."""

from collections.abc import Callable

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="export needs onnx (the export extra)")

from s4g.core.errors import IntegrityError, S4GError  # noqa: E402
from s4g.export.half import to_half  # noqa: E402
from s4g.export.lint import check_tensorrt, lint_tensorrt  # noqa: E402
from s4g.export.place_tensorrt import place  # noqa: E402

# A small encoder with all that the rules speak of: pixels, a first layer in float, a residual
# block, a norm behind a layer, a pool and the L2 norm. Nodes have their output's name.
BODY = """
    f = Cast<to = 1>(images)
    t = Transpose<perm = [0, 3, 1, 2]>(f)
    m = Mul(t, s)
    a = Conv(m, w0)
    r = Relu(a)
    b = Conv(r, w1, b1)
    c = Relu(b)
    d = Conv(c, w2)
    e = Add(d, r)
    g = Conv(e, w3)
    h = Transpose<perm = [0, 2, 3, 1]>(g)
    n = LayerNormalization<axis = -1>(h, gain, shift)
    k = MatMul(n, w4)
    p = ReduceMean<keepdims = 0>(k, spatial)
    l = ReduceL2<keepdims = 1>(p, last)
    q = Clip(l, least)
    embeddings = Div(p, q)
"""


@pytest.fixture(scope="module")
def float_graph() -> bytes:
    rng = np.random.default_rng(0)
    shapes = {"s": (3, 1, 1), "w0": (16, 3, 1, 1), "w4": (16, 16), "b1": (16,)}
    shapes |= {"gain": (16,), "shift": (16,), "w1": (16, 16, 1, 1)}
    shapes |= {"w2": (16, 16, 1, 1), "w3": (16, 16, 1, 1)}
    constants = {k: rng.standard_normal(v).astype(np.float32) for k, v in shapes.items()}
    constants |= {"spatial": np.array([1, 2]), "last": np.array([1]), "least": np.float32(1e-12)}
    proto = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 20]> encoder (uint8[batch, 8, 8, 3] images) '
        f"=> (float[batch, 16] embeddings) {{ {BODY} }}"
    )
    for name, value in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    for node in proto.graph.node:
        node.name = node.output[0]
    return onnx.shape_inference.infer_shapes(proto, strict_mode=True).SerializeToString()


@pytest.fixture(scope="module")
def legal(float_graph) -> bytes:
    ranges = dict.fromkeys("rcegnh", (-1.0, 2.0))
    return to_half(place(float_graph, ranges))


class Edit:
    """A graph being broken."""

    def __init__(self, model: bytes) -> None:
        self.proto = onnx.load_from_string(model)
        self.graph = self.proto.graph
        # What a file says of its tensors may be missing: the linter finds it out.
        del self.graph.value_info[:]

    def node(self, name: str):
        (found,) = [node for node in self.graph.node if node.name == name]
        return found

    def add(self, kind: str, inputs: list[str], output: str, before: str, **attributes) -> None:
        node = onnx.helper.make_node(kind, inputs, [output], name=output, **attributes)
        position = [n.name for n in self.graph.node].index(before)
        self.graph.node.insert(position, node)

    def constant(self, name: str, value) -> str:
        for old in [c for c in self.graph.initializer if c.name == name]:
            self.graph.initializer.remove(old)
        self.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def pair(self, tensor: str, reader: str, position: int, kind: type = np.float16) -> None:
        """Put a Q/DQ pair on one edge."""
        constants = [self.constant("new_scale", kind(0.01)), "zero_point"]
        self.add("QuantizeLinear", [tensor, *constants], "new_int8", reader)
        self.add("DequantizeLinear", ["new_int8", *constants], "new", reader)
        self.node(reader).input[position] = "new"

    def both(self, tensor: str, position: int, name: str) -> None:
        """Change a constant of a pair's two nodes."""
        for kind in ("QuantizeLinear", "DequantizeLinear"):
            self.node(f"{tensor}_{kind}").input[position] = name


def swap_cast(edit: Edit) -> None:
    cast, move = edit.node("f"), edit.node("t")
    cast.input[0], move.input[0] = "moved", "images"
    cast.output[0], move.output[0] = "t", "moved"
    nodes = [move, cast, *[n for n in edit.graph.node if n.name not in "ft"]]
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del edit.graph.node[:]
    edit.graph.node.extend(copies)


def half_norm(edit: Edit) -> None:
    edit.node("n").input[0] = "h_rounded"
    for name in ("gain", "shift"):
        edit.constant(name, np.ones(16, np.float16))


def cast_to_int8(edit: Edit) -> None:
    node = edit.node("r_QuantizeLinear")
    node.op_type = "Cast"
    del node.input[1:]
    node.attribute.append(onnx.helper.make_attribute("to", onnx.TensorProto.INT8))


def quantised_bias(kind: type) -> Callable[[Edit], None]:
    def edit_bias(edit: Edit) -> None:
        inputs = [
            edit.constant("bias_int", np.ones(16, kind)),
            edit.constant("bias_scale", np.float16(0.01)),
            edit.constant("bias_zero", kind(0)),
        ]
        edit.add("DequantizeLinear", inputs, "bias", "b")
        edit.node("b").input[2] = "bias"

    return edit_bias


def computed_scale(edit: Edit) -> None:
    edit.add("Identity", ["r_scale_half"], "scale", "r_QuantizeLinear")
    edit.both("r", 1, "scale")


def other_scale(edit: Edit) -> None:
    edit.node("r_DequantizeLinear").input[1] = edit.constant("other", np.float16(0.5))


def zero_point(value) -> Callable[[Edit], None]:
    return lambda edit: edit.both("r", 2, edit.constant("zero", value))


def unknown_domain(edit: Edit) -> None:
    edit.node("c").domain = "com.microsoft"
    edit.proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))


def half_output(edit: Edit) -> None:
    edit.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info("g", onnx.TensorProto.FLOAT16, ["batch", 16, 8, 8])
    )


def set_input(name: str, position: int, value: str) -> Callable[[Edit], None]:
    def change(edit: Edit) -> None:
        edit.node(name).input[position] = value

    return change


def set_constant(name: str, value) -> Callable[[Edit], None]:
    return lambda edit: edit.constant(name, value)


def set_attribute(name: str, attribute: str, value) -> Callable[[Edit], None]:
    def change(edit: Edit) -> None:
        (found,) = [a for a in edit.node(name).attribute if a.name == attribute]
        found.CopyFrom(onnx.helper.make_attribute(attribute, value))

    return change


def set_opset(edit: Edit) -> None:
    edit.proto.opset_import[0].version = 21


def free_height(edit: Edit) -> None:
    edit.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"


def set_kind(name: str, kind: str) -> Callable[[Edit], None]:
    def change(edit: Edit) -> None:
        edit.node(name).op_type = kind

    return change


BROKEN = {
    "an opset that TensorRT 10.3 cannot read": (
        set_opset,
        "the file: has opset 21, wanted 19 to 20",
    ),
    "an operator that the parser lacks": (
        set_kind("c", "Mish"),
        "Mish c: Mish is unknown to TensorRT's parser, wanted another operator",
    ),
    "an operator of another domain": (
        unknown_domain,
        "Relu c: com.microsoft.Relu is unknown to TensorRT's parser, wanted another operator",
    ),
    "a free height": (
        free_height,
        "input images: axis 1 has no length, wanted a fixed one",
    ),
    "uint8 that is moved before it is cast": (
        swap_cast,
        "Transpose t: reads the uint8 input images, wanted a Cast first",
    ),
    "an output in FP16": (half_output, "output g: is FLOAT16, wanted FLOAT"),
    "a norm in FP16": (
        half_norm,
        "LayerNormalization n: adds up in FLOAT16, wanted a Cast to FLOAT first",
    ),
    "integers that something else reads": (
        lambda edit: edit.add("Identity", ["r_int8"], "i", "embeddings"),
        "QuantizeLinear r_QuantizeLinear: Identity i reads its integers, wanted nothing but "
        "DequantizeLinear",
    ),
    "integers that nothing reads": (
        lambda edit: edit.add(
            "QuantizeLinear", ["k", "r_scale_half", "zero_point"], "i", "embeddings"
        ),
        "QuantizeLinear i: nothing reads its integers, wanted a DequantizeLinear",
    ),
    "a pair of two scales": (
        other_scale,
        "DequantizeLinear r_DequantizeLinear: has another scale than its QuantizeLinear, wanted "
        "the same",
    ),
    "integers that no QuantizeLinear made": (
        cast_to_int8,
        "DequantizeLinear r_DequantizeLinear: reads r_int8, wanted a QuantizeLinear before it",
    ),
    "a bias in INT32": (
        quantised_bias(np.int32),
        "DequantizeLinear bias: dequantises INT32, wanted INT8",
    ),
    "a bias in INT8": (
        quantised_bias(np.int8),
        "Conv b: has a bias in INT8, wanted a bias in float",
    ),
    "no zero point": (
        lambda edit: edit.node("w1_DequantizeLinear").input.pop(),
        "DequantizeLinear w1_DequantizeLinear: has no constant zero point, wanted INT8 zeros",
    ),
    "unsigned activations": (
        zero_point(np.uint8(128)),
        "QuantizeLinear r_QuantizeLinear: has a zero point of UINT8, wanted INT8",
    ),
    "a zero point of an activation": (
        zero_point(np.int8(-3)),
        "QuantizeLinear r_QuantizeLinear: has zero point -3, wanted 0",
    ),
    "a zero point of weights": (
        set_constant("zero_point_16", np.eye(1, 16, 5, dtype=np.int8)[0]),
        *(
            f"DequantizeLinear w{i}_DequantizeLinear: has zero point 1, wanted 0"
            for i in (4, 3, 2, 1)
        ),
    ),
    "a scale that is computed": (
        computed_scale,
        "QuantizeLinear r_QuantizeLinear: computes its scale, wanted a constant",
    ),
    "a scale of 0": (
        set_constant("r_scale_half", np.float16(0)),
        "QuantizeLinear r_QuantizeLinear: has a scale of 0, wanted positive finite ones",
    ),
    "a scale that is not finite": (
        set_constant("w2_scale_half", np.full(16, np.inf, np.float16)),
        "DequantizeLinear w2_DequantizeLinear: has a scale of inf, wanted positive finite ones",
    ),
    "scales by channel of an activation": (
        set_constant("r_scale_half", np.full(16, 0.01, np.float16)),
        "QuantizeLinear r_QuantizeLinear: has 16 scales for an activation, wanted 1",
    ),
    "one scale for all weights": (
        set_constant("w1_scale_half", np.float16(0.01)),
        "DequantizeLinear w1_DequantizeLinear: has 1 scale for the weights of b, wanted 16, one "
        "for each output channel",
    ),
    "scales along the input channels": (
        set_attribute("w4_DequantizeLinear", "axis", 0),
        "DequantizeLinear w4_DequantizeLinear: has scales along axis 0 for the weights of k, "
        "wanted axis 1",
    ),
    "weights in float": (
        lambda edit: set_input("d", 1, edit.constant("w", np.ones((16, 16, 1, 1), np.float16)))(
            edit
        ),
        "Conv d: has data in INT8 and weights in float, wanted both in INT8",
    ),
    "data in float": (
        set_input("d", 0, "c"),
        "Conv d: has weights in INT8 and data in float, wanted both in INT8",
    ),
    "a pair before an activation": (
        lambda edit: edit.pair("b", "c", 0),
        "Relu c: a Q/DQ pair stands between Conv b and it, wanted none: one kernel computes both",
    ),
    "no pair before a norm": (
        set_input("h_rounded_to_float", 0, "h"),
        "LayerNormalization n: reads Conv g in float, wanted a Q/DQ pair between",
    ),
    "a skip branch in float": (
        set_input("e", 1, "r"),
        "Add e: adds float to Conv d, wanted a Q/DQ pair on the skip branch",
    ),
    "both branches rounded": (
        lambda edit: edit.pair("d", "e", 0),
        "Add e: both its inputs are rounded, wanted the skip branch alone",
    ),
    "pixels that are rounded": (
        lambda edit: edit.pair("t", "m", 0, np.float32),
        "QuantizeLinear new_int8: rounds pixels before the first layer, wanted them in float",
    ),
    "an embedding that is rounded": (
        lambda edit: edit.pair("p", "embeddings", 0, np.float32),
        "QuantizeLinear new_int8: rounds what no layer reads any more, wanted it in float",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_one_edit_is_one_fault(legal, fault):
    change, *lines = BROKEN[fault]
    edit = Edit(legal)
    change(edit)
    assert lint_tensorrt(edit.proto.SerializeToString()) == lines


@pytest.mark.parametrize(
    ("node", "change"),
    [
        ("m", set_constant("s", np.ones((3, 1, 1), np.float16))),
        ("new_int8", lambda edit: edit.pair("a", "e", 1, np.float32)),
        ("k", set_attribute("h", "perm", [0, 2, 3])),
    ],
)
def test_types_and_shapes_that_do_not_fit_are_a_fault_of_the_file(legal, node, change):
    edit = Edit(legal)
    change(edit)
    (line,) = lint_tensorrt(edit.proto.SerializeToString())
    assert line.startswith("the file: types or shapes that do not fit (")
    assert f"node name: {node})" in line


def test_a_graph_in_fp32_of_an_old_opset_is_refused(float_graph):
    edit = Edit(float_graph)
    edit.proto.opset_import[0].version = 18
    assert lint_tensorrt(edit.proto.SerializeToString()) == [
        "the file: has opset 18, wanted 19 to 20"
    ]


def test_legal_graphs_have_no_fault(legal, float_graph):
    assert lint_tensorrt(legal) == []
    assert lint_tensorrt(to_half(float_graph)) == []
    assert lint_tensorrt(float_graph) == []
    check_tensorrt(legal, "encoder.trt.int8.onnx")


def test_the_skip_branch_of_the_last_block_may_be_rounded_for_its_sum_alone(legal):
    edit = Edit(legal)
    edit.add("Conv", ["c_rounded", "w2_rounded"], "o", "p")
    edit.add("Add", ["o", "g"], "u", "p")
    edit.pair("g", "u", 1)
    assert lint_tensorrt(edit.proto.SerializeToString()) == []


@pytest.mark.parametrize(
    ("changes", "more"), [([set_opset], ""), ([set_opset, free_height], " (and 1 more)")]
)
def test_a_faulty_file_is_refused_with_its_first_fault(legal, changes, more):
    edit = Edit(legal)
    for change in changes:
        change(edit)
    with pytest.raises(S4GError) as error:
        check_tensorrt(edit.proto.SerializeToString(), "encoder.trt.int8.onnx")
    assert str(error.value) == (
        "encoder.trt.int8.onnx: not legal for TensorRT: the file: has opset 21, wanted 19 to 20"
        f"{more}; this is a fault of the export, report it with the checkpoint's backbone"
    )


def test_a_damaged_file_is_refused():
    with pytest.raises(IntegrityError) as error:
        check_tensorrt(b"no model", "encoder.fp16.onnx")
    assert str(error.value) == "encoder.fp16.onnx: is no ONNX file, or damaged; export it again"
