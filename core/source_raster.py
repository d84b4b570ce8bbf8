"""GeoTIFF and every other georeferenced raster that GDAL reads, local or over HTTP."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import InputError
from .geo import BBox, LocalFrame
from .ground import GroundImage, GroundWindow
from .raster_files import (
    RasterFiles,
    gdal_errors,
    has_palette,
    load_rasterio,
    raster_path,
    reading,
)
from .stretch import Quantiles, Stretch, common_stretch, given_stretch, quantiles

_EDGE_SAMPLES = 21
# Beyond the end of Web Mercator a box of longitudes and latitudes says little about a place.
_MAX_LAT_DEG = 85.06
_PIXELS = ("uint8", "uint16", "int16", "float32")
# An overview may serve if its pixels are at most this share of the wanted ones: what remains is
# averaged, as overviews are often made by leaving pixels out.
_OVERVIEW_SHARE = 0.5
_MASK_SIDE_PX = 1024


class RasterGround:
    """A georeferenced raster as a `GroundSource`, which several threads may read at once.

    Colours are taken where the file says so, else from its first three bands, else from its only
    one. Pixels of 16 bits or of fractions are stretched to 8 bits, the same way everywhere.

    Attributes:
        stretch: what becomes black and white; None for 8-bit pixels, taken as they are.
        quantiles: (B, 501) of the pixels that are stretched, None where they are not.
        dtype: of the file's pixels.
        notes: what the user should know about choices made for them.
        date: ISO 8601, empty where unknown.
        datetime: when it was taken, where known.

    Raises:
        InputError: the file is no readable image, has no georeference, lies at a pole or across
            the antimeridian, or its pixels are of no type that is read.
        IntegrityError: the file is damaged.
        S4GError: a server does not answer.
    """

    def __init__(
        self,
        source: str | Path,
        stretch: tuple[float, float] | None = None,
        files: RasterFiles | None = None,
    ) -> None:
        """Open the file and check that it can serve.

        Args:
            source: a path, `file.gpkg:table`, or the address of a GeoTIFF.
            stretch: the values that become black and white, None to choose.
            files: shared by rasters of which not all can stay open.
        """
        self._path = raster_path(source)
        self._files = files or RasterFiles()
        self.name = self._path.name
        self.date = ""
        self.datetime: datetime | None = None
        self.quantiles: Quantiles | None = None
        self.stretch = None if stretch is None else given_stretch(stretch)
        with warnings.catch_warnings():
            # A raster without georeference is refused below, and rasterio 1.4 multiplies
            # transforms in a way that affine 3 deprecates.
            warnings.simplefilter("ignore", load_rasterio().errors.NotGeoreferencedWarning)
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            with self._files.borrow(self._path) as dataset:
                self._learn(dataset)

    def _learn(self, dataset: Any) -> None:
        self._check(dataset)
        self._bands, self._alpha = _colour_bands(dataset)
        self._nodata = dataset.nodata
        self.dtype = self._check_pixels(dataset)
        self.bounds = self._wgs84_bounds(dataset)
        self.gsd_m = self._native_gsd_m(dataset)
        self.attribution = str(dataset.tags().get("TIFFTAG_COPYRIGHT", "")).strip()
        self._overviews = self._usable_overviews(dataset)
        if self.stretch is None and self.dtype != "uint8":
            with reading(self._path):
                self.quantiles = quantiles(dataset, self._bands, self._alpha)
            curves = [] if self.quantiles is None else [self.quantiles]
            self.stretch = common_stretch(curves) if curves else Stretch((0,), (1,))
        self.notes = stretch_notes([self], self.name)

    def _check(self, dataset: Any) -> None:
        if not dataset.count:
            tables = [name.split(":", 1)[1] for name in dataset.subdatasets]
            raise InputError(
                f"{self.name}: holds several rasters; choose one of {', '.join(tables)}"
                if tables
                else f"{self.name}: holds no raster"
            )
        if dataset.crs is None or dataset.transform.is_identity:
            raise InputError(
                f"{self.name}: has no georeference; add one with gdal_translate -a_srs EPSG:… "
                "-a_ullr …, or use a GeoTIFF that carries it"
            )
        if has_palette(dataset):
            raise InputError(
                f"{self.name}: pixels are indices into a palette, expected RGB or grey; "
                "convert with gdal_translate -expand rgb"
            )

    def _check_pixels(self, dataset: Any) -> str:
        kinds = sorted({dataset.dtypes[band - 1] for band in self._bands})
        if len(kinds) > 1 or kinds[0] not in _PIXELS:
            raise InputError(
                f"{self.name}: pixels are {' and '.join(kinds)}, expected one of "
                f"{', '.join(_PIXELS)}; convert with gdal_translate -ot UInt16"
            )
        return str(kinds[0])

    def _wgs84_bounds(self, dataset: Any) -> BBox:
        try:
            west, south, east, north = load_rasterio().warp.transform_bounds(
                dataset.crs, "EPSG:4326", *dataset.bounds, densify_pts=_EDGE_SAMPLES
            )
            if max(-south, north) > _MAX_LAT_DEG and -90 <= south < north <= 90:
                raise InputError(
                    f"{self.name}: reaches latitude {north if north > -south else south:.1f}; "
                    f"only places up to {_MAX_LAT_DEG:.0f} degrees north or south can be used: "
                    "cut it with gdalwarp -te"
                )
        except gdal_errors():
            raise self._nowhere(f"CRS {dataset.crs}"[:80]) from None
        if west > east >= -180 or west < 180 < east or west < -180 < east:
            raise InputError(
                f"{self.name}: crosses the antimeridian; cut it in two at longitude 180 with "
                "gdalwarp -te and use each part by itself"
            )
        try:
            return BBox(west, south, east, north)
        except InputError as error:
            raise self._nowhere(str(error)) from None

    def _nowhere(self, reason: str) -> InputError:
        return InputError(
            f"{self.name}: its extent has no usable place on Earth ({reason}); "
            "check its georeference with gdalinfo"
        )

    def _native_gsd_m(self, dataset: Any) -> float:
        """Return the root of the ground area of the middle pixel; the raster may be rotated."""
        step = dataset.transform
        x, y = dataset.xy(dataset.height // 2, dataset.width // 2)
        lon, lat = load_rasterio().warp.transform(
            dataset.crs, "EPSG:4326", [x, x + step.a, x + step.b], [y, y + step.d, y + step.e]
        )
        (x0, x1, x2), (y0, y1, y2) = LocalFrame(lat[0], lon[0]).to_local(lat, lon)
        return math.sqrt(abs((x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)))

    def _usable_overviews(self, dataset: Any) -> list[float]:
        """Return how much coarser each overview is; none where they may lack the file's mask."""
        band = self._bands[0]
        factors = [float(factor) for factor in dataset.overviews(band)]
        flags = load_rasterio().enums.MaskFlags
        found = dataset.mask_flag_enums[band - 1]
        if not factors or flags.per_dataset not in found or flags.alpha in found:
            return factors
        # GDAL takes every pixel of an overview without a mask of its own for valid.
        with self._files.borrow(self._path, len(factors) - 1) as overview, reading(self._path):
            shape = tuple(min(side, _MASK_SIDE_PX) for side in overview.shape)
            carried = not overview.read_masks(band, out_shape=shape).all()
        return factors if carried else []

    def read(self, frame: LocalFrame, window: GroundWindow) -> GroundImage:
        """Return the window, area-averaged when coarser than native; invalid pixels are black.

        Raises:
            IntegrityError: a part of the file is damaged.
            S4GError: a server stopped to answer.
        """
        rasterio = load_rasterio()
        coarser = window.gsd_m / self.gsd_m
        sampling = rasterio.enums.Resampling
        transform = rasterio.Affine(
            window.gsd_m, 0, window.west_m, 0, -window.gsd_m, window.north_m
        )
        fractions = self.dtype == "float32" and self._nodata is None
        with (
            self._files.borrow(self._path, self._overview(coarser)) as dataset,
            reading(self._path),
            rasterio.vrt.WarpedVRT(
                dataset,
                crs=frame.crs,
                transform=transform,
                width=window.width_px,
                height=window.height_px,
                resampling=sampling.average if coarser > 1.5 else sampling.bilinear,
                add_alpha=self._nodata is None and self._alpha is None,
                **({"src_nodata": math.nan} if fractions else {}),
            ) as warped,
        ):
            pixels = warped.read(self._bands)
            valid = self._valid(warped)
        if self.stretch is not None:
            pixels = self.stretch.apply(pixels)
        rgb = np.ascontiguousarray(np.moveaxis(np.broadcast_to(pixels, (3, *valid.shape)), 0, -1))
        rgb[~valid] = 0
        return GroundImage(rgb, valid)

    def _overview(self, coarser: float) -> int | None:
        """Return the coarsest overview that still leaves something to average, or None."""
        fit = [i for i, factor in enumerate(self._overviews) if factor <= coarser * _OVERVIEW_SHARE]
        return max(fit, key=lambda i: self._overviews[i], default=None)

    def _valid(self, warped: Any) -> npt.NDArray[np.bool_]:
        # GDAL's mask of a whole file knows alpha only as the second or fourth band of integers.
        if self._alpha is not None:
            return np.asarray(warped.read(self._alpha) > 0)
        if self._nodata is None:
            return np.asarray(warped.read(warped.count) > 0)
        return np.asarray(warped.read_masks(self._bands).any(axis=0))

    def value_ranges(self) -> Iterator[tuple[float, float]]:
        """Yield the least and the greatest of its valid values, as far as a sample tells.

        Raises:
            IntegrityError: a part of the file is damaged.
            S4GError: a server stopped to answer.
        """
        with self._files.borrow(self._path) as dataset, reading(self._path):
            found = quantiles(dataset, self._bands, self._alpha)
        if found is not None:
            yield float(found.min()), float(found.max())

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it is read from: those behind a VRT too, none of an address."""
        with self._files.borrow(self._path) as dataset:
            return tuple(Path(name) for name in dataset.files if Path(name).is_file())

    def close(self) -> None:
        """Close the file."""
        self._files.close(self._path)


def _colour_bands(dataset: Any) -> tuple[list[int], int | None]:
    """Return the bands of red, green and blue, or the grey one, and that of alpha."""
    kinds = load_rasterio().enums.ColorInterp
    found = {kind: number for number, kind in reversed([*enumerate(dataset.colorinterp, 1)])}
    alpha = found.get(kinds.alpha)
    if all(kind in found for kind in (kinds.red, kinds.green, kinds.blue)):
        return [found[kinds.red], found[kinds.green], found[kinds.blue]], alpha
    others = [number for number in dataset.indexes if number != alpha]
    return others[:3] if len(others) >= 3 else others[:1], alpha


def stretch_notes(grounds: list[RasterGround], name: str) -> tuple[str, ...]:
    """Tell how pixels that are not 8-bit become so, once for each way."""
    ways = {(g.dtype, str(g.stretch)): None for g in grounds if g.stretch is not None}
    return tuple(
        f"{name}: {dtype} pixels are stretched to 8 bits: {way} (low..high of each band)"
        for dtype, way in ways
    )
