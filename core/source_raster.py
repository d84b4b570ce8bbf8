"""GeoTIFF and every other georeferenced raster that GDAL reads, through rasterio."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError, IntegrityError, S4GError
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


def _gdal_errors() -> tuple[type[Exception], type[Exception], type[Exception]]:
    """Return what rasterio raises for a file that GDAL or PROJ cannot use."""
    rasterio = _rasterio()
    errors = rasterio.errors
    return errors.RasterioError, errors.CRSError, rasterio._err.CPLE_BaseError


class RasterGround:
    """A georeferenced raster as a `GroundSource`; 8-bit RGB(A), grey, or more bands (first three).

    Raises:
        InputError: the file is no readable image, has no georeference, or is not 8-bit.
    """

    def __init__(self, path: Path) -> None:
        """Open the file and check that it can serve."""
        rasterio = _rasterio()
        self.name = str(path)
        with warnings.catch_warnings():
            # A raster without georeference is refused below, and rasterio 1.4 multiplies
            # transforms in a way that affine 3 deprecates.
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            try:
                self._dataset = rasterio.open(path)
            except _gdal_errors() as error:
                raise InputError(f"{path}: not an image that can be read ({error})") from None
            try:
                self._check()
                self.bounds = self._wgs84_bounds()
                self.gsd_m = self._native_gsd_m()
            except BaseException:
                self._dataset.close()
                raise
        self.attribution = str(self._dataset.tags().get("TIFFTAG_COPYRIGHT", "")).strip()

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
        if dataset.colorinterp[0] == _rasterio().enums.ColorInterp.palette:
            raise InputError(
                f"{self.name}: pixels are indices into a palette, expected RGB or grey; "
                "convert with gdal_translate -expand rgb"
            )

    def _wgs84_bounds(self) -> BBox:
        try:
            sides = _rasterio().warp.transform_bounds(
                self._dataset.crs, "EPSG:4326", *self._dataset.bounds, densify_pts=_EDGE_SAMPLES
            )
            return BBox(*sides)
        except (InputError, *_gdal_errors()) as error:
            reason = error if isinstance(error, InputError) else f"CRS {self._dataset.crs}"[:80]
            raise InputError(
                f"{self.name}: its extent has no usable place on Earth ({reason}); "
                "check its georeference with gdalinfo"
            ) from None

    def _native_gsd_m(self) -> float:
        """Return the root of the ground area of the middle pixel; the raster may be rotated."""
        dataset, step = self._dataset, self._dataset.transform
        x, y = dataset.xy(dataset.height // 2, dataset.width // 2)
        lon, lat = _rasterio().warp.transform(
            dataset.crs, "EPSG:4326", [x, x + step.a, x + step.b], [y, y + step.d, y + step.e]
        )
        (x0, x1, x2), (y0, y1, y2) = LocalFrame(lat[0], lon[0]).to_local(lat, lon)
        return math.sqrt(abs((x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)))

    def read(self, frame: LocalFrame, window: GroundWindow) -> GroundImage:
        """Return the window, area-averaged when coarser than native; invalid pixels are black.

        Raises:
            IntegrityError: a part of the file is damaged.
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
        except _gdal_errors() as error:
            raise IntegrityError(
                f"{self.name}: cannot be read ({error}); the file is damaged, fetch it again"
            ) from None
        rgb[~valid] = 0
        return GroundImage(rgb, valid)

    def _has_alpha(self) -> bool:
        alpha = _rasterio().enums.ColorInterp.alpha
        return self._dataset.nodata is not None or alpha in self._dataset.colorinterp

    def close(self) -> None:
        """Close the file."""
        self._dataset.close()
