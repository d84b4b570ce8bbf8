"""Training imagery: loaded at true scale, split by place, holes known."""

from __future__ import annotations

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
    cv2.imwrite(str(path), np.full((height, width, 3), value, np.uint8))


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
    cv2.imwrite(str(tmp_path / "a.png"), np.repeat(chequered[..., None], 3, 2).astype(np.uint8))
    config = GroundConfig("pictures", files=("*.png",), gsd_m=0.5, read_gsd_m=1.0)
    (ground,) = load(config, tmp_path)
    assert (ground.gsd_m, ground.size_m) == (1.0, (64.0, 32.0))
    assert np.unique(ground.dates[0][0]).tolist() == [120]  # averaged over area, not picked


def test_a_landscape_may_be_seen_from_higher_up() -> None:
    config = GroundConfig("landscape", worlds=1, size_m=128.0, gsd_m=2.0, renders=1)
    (ground,) = load(config, None)
    assert ground.size_m == (128.0, 128.0)
    assert ground.dates[0][0].shape == (64, 64, 3)


def test_black_pixels_and_ground_beyond_the_edge_count_as_invalid(tmp_path: Path) -> None:
    image = np.full((64, 64, 3), 120, np.uint8)
    image[:, :32] = 0
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


def test_a_pattern_that_matches_nothing_is_named(tmp_path: Path) -> None:
    config = GroundConfig("pictures", files=("photos/*.jpg",), gsd_m=1.0)
    with pytest.raises(InputError) as error:
        load(config, tmp_path)
    assert str(error.value) == (
        f"--data {tmp_path}: nothing matches photos/*.jpg, which the recipe needs"
    )


def test_a_recipe_that_needs_data_asks_for_it() -> None:
    config = GroundConfig("pictures", files=("photos/*.jpg",), gsd_m=1.0)
    with pytest.raises(InputError, match=r"^--data is missing: the recipe needs photos/\*\.jpg$"):
        load(config, None)


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
