"""Cross-layer equalisation: channels of an activation brought to like ranges, at no cost.

One scale serves all channels of an INT8 activation, so that a channel of small values keeps few
of the 256 levels. Where nothing but a ReLU lies between two layers, a channel can be divided by
any positive number in the first and multiplied by it in the second (Nagel et al., Data-Free
Quantization, ICCV 2019, section 4.1). As weights have a scale of their own for each output
channel, it is the activation's range, measured on images, that is balanced against the second
layer's weights, as SmoothQuant does (Xiao et al., ICML 2023, eq. 4 with alpha 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from .activations import peaks_by_channel
from .onnx_graph import OnnxGraph, attribute

# Positively homogeneous: f(s x) = s f(x) for s > 0.
_TRANSPARENT = frozenset({"Relu", "LeakyRelu", "Identity"})
_MOST = 16.0  # no channel is scaled by more, either way


@dataclass(frozen=True)
class Pair:
    """Two layers whose shared channels can be rescaled.

    Attributes:
        first: the layer whose outputs are divided: Conv or LayerNormalization.
        second: the layer whose inputs are multiplied: Conv, Gemm or MatMul.
        tensor: what the second layer reads.
        axis: the channels' axis of that tensor.
    """

    first: onnx.NodeProto
    second: onnx.NodeProto
    tensor: str
    axis: int


def find_pairs(graph: OnnxGraph) -> list[Pair]:
    """Return the pairs of layers with nothing between them that would feel a rescaling."""
    pairs = []
    for second in graph.weighted():
        tensor = second.input[0]
        axis = 1 if second.op_type == "Conv" else -1
        if not _can_absorb(graph, second):
            continue
        first = _source(graph, tensor, axis)
        if first is not None:
            pairs.append(Pair(first, second, tensor, axis))
    return pairs


def _can_absorb(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    """Return whether the node's weights can take a factor for each input channel."""
    shape = graph.constants[node.input[1]].dims
    if node.op_type == "Conv":
        group = attribute(node, "group", 1)
        return bool(group == 1 or (group == shape[0] and shape[1] == 1))
    return bool(node.op_type in ("Gemm", "MatMul") and len(shape) == 2)


def _source(graph: OnnxGraph, tensor: str, axis: int) -> onnx.NodeProto | None:
    """Follow a tensor back to the layer that makes its channels, through what scaling passes."""
    while graph.sole_consumer(tensor) is not None:
        node = graph.producers.get(tensor)
        if node is None:
            return None
        if node.op_type == "Conv" and axis == 1 and node.input[1] in graph.constants:
            bias_known = len(node.input) < 3 or node.input[2] in graph.constants
            return node if bias_known else None
        if node.op_type == "LayerNormalization":
            fed = [name in graph.constants for name in node.input[1:]]
            normalised = attribute(node, "axis", -1)
            rank = len(graph.constants[node.input[1]].dims) if fed and all(fed) else 0
            # One scale for each channel, with channels last.
            return node if rank == 1 and normalised == -1 and axis in (-1, 3) else None
        if node.op_type == "Transpose":
            axis = attribute(node, "perm")[axis]
        elif node.op_type not in _TRANSPARENT:
            return None
        tensor = node.input[0]
    return None


def equalise(model: bytes, images: npt.NDArray[np.uint8]) -> tuple[bytes, int]:
    """Return the model with equalised channels, and how many pairs of layers were.

    The result computes the same as before, up to float rounding.

    Args:
        model: prepared FP32 ONNX file.
        images: (N, H, W, 3) uint8, on which ranges are measured.
    """
    graph = OnnxGraph(model)
    pairs = find_pairs(graph)
    if not pairs:
        return model, 0
    seen = peaks_by_channel(model, {pair.tensor: pair.axis for pair in pairs}, images)
    for pair in pairs:
        weights = graph.value(graph.own_constant(pair.second, 1))
        own = _input_peaks(pair.second, weights)
        peaks = seen[pair.tensor]
        usable = (peaks > 0) & (own > 0)
        factors = np.ones_like(peaks)
        factors[usable] = np.sqrt(peaks[usable] / own[usable])
        # Scaling all channels alike changes nothing; taken out, so that the bound is a bound.
        if usable.any():
            factors[usable] /= np.exp(np.log(factors[usable]).mean())
        bounded: npt.NDArray[np.float32] = np.clip(factors, 1 / _MOST, _MOST).astype(np.float32)
        _divide(graph, pair.first, bounded)
        graph.set_value(pair.second.input[1], _multiplied(pair.second, weights, bounded))
    return graph.to_bytes(), len(pairs)


def _input_axis(node: onnx.NodeProto) -> int:
    if node.op_type == "Conv":
        return 0 if attribute(node, "group", 1) > 1 else 1
    return 1 if node.op_type == "Gemm" and attribute(node, "transB", 0) else 0


def _input_peaks(node: onnx.NodeProto, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the largest weight by input channel."""
    rows = np.moveaxis(weights, _input_axis(node), 0)
    peaks: npt.NDArray[np.float64] = np.abs(rows.reshape(len(rows), -1)).max(axis=1)
    return peaks.astype(np.float64)


def _multiplied(
    node: onnx.NodeProto, weights: npt.NDArray[np.float32], factors: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    shape = [1] * weights.ndim
    shape[_input_axis(node)] = -1
    return weights * factors.reshape(shape)


def _divide(graph: OnnxGraph, node: onnx.NodeProto, factors: npt.NDArray[np.float32]) -> None:
    """Divide a layer's output channels: weights and bias of a Conv, both of a LayerNorm."""
    for position in range(1, len(node.input)):
        if node.input[position]:
            name = graph.own_constant(node, position)
            value = graph.value(name)
            graph.set_value(name, value / factors.reshape(-1, *[1] * (value.ndim - 1)))
