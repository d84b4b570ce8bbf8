"""WGS84, a region's local metres, and Web Mercator.

PROJ (through pyproj) does the geodesy. A region works in one *local frame*: the azimuthal
equidistant projection around its centre, whose axes point east and north there. Distances from
the centre are exact; within 50 km of it scale is true to 1e-5, and grid north departs from true
north by the meridian convergence (0.05 degrees at 5 km east, latitude 47).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .errors import InputError

if TYPE_CHECKING:
    from pyproj import Geod, Transformer

Floats = npt.NDArray[np.float64]

# Web Mercator (EPSG:3857) treats latitude as spherical with this radius.
_MERCATOR_RADIUS_M = 6378137.0
# Beyond this latitude the square Web Mercator world ends.
MERCATOR_MAX_LAT_DEG = math.degrees(math.atan(math.sinh(math.pi)))
TILE_SIZE_PX = 256


@dataclass(frozen=True)
class BBox:
    """A longitude/latitude box in WGS84 degrees, in the order of GeoJSON, STAC and OGC."""

    west: float
    south: float
    east: float
    north: float

    def __post_init__(self) -> None:
        """Check ranges and order.

        Raises:
            InputError: a side is out of range, or west >= east, or south >= north.
        """
        if not (-180 <= self.west <= 180 and -180 <= self.east <= 180):
            raise InputError(f"bbox {self}: longitudes must lie between -180 and 180 degrees")
        if not (-90 <= self.south <= 90 and -90 <= self.north <= 90):
            raise InputError(f"bbox {self}: latitudes must lie between -90 and 90 degrees")
        if self.west >= self.east:
            raise InputError(
                f"bbox {self}: west {self.west:g} must be less than east {self.east:g}; "
                "the order is W,S,E,N"
            )
        if self.south >= self.north:
            raise InputError(
                f"bbox {self}: south {self.south:g} must be less than north {self.north:g}; "
                "the order is W,S,E,N"
            )

    def __str__(self) -> str:
        """Return `W,S,E,N`."""
        return ",".join(
            f"{side:.6f}".rstrip("0").rstrip(".")  # six decimals are 0.1 m
            for side in (self.west, self.south, self.east, self.north)
        )

    @property
    def center(self) -> tuple[float, float]:
        """Latitude and longitude of the middle, degrees."""
        return (self.south + self.north) / 2, (self.west + self.east) / 2

    def intersection(self, other: BBox) -> BBox | None:
        """Return the common part, or None where the boxes do not overlap."""
        west, east = max(self.west, other.west), min(self.east, other.east)
        south, north = max(self.south, other.south), min(self.north, other.north)
        if west >= east or south >= north:
            return None
        return BBox(west, south, east, north)


@dataclass(frozen=True)
class LocalFrame:
    """East/north metres around an origin given in WGS84 degrees."""

    lat_deg: float
    lon_deg: float

    @property
    def crs(self) -> str:
        """The frame as a PROJ string, for rasterio and GIS programs."""
        return (
            f"+proj=aeqd +lat_0={self.lat_deg:.12g} +lon_0={self.lon_deg:.12g} "
            "+datum=WGS84 +units=m +no_defs"
        )

    @cached_property
    def _from_wgs84(self) -> Transformer:
        from pyproj import Transformer

        return Transformer.from_crs("EPSG:4326", self.crs, always_xy=True)

    def to_local(self, lat_deg: npt.ArrayLike, lon_deg: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Return east and north in metres, of the inputs' shape."""
        (lon, lat), shape = _for_proj(lon_deg, lat_deg)
        east, north = self._from_wgs84.transform(lon, lat)
        return np.reshape(east, shape), np.reshape(north, shape)

    def to_wgs84(self, east_m: npt.ArrayLike, north_m: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Return latitude and longitude in degrees, of the inputs' shape."""
        (east, north), shape = _for_proj(east_m, north_m)
        lon, lat = self._from_wgs84.transform(east, north, direction="INVERSE")
        return np.reshape(lat, shape), np.reshape(lon, shape)

    def local_bounds(self, box: BBox) -> tuple[float, float, float, float]:
        """Return west, south, east, north in metres of the smallest box that holds `box`."""
        steps = np.linspace(0.0, 1.0, 21)
        lons = box.west + steps * (box.east - box.west)
        lats = box.south + steps * (box.north - box.south)
        lat = np.concatenate([np.full(21, box.south), np.full(21, box.north), lats, lats])
        lon = np.concatenate([lons, lons, np.full(21, box.west), np.full(21, box.east)])
        east, north = self.to_local(lat, lon)
        return float(east.min()), float(north.min()), float(east.max()), float(north.max())

    def wgs84_bounds(self, west_m: float, south_m: float, east_m: float, north_m: float) -> BBox:
        """Return the smallest WGS84 box that holds a local box.

        Raises:
            InputError: the box crosses the antimeridian or leaves the Earth.
        """
        steps = np.linspace(0.0, 1.0, 21)
        xs, ys = west_m + steps * (east_m - west_m), south_m + steps * (north_m - south_m)
        x = np.concatenate([xs, xs, np.full(21, west_m), np.full(21, east_m)])
        y = np.concatenate([np.full(21, south_m), np.full(21, north_m), ys, ys])
        lat, lon = self.to_wgs84(x, y)
        if not np.isfinite(lat).all() or np.ptp(lon) > 180:
            raise InputError(
                f"a box around {self.lat_deg:.4f},{self.lon_deg:.4f} crosses the antimeridian or "
                "leaves the Earth; such regions are not supported"
            )
        return BBox(float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max()))


def _for_proj(*values: npt.ArrayLike) -> tuple[list[Floats | float], tuple[int, ...]]:
    """Return values of one shape as pyproj takes them, and the shape to give the results.

    One value goes as a number: pyproj 3.7 takes an array of one for a number and loses its shape.
    """
    arrays = np.broadcast_arrays(*(np.asarray(value, np.float64) for value in values))
    if arrays[0].size == 1:
        return [array.item() for array in arrays], arrays[0].shape
    return list(arrays), arrays[0].shape


_GEOD: list[Geod] = []


def distance_m(
    lat1_deg: npt.ArrayLike,
    lon1_deg: npt.ArrayLike,
    lat2_deg: npt.ArrayLike,
    lon2_deg: npt.ArrayLike,
) -> Floats:
    """Return the geodesic distance on WGS84 in metres (Karney 2013, through PROJ)."""
    if not _GEOD:
        from pyproj import Geod

        _GEOD.append(Geod(ellps="WGS84"))
    (lon1, lat1, lon2, lat2), shape = _for_proj(lon1_deg, lat1_deg, lon2_deg, lat2_deg)
    return np.reshape(_GEOD[0].inv(lon1, lat1, lon2, lat2)[2], shape)


def mercator_from_wgs84(lat_deg: npt.ArrayLike, lon_deg: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return Web Mercator x and y in metres (EPSG:3857; OGC 17-083r2, annex D)."""
    lat = np.radians(np.asarray(lat_deg, np.float64))
    x = _MERCATOR_RADIUS_M * np.radians(np.asarray(lon_deg, np.float64))
    return x, _MERCATOR_RADIUS_M * np.arcsinh(np.tan(lat))


def wgs84_from_mercator(x_m: npt.ArrayLike, y_m: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return latitude and longitude in degrees of Web Mercator metres."""
    lat = np.degrees(np.arctan(np.sinh(np.asarray(y_m, np.float64) / _MERCATOR_RADIUS_M)))
    return lat, np.degrees(np.asarray(x_m, np.float64) / _MERCATOR_RADIUS_M)


def mercator_gsd_m(lat_deg: float, zoom: int) -> float:
    """Return the ground size in metres of one pixel of a 256-px XYZ tile."""
    world_m = 2 * math.pi * _MERCATOR_RADIUS_M
    return world_m * math.cos(math.radians(lat_deg)) / (TILE_SIZE_PX << zoom)
