"""Activations of a graph: batch by batch, their peaks by channel and their means."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="export needs torch (the export extra)")
pytest.importorskip("onnx", reason="export needs onnx (the export extra)")

from s4g.export.activations import batch_size, means, observe, peaks_by_channel

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_graphs.py"))))

COUNT = 19  # two whole batches and a part


@pytest.fixture(scope="module")
def model() -> bytes:
    made: bytes = toy.encoder(
        """
        a = Conv <kernel_shape = [3, 3]> (pixels, w)
        r = Relu(a)
        last = Transpose <perm = [0, 2, 3, 1]> (r)
        features = ReduceMean <keepdims = 0> (r, space)
        """,
        w=toy.normal(4, 3, 3, 3),
        space=[2, 3],
    )
    return made


def test_tensors_of_all_images_come_in_order(model: bytes) -> None:
    images = toy.images(COUNT)
    parts = list(observe(model, ["features", "a"], images))
    assert max(len(part["a"]) for part in parts) < COUNT  # in batches
    wanted = dict(zip(("a", "features"), toy.run(model, ["a", "features"], images), strict=True))
    for name, value in wanted.items():
        found = np.concatenate([part[name] for part in parts])
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("image_bytes", "size"), [(0, 8), (4, 8), (2**26, 8), (2**27, 4), (2**29, 1), (2**30, 1)]
)
def test_large_tensors_come_in_small_batches(image_bytes: int, size: int) -> None:
    value = np.broadcast_to(np.zeros(1, np.float32), (1, image_bytes // 4))
    assert batch_size({"a": value}, 8) == size


def test_an_output_of_the_graph_can_be_observed(model: bytes) -> None:
    (found,) = observe(model, ["embeddings"], toy.images(1))
    np.testing.assert_allclose(np.linalg.norm(found["embeddings"], axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(("tensor", "axis"), [("a", 1), ("last", -1), ("last", 3)])
def test_a_peak_is_the_largest_magnitude_over_images_and_positions(
    model: bytes, tensor: str, axis: int
) -> None:
    images = toy.images(COUNT)
    (value,) = toy.run(model, [tensor], images)
    wanted = np.abs(np.moveaxis(value, axis, 0)).reshape(4, -1).max(axis=1)
    found = peaks_by_channel(model, {tensor: axis}, images)
    np.testing.assert_allclose(found[tensor], wanted, rtol=1e-6)


def test_a_channel_that_is_only_negative_has_a_peak() -> None:
    model = toy.encoder(
        """
        a = Add(pixels, below)
        features = ReduceMean <keepdims = 0> (a, space)
        """,
        below=np.full((3, 1, 1), -5.0),
        space=[2, 3],
    )
    assert (peaks_by_channel(model, {"a": 1}, toy.images(3))["a"] > 4).all()


def test_a_mean_is_over_images_alone_whatever_the_batches(model: bytes) -> None:
    images = toy.images(COUNT)
    a, last = toy.run(model, ["a", "last"], images)
    found = means(model, ["a", "last", "a"], images)
    assert found["a"].shape == (1, 4, 6, 6)
    np.testing.assert_allclose(found["a"], a.mean(axis=0, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(found["last"], last.mean(axis=0, keepdims=True), atol=1e-5)


def test_windows_that_were_moved_into_the_batch_count_each() -> None:
    model = toy.encoder(
        "windows = Reshape(pixels, halves) y = Relu(windows) whole = Reshape(y, flat) "
        "features = Relu(whole)",
        halves=[-1, 3, 4, 8],
        flat=[-1, 192],
    )
    images = toy.images(COUNT)
    (windows,) = toy.run(model, ["windows"], images)
    assert len(windows) == 2 * COUNT
    found = means(model, ["windows"], images)["windows"]
    np.testing.assert_allclose(found, windows.mean(axis=0, keepdims=True), atol=1e-6)


def test_of_no_tensors_there_are_no_means(model: bytes) -> None:
    assert means(model, [], toy.images(2)) == {}
