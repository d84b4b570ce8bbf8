"""A TensorRT graph in FP16: strongly typed networks take every type from the file.

ONNX Runtime's converter (onnxruntime.transformers.float16) is not used: of neighbours that stay in
FP32 it rounds every tensor between them to FP16 and back, gives two readers of one tensor Cast
nodes of the same name, which no runtime loads, and clips weights that are too large in silence.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from ..core.errors import S4GError
from .onnx_graph import LAYOUT, WEIGHTED, OnnxGraph

# From here on QuantizeLinear and DequantizeLinear take FP16 scales.
_MIN_OPSET = 19
_MAX = float(np.finfo(np.float16).max)
_SMALLEST_NORMAL = float(np.finfo(np.float16).tiny)
_QUANTISERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
# They add up many numbers, or squares, which FP16 would not hold. Since 10.16 TensorRT computes a
# norm in the type of its inputs; before, that was the builder's choice.
_SUMS = frozenset(
    {"GlobalAveragePool", "GroupNormalization", "InstanceNormalization", "LayerNormalization"}
    | {"LpNormalization", "Pow", "ReduceL1", "ReduceL2", "ReduceMean", "ReduceSum"}
    | {"ReduceSumSquare", "RMSNormalization", "Softmax"}
)


def to_half(model: bytes) -> bytes:
    """Return a graph whose layers run in FP16; what quantised layers compute stays INT8.

    FP32 stay the normalisation of pixels, sums over many numbers (pools, LayerNorm, Softmax) and
    what follows the last pool or norm, with it the L2 norm; inputs and outputs keep their types.
    uint8 images are cast before anything else, as TensorRT wants.

    In ONNX Runtime, judge a graph with Q/DQ pairs with every optimisation off: its
    WeightBiasQuantization rounds biases to scales that underflow in FP16.

    Args:
        model: prepared FP32 graph, or that of `place_tensorrt.place`, opset 19 or newer.

    Raises:
        S4GError: weights are too large for FP16; the message names the node.
    """
    graph = OnnxGraph(model)
    _check(graph)
    cast_images_first(graph)
    del graph.graph.value_info[:]
    typed = onnx.shape_inference.infer_shapes(graph.model, strict_mode=True)
    floats = {
        value.name
        for value in [*typed.graph.value_info, *typed.graph.input, *typed.graph.output]
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    single = _single(graph, floats)
    _Caster(graph, floats, single).run()
    graph.drop_unused_constants()
    result = onnx.shape_inference.infer_shapes(graph.model, check_type=True, strict_mode=True)
    data: bytes = result.SerializeToString(deterministic=True)
    return data


def _check(graph: OnnxGraph) -> None:
    for node in graph:
        if any(entry.type == onnx.AttributeProto.GRAPH for entry in node.attribute):
            raise S4GError(
                f"node {node.name}: {node.op_type} holds a graph of its own, which cannot be "
                "turned to FP16; choose another backbone"
            )
    opset = max(entry.version for entry in graph.model.opset_import if not entry.domain)
    if opset < _MIN_OPSET:
        raise S4GError(f"the graph has opset {opset}, FP16 wants {_MIN_OPSET}; export it again")


def _beyond(node: onnx.NodeProto, what: str, peak: float) -> S4GError:
    return S4GError(
        f"node {node.name}: its {what} reaches {peak:g}, FP16 ends at {_MAX:g}; leave out "
        "--tensorrt, or train again with weight decay"
    )


def cast_images_first(graph: OnnxGraph) -> None:
    """Cast uint8 images before they are moved: TensorRT reads uint8 in a Cast only."""
    for entry in graph.graph.input:
        if entry.type.tensor_type.elem_type != TensorProto.UINT8:
            continue
        passed = []
        node = graph.sole_consumer(entry.name)
        while node is not None and node.op_type in LAYOUT:
            passed.append(node)
            node = graph.sole_consumer(node.output[0])
        if not passed or node is None or node.op_type != "Cast":
            continue
        changed = {layout.output[0] for layout in passed}
        for value in [v for v in graph.graph.value_info if v.name in changed]:
            graph.graph.value_info.remove(value)
        first = onnx.NodeProto()
        first.CopyFrom(node)
        passed[-1].output[0] = node.output[0]
        passed[0].input[0] = first.output[0] = graph.unused(f"{entry.name}_float")
        first.input[0] = entry.name
        graph.graph.node.remove(node)
        graph.graph.node.insert(0, first)
        graph.index()


def _single(graph: OnnxGraph, floats: set[str]) -> set[str]:
    """Return the names of the nodes that stay in FP32."""
    before = {entry.name for entry in graph.graph.input}
    single = set()
    for node in graph:
        if node.op_type in WEIGHTED or node.op_type in _QUANTISERS:
            continue
        data = [name for name in node.input if name and name not in graph.constants]
        if data and before.issuperset(data):  # no layer lies between it and the image
            before.update(node.output)
            single.add(node.name)
        elif node.op_type in _SUMS or not floats.intersection(node.input):
            # What makes floats of integers makes them in the type that it names.
            single.add(node.name)
    leads_to_layer: set[str] = set()
    for node in reversed(list(graph)):
        if node.op_type in WEIGHTED or leads_to_layer.intersection(node.output):
            leads_to_layer.update(node.input)
    # Behind the last layer, what follows a sum stays in FP32 to the end.
    summed: set[str] = set()
    for node in graph:
        if leads_to_layer.intersection(node.output):
            continue
        if node.op_type in _SUMS or summed.intersection(node.input):
            summed.update(node.output)
            single.add(node.name)
    return single


class _Caster:
    """Turns constants and inserts Casts, so that each node sees one type of float."""

    def __init__(self, graph: OnnxGraph, floats: set[str], single: set[str]) -> None:
        self._graph = graph
        self._floats = floats
        self._single = single
        self._half = {
            name
            for node in graph
            if node.name not in single
            for name in node.output
            if name in floats
        }
        self._constants: dict[str, str] = {}
        self._casts: dict[str, str] = {}

    def run(self) -> None:
        """Convert the whole graph."""
        for node in list(self._graph):
            half = node.name not in self._single
            if half and node.op_type == "DequantizeLinear":
                self._rescale_weights(node)
            for position, name in enumerate(node.input):
                if name in self._graph.constants:
                    if half and _takes_half(node, position):
                        node.input[position] = self._constant(node, name)
                elif name in self._floats and half != (name in self._half):
                    node.input[position] = self._cast(name, half)
        self._restore_outputs()
        self._graph.index()

    def _constant(self, node: onnx.NodeProto, name: str) -> str:
        if self._graph.constants[name].data_type != TensorProto.FLOAT:
            return name
        if name not in self._constants:
            value = self._graph.value(name)
            peak = float(np.abs(value).max(initial=0.0))
            if not peak <= _MAX:
                raise _beyond(node, f"constant {name}", peak)
            half = _half_scale(value) if node.op_type in _QUANTISERS else value.astype(np.float16)
            self._constants[name] = self._graph.add_constant(f"{name}_half", half)
        return self._constants[name]

    def _cast(self, name: str, half: bool) -> str:
        if name not in self._casts:
            kind = "half" if half else "float"
            output = self._graph.unused(f"{name}_{kind}")
            to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
            node = helper.make_node("Cast", [name], [output], name=f"{name}_to_{kind}", to=to)
            self._graph.insert_after(name, node)
            self._casts[name] = output
        return self._casts[name]

    def _rescale_weights(self, node: onnx.NodeProto) -> None:
        """Round integers anew where FP16 holds their scale with an error that would show."""
        weights, scale = node.input[0], node.input[1]
        if weights not in self._graph.constants or scale not in self._graph.constants:
            return
        old = self._graph.value(scale)
        factors = old / _half_scale(old).astype(np.float32)
        axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 1)
        integers = self._graph.value(weights)
        shape = [1] * integers.ndim
        if factors.ndim:
            shape[axis] = -1
        moved = np.rint(integers.astype(np.float32) * factors.reshape(shape))
        self._graph.set_value(weights, np.clip(moved, -127, 127).astype(np.int8))

    def _restore_outputs(self) -> None:
        for entry in self._graph.graph.output:
            if entry.name not in self._half:
                continue
            made = self._graph.unused(f"{entry.name}_half")
            self._graph.producers[entry.name].output[0] = made
            for reader in self._graph.consumers.get(entry.name, []):
                for position, name in enumerate(reader.input):
                    if name == entry.name:
                        reader.input[position] = made
            cast = helper.make_node(
                "Cast", [made], [entry.name], name=f"{entry.name}_to_float", to=TensorProto.FLOAT
            )
            self._graph.graph.node.append(cast)


def _takes_half(node: onnx.NodeProto, position: int) -> bool:
    """Return whether an input may be FP16: the scales of a Resize are FP32 by definition."""
    return node.op_type != "Resize" or position != 2


def _half_scale(scale: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Return scales as FP16: never 0, and never smaller where FP16 is coarse.

    Below its smallest normal number FP16 has steps of 6e-8; a scale rounded down there would clip
    the largest weights.
    """
    half = scale.astype(np.float16)
    up = np.nextafter(half, np.float16(np.inf))
    coarse = (scale < _SMALLEST_NORMAL) & (half.astype(np.float32) < scale)
    return np.where(coarse, up, half)
