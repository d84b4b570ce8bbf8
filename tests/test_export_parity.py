"""Cosine, recall, camera-like views and the gates of an export."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch", reason="export needs torch (the export extra)")

from s4g.core.errors import S4GError
from s4g.export.parity import (
    Agreement,
    Recall,
    check_distinct,
    check_fp32,
    held_out_pairs,
)


def unit(rows: npt.ArrayLike) -> npt.NDArray[np.float32]:
    values = np.asarray(rows, np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_agreement_is_the_cosine_of_matching_rows() -> None:
    first = unit([[1, 0], [1, 0], [0, 1]])
    second = unit([[1, 0], [1, 1], [0, 1]])
    found = Agreement.between(first, second)
    assert found.mean == pytest.approx((2 + np.sqrt(0.5)) / 3)
    assert found.min == pytest.approx(np.sqrt(0.5))
    assert found.min < found.p1 < found.mean


def test_recall_counts_views_whose_own_tile_is_best_or_among_five() -> None:
    tiles = np.eye(8, dtype=np.float32)
    views = tiles.copy()
    views[0] = unit([[1, 2, 0, 0, 0, 0, 0, 0]])[0]  # its own tile comes second
    views[1] = unit([[9, 0, 8, 7, 6, 5, 4, 3]])[0]  # and this one's last
    assert Recall.of(views, tiles) == Recall(r1=6 / 8, r5=7 / 8)


def soft_noise(count: int, side_px: int) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 200, (count, 13, 13, 3), dtype=np.uint8)
    cubic = cv2.INTER_CUBIC
    return np.stack([cv2.resize(c, (side_px, side_px), interpolation=cubic) for c in coarse])


def test_a_tile_is_the_middle_of_its_place() -> None:
    places = soft_noise(3, 96)
    pairs = held_out_pairs(places, 64, seed=0)
    np.testing.assert_array_equal(pairs.tiles, places[:, 16:80, 16:80])
    assert pairs.images.shape == (6, 64, 64, 3)


def likeness(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> float:
    return float(np.corrcoef(first.mean(axis=2).ravel(), second.mean(axis=2).ravel())[0, 1])


def test_a_view_shows_its_own_tile_a_little_displaced() -> None:
    pairs = held_out_pairs(soft_noise(40, 96), 64, seed=0)
    own = [likeness(t, v) for t, v in zip(pairs.tiles, pairs.views, strict=True)]
    other = [likeness(t, v) for t, v in zip(pairs.tiles, pairs.views[::-1], strict=True)]
    assert 0.4 < np.median(own) < 0.98
    assert np.median(own) > np.median(other) + 0.3


def test_views_are_not_turned_or_mirrored() -> None:
    """The median displacement of a view's quarters is small: north stays at the top."""
    place = np.full((1, 96, 96, 3), 40, np.uint8)
    place[:, :40, :40] = 220  # bright in the north-west
    for seed in range(10):
        view = held_out_pairs(place, 64, seed=seed).views[0].mean(axis=2)
        assert view[4:12, 4:12].mean() > view[-24:, -24:].mean() + 60


def test_the_seed_decides_the_views() -> None:
    places = soft_noise(2, 96)
    first, again, other = (held_out_pairs(places, 64, seed).views for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_float_noise_passes_the_fp32_gate() -> None:
    trained = unit(np.random.default_rng(0).standard_normal((4, 8)))
    assert check_fp32("a.onnx", trained, trained + np.float32(5e-5)) == pytest.approx(5e-5, rel=0.1)


@pytest.mark.parametrize(("error", "shown"), [(2e-4, "0.0002"), (float("nan"), "nan")])
def test_a_mistranslated_graph_fails_the_fp32_gate(error: float, shown: str) -> None:
    trained = np.zeros((2, 4), np.float32)
    exported = trained.copy()
    exported[1, 2] = error
    with pytest.raises(S4GError) as failure:
        check_fp32("encoder.fp32.onnx", trained, exported)
    assert str(failure.value) == (
        f"encoder.fp32.onnx: differs from the checkpoint by {shown} in a coordinate, at most "
        "0.0001 is allowed; the exporter mistranslates this backbone, choose another"
    )


def test_different_embeddings_are_told_apart() -> None:
    assert check_distinct("a", np.eye(4, dtype=np.float32)) == pytest.approx(0)


def test_a_collapsed_encoder_is_refused() -> None:
    same = unit(np.ones((5, 4)))
    with pytest.raises(S4GError) as failure:
        check_distinct("run/best.safetensors", same)
    assert str(failure.value) == (
        "run/best.safetensors: embeds different places alike (mean cosine 1.00000); "
        "the weights have collapsed or were never trained, train again"
    )
