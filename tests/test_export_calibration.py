"""Tiles to calibrate on and places to judge by: right size, right scale, no shared ground."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch", reason="export needs torch (the export extra)")
rasterio = pytest.importorskip("rasterio", reason="GeoTIFFs need rasterio (the pack extra)")

from s4g.core.errors import InputError  # noqa: E402
from s4g.core.spec import EncoderSpec  # noqa: E402
from s4g.export.calibration import TileSet, check_texture, cut_tiles  # noqa: E402

PX = 32
SPEC = EncoderSpec("0" * 64, "toy", PX, (0.5,) * 3, (0.25,) * 3, 8, (8,), 0.5, 4.0, True, 0.1)


def write_raster(
    path: Path,
    rgb: npt.NDArray[np.uint8],
    gsd_m: float = 1.0,
    west_m: float = 500_000.0,
    north_m: float = 5_200_000.0,
    nodata: int | None = None,
) -> None:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=rgb.shape[1],
        height=rgb.shape[0],
        count=3,
        dtype="uint8",
        crs="EPSG:32632",
        transform=rasterio.Affine(gsd_m, 0, west_m, 0, -gsd_m, north_m),
        nodata=nodata,
    ) as file:
        file.write(np.moveaxis(rgb, -1, 0))


def ramp(width_px: int, height_px: int, blue: int = 0) -> npt.NDArray[np.uint8]:
    """An image whose red tells the column and whose green tells the row (0 to 250)."""
    rgb = np.full((height_px, width_px, 3), blue, np.uint8)
    rgb[..., 0] = np.linspace(0, 250, width_px).astype(np.uint8)
    rgb[..., 1] = np.linspace(0, 250, height_px).astype(np.uint8)[:, None]
    return rgb


def flat(size_px: int, value: int) -> npt.NDArray[np.uint8]:
    return np.full((size_px, size_px, 3), value, np.uint8)


def test_tiles_have_the_encoders_size_and_places_a_margin(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", ramp(600, 300))
    made = cut_tiles(str(tmp_path / "a.tif"), SPEC, tiles=7, places=5, seed=0)
    assert made.tiles.shape == (7, PX, PX, 3)
    assert made.places.shape == (5, 48, 48, 3)
    assert made.tiles.dtype == made.places.dtype == np.uint8
    assert (made.files, made.georeferenced) == (1, True)


@pytest.mark.parametrize(("width", "height", "channel"), [(600, 300, 0), (300, 600, 1)])
def test_places_lie_beyond_the_last_calibration_tile(
    tmp_path: Path, width: int, height: int, channel: int
) -> None:
    write_raster(tmp_path / "a.tif", ramp(width, height))
    made = cut_tiles(str(tmp_path / "a.tif"), SPEC, tiles=60, places=60, seed=0)
    tiles, places = made.tiles[..., channel], made.places[..., channel]
    if channel == 0:
        assert tiles.max() <= 0.7 * 250 + 1
        assert places.min() >= 0.7 * 250 - 1
    else:  # green grows southwards, the north is held out
        assert places.max() <= 0.3 * 250 + 1
        assert tiles.min() >= 0.3 * 250 - 1


def test_overlapping_rasters_of_two_dates_are_cut_at_the_same_line(tmp_path: Path) -> None:
    write_raster(tmp_path / "2019.tif", ramp(600, 300, blue=10))
    write_raster(tmp_path / "2020.tif", ramp(600, 300, blue=200))
    made = cut_tiles(str(tmp_path), SPEC, tiles=60, places=60, seed=0)
    assert made.files == 2
    for images in (made.tiles, made.places):
        dates = set(np.median(images[..., 2], axis=(1, 2)).astype(int))
        assert dates == {10, 200}
    assert made.tiles[..., 0].max() <= made.places[..., 0].min() + 2


def test_rasters_too_small_to_cut_are_shared_out_whole(tmp_path: Path) -> None:
    for number in range(6):  # 60 m each: a place of 48 px fits at 0.5 to 1.2 m/px
        rgb = flat(60, 30 + 30 * number)
        write_raster(tmp_path / f"{number}.tif", rgb, west_m=500_000 + 1000 * number)
    made = cut_tiles(str(tmp_path), SPEC, tiles=40, places=40, seed=0)
    calibrated = set(np.median(made.tiles, axis=(1, 2, 3)).astype(int))
    held_out = set(np.median(made.places, axis=(1, 2, 3)).astype(int))
    assert calibrated and held_out
    assert not calibrated & held_out


def test_a_raster_too_small_to_cut_serves_calibration_beside_a_large_one(tmp_path: Path) -> None:
    write_raster(tmp_path / "large.tif", ramp(600, 300, blue=10))
    write_raster(tmp_path / "small.tif", ramp(60, 60, blue=200), west_m=600_000)
    made = cut_tiles(str(tmp_path), SPEC, tiles=200, places=50, seed=0)
    assert set(np.median(made.tiles[..., 2], axis=(1, 2)).astype(int)) == {10, 200}
    assert set(np.median(made.places[..., 2], axis=(1, 2)).astype(int)) == {10}


def test_scales_span_the_encoders_range(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", ramp(1600, 800), gsd_m=0.5)
    made = cut_tiles(str(tmp_path / "a.tif"), SPEC, tiles=60, places=10, seed=0)
    # Red grows by 250 in 800 m, so its span over a tile gives the tile's footprint.
    spans = made.tiles[:, 0, -1, 0].astype(float) - made.tiles[:, 0, 0, 0]
    gsd_m = spans * 800 / 250 / (PX - 1)
    assert gsd_m.min() < 0.8
    assert gsd_m.max() > 2.0
    assert gsd_m.max() < 4.2


def test_gaps_in_the_imagery_are_avoided(tmp_path: Path) -> None:
    rgb = ramp(600, 300, blue=90)
    rgb[:, 100:300] = 0
    write_raster(tmp_path / "a.tif", rgb, nodata=0)
    made = cut_tiles(str(tmp_path / "a.tif"), SPEC, tiles=40, places=10, seed=0)
    assert (made.tiles[..., 2] == 90).mean(axis=(1, 2)).min() >= 0.89


def test_the_seed_decides_what_is_cut(tmp_path: Path) -> None:
    source = str(tmp_path / "a.tif")
    write_raster(tmp_path / "a.tif", ramp(600, 300))
    first, again, other = (cut_tiles(source, SPEC, 5, 3, seed) for seed in (0, 0, 1))
    assert first.sha256 == again.sha256 != other.sha256
    assert np.array_equal(first.places, again.places)


def test_a_landscape_serves_as_imagery() -> None:
    made = cut_tiles("landscape:seed=3,size_m=300", SPEC, tiles=5, places=4, seed=0)
    assert made.tiles.shape == (5, PX, PX, 3)
    assert made.tiles.std() > 5


def test_no_calibration_tiles_are_cut_where_none_are_asked_for(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", ramp(600, 300))
    made = cut_tiles(str(tmp_path / "a.tif"), SPEC, tiles=0, places=3, seed=0)
    assert made.tiles.shape == (0, PX, PX, 3)
    assert len(made.places) == 3


def write_pictures(folder: Path, count: int, size_px: int = 100) -> None:
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:03d}.png"), flat(size_px, 10 * number))


def test_pictures_held_out_are_others_than_those_for_calibration(tmp_path: Path) -> None:
    write_pictures(tmp_path, 10)
    made = cut_tiles(str(tmp_path), SPEC, tiles=20, places=9, seed=0)
    assert set(made.tiles[:, 0, 0, 0]) == set(range(0, 70, 10))
    assert set(made.places[:, 0, 0, 0]) == {70, 80, 90}
    assert (made.files, made.georeferenced) == (10, False)


def test_few_squares_come_from_pictures_all_along_a_flight(tmp_path: Path) -> None:
    write_pictures(tmp_path, 20)
    made = cut_tiles(str(tmp_path), SPEC, tiles=5, places=2, seed=0)
    cut = sorted(set(made.tiles[:, 0, 0, 0]))
    assert len(cut) == 5
    assert cut[-1] > 40  # not the first five, which show the take-off


def test_pictures_in_subfolders_and_tiffs_without_a_place_count_as_pictures(tmp_path: Path) -> None:
    (tmp_path / "flight").mkdir()
    cv2.imwrite(str(tmp_path / "flight" / "a.tif"), flat(100, 50))
    cv2.imwrite(str(tmp_path / "b.jpg"), flat(100, 90))
    made = cut_tiles(str(tmp_path), SPEC, tiles=2, places=2, seed=0)
    assert (made.files, made.georeferenced) == (2, False)


def refusal(source: object, tiles: int = 5) -> str:
    with pytest.raises(InputError) as error:
        cut_tiles(str(source), SPEC, tiles, 5, seed=0)
    return str(error.value)


def test_a_missing_source_is_refused() -> None:
    assert refusal("missing.tif") == (
        "--calib missing.tif: no such file or folder; give a georeferenced raster, a folder of "
        "imagery, or landscape"
    )


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == (
        f"--calib {tmp_path}: holds no imagery; expected files ending in "
        ".bmp .jpeg .jpg .png .tif .tiff .webp"
    )


def test_a_corrupt_picture_is_refused_by_name(tmp_path: Path) -> None:
    write_pictures(tmp_path, 3)
    (tmp_path / "001.png").write_bytes(b"no picture")
    assert refusal(tmp_path) == (
        f"{tmp_path / '001.png'}: not an image that can be decoded; replace or remove the file"
    )


def test_a_corrupt_raster_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"no raster")
    assert re.match(
        re.escape(f"{tmp_path / 'a.tif'}: not an image that can be read ("), refusal(tmp_path)
    )


def test_a_single_picture_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1)
    assert refusal(tmp_path) == (
        f"--calib {tmp_path}: 1 picture; at least 2 are needed, so that calibration and "
        "judgement use different places"
    )


def test_pictures_smaller_than_the_input_are_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path, 3, size_px=16)
    assert refusal(tmp_path) == (
        f"{tmp_path / '000.png'}: 16x16 px, too small for an encoder of 32 px; "
        "use pictures of at least 48 px"
    )


def test_imagery_too_coarse_for_the_encoder_is_refused(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", ramp(600, 300), gsd_m=10.0)
    assert refusal(tmp_path / "a.tif") == (
        f"--calib {tmp_path / 'a.tif'}: 10 m/px at best, this encoder takes 0.5 to 4 m/px; "
        "use finer imagery"
    )


def test_imagery_too_small_to_keep_apart_is_refused(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", ramp(60, 40))
    assert refusal(tmp_path / "a.tif") == (
        f"--calib {tmp_path / 'a.tif'}: 60 x 40 m at most, too small to keep calibration "
        "and held-out places apart (this encoder takes 0.5 to 4 m/px); use imagery of at least "
        "160 m a side"
    )


def test_imagery_without_data_is_refused(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", np.zeros((300, 600, 3), np.uint8), nodata=0)
    assert refusal(tmp_path / "a.tif", tiles=1) == (
        f"--calib {tmp_path / 'a.tif'}: only 0 of 1 tiles could be cut, the rest has no data; "
        "use imagery with fewer gaps or pass a smaller --images"
    )


def test_real_rasters_give_tiles(data_dir: Path) -> None:
    spec = EncoderSpec("0" * 64, "toy", 64, (0.5,) * 3, (0.25,) * 3, 8, (8,), 0.2, 2.0, True, 0.1)
    made = cut_tiles(str(data_dir / "small_orthos"), spec, tiles=10, places=6, seed=0)
    assert made.tiles.shape == (10, 64, 64, 3)
    assert made.places.std(axis=(1, 2)).mean() > 5


def test_calibration_places_have_the_margin_of_held_out_ones(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", ramp(600, 300))
    made = cut_tiles(str(tmp_path / "a.tif"), SPEC, tiles=4, places=3, seed=0)
    assert made.calibration.shape == (4, 48, 48, 3)
    np.testing.assert_array_equal(made.tiles, made.calibration[:, 8:40, 8:40])
    assert made.frames.shape == made.held_out_frames.shape == (0, PX, PX, 3)


def with_frames(
    folder: Path, tiles: int = 8, places: int = 6, frames: int = 10, seed: int = 0
) -> TileSet:
    write_raster(folder / "a.tif", ramp(600, 300))
    (folder / "flight").mkdir(exist_ok=True)
    write_pictures(folder / "flight", frames)
    return cut_tiles(str(folder / "a.tif"), SPEC, tiles, places, seed, str(folder / "flight"))


def test_the_first_frames_of_a_flight_calibrate_and_the_last_judge(tmp_path: Path) -> None:
    made = with_frames(tmp_path, tiles=20, places=9)
    assert made.frames.shape == (20, PX, PX, 3)
    assert made.held_out_frames.shape == (9, PX, PX, 3)
    assert set(made.frames[:, 0, 0, 0]) == set(range(0, 70, 10))
    assert set(made.held_out_frames[:, 0, 0, 0]) == {70, 80, 90}


def test_frames_change_no_place(tmp_path: Path) -> None:
    made = with_frames(tmp_path)
    without = cut_tiles(str(tmp_path / "a.tif"), SPEC, 8, 6, seed=0)
    np.testing.assert_array_equal(made.calibration, without.calibration)
    np.testing.assert_array_equal(made.places, without.places)


def test_the_hash_is_of_what_calibrates(tmp_path: Path) -> None:
    made, other = with_frames(tmp_path), with_frames(tmp_path, seed=1)
    without = cut_tiles(str(tmp_path / "a.tif"), SPEC, 8, 6, seed=0)
    held_out = dataclasses.replace(made, places=other.places, held_out_frames=made.frames)
    assert made.sha256 == with_frames(tmp_path).sha256 == held_out.sha256
    assert len({made.sha256, other.sha256, without.sha256}) == 3


def frames_refusal(folder: Path, frames: Path) -> str:
    write_raster(folder / "a.tif", ramp(600, 300))
    with pytest.raises(InputError) as error:
        cut_tiles(str(folder / "a.tif"), SPEC, 2, 2, 0, str(frames))
    return str(error.value)


def test_a_missing_folder_of_frames_is_refused(tmp_path: Path) -> None:
    assert frames_refusal(tmp_path, tmp_path / "none") == (
        f"--frames {tmp_path / 'none'}: no such folder; give a folder of a flight's frames"
    )


@pytest.mark.parametrize(("count", "told"), [(0, "no pictures"), (1, "1 picture")])
def test_a_flight_of_fewer_than_two_frames_is_refused(
    tmp_path: Path, count: int, told: str
) -> None:
    (tmp_path / "flight").mkdir()
    write_pictures(tmp_path / "flight", count)
    assert frames_refusal(tmp_path, tmp_path / "flight") == (
        f"--frames {tmp_path / 'flight'}: {told}; at least 2 are needed, so that calibration and "
        "judgement use different places"
    )


def test_frames_smaller_than_the_input_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "flight").mkdir()
    write_pictures(tmp_path / "flight", 3, size_px=10)
    assert frames_refusal(tmp_path, tmp_path / "flight") == (
        f"{tmp_path / 'flight' / '000.png'}: 10x10 px, too small for an encoder of 32 px; "
        "use pictures of at least 32 px"
    )


def test_imagery_that_shows_nothing_is_no_calibration(tmp_path: Path) -> None:
    write_raster(tmp_path / "night.tif", np.full((300, 600, 3), 3, np.uint8))
    made = cut_tiles(str(tmp_path / "night.tif"), SPEC, tiles=6, places=2, seed=0)
    with pytest.raises(InputError) as error:
        check_texture(made)
    assert str(error.value) == (
        f"--calib {tmp_path / 'night.tif'}: 6 of 6 tiles are of one colour; use imagery of the "
        "ground as the drone will see it"
    )


@pytest.mark.parametrize(("flat_tiles", "refused"), [(3, False), (4, True)])
def test_up_to_half_of_the_tiles_may_be_of_one_colour(flat_tiles: int, refused: bool) -> None:
    """A lake, snow, a field: some are to be expected."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 48, 48, 3)).astype(np.uint8)
    noise[:flat_tiles, :, :, :] = (10, 90, 30)  # a colour, not grey
    none = np.zeros((0, PX, PX, 3), np.uint8)
    tiles = TileSet("x", noise, noise[:0], noise[:0], 1, True, none, none)
    if refused:
        with pytest.raises(InputError, match="^--calib x: 4 of 6 tiles are of one colour; "):
            check_texture(tiles)
    else:
        check_texture(tiles)


def test_places_to_choose_by_lie_between_those_to_calibrate_on_and_the_held_out(
    tmp_path: Path,
) -> None:
    write_raster(tmp_path / "a.tif", ramp(900, 300))
    made = cut_tiles(str(tmp_path / "a.tif"), SPEC, tiles=20, places=20, seed=0, tuning=20)
    east = [part[..., 0] for part in (made.calibration, made.tuning, made.places)]
    assert east[0].max() <= east[1].min() + 2
    assert east[1].max() <= east[2].min() + 2


@pytest.mark.parametrize("fill", [0, 255])
def test_gaps_that_are_only_painted_over_are_avoided_too(tmp_path: Path, fill: int) -> None:
    """Rotated orthophotos often come with black or white corners and no nodata value."""
    pixels = np.maximum(ramp(600, 300, blue=90), 1)
    pixels[:150] = fill
    write_raster(tmp_path / "a.tif", pixels)
    made = cut_tiles(str(tmp_path / "a.tif"), SPEC, tiles=30, places=10, seed=0)
    for part in (made.calibration, made.places):
        assert (part == fill).all(axis=3).mean(axis=(1, 2)).max() <= 0.11


def test_too_little_held_out_ground_is_refused(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", ramp(160, 60))
    with pytest.raises(InputError) as failure:
        cut_tiles(str(tmp_path / "a.tif"), SPEC, tiles=5, places=40, seed=0)
    assert re.fullmatch(
        re.escape(f"--calib {tmp_path / 'a.tif'}: only ")
        + r"\d held-out places could be cut that lie apart from each other, at least 10 are "
        "needed; use imagery of more ground",
        str(failure.value),
    )
