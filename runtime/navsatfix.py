"""Fixes as ROS 2 `sensor_msgs/NavSatFix`.

Source: sensor_msgs/msg/NavSatFix.msg and NavSatStatus.msg. Latitude and longitude in degrees WGS84,
the altitude is NaN, as the message asks for where there is none; the covariance is in m², east-
north-up, row by row. Without a fix, status is NO_FIX and the position NaN, never a number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .sink import Moment

NO_FIX, FIX = -1, 0  # NavSatStatus.status
COVARIANCE_UNKNOWN, COVARIANCE_KNOWN = 0, 3
# Of the altitude, which is not known: give or take 10 km. A 0 would say that it is exact.
UNKNOWN_VARIANCE_M2 = 1e8


@dataclass(frozen=True)
class NavSatFix:
    """The fields of the message; its header is the bag's.

    Attributes:
        status: `FIX` where there is a position, tracked or carried on; otherwise `NO_FIX`.
        service: satellite systems used: none.
        latitude: degrees WGS84, NaN where there is none.
        longitude: the same.
        altitude: NaN.
        position_covariance: m², 3 x 3 row by row, east-north-up.
        position_covariance_type: whether that is known.
    """

    status: int
    latitude: float
    longitude: float
    position_covariance: tuple[float, ...]
    position_covariance_type: int
    service: int = 0
    altitude: float = math.nan


def nav_sat_fix(moment: Moment) -> NavSatFix:
    """Return a fix as the fields of the message; `sigma_m` is a standard deviation per axis."""
    fix = moment.fix
    if fix.lat is None or fix.lon is None or fix.sigma_m is None:
        return NavSatFix(NO_FIX, math.nan, math.nan, (0.0,) * 9, COVARIANCE_UNKNOWN)
    variance_m2 = fix.sigma_m**2
    covariance = (variance_m2, 0.0, 0.0, 0.0, variance_m2, 0.0, 0.0, 0.0, UNKNOWN_VARIANCE_M2)
    return NavSatFix(FIX, fix.lat, fix.lon, covariance, COVARIANCE_KNOWN)
