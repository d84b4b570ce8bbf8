"""A toy orthophoto with landmarks, and the same ground as tiles made by other programs."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from s4g.core.geo import LocalFrame
from s4g.core.ground import GroundSource, GroundWindow
from s4g.core.source_raster import RasterGround

ZOOM = 18
MIN_ZOOM = 16
SIDE_PX = 700  # of the orthophoto, 0.5 m/px
GSD_M = 0.5
WEST_M, NORTH_M = 500_000.0, 5_200_000.0
CRS = "EPSG:32632"
# Column and row of bright spots on the orthophoto.
LANDMARKS_PX = ((150.0, 200.0), (520.0, 180.0), (330.0, 540.0))
_HALF_WORLD_M = 20037508.342789244
# What two resamplings differ by on such ground, and a tenth of a pixel.
MEAN_DIFFERENCE = 1.0
OFF_MIDDLE_PX = 0.1


def orthophoto() -> npt.NDArray[np.uint8]:
    """Smooth ground in red and green, round spots in blue, (H, W, 3) uint8."""
    coarse = np.random.default_rng(5).integers(40, 160, (12, 12, 3)).astype(np.float32)
    image = cv2.resize(coarse, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
    rows, columns = np.indices((SIDE_PX, SIDE_PX))
    image[..., 2] = 20
    for x, y in LANDMARKS_PX:
        image[..., 2] += 200 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 6.0**2))
    return np.clip(image, 1, 255).astype(np.uint8)


def write_orthophoto(path: Path) -> None:
    """Write it as a GeoTIFF in UTM."""
    rasterio = pytest.importorskip("rasterio", reason="GeoTIFFs need rasterio (the pack extra)")
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "crs": CRS}
    transform = rasterio.Affine(GSD_M, 0, WEST_M, 0, -GSD_M, NORTH_M)
    with rasterio.open(
        path, "w", width=SIDE_PX, height=SIDE_PX, transform=transform, **profile
    ) as file:
        file.write(np.moveaxis(orthophoto(), -1, 0))


def write_mbtiles(orthophoto_path: Path, path: Path, image_format: str = "PNG") -> None:
    """Let GDAL cut the orthophoto into tiles of three zooms."""
    pytest.importorskip("rasterio", reason="MBTiles need rasterio (the pack extra)")
    import rasterio.shutil
    import rasterio.vrt
    import rasterio.warp

    gsd_m = 2 * _HALF_WORLD_M / (256 << ZOOM)
    with rasterio.open(orthophoto_path) as source:
        west, south, east, north = rasterio.warp.transform_bounds(
            source.crs, "EPSG:3857", *source.bounds
        )
        # Whole tiles of the coarsest zoom: GDAL stretches overviews of an odd number of pixels.
        step = 256 << (ZOOM - MIN_ZOOM)
        left, top = (int((v + _HALF_WORLD_M) / gsd_m) // step * step for v in (west, -north))
        right, bottom = (
            -(-int((v + _HALF_WORLD_M) / gsd_m + 1) // step) * step for v in (east, -south)
        )
        with rasterio.vrt.WarpedVRT(
            source,
            crs="EPSG:3857",
            transform=rasterio.Affine(
                gsd_m, 0, left * gsd_m - _HALF_WORLD_M, 0, -gsd_m, _HALF_WORLD_M - top * gsd_m
            ),
            width=right - left,
            height=bottom - top,
            resampling=rasterio.enums.Resampling.bilinear,
            add_alpha=True,
        ) as warped:
            rasterio.shutil.copy(warped, path, driver="MBTiles", TILE_FORMAT=image_format)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling.average)


def tiles_of(mbtiles: Path) -> dict[tuple[int, int, int], bytes]:
    """Return the tiles of an MBTiles file by zoom, column and row from the north."""
    with sqlite3.connect(mbtiles) as connection:
        rows = connection.execute(
            "SELECT zoom_level, tile_column, tile_row, tile_data FROM tiles"
        ).fetchall()
    connection.close()
    return {(z, x, (1 << z) - 1 - row): data for z, x, row, data in rows}


def write_folder(tiles: dict[tuple[int, int, int], bytes], folder: Path, suffix: str) -> None:
    """Write tiles as `z/x/y.SUFFIX`."""
    for (zoom, x, y), data in tiles.items():
        path = folder / str(zoom) / str(x) / f"{y}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def png(color: tuple[int, int, int] = (10, 20, 30), side_px: int = 256) -> bytes:
    """Return a tile of one colour, RGB."""
    image = np.full((side_px, side_px, 3), color[::-1], np.uint8)
    return cv2.imencode(".png", image)[1].tobytes()


def landmark_places(frame: LocalFrame) -> npt.NDArray[np.float64]:
    """Return east and north of the landmarks, (N, 2) metres, by way of PROJ alone."""
    from pyproj import Transformer

    column, row = np.array(LANDMARKS_PX).T
    to_wgs84 = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    lon, lat = to_wgs84.transform(WEST_M + (column + 0.5) * GSD_M, NORTH_M - (row + 0.5) * GSD_M)
    return np.stack(frame.to_local(lat, lon), axis=1)


def check_against_orthophoto(source: GroundSource, orthophoto_path: Path) -> None:
    """Assert that a source shows the landmarks where they lie, and the orthophoto's colours."""
    truth = RasterGround(orthophoto_path)
    # Off the middle, so that the frame's north is not the orthophoto's.
    frame = LocalFrame(truth.bounds.south - 0.02, truth.bounds.west - 0.05)
    for gsd_m in (0.37, 0.9, 2.3):
        side = round(50 / gsd_m)
        for east, north in landmark_places(frame):
            west, top = east - side * gsd_m / 2, north + side * gsd_m / 2
            window = GroundWindow(west, top, gsd_m, side, side)
            seen, wanted = source.read(frame, window), truth.read(frame, window)
            assert seen.valid.all() and wanted.valid.all()
            assert np.abs(seen.rgb.astype(float) - wanted.rgb).mean() < MEAN_DIFFERENCE
            assert off_middle_px(seen.rgb[..., 2]) < OFF_MIDDLE_PX
    truth.close()


def off_middle_px(spot: npt.NDArray[np.uint8]) -> float:
    """Return how far a spot's centroid lies from the middle of the picture."""
    weight = np.maximum(spot.astype(float) - 30, 0)
    rows, columns = np.indices(spot.shape)
    middle = (spot.shape[0] - 1) / 2
    x, y = ((index * weight).sum() / weight.sum() for index in (columns, rows))
    return float(np.hypot(x - middle, y - middle))
