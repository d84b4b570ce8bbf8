"""Faults that TensorRT would find in an INT8 or FP16 graph, or hide in a slow engine.

No TensorRT runs here: its rules are read off its parser (onnx-tensorrt), its documentation of
strongly typed networks and of Q/DQ placement. Nothing is shared with `place_tensorrt` but the
lists of operators, so that a mistake there is found here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto

from ..core.errors import IntegrityError, S4GError
from .onnx_graph import ACTIVATIONS, LAYOUT, WEIGHTED, OnnxGraph, attribute

# 19 is the first where Q/DQ take FP16 scales, 20 the last that TensorRT 10.3 reads.
OPSETS = (19, 20)
# What the parser of TensorRT 9.2 takes (onnx-tensorrt, its list of operators), and Gelu, which came
# with opset 20 in TensorRT 10.
_NAMES = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast
    CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum
    DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor
    Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater
    GreaterOrEqual GridSample GroupNormalization GRU HardSigmoid HardSwish Hardmax Identity If
    InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
    Loop LpNormalization LpPool LRN LSTM MatMul Max MaxPool Mean MeanVarianceNormalization Min Mod
    Mul Neg NonMaxSuppression NonZero Not OneHot Or Pad Pow PRelu QuantizeLinear RandomNormal
    RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2
    ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape Resize ReverseSequence RNN RoiAlign Round Scan Scatter
    ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus
    Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose
    Trilu Unsqueeze Upsample Where Xor
"""
OPERATORS = frozenset(_NAMES.split())
# Sums of many numbers or of squares, which overflow in FP16.
_SUMS = frozenset(
    {"GlobalAveragePool", "LayerNormalization", "ReduceL2", "ReduceMean", "ReduceSum"}
    | {"ReduceSumSquare", "Softmax"}
)


def check_tensorrt(model: bytes, file: str) -> None:
    """Refuse a graph that `lint_tensorrt` finds fault with; `file` names it.

    Raises:
        S4GError: the first fault, and how many there are.
        IntegrityError: it is no ONNX file.
    """
    try:
        faults = lint_tensorrt(model)
    except DecodeError:
        raise IntegrityError(f"{file}: is no ONNX file, or damaged; export it again") from None
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise S4GError(
            f"{file}: not legal for TensorRT: {faults[0]}{more}; this is a fault of the export, "
            "report it with the checkpoint's backbone"
        )


def lint_tensorrt(model: bytes) -> list[str]:
    """Return the faults of a graph for strongly typed TensorRT, one line each; empty: none.

    Each line names the node, what was seen and what was wanted.
    """
    return list(_Lint(model).faults())


class _Lint:
    """One graph under inspection."""

    def __init__(self, model: bytes) -> None:
        self._graph = OnnxGraph(model)
        self._typed = onnx.shape_inference.infer_shapes(self._graph.model)
        graph = self._typed.graph
        self._types = {
            value.name: value.type.tensor_type.elem_type
            for value in [*graph.value_info, *graph.input, *graph.output]
        }
        self._types |= {name: c.data_type for name, c in self._graph.constants.items()}
        self._opset = max((o.version for o in self._typed.opset_import if not o.domain), default=0)
        self._before_layers = self._upstream()
        self._behind_layers = self._downstream()

    def _upstream(self) -> set[str]:
        """Return the tensors that some layer reads, directly or not."""
        found: set[str] = set()
        for node in reversed(list(self._graph)):
            if node.op_type in WEIGHTED or found.intersection(node.output):
                found.update(node.input)
        return found

    def _downstream(self) -> set[str]:
        """Return the tensors that some layer has a part in."""
        found: set[str] = set()
        for node in self._graph:
            if node.op_type in WEIGHTED or found.intersection(node.input):
                found.update(node.output)
        return found

    def faults(self) -> Iterator[str]:
        """Yield every fault."""
        low, high = OPSETS
        if not low <= self._opset <= high:
            yield f"the file: has opset {self._opset}, wanted {low} to {high}"
        yield from self._interface_faults()
        yield from self._type_faults()
        for node in self._graph:
            if node.domain or node.op_type not in OPERATORS:
                kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
                yield _fault(node, f"{kind} is unknown to TensorRT's parser", "another operator")
            elif node.op_type == "QuantizeLinear":
                yield from self._quantise_faults(node)
            elif node.op_type == "DequantizeLinear":
                yield from self._dequantise_faults(node)
            elif node.op_type in WEIGHTED:
                yield from self._layer_faults(node)
            elif node.op_type in ACTIVATIONS:
                yield from self._activation_faults(node)
            elif node.op_type == "LayerNormalization":
                yield from self._norm_faults(node)
            elif node.op_type == "Add":
                yield from self._sum_faults(node)

    def _interface_faults(self) -> Iterator[str]:
        for entry in self._typed.graph.input:
            for axis, length in enumerate(entry.type.tensor_type.shape.dim):
                if axis > 0 and not length.HasField("dim_value"):
                    yield f"input {entry.name}: axis {axis} has no length, wanted a fixed one"
            if entry.type.tensor_type.elem_type == TensorProto.UINT8:
                for reader in self._graph.consumers.get(entry.name, []):
                    if reader.op_type != "Cast":
                        yield _fault(reader, f"reads the uint8 input {entry.name}", "a Cast first")
        for entry in self._typed.graph.output:
            kind = entry.type.tensor_type.elem_type
            if kind != TensorProto.FLOAT:
                yield f"output {entry.name}: is {_name(kind)}, wanted FLOAT"

    def _type_faults(self) -> Iterator[str]:
        try:
            onnx.shape_inference.infer_shapes(self._graph.model, check_type=True, strict_mode=True)
        except onnx.shape_inference.InferenceError as error:
            yield f"the file: types or shapes that do not fit ({' '.join(str(error).split())})"
        for node in self._graph:
            if node.op_type in _SUMS and self._types.get(node.input[0]) == TensorProto.FLOAT16:
                yield _fault(node, "adds up in FLOAT16", "a Cast to FLOAT first")

    def _quantise_faults(self, node: onnx.NodeProto) -> Iterator[str]:
        readers = self._graph.consumers.get(node.output[0], [])
        for reader in readers:
            if reader.op_type != "DequantizeLinear":
                seen = f"{reader.op_type} {_label(reader)} reads its integers"
                yield _fault(node, seen, "nothing but DequantizeLinear")
        if not readers:
            yield _fault(node, "nothing reads its integers", "a DequantizeLinear")
        yield from self._zero_point_faults(node)
        yield from self._scale_faults(node)
        if node.input[0] not in self._graph.constants:
            yield from self._end_faults(node, readers)

    def _end_faults(
        self, node: onnx.NodeProto, dequantisers: list[onnx.NodeProto]
    ) -> Iterator[str]:
        """Find rounding of the picture before the first layer, and of the embedding."""
        readers = [r for d in dequantisers for r in self._graph.consumers.get(d.output[0], [])]
        if node.input[0] not in self._behind_layers:
            if any(reader.op_type not in WEIGHTED for reader in readers):
                yield _fault(node, "rounds pixels before the first layer", "them in float")
        # The skip branch of the last block is rounded for a sum alone.
        elif not self._before_layers.intersection(d.output[0] for d in dequantisers) and not all(
            reader.op_type == "Add" for reader in readers
        ):
            yield _fault(node, "rounds what no layer reads any more", "it in float")

    def _dequantise_faults(self, node: onnx.NodeProto) -> Iterator[str]:
        maker = self._graph.producers.get(node.input[0])
        if maker is not None and maker.op_type == "QuantizeLinear":
            if not self._same(maker.input[1], node.input[1]):
                yield _fault(node, "has another scale than its QuantizeLinear", "the same")
        elif node.input[0] not in self._graph.constants:
            yield _fault(node, f"reads {node.input[0]}", "a QuantizeLinear before it")
        else:
            kind = self._types[node.input[0]]
            if kind != TensorProto.INT8:
                yield _fault(node, f"dequantises {_name(kind)}", "INT8")
            else:
                yield from self._zero_point_faults(node)
                yield from self._scale_faults(node)

    def _same(self, first: str, second: str) -> bool:
        known = first in self._graph.constants and second in self._graph.constants
        return first == second or (
            known and np.array_equal(self._graph.value(first), self._graph.value(second))
        )

    def _zero_point_faults(self, node: onnx.NodeProto) -> Iterator[str]:
        name = node.input[2] if len(node.input) > 2 else ""
        if name not in self._graph.constants:
            yield _fault(node, "has no constant zero point", "INT8 zeros")
        elif self._types[name] != TensorProto.INT8:
            yield _fault(node, f"has a zero point of {_name(self._types[name])}", "INT8")
        elif (value := self._graph.value(name)).any():
            yield _fault(node, f"has zero point {value[value != 0].flat[0]}", "0")

    def _scale_faults(self, node: onnx.NodeProto) -> Iterator[str]:
        if node.input[1] not in self._graph.constants:
            yield _fault(node, "computes its scale", "a constant")
            return
        scale = self._graph.value(node.input[1])
        for value in scale[~(np.isfinite(scale) & (scale > 0))].flat[:1]:
            yield _fault(node, f"has a scale of {value:g}", "positive finite ones")
        if node.input[0] not in self._graph.constants:
            if scale.size != 1:
                yield _fault(node, f"has {scale.size} scales for an activation", "1")
            return
        shape = self._graph.constants[node.input[0]].dims
        for layer in self._layers_fed(node):
            axis = _channel_axis(layer, len(shape))
            weights = f"for the weights of {_label(layer)}"
            if scale.shape != (shape[axis],):
                seen = f"has {scale.size} scale{'s' * (scale.size > 1)} {weights}"
                yield _fault(node, seen, f"{shape[axis]}, one for each output channel")
            elif (given := attribute(node, "axis", 1)) % len(shape) != axis:
                yield _fault(node, f"has scales along axis {given} {weights}", f"axis {axis}")

    def _layers_fed(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Return the layers whose weights come out of a DequantizeLinear, or a Q and its DQ."""
        makers = [node]
        if node.op_type == "QuantizeLinear":
            makers = self._graph.consumers.get(node.output[0], [])
        return [
            reader
            for maker in makers
            for reader in self._graph.consumers.get(maker.output[0], [])
            if reader.op_type in WEIGHTED and reader.input[1] == maker.output[0]
        ]

    def _dequantiser(self, tensor: str) -> onnx.NodeProto | None:
        """Return the DequantizeLinear that a tensor comes from, through Cast and layout."""
        node = self._graph.producers.get(tensor)
        while node is not None and (node.op_type == "Cast" or node.op_type in LAYOUT):
            node = self._graph.producers.get(node.input[0])
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def _is_quantised(self, node: onnx.NodeProto) -> bool:
        return node.op_type in WEIGHTED and self._dequantiser(node.input[0]) is not None

    def _layer_faults(self, node: onnx.NodeProto) -> Iterator[str]:
        data, weights = (self._dequantiser(name) is not None for name in node.input[:2])
        if data != weights:
            rounded, exact = ("data", "weights") if data else ("weights", "data")
            yield _fault(node, f"has {rounded} in INT8 and {exact} in float", "both in INT8")
        bias = self._dequantiser(node.input[2]) if len(node.input) > 2 else None
        if bias is not None and self._types.get(bias.input[0]) == TensorProto.INT8:
            yield _fault(node, "has a bias in INT8", "a bias in float")

    def _activation_faults(self, node: onnx.NodeProto) -> Iterator[str]:
        """Find pairs that keep a layer and its activation out of one kernel."""
        pair = self._dequantiser(node.input[0])
        maker = None if pair is None else self._graph.producers.get(pair.input[0])
        layer = None if maker is None else self._behind(maker.input[0])
        if layer is not None and layer.op_type in WEIGHTED:
            seen = f"a Q/DQ pair stands between {layer.op_type} {_label(layer)} and it"
            yield _fault(node, seen, "none: one kernel computes both")

    def _norm_faults(self, node: onnx.NodeProto) -> Iterator[str]:
        layer = self._behind(node.input[0])
        leads_on = node.output[0] in self._before_layers
        if layer is not None and self._is_quantised(layer) and leads_on:
            seen = f"reads {layer.op_type} {_label(layer)} in float"
            yield _fault(node, seen, "a Q/DQ pair between")

    def _sum_faults(self, node: onnx.NodeProto) -> Iterator[str]:
        if any(name in self._graph.constants for name in node.input):
            return
        rounded = [self._dequantiser(name) is not None for name in node.input]
        fused = next(filter(None, (self._fused_layer(name) for name in node.input)), None)
        if all(rounded):
            yield _fault(node, "both its inputs are rounded", "the skip branch alone")
        elif fused is not None and not any(rounded):
            seen = f"adds float to {fused.op_type} {_label(fused)}"
            yield _fault(node, seen, "a Q/DQ pair on the skip branch")

    def _behind(self, tensor: str) -> onnx.NodeProto | None:
        """Return the node that makes a tensor, up to layout, casts and constant sums."""
        node = self._graph.producers.get(tensor)
        while node is not None and (source := self._source(node)) is not None:
            node = self._graph.producers.get(source)
        return node

    def _fused_layer(self, tensor: str) -> onnx.NodeProto | None:
        """Return the quantised layer whose kernel could add to this tensor, else None."""
        while self._graph.sole_consumer(tensor) is not None:
            node = self._graph.producers.get(tensor)
            if node is None or self._is_quantised(node):
                return node
            source = node.input[0] if node.op_type in ACTIVATIONS else self._source(node)
            if source is None:
                return None
            tensor = source
        return None

    def _source(self, node: onnx.NodeProto) -> str | None:
        """Return what a node passes on: layout, casts, sums and products with a constant."""
        data = [name for name in node.input if name not in self._graph.constants]
        constant = node.op_type in ("Add", "Mul") and len(data) == 1
        passes = node.op_type in LAYOUT or node.op_type == "Cast" or constant
        return str(data[0]) if passes else None


def _channel_axis(layer: onnx.NodeProto, rank: int) -> int:
    """Return the axis of output channels in a layer's weights."""
    if layer.op_type in ("Conv", "ConvTranspose"):
        return 0 if layer.op_type == "Conv" else 1
    return 0 if layer.op_type == "Gemm" and attribute(layer, "transB", 0) else rank - 1


def _label(node: onnx.NodeProto) -> str:
    return str(node.name or node.output[0])


def _name(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind))


def _fault(node: onnx.NodeProto, seen: str, wanted: str) -> str:
    return f"{node.op_type} {_label(node)}: {seen}, wanted {wanted}"
