from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyproj
import pytest

from s4g.core.engine import Engine, load_engine
from s4g.core.errors import S4GError
from s4g.core.geo import LocalFrame
from s4g.core.ground import ArrayGround
from s4g.core.sources import open_ground
from s4g.core.spec import EncoderSpec
from s4g.tilepacks.embed import embed_level
from s4g.tilepacks.plan import plan_pack
from s4g.tilepacks.quantise import dequantise

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


def _embed(ground: ArrayGround, engine: Engine, min_valid: float = 0.6) -> object:
    plan = plan_pack(ground, engine.spec, None, (16.0,), 0.5)
    return plan, embed_level(ground, plan.frame, plan.region, plan.lattices[0], engine, min_valid)


def test_every_tile_is_the_ground_at_its_centre(toy_encoder: Path, toy_source: Path) -> None:
    # An independent way from ground to vector: UTM pixels read whole, shrunk by cv2.
    rasterio = pytest.importorskip("rasterio")
    engine, ground = load_engine(toy_encoder), open_ground(str(toy_source))
    plan = plan_pack(ground, engine.spec, None, (64.0,), 0.5)
    (lattice,) = plan.lattices
    level = embed_level(ground, plan.frame, plan.region, lattice, engine, 0.6)
    ground.close()
    assert level is not None and len(level.cells) == lattice.count > 20
    with rasterio.open(toy_source) as file:
        pixels = np.moveaxis(file.read(), 0, -1)
    lat, lon = plan.frame.to_wgs84(*lattice.centers_m(level.cells))
    utm = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32632", always_xy=True)
    columns, rows = utm.transform(lon, lat)
    left = np.clip(np.rint((columns - 500_000) / 0.5 - 64).astype(int), 0, 640 - 128)
    top = np.clip(np.rint((5_200_000 - rows) / 0.5 - 64).astype(int), 0, 512 - 128)
    cuts = [pixels[y : y + 128, x : x + 128] for x, y in zip(left, top, strict=True)]
    images = [cv2.resize(cut, (64, 64), interpolation=cv2.INTER_AREA) for cut in cuts]
    expected = engine.embed(np.stack(images).astype(np.uint8))
    cosines = expected @ dequantise(level.codes, level.scales)[level.vector_of_tile].T
    assert (cosines.argmax(axis=1) == np.arange(len(images))).all()
    assert cosines.diagonal().min() > 0.99


def test_cells_follow_the_curve_and_vectors_follow_the_cells() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (100, 130, 3), dtype=np.uint8)
    engine = MeanEngine()
    plan, level = _embed(_ground(rgb), engine)
    lattice = plan.lattices[0]
    assert sorted(level.cells) == list(range(lattice.count))
    assert len(engine.seen) == lattice.count
    in_row_order = engine.embed(np.stack(engine.seen))
    vectors = dequantise(level.codes, level.scales)[level.vector_of_tile]
    assert ((vectors * in_row_order[level.cells]).sum(axis=1) > 0.999).all()


def test_tiles_without_enough_imagery_are_left_out_and_holes_are_black() -> None:
    rgb = np.full((64, 64, 3), 200, np.uint8)
    valid = np.ones((64, 64), bool)
    valid[:, 32:] = False
    rgb[~valid] = 99  # what nodata pixels hold must not be seen
    engine = MeanEngine()
    plan, level = _embed(_ground(rgb, valid), engine, min_valid=0.5)
    lattice = plan.lattices[0]
    east, _ = lattice.centers_m(level.cells)
    kept = sorted(set(np.round(east)))
    assert kept == [-24.0, -16.0, -8.0, 0.0]  # the tile at 0 is half imagery
    half = next(image for image in engine.seen if (image == 0).any())
    assert set(np.unique(half)) == {0, 200}


def test_nothing_valid_gives_nothing() -> None:
    rgb = np.zeros((64, 64, 3), np.uint8)
    for min_valid in (0.6, 0.0):
        _, level = _embed(_ground(rgb, np.zeros((64, 64), bool)), MeanEngine(), min_valid)
        assert level is None


def test_tiles_alike_share_one_vector() -> None:
    rgb = np.full((64, 64, 3), 80, np.uint8)
    rgb[:32, :32] = 200
    _, level = _embed(_ground(rgb), MeanEngine())
    assert len(level.cells) == 49
    assert len(level.codes) < 49
    assert sorted(set(level.vector_of_tile)) == list(range(len(level.codes)))
    assert len({row.tobytes() for row in level.codes}) == len(level.codes)


def test_progress_ends_at_the_number_of_cells() -> None:
    ground, engine, done = _ground(np.zeros((64, 96, 3), np.uint8)), MeanEngine(), []
    plan = plan_pack(ground, engine.spec, None, (16.0,), 0.5)
    embed_level(ground, plan.frame, plan.region, plan.lattices[0], engine, 0.6, done.append)
    assert sum(done) == plan.lattices[0].count


def test_encoder_that_returns_nonsense_is_an_error() -> None:
    class Broken(MeanEngine):
        def embed(self, images: np.ndarray) -> np.ndarray:
            return np.full((len(images), 4), np.nan, np.float32)

    with pytest.raises(S4GError) as error:
        _embed(_ground(np.zeros((64, 64, 3), np.uint8)), Broken())
    assert str(error.value) == (
        "mean: of its embeddings a vector is zero or not finite; export it again"
    )
