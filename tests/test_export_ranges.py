"""Ranges of activations: what calibration sees, and what each method makes of it."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

pytest.importorskip("torch", reason="export needs torch (the export extra)")
pytest.importorskip("onnx", reason="export needs onnx (the export extra)")

from s4g.core.errors import S4GError
from s4g.export.onnx_graph import OnnxGraph
from s4g.export.ranges import (
    METHODS,
    Histogram,
    Histograms,
    choose_ranges,
    least_error,
    least_symmetric_error,
    measure,
)

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_graphs.py"))))

Floats = npt.NDArray[np.float64]

NET = """
    a = Conv(pixels, w, bias)
    r = Relu(a)
    z = Mul(r, zero)
    y = Add(z, r)
    features = ReduceMean <keepdims = 0> (y, space)
"""


def net(bias: npt.ArrayLike = (0.0, 1.0, -1.0, 0.5)) -> bytes:
    model: bytes = toy.encoder(
        NET, w=toy.normal(4, 3, 1, 1), bias=np.asarray(bias), zero=0.0, space=[2, 3]
    )
    return model


def silent(count: int) -> None:
    pass


def histogram(values: npt.ArrayLike, bins: int = 2048) -> Histogram:
    """Return what `measure` makes of the values, seen at once."""
    array = np.asarray(values, np.float64)
    limit = np.abs(array).max()
    counts, edges = np.histogram(array, bins, range=(-limit, limit))
    low, high = float(array.min()), float(array.max())
    return Histogram(counts.astype(np.float64), edges.astype(np.float64), low, high)


def chosen(values: npt.ArrayLike, method: str) -> tuple[float, float]:
    return choose_ranges({"x": histogram(values)}, method)["x"]


def squared_error(values: Floats, low: float, high: float) -> float:
    """Quantise to uint8 with a free zero point, as the CPU's graph does."""
    step = (high - low) / 255 or 1.0
    zero = np.rint(-low / step)
    steps = np.clip(np.rint(values / step) + zero, 0, 255)
    return float((((steps - zero) * step - values) ** 2).mean())


@pytest.fixture(scope="module")
def measured() -> Histograms:
    return measure(net(), toy.images(19), silent)


def test_every_activation_is_measured_and_no_constant(measured: Histograms) -> None:
    made = {o for n in OnnxGraph(net()) for o in n.output}
    assert set(measured) == made - {"planes"}  # that one is still of whole numbers


def test_the_ends_are_the_smallest_and_largest_value(measured: Histograms) -> None:
    (a, embeddings) = toy.run(net(), ["a", "embeddings"], toy.images(19))
    ranges = choose_ranges(measured, "minmax")
    assert ranges["a"] == pytest.approx((a.min(), a.max()))
    assert ranges["embeddings"] == pytest.approx((embeddings.min(), embeddings.max()))
    assert ranges["r"] == pytest.approx((0, a.max()))


def test_a_histogram_counts_every_value_once(measured: Histograms) -> None:
    found = measured["a"]
    assert found.counts.sum() == 19 * 4 * 8 * 8
    (a,) = toy.run(net(), ["a"], toy.images(19))
    wanted, _ = np.histogram(a, found.edges)
    assert np.abs(wanted - found.counts).sum() < 0.01 * a.size  # edges of batches' own bins


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_images_hardly_matters(measured: Histograms, method: str) -> None:
    """The first batch decides the bins."""
    backwards = measure(net(), toy.images(19)[::-1], silent)
    names = ("pixels", "a", "r", "z")  # of many values
    first, second = (
        choose_ranges({name: found[name] for name in names}, method)
        for found in (measured, backwards)
    )
    for name, (low, high) in first.items():
        slack = {"minmax": 0.0, "entropy": 0.12}.get(method, 0.05) * (high - low)
        assert second[name] == pytest.approx((low, high), abs=slack), name


def test_progress_counts_every_image() -> None:
    counts: list[int] = []
    measure(net(), toy.images(7), counts.append)
    assert sum(counts) == 7
    assert len(counts) > 1


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_of_zeros_has_the_range_of_zero(measured: Histograms, method: str) -> None:
    assert choose_ranges({"z": measured["z"]}, method) == {"z": (0.0, 0.0)}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_activation_that_is_not_finite_is_named(value: float) -> None:
    """One channel of four: the others' values are in order."""
    with pytest.raises(S4GError) as failure:
        measure(net((0.0, value, 0.0, 0.0)), toy.images(2), silent)
    assert str(failure.value) == (
        "activation a is not finite on the calibration images; the weights are damaged, train again"
    )


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    found = measure(net(), toy.images(2), silent)
    for method in METHODS:
        choose_ranges({"a": found["a"]}, method)
    assert capfd.readouterr() == ("", "")


def test_percentile_leaves_outliers_out() -> None:
    values = np.concatenate([np.random.default_rng(0).uniform(-1, 1, 100_000), [50.0, -30.0]])
    low, high = chosen(values, "percentile")
    assert -1.1 < low < -0.95
    assert 0.95 < high < 1.1


def test_entropy_shortens_a_long_tail_and_keeps_the_bulk() -> None:
    values = np.random.default_rng(0).standard_t(3, 100_000)
    low, high = chosen(values, "entropy")
    assert values.min() / 2 < low < -10
    assert 10 < high < values.max() / 2


HEAVY = {
    "laplace": lambda rng, n: rng.laplace(size=n),
    "student": lambda rng, n: rng.standard_t(2, n),
    "rectified student": lambda rng, n: np.maximum(rng.standard_t(3, n), 0),
    "swish": lambda rng, n: (x := rng.standard_t(4, n)) / (1 + np.exp(-x)),
}
# Nothing to gain from clipping, so that a wrong idea of rounding's cost shows.
OTHERS = {
    "mostly zeros": lambda rng, n: np.where(rng.random(n) < 0.99, 0, rng.random(n)),
    "rectified normal": lambda rng, n: np.maximum(rng.standard_normal(n), 0),
    "uniform": lambda rng, n: rng.uniform(-1, 0.5, n),
    "a spike and outliers": lambda rng, n: np.where(
        rng.random(n) < 0.99, 0.002 * rng.standard_normal(n), rng.uniform(-10, 10, n)
    ),
}


@pytest.mark.parametrize("shape", HEAVY)
def test_mse_beats_minmax_and_percentile_where_tails_are_heavy(shape: str) -> None:
    values = HEAVY[shape](np.random.default_rng(0), 100_000)
    errors = {method: squared_error(values, *chosen(values, method)) for method in METHODS}
    assert errors["mse"] < errors["minmax"]
    assert errors["mse"] < errors["percentile"]


@pytest.mark.parametrize("shape", HEAVY | OTHERS)
def test_mse_comes_near_the_best_of_all_ranges(shape: str) -> None:
    values = (HEAVY | OTHERS)[shape](np.random.default_rng(0), 20_000)
    shares = np.linspace(0.2, 1, 17)
    lows = values.min() * shares if values.min() < 0 else np.zeros(1)
    highs = values.max() * shares
    best = min(squared_error(values, low, high) for low in lows for high in highs)
    assert squared_error(values, *chosen(values, "mse")) < 1.05 * best


NUMBERS = arrays(
    np.float64, st.integers(1, 60), elements=st.floats(-1e4, 1e4).filter(lambda x: abs(x) > 1e-6)
)


@settings(max_examples=40)
@given(values=NUMBERS, method=st.sampled_from(("minmax", "percentile", "mse")))
@example(values=np.array([1.0, 2.0]), method="minmax")
@example(values=np.array([-2.0, -1.0]), method="minmax")
def test_a_range_holds_zero_and_does_not_exceed_the_values(values: Floats, method: str) -> None:
    low, high = chosen(values, method)
    assert min(values.min(), 0) <= low <= 0 <= high <= max(values.max(), 0)
    assert low < high


@settings(max_examples=5)
@given(values=NUMBERS)
def test_the_entropys_range_does_so_too(values: Floats) -> None:
    low, high = chosen(values, "entropy")
    assert min(values.min(), 0) - 1e-3 <= low <= 0 <= high <= max(values.max(), 0) + 1e-3


@settings(max_examples=40)
@given(values=NUMBERS, factor=st.floats(1e-3, 1e3))
def test_mse_scales_with_the_values(values: Floats, factor: float) -> None:
    low, high = least_error(histogram(values))
    scaled = least_error(histogram(factor * values))
    assert squared_error(factor * values, *scaled) == pytest.approx(
        factor**2 * squared_error(values, low, high), rel=1e-3, abs=1e-12 * factor**2
    )


@given(st.integers(0, 1499), st.floats(0.5, 4))
def test_symmetric_levels_are_judged_as_they_will_lie(seed: int, tail: float) -> None:
    """No end of the grid does better by the errors that 255 levels around zero really make."""
    rng = np.random.default_rng(seed)
    values = np.maximum(rng.standard_t(4 + tail, 4000), -0.5).astype(np.float32)
    limit = float(np.abs(values).max())
    counts, edges = np.histogram(values, 2048, range=(-limit, limit))
    histogram = Histogram(
        counts.astype(np.float64), edges, float(values.min()), float(values.max())
    )

    def error(peak: float) -> float:
        step = peak / 127
        rounded = np.clip(np.rint(values / step), -127, 127) * step
        return float(((rounded - values) ** 2).mean())

    low, high = least_symmetric_error(histogram)
    found = error(max(-low, high))
    # A bin is not much finer than the finest step.
    assert found <= 1.3 * min(error(share * limit) for share in np.linspace(0.2, 1, 33))
    assert low >= histogram.low
    assert high <= histogram.high
