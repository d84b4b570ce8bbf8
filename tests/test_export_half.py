"""FP16 for TensorRT: which nodes change type, what FP16 cannot hold, how close it stays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="export needs torch (the export extra)")
onnx = pytest.importorskip("onnx", reason="export needs onnx (the export extra)")

from s4g.core.errors import S4GError  # noqa: E402
from s4g.core.spec import EncoderSpec  # noqa: E402
from s4g.export.graph import export_graph  # noqa: E402
from s4g.export.half import to_half  # noqa: E402
from s4g.export.lint import lint_tensorrt  # noqa: E402
from s4g.export.parity import embed_graph  # noqa: E402
from s4g.export.place_tensorrt import place  # noqa: E402
from s4g.export.prepare import prepare  # noqa: E402
from s4g.export.ranges import choose_ranges, measure  # noqa: E402
from s4g.train.model import Encoder, ModelConfig, normalise  # noqa: E402


def build(
    body: str,
    constants: dict[str, np.ndarray],
    source: str = "float[batch, 16, 8, 8] x",
    opset: int = 20,
) -> bytes:
    """Make a graph of an input and `y` from text; nodes have their output's name."""
    proto = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : {opset}]> g ({source}) => (float y) {{ {body} }}'
    )
    for name, value in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    for node in proto.graph.node:
        node.name = node.output[0]
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(proto, strict_mode=True).SerializeToString()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def types_of(model: bytes) -> dict[str, str]:
    """Return the type of every tensor and constant, by name."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(model)).graph
    kinds = {c.name: c.data_type for c in graph.initializer}
    for value in [*graph.value_info, *graph.input, *graph.output]:
        kinds[value.name] = value.type.tensor_type.elem_type
    return {name: onnx.TensorProto.DataType.Name(kind) for name, kind in kinds.items()}


def edges(model: bytes) -> list[str]:
    """Return the graph as one line a node, with the type that each Cast makes."""
    kinds = types_of(model)
    lines = []
    for node in onnx.load_from_string(model).graph.node:
        kind = f"Cast to {kinds[node.output[0]]}" if node.op_type == "Cast" else node.op_type
        lines.append(f"{', '.join(node.input)} -> {kind} -> {node.output[0]}")
    return lines


SQUARE = noise(16, 16, 1, 1)


def test_layers_run_in_fp16_between_inputs_and_outputs_that_stay_fp32():
    made = to_half(build("a = Conv(x, w, b) y = Relu(a)", {"w": SQUARE, "b": noise(16)}))
    assert edges(made) == [
        "x -> Cast to FLOAT16 -> x_half",
        "x_half, w_half, b_half -> Conv -> a",
        "a -> Relu -> y_half",
        "y_half -> Cast to FLOAT -> y",
    ]


def test_pixels_are_normalised_in_fp32_and_uint8_is_cast_before_it_is_moved():
    body = """
        t = Transpose<perm = [0, 3, 1, 2]>(x)
        f = Cast<to = 1>(t)
        m = Mul(f, s)
        y = Conv(m, w)
    """
    scales = {"s": noise(3, 1, 1), "w": noise(16, 3, 1, 1)}
    made = to_half(build(body, scales, "uint8[batch, 8, 8, 3] x"))
    assert edges(made) == [
        "x -> Cast to FLOAT -> x_float",
        "x_float -> Transpose -> f",
        "f, s -> Mul -> m",
        "m -> Cast to FLOAT16 -> m_half",
        "m_half, w_half -> Conv -> y_half",
        "y_half -> Cast to FLOAT -> y",
    ]


def test_a_norm_is_computed_in_fp32_and_its_neighbours_in_fp16():
    body = """
        a = Conv(x, w)
        t = Transpose<perm = [0, 2, 3, 1]>(a)
        n = LayerNormalization<axis = -1>(t, g, h)
        u = Transpose<perm = [0, 3, 1, 2]>(n)
        y = Conv(u, w)
    """
    made = to_half(build(body, {"w": SQUARE, "g": noise(16), "h": noise(16)}))
    assert edges(made)[2:7] == [
        "a -> Transpose -> t",
        "t -> Cast to FLOAT -> t_float",
        "t_float, g, h -> LayerNormalization -> n",
        "n -> Cast to FLOAT16 -> n_half",
        "n_half -> Transpose -> u",
    ]


def test_what_follows_the_last_pool_stays_in_fp32_to_the_end():
    body = """
        a = Conv(x, w)
        r = Relu(a)
        p = GlobalAveragePool(r)
        f = Flatten(p)
        l = ReduceL2<keepdims = 1>(f)
        c = Clip(l, e)
        y = Div(f, c)
    """
    made = to_half(build(body, {"w": SQUARE, "e": np.float32(1e-12)}))
    assert edges(made)[2:] == [
        "a -> Relu -> r",
        "r -> Cast to FLOAT -> r_float",
        "r_float -> GlobalAveragePool -> p",
        "p -> Flatten -> f",
        "f -> ReduceL2 -> l",
        "l, e -> Clip -> c",
        "f, c -> Div -> y",
    ]


def test_two_readers_share_one_cast():
    body = "a = Conv(x, w) l = ReduceL2(a) m = ReduceMean(a) y = Div(l, m)"
    made = to_half(build(body, {"w": SQUARE}))
    assert [line for line in edges(made) if line.startswith("a ->")] == [
        "a -> Cast to FLOAT -> a_float"
    ]


def test_a_constant_of_readers_in_both_types_is_kept_in_both():
    body = """
        t = Transpose<perm = [0, 2, 3, 1]>(x)
        a = MatMul(t, w)
        b = Add(a, g)
        n = LayerNormalization<axis = -1>(b, g, g)
        y = MatMul(n, w)
    """
    kinds = types_of(to_half(build(body, {"w": noise(16, 16), "g": noise(16)})))
    assert (kinds["g"], kinds["g_half"]) == ("FLOAT", "FLOAT16")


def test_the_scales_of_a_resize_stay_fp32():
    body = "a = Conv(x, w) r = Resize(a, , s) y = Conv(r, w)"
    scales = np.array([1, 1, 2, 2], np.float32)
    kinds = types_of(to_half(build(body, {"w": SQUARE, "s": scales})))
    assert kinds["s"] == "FLOAT"
    assert kinds["r"] == "FLOAT16"


def test_floats_that_are_made_of_integers_are_cast_behind():
    body = """
        a = Conv(x, w)
        z = Shape(a)
        k = Cast<to = 1>(z)
        m = ReduceMax<keepdims = 0>(k)
        y = Mul(a, m)
    """
    made = to_half(build(body, {"w": SQUARE}))
    assert {"z -> Cast to FLOAT -> k", "k -> Cast to FLOAT16 -> k_half"} <= set(edges(made))


def test_what_lies_between_the_image_and_the_first_layer_alone_stays_fp32():
    body = "m = Mul(x, s) a = Conv(m, w) y = Add(a, m)"
    made = to_half(build(body, {"w": SQUARE, "s": noise(1)}))
    assert edges(made)[0] == "x, s -> Mul -> m"
    assert "a, m_half -> Add -> y_half" in edges(made)


QUANTISED = """
    q = QuantizeLinear(x, s, z)
    d = DequantizeLinear(q, s, z)
    v = DequantizeLinear<axis = 0>(w, t, u)
    y = Conv(d, v)
"""


def quantised(scale: np.ndarray, weights: np.ndarray, activation: float = 0.02) -> bytes:
    constants = {
        "s": np.float32(activation),
        "z": np.int8(0),
        "w": weights,
        "t": scale,
        "u": np.zeros(len(scale), np.int8),
    }
    return build(QUANTISED, constants)


def constant(model: bytes, name: str) -> np.ndarray:
    (found,) = [c for c in onnx.load_from_string(model).graph.initializer if c.name == name]
    return onnx.numpy_helper.to_array(found)


def integers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-127, 128, shape, dtype=np.int8)


def test_pairs_take_fp16_scales_and_keep_their_integers():
    weights, scale = integers(0, 16, 16, 1, 1), np.linspace(1e-4, 1e-2, 16, dtype=np.float32)
    made = to_half(quantised(scale, weights))
    assert edges(made)[:4] == [
        "x -> Cast to FLOAT16 -> x_half",
        "x_half, s_half, z -> QuantizeLinear -> q",
        "q, s_half, z -> DequantizeLinear -> d",
        "w, t_half, u -> DequantizeLinear -> v",
    ]
    np.testing.assert_array_equal(constant(made, "w"), weights)
    np.testing.assert_array_equal(constant(made, "t_half"), scale.astype(np.float16))


@given(st.integers(0, 2**32 - 1), st.floats(1e-9, 6e-5))
def test_weights_whose_scale_fp16_holds_coarsely_are_off_by_half_a_step_at_most(seed, size):
    weights, scale = integers(seed, 4, 16, 1, 1), np.full(4, size, np.float32)
    made = to_half(quantised(scale, weights))
    half = constant(made, "t_half").astype(np.float64)
    assert (half > 0).all()
    now = constant(made, "w") * half.reshape(-1, 1, 1, 1)
    before = weights * scale.astype(np.float64).reshape(-1, 1, 1, 1)
    assert np.abs(now - before).max() <= half.max() * 0.501


def test_a_scale_that_fp16_would_round_to_0_is_its_smallest_number():
    made = to_half(quantised(np.full(4, 1e-3, np.float32), integers(0, 4, 16, 1, 1), 1e-9))
    assert constant(made, "s_half") == np.finfo(np.float16).smallest_subnormal


@pytest.mark.parametrize("value", [1e5, -7e4, float("nan")])
def test_weights_beyond_fp16_are_refused(value):
    weights = SQUARE.copy()
    weights[0] = value
    with pytest.raises(S4GError) as error:
        to_half(build("y = Conv(x, w)", {"w": weights}))
    assert str(error.value) == (
        f"node y: its constant w reaches {abs(value):g}, FP16 ends at 65504; leave out --tensorrt, "
        "or train again with weight decay"
    )


def test_an_opset_without_fp16_scales_is_refused():
    with pytest.raises(S4GError) as error:
        to_half(build("y = Conv(x, w)", {"w": SQUARE}, opset=18))
    assert str(error.value) == "the graph has opset 18, FP16 wants 19; export it again"


def test_a_node_with_a_graph_of_its_own_is_refused():
    float_like_x = "(float[batch, 16, 8, 8] p)"
    branches = f"then_branch = g () => {float_like_x} {{ p = Identity(x) }}, "
    branches += f"else_branch = h () => {float_like_x} {{ p = Neg(x) }}"
    model = build(f"c = Not(b) y = If(c) <{branches}>", {"b": np.bool_(True)})
    with pytest.raises(S4GError) as error:
        to_half(model)
    assert str(error.value) == (
        "node y: If holds a graph of its own, which cannot be turned to FP16; choose another "
        "backbone"
    )


# Networks as they are exported: three families, at 64 px, with random weights.
NETWORKS = ("test_resnet", "test_convnext2", "test_efficientnet")


def soft_noise(count: int, seed: int) -> np.ndarray:
    import cv2

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 9, 9, 3), dtype=np.uint8)
    return np.stack([cv2.resize(c, (64, 64), interpolation=cv2.INTER_CUBIC) for c in coarse])


@pytest.fixture(scope="module", params=NETWORKS)
def prepared(request) -> bytes:
    """A network whose norms have seen images and whose LayerScale is not 0."""
    torch.manual_seed(0)
    encoder = Encoder(ModelConfig(request.param, 64, 16))
    for name, parameter in encoder.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.uniform_(parameter, 0.1, 0.5)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # one batch says it all
    mean, std = (0.5,) * 3, (0.25,) * 3
    with torch.no_grad():
        encoder.train()(normalise(torch.from_numpy(soft_noise(16, seed=3)), mean, std))
    spec = EncoderSpec("0" * 64, request.param, 64, mean, std, 16, (16,), 0.3, 3.0, True, 0.1)
    return prepare(export_graph(encoder, spec))


def cosine(first: bytes, second: bytes, literal: bool) -> np.ndarray:
    images = soft_noise(16, seed=2)
    return (embed_graph(first, images, literal) * embed_graph(second, images, literal)).sum(axis=1)


@pytest.mark.parametrize("literal", [True, False])
def test_a_network_in_fp16_embeds_as_in_fp32(prepared, literal):
    assert cosine(to_half(prepared), prepared, literal).min() > 0.9999


def test_a_network_in_fp16_is_legal_for_tensorrt_and_takes_half_the_space(prepared):
    made = to_half(prepared)
    onnx.checker.check_model(onnx.load_from_string(made), full_check=True)
    assert lint_tensorrt(made) == []
    assert len(made) < 0.6 * len(prepared)


def test_a_network_in_int8_is_legal_for_tensorrt_and_embeds_alike_in_fp16(prepared):
    images = soft_noise(16, seed=1)
    ranges = choose_ranges(measure(prepared, images, lambda count: None), "minmax")
    placed = place(prepared, ranges)
    made = to_half(placed)
    assert lint_tensorrt(made) == []
    assert cosine(made, placed, literal=True).mean() > 0.98


def test_a_network_keeps_its_metadata_inputs_and_outputs(prepared):
    made, source = (onnx.load_from_string(m) for m in (to_half(prepared), prepared))
    assert made.metadata_props == source.metadata_props
    assert made.graph.input == source.graph.input
    assert made.graph.output == source.graph.output


def test_the_same_graph_gives_the_same_bytes(prepared):
    assert to_half(prepared) == to_half(prepared)
