"""ONNX models written by hand: what onnx and ONNX Runtime make of them."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.export.tiny_onnx import Array, one_operator

onnx = pytest.importorskip("onnx", reason="the export extra checks what is written")


def run(model: bytes, x: Array) -> Array:
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    result: Array = session.run(None, {"x": x})[0]
    return result


@given(st.integers(1, 300), st.integers(1, 200), st.integers(1, 20))
def test_an_integer_product_is_numpys(rows: int, depth: int, columns: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (rows, depth), dtype=np.uint8)
    w = rng.integers(-128, 128, (depth, columns), dtype=np.int8)
    inputs = {"x": ("uint8", x.shape), "w": w}
    found = run(one_operator("MatMulInteger", inputs, ("int32", (rows, columns))), x)
    assert np.array_equal(found, x.astype(np.int32) @ w.astype(np.int32))


def test_attributes_reach_the_operator() -> None:
    x = np.ones((1, 1, 4, 4), np.float32)
    w = np.ones((1, 1, 3, 3), np.float32)
    inputs = {"x": ("float32", x.shape), "w": w}
    found = run(one_operator("Conv", inputs, ("float32", x.shape), pads=[1, 1, 1, 1]), x)
    assert found[0, 0].tolist() == [[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]]


def test_scalars_are_constants_without_sizes() -> None:
    x = np.array([[1, 2]], np.float32)
    inputs = {"x": ("float32", x.shape), "w": np.array(3, np.float32)}
    assert run(one_operator("Mul", inputs, ("float32", x.shape)), x).tolist() == [[3, 6]]


def test_big_endian_arrays_are_written_little_endian() -> None:
    x = np.zeros((1, 2), np.float32)
    inputs = {"x": ("float32", x.shape), "w": np.array([[1, 2]], ">f4")}
    assert run(one_operator("Add", inputs, ("float32", x.shape)), x).tolist() == [[1, 2]]
