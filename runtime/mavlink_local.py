"""Metres from an autopilot's origin, by the measure that the autopilot itself uses.

An autopilot turns metres back into degrees with its own round Earth. Metres of the ellipsoid would
come out wrong by up to half a percent of the way from the origin, 25 m after 5 km.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

_ARDUPILOT_M_PER_DEG = 111_318.84502145034  # AP_Math: LATLON_TO_M * 1e7
_ARDUPILOT_LEAST_SCALE = 0.01
_PX4_RADIUS_M = 6_371_000.0  # geo.h: CONSTANTS_RADIUS_OF_EARTH


@dataclass(frozen=True)
class Origin:
    """Where an autopilot's metres begin.

    Attributes:
        lat: degrees.
        lon: degrees.
        alt_m: above mean sea level.
    """

    lat: float
    lon: float
    alt_m: float


Measure = Callable[[Origin, float, float], tuple[float, float]]


def ardupilot_metres(origin: Origin, lat: float, lon: float) -> tuple[float, float]:
    """Return metres north and east as ArduPilot counts them (`Location::get_distance_NE`)."""
    turn = (lon - origin.lon + 180.0) % 360.0 - 180.0
    scale = max(math.cos(math.radians((lat + origin.lat) / 2)), _ARDUPILOT_LEAST_SCALE)
    return (lat - origin.lat) * _ARDUPILOT_M_PER_DEG, turn * _ARDUPILOT_M_PER_DEG * scale


def px4_metres(origin: Origin, lat: float, lon: float) -> tuple[float, float]:
    """Return metres north and east as PX4 counts them (`MapProjection::project`)."""
    lat0, lat1, turn = (math.radians(v) for v in (origin.lat, lat, lon - origin.lon))
    sin0, cos0, sin1, cos1 = math.sin(lat0), math.cos(lat0), math.sin(lat1), math.cos(lat1)
    angle = math.acos(min(max(sin0 * sin1 + cos0 * cos1 * math.cos(turn), -1.0), 1.0))
    k = _PX4_RADIUS_M * (angle / math.sin(angle) if math.sin(angle) > 0 else 1.0)
    return k * (cos0 * sin1 - sin0 * cos1 * math.cos(turn)), k * cos1 * math.sin(turn)
