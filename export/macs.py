"""Multiply-adds and weight bytes of an encoder: what its speed is measured against."""

from __future__ import annotations

from math import prod

import numpy as np
from onnx import numpy_helper

from .activations import observe
from .onnx_graph import WEIGHTED, OnnxGraph


def count_macs(model: bytes) -> int:
    """Count the multiply-adds of convolutions and matrix products for one image.

    Products of two activations (attention) count as well as those with constant weights. One
    image runs through the graph, since no shape inference sees through the reshapes of windows.

    Args:
        model: FP32 ONNX file.
    """
    graph = OnnxGraph(model)
    nodes = [node for node in graph if node.op_type in WEIGHTED]
    shapes = {name: tuple(constant.dims) for name, constant in graph.constants.items()}
    tensors = {name for node in nodes for name in (*node.input[:2], node.output[0])}
    side = graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    image = np.zeros((1, side, side, 3), np.uint8)
    for found in observe(model, sorted(tensors - set(shapes)), image):
        shapes |= {name: value.shape for name, value in found.items()}
    macs = 0
    for node in nodes:
        out, data, weights = (shapes[n] for n in (node.output[0], *node.input[:2]))
        if node.op_type == "Conv":
            macs += prod(out) * prod(weights[1:])
        elif node.op_type == "ConvTranspose":
            macs += prod(data) * prod(weights[1:])
        else:
            macs += prod(out) * data[-1]
    return macs


def weight_bytes(model: bytes) -> int:
    """Return the bytes of a file's constants: read at least once a call."""
    constants = OnnxGraph(model).constants.values()
    return sum(numpy_helper.to_array(constant).nbytes for constant in constants)
