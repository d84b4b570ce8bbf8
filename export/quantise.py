"""Prepared FP32 graph to static INT8 graph for the CPU.

ONNX Runtime's integer kernels for x86 take unsigned activations and signed weights (signed times
signed is an order of magnitude slower) and fuse an operator only where its output is quantised as
well as its inputs. Hence: uint8 activations with a free zero point, int8 weights per output
channel, Q/DQ at both ends of every operator that can take them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import onnx

from ..core.errors import InputError, S4GError
from .onnx_graph import WEIGHTED, OnnxGraph


def quantise_cpu(
    prepared: bytes,
    ranges: Mapping[str, tuple[float, float]],
    keep_float: Collection[str] = (),
    only: Collection[str] = (),
) -> bytes:
    """Quantise a prepared FP32 encoder for the CPU.

    Args:
        prepared: of `prepare.prepare`.
        ranges: (low, high) of every activation, of `ranges.choose_ranges`.
        keep_float: names of nodes that stay in float.
        only: names of the nodes to quantise; empty: all that can be.

    Raises:
        S4GError: a layer cannot be quantised; the message names it.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    graph = OnnxGraph(prepared)
    limits = {
        name: (np.array(low, np.float32), np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    with quiet():
        quantiser: Any = QDQQuantizer(
            graph.model,
            True,  # weights have a scale for each output channel
            False,
            QuantType.QInt8,
            QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, limits),
            list(only),
            [*keep_float, *unweighted_ends(graph)],
            sorted({*QLinearOpsRegistry, *QDQRegistry}),
            {},
        )
        try:
            quantiser.quantize_model()
        except Exception as error:  # ONNX Runtime raises ValueError, RuntimeError, KeyError, …
            reason = " ".join(str(error).split())
            raise S4GError(
                f"cannot be quantised ({reason}); keep the layer it names in float (--keep-float)"
            ) from error
    quantiser.model.topological_sort()  # it appends its pairs
    return _with_float_output(quantiser.model.model)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep ONNX Runtime's prints off stdout, and its remarks out of the log."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def matching_nodes(prepared: bytes, expression: str) -> tuple[str, ...]:
    """Return the names of the nodes that a regular expression finds; none where it is empty.

    Raises:
        InputError: it is not valid, matches no node, or matches every layer.
    """
    if not expression:
        return ()
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise InputError(f"--keep-float {expression}: not a regular expression ({error})") from None
    graph = OnnxGraph(prepared)
    names = tuple(node.name for node in graph if pattern.search(node.name))
    weighted = [node.name for node in graph.weighted()]
    if not names:
        raise InputError(
            f"--keep-float {expression}: matches no node; the first and last weighted nodes "
            f"are {weighted[0]} and {weighted[-1]}"
        )
    if not set(weighted) - set(names):
        raise InputError(f"--keep-float {expression}: matches every layer; leave out --int8")
    return names


def unweighted_ends(graph: OnnxGraph) -> list[str]:
    """Return the nodes with no weighted operator before them, or none after them.

    These are the normalisation of pixels and the final L2 norm: quantised, the first would lose
    what uint8 pixels hold exactly, the second would return vectors that are not of unit length.
    """
    weighted_inputs: set[str] = set()
    before = []
    for node in graph:
        if node.op_type in WEIGHTED or weighted_inputs.intersection(node.input):
            weighted_inputs.update(node.output)
        else:
            before.append(node.name)
    needed: set[str] = set()
    after = []
    for node in reversed(list(graph)):
        if node.op_type in WEIGHTED or needed.intersection(node.output):
            needed.update(node.input)
        else:
            after.append(node.name)
    return [*before, *after]


def _with_float_output(model: onnx.ModelProto) -> bytes:
    """Remove the Q/DQ pair after the last weighted operator: integers in, float embedding out.

    ONNX Runtime's integer kernels can return float, so the embedding need not be rounded to 256
    steps before it is normalised.
    """
    nodes = model.graph.node
    last = next(node for node in reversed(nodes) if node.op_type in WEIGHTED)
    quantise = [n for n in nodes if n.op_type == "QuantizeLinear" and n.input[0] == last.output[0]]
    rounded = {name for node in quantise for name in node.output}
    dequantise = [n for n in nodes if n.op_type == "DequantizeLinear" and n.input[0] in rounded]
    renamed = {node.output[0]: last.output[0] for node in dequantise}
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
    for node in [*quantise, *dequantise]:
        nodes.remove(node)
    graph = OnnxGraph(model)
    graph.drop_unused_constants()
    return graph.to_bytes()


# Integers reach these through DequantizeLinear, and they compute in float, or not at all.
_IN_FLOAT = frozenset({"Cast", "LayerNormalization", "QuantizeLinear", "Shape", "Softmax"})


def count_quantised(model: bytes) -> dict[str, int]:
    """Count, per operator type, the nodes fed by integers (weighted ones: data and weights)."""
    graph = OnnxGraph(model)
    dequantised = {n.output[0] for n in graph if n.op_type == "DequantizeLinear"}
    counts: dict[str, int] = {}
    for node in graph:
        fed_by = node.input[: 2 if node.op_type in WEIGHTED else 1]
        if node.op_type not in _IN_FLOAT and fed_by and dequantised.issuperset(fed_by):
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return dict(sorted(counts.items()))
