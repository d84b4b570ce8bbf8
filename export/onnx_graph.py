"""An ONNX graph with its edges: who makes a tensor, who reads it, what its constant value is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Array = npt.NDArray[Any]

# Operators that multiply data by constant weights: where INT8 pays.
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Operators that move numbers without changing them.
LAYOUT = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
# Functions of one number that kernels compute on their way out of a convolution.
ACTIVATIONS = frozenset(
    {"Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Relu", "Sigmoid"}
    | {"Softplus", "Tanh"}
)


class OnnxGraph:
    """A model's main graph, indexed; edit it through these methods, or call `index` afterwards.

    Attributes:
        model: the ModelProto, edited in place.
        graph: its main graph.
    """

    def __init__(self, model: bytes | onnx.ModelProto) -> None:
        """Parse the file's bytes, or take a parsed model."""
        self.model = onnx.load_from_string(model) if isinstance(model, bytes) else model
        self.graph = self.model.graph
        self.index()

    def index(self) -> None:
        """Find producers, consumers and constants again, after nodes were edited by hand."""
        self.constants = {c.name: c for c in self.graph.initializer}
        self.producers: dict[str, onnx.NodeProto] = {}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.output:
                self.producers[name] = node
            for name in dict.fromkeys(node.input):
                self.consumers.setdefault(name, []).append(node)
        self._outputs = {output.name for output in self.graph.output}

    def __iter__(self) -> Iterator[onnx.NodeProto]:
        """Yield the nodes in topological order, as ONNX requires of a file."""
        yield from self.graph.node

    def weighted(self) -> list[onnx.NodeProto]:
        """Return the nodes that multiply by constant weights, in order."""
        return [n for n in self if n.op_type in WEIGHTED and n.input[1] in self.constants]

    def value(self, name: str) -> Array:
        """Return a constant as an array (a copy)."""
        return np.array(numpy_helper.to_array(self.constants[name]))

    def set_value(self, name: str, value: Array) -> None:
        """Replace a constant that already exists."""
        self.constants[name].CopyFrom(numpy_helper.from_array(np.asarray(value, order="C"), name))

    def add_constant(self, wanted: str, value: Array) -> str:
        """Add a constant under a name made from `wanted`; return the name."""
        name = self.unused(wanted)
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        self.constants[name] = self.graph.initializer[-1]
        return name

    def unused(self, wanted: str) -> str:
        """Return `wanted`, or `wanted_2`, …: a name that no tensor has yet."""
        name, number = wanted, 1
        while name in self.constants or name in self.producers or name in self.consumers:
            number += 1
            name = f"{wanted}_{number}"
        return name

    def sole_consumer(self, name: str) -> onnx.NodeProto | None:
        """Return the only reader of a tensor; None where there are several or it is an output."""
        readers = self.consumers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self._outputs else None

    def own_constant(self, node: onnx.NodeProto, position: int) -> str:
        """Return the name of a node's constant input, copied first where others share it."""
        name = node.input[position]
        if self.sole_consumer(name) is None or list(node.input).count(name) > 1:
            name = self.add_constant(f"{name}_of_{node.name}", self.value(name))
            node.input[position] = name
            self.index()
        return str(name)

    def insert_after(self, tensor: str, node: onnx.NodeProto) -> None:
        """Put a node behind the one that makes `tensor`, or first where no node makes it."""
        maker = self.producers.get(tensor)
        names = [n.output[0] for n in self.graph.node]
        position = 0 if maker is None else names.index(maker.output[0]) + 1
        self.graph.node.insert(position, node)
        self.index()

    def shapes(self) -> dict[str, list[int]]:
        """Return the known shapes of tensors and constants; a free length is 0."""
        known = [*self.graph.value_info, *self.graph.input, *self.graph.output]
        shapes = {
            v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
            for v in known
            if v.type.tensor_type.HasField("shape")
        }
        return shapes | {name: list(constant.dims) for name, constant in self.constants.items()}

    def drop_unused_constants(self) -> None:
        """Remove constants that no node reads."""
        for constant in [c for c in self.graph.initializer if c.name not in self.consumers]:
            self.graph.initializer.remove(constant)
        self.index()

    def to_bytes(self) -> bytes:
        """Return the file's bytes; the same model gives the same bytes."""
        data: bytes = self.model.SerializeToString(deterministic=True)
        return data


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Return an attribute of a node as a Python value."""
    for entry in node.attribute:
        if entry.name == name:
            return onnx.helper.get_attribute_value(entry)
    return default
