from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyproj
import pytest

from s4g.core.engine import load_engine
from s4g.core.errors import S4GError
from s4g.core.geo import LocalFrame
from s4g.core.ground import ArrayGround, GroundSource
from s4g.core.sources import open_ground
from s4g.core.spec import EncoderSpec
from s4g.tilepacks.embed import EmbeddedBlock, embed_block, read_block
from s4g.tilepacks.plan import Plan, plan_pack
from s4g.tilepacks.tiling import blocks
from s4g.tilepacks.variants import Variant, make_variants, margin_px

FRAME = LocalFrame(47.0, 8.0)


class MeanEngine:
    """An engine whose vector is the mean colour of the image and a constant."""

    name = "mean"
    spec = EncoderSpec(
        "00" * 32, "mean", 16, (0.5,) * 3, (0.25,) * 3, 4, (4,), 0.1, 10.0, True, 0.1
    )  # fmt: skip

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def embed(self, images: np.ndarray) -> np.ndarray:
        self.seen += list(images.copy())
        means = images.reshape(len(images), -1, 3).mean(axis=1)
        vectors = np.column_stack([means, np.full(len(images), 50.0)])
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(unit, np.float32)


def _ground(rgb: np.ndarray, valid: np.ndarray | None = None) -> ArrayGround:
    height, width = rgb.shape[:2]
    valid = np.ones((height, width), bool) if valid is None else valid
    return ArrayGround(rgb, valid, FRAME, -width / 2, height / 2, 1.0, "array")


NORTH_UP = (Variant(0, 0.0),)


def _embed(
    ground: GroundSource,
    engine: Any,
    min_valid: float = 0.6,
    variants: Any = NORTH_UP,
    level_m: float = 16.0,
) -> tuple[Plan, EmbeddedBlock]:
    """Embed a region that is one block."""
    plan = plan_pack(ground, engine.spec, None, (level_m,), 0.5)
    (lattice,) = plan.lattices
    (block,) = blocks(lattice)
    margin = margin_px(lattice.input_px, variants)
    layers = [ground] * (1 + max(variant.layer for variant in variants))
    images = read_block(layers, plan.frame, block, margin)
    wanted = plan.wanted(lattice, block)
    return plan, embed_block(images, block, lattice, wanted, variants, engine, min_valid, margin)


def test_every_tile_is_the_ground_at_its_centre(toy_encoder: Path, toy_source: Path) -> None:
    # An independent way from ground to vector: UTM pixels read whole, shrunk by cv2.
    rasterio = pytest.importorskip("rasterio")
    engine, ground = load_engine(toy_encoder), open_ground(str(toy_source))
    plan, found = _embed(ground, engine, level_m=64.0)
    (lattice,) = plan.lattices
    ground.close()
    assert len(found.cells) == lattice.count > 20
    with rasterio.open(toy_source) as file:
        pixels = np.moveaxis(file.read(), 0, -1)
    lat, lon = plan.frame.to_wgs84(*lattice.centers_m(found.cells))
    utm = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32632", always_xy=True)
    columns, rows = utm.transform(lon, lat)
    left = np.clip(np.rint((columns - 500_000) / 0.5 - 64).astype(int), 0, 640 - 128)
    top = np.clip(np.rint((5_200_000 - rows) / 0.5 - 64).astype(int), 0, 512 - 128)
    cuts = [pixels[y : y + 128, x : x + 128] for x, y in zip(left, top, strict=True)]
    images = [cv2.resize(cut, (64, 64), interpolation=cv2.INTER_AREA) for cut in cuts]
    expected = engine.embed(np.stack(images).astype(np.uint8))
    cosines = expected @ found.embeddings.astype(np.float32).T
    assert (cosines.argmax(axis=1) == np.arange(len(images))).all()
    assert cosines.diagonal().min() > 0.99


def test_embeddings_follow_the_cells() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (100, 130, 3), dtype=np.uint8)
    engine = MeanEngine()
    plan, found = _embed(_ground(rgb), engine)
    assert found.cells.tolist() == list(range(plan.lattices[0].count))
    expected = engine.embed(np.stack(engine.seen))
    np.testing.assert_allclose(found.embeddings, expected, atol=1e-3)


def test_tiles_without_enough_imagery_are_left_out_and_holes_are_black() -> None:
    rgb = np.full((64, 64, 3), 200, np.uint8)
    valid = np.ones((64, 64), bool)
    valid[:, 32:] = False
    rgb[~valid] = 99  # what nodata pixels hold must not be seen
    engine = MeanEngine()
    plan, found = _embed(_ground(rgb, valid), engine, min_valid=0.5)
    east, _ = plan.lattices[0].centers_m(found.cells)
    assert sorted(set(np.round(east))) == [-24.0, -16.0, -8.0, 0.0]  # at 0 half is imagery
    half = next(image for image in engine.seen if (image == 0).any())
    assert set(np.unique(half)) == {0, 200}


def test_nothing_valid_gives_nothing() -> None:
    rgb = np.zeros((64, 64, 3), np.uint8)
    for min_valid in (0.6, 0.0):
        _, found = _embed(_ground(rgb, np.zeros((64, 64), bool)), MeanEngine(), min_valid)
        assert len(found.cells) == len(found.embeddings) == 0


def test_detail_is_the_mean_gradient_in_sixteenths_of_a_grey_level() -> None:
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[:] = (2 * np.arange(64))[None, :, None]  # two grey levels a column, none a row
    _, found = _embed(_ground(rgb), MeanEngine())
    assert set(found.detail) <= {15, 16}  # in the first column nothing lies to the left


def test_a_turned_tile_is_the_upright_one_turned() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    rgb = cv2.GaussianBlur(rgb, (0, 0), 2)
    engine = MeanEngine()
    variants = make_variants(1, 4)
    _, found = _embed(_ground(rgb), engine, variants=variants, min_valid=1.0)
    per_variant = np.array(engine.seen).reshape(4, -1, 16, 16, 3).astype(int)
    upright = per_variant[0]
    for quarter in range(1, 4):
        # A camera that heads east has east at the top: the picture turns against the clock.
        wanted = np.rot90(upright, quarter, axes=(1, 2))
        assert np.abs(per_variant[quarter] - wanted).max() <= 1
    assert found.variants.tolist() == np.repeat(range(4), len(upright)).tolist()


def test_turned_tiles_at_the_edge_see_beyond_their_square() -> None:
    rgb = np.full((64, 64, 3), 200, np.uint8)
    engine = MeanEngine()
    _embed(_ground(rgb), engine, variants=make_variants(1, 8), min_valid=1.0)
    inner = engine.seen[len(engine.seen) // 8 + 24]  # at 45 degrees, in the middle
    assert (inner == 200).all()


def test_encoder_that_returns_nonsense_is_an_error() -> None:
    class Broken(MeanEngine):
        def embed(self, images: np.ndarray) -> np.ndarray:
            return np.full((len(images), 4), np.nan, np.float32)

    with pytest.raises(S4GError) as error:
        _embed(_ground(np.zeros((64, 64, 3), np.uint8)), Broken())
    assert str(error.value) == (
        "mean: an embedding is zero or not finite; export the encoder again"
    )
