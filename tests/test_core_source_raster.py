"""GeoTIFFs as ground sources: projections, nodata, masks, and files that cannot serve."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pyproj import Transformer

from s4g.core.errors import InputError, IntegrityError, S4GError
from s4g.core.geo import LocalFrame
from s4g.core.ground import GroundWindow
from s4g.core.raster_files import HTTP_OPTIONS
from s4g.core.source_raster import RasterGround
from s4g.core.sources import open_ground

rasterio = pytest.importorskip("rasterio", reason="GeoTIFFs need rasterio (the pack extra)")
range_server = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("range_server.py"))))

SIDE_PX = 200
GSD_M = 0.5
# Projection, west and north of a raster, and how well two PROJ builds agree on its datum.
PLACES = {
    "EPSG:32615": (480_000.0, 4_980_000.0, 0.05),
    "EPSG:3857": (1_000_000.0, 5_900_000.0, 0.05),
    "EPSG:28992": (155_000.0, 463_000.0, 1.0),
}


def ramp() -> npt.NDArray[np.uint8]:
    """Colours that say which pixel it is: red its column, green its row."""
    rows, columns = np.indices((SIDE_PX, SIDE_PX))
    return np.stack([columns, rows, np.full_like(rows, 90)], axis=-1).astype(np.uint8) + 20


def write(path: Path, image: npt.NDArray[Any], **profile: Any) -> Path:
    """Write (H, W, C) as a GeoTIFF, by default in UTM zone 15 north at 0.5 m."""
    west, north, _ = PLACES["EPSG:32615"]
    settings: dict[str, Any] = {
        "driver": "GTiff",
        "height": image.shape[0],
        "width": image.shape[1],
        "count": image.shape[2],
        "dtype": str(image.dtype),
        "crs": "EPSG:32615",
        "transform": rasterio.Affine(GSD_M, 0, west, 0, -GSD_M, north),
        **profile,
    }
    with rasterio.open(path, "w", **settings) as file:
        file.write(np.moveaxis(image, -1, 0))
    return path


def middle_window(source: RasterGround, gsd_m: float = 0.5) -> tuple[LocalFrame, GroundWindow]:
    """Return a frame in the raster's middle and a window of 20 m around it."""
    size = int(20 / gsd_m)
    return LocalFrame(*source.bounds.center), GroundWindow(-10, 10, gsd_m, size, size)


def message_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        RasterGround(path)
    return str(caught.value)


@pytest.mark.parametrize("crs", PLACES)
def test_ground_lies_where_pyproj_says_in_any_projection(tmp_path: Path, crs: str) -> None:
    west, north, datum_m = PLACES[crs]
    transform = rasterio.Affine(GSD_M, 0, west, 0, -GSD_M, north)
    source = RasterGround(write(tmp_path / "a.tif", ramp(), crs=crs, transform=transform))
    frame, window = middle_window(source)
    image = source.read(frame, window)
    assert image.valid.all()

    rows, columns = np.indices((window.height_px, window.width_px))
    east = window.west_m + (columns + 0.5) * window.gsd_m
    up = window.north_m - (rows + 0.5) * window.gsd_m
    lat, lon = frame.to_wgs84(east, up)
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat)
    column, row = (x - west) / GSD_M - 0.5, (north - y) / GSD_M - 0.5
    tolerance = 1 + datum_m / GSD_M
    assert np.abs(image.rgb[..., 0] - 20.0 - column).max() <= tolerance
    assert np.abs(image.rgb[..., 1] - 20.0 - row).max() <= tolerance


def test_the_native_scale_is_that_of_the_ground_and_not_of_the_map(tmp_path: Path) -> None:
    utm = RasterGround(write(tmp_path / "utm.tif", ramp()))
    assert utm.gsd_m == pytest.approx(0.5, rel=1e-3)
    west, north, _ = PLACES["EPSG:3857"]
    mercator = RasterGround(
        write(
            tmp_path / "mercator.tif",
            ramp(),
            crs="EPSG:3857",
            transform=rasterio.Affine(GSD_M, 0, west, 0, -GSD_M, north),
        )
    )
    lat, _ = mercator.bounds.center
    assert mercator.gsd_m == pytest.approx(0.5 * np.cos(np.radians(lat)), rel=5e-3)


def test_a_rotated_raster_has_its_own_scale_and_is_read_upright(tmp_path: Path) -> None:
    west, north, _ = PLACES["EPSG:32615"]
    turn = (
        rasterio.Affine.translation(west, north)
        @ rasterio.Affine.rotation(30)
        @ rasterio.Affine.scale(GSD_M, -GSD_M)
    )
    source = RasterGround(write(tmp_path / "turned.tif", ramp(), transform=turn))
    assert source.gsd_m == pytest.approx(0.5, rel=1e-3)
    image = source.read(*middle_window(source))
    assert image.valid.all()
    red = image.rgb[..., 0].astype(float)
    # The raster's columns run 30 degrees north of east.
    assert np.diff(red, axis=1).mean() == pytest.approx(np.cos(np.radians(30)), abs=0.05)
    assert -np.diff(red, axis=0).mean() == pytest.approx(np.sin(np.radians(30)), abs=0.05)


def test_a_coarser_window_is_averaged(tmp_path: Path) -> None:
    checkers = (np.indices((SIDE_PX, SIDE_PX)).sum(axis=0) % 2 * 255).astype(np.uint8)
    source = RasterGround(write(tmp_path / "a.tif", np.dstack([checkers] * 3)))
    image = source.read(*middle_window(source, gsd_m=4.0))
    assert np.abs(image.rgb.astype(int) - 127).max() <= 20


def test_nodata_is_invalid_and_black(tmp_path: Path) -> None:
    image = ramp()
    image[:, SIDE_PX // 2 :] = 0
    source = RasterGround(write(tmp_path / "a.tif", image, nodata=0))
    seen = source.read(*middle_window(source))
    assert seen.valid[:, :18].all() and not seen.valid[:, 22:].any()
    assert not seen.rgb[~seen.valid].any()


def test_transparent_pixels_are_invalid(tmp_path: Path) -> None:
    alpha = np.full((SIDE_PX, SIDE_PX, 1), 255, np.uint8)
    alpha[: SIDE_PX // 2] = 0
    source = RasterGround(
        write(
            tmp_path / "a.tif", np.concatenate([ramp(), alpha], -1), photometric="RGB", alpha="YES"
        )
    )
    seen = source.read(*middle_window(source))
    assert not seen.valid[:18].any() and seen.valid[22:].all()


def test_an_internal_mask_is_honoured(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write(path, ramp())
        with rasterio.open(path, "r+") as file:
            mask = np.zeros((SIDE_PX, SIDE_PX), np.bool_)
            mask[:, : SIDE_PX // 2] = True
            file.write_mask(mask)
    source = RasterGround(path)
    seen = source.read(*middle_window(source))
    assert seen.valid[:, :18].all() and not seen.valid[:, 22:].any()


def test_of_four_bands_without_alpha_the_first_three_are_taken(tmp_path: Path) -> None:
    near_infrared = np.full((SIDE_PX, SIDE_PX, 1), 7, np.uint8)
    path = write(
        tmp_path / "a.tif",
        np.concatenate([ramp(), near_infrared], -1),
        photometric="RGB",
        alpha="UNSPECIFIED",
    )
    source = RasterGround(path)
    seen = source.read(*middle_window(source))
    assert seen.valid.all()
    assert (seen.rgb[..., 2] == 110).all()


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    source = RasterGround(write(tmp_path / "a.tif", ramp()[..., :1]))
    seen = source.read(*middle_window(source))
    assert seen.valid.all()
    assert np.ptp(seen.rgb, axis=-1).max() == 0


@pytest.mark.parametrize("away_m", [1e3, 1e5, 1e7, 3e7])
def test_a_window_far_outside_is_all_invalid(tmp_path: Path, away_m: float) -> None:
    source = RasterGround(write(tmp_path / "a.tif", ramp()))
    frame = LocalFrame(*source.bounds.center)
    seen = source.read(frame, GroundWindow(away_m, away_m, 0.5, 16, 8))
    assert seen.rgb.shape == (8, 16, 3)
    assert not seen.valid.any() and not seen.rgb.any()


def test_the_copyright_tag_is_the_attribution(toy_source: Path, tmp_path: Path) -> None:
    assert RasterGround(toy_source).attribution == "toy imagery, public domain"
    assert RasterGround(write(tmp_path / "a.tif", ramp())).attribution == ""


def test_a_raster_without_georeference_is_refused(tmp_path: Path) -> None:
    import cv2

    path = tmp_path / "a.png"
    cv2.imwrite(str(path), ramp())
    assert message_of(path) == (
        f"{path}: has no georeference; add one with gdal_translate -a_srs EPSG:… -a_ullr …, "
        "or use a GeoTIFF that carries it"
    )


def test_a_raster_with_a_transform_but_no_crs_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp(), crs=None)
    assert message_of(path).startswith(f"{path}: has no georeference; ")


def test_a_raster_that_is_nowhere_on_earth_is_refused(tmp_path: Path) -> None:
    transform = rasterio.Affine(1e-5, 0, 500, 0, -1e-5, 47)
    path = write(tmp_path / "a.tif", ramp(), crs="EPSG:4326", transform=transform)
    assert message_of(path) == (
        f"{path}: its extent has no usable place on Earth (bbox 500,46.998,500.002,47: longitudes "
        "must lie between -180 and 180 degrees); check its georeference with gdalinfo"
    )


def test_a_raster_in_a_drawings_own_coordinates_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp(), crs='LOCAL_CS["site",UNIT["metre",1]]')
    message = message_of(path)
    assert message.startswith(f"{path}: its extent has no usable place on Earth (CRS LOCAL_CS")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("dtype", "gain", "offset"), [("uint16", 200, 0), ("int16", 150, -20_000), ("float32", 1e-3, 0)]
)
def test_pixels_of_16_bits_or_fractions_are_stretched(
    tmp_path: Path, dtype: str, gain: float, offset: float
) -> None:
    pixels = (ramp().astype(float) * gain + offset).astype(dtype)
    source = RasterGround(write(tmp_path / "a.tif", pixels))
    low, high = np.percentile(pixels, (2, 98), axis=(0, 1))
    assert source.stretch is not None
    assert np.allclose(source.stretch.low, low, rtol=1e-3)
    frame = LocalFrame(*source.bounds.center)
    seen = source.read(frame, GroundWindow(-45, 45, 0.5, 180, 180))
    assert seen.valid.all()
    red = seen.rgb[..., 0].astype(int)
    # Columns 10 to 189 of 0 to 199: from 5 % to 95 % of the way, of which 2 % to 98 % is shown.
    assert abs(red[:, 0].mean() - 255 * (0.05 - 0.02) / 0.96) < 3
    assert abs(red[:, -1].mean() - 255 * (0.95 - 0.02) / 0.96) < 3
    assert np.abs(np.diff(red, axis=1) - 255 / 192).max() < 2


@pytest.mark.parametrize("stretch", [(0, 999), (0, 1000), (3189, 4000)])
def test_a_stretch_beyond_all_values_is_refused_with_their_range(
    tmp_path: Path, stretch: tuple[float, float]
) -> None:
    image = ramp().astype(np.uint16) * 10 + 800  # from 20 to 239, so 1000 to 3190
    image[:, :, 2] = 1000
    image[-1, -1] = 3189
    path = write(tmp_path / "a.tif", image)
    with pytest.raises(InputError) as caught:
        open_ground(str(path), stretch)
    assert str(caught.value) == (
        f"--stretch {stretch[0]},{stretch[1]}: leaves {path} all black or all white; its values "
        "lie between 1000 and 3189"
    )
    open_ground(str(path), (0, 1001)).close()
    open_ground(str(path), (3188, 4000)).close()


def test_every_window_is_stretched_alike(tmp_path: Path) -> None:
    source = RasterGround(write(tmp_path / "a.tif", ramp().astype(np.uint16) * 99))
    frame = LocalFrame(*source.bounds.center)
    whole = source.read(frame, GroundWindow(-40, 40, 0.5, 160, 160))
    part = source.read(frame, GroundWindow(10, -10, 0.5, 30, 30))
    assert np.abs(whole.rgb[100:130, 100:130].astype(int) - part.rgb).max() <= 1


def test_the_stretch_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp()[..., :1].astype(np.uint16) * 100)
    assert RasterGround(path, stretch=(0, 25_500)).notes == (
        f"{path}: uint16 pixels are stretched to 8 bits: 0..25500 (low..high of each band)",
    )
    assert RasterGround(write(tmp_path / "b.tif", ramp())).notes == ()


def test_a_given_stretch_is_obeyed(tmp_path: Path) -> None:
    pixels = ramp().astype(np.uint16) * 100
    source = RasterGround(write(tmp_path / "a.tif", pixels), stretch=(0, 25_500))
    plain = RasterGround(write(tmp_path / "b.tif", ramp()))
    stretched, taken = (s.read(*middle_window(s)).rgb.astype(int) for s in (source, plain))
    assert np.abs(stretched - taken).max() <= 1


@pytest.mark.parametrize("pair", [(5, 5), (9, 2), (float("nan"), 1)])
def test_a_stretch_out_of_order_is_refused(tmp_path: Path, pair: tuple[float, float]) -> None:
    with pytest.raises(InputError) as caught:
        RasterGround(write(tmp_path / "a.tif", ramp()), stretch=pair)
    assert str(caught.value) == (
        f"--stretch {pair[0]:g},{pair[1]:g}: give two numbers, the lower one first"
    )


@pytest.mark.parametrize("empty", [0, 65_535])
def test_nodata_has_no_part_in_the_stretch(tmp_path: Path, empty: int) -> None:
    pixels = ramp().astype(np.uint16) + 1000
    pixels[:, SIDE_PX // 2 :] = empty
    source = RasterGround(write(tmp_path / "a.tif", pixels, nodata=empty))
    assert source.stretch is not None
    assert min(source.stretch.low) > 1000 and max(source.stretch.high) < 1300
    seen = source.read(*middle_window(source))
    assert seen.valid[:, :18].all() and not seen.valid[:, 22:].any()


def test_what_is_no_number_is_invalid_and_has_no_part_in_the_stretch(tmp_path: Path) -> None:
    pixels = ramp().astype(np.float32) / 255
    pixels[: SIDE_PX // 2] = np.nan
    source = RasterGround(write(tmp_path / "a.tif", pixels))
    seen = source.read(*middle_window(source))
    assert not seen.valid[:18].any() and seen.valid[22:].all()
    assert seen.rgb[22:].std() > 5 and not seen.rgb[:18].any()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_alpha_of_any_type_hides(tmp_path: Path, dtype: str) -> None:
    alpha = np.full((SIDE_PX, SIDE_PX, 1), 255)
    alpha[: SIDE_PX // 2] = 0
    path = write(tmp_path / "a.tif", np.concatenate([ramp(), alpha, 0 * ramp()], -1).astype(dtype))
    kinds = rasterio.enums.ColorInterp
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [kinds.gray, kinds.undefined, kinds.undefined, kinds.alpha] + (
            [kinds.undefined] * 3
        )
    source = RasterGround(path)
    seen = source.read(*middle_window(source))
    assert not seen.valid[:18].any() and seen.valid[22:].all()
    assert not source.read(LocalFrame(0, 0), GroundWindow(0, 0, 1, 4, 4)).valid.any()


def test_beyond_the_edge_of_many_bands_nothing_is_valid(tmp_path: Path) -> None:
    pixels = np.concatenate([ramp(), ramp()], -1).astype(np.float32)
    source = RasterGround(write(tmp_path / "a.tif", pixels))
    frame = LocalFrame(*source.bounds.center)
    seen = source.read(frame, GroundWindow(-100, 100, 1, 200, 200))
    assert 9_000 < seen.valid.sum() < 11_000


def test_a_raster_without_any_valid_pixel_opens(tmp_path: Path) -> None:
    source = RasterGround(write(tmp_path / "a.tif", ramp().astype(np.int16) * 0, nodata=0))
    assert not source.read(*middle_window(source)).valid.any()


def test_a_huge_file_without_overviews_is_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.tif", ramp().astype(np.uint16) * 100)
    whole = RasterGround(path).stretch
    monkeypatch.setattr("s4g.core.stretch._MAX_DECODED_PX", 100)
    monkeypatch.setattr("s4g.core.stretch._WINDOW_PX", 8)
    sampled = RasterGround(path).stretch
    assert whole is not None and sampled is not None
    assert np.allclose(sampled.low, whole.low, atol=800)
    assert np.allclose(sampled.high, whole.high, atol=800)


def test_pixels_of_other_types_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp().astype(np.int32))
    assert message_of(path) == (
        f"{path}: pixels are int32, expected one of uint8, uint16, int16, float32; "
        "convert with gdal_translate -ot UInt16"
    )


def test_colours_are_taken_where_the_file_says(tmp_path: Path) -> None:
    red, green, blue = np.moveaxis(ramp(), -1, 0)
    infrared = np.full_like(red, 7)
    path = write(tmp_path / "a.tif", np.stack([infrared, blue, green, red], -1))
    kinds = rasterio.enums.ColorInterp
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [kinds.undefined, kinds.blue, kinds.green, kinds.red]
    source, plain = RasterGround(path), RasterGround(write(tmp_path / "b.tif", ramp()))
    window = middle_window(source)
    assert (source.read(*window).rgb == plain.read(*window).rgb).all()


def paletted(path: Path, **profile: Any) -> Path:
    """Write squares of 10 m of two colours that lie far apart in the palette."""
    squares = (np.indices((SIDE_PX, SIDE_PX)).sum(axis=0) // 20 % 2 * 200).astype(np.uint8)
    write(path, squares[..., None], **profile)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (10, 200, 30, 255), 100: (255, 255, 255, 255), 200: (90, 0, 0)})
    return path


@pytest.mark.parametrize("gsd_m", [0.5, 4.0])
def test_palettes_are_expanded(tmp_path: Path, gsd_m: float) -> None:
    source = RasterGround(paletted(tmp_path / "a&b.tif"))
    seen = source.read(*middle_window(source, gsd_m))
    assert seen.valid.all()
    # Between the two colours, and never white, as a mean of indices would be.
    assert seen.rgb[..., 0].max() <= 91 and seen.rgb[..., 2].max() <= 31
    assert abs(seen.rgb[..., 1].mean() - 100) < 15


def test_nodata_of_a_palette_is_invalid(tmp_path: Path) -> None:
    source = RasterGround(paletted(tmp_path / "a.tif", nodata=200))
    seen = source.read(*middle_window(source))
    assert 0.4 < seen.valid.mean() < 0.7
    assert (seen.rgb[seen.valid] == (10, 200, 30)).all()


def test_an_internal_mask_of_a_palette_is_honoured(tmp_path: Path) -> None:
    path = paletted(tmp_path / "a.tif")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        mask = np.zeros((SIDE_PX, SIDE_PX), np.bool_)
        mask[:, : SIDE_PX // 2] = True
        file.write_mask(mask)
    source = RasterGround(path)
    seen = source.read(*middle_window(source))
    assert seen.valid[:, :18].all() and not seen.valid[:, 22:].any()


def test_coarse_windows_are_read_from_overviews(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp(), tiled=True, blockxsize=64, blockysize=64)
    native = RasterGround(path)
    window = middle_window(native, 4.0)
    plain = native.read(*window)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling.average)
    source = RasterGround(path)
    assert source.gsd_m == native.gsd_m
    with_overviews = source.read(*window)
    assert (with_overviews.valid == plain.valid).all()
    assert np.abs(with_overviews.rgb.astype(int) - plain.rgb).max() <= 2
    # The finest pixels are not even looked at: without them the answer is the same.
    with rasterio.open(path, "r+") as file:
        file.write(np.zeros((3, SIDE_PX, SIDE_PX), np.uint8))
    blind = RasterGround(path)
    assert (blind.read(*window).rgb == with_overviews.rgb).all()
    assert not blind.read(*middle_window(blind, 1.0)).rgb.any()


@pytest.mark.parametrize("mask_first", [True, False])
def test_a_mask_holds_in_coarse_windows_whether_overviews_carry_it(
    tmp_path: Path, mask_first: bool
) -> None:
    path = write(tmp_path / "a.tif", ramp())
    mask = np.zeros((SIDE_PX, SIDE_PX), np.bool_)
    mask[:, : SIDE_PX // 2] = True
    for step in (mask_first, not mask_first):
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
            if step:
                file.write_mask(mask)
            else:
                file.build_overviews([2, 4], rasterio.enums.Resampling.average)
    source = RasterGround(path)
    assert (source._overview(8.0) is not None) == mask_first
    seen = source.read(*middle_window(source, 4.0))
    assert not seen.valid[:, 3:].any() and seen.valid[:, :2].all()


def test_several_threads_read_what_one_reads(tmp_path: Path) -> None:
    source = RasterGround(write(tmp_path / "a.tif", ramp(), tiled=True, compress="deflate"))
    frame = LocalFrame(*source.bounds.center)
    windows = [GroundWindow(-45 + i, 45 - i, 0.5, 64, 64) for i in range(40)]
    expected = [source.read(frame, window).rgb for window in windows]
    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(lambda window: source.read(frame, window).rgb, windows))
    assert all((a == b).all() for a, b in zip(seen, expected, strict=True))
    source.close()


def open_files(folder: Path) -> int:
    links = Path("/proc/self/fd")
    if not links.is_dir():
        pytest.skip("open files are counted in /proc, which is not here")
    names = (str(link.readlink()) for link in links.iterdir() if link.is_symlink())
    return sum(name.startswith(str(folder)) for name in names)


def test_close_closes_what_every_thread_opened(tmp_path: Path) -> None:
    source = RasterGround(write(tmp_path / "a.tif", ramp()))
    frame = LocalFrame(*source.bounds.center)
    with ThreadPoolExecutor(3) as pool:
        for _ in range(9):
            pool.submit(source.read, frame, GroundWindow(-45, 45, 0.5, 180, 180))
    assert open_files(tmp_path) >= 1
    source.close()
    assert open_files(tmp_path) == 0


def test_a_refused_file_is_closed(tmp_path: Path) -> None:
    message_of(write(tmp_path / "a.tif", ramp(), crs=None))
    assert open_files(tmp_path) == 0


def degrees(tmp_path: Path, west: float, north: float, step: float = 1e-5) -> Path:
    transform = rasterio.Affine(step, 0, west, 0, -step, north)
    return write(tmp_path / "a.tif", ramp(), crs="EPSG:4326", transform=transform)


@pytest.mark.parametrize("north", [85.1, -89.0, 90.0])
def test_poles_are_refused(tmp_path: Path, north: float) -> None:
    path = degrees(tmp_path, 10, north)
    edge = north if north > 0 else north - SIDE_PX * 1e-5
    assert message_of(path) == (
        f"{path}: reaches latitude {edge:.1f}; only places up to 85 degrees north or south can be "
        "used: cut it with gdalwarp -te"
    )


def test_a_raster_around_the_pole_is_refused(tmp_path: Path) -> None:
    transform = rasterio.Affine(10, 0, -1000, 0, -10, 1000)
    path = write(tmp_path / "a.tif", ramp(), crs="EPSG:3413", transform=transform)
    assert message_of(path).startswith(f"{path}: reaches latitude 90.0; ")


def test_a_polar_projection_away_from_the_pole_is_read(tmp_path: Path) -> None:
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3413", always_xy=True).transform(15.6, 78.2)
    transform = rasterio.Affine(GSD_M, 0, x, 0, -GSD_M, y)
    source = RasterGround(write(tmp_path / "a.tif", ramp(), crs="EPSG:3413", transform=transform))
    assert source.read(*middle_window(source)).valid.all()


def test_a_raster_of_the_whole_web_mercator_world_opens(tmp_path: Path) -> None:
    half = 20037508.342789244
    transform = rasterio.Affine(2 * half / SIDE_PX, 0, -half, 0, -2 * half / SIDE_PX, half)
    path = write(tmp_path / "a.tif", ramp(), crs="EPSG:3857", transform=transform)
    assert RasterGround(path).bounds.east == pytest.approx(180)


@pytest.mark.parametrize("west", [179.999, -180.001])
def test_the_antimeridian_is_refused(tmp_path: Path, west: float) -> None:
    path = degrees(tmp_path, west, 47)
    assert message_of(path) == (
        f"{path}: crosses the antimeridian; cut it in two at longitude 180 with gdalwarp -te and "
        "use each part by itself"
    )


def test_the_antimeridian_is_refused_in_metres_too(tmp_path: Path) -> None:
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:32701", always_xy=True).transform(180, -17)
    transform = rasterio.Affine(GSD_M, 0, x - 50, 0, -GSD_M, y)
    path = write(tmp_path / "a.tif", ramp(), crs="EPSG:32701", transform=transform)
    assert message_of(path).startswith(f"{path}: crosses the antimeridian; ")


def test_up_to_the_antimeridian_is_read(tmp_path: Path) -> None:
    source = RasterGround(degrees(tmp_path, 180 - SIDE_PX * 1e-5, 47))
    assert source.read(*middle_window(source)).valid.all()


def geopackage(path: Path, *tables: str) -> Path:
    pytest.importorskip("rasterio")
    for number, table in enumerate(tables):
        write(
            path,
            ramp() if number == 0 else 255 - ramp(),
            driver="GPKG",
            RASTER_TABLE=table,
            TILE_FORMAT="PNG",
            **({"APPEND_SUBDATASET": "YES"} if number else {}),
        )
    return path


def test_a_geopackage_is_read(tmp_path: Path) -> None:
    source = RasterGround(geopackage(tmp_path / "a.gpkg", "ortho"))
    plain = RasterGround(write(tmp_path / "b.tif", ramp()))
    window = middle_window(plain)
    seen = source.read(*window)
    assert seen.valid.all()
    assert np.abs(seen.rgb.astype(int) - plain.read(*window).rgb).max() <= 1


def test_of_several_tables_one_is_chosen(tmp_path: Path) -> None:
    path = geopackage(tmp_path / "a.gpkg", "new", "old")
    assert message_of(path) == (
        f"{path}: holds several rasters; choose one of {path}:new, {path}:old"
    )
    source = open_ground(f"{path}:old")
    plain = RasterGround(write(tmp_path / "b.tif", 255 - ramp()))
    window = middle_window(plain)
    assert source.name == f"{path}:old"
    assert np.abs(source.read(*window).rgb.astype(int) - plain.read(*window).rgb).max() <= 1


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = geopackage(tmp_path / "a.gpkg", "new")
    with pytest.raises(InputError) as caught:
        open_ground(f"{path}:old")
    assert str(caught.value) == (
        f"{path}:old: not an image that can be read (Cannot find table 'old' in GeoPackage dataset)"
    )


def test_a_vrt_is_read(tmp_path: Path) -> None:
    rasterio_shutil = pytest.importorskip("rasterio.shutil")
    tile = write(tmp_path / "a.tif", ramp())
    path = tmp_path / "all.vrt"
    rasterio_shutil.copy(tile, path, driver="VRT")
    source, plain = RasterGround(path), RasterGround(tile)
    window = middle_window(plain)
    assert (source.read(*window).rgb == plain.read(*window).rgb).all()


@pytest.mark.parametrize("text", ["<VRTDataset/>", "\n <GDAL_WMS/>", '{"type": "Feature"}'])
def test_text_that_leads_elsewhere_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.tif"
    path.write_text(text)
    assert message_of(path) == (
        f"{path}: is text that describes imagery, not an image; a VRT's name ends in .vrt"
    )


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server of `tmp_path`."""
    if not has_curl():
        pytest.skip("this rasterio's GDAL is built without curl")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setitem(HTTP_OPTIONS, "GDAL_HTTP_RETRY_DELAY", "0.05")
    with range_server.serving(tmp_path) as address:
        yield address


def has_curl() -> bool:
    with rasterio.Env() as env:
        return "HTTP" in env.drivers()


def large(path: Path) -> Path:
    """Write what does not come with the first request."""
    noise = np.random.default_rng(0).integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
    return write(path, noise, tiled=True, blockxsize=64, blockysize=64)


def test_a_cog_is_read_over_http_in_parts(tmp_path: Path, server: str) -> None:
    local = RasterGround(large(tmp_path / "a.tif"))
    source = open_ground(f"{server}/a.tif?signature=secret")
    window = middle_window(local)
    assert (source.read(*window).rgb == local.read(*window).rgb).all()
    assert source.bounds == local.bounds
    assert source.name == f"{server}/a.tif"
    requests = (tmp_path / "requests.log").read_text().splitlines()
    # Nothing else is asked for, as sidecar files would be, and never the whole file.
    assert {request.split()[1] for request in requests} == {"/a.tif?signature=secret"}
    assert all("bytes=" in request for request in requests if request.startswith("GET"))


def test_a_busy_server_is_asked_again(tmp_path: Path, server: str) -> None:
    large(tmp_path / "a.tif")
    source = open_ground(f"{server}/busy/a.tif")
    assert source.read(*middle_window(RasterGround(tmp_path / "a.tif"))).valid.all()


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_the_server_is_told(server: str, status: int) -> None:
    with pytest.raises(InputError) as caught:
        open_ground(f"{server}/status/{status}/a.tif?signature=secret")
    assert str(caught.value) == (
        f"{server}/status/{status}/a.tif: the server refused it (HTTP {status}); check the "
        "address, and whether it needs a signature"
    )


def test_a_failing_server_is_told(server: str) -> None:
    with pytest.raises(S4GError) as caught:
        open_ground(f"{server}/status/500/a.tif?signature=secret")
    assert str(caught.value) == (
        f"{server}/status/500/a.tif: the server failed (HTTP 500); try again later"
    )
    assert not isinstance(caught.value, InputError)


def test_a_page_instead_of_an_image_is_told(server: str) -> None:
    with pytest.raises(InputError) as caught:
        open_ground(f"{server}/html/a.tif?signature=secret")
    assert str(caught.value) == (
        f"{server}/html/a.tif: the server sent no GeoTIFF; give the address of the file itself"
    )


def test_a_description_from_a_server_is_not_followed(tmp_path: Path, server: str) -> None:
    rasterio_shutil = pytest.importorskip("rasterio.shutil")
    rasterio_shutil.copy(large(tmp_path / "a.tif"), tmp_path / "all.vrt", driver="VRT")
    (tmp_path / "all.vrt").rename(tmp_path / "all.tif")
    with pytest.raises(InputError) as caught:
        open_ground(f"{server}/all.tif")
    assert str(caught.value) == (
        f"{server}/all.tif: the server sent no GeoTIFF; give the address of the file itself"
    )


def test_a_server_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setitem(HTTP_OPTIONS, "GDAL_HTTP_MAX_RETRY", "0")
    with pytest.raises(S4GError) as caught:
        open_ground("http://user:word@127.0.0.1:9/a.tif?signature=secret")
    message = str(caught.value)
    assert message.startswith("http://127.0.0.1:9/a.tif: cannot be reached (")
    assert message.endswith("; check the address and the network")


def test_a_server_that_stops_is_told(tmp_path: Path, server: str) -> None:
    window = middle_window(RasterGround(large(tmp_path / "a.tif")))
    source = open_ground(f"{server}/stops/a.tif?signature=secret")
    with pytest.raises(S4GError) as caught:
        source.read(*window)
    assert str(caught.value) == (
        f"{server}/stops/a.tif: reading stopped (not all of it came); check the network "
        "and try again"
    )


def test_an_address_of_something_else_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        open_ground("https://example.org/map.png?key=secret")
    assert str(caught.value) == (
        "https://example.org/map.png: expected an address ending in .tif or .json"
    )


@pytest.mark.parametrize("data", [b"", b"not a raster", b"II*\0" + b"\xff" * 64])
def test_what_is_no_raster_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(data)
    message = message_of(path)
    assert message.startswith(f"{path}: not an image that can be read (")
    assert "\n" not in message


def test_a_truncated_raster_is_refused_when_its_missing_part_is_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
    whole = write(tmp_path / "whole.tif", noise, compress="deflate", BIGTIFF="NO", COPY_SRC="NO")
    data = whole.read_bytes()
    directory = int.from_bytes(data[4:8], "little")
    assert directory < len(data) // 2, "the directory must survive the cut"
    path = tmp_path / "cut.tif"
    path.write_bytes(data[: len(data) * 3 // 5])
    source = RasterGround(path)
    frame = LocalFrame(*source.bounds.center)
    with pytest.raises(IntegrityError) as caught:
        source.read(frame, GroundWindow(-45, 45, 0.5, 180, 180))
    assert str(caught.value).startswith(f"{path}: cannot be read (")
    assert str(caught.value).endswith("; the file is damaged, fetch it again")


def test_without_rasterio_the_error_names_what_to_install(
    toy_source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(S4GError) as caught:
        RasterGround(toy_source)
    assert str(caught.value) == "reading GeoTIFF needs rasterio: pip install 's4g[pack]'"


@pytest.mark.parametrize("name", ["brighton_beach", "small_orthos", "naip_nd_multidate"])
def test_real_orthophotos_open_and_read_everywhere_they_claim(data_dir: Path, name: str) -> None:
    paths = sorted((data_dir / name).rglob("*.tif"))
    assert paths
    for path in paths:
        with rasterio.open(path) as file:
            if file.crs is None:
                continue
        source = RasterGround(path)
        frame = LocalFrame(*source.bounds.center)
        west, south, east, north = frame.local_bounds(source.bounds)
        gsd_m = max(east - west, north - south) / 256
        seen = source.read(frame, GroundWindow(west, north, gsd_m, 256, 256))
        assert seen.valid.mean() > 0.2, path
        assert seen.rgb[seen.valid].std() > 5, path
        source.close()


def test_a_real_16_bit_band_shows_its_contrast(data_dir: Path, tmp_path: Path) -> None:
    bands = sorted((data_dir / "garfield_multispectral" / "bands").glob("*.TIF"))
    if not bands:
        pytest.skip(f"no 16-bit bands in {data_dir}")
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(bands[0]) as file:
        image = np.moveaxis(file.read(), 0, -1)
    assert image.dtype == np.uint16
    source = RasterGround(write(tmp_path / "a.tif", image))
    frame = LocalFrame(*source.bounds.center)
    seen = source.read(frame, GroundWindow(-200, 200, 0.5, 800, 800))
    assert seen.valid.all()
    assert seen.rgb.std() > 30
    assert (seen.rgb == 0).mean() < 0.1 and (seen.rgb == 255).mean() < 0.1
