"""GeoTIFF and every other georeferenced raster that GDAL reads, through rasterio."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError, S4GError
from .geo import BBox, LocalFrame
from .ground import GroundImage, GroundWindow

_EDGE_SAMPLES = 21


def _rasterio() -> Any:
    try:
        import rasterio
        import rasterio.vrt
        import rasterio.warp
    except ImportError:
        raise S4GError("reading GeoTIFF needs rasterio: pip install 's4g[pack]'") from None
    return rasterio


class RasterGround:
    """A georeferenced raster as a `GroundSource`; 8-bit RGB(A), grey, or more bands (first three).

    Raises:
        InputError: the file is no readable image, has no georeference, or is not 8-bit.
    """

    def __init__(self, path: Path) -> None:
        """Open the file and check that it can serve."""
        rasterio = _rasterio()
        self.name = str(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                self._dataset = rasterio.open(path)
        except rasterio.errors.RasterioIOError as error:
            raise InputError(f"{path}: not an image that can be read ({error})") from None
        try:
            self._check()
            tags = self._dataset.tags()
            self.attribution = str(tags.get("TIFFTAG_COPYRIGHT", "")).strip()
            self.bounds = self._wgs84_bounds()
            self.gsd_m = self._native_gsd_m()
        except BaseException:
            self._dataset.close()
            raise

    def _check(self) -> None:
        dataset = self._dataset
        if dataset.crs is None or dataset.transform.is_identity:
            raise InputError(
                f"{self.name}: has no georeference; add one with gdal_translate -a_srs EPSG:… "
                "-a_ullr …, or use a GeoTIFF that carries it"
            )
        if dataset.dtypes[0] != "uint8":
            raise InputError(
                f"{self.name}: pixels are {dataset.dtypes[0]}, expected uint8; "
                "convert with gdal_translate -ot Byte -scale"
            )

    def _wgs84_bounds(self) -> BBox:
        warp = _rasterio().warp
        west, south, east, north = warp.transform_bounds(
            self._dataset.crs, "EPSG:4326", *self._dataset.bounds, densify_pts=_EDGE_SAMPLES
        )
        if not all(map(math.isfinite, (west, south, east, north))):
            raise InputError(f"{self.name}: its corners have no place on Earth in its own CRS")
        return BBox(west, south, east, north)

    def _native_gsd_m(self) -> float:
        lat, lon = self.bounds.center
        frame = LocalFrame(lat, lon)
        west, south, east, north = frame.local_bounds(self.bounds)
        pixels = self._dataset.width * self._dataset.height
        transform = _rasterio().warp.calculate_default_transform(
            self._dataset.crs,
            frame.crs,
            self._dataset.width,
            self._dataset.height,
            *self._dataset.bounds,
        )[0]
        del west, south, east, north, pixels
        return abs(float(transform.a))

    def read(self, frame: LocalFrame, window: GroundWindow) -> GroundImage:
        """Return the window, area-averaged when coarser than native; invalid pixels are black.

        Raises:
            S4GError: a part of the file is damaged.
        """
        rasterio = _rasterio()
        coarser = window.gsd_m > 1.5 * self.gsd_m
        sampling = (
            rasterio.enums.Resampling.average if coarser else rasterio.enums.Resampling.bilinear
        )
        transform = rasterio.Affine(
            window.gsd_m, 0, window.west_m, 0, -window.gsd_m, window.north_m
        )
        bands = [1, 2, 3] if self._dataset.count >= 3 else [1, 1, 1]
        try:
            with rasterio.vrt.WarpedVRT(
                self._dataset,
                crs=frame.crs,
                transform=transform,
                width=window.width_px,
                height=window.height_px,
                resampling=sampling,
                add_alpha=not self._has_alpha(),
            ) as warped:
                rgb = np.ascontiguousarray(np.moveaxis(warped.read(bands), 0, -1))
                valid = warped.dataset_mask() > 0
        except rasterio.errors.RasterioError as error:
            raise S4GError(
                f"{self.name}: cannot be read ({error}); the file may be damaged"
            ) from None
        rgb[~valid] = 0
        return GroundImage(rgb, valid)

    def _has_alpha(self) -> bool:
        alpha = _rasterio().enums.ColorInterp.alpha
        return self._dataset.nodata is not None or alpha in self._dataset.colorinterp

    def close(self) -> None:
        """Close the file."""
        self._dataset.close()
