"""GeoTIFFs as ground sources: projections, nodata, masks, and files that cannot serve."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pyproj import Transformer

from s4g.core.errors import InputError, IntegrityError, S4GError
from s4g.core.geo import LocalFrame
from s4g.core.ground import GroundWindow
from s4g.core.source_raster import RasterGround

rasterio = pytest.importorskip("rasterio", reason="GeoTIFFs need rasterio (the pack extra)")

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


def test_16_bit_pixels_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp().astype(np.uint16))
    assert message_of(path) == (
        f"{path}: pixels are uint16, expected uint8; convert with gdal_translate -ot Byte -scale"
    )


def test_palette_indices_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp()[..., :1])
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {i: (i, 255 - i, 0, 255) for i in range(256)})
    assert message_of(path) == (
        f"{path}: pixels are indices into a palette, expected RGB or grey; "
        "convert with gdal_translate -expand rgb"
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


@pytest.mark.parametrize("name", ["brighton_beach", "small_orthos"])
def test_real_orthophotos_open_and_read_everywhere_they_claim(data_dir: Path, name: str) -> None:
    paths = sorted((data_dir / name).rglob("*.tif"))
    assert paths
    for path in paths:
        with rasterio.open(path) as file:
            if file.dtypes[0] != "uint8" or file.crs is None:
                continue
        source = RasterGround(path)
        frame = LocalFrame(*source.bounds.center)
        west, south, east, north = frame.local_bounds(source.bounds)
        gsd_m = max(east - west, north - south) / 256
        seen = source.read(frame, GroundWindow(west, north, gsd_m, 256, 256))
        assert seen.valid.mean() > 0.2, path
        assert seen.rgb[seen.valid].std() > 5, path
        source.close()
