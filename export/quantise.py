"""FP32 ONNX to static INT8 ONNX for the CPU, calibrated on tiles of real ground.

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
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from .graph import INPUT_NAME

METHODS = ("minmax", "percentile", "entropy")
PERCENTILE = 99.99  # share of each activation's histogram that stays unclipped
# Operators with weights: what lies before the first or after the last one stays in float.
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Activations of so many images are held in memory at once.
_MAX_STRIDE = 16


@dataclass(frozen=True)
class Quantised:
    """An INT8 model.

    Attributes:
        model: the ONNX file.
        kept_float: names of the nodes that `keep_float` matched.
        quantised: how many nodes of each operator type run in INT8.
    """

    model: bytes
    kept_float: tuple[str, ...]
    quantised: dict[str, int]


def quantise_cpu(
    model: bytes, tiles: npt.NDArray[np.uint8], method: str = "minmax", keep_float: str = ""
) -> Quantised:
    """Quantise an FP32 encoder for the CPU.

    Args:
        model: FP32 ONNX file of `graph.export_graph`.
        tiles: (N, H, W, 3) uint8, what activations are measured on.
        method: how an activation's range is chosen: one of `METHODS`.
        keep_float: regular expression; nodes whose name it matches stay in float.

    Raises:
        InputError: the expression is not valid or matches no node.
    """
    from onnxruntime import quantization as ort_quantization

    pattern = _compiled(keep_float)
    with tempfile.TemporaryDirectory(prefix="s4g-quantise-") as folder:
        prepared, output = Path(folder, "prepared.onnx"), Path(folder, "int8.onnx")
        graph = _prepare(model, prepared)
        kept = _matching(graph, pattern) if pattern else ()
        excluded = [*kept, *_unweighted_ends(graph)]
        calibration = {
            "minmax": ort_quantization.CalibrationMethod.MinMax,
            "percentile": ort_quantization.CalibrationMethod.Percentile,
            "entropy": ort_quantization.CalibrationMethod.Entropy,
        }[method]
        with _quiet():
            ort_quantization.quantize_static(
                prepared,
                output,
                _TileReader(tiles),
                quant_format=ort_quantization.QuantFormat.QDQ,
                activation_type=ort_quantization.QuantType.QUInt8,
                weight_type=ort_quantization.QuantType.QInt8,
                per_channel=True,
                calibrate_method=calibration,
                nodes_to_exclude=excluded,
                extra_options={
                    "CalibPercentile": PERCENTILE,
                    "CalibStridedMinMax": _stride(len(tiles)),
                },
            )
        quantised = _with_float_output(output.read_bytes())
    return Quantised(quantised, kept, _count_quantised(quantised))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the calibrator's prints off stdout, and its remarks on LayerNorm out of the log."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


class _TileReader:
    """Feeds tiles to ONNX Runtime's calibrator, one at a time."""

    def __init__(self, tiles: npt.NDArray[np.uint8]) -> None:
        self._tiles = tiles
        self.set_range(0, len(tiles))

    def __len__(self) -> int:
        return len(self._tiles)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._range: Iterator[int] = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        index = next(self._range, None)
        return None if index is None else {INPUT_NAME: self._tiles[index : index + 1]}


def _stride(count: int) -> int:
    # The calibrator wants a divisor; it collects that many images before it merges their ranges.
    return max(d for d in range(1, _MAX_STRIDE + 1) if count % d == 0)


def _prepare(model: bytes, output: Path) -> Any:
    """Fold constants and batch norm, infer shapes, name every node; return the graph."""
    import onnx
    from onnxruntime.quantization import quant_pre_process

    source = output.with_name("fp32.onnx")
    source.write_bytes(model)
    quant_pre_process(str(source), str(output), skip_symbolic_shape=True)
    proto = onnx.load(str(output))
    for index, node in enumerate(proto.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    onnx.save(proto, str(output))
    return proto.graph


def _compiled(expression: str) -> re.Pattern[str] | None:
    try:
        return re.compile(expression) if expression else None
    except re.error as error:
        raise InputError(f"--keep-float {expression}: not a regular expression ({error})") from None


def _matching(graph: Any, pattern: re.Pattern[str]) -> tuple[str, ...]:
    names = tuple(node.name for node in graph.node if pattern.search(node.name))
    if not names:
        weighted = [node.name for node in graph.node if node.op_type in _WEIGHTED]
        raise InputError(
            f"--keep-float {pattern.pattern}: matches no node; the first and last weighted nodes "
            f"are {weighted[0]} and {weighted[-1]}"
        )
    if not any(node.op_type in _WEIGHTED and node.name not in names for node in graph.node):
        raise InputError(f"--keep-float {pattern.pattern}: matches every layer; leave out --int8")
    return names


def _unweighted_ends(graph: Any) -> list[str]:
    """Return the nodes with no weighted operator before them, or none after them.

    These are the normalisation of pixels and the final L2 norm: quantised, the first would lose
    what uint8 pixels hold exactly, the second would return vectors that are not of unit length.
    """
    weighted_inputs: set[str] = set()
    before = []
    for node in graph.node:  # in topological order, as ONNX requires
        if node.op_type in _WEIGHTED or weighted_inputs.intersection(node.input):
            weighted_inputs.update(node.output)
        else:
            before.append(node.name)
    needed: set[str] = set()
    after = []
    for node in reversed(graph.node):
        if node.op_type in _WEIGHTED or needed.intersection(node.output):
            needed.update(node.input)
        else:
            after.append(node.name)
    return [*before, *after]


def _with_float_output(model: bytes) -> bytes:
    """Remove the Q/DQ pair after the last weighted operator: integers in, float embedding out.

    ONNX Runtime's integer kernels can return float, so the embedding need not be rounded to 256
    steps before it is normalised.
    """
    import onnx

    proto = onnx.load_from_string(model)
    nodes = proto.graph.node
    last = next(node for node in reversed(nodes) if node.op_type in _WEIGHTED)
    quantise = [n for n in nodes if n.op_type == "QuantizeLinear" and n.input[0] == last.output[0]]
    rounded = {name for node in quantise for name in node.output}
    dequantise = [n for n in nodes if n.op_type == "DequantizeLinear" and n.input[0] in rounded]
    renamed = {node.output[0]: last.output[0] for node in dequantise}
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
    for node in [*quantise, *dequantise]:
        nodes.remove(node)
    used = {name for node in nodes for name in node.input}
    for constant in [c for c in proto.graph.initializer if c.name not in used]:
        proto.graph.initializer.remove(constant)
    result: bytes = proto.SerializeToString(deterministic=True)
    return result


def _count_quantised(model: bytes) -> dict[str, int]:
    """Count, per operator type, the nodes fed by integers (weighted ones: data and weights)."""
    import onnx

    graph = onnx.load_from_string(model).graph
    dequantised = {
        name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output
    }
    counts: dict[str, int] = {}
    for node in graph.node:
        fed_by = node.input[: 2 if node.op_type in _WEIGHTED else 1]
        if node.op_type != "QuantizeLinear" and fed_by and dequantised.issuperset(fed_by):
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return dict(sorted(counts.items()))
