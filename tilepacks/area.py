"""Ground to pack that is no box: a polygon, or the corridor along a route."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError, S4GError
from ..core.geo import BBox, Floats, LocalFrame

_MAX_BYTES = 16 << 20
_MAX_POINTS = 100_000
_WAYPOINTS_HEAD = "QGC WPL"
# Columns of a waypoint file: command, latitude, longitude.
_COMMAND, _LAT, _LON = 3, 8, 9
# MAV_CMD_NAV_*: those below 100 that have a place of their own; 20 is "return to launch".
_LAST_NAV_COMMAND, _RETURN_TO_LAUNCH = 95, 20

Points = list[tuple[float, float]]  # longitude, latitude
Ring = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Area:
    """Polygons or lines in WGS84, and how far around them belongs to the area.

    Attributes:
        name: the file it comes from.
        rings: of each part, its outer ring and holes, or one line.
        margin_m: distance around it; for lines half the corridor's width.
        frame: local frame around its middle.
    """

    name: str
    rings: tuple[tuple[Ring, ...], ...]
    margin_m: float
    frame: LocalFrame

    @property
    def bounds(self) -> BBox:
        """The smallest WGS84 box that holds it."""
        return self.frame.wgs84_bounds(*self._shape.bounds)

    def holds(self, frame: LocalFrame, east_m: Floats, north_m: Floats) -> npt.NDArray[np.bool_]:
        """Return whether points, in any local frame, lie in it; of the inputs' shape."""
        import shapely

        if frame != self.frame:
            east_m, north_m = self.frame.to_local(*frame.to_wgs84(east_m, north_m))
        found: npt.NDArray[np.bool_] = shapely.contains_xy(self._shape, east_m, north_m)
        return found

    @cached_property
    def _shape(self) -> Any:
        shapely = _shapely()
        parts = []
        for rings in self.rings:
            local = [self._local(ring) for ring in rings]
            if self.margin_m:
                line = (
                    shapely.LineString(local[0]) if len(local[0]) > 1 else shapely.Point(local[0])
                )
                parts.append(line.buffer(self.margin_m))
            else:
                parts.append(shapely.Polygon(local[0], local[1:]))
        shape = shapely.union_all([shapely.make_valid(part) for part in parts])
        shapely.prepare(shape)
        return shape

    def _local(self, ring: Ring) -> npt.NDArray[np.float64]:
        lon, lat = np.array(ring).T
        return np.stack(self.frame.to_local(lat, lon), axis=1)


def read_area(path: Path) -> Area:
    """Read the polygons of a GeoJSON file.

    Raises:
        InputError: it cannot be read, holds no polygon, or one beyond the Earth.
    """
    rings = [
        tuple(_checked(path, ring, 4) for ring in rings)
        for rings in _polygons(_geometries(_json(path)))
    ]
    if not rings:
        raise InputError(f"{path}: holds no polygon; draw one, or use --route for a line")
    return _area(path, rings, 0.0)


def read_route(path: Path, width_m: float) -> Area:
    """Read a route: GPX, GeoJSON lines, a .waypoints file or a QGroundControl .plan.

    Args:
        path: the file.
        width_m: of the corridor along it.

    Raises:
        InputError: it cannot be read, is of another kind, or has no place in it.
    """
    if not width_m > 0:
        raise InputError(f"--width {width_m:g}: expected metres above 0")
    suffix = path.suffix.lower()
    if suffix == ".gpx":
        lines = _gpx(path)
    elif suffix in (".geojson", ".json"):
        lines = _lines(_geometries(_json(path)))
    elif suffix == ".plan":
        lines = [_plan(path)]
    else:
        lines = [_waypoints(path)]
    rings = [(_checked(path, line, 1),) for line in lines if line]
    if not rings:
        raise InputError(f"{path}: holds no route; expected GPX, GeoJSON, .waypoints or .plan")
    return _area(path, rings, width_m / 2)


def _area(path: Path, rings: Sequence[tuple[Ring, ...]], margin_m: float) -> Area:
    lon, lat = np.array([point for part in rings for ring in part for point in ring]).T
    if np.ptp(lon) > 180:
        raise InputError(f"{path}: crosses the antimeridian; pack its two sides apart")
    middle = LocalFrame(float((lat.min() + lat.max()) / 2), float((lon.min() + lon.max()) / 2))
    return Area(str(path), tuple(rings), margin_m, middle)


def _checked(path: Path, points: Any, least: int) -> Ring:
    try:
        found = tuple((float(point[0]), float(point[1])) for point in points)
    except (TypeError, ValueError, IndexError, KeyError):
        raise InputError(f"{path}: a place in it is no longitude and latitude") from None
    if not least <= len(found) <= _MAX_POINTS:
        raise InputError(f"{path}: a shape of {len(found)} points; expected {least} to 100,000")
    for lon, lat in found:
        if not (-180 <= lon <= 180 and -90 < lat < 90):
            raise InputError(
                f"{path}: longitude {lon:g}, latitude {lat:g} is no place; the order is "
                "longitude, latitude, in WGS84 degrees"
            )
    return found


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(
            f"{path}: is no text; expected GeoJSON, GPX, .waypoints or .plan"
        ) from None
    if len(data) > _MAX_BYTES:
        raise InputError(f"{path}: larger than 16 MB; simplify it")
    return text


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no JSON ({error})") from None


def _geometries(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the geometries of a GeoJSON value (RFC 7946), whatever holds them."""
    if not isinstance(value, dict):
        return
    for key in ("features", "geometries"):
        if isinstance(value.get(key), list):
            for member in value[key]:
                yield from _geometries(member)
    if isinstance(value.get("geometry"), dict):
        yield from _geometries(value["geometry"])
    if "coordinates" in value:
        yield value


def _polygons(geometries: Iterator[dict[str, Any]]) -> Iterator[Any]:
    for geometry in geometries:
        if geometry.get("type") == "Polygon":
            yield _listed(geometry["coordinates"])
        elif geometry.get("type") == "MultiPolygon":
            yield from map(_listed, _listed(geometry["coordinates"]))


def _lines(geometries: Iterator[dict[str, Any]]) -> list[Any]:
    lines = []
    for geometry in geometries:
        if geometry.get("type") == "LineString":
            lines.append(geometry["coordinates"])
        elif geometry.get("type") == "MultiLineString":
            lines += _listed(geometry["coordinates"])
    return lines


def _listed(value: Any) -> list[Any]:
    """Return a list as it is, and anything else as one that `_checked` will refuse."""
    return value if isinstance(value, list) else [value]


def _gpx(path: Path) -> list[Points]:
    try:
        import gpxpy
    except ImportError:
        raise S4GError("reading GPX needs gpxpy: pip install 's4g[pack]'") from None
    text = _text(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(f"{path}: declares entities, which no GPX needs; save it again")
    try:
        gpx = gpxpy.parse(text)
    except gpxpy.gpx.GPXException as error:
        raise InputError(f"{path}: is no GPX ({error})") from None
    lines: list[list[Any]] = [route.points for route in gpx.routes]
    lines += [segment.points for track in gpx.tracks for segment in track.segments]
    return [[(p.longitude, p.latitude) for p in points] for points in lines]


def _waypoints(path: Path) -> Points:
    """Read a mission of Mission Planner or QGroundControl (MAVLink's plain-text format)."""
    lines = _text(path).splitlines()
    if not lines or not lines[0].startswith(_WAYPOINTS_HEAD):
        raise InputError(
            f"{path}: is no route; expected GPX, GeoJSON, .plan, or a .waypoints file that starts "
            f"with '{_WAYPOINTS_HEAD}'"
        )
    points: Points = []
    for number, line in enumerate(lines[1:], 2):
        fields = line.split()
        if not fields:
            continue
        try:
            command, lat, lon = int(fields[_COMMAND]), float(fields[_LAT]), float(fields[_LON])
        except (ValueError, IndexError):
            raise InputError(f"{path}: line {number} is no waypoint: {line[:60]!r}") from None
        if _has_place(command, lat, lon):
            points.append((lon, lat))
    return points


def _plan(path: Path) -> Points:
    value = _json(path)
    try:
        items: list[dict[str, Any]] = list(_items(value["mission"]["items"]))
    except (TypeError, KeyError):
        raise InputError(f"{path}: is no plan of QGroundControl; save it again") from None
    points: Points = []
    for item in items:
        parameters = item.get("params")
        if not isinstance(parameters, list) or len(parameters) < 6:
            continue
        command, lat, lon = item.get("command"), parameters[4], parameters[5]
        if not isinstance(command, int) or not all(isinstance(v, (int, float)) for v in (lat, lon)):
            continue
        if _has_place(command, lat, lon):
            points.append((lon, lat))
    return points


def _items(items: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield simple items, also those inside surveys."""
    for item in items:
        inner = item.get("TransectStyleComplexItem", {}).get("Items")
        if isinstance(inner, list):
            yield from _items(inner)
        else:
            yield item


def _has_place(command: int, lat: float, lon: float) -> bool:
    moves = command <= _LAST_NAV_COMMAND and command != _RETURN_TO_LAUNCH
    return moves and (lat, lon) != (0, 0)


def _shapely() -> Any:
    try:
        import shapely
    except ImportError:
        raise S4GError("--area and --route need shapely: pip install 's4g[pack]'") from None
    return shapely
