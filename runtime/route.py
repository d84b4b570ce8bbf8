"""The way a simulated flight takes: read from a file or laid over a source, then flown in time."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from ..core.geo import BBox, LocalFrame
from .tables import read_csv_rows, read_numbers

Floats = npt.NDArray[np.float64]

MAX_FRAMES = 100_000
_TURN_S = 1.5  # a small drone takes about this long to turn at a waypoint


@dataclass(frozen=True)
class Route:
    """Waypoints.

    Attributes:
        name: the file, or the pattern, for messages.
        lat_deg: (N,) latitudes.
        lon_deg: (N,) longitudes.
        agl_m: (N,) heights above ground, None where the route has none.
    """

    name: str
    lat_deg: Floats
    lon_deg: Floats
    agl_m: Floats | None = None


@dataclass(frozen=True)
class Track:
    """Where the aircraft truly is at each frame; arrays are (N,) float64.

    Attributes:
        t: seconds from the start.
        lat_deg: latitude.
        lon_deg: longitude.
        yaw_deg: direction of travel, clockwise from true north, 0 to 360.
        agl_m: height above ground.
        vel_n_mps: speed north.
        vel_e_mps: speed east.
        length_m: length of the whole route.
    """

    t: Floats
    lat_deg: Floats
    lon_deg: Floats
    yaw_deg: Floats
    agl_m: Floats
    vel_n_mps: Floats
    vel_e_mps: Floats
    length_m: float


def read_route(path: Path) -> Route:
    """Read waypoints from a CSV (`lat`, `lon`, optional `agl_m`) or a GeoJSON LineString.

    A GeoJSON's third coordinate is a height above sea level and is ignored.

    Raises:
        InputError: the file is neither, a column or number is missing, or it has under 2 points.
    """
    if path.suffix.lower() in (".geojson", ".json"):
        route = _route_from_geojson(path)
    else:
        route = _route_from_csv(path)
    if len(route.lat_deg) < 2:
        raise InputError(f"--route {path}: has {len(route.lat_deg)} waypoint, expected 2 or more")
    for name, values, limit in (("lat", route.lat_deg, 90), ("lon", route.lon_deg, 180)):
        if (wrong := np.flatnonzero(np.abs(values) > limit)).size:
            raise InputError(
                f"--route {path}: waypoint {wrong[0] + 1}: {name} {values[wrong[0]]:g} is not "
                f"between -{limit} and {limit} degrees"
            )
    return route


def _route_from_csv(path: Path) -> Route:
    names, rows = read_csv_rows(path)
    for column in ("lat", "lon"):
        if column not in names:
            raise InputError(
                f"--route {path}: lacks the column {column}; found {', '.join(names)}; "
                "expected lat, lon and optionally agl_m"
            )
    lat, lon = (read_numbers(path, rows, column) for column in ("lat", "lon"))
    agl = read_numbers(path, rows, "agl_m") if "agl_m" in names else None
    if agl is not None and (wrong := np.flatnonzero(agl <= 0)).size:
        raise InputError(
            f"{path}: line {wrong[0] + 2}, column agl_m: {agl[wrong[0]]:g} is not above the ground"
        )
    return Route(str(path), lat, lon, agl)


def _route_from_geojson(path: Path) -> Route:
    try:
        value: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"--route {path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise InputError(f"--route {path}: not a GeoJSON file; expected a LineString") from None
    lines = list(_line_strings(value))
    if len(lines) != 1:
        raise InputError(f"--route {path}: holds {len(lines)} LineStrings, expected exactly one")
    try:
        points = np.array([[float(p[0]), float(p[1])] for p in lines[0]], np.float64)
    except (TypeError, ValueError, IndexError, KeyError):
        points = np.empty(0)
    if points.ndim != 2 or not np.isfinite(points).all():
        raise InputError(f"--route {path}: its LineString's coordinates are not [lon, lat] numbers")
    return Route(str(path), points[:, 1], points[:, 0])


def _line_strings(value: Any) -> list[Any]:
    """Return the coordinates of every LineString of a GeoJSON value."""
    if not isinstance(value, dict):
        return []
    kind = value.get("type")
    if kind == "LineString":
        return [value.get("coordinates")]
    if kind == "Feature":
        return _line_strings(value.get("geometry"))
    if kind in ("FeatureCollection", "GeometryCollection"):
        parts = value.get("features" if kind == "FeatureCollection" else "geometries")
        return [line for part in parts or [] for line in _line_strings(part)]
    return []


def pattern_route(pattern: str, bounds: BBox, inset_m: float, spacing_m: float) -> Route:
    """Lay a route inside a source: east-west lanes from the south up, or one line eastwards.

    Args:
        pattern: `lawnmower` or `line`.
        bounds: of the source.
        inset_m: distance kept from its sides, metres.
        spacing_m: distance between lanes, metres.

    Raises:
        InputError: the inset leaves no room.
    """
    frame = LocalFrame(*bounds.center)
    west, south, east, north = frame.local_bounds(bounds)
    if min(east - west, north - south) <= 2 * inset_m:
        raise InputError(
            f"--inset {inset_m:.0f}: leaves nothing of the source's {east - west:.0f} x "
            f"{north - south:.0f} m; choose a smaller inset, a lower --agl or a narrower --hfov"
        )
    west, south, east, north = west + inset_m, south + inset_m, east - inset_m, north - inset_m
    if pattern == "line":
        lanes = [(south + north) / 2]
    else:
        count = max(1, math.floor((north - south) / spacing_m) + 1)
        lanes = list(np.linspace(south, north, count)) if count > 1 else [(south + north) / 2]
    points = []
    for k, lane in enumerate(lanes):
        points += [(west, lane), (east, lane)] if k % 2 == 0 else [(east, lane), (west, lane)]
    lat, lon = frame.to_wgs84(*np.array(points).T)
    return Route(f"--pattern {pattern}", lat, lon)


def fly(route: Route, agl_m: float | None, speed_mps: float, fps: float) -> Track:
    """Fly a route at constant speed, a frame every 1/`fps` seconds.

    The aircraft passes through every waypoint; its heading turns with it over a second or so.

    Raises:
        InputError: no height, the route has no length, or far too many frames.
    """
    if route.agl_m is None and agl_m is None:
        raise InputError(
            "--agl: missing; give the height above ground in metres, or an agl_m column in --route"
        )
    if route.agl_m is not None and agl_m is not None:
        raise InputError(
            f"--agl {agl_m:g}: {route.name} has an agl_m column; leave out one of the two"
        )
    frame = LocalFrame(float(route.lat_deg.mean()), float(route.lon_deg.mean()))
    points = np.stack(frame.to_local(route.lat_deg, route.lon_deg), axis=1)
    steps = np.hypot(*np.diff(points, axis=0).T)
    keep = np.concatenate([[True], steps > 0])
    points = points[keep]
    along = np.concatenate([[0.0], np.cumsum(steps[steps > 0])])
    if along[-1] <= 0:
        raise InputError(f"{route.name}: all waypoints are the same place; expected a way to fly")
    count = math.floor(along[-1] / speed_mps * fps + 1e-6) + 1
    if count > MAX_FRAMES:
        raise InputError(
            f"{route.name}: {along[-1] / 1e3:.1f} km at --speed {speed_mps:g} and --fps {fps:g} "
            f"are {count} frames, at most {MAX_FRAMES}; lower --fps"
        )
    t = np.arange(count) / fps
    way = t * speed_mps
    east, north = (np.interp(way, along, axis) for axis in points.T)
    if route.agl_m is not None:
        height = np.interp(way, along, route.agl_m[keep])
    else:
        height = np.full(count, agl_m, np.float64)
    yaw = _headings(points, along, way, _TURN_S * speed_mps)
    lat, lon = frame.to_wgs84(east, north)
    leg = np.diff(points, axis=0)[_leg_at(along, way)]
    velocity = leg / np.hypot(*leg.T)[:, None] * speed_mps
    return Track(
        t, lat, lon, yaw, height, velocity[:, 1], velocity[:, 0], length_m=float(along[-1])
    )


def _leg_at(along: Floats, way: Floats) -> npt.NDArray[np.intp]:
    """Return the number of the leg at each distance along the route."""
    return np.clip(np.searchsorted(along, way, "right") - 1, 0, len(along) - 2)


def _headings(points: Floats, along: Floats, way: Floats, turn_m: float) -> Floats:
    """Return the direction of travel, degrees, averaged over `turn_m` of the way."""
    ends = np.stack([way - turn_m / 2, way + turn_m / 2])
    east, north = (np.interp(ends, along, axis) for axis in points.T)
    step = np.stack([east[1] - east[0], north[1] - north[0]])
    # A way straight back averages to nothing: turn on the spot.
    legs = np.diff(points, axis=0).T
    step = np.where(np.hypot(*step) > 1e-3 * turn_m, step, legs[:, _leg_at(along, way)])
    # Twice, as -1e-16 % 360 is 360.
    yaw: Floats = np.degrees(np.arctan2(step[0], step[1])) % 360.0 % 360.0
    return yaw
