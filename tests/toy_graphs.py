"""Small ONNX encoders written as text, for tests of what reads and rewrites graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def encoder(nodes: str, px: int = 8, **constants: npt.ArrayLike) -> bytes:
    """Return an ONNX file: `images` (batch, px, px, 3) uint8 to unit-length `embeddings`.

    Args:
        nodes: in ONNX's textual syntax, from `pixels` (batch, 3, px, px) in [-1, 1] to `features`
            (batch, D). A node is named after its first output.
        px: side of the images.
        constants: of the nodes, by name; whole numbers become int64, others float32.
    """
    import onnx

    model = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["": 20]>
        encoder (uint8[batch, {px}, {px}, 3] images) => (float[batch, dim] embeddings) {{
            planes = Transpose <perm = [0, 3, 1, 2]> (images)
            grey = Cast <to = 1> (planes)
            shifted = Sub(grey, middle)
            pixels = Mul(shifted, unit)
            {nodes}
            norm = ReduceL2 <keepdims = 1> (features, last_axis)
            embeddings = Div(features, norm)
        }}"""
    )
    for node in model.graph.node:
        node.name = node.output[0]
    values: dict[str, npt.ArrayLike] = {"middle": 127.5, "unit": 1 / 127.5, "last_axis": [-1]}
    for name, value in (values | constants).items():
        array = np.asarray(value)
        kind = np.int64 if array.dtype.kind == "i" else np.float32
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(kind), name))
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def images(count: int, px: int = 8, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return (count, px, px, 3) uint8: noise of every brightness."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (count, px, px, 3))
    return np.asarray(noise * rng.uniform(0.3, 1, (count, 1, 1, 3)), np.uint8)


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> npt.NDArray[np.float32]:
    """Return normally distributed float32 numbers."""
    return np.asarray(scale * np.random.default_rng(seed).standard_normal(shape), np.float32)


def run(model: bytes, tensors: list[str], batch: npt.NDArray[np.uint8]) -> list[Any]:
    """Return the named tensors, with every optimisation off."""
    import onnx
    import onnxruntime as ort

    proto = onnx.load_from_string(model)
    del proto.graph.output[:]
    for name in tensors:
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(None, {"images": batch}))
