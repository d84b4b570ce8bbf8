"""Cosine, recall, camera-like views and the gates of an export."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch", reason="export needs torch (the export extra)")

from s4g.core.engine import load_engine
from s4g.core.errors import S4GError
from s4g.export.graph import export_graph
from s4g.export.parity import (
    Agreement,
    Changes,
    Paired,
    Pairs,
    Recall,
    check_distinct,
    check_fp32,
    embed_engine,
    embed_graph,
    embed_torch,
    make_pairs,
    top1_agreement,
)
from s4g.export.quantise import quantise_cpu
from s4g.export.ranges import choose_ranges, measure
from s4g.train.checkpoint import load_checkpoint

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_graphs.py"))))

NO_FRAMES = np.zeros((0, 64, 64, 3), np.uint8)


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
    assert found.max_difference == pytest.approx(np.sqrt(0.5))  # the second coordinate


def test_recall_counts_views_whose_own_tile_is_best_or_among_five() -> None:
    tiles = np.eye(8, dtype=np.float32)
    views = tiles.copy()
    views[0] = unit([[1, 2, 0, 0, 0, 0, 0, 0]])[0]  # its own tile comes second
    views[1] = unit([[9, 0, 8, 7, 6, 5, 4, 3]])[0]  # and this one's last
    assert Recall.of(views, tiles) == Recall(r1=6 / 8, r5=7 / 8)


def test_views_come_in_rounds_over_the_tiles() -> None:
    tiles = np.eye(3, dtype=np.float32)
    views = tiles[[0, 1, 2, 0, 2, 1]]
    assert Recall.of(views, tiles).r1 == 4 / 6
    assert Changes.between(Paired(tiles, views), Paired(tiles, tiles[[0, 1, 2] * 2])).gained == 2


def test_a_view_that_ties_with_another_tile_is_no_hit() -> None:
    """An encoder that maps all images to one point must not score."""
    same = unit(np.ones((6, 4)))
    assert Recall.of(same, same) == Recall(r1=0, r5=0)
    tiles = np.eye(8, dtype=np.float32)
    tiles[1] = tiles[0]
    assert Recall.of(tiles, tiles) == Recall(r1=6 / 8, r5=1)


def test_embeddings_that_are_not_numbers_are_no_hits() -> None:
    tiles = np.eye(6, dtype=np.float32)
    assert Recall.of(np.full((6, 6), np.nan, np.float32), tiles) == Recall(r1=0, r5=0)


def test_top_1_agrees_where_both_rank_the_same_tile_first_right_or_wrong() -> None:
    tiles = np.eye(4, dtype=np.float32)
    first = Paired(tiles, tiles[[0, 1, 2, 2]])
    second = Paired(tiles, tiles[[0, 1, 3, 2]])
    assert top1_agreement(first, second) == 3 / 4
    assert top1_agreement(first, first) == 1


def test_changes_count_views_lost_and_gained_apart() -> None:
    tiles = np.eye(6, dtype=np.float32)
    first, second = tiles.copy(), tiles.copy()
    first[0] = first[1] = tiles[5]  # missed by the first alone
    second[2] = tiles[5]  # by the second alone
    first[3] = second[3] = tiles[5]  # by both
    assert Changes.between(Paired(tiles, first), Paired(tiles, second)) == Changes(1, 2)


def test_embeddings_of_pairs_part_into_tiles_and_views() -> None:
    def shade(*values: int) -> npt.NDArray[np.uint8]:
        return np.full((len(values), 4, 4, 3), np.reshape(values, (-1, 1, 1, 1)), np.uint8)

    pairs = Pairs(shade(1, 2, 3), shade(11, 12, 13), shade(21, 22))
    assert pairs.images[:, 0, 0, 0].tolist() == [1, 2, 3, 11, 12, 13, 21, 22]
    embeddings = np.arange(8, dtype=np.float32)[:, None]
    paired = pairs.paired(embeddings)
    assert paired.tiles[:, 0].tolist() == [0, 1, 2]
    assert paired.views[:, 0].tolist() == [3, 4, 5]


def test_recall_of_pairs_matches_views_to_tiles() -> None:
    tiles = np.eye(3, dtype=np.float32)
    views = tiles[[0, 2, 2]]
    assert Paired(tiles, views).recall == Recall.of(views, tiles) == Recall(2 / 3, 1)


@pytest.mark.parametrize(("wanted", "made"), [(0, 3), (3, 3), (4, 6), (7, 9)])
def test_places_are_viewed_equally_often_until_there_are_enough_views(
    wanted: int, made: int
) -> None:
    pairs = make_pairs(soft_noise(3, 96), NO_FRAMES, seed=0, views=wanted)
    assert len(pairs.tiles) == 3
    assert len(pairs.views) == made == len({view.tobytes() for view in pairs.views})
    once = make_pairs(soft_noise(3, 96), NO_FRAMES, seed=0)
    assert np.array_equal(pairs.views[:3], once.views)


def soft_noise(count: int, side_px: int) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 200, (count, 13, 13, 3), dtype=np.uint8)
    cubic = cv2.INTER_CUBIC
    return np.stack([cv2.resize(c, (side_px, side_px), interpolation=cubic) for c in coarse])


def test_a_tile_is_the_middle_of_its_place() -> None:
    places = soft_noise(3, 96)
    pairs = make_pairs(places, NO_FRAMES, seed=0)
    np.testing.assert_array_equal(pairs.tiles, places[:, 16:80, 16:80])
    assert pairs.images.shape == (6, 64, 64, 3)


def test_frames_are_taken_as_they_are_and_change_no_view() -> None:
    places, frames = soft_noise(2, 96), soft_noise(3, 64)
    pairs = make_pairs(places, frames, seed=0)
    np.testing.assert_array_equal(pairs.frames, frames)
    without = make_pairs(places, NO_FRAMES, seed=0)
    np.testing.assert_array_equal(pairs.views, without.views)


def test_of_no_places_there_are_no_pairs() -> None:
    pairs = make_pairs(np.zeros((0, 96, 96, 3), np.uint8), NO_FRAMES, seed=0)
    assert pairs.tiles.shape == pairs.views.shape == (0, 64, 64, 3)


def likeness(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> float:
    return float(np.corrcoef(first.mean(axis=2).ravel(), second.mean(axis=2).ravel())[0, 1])


def test_a_view_shows_its_own_tile_a_little_displaced() -> None:
    pairs = make_pairs(soft_noise(40, 96), NO_FRAMES, seed=0)
    own = [likeness(t, v) for t, v in zip(pairs.tiles, pairs.views, strict=True)]
    other = [likeness(t, v) for t, v in zip(pairs.tiles, pairs.views[::-1], strict=True)]
    assert 0.4 < np.median(own) < 0.98
    assert np.median(own) > np.median(other) + 0.3


def test_views_are_not_turned_or_mirrored() -> None:
    """The median displacement of a view's quarters is small: north stays at the top."""
    place = np.full((1, 96, 96, 3), 40, np.uint8)
    place[:, :40, :40] = 220  # bright in the north-west
    for seed in range(10):
        view = make_pairs(place, NO_FRAMES, seed=seed).views[0].mean(axis=2)
        assert view[4:12, 4:12].mean() > view[-24:, -24:].mean() + 60


def test_the_seed_decides_the_views() -> None:
    places = soft_noise(2, 96)
    first, again, other = (make_pairs(places, NO_FRAMES, seed).views for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_float_noise_passes_the_fp32_gate() -> None:
    trained = unit(np.random.default_rng(0).standard_normal((4, 8)))
    assert check_fp32("a.onnx", trained, trained + np.float32(5e-6)) == pytest.approx(5e-6, rel=0.1)


@pytest.mark.parametrize(("error", "shown"), [(2e-5, "2e-05"), (float("nan"), "nan")])
def test_a_mistranslated_graph_fails_the_fp32_gate(error: float, shown: str) -> None:
    trained = np.zeros((2, 4), np.float32)
    exported = trained.copy()
    exported[1, 2] = error
    with pytest.raises(S4GError) as failure:
        check_fp32("encoder.fp32.onnx", trained, exported)
    assert str(failure.value) == (
        f"encoder.fp32.onnx: differs from the checkpoint by {shown} in a coordinate, at most "
        "1e-05 is allowed; the exporter mistranslates this backbone, choose another"
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


def test_torch_graph_and_engine_embed_alike(toy_checkpoint: Path, tmp_path: Path) -> None:
    encoder, spec = load_checkpoint(toy_checkpoint)
    model = export_graph(encoder, spec)
    path = tmp_path / "encoder.onnx"
    path.write_bytes(model)
    images = soft_noise(35, 64)  # more than a batch
    trained = embed_torch(encoder, spec, images)
    assert trained.shape == (35, spec.embedding_dim)
    for found in (
        embed_graph(model, images),
        embed_graph(model, images, literal=True),
        embed_engine(load_engine(path, "cpu", 1), images),
    ):
        assert check_fp32("encoder.onnx", trained, found) < 1e-5


def test_a_literal_run_is_the_arithmetic_that_the_file_spells_out() -> None:
    """Pairs of Q and DQ round floats there; optimised, integer kernels take their place."""
    model = toy.encoder(
        "a = Conv(pixels, w, b) r = Relu(a) m = ReduceMean <keepdims = 0> (r, space) "
        "features = Gemm(m, table)",
        w=toy.normal(32, 3, 3, 3),
        b=toy.normal(32),
        table=toy.normal(32, 16),
        space=[2, 3],
    )
    images = toy.images(40)
    made = quantise_cpu(model, choose_ranges(measure(model, images, lambda count: None), "minmax"))
    (wanted,) = toy.run(made, ["embeddings"], images)
    np.testing.assert_array_equal(embed_graph(made, images, literal=True), wanted)
    assert Agreement.between(wanted, embed_graph(made, images)).min > 0.999


def test_a_layer_that_was_left_in_float_stays_so_when_the_graph_is_optimised() -> None:
    """ONNX Runtime would round its weights, with one scale for all of its channels."""
    unlike = toy.normal(16, 16, 1, 1, seed=1) * np.geomspace(0.01, 1, 16)[:, None, None, None]
    model = toy.encoder(
        "a = Conv(pixels, w, b) r = Relu(a) c = Conv(r, unlike) s = Relu(c) d = Conv(s, even, b) "
        "m = ReduceMean <keepdims = 0> (d, space) features = Gemm(m, table)",
        w=toy.normal(16, 3, 1, 1),
        b=toy.normal(16),
        unlike=unlike,
        even=toy.normal(16, 16, 1, 1, seed=2) / np.geomspace(0.01, 1, 16)[:, None, None],
        table=toy.normal(16, 32),
        space=[2, 3],
    )
    images = toy.images(12)
    ranges = choose_ranges(measure(model, images, lambda count: None), "minmax")
    made = quantise_cpu(model, ranges, keep_float=["c"])
    literal = embed_graph(made, images, literal=True)
    assert 1 - Agreement.between(literal, embed_graph(made, images)).min < 1e-4


def test_a_graph_that_cannot_be_run_is_refused() -> None:
    with pytest.raises(S4GError) as failure:
        embed_graph(b"no graph", NO_FRAMES)
    message = str(failure.value)
    assert message.startswith("the graph cannot be run by ONNX Runtime (")
    assert message.endswith("); choose another backbone")
    assert "\n" not in message
