"""ONNX models of a single operator, written without the onnx package, which no drone has.

Only the few fields of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto) that such
a model needs; their numbers stand beside the calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

_OPSET = 13
_IR_VERSION = 8
_INTS_ATTRIBUTE = 7  # AttributeProto.AttributeType.INTS
# TensorProto.DataType of the element types used here.
_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6}

Array = npt.NDArray[Any]
Kind = tuple[str, tuple[int, ...]]  # element type and shape


def one_operator(
    operator: str, inputs: Mapping[str, Kind | Array], output: Kind, **attributes: list[int]
) -> bytes:
    """Return an ONNX file that applies one operator.

    Args:
        operator: name in ONNX's own domain, opset 13.
        inputs: in the operator's order; element type and shape of what is fed at run time, the
            array itself of a constant.
        output: of the output, which is named `y`.
        attributes: lists of whole numbers.
    """
    node = b"".join(_field(1, name) for name in inputs)  # NodeProto.input
    node += _field(2, "y") + _field(4, operator)  # output, op_type
    node += b"".join(_field(5, _attribute(*pair)) for pair in attributes.items())  # attribute
    graph = _field(1, node) + _field(2, operator)  # GraphProto.node, name
    for name, given in inputs.items():
        if isinstance(given, tuple):
            graph += _field(11, _value(name, given))  # input
        else:
            graph += _field(5, _tensor(name, given))  # initializer
    graph += _field(12, _value("y", output))  # output
    opset = _field(1, "") + _field(2, _OPSET)  # OperatorSetIdProto.domain, version
    # ModelProto.ir_version, graph, opset_import
    return _field(1, _IR_VERSION) + _field(7, graph) + _field(8, opset)


def _attribute(name: str, values: list[int]) -> bytes:
    """AttributeProto: name, ints, type."""
    ints = b"".join(_field(8, value) for value in values)
    return _field(1, name) + ints + _field(20, _INTS_ATTRIBUTE)


def _tensor(name: str, values: Array) -> bytes:
    """TensorProto: dims, data_type, name, raw_data (little endian)."""
    dims = b"".join(_field(1, size) for size in values.shape)
    raw = values.astype(values.dtype.newbyteorder("<")).tobytes()
    return dims + _field(2, _TYPES[values.dtype.name]) + _field(8, name) + _field(9, raw)


def _value(name: str, kind: Kind) -> bytes:
    """ValueInfoProto: name, type; TypeProto.tensor_type: elem_type, shape; dim: dim_value."""
    element, shape = kind
    sizes = b"".join(_field(1, _field(1, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, _TYPES[element]) + _field(2, sizes)))


def _field(number: int, value: int | str | bytes) -> bytes:
    """Return one field on the wire: key and varint, or key, length and bytes."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    """Return a whole number of at least 0 in groups of seven bits, lowest first."""
    groups = []
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
