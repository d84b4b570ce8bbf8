"""Training imagery: loaded at true scale, split by place, holes known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from s4g.core.errors import InputError
from s4g.train.grounds import Ground, held_out_only, load_grounds
from s4g.train.recipe import GroundConfig


def load(config: GroundConfig, data: Path | None) -> list[Ground]:
    return load_grounds((config,), data, lambda name: None)


def picture(path: Path, width: int = 96, height: int = 64, value: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((height, width, 3), value, np.uint8)
    image[-1, -1] = 200  # of one colour it would be refused
    cv2.imwrite(str(path), image)


def test_a_landscape_gives_one_ground_a_seed_with_one_date_a_render() -> None:
    config = GroundConfig("landscape", worlds=1, val_worlds=1, size_m=64.0, renders=2)
    trains, validates = load(config, None)
    assert (trains.validates, validates.validates) == (False, True)
    assert len(trains.dates) == 2
    assert trains.size_m == (64.0, 64.0)
    assert not np.array_equal(trains.dates[0][0], trains.dates[1][0])


def test_held_out_worlds_are_the_same_without_the_others() -> None:
    config = GroundConfig("landscape", worlds=1, val_worlds=1, size_m=64.0, renders=1)
    (alone,) = load(held_out_only(config), None)
    assert alone.validates
    assert np.array_equal(alone.dates[0][0], load(config, None)[1].dates[0][0])


def test_a_western_split_cuts_the_ground_without_overlap(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(1, 101, dtype=np.uint8)[None, :, None], (64, 1, 3))
    cv2.imwrite(str(tmp_path / "a.png"), ramp)
    config = GroundConfig("pictures", files=("*.png",), gsd_m=0.5, split="west", split_value=0.6)
    west, east = load(config, tmp_path)
    assert (west.validates, east.validates) == (False, True)
    assert west.dates[0][0].max() == 60
    assert east.dates[0][0].min() == 61


def test_every_third_file_validates(tmp_path: Path) -> None:
    for number in range(6):
        picture(tmp_path / f"{number}.png")
    config = GroundConfig("pictures", files=("*.png",), gsd_m=0.5, split="every", split_value=3)
    flags = [g.validates for g in load(config, tmp_path)]
    assert flags == [False, False, True, False, False, True]


def test_photos_of_a_flight_are_split_apart_and_those_between_fall_away(tmp_path: Path) -> None:
    rows = []
    for number in range(6):
        picture(tmp_path / f"{number}.png", width=40, height=30)  # 50 m across
        rows.append(f"{number}.png,{47 + number * 30 / 111200},8\n")
    (tmp_path / "photos.csv").write_text("file,lat,lon\n" + "".join(rows))
    config = GroundConfig(
        "pictures",
        files=("*.png",),
        gsd_m=1.0,
        split="apart",
        split_value=0.5,
        positions="photos.csv",
    )
    flags = {g.name: g.validates for g in load(config, tmp_path)}
    assert flags == {
        "0.png": False, "1.png": False, "2.png": False, "4.png": True, "5.png": True,
    }  # fmt: skip


def test_pictures_are_read_no_finer_than_asked(tmp_path: Path) -> None:
    chequered = np.indices((64, 128)).sum(axis=0) % 2 * 200 + 20
    chequered[:2, :2] = 40  # of one colour it would be refused
    cv2.imwrite(str(tmp_path / "a.png"), np.repeat(chequered[..., None], 3, 2).astype(np.uint8))
    config = GroundConfig("pictures", files=("*.png",), gsd_m=0.5, read_gsd_m=1.0)
    (ground,) = load(config, tmp_path)
    assert (ground.gsd_m, ground.size_m) == (1.0, (64.0, 32.0))
    assert np.unique(ground.dates[0][0]).tolist() == [40, 120]  # averaged over area, not picked


def test_a_landscape_may_be_seen_from_higher_up() -> None:
    config = GroundConfig("landscape", worlds=1, size_m=128.0, gsd_m=2.0, renders=1)
    (ground,) = load(config, None)
    assert ground.size_m == (128.0, 128.0)
    assert ground.dates[0][0].shape == (64, 64, 3)


def test_black_pixels_and_ground_beyond_the_edge_count_as_invalid(tmp_path: Path) -> None:
    image = np.full((64, 64, 3), 120, np.uint8)
    image[:, :32] = 0
    image[0, 63] = 121  # of one colour it would be refused
    cv2.imwrite(str(tmp_path / "half.png"), image)
    (ground,) = load(GroundConfig("pictures", files=("*.png",), gsd_m=1.0), tmp_path)
    assert ground.valid_share(48, 32, 20) == 1.0
    assert ground.valid_share(32, 32, 20) == 0.5
    assert ground.valid_share(64, 32, 20) == 0.5
    assert ground.valid_share(500, 500, 20) == 0.0


def test_touching_tiles_become_one_mosaic_and_islands_their_own(tmp_path: Path) -> None:
    for x, y in [(10, 20), (11, 20), (14, 25)]:
        picture(tmp_path / "town" / "19" / str(x) / f"{y}.png", 256, 256, value=x * 10)
    grounds = load(GroundConfig("xyz", files=("*",), zoom=19), tmp_path)
    assert sorted(g.dates[0][0].shape[:2] for g in grounds) == [(256, 256), (256, 512)]
    wide = max(grounds, key=lambda g: g.size_m[0])
    assert (wide.dates[0][0][0, 0, 0], wide.dates[0][0][0, -1, 0]) == (100, 110)


def test_mosaics_are_counted_over_all_folders(tmp_path: Path) -> None:
    for town in ("a", "b", "c"):
        picture(tmp_path / town / "19" / "1" / "1.png", 256, 256)
    config = GroundConfig("xyz", files=("*",), zoom=19, split="every", split_value=3)
    assert [g.validates for g in load(config, tmp_path)] == [False, False, True]


def test_a_stack_reads_every_date_in_the_window_of_the_first(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="GeoTIFFs need rasterio (the pack extra)")
    for year, west in ((2017, 500000.0), (2018, 500004.0)):
        path = tmp_path / str(year) / "plot.tif"
        path.parent.mkdir()
        values = np.zeros((3, 100, 100), np.uint8) + 50
        values[:, :, 50 - round(west - 500000) :] = 200  # the same edge on the ground
        transform = rasterio.transform.from_origin(west, 5200000.0, 1.0, 1.0)
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=100,
            height=100,
            count=3,
            dtype="uint8",
            crs="EPSG:32615",
            transform=transform,
        ) as file:
            file.write(values)
    config = GroundConfig("stack", files=("2017/*.tif", "2018/*.tif"))
    (ground,) = load(config, tmp_path)
    first, second = (date[0].astype(int) for date in ground.dates)
    assert np.abs(first[10:90, 10:90] - second[10:90, 10:90]).mean() < 5
    assert ground.valid_share(1.5, 50, 3) < 0.5  # the second date lacks the western strip


def test_a_stack_with_a_missing_file_names_the_counts(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        picture(tmp_path / name)
    config = GroundConfig("stack", files=("a/*.png", "b/*.png"))
    with pytest.raises(InputError) as error:
        load(config, tmp_path)
    assert str(error.value) == (
        "a stack needs the same number of files at each date; found a/*.png: 2, b/*.png: 1"
    )


STACK = GroundConfig("stack", files=("a/*.tif", "b/*.tif", "c/*.tif"))
PHOTOS = GroundConfig("pictures", files=("photos/*.jpg",), gsd_m=1.0)
WORLD = GroundConfig("landscape", worlds=1, size_m=64.0, renders=1)


def refusal(data: Path | None, *configs: GroundConfig) -> str:
    with pytest.raises(InputError) as error:
        load_grounds(configs, data, lambda name: None)
    return str(error.value)


def test_all_sources_that_lack_files_are_named_in_one_line(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.tif")
    assert refusal(tmp_path, WORLD, STACK, PHOTOS) == (
        f"--data {tmp_path}: holds no files for 2 of 3 [[ground]] entries: stack of b/*.tif and 1 "
        "more; pictures of photos/*.jpg; fetch them, or leave these entries out with --skip-missing"
    )


def test_positions_that_a_split_needs_are_looked_for_like_files(tmp_path: Path) -> None:
    picture(tmp_path / "photos" / "1.jpg")
    config = dataclasses.replace(PHOTOS, positions="photos.csv")
    assert refusal(tmp_path, config).startswith(
        f"--data {tmp_path}: holds no files for 1 of 1 [[ground]] entries: pictures of photos.csv;"
    )


def test_a_recipe_that_needs_data_asks_for_it_and_says_what_for() -> None:
    assert refusal(None, WORLD, STACK, PHOTOS) == (
        "--data is missing; 2 of 3 [[ground]] entries need it: stack of a/*.tif and 2 more; "
        "pictures of photos/*.jpg; name their folder, name prepared imagery with --grounds, or "
        "leave these entries out with --skip-missing"
    )


def test_a_data_folder_that_is_not_there_says_which_sources_fall_away(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none", WORLD, PHOTOS) == (
        f"--data {tmp_path / 'none'}: no such folder; 1 of 2 [[ground]] entries need it: pictures "
        "of photos/*.jpg; name the folder that holds the files"
    )


def test_worlds_are_not_made_before_files_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s4g.train.grounds.rendered", lambda jobs: pytest.fail("made"))
    assert "pictures of photos/*.jpg" in refusal(tmp_path, WORLD, PHOTOS)


def test_a_pattern_that_leaves_the_data_folder_is_refused(tmp_path: Path) -> None:
    config = GroundConfig("rasters", files=(f"{tmp_path}/*.tif",))
    assert refusal(tmp_path, config) == (
        f"[[ground]] files {tmp_path}/*.tif: is a path of its own; write it from the folder that "
        "--data names"
    )


def raster(path: Path, values: np.ndarray, west_m: float = 500000.0, **options: object) -> Path:
    """Write a GeoTIFF of 1 m pixels, (3, H, W)."""
    rasterio = pytest.importorskip("rasterio", reason="GeoTIFFs need rasterio (the pack extra)")
    _, height, width = values.shape
    profile = {
        "driver": "GTiff",
        "width": width,
        "height": height,
        "count": 3,
        "dtype": values.dtype.name,
        "crs": "EPSG:32615",
        "transform": rasterio.transform.from_origin(west_m, 5200000.0, 1.0, 1.0),
    }
    path.parent.mkdir(exist_ok=True)
    with rasterio.open(path, "w", **profile, **options) as file:
        file.write(values)
    return path


RASTERS = GroundConfig("rasters", files=("*.tif",))
NOTHING = "all 4,096 pixels are nodata, NaN or black; replace the file or take it out of [[ground]]"


@pytest.mark.parametrize(
    ("values", "options", "wrong"),
    [
        (np.full((3, 64, 64), np.nan, np.float32), {}, NOTHING),
        (np.full((3, 64, 64), 7, np.uint8), {"nodata": 7}, NOTHING),
        (np.zeros((3, 64, 64), np.uint8), {}, NOTHING),
        (
            np.full((3, 64, 64), 90, np.uint8),
            {},
            "all pixels have the colour (90, 90, 90); replace the file or take it out of "
            "[[ground]]",
        ),
    ],
    ids=["NaN", "nodata", "black", "one colour"],
)
def test_a_raster_that_shows_nothing_is_refused(
    tmp_path: Path, values: np.ndarray, options: dict[str, object], wrong: str
) -> None:
    path = raster(tmp_path / "a.tif", values, **options)
    assert refusal(tmp_path, RASTERS) == f"{path}: {wrong}"


def test_pixels_that_are_not_a_number_are_holes(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((3, 64, 64)).astype(np.float32)
    values[:, :, :32] = np.nan
    raster(tmp_path / "a.tif", values)
    (ground,) = load(RASTERS, tmp_path)
    assert ground.valid_share(48, 32, 16) > 0.9  # the darkest pixels became black
    assert ground.valid_share(16, 32, 16) == 0.0


def test_a_raster_without_georeference_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("rasterio", reason="GeoTIFFs need rasterio (the pack extra)")
    picture(tmp_path / "a.tif")
    assert refusal(tmp_path, RASTERS) == (
        f"{tmp_path / 'a.tif'}: has no georeference; add one with gdal_translate -a_srs EPSG:… "
        "-a_ullr …, or use a GeoTIFF that carries it"
    )


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (3, 64, 64), dtype=np.uint8)


def test_a_date_of_a_stack_that_shows_nothing_is_named(tmp_path: Path) -> None:
    raster(tmp_path / "a" / "1.tif", noise())
    blank = raster(tmp_path / "b" / "1.tif", np.zeros((3, 64, 64), np.uint8))
    config = GroundConfig("stack", files=("a/*.tif", "b/*.tif"))
    assert refusal(tmp_path, config) == f"{blank}: {NOTHING}"


def test_dates_that_share_no_ground_are_refused(tmp_path: Path) -> None:
    west, east = noise(), noise()
    west[:, :, 32:] = 0
    east[:, :, :32] = 0
    first = raster(tmp_path / "a" / "1.tif", west)
    raster(tmp_path / "b" / "1.tif", east)
    config = GroundConfig("stack", files=("a/*.tif", "b/*.tif"))
    assert refusal(tmp_path, config) == (
        f"{first}: not one pixel is valid at all 2 dates of its stack; replace a date or leave it "
        "out"
    )


def test_a_photo_of_a_lens_cap_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photos" / "1.jpg"
    path.parent.mkdir()
    cv2.imwrite(str(path), np.full((60, 80, 3), 12, np.uint8))
    assert refusal(tmp_path, PHOTOS) == (
        f"{path}: all pixels have the colour (12, 12, 12); replace the file or take it out of "
        "[[ground]]"
    )


def test_black_tiles_that_touch_no_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "town" / "19" / "5" / "7.png"
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), np.zeros((256, 256, 3), np.uint8))
    assert refusal(tmp_path, GroundConfig("xyz", files=("*",), zoom=19)) == (
        f"{tmp_path / 'town'} 19/5/7, 1 x 1 tiles: all 65,536 pixels are nodata, NaN or black; "
        "replace the file or take it out of [[ground]]"
    )


def test_a_corrupt_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=f"^{tmp_path / 'bad.jpg'}: not an image"):
        load(GroundConfig("pictures", files=("*.jpg",), gsd_m=1.0), tmp_path)


def test_all_real_imagery_of_the_edge_recipe_loads_and_brighton_stays_out(data_dir: Path) -> None:
    from s4g.train.recipe import load_recipe

    recipe = load_recipe("edge")
    assert not any("brighton" in pattern for g in recipe.grounds for pattern in g.files)
    neon = next(g for g in recipe.grounds if any("neon" in f for f in g.files))
    grounds = load(neon, data_dir)
    assert len(grounds) == 36
    assert all(len(g.dates) == 2 for g in grounds)
    assert sum(g.validates for g in grounds) == 7
