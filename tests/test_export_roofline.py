"""Limits of a CPU: what is run to find them, and what follows from them."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from s4g.export import roofline
from s4g.export.roofline import Product, Roofline, fp32_products, int8_products, measure_roofline

LIMIT = Roofline(1, int8_gmacs_per_s=200, fp32_gmacs_per_s=50, memory_gbytes_per_s=10)


@pytest.mark.parametrize(
    ("precision", "macs", "weights", "gmacs_per_s"),
    [
        ("int8", 1e9, None, 200),
        ("fp32", 1e9, None, 50),
        ("int8", 1e9, 10e6, 200),  # 100 multiply-adds for each byte: arithmetic is the limit
        ("int8", 1e9, 100e6, 100),  # 10 for each byte of a memory of 10 GB/s
        ("fp32", 1e9, 400e6, 25),
    ],
)
def test_the_roofline_is_the_lower_of_arithmetic_and_memory(
    precision: str, macs: float, weights: float | None, gmacs_per_s: float
) -> None:
    assert LIMIT.attainable_gmacs_per_s(precision, macs, weights) == gmacs_per_s


def test_a_precision_that_was_not_measured_has_no_limit() -> None:
    assert LIMIT.attainable_gmacs_per_s("fp16", 1e9, None) is None


PRODUCTS = [*int8_products(), *fp32_products()]


@pytest.mark.parametrize("product", PRODUCTS, ids=range(len(PRODUCTS)))
def test_products_do_the_work_that_is_counted(product: Product) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx counts the work again")
    model = onnx.load_from_string(product.model)
    weights = next(i for i in model.graph.initializer if i.name == "w")
    session = ort.InferenceSession(product.model, providers=["CPUExecutionProvider"])
    y = session.run(None, {"x": product.x})[0]
    per_output = np.prod(weights.dims[1:]) if y.ndim == 4 else weights.dims[0]
    assert product.macs == y.size * per_output


def test_the_fastest_product_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def rate(product: Product, threads: int) -> float:
        asked.append(threads)
        return float(product.macs)

    monkeypatch.setattr(roofline, "_rate", rate)
    monkeypatch.setattr(roofline, "_COPIED_BYTES", 1 << 16)
    found = measure_roofline(2)
    assert set(asked) == {2}
    assert found.int8_gmacs_per_s == max(p.macs for p in int8_products())
    assert found.fp32_gmacs_per_s == max(p.macs for p in fp32_products())
    assert found.memory_gbytes_per_s > 0


def test_a_rate_is_the_fastest_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0, 4, 10, 12, 20, 23])  # runs of 4, 2 and 3 seconds
    monkeypatch.setattr(roofline, "_RUNS", 3)
    monkeypatch.setattr(roofline.time, "perf_counter", lambda: next(clock))
    product = next(int8_products())
    assert roofline._rate(product, 1) == pytest.approx(product.macs / 2e9)
