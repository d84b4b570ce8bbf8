"""Your own set: a lattice of tiles over imagery, and photos related to it by overlap."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from s4g.core.errors import InputError
from s4g.core.geo import LocalFrame
from s4g.core.ground import GroundSource
from s4g.core.images import encode_rgb
from s4g.core.sources import open_ground
from s4g.train.data_own import Own, TileImages
from s4g.train.dataset import Count, DataConfig

FOOTPRINT_M = 40.0


@pytest.fixture
def config(toy_source: Path) -> DataConfig:
    return DataConfig("own", source=str(toy_source), footprint_m=FOOTPRINT_M, stride=0.5)


@pytest.fixture
def frame(toy_source: Path) -> LocalFrame:
    ground = open_ground(str(toy_source))
    ground.close()
    return LocalFrame(*ground.bounds.center)


def write_photos(
    root: Path, frame: LocalFrame, places_m: list[tuple[float, float]], tests: int = 0
) -> None:
    """Write photos without heading or scale over places; the last `tests` are for testing."""
    picture = encode_rgb(np.full((30, 40, 3), 90, np.uint8), ".jpg")
    lines = ["file,lat,lon,split"]
    for i, place in enumerate(places_m):
        (root / f"{i}.jpg").write_bytes(picture)
        lat, lon = frame.to_wgs84(*place)
        split = "test" if i >= len(places_m) - tests else "train"
        lines.append(f"{i}.jpg,{float(lat):.10f},{float(lon):.10f},{split}")
    (root / "photos.csv").write_text("\n".join(lines) + "\n")


def centers(config: DataConfig, root: Path, frame: LocalFrame) -> npt.NDArray[np.float64]:
    write_photos(root, frame, [(0.0, 0.0)])
    (task,) = Own(config, root).tasks()
    assert task.gallery_positions is not None
    return task.gallery_positions.coordinates


def test_tiles_lie_half_a_footprint_apart_inside_the_imagery(
    tmp_path: Path, config: DataConfig, frame: LocalFrame
) -> None:
    places = centers(config, tmp_path, frame)
    columns, rows = np.unique(places[:, 0].round(3)), np.unique(places[:, 1].round(3))
    assert np.diff(columns) == pytest.approx(20.0) and np.diff(rows) == pytest.approx(20.0)
    # 320 x 256 m of imagery, turned a little against the frame's north.
    assert len(places) == 15 * 11
    assert np.abs(places).max(axis=0) == pytest.approx([140.0, 100.0], abs=3.0)


def test_tiles_with_holes_are_left_out(
    tmp_path: Path, config: DataConfig, frame: LocalFrame, toy_source: Path
) -> None:
    rasterio = pytest.importorskip("rasterio", reason="GeoTIFFs need rasterio (the pack extra)")
    with rasterio.open(toy_source) as source:
        pixels, profile = source.read(), source.profile
    pixels[:, :, :320] = 0  # the western half
    with rasterio.open(tmp_path / "holes.tif", "w", **(profile | {"nodata": 0})) as out:
        out.write(pixels)
    config = dataclasses.replace(config, source="holes.tif")
    write_photos(tmp_path, frame, [(60.0, 0.0), (-60.0, 0.0)])
    (task,) = Own(config, tmp_path).tasks()
    assert task.gallery_positions is not None
    # A tenth of a tile may be missing; black pixels of the toy count as missing too.
    assert task.gallery_positions.coordinates[:, 0].min() > 15.0
    assert len(task.queries) == 1


def test_a_photo_is_paired_with_the_tile_nearest_to_it(
    tmp_path: Path, config: DataConfig, frame: LocalFrame
) -> None:
    places = centers(config, tmp_path, frame)
    chosen = places[[20, 90]]
    write_photos(tmp_path, frame, [tuple(chosen[0] + [6, -4]), tuple(chosen[1]), tuple(chosen[1])])
    pairs = Own(config, tmp_path).training()
    assert (len(pairs), len(pairs.references)) == (3, 2)
    assert pairs.pair_weight.tolist() == [1, 1, 1]
    assert pairs.reference_positions is not None
    paired = pairs.reference_positions.coordinates[pairs.pair_reference]
    assert paired == pytest.approx(chosen[[0, 1, 1]])
    assert pairs.queries.read(0, 16, 16).shape == pairs.references.read(1, 16, 16).shape


def test_overlapping_tiles_are_graded_by_their_overlap(
    tmp_path: Path, config: DataConfig, frame: LocalFrame
) -> None:
    """Worked by hand: 6 m east of a centre, 40 m tiles every 20 m.

    The tile itself: 34 x 40 of 2 x 1600 - 1360, IoU 0.739, yet the nearest: 1. Its eastern
    neighbour: 26 x 40, IoU 0.481: a positive. The western: 14 x 40, 0.212, and those north and
    south: 34 x 20, 0.270, and north-east and south-east: 26 x 20, 0.194: neither.
    """
    centre = centers(config, tmp_path, frame)[7 * 15 + 7]
    write_photos(tmp_path, frame, [tuple(centre + [6, 0])])
    (task,) = Own(config, tmp_path).tasks()
    assert task.gallery_positions is not None
    tiles, weights = task.positives.of(0)
    offsets = (task.gallery_positions.coordinates[tiles] - centre).round().tolist()
    assert offsets == [[0, 0], [20, 0]]
    assert weights.tolist() == pytest.approx([1.0, 1040 / 2160], abs=1e-6)
    # Training knows the tiles that are paired; add a photo over each of the others.
    around = [(0, 0), (20, 0), (-20, 0), (0, 20), (0, -20), (20, 20), (-20, -20)]
    write_photos(
        tmp_path, frame, [tuple(centre + [6, 0]), *(tuple(centre + step) for step in around)]
    )
    pairs = Own(config, tmp_path).training()
    assert pairs.reference_positions is not None
    tiles, weights = pairs.relations.of(0)
    found = {
        tuple((place - centre).round().astype(int).tolist()): float(weight)
        for place, weight in zip(pairs.reference_positions.coordinates[tiles], weights, strict=True)
    }
    assert found == {
        (0, 0): 1.0,
        (20, 0): pytest.approx(1040 / 2160, abs=1e-6),
        (-20, 0): 0.0,
        (0, 20): 0.0,
        (0, -20): 0.0,
        (20, 20): 0.0,
    }


def test_photos_of_split_test_are_asked_and_not_trained_on(
    tmp_path: Path, config: DataConfig, frame: LocalFrame
) -> None:
    write_photos(tmp_path, frame, [(0, 0), (50, 30), (-60, -40)], tests=1)
    data = Own(config, tmp_path)
    assert len(data.training().queries) == 2
    (task,) = data.tasks()
    assert task.protocol == "own: test photos; all 165 tiles"
    assert len(task.queries) == 1 and task.queries.name(0).endswith("2.jpg")
    assert task.metrics == ("recall", "ap", "sdm")
    assert task.query_positions is not None
    assert task.query_positions.coordinates[0] == pytest.approx([-60, -40], abs=1e-3)


def test_without_a_split_all_photos_are_asked_and_the_protocol_says_so(
    tmp_path: Path, config: DataConfig, frame: LocalFrame
) -> None:
    write_photos(tmp_path, frame, [(0, 0), (50, 30)])
    (task,) = Own(config, tmp_path).tasks()
    assert task.protocol == "own: all photos, those of the training included; all 165 tiles"
    assert len(task.queries) == 2


def test_photos_beyond_the_imagery_are_left_out_and_counted(
    tmp_path: Path, config: DataConfig, frame: LocalFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path, frame, [(0, 0), (500, 0), (0, -4000)])
    assert Own(config, tmp_path).counts() == [
        Count("photos for training", 1),
        Count("photos for testing", 0),
        Count("photos that lie on no tile of the imagery", 2),
        Count("tiles", 165),
    ]
    assert capsys.readouterr().err == (
        f"{tmp_path / 'photos.csv'}: 2 of 3 photos lie on no tile of the imagery and are left out\n"
    )


def test_photos_that_cannot_be_read_are_counted_and_the_first_is_named(
    tmp_path: Path, config: DataConfig, frame: LocalFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path, frame, [(0, 0), (50, 30), (-60, -40)])
    (tmp_path / "1.jpg").unlink()
    (tmp_path / "2.jpg").write_bytes(b"")
    counted = {count.what: count.found for count in Own(config, tmp_path).counts()}
    assert counted["photos for training"] == 1 and counted["photos that cannot be read"] == 2
    assert capsys.readouterr().err == (
        f"{tmp_path / '1.jpg'}: no such file; restore it\n"
        f"{tmp_path / 'photos.csv'}: 2 of 3 photos cannot be read and are left out\n"
    )


def test_a_set_without_a_usable_photo_is_refused(
    tmp_path: Path, config: DataConfig, frame: LocalFrame
) -> None:
    write_photos(tmp_path, frame, [(500, 0)])
    with pytest.raises(InputError) as error:
        Own(config, tmp_path).training()
    assert str(error.value) == (
        f"{tmp_path / 'photos.csv'}: none of 1 photos can be used with {config.source} at "
        "footprint_m = 40: lie on no tile of the imagery"
    )


def test_a_set_of_test_photos_alone_cannot_train(
    tmp_path: Path, config: DataConfig, frame: LocalFrame
) -> None:
    write_photos(tmp_path, frame, [(0, 0)], tests=1)
    with pytest.raises(InputError) as error:
        Own(config, tmp_path).training()
    assert str(error.value) == (
        f"{tmp_path / 'photos.csv'}: every photo is of split test; none is left to train"
    )


def test_imagery_smaller_than_a_tile_is_refused(
    tmp_path: Path, config: DataConfig, frame: LocalFrame
) -> None:
    write_photos(tmp_path, frame, [(0, 0)])
    with pytest.raises(InputError) as error:
        Own(dataclasses.replace(config, footprint_m=400.0), tmp_path).training()
    assert str(error.value) == (
        f"{config.source}: 320 x 256 m of imagery hold no tile of footprint_m = 400; "
        "choose smaller tiles"
    )


def test_imagery_far_wider_than_tiles_is_refused(
    tmp_path: Path, config: DataConfig, frame: LocalFrame
) -> None:
    write_photos(tmp_path, frame, [(0, 0)])
    with pytest.raises(InputError, match="are too wide for tiles of footprint_m = 0.1; cut out"):
        Own(dataclasses.replace(config, footprint_m=0.1), tmp_path).training()


def test_missing_imagery_is_named(tmp_path: Path, config: DataConfig, frame: LocalFrame) -> None:
    write_photos(tmp_path, frame, [(0, 0)])
    with pytest.raises(InputError) as error:
        Own(dataclasses.replace(config, source="ortho.tif"), tmp_path).tasks()
    assert str(error.value) == (
        f"{tmp_path / 'ortho.tif'}: no such file or folder; give a raster, a folder of them, "
        "tiles, or 'landscape'"
    )


def test_tiles_travel_to_workers_and_open_their_imagery_there(
    toy_source: Path, frame: LocalFrame
) -> None:
    tiles = TileImages(str(toy_source), frame, np.array([[0.0, 0.0], [30.0, 10.0]]), FOOTPRINT_M)
    here = tiles.read(1, 32, 32)
    there = pickle.loads(pickle.dumps(tiles))
    assert (there.read(1, 32, 32) == here).all() and here.std() > 5
    assert tiles.read(0, 16, 24).shape == (16, 24, 3)
    lat, lon = frame.to_wgs84(30.0, 10.0)
    assert tiles.name(1) == f"{toy_source} at {float(lat):.6f},{float(lon):.6f}"


def test_a_process_that_was_forked_opens_the_imagery_again(
    toy_source: Path, frame: LocalFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def count(source: str) -> GroundSource:
        opened.append(source)
        return open_ground(source)

    monkeypatch.setattr("s4g.train.data_own.open_ground", count)
    tiles = TileImages(str(toy_source), frame, np.array([[0.0, 0.0]]), FOOTPRINT_M)
    first, again = tiles.read(0, 16, 16), tiles.read(0, 16, 16)
    assert len(opened) == 1
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert (tiles.read(0, 16, 16) == first).all() and (again == first).all()
    assert len(opened) == 2
