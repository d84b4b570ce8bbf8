"""NMEA 0183 sentences of a fix: GGA, RMC, GST, GLL, with talker GN.

Formats after the NMEA Revealed reference of gpsd (https://gpsd.gitlab.io/gpsd/NMEA.html) and the
u-blox 8 receiver description, which agree on them. Each sentence ends with its checksum, CR and LF
and is at most 82 characters long. What is not known is an empty field.
"""

from __future__ import annotations

import math
from datetime import datetime, timezone

from .fix import Fix, State

LONGEST_BYTES = 82  # of a sentence, by the standard
SENTENCES = 4
_KNOTS_PER_MPS = 3600 / 1852
_MICRO = 1_000_000  # parts of a minute: 2 mm, less than a fix as JSON tells
# A drone that hovers has no course.
_COURSE_FROM_MPS = 0.1

# Readers know no position that is not from satellites, but one that is estimated, 6: gpsd then
# says status 5, dead reckoning. A matched one is 1, which readers take as it is, with the number
# of satellites 0 and no dilution of precision; 2 to 5 promise corrections, 7 and 8 that it is not
# real. Between frames the state tells which it is: TRACK was matched within the last second.
_QUALITY = {State.TRACK: 1, State.DEGRADED: 6}
# As u-blox receivers do, a position by dead reckoning is called valid, and mode E estimated:
# gpsd reads V as no fix.
_MODE = {State.TRACK: "A", State.DEGRADED: "E"}


def sentences(fix: Fix, utc_s: float | None) -> str:
    """Return GGA, RMC, GST and GLL of a fix, in this order.

    gpsd takes for the end of a cycle the last sentence whose time it reads, and reports then. Of a
    cycle without a fix it reads no time in RMC: were RMC the last one, GGA would be it there, and
    from the first such cycle on gpsd would report after either. But a GGA of fewer than three
    satellites is no fix to it until RMC says that there is one, so that "no fix" would come between
    any two positions. GLL's time it reads always (seen with gpsd 3.22, and in its newer sources).

    Args:
        fix: without a position they say that there is none: quality 0, status V, mode N.
        utc_s: its time in Unix seconds, None where nobody knows.
    """
    return gga(fix, utc_s) + rmc(fix, utc_s) + gst(fix, utc_s) + gll(fix, utc_s)


def gga(fix: Fix, utc_s: float | None) -> str:
    """Return position and quality. The altitude is left out: above the sea nobody knows it."""
    time_of_day, _ = _time(utc_s)
    quality = _QUALITY[fix.state] if _has_position(fix) else 0
    return _sentence(f"GNGGA,{time_of_day},{_place(fix)},{quality},00,,,M,,M,,")


def rmc(fix: Fix, utc_s: float | None) -> str:
    """Return position, speed in knots, course in degrees from true north, and date."""
    time_of_day, date = _time(utc_s)
    if not _has_position(fix):
        return _sentence(f"GNRMC,{time_of_day},V,{_place(fix)},,,{date},,,N")
    speed, course = _motion(fix)
    mode = _MODE[fix.state]
    return _sentence(f"GNRMC,{time_of_day},A,{_place(fix)},{speed},{course},{date},,,{mode}")


def gst(fix: Fix, utc_s: float | None) -> str:
    """Return the uncertainty: one standard deviation per axis, metres; the same in all directions.

    The deviation of ranges to satellites is left out, as is that of the altitude.
    """
    time_of_day, _ = _time(utc_s)
    if not _has_position(fix) or fix.sigma_m is None:
        return _sentence(f"GNGST,{time_of_day},,,,,,,")
    sigma = f"{fix.sigma_m:.2f}"
    return _sentence(f"GNGST,{time_of_day},,{sigma},{sigma},0.0,{sigma},{sigma},")


def gll(fix: Fix, utc_s: float | None) -> str:
    """Return the position once more, and its status."""
    time_of_day, _ = _time(utc_s)
    status, mode = ("A", _MODE[fix.state]) if _has_position(fix) else ("V", "N")
    return _sentence(f"GNGLL,{_place(fix)},{time_of_day},{status},{mode}")


def checksum(body: str) -> str:
    """Return two hexadecimal digits: all characters between `$` and `*`, combined by XOR."""
    value = 0
    for byte in body.encode("ascii"):
        value ^= byte
    return f"{value:02X}"


def angle(degrees: float, digits: int) -> str:
    """Return the size of an angle as degrees and minutes, `ddmm.mmmmmm`.

    Args:
        degrees: its sign is not told.
        digits: of the whole degrees, 2 for latitudes and 3 for longitudes.
    """
    whole, rest = divmod(round(abs(degrees) * 60 * _MICRO), 60 * _MICRO)  # never 60 minutes
    minutes, micro = divmod(rest, _MICRO)
    return f"{whole:0{digits}d}{minutes:02d}.{micro:06d}"


def _has_position(fix: Fix) -> bool:
    return fix.state in _QUALITY and fix.lat is not None and fix.lon is not None


def _place(fix: Fix) -> str:
    if not _has_position(fix):
        return ",,,"
    assert fix.lat is not None
    assert fix.lon is not None
    lon = math.remainder(fix.lon, 360.0)  # -180 to 180
    north = "S" if fix.lat < 0 else "N"
    east = "W" if lon < 0 else "E"
    return f"{angle(fix.lat, 2)},{north},{angle(lon, 3)},{east}"


def _motion(fix: Fix) -> tuple[str, str]:
    if fix.ve_mps is None or fix.vn_mps is None:
        return "", ""
    speed_mps = math.hypot(fix.ve_mps, fix.vn_mps)
    speed = f"{speed_mps * _KNOTS_PER_MPS:.2f}"
    if speed_mps < _COURSE_FROM_MPS:
        return speed, ""
    tenths = round(math.degrees(math.atan2(fix.ve_mps, fix.vn_mps)) * 10) % 3600
    return speed, f"{tenths / 10:.1f}"


def _time(utc_s: float | None) -> tuple[str, str]:
    """Return time of day and date, both from the time rounded to 10 ms: never 60 seconds."""
    if utc_s is None:
        return "", ""
    seconds, hundredths = divmod(round(utc_s * 100), 100)
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{moment:%H%M%S}.{hundredths:02d}", f"{moment:%d%m%y}"


def _sentence(body: str) -> str:
    return f"${body}*{checksum(body)}\r\n"
