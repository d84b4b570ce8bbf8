"""Prepared FP32 graph to the INT8 graph for TensorRT: where Q/DQ pairs go, and their scales.

TensorRT takes signed integers with zero point 0 only: one scale for an activation, one for each
output channel of weights, biases in float. Pairs stand

- at the data input of every layer with weights that gains from INT8,
- on the skip branch of a residual Add whose other branch ends in such a layer, so that the sum
  runs inside that layer's kernel and may leave it as integers,
- between such a layer and a LayerNormalization: without it TensorRT picks kernels that return
  float, and spends on reformatting what integers gained (Model-Optimizer, pull request 1117),

and nowhere else: not between a layer and its activation, which one kernel computes, not around
attention's products, not before pools, and not behind the last layer. A Concat that is rounded
reads those of its parts that are rounded for others out of their pairs, with one scale for all, so
that it joins integers. NVIDIA's ModelOpt places alike but for depthwise layers, thin layers and
squeeze-and-excitation; benchmarks/modelopt_placement.py compares the two.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from ..core.errors import InputError, S4GError
from .half import cast_images_first
from .onnx_graph import ACTIVATIONS, LAYOUT, WEIGHTED, OnnxGraph, attribute

_LEVELS = 127  # to either side of zero
# Fewer channels than this do not fill an INT8 tensor core (Model-Optimizer: find_nodes_from_*).
_MIN_CHANNELS = 16
POLICIES = ("float", "int8")

Floats = npt.NDArray[np.float32]


def place(
    model: bytes,
    ranges: Mapping[str, tuple[float, float]],
    keep_float: Collection[str] = (),
    depthwise: str = "float",
    thin: str = "float",
) -> bytes:
    """Return the graph with Q/DQ pairs where TensorRT wants them; the rest stays FP32.

    Args:
        model: prepared FP32 ONNX file: folded, shapes known, every node named.
        ranges: (low, high) of every activation, by tensor.
        keep_float: names of nodes that get no pair.
        depthwise: `float` or `int8`: convolutions with a group for each channel. INT8 kernels for
            them are slow or missing on many devices (TensorRT issues 4529, 1409, 4060).
        thin: `float` or `int8`: layers that leave INT8 tensor cores empty: fewer than 16 channels
            in or out (the first convolution), or one vector for each image (the last product,
            squeeze-and-excitation).

    Raises:
        S4GError: an activation has no range, or one that is not finite; weights are not finite.
        InputError: a policy is neither of the two.
    """
    for name, policy in (("depthwise", depthwise), ("thin", thin)):
        if policy not in POLICIES:
            raise InputError(f"{name} = {policy!r} must be one of {', '.join(POLICIES)}")
    graph = OnnxGraph(model)
    cast_images_first(graph)
    shapes = graph.shapes()
    layers = {
        node.name
        for node in graph.weighted()
        if node.name not in keep_float
        and _weight_axis(graph, node) is not None
        and (depthwise == "int8" or not _is_depthwise(node, shapes))
        and (thin == "int8" or _is_depthwise(node, shapes) or not _is_thin(node, shapes))
    }
    edges = _edges(graph, layers, keep_float)
    peaks = _peaks(graph, edges, ranges)
    pairs = _Pairs(graph, peaks)
    for node in list(graph):
        if node.name in layers:
            node.input[1] = pairs.weights(node)
        if node.name in edges:
            position = edges[node.name]
            node.input[position] = pairs.activation(str(node.input[position]))
        elif node.op_type == "Concat" and node.output[0] in peaks:
            for position, name in enumerate(node.input):
                if name in peaks:
                    node.input[position] = pairs.activation(str(name))
    graph.index()
    graph.drop_unused_constants()
    return graph.to_bytes()


def _weight_axis(graph: OnnxGraph, node: onnx.NodeProto) -> int | None:
    """Return the axis of output channels in a layer's weights; None where it stays float."""
    rank = len(graph.constants[node.input[1]].dims)
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return rank - 1 if node.op_type == "MatMul" and rank > 1 else None


def _is_depthwise(node: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> bool:
    # (O, I / group, …): each output channel reads one input channel.
    return node.op_type == "Conv" and shapes[node.input[1]][1] == 1


def _is_thin(node: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> bool:
    weights, data = shapes[node.input[1]], shapes.get(node.input[0], [])
    channels = weights[:2] if node.op_type == "Conv" else weights[-2:]
    if min(channels) < _MIN_CHANNELS:
        return True
    if node.op_type == "Conv":
        return len(data) > 2 and all(length == 1 for length in data[2:])
    return len(data) == 2


def _edges(graph: OnnxGraph, layers: set[str], keep_float: Collection[str]) -> dict[str, int]:
    """Return, by node name, the input that is to come out of a Q/DQ pair."""
    edges: dict[str, int] = {}
    depths: dict[str, int] = {}
    read_by_layers = _read_by_layers(graph)
    for node in graph:
        depths[node.output[0]] = 1 + max((depths.get(name, 0) for name in node.input), default=0)
        if node.name in layers:
            edges[node.name] = 0
        elif node.name in keep_float:
            continue
        elif node.op_type == "Add":
            skip = _skip_side(graph, node, layers, depths)
            if skip is not None:
                edges[node.name] = skip
        elif node.op_type == "LayerNormalization" and node.output[0] in read_by_layers:
            source = _behind_layout(graph, node.input[0])
            # A sum with a rounded skip branch runs in a layer's kernel and counts as that layer.
            if source is not None and source.name in edges and source.op_type != node.op_type:
                edges[node.name] = 0
    return edges


def _read_by_layers(graph: OnnxGraph) -> set[str]:
    """Return the tensors that a layer reads, directly or not: the rest is the embedding."""
    found: set[str] = set()
    for node in reversed(list(graph)):
        if node.op_type in WEIGHTED or found.intersection(node.output):
            found.update(node.input)
    return found


def _skip_side(
    graph: OnnxGraph, add: onnx.NodeProto, layers: set[str], depths: Mapping[str, int]
) -> int | None:
    """Return which input of a residual Add is the skip branch; None where it is no such Add.

    The other, the main branch, is what a quantised layer makes for this Add alone, through
    nothing but bias, activation and layout: the sum then runs in that layer's kernel. Where both
    branches are such (a block with its own convolution on the skip branch), the main branch is
    the one that lies further from the image.
    """
    if any(name in graph.constants for name in add.input):
        return None
    main = [i for i in (0, 1) if _is_main(graph, add.input[i], layers)]
    if not main:
        return None
    deepest = max(main, key=lambda i: (depths.get(add.input[i], 0), -i))
    return 1 - deepest


def _is_main(graph: OnnxGraph, tensor: str, layers: set[str]) -> bool:
    while graph.sole_consumer(tensor) is not None:
        node = graph.producers.get(tensor)
        if node is None:
            return False
        if node.name in layers:
            return True
        step = _through(graph, node)
        if step is None:
            return False
        tensor = step
    return False


def _through(graph: OnnxGraph, node: onnx.NodeProto) -> str | None:
    """Return the input that a node computes its output from inside the kernel before it."""
    if node.op_type in ACTIVATIONS or node.op_type in LAYOUT:
        return str(node.input[0])
    return _biased(graph, node)


def _biased(graph: OnnxGraph, node: onnx.NodeProto) -> str | None:
    """Return the data input of a product or sum with a constant, else None."""
    if node.op_type in ("Add", "Mul"):
        data = [name for name in node.input if name not in graph.constants]
        return str(data[0]) if len(data) == 1 else None
    return None


def _behind_layout(graph: OnnxGraph, tensor: str) -> onnx.NodeProto | None:
    """Return the node that makes a tensor, up to layout and bias."""
    node = graph.producers.get(tensor)
    while node is not None:
        source = str(node.input[0]) if node.op_type in LAYOUT else _biased(graph, node)
        if source is None:
            return node
        node = graph.producers.get(source)
    return None


def _peaks(
    graph: OnnxGraph,
    edges: Mapping[str, int],
    ranges: Mapping[str, tuple[float, float]],
) -> dict[str, np.float32]:
    """Return the largest magnitude of each tensor that is to be rounded.

    Raises:
        S4GError: a tensor has no range, or one that is not finite.
    """
    peaks: dict[str, np.float32] = {}
    for node in graph:
        if node.name not in edges:
            continue
        tensor = str(node.input[edges[node.name]])
        if tensor not in ranges:
            raise S4GError(
                f"node {node.name}: its input {tensor} has no calibrated range; calibrate this "
                "graph, or keep the node in float"
            )
        low, high = ranges[tensor]
        peaks[tensor] = np.abs(np.array([low, high], np.float32)).max()
        if not np.isfinite(peaks[tensor]):
            raise S4GError(
                f"node {node.name}: its input {tensor} ranges from {low:g} to {high:g}; calibrate "
                "on other images"
            )
    _share_among_parts(graph, peaks)
    return peaks


def _share_among_parts(graph: OnnxGraph, peaks: dict[str, np.float32]) -> None:
    """Give each Concat that is rounded, and those of its parts that are, one magnitude."""
    groups = [
        [name for name in (node.output[0], *node.input) if name in peaks]
        for node in graph
        if node.op_type == "Concat" and node.output[0] in peaks
    ]
    settled = False
    while not settled:  # a tensor may be part of several
        settled = True
        for group in groups:
            peak = max(peaks[name] for name in group)
            settled &= all(peaks[name] == peak for name in group)
            peaks.update(dict.fromkeys(group, peak))


class _Pairs:
    """Q/DQ pairs of a graph: one for each activation and one for each set of weights."""

    def __init__(self, graph: OnnxGraph, peaks: Mapping[str, np.float32]) -> None:
        self._graph = graph
        self._peaks = peaks
        self._made: dict[tuple[str, int], str] = {}
        self._zeros: dict[tuple[int, ...], str] = {}

    def activation(self, tensor: str) -> str:
        """Return the rounded copy of an activation; made on first use, shared by all users."""
        if (tensor, -1) not in self._made:
            constants = [
                self._graph.add_constant(f"{tensor}_scale", _scale_of(self._peaks[tensor])),
                self._zero_point(()),
            ]
            rounded = self._graph.unused(f"{tensor}_int8")
            again = self._graph.unused(f"{tensor}_rounded")
            quantise = helper.make_node(
                "QuantizeLinear",
                [tensor, *constants],
                [rounded],
                name=f"{tensor}_QuantizeLinear",
            )
            dequantise = helper.make_node(
                "DequantizeLinear",
                [rounded, *constants],
                [again],
                name=f"{tensor}_DequantizeLinear",
            )
            self._graph.insert_after(tensor, quantise)
            self._graph.insert_after(rounded, dequantise)
            self._made[tensor, -1] = again
        return self._made[tensor, -1]

    def weights(self, node: onnx.NodeProto) -> str:
        """Return a layer's weights as INT8 behind a DequantizeLinear."""
        tensor, axis = str(node.input[1]), _weight_axis(self._graph, node)
        assert axis is not None  # `place` took only layers with one
        if (tensor, axis) not in self._made:
            value = self._graph.value(tensor)
            if not np.isfinite(value).all():
                raise S4GError(f"node {node.name}: its weights are not finite; train again")
            rounded, scale = quantise_weights(value, axis)
            inputs = [
                self._graph.add_constant(f"{tensor}_int8", rounded),
                self._graph.add_constant(f"{tensor}_scale", scale),
                self._zero_point(scale.shape),
            ]
            output = self._graph.unused(f"{tensor}_rounded")
            dequantise = helper.make_node(
                "DequantizeLinear", inputs, [output], name=f"{tensor}_DequantizeLinear", axis=axis
            )
            self._graph.insert_after("", dequantise)
            self._made[tensor, axis] = output
        return self._made[tensor, axis]

    def _zero_point(self, shape: tuple[int, ...]) -> str:
        # The parser of TensorRT 8 and 9 wants it written out, as many as there are scales.
        if shape not in self._zeros:
            name = "_".join(["zero_point", *map(str, shape)])
            self._zeros[shape] = self._graph.add_constant(name, np.zeros(shape, np.int8))
        return self._zeros[shape]


def quantise_weights(weights: Floats, axis: int) -> tuple[npt.NDArray[np.int8], Floats]:
    """Round weights to signed 8 bits, with one scale for each index of `axis`.

    It rounds as ONNX Runtime does (quantization.quant_utils), so that the CPU's graph and
    TensorRT's hold the same integers.

    Returns:
        Integers of the weights' shape, and (C,) float32 scales.
    """
    rows = np.moveaxis(weights, axis, 0)
    scale = _scale_of(np.abs(rows.reshape(len(rows), -1)).max(axis=1))
    steps = np.rint(rows / scale.reshape(-1, *[1] * (rows.ndim - 1)))
    rounded = np.clip(steps, -_LEVELS, _LEVELS).astype(np.int8)
    return np.ascontiguousarray(np.moveaxis(rounded, 0, axis)), scale


def _scale_of(peak: Floats | np.float32) -> Floats:
    """Return the step that spans `peak` in 127; 1 where all is zero, as any would do."""
    scale = np.asarray(peak, np.float64) / _LEVELS
    return np.where(scale < np.finfo(np.float32).tiny, 1.0, scale).astype(np.float32)
