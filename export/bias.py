"""Bias correction: the mean error that rounded weights make, taken out of the bias.

Rounding moves a layer's weights by dW, and so the mean of its output by the layer's product of dW
with the mean of its input (Nagel et al., Data-Free Quantization, ICCV 2019, section 4.2). That
mean is measured on images here, position by position: a kernel that reaches over the image's edge
meets zeros there. Each layer is corrected for its own weights alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx

from .activations import means
from .onnx_graph import OnnxGraph, attribute
from .place_tensorrt import quantise_weights

Doubles = npt.NDArray[np.float64]


def mean_shifts(model: bytes, images: npt.NDArray[np.uint8]) -> dict[str, Doubles]:
    """Return by how much rounded weights move the mean of each output channel.

    Args:
        model: prepared FP32 ONNX file.
        images: (N, H, W, 3) uint8, on which the layers' inputs are measured.

    Returns:
        (O,) of each layer that has a constant bias, by its name.
    """
    graph = OnnxGraph(model)
    nodes = [node for node in graph.weighted() if _bias_position(graph, node) is not None]
    seen = means(model, [node.input[0] for node in nodes], images)
    return {node.name: _mean_shift(graph, node, seen[node.input[0]]) for node in nodes}


def correct_biases(model: bytes, shifts: Mapping[str, Doubles]) -> bytes:
    """Return the model with shifts taken out of the biases; it stays float.

    Args:
        model: prepared FP32 ONNX file.
        shifts: of `mean_shifts`, of the layers whose weights will be rounded.
    """
    graph = OnnxGraph(model)
    for node in graph.weighted():
        if node.name in shifts:
            _add_to_bias(graph, node, -shifts[node.name])
    return graph.to_bytes()


def _bias_position(graph: OnnxGraph, node: onnx.NodeProto) -> tuple[onnx.NodeProto, int] | None:
    """Return the node and the input that hold a layer's constant bias; None where there is none."""
    if node.op_type in ("Conv", "Gemm"):
        known = len(node.input) > 2 and node.input[2] in graph.constants
        return (node, 2) if known and attribute(node, "beta", 1.0) == 1 else None
    after = graph.sole_consumer(node.output[0])
    if node.op_type != "MatMul" or after is None or after.op_type != "Add":
        return None
    for position, name in enumerate(after.input):
        if name in graph.constants and len(graph.constants[name].dims) == 1:
            return after, position
    return None


def _mean_shift(graph: OnnxGraph, node: onnx.NodeProto, mean: Doubles) -> Doubles:
    """Apply a layer, its weights replaced by what rounding adds, to its mean input; (O,)."""
    import onnxruntime as ort

    weights = graph.value(node.input[1])
    axis = 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else weights.ndim - 1
    added = rounded(weights, axis) - weights.astype(np.float64)
    fed = {"x": mean.astype(np.float32), "w": added.astype(np.float32)}
    single = onnx.NodeProto()
    single.CopyFrom(node)
    del single.input[:]
    single.input.extend(fed)
    single.output[0] = "y"
    values = [onnx.helper.make_tensor_value_info(name, 1, None) for name in (*fed, "y")]
    proto = onnx.helper.make_model(
        onnx.helper.make_graph([single], "layer", values[:2], values[2:]),
        opset_imports=graph.model.opset_import,
        ir_version=graph.model.ir_version,
    )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    moved = np.moveaxis(session.run(None, fed)[0], 1 if node.op_type == "Conv" else -1, 0)
    shift: Doubles = moved.reshape(len(moved), -1).mean(axis=1, dtype=np.float64)
    return shift


def rounded(weights: npt.NDArray[np.float32], axis: int) -> Doubles:
    """Return weights as symmetric INT8 holds them, with one scale for each index of `axis`."""
    steps, scale = quantise_weights(weights, axis)
    shape = [1] * weights.ndim
    shape[axis] = -1
    result: Doubles = steps * scale.astype(np.float64).reshape(shape)
    return result


def _add_to_bias(graph: OnnxGraph, node: onnx.NodeProto, shift: Doubles) -> None:
    place = _bias_position(graph, node)
    assert place is not None  # `mean_shifts` took only layers with one
    name = graph.own_constant(*place)
    graph.set_value(name, (graph.value(name) + shift).astype(np.float32))
