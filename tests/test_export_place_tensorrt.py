"""INT8 for TensorRT: where Q/DQ pairs go, which integers they hold, how close they stay."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="export needs torch (the export extra)")
onnx = pytest.importorskip("onnx", reason="export needs onnx (the export extra)")

from s4g.core.errors import InputError, S4GError  # noqa: E402
from s4g.core.spec import EncoderSpec  # noqa: E402
from s4g.export.graph import export_graph  # noqa: E402
from s4g.export.lint import lint_tensorrt  # noqa: E402
from s4g.export.parity import embed_graph  # noqa: E402
from s4g.export.place_tensorrt import place, quantise_weights  # noqa: E402
from s4g.export.prepare import prepare  # noqa: E402
from s4g.export.ranges import choose_ranges, measure  # noqa: E402
from s4g.train.model import Encoder, ModelConfig, normalise  # noqa: E402


def build(
    body: str, constants: dict[str, tuple[int, ...]], source: str = "float[batch, 16, 8, 8] x"
) -> bytes:
    """Make a graph of an input and `y` from text; nodes have their output's name, constants
    random values."""
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : 20]> g ({source}) => (float y) {{ {body} }}'
    )
    for name, shape in constants.items():
        value = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    for node in proto.graph.node:
        node.name = node.output[0]
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(proto, strict_mode=True).SerializeToString()


def any_ranges(model: bytes) -> dict[str, tuple[float, float]]:
    proto = onnx.load_from_string(model)
    return {name: (-1.0, 2.0) for node in proto.graph.node for name in (*node.input, *node.output)}


def rounded(model: bytes) -> list[str]:
    """Return the inputs that come out of Q/DQ pairs, as `node.position`, weights as `node.w`."""
    graph = onnx.load_from_string(model).graph
    made_by = {name: node for node in graph.node for name in node.output}
    found = []
    for node in graph.node:
        for position, name in enumerate(node.input):
            dequantise = made_by.get(name)
            if dequantise is not None and dequantise.op_type == "DequantizeLinear":
                quantise = made_by.get(dequantise.input[0])
                found.append(f"{node.name}.{'w' if quantise is None else position}")
    return sorted(found)


def placed(body: str, constants: dict[str, tuple[int, ...]], *arguments, **options) -> list[str]:
    model = build(body, constants)
    return rounded(place(model, any_ranges(model), *arguments, **options))


SQUARE = (16, 16, 1, 1)


def test_a_layer_is_rounded_on_its_data_and_weights_alone():
    body = "a = Conv(x, w, b) r = Relu(a) y = Gelu(r)"
    assert placed(body, {"w": SQUARE, "b": (16,)}) == ["a.0", "a.w"]


def test_no_pair_parts_a_layer_from_its_activation():
    body = "a = Conv(x, v) r = HardSwish(a) y = Conv(r, w)"
    assert placed(body, {"v": SQUARE, "w": SQUARE}) == ["a.0", "a.w", "y.0", "y.w"]


def test_matrix_products_with_constant_weights_are_layers_and_attention_is_none():
    body = """
        t = Transpose<perm = [0, 2, 3, 1]>(x)
        q = MatMul(t, v)
        k = MatMul(t, w)
        s = Transpose<perm = [0, 1, 3, 2]>(k)
        m = MatMul(q, s)
        y = Softmax(m)
    """
    assert placed(body, {"v": (16, 16), "w": (16, 16)}) == ["k.0", "k.w", "q.0", "q.w"]


@pytest.mark.parametrize("order", [("b", "x"), ("x", "b")])
def test_of_a_residual_sum_the_skip_branch_is_rounded(order):
    body = f"a = Conv(x, v) r = Relu(a) b = Conv(r, w) s = Add({', '.join(order)}) y = Relu(s)"
    found = placed(body, {"v": SQUARE, "w": SQUARE})
    assert found == ["a.0", "a.w", "b.0", "b.w", f"s.{order.index('x')}"]


@pytest.mark.parametrize("order", [("b", "d"), ("d", "b")])
def test_where_the_skip_branch_has_a_layer_the_longer_branch_is_the_main_one(order):
    body = f"d = Conv(x, u) a = Conv(x, v) b = Conv(a, w) y = Add({', '.join(order)})"
    found = placed(body, {"u": SQUARE, "v": SQUARE, "w": SQUARE})
    assert f"y.{order.index('d')}" in found
    assert f"y.{order.index('b')}" not in found


def test_of_branches_of_one_length_the_first_is_the_main_one():
    found = placed("a = Conv(x, v) b = Conv(x, w) y = Add(a, b)", {"v": SQUARE, "w": SQUARE})
    assert found == ["a.0", "a.w", "b.0", "b.w", "y.1"]


def test_a_layer_that_others_read_as_well_is_the_skip_branch():
    body = "a = Conv(x, v) b = Conv(a, w) y = Add(a, b)"
    assert placed(body, {"v": SQUARE, "w": SQUARE})[-1] == "y.0"


def test_an_activation_does_not_hide_the_layer_from_its_sum():
    assert placed("a = Conv(x, w) r = Relu(a) y = Add(x, r)", {"w": SQUARE})[-1] == "y.0"


def test_a_sum_that_is_not_the_only_reader_of_its_layer_is_left_alone():
    body = "a = Conv(x, w) s = Add(a, x) y = Mul(a, s)"
    assert placed(body, {"w": SQUARE}) == ["a.0", "a.w"]


def test_a_sum_behind_a_layer_in_float_is_left_alone():
    body = "a = Conv(x, v) b = Conv(a, w) y = Add(b, x)"
    assert placed(body, {"v": SQUARE, "w": SQUARE}, ["b"]) == ["a.0", "a.w"]


def test_a_bias_and_a_layout_do_not_hide_the_layer_from_its_sum():
    body = """
        t = Transpose<perm = [0, 2, 3, 1]>(x)
        m = MatMul(t, w)
        n = Add(b, m)
        u = Transpose<perm = [0, 3, 1, 2]>(n)
        y = Add(u, x)
    """
    assert placed(body, {"w": (16, 16), "b": (16,)}) == ["m.0", "m.w", "y.1"]


NORM = """
    t = Transpose<perm = [0, 2, 3, 1]>({0})
    n = LayerNormalization<axis = -1>(t, g, h)
    u = Transpose<perm = [0, 3, 1, 2]>(n)
    y = Conv(u, v)
"""
SCALES = {"g": (16,), "h": (16,)}


def test_a_pair_stands_between_a_layer_and_its_norm():
    found = placed("a = Conv(x, w)" + NORM.format("a"), {"w": SQUARE, "v": SQUARE, **SCALES})
    assert found == ["a.0", "a.w", "n.0", "y.0", "y.w"]


def test_a_sum_that_runs_in_a_layer_counts_as_that_layer_before_a_norm():
    body = "a = Conv(x, w) s = Add(a, x)" + NORM.format("s")
    found = placed(body, {"w": SQUARE, "v": SQUARE, **SCALES})
    assert found == ["a.0", "a.w", "n.0", "s.1", "y.0", "y.w"]


def test_a_bias_and_no_second_norm_are_seen_between_a_layer_and_its_norm():
    body = """
        t = Transpose<perm = [0, 2, 3, 1]>(x)
        m = MatMul(t, w)
        b = Add(m, g)
        n = LayerNormalization<axis = -1>(b, g, h)
        o = LayerNormalization<axis = -1>(n, g, h)
        y = MatMul(o, v)
    """
    found = placed(body, {"w": (16, 16), "v": (16, 16), **SCALES})
    assert found == ["m.0", "m.w", "n.0", "y.0", "y.w"]


def test_no_pair_stands_between_a_layer_in_float_and_its_norm():
    body = "a = Conv(x, w)" + NORM.format("a")
    found = placed(body, {"w": SQUARE, "v": SQUARE, **SCALES}, ["a"])
    assert found == ["y.0", "y.w"]


def test_the_norm_behind_the_last_layer_reads_float():
    body = """
        a = Conv(x, w)
        t = Transpose<perm = [0, 2, 3, 1]>(a)
        y = LayerNormalization<axis = -1>(t, g, h)
    """
    assert placed(body, {"w": SQUARE, **SCALES}) == ["a.0", "a.w"]


def test_pools_and_the_last_layers_output_stay_float():
    body = "a = Conv(x, w) p = GlobalAveragePool(a) f = Flatten(p) y = ReduceL2(f)"
    assert placed(body, {"w": SQUARE}) == ["a.0", "a.w"]


@pytest.mark.parametrize("name", ["a", "s", "n"])
def test_a_node_kept_in_float_gets_no_pair(name):
    body = "a = Conv(x, w) s = Add(a, x)" + NORM.format("s")
    found = placed(body, {"w": SQUARE, "v": SQUARE, **SCALES}, [name])
    assert not any(entry.startswith(f"{name}.") for entry in found)
    assert "y.0" in found


DEPTHWISE = "a = Conv<group = 16>(x, v) y = Conv(a, w)"


def test_depthwise_convolutions_stay_float_unless_asked_for():
    constants = {"v": (16, 1, 3, 3), "w": SQUARE}
    assert placed(DEPTHWISE, constants) == ["y.0", "y.w"]
    assert placed(DEPTHWISE, constants, depthwise="int8") == ["a.0", "a.w", "y.0", "y.w"]


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("y = Conv<group = 2>(x, w)", (16, 8, 1, 1)),
        ("y = Conv(x, w)", (8, 16, 1, 1)),
        ("p = GlobalAveragePool(x) y = Conv(p, w)", SQUARE),
        ("f = Flatten(x) y = Gemm<transB = 1>(f, w)", (32, 1024)),
        ("p = GlobalAveragePool(x) f = Flatten(p) y = MatMul(f, w)", (16, 16)),
    ],
)
def test_thin_layers_stay_float_unless_asked_for(body, shape):
    assert placed(body, {"w": shape}) == []
    assert placed(body, {"w": shape}, thin="int8") == ["y.0", "y.w"]


def test_readers_of_one_tensor_share_one_pair():
    body = "a = Conv(x, u) b = Conv(a, v) c = Conv(a, w) y = Add(b, a)"
    model = build(body, {"u": SQUARE, "v": SQUARE, "w": SQUARE})
    made = onnx.load_from_string(place(model, any_ranges(model)))
    quantised = [n.input[0] for n in made.graph.node if n.op_type == "QuantizeLinear"]
    assert sorted(quantised) == ["a", "x"]


def scale_of(model: bytes, tensor: str) -> float:
    graph = onnx.load_from_string(model).graph
    (node,) = [n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == tensor]
    (scale,) = [c for c in graph.initializer if c.name == node.input[1]]
    return float(onnx.numpy_helper.to_array(scale))


@pytest.mark.parametrize(
    ("limits", "scale"), [((-1.0, 2.54), 0.02), ((-2.54, 1.0), 0.02), ((0.0, 0.0), 1.0)]
)
def test_a_scale_spans_the_larger_end_in_127_steps(limits, scale):
    model = build("y = Conv(x, w)", {"w": SQUARE})
    assert scale_of(place(model, {"x": limits}), "x") == np.float32(scale)


def test_the_parts_of_a_rounded_concat_share_its_scale():
    body = """
        a = Conv(x, t)
        b = Conv(a, u)
        c = Concat<axis = 1>(x, a, b)
        d = Conv(c, v)
        e = Concat<axis = 1>(a, d)
        y = Conv(e, w)
    """
    wide = (16, 48, 1, 1)
    constants = {"t": SQUARE, "u": SQUARE, "v": wide, "w": (16, 32, 1, 1)}
    model = build(body, constants)
    limits = {"x": 1.0, "a": 2.0, "b": 9.0, "c": 3.0, "d": 9.0, "e": 12.7}
    made = place(model, {name: (0.0, high) for name, high in limits.items()})
    # `a` is part of both; `b` and `d` are rounded for nothing but the Concat.
    assert [scale_of(made, name) for name in "xace"] == [np.float32(0.1)] * 4
    assert [entry for entry in rounded(made) if entry[0] in "ce"] == ["c.0", "c.1", "e.0"]


def test_integers_have_zero_point_0_one_scale_per_activation_and_one_per_output_channel():
    body = "t = Transpose<perm = [0, 2, 3, 1]>(x) m = MatMul(t, v) y = Gelu(m)"
    model = build(body, {"v": (16, 24)})
    graph = onnx.load_from_string(place(model, any_ranges(model))).graph
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in graph.initializer}
    for node in graph.node:
        if "Linear" in node.op_type:
            scale, zero = (constants[name] for name in node.input[1:])
            of_weights = node.input[0] in constants
            assert zero.dtype == np.int8
            assert not zero.any()
            assert scale.shape == zero.shape == ((24,) if of_weights else ())
            if of_weights:
                (axis,) = [a.i for a in node.attribute if a.name == "axis"]
                assert axis == 1


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([((5, 3, 2, 2), 0), ((4, 6), 1), ((6, 4), 0)]),
    st.floats(1e-30, 1e30),
)
def test_weights_are_rounded_bit_for_bit_as_onnx_runtime_rounds_them(seed, form, size):
    from onnxruntime.quantization.quant_utils import quantize_data

    shape, axis = form
    rng = np.random.default_rng(seed)
    weights = (rng.standard_normal(shape) * size).astype(np.float32)
    np.moveaxis(weights, axis, 0)[1] = 0  # a dead channel
    integers, scales = quantise_weights(weights, axis)
    for channel in range(shape[axis]):
        *_, scale, expected = quantize_data(
            weights.take(channel, axis).ravel(), onnx.TensorProto.INT8, True
        )
        assert scales[channel] == scale
        np.testing.assert_array_equal(integers.take(channel, axis).ravel(), expected)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        (
            {},
            "node y: its input x has no calibrated range; calibrate this graph, or keep the node "
            "in float",
        ),
        (
            {"x": (0.0, float("nan"))},
            "node y: its input x ranges from 0 to nan; calibrate on other images",
        ),
        (
            {"x": (-float("inf"), 1.0)},
            "node y: its input x ranges from -inf to 1; calibrate on other images",
        ),
    ],
)
def test_an_activation_without_a_usable_range_is_refused(ranges, message):
    with pytest.raises(S4GError) as error:
        place(build("y = Conv(x, w)", {"w": SQUARE}), ranges)
    assert str(error.value) == message


def test_weights_that_are_not_finite_are_refused():
    proto = onnx.load_from_string(build("y = Conv(x, w)", {"w": SQUARE}))
    proto.graph.initializer[0].raw_data = np.full(256, np.nan, np.float32).tobytes()
    with pytest.raises(S4GError) as error:
        place(proto.SerializeToString(), {"x": (0.0, 1.0)})
    assert str(error.value) == "node y: its weights are not finite; train again"


@pytest.mark.parametrize("option", ["depthwise", "thin"])
def test_an_unknown_policy_is_refused(option):
    with pytest.raises(InputError) as error:
        place(build("y = Conv(x, w)", {"w": SQUARE}), {}, **{option: "half"})
    assert str(error.value) == f"{option} = 'half' must be one of float, int8"


def test_uint8_images_are_cast_before_they_are_moved():
    body = """
        s = Transpose<perm = [0, 1, 3, 2]>(x)
        t = Transpose<perm = [0, 3, 1, 2]>(s)
        f = Cast<to = 1>(t)
        y = Conv(f, w)
    """
    made = place(build(body, {"w": SQUARE}, "uint8[batch, 8, 16, 8] x"), {"f": (0.0, 255.0)})
    kinds = [node.op_type for node in onnx.load_from_string(made).graph.node]
    assert kinds[1:4] == ["Cast", "Transpose", "Transpose"]
    assert lint_tensorrt(made) == []


# Networks as they are exported: three families, at 64 px, with random weights.
NETWORKS = ("test_resnet", "test_convnext2", "test_efficientnet")


def soft_noise(count: int, seed: int) -> np.ndarray:
    import cv2

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 9, 9, 3), dtype=np.uint8)
    return np.stack([cv2.resize(c, (64, 64), interpolation=cv2.INTER_CUBIC) for c in coarse])


def network(backbone: str) -> bytes:
    """Export a network whose norms have seen images and whose LayerScale is not 0."""
    torch.manual_seed(0)
    encoder = Encoder(ModelConfig(backbone, 64, 16))
    for name, parameter in encoder.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.uniform_(parameter, 0.1, 0.5)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # one batch says it all
    mean, std = (0.5,) * 3, (0.25,) * 3
    images = torch.from_numpy(soft_noise(16, seed=3))
    with torch.no_grad():
        encoder.train()(normalise(images, mean, std))
    spec = EncoderSpec("0" * 64, backbone, 64, mean, std, 16, (16,), 0.3, 3.0, True, 0.1)
    return prepare(export_graph(encoder, spec))


@pytest.fixture(scope="module", params=NETWORKS)
def prepared(request) -> bytes:
    return network(request.param)


@pytest.fixture(scope="module")
def ranges(prepared: bytes) -> dict[str, tuple[float, float]]:
    return choose_ranges(measure(prepared, soft_noise(32, seed=1), lambda count: None), "minmax")


@pytest.mark.parametrize("depthwise", ["float", "int8"])
@pytest.mark.parametrize("thin", ["float", "int8"])
def test_a_network_is_legal_for_tensorrt_and_close_to_its_float_graph(
    prepared, ranges, depthwise, thin
):
    made = place(prepared, ranges, (), depthwise, thin)
    onnx.checker.check_model(onnx.load_from_string(made), full_check=True)
    assert lint_tensorrt(made) == []
    graph = onnx.load_from_string(made).graph
    assert {c.name for c in graph.initializer} <= {name for n in graph.node for name in n.input}
    images = soft_noise(32, seed=2)
    cosine = (embed_graph(made, images, True) * embed_graph(prepared, images, True)).sum(axis=1)
    assert 0.98 < cosine.mean() < 0.9999999  # close, but it did quantise


def test_a_network_keeps_its_metadata_inputs_and_outputs(prepared, ranges):
    made = onnx.load_from_string(place(prepared, ranges))
    source = onnx.load_from_string(prepared)
    assert made.metadata_props == source.metadata_props
    assert made.graph.input == source.graph.input
    assert made.graph.output == source.graph.output


def test_the_same_ranges_give_the_same_bytes(prepared, ranges):
    assert place(prepared, ranges) == place(prepared, dict(reversed(ranges.items())))


def test_every_layer_is_rounded_that_onnx_runtime_rounds_for_tensorrt(prepared, ranges, tmp_path):
    """The settings of ONNX Runtime's own tool that give a legal graph, on the same network."""
    from onnxruntime import quantization as ort

    class Reader:
        images = iter(soft_noise(4, seed=1)[:, None])

        def get_next(self):
            image = next(self.images, None)
            return None if image is None else {"images": image}

    layers = ["Conv", "MatMul", "Gemm"]
    (tmp_path / "fp32.onnx").write_bytes(prepared)
    ort.quantize_static(
        tmp_path / "fp32.onnx",
        tmp_path / "int8.onnx",
        Reader(),
        quant_format=ort.QuantFormat.QDQ,
        activation_type=ort.QuantType.QInt8,
        weight_type=ort.QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=layers,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "AddQDQPairToWeight": True,
            "OpTypesToExcludeOutputQuantization": layers,
        },
    )
    theirs = (tmp_path / "int8.onnx").read_bytes()
    graph = onnx.load_from_string(theirs).graph
    weighted = {n.name for n in graph.node if n.op_type in layers}
    quantised = {e for e in rounded(theirs) if e.endswith(".0") and e[:-2] in weighted}
    ours = place(prepared, ranges, (), "int8", "int8")
    assert quantised
    assert quantised <= set(rounded(ours))
    kinds = {c.name: c.data_type for c in onnx.load_from_string(ours).graph.initializer}
    read = [n.input[0] for n in onnx.load_from_string(ours).graph.node if "Dequant" in n.op_type]
    assert onnx.TensorProto.INT32 not in {kinds.get(name) for name in read}
