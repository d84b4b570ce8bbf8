"""Fixes as MAVLink messages: units, signs, clocks and flags as each message has them.

Pure functions. Those that tell a position take one: where there is none no message is made, for
each would have to put some number into `lat` and `lon`, and there is none that says "unknown".
Sources: the MAVLink common dialect; what ArduPilot (`AP_GPS_MAV`, `GCS_MAVLINK::handle_odometry`)
and PX4 (`mavlink_receiver`, `aux_global_position`) do with the fields.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .fix import Fix, State
from .telemetry_rotation import quaternions, rotation

GPS_EPOCH_S = 315_964_800  # 1980-01-06T00:00:00Z in Unix seconds
LEAP_SECONDS = 18  # GPS time is ahead of UTC by so many since 2017
_WEEK_MS = 7 * 86400 * 1000
_UNKNOWN_DOP = 65535.0
_UNKNOWN_16, _UNKNOWN_8 = 65535, 255
MOST_32, _MOST_U32 = (1 << 31) - 1, (1 << 32) - 1
# Height and attitude in ODOMETRY are the vehicle's own, sent back for want of any of ours, so wide
# that none of it counts should somebody have the autopilot fuse them.
_ECHOED_SIGMA_M, _ECHOED_SIGMA_RAD = 5.0, 0.2
_TIME_WRAP_S = 250.0  # of a 32-bit float in seconds: 10 µs (MAV_CMD_EXTERNAL_POSITION_ESTIMATE)


@dataclass(frozen=True)
class Place:
    """A position, and when and how well it is known.

    Attributes:
        lat: degrees WGS84.
        lon: degrees.
        sigma_m: standard deviation per axis.
        t: seconds on the frames' clock.
        utc_s: that time in Unix seconds, None where nobody knows.
        vn_mps: speed north, None where unknown.
        ve_mps: speed east.
        speed_sigma_mps: standard deviation per axis of the speed, None where unknown.
    """

    lat: float
    lon: float
    sigma_m: float
    t: float
    utc_s: float | None = None
    vn_mps: float | None = None
    ve_mps: float | None = None
    speed_sigma_mps: float | None = None


@dataclass(frozen=True)
class Body:
    """How the vehicle moves, as it says itself.

    Attributes:
        roll_rad: right side down.
        pitch_rad: nose up.
        yaw_rad: clockwise from true north.
        rates_radps: about forward, right, down.
        down_mps: speed down.
    """

    roll_rad: float
    pitch_rad: float
    yaw_rad: float
    rates_radps: tuple[float, float, float]
    down_mps: float


def place_of(fix: Fix, utc_s: float | None, speed_sigma_mps: float | None = None) -> Place | None:
    """Return a fix's position, None where it has none: never in another state than the two."""
    if fix.state not in (State.TRACK, State.DEGRADED) or fix.t is None:
        return None
    if fix.lat is None or fix.lon is None or fix.sigma_m is None:
        return None
    if not all(map(math.isfinite, (fix.lat, fix.lon, fix.sigma_m, fix.t))):
        return None
    return Place(
        fix.lat, fix.lon, fix.sigma_m, fix.t, utc_s, fix.vn_mps, fix.ve_mps, speed_sigma_mps
    )


def gps_time(utc_s: float) -> tuple[int, int]:
    """Return GPS week, counted on past 1023, and milliseconds into it; week 0 means unknown.

    A machine without a battery for its clock wakes up in 1970, which GPS does not know.
    """
    ms = round((utc_s - GPS_EPOCH_S + LEAP_SECONDS) * 1e3)
    week = ms // _WEEK_MS
    return (week, ms % _WEEK_MS) if 0 < week <= _UNKNOWN_16 else (0, 0)


def gps_input(
    m: Any, place: Place, alt_m: float, gps_id: int, hdop: float | None, satellites: int
) -> Any:
    """Return GPS_INPUT (232), which ArduPilot takes for a GNSS receiver of type MAV.

    The altitude is never left out: ArduPilot would take it for 0. What is not known is flagged:
    speed down, the accuracy of altitude, that of speed where none is given, and the dilution of
    precision, which a position by map has none of.

    Args:
        m: the dialect.
        place: the position.
        alt_m: above mean sea level.
        gps_id: which of the autopilot's receivers this is.
        hdop: a made-up dilution, for autopilots that insist on one.
        satellites: a made-up number, 0 to make none up.
    """
    week, week_ms = (0, 0) if place.utc_s is None else gps_time(place.utc_s)
    flags = (
        m.GPS_INPUT_IGNORE_FLAG_VEL_VERT
        | m.GPS_INPUT_IGNORE_FLAG_VERTICAL_ACCURACY
        | m.GPS_INPUT_IGNORE_FLAG_VDOP
    )
    if hdop is None:
        flags |= m.GPS_INPUT_IGNORE_FLAG_HDOP
    if place.vn_mps is None or place.ve_mps is None:
        flags |= m.GPS_INPUT_IGNORE_FLAG_VEL_HORIZ | m.GPS_INPUT_IGNORE_FLAG_SPEED_ACCURACY
    elif place.speed_sigma_mps is None:
        flags |= m.GPS_INPUT_IGNORE_FLAG_SPEED_ACCURACY
    return m.MAVLink_gps_input_message(
        time_usec=microseconds(place.t),
        gps_id=gps_id,
        ignore_flags=flags,
        time_week_ms=week_ms,
        time_week=week,
        fix_type=m.GPS_FIX_TYPE_3D_FIX,
        lat=e7(place.lat),
        lon=e7(place.lon),
        alt=alt_m,
        hdop=_UNKNOWN_DOP if hdop is None else hdop,
        vdop=_UNKNOWN_DOP,
        vn=place.vn_mps or 0.0,
        ve=place.ve_mps or 0.0,
        vd=0.0,
        speed_accuracy=place.speed_sigma_mps or 0.0,
        horiz_accuracy=place.sigma_m,
        vert_accuracy=0.0,
        satellites_visible=satellites,
        yaw=0,  # absent; north would be 36000
    )


def global_position_sensor(
    m: Any, place: Place, alt_m: float | None, sent_s: float, sensor_id: int, system: int
) -> Any:
    """Return GLOBAL_POSITION_SENSOR (296), which PX4 from 1.18 on takes.

    Unlike any other message it is stamped with the time of sending, and tells how long before
    that the position held.

    Args:
        m: the dialect.
        place: the position.
        alt_m: above mean sea level, None where unknown.
        sent_s: now, on the frames' clock.
        sensor_id: as in `EKF2_AGP0_ID`.
        system: of the autopilot.
    """
    return m.MAVLink_global_position_sensor_message(
        target_system=system,
        target_component=m.MAV_COMP_ID_AUTOPILOT1,
        id=sensor_id,
        time_usec=microseconds(sent_s),
        processing_time=min(microseconds(max(sent_s - place.t, 0.0)), _MOST_U32),
        source=m.GLOBAL_POSITION_SRC_VISION,
        flags=0,
        lat=e7(place.lat),
        lon=e7(place.lon),
        alt_ellipsoid=math.nan,
        alt=math.nan if alt_m is None else alt_m,
        eph=place.sigma_m,
        epv=math.nan,
    )


def external_position_estimate(m: Any, place: Place, sent_s: float, system: int) -> Any:
    """Return MAV_CMD_EXTERNAL_POSITION_ESTIMATE (43003) as a COMMAND_INT.

    Args:
        m: the dialect.
        place: the position.
        sent_s: now, on the frames' clock; wraps as the command asks.
        system: of the autopilot.
    """
    return m.MAVLink_command_int_message(
        target_system=system,
        target_component=m.MAV_COMP_ID_AUTOPILOT1,
        frame=m.MAV_FRAME_GLOBAL,
        command=m.MAV_CMD_EXTERNAL_POSITION_ESTIMATE,
        current=0,
        autocontinue=0,
        param1=sent_s % _TIME_WRAP_S,
        param2=max(sent_s - place.t, 0.0),
        param3=place.sigma_m,
        param4=0.0,
        x=e7(place.lat),
        y=e7(place.lon),
        z=math.nan,  # "not used, should be sent as NaN"
    )


def odometry(
    m: Any, place: Place, north_east_down_m: tuple[float, float, float], body: Body, resets: int
) -> Any:
    """Return ODOMETRY (331): metres north, east, down of the autopilot's origin.

    The frames are LOCAL_FRD, whose forward is north here, and BODY_FRD: ArduPilot takes no other.

    Args:
        m: the dialect.
        place: the position.
        north_east_down_m: the same from the origin, by the autopilot's measure (`mavlink_local`).
        body: attitude and climb.
        resets: how often the position has jumped; counted modulo 256.
    """
    north_m, east_m, down_m = north_east_down_m
    angles = [math.degrees(v) for v in (body.yaw_rad, body.pitch_rad, body.roll_rad)]
    known = place.vn_mps is not None and place.ve_mps is not None
    earth = [place.vn_mps or 0.0, place.ve_mps or 0.0, body.down_mps]
    forward, right, down = (float(v) for v in rotation(*angles).T @ np.array(earth))
    speed_sigma = place.speed_sigma_mps if known else None
    return m.MAVLink_odometry_message(
        time_usec=microseconds(place.t),
        frame_id=m.MAV_FRAME_LOCAL_FRD,
        child_frame_id=m.MAV_FRAME_BODY_FRD,
        x=north_m,
        y=east_m,
        z=down_m,
        q=[float(v) for v in quaternions([angles])[0]],
        vx=forward if known else math.nan,
        vy=right if known else math.nan,
        vz=down if known else math.nan,
        rollspeed=body.rates_radps[0],
        pitchspeed=body.rates_radps[1],
        yawspeed=body.rates_radps[2],
        pose_covariance=_diagonal(
            *(place.sigma_m,) * 2, _ECHOED_SIGMA_M, *(_ECHOED_SIGMA_RAD,) * 3
        ),
        velocity_covariance=(
            [math.nan] + [0.0] * 20
            if speed_sigma is None
            else _diagonal(*(speed_sigma,) * 3, *(_ECHOED_SIGMA_RAD,) * 3)
        ),
        reset_counter=resets % 256,
        estimator_type=m.MAV_ESTIMATOR_TYPE_VISION,
        quality=0,  # unknown: `sigma_m` says it
    )


def global_position_int(m: Any, place: Place, alt_m: float | None, agl_m: float | None) -> Any:
    """Return GLOBAL_POSITION_INT (33), for a ground station that has no autopilot to listen to."""
    return m.MAVLink_global_position_int_message(
        time_boot_ms=boot_ms(place.t),
        lat=e7(place.lat),
        lon=e7(place.lon),
        alt=within(round((alt_m or 0.0) * 1e3), MOST_32),
        relative_alt=within(round((agl_m or 0.0) * 1e3), MOST_32),
        vx=within(round((place.vn_mps or 0.0) * 100), 32767),
        vy=within(round((place.ve_mps or 0.0) * 100), 32767),
        vz=0,
        hdg=_UNKNOWN_16,  # a fix tells where the picture's top points, not the nose
    )


def gps_raw_int(m: Any, place: Place, alt_m: float | None) -> Any:
    """Return GPS_RAW_INT (24), whose `h_acc` ground stations show; dilutions are unknown."""
    speed, course = _UNKNOWN_16, _UNKNOWN_16
    if place.vn_mps is not None and place.ve_mps is not None:
        speed = min(round(math.hypot(place.vn_mps, place.ve_mps) * 100), _UNKNOWN_16 - 1)
        course = round(math.degrees(math.atan2(place.ve_mps, place.vn_mps)) * 100) % 36000
    sigma = place.speed_sigma_mps
    return m.MAVLink_gps_raw_int_message(
        time_usec=microseconds(place.t),
        fix_type=m.GPS_FIX_TYPE_3D_FIX,
        lat=e7(place.lat),
        lon=e7(place.lon),
        alt=within(round((alt_m or 0.0) * 1e3), MOST_32),
        eph=_UNKNOWN_16,
        epv=_UNKNOWN_16,
        vel=speed,
        cog=course,
        satellites_visible=_UNKNOWN_8,
        h_acc=min(round(place.sigma_m * 1e3), _MOST_U32),
        vel_acc=0 if sigma is None else min(round(sigma * 1e3), _MOST_U32),
    )


def boot_ms(t: float) -> int:
    """Return seconds as milliseconds that wrap as those since boot do."""
    return round(t * 1e3) % (1 << 32)


def microseconds(t: float) -> int:
    """Return seconds as whole microseconds; there are none below 0."""
    return max(round(t * 1e6), 0)


def e7(degrees: float) -> int:
    """Return degrees in units of 1e-7."""
    return round(degrees * 1e7)


def within(value: int, most: int) -> int:
    """Return a number cut to what its field holds."""
    return min(max(value, -most), most)


def _diagonal(*sigmas: float) -> list[float]:
    """Return the upper triangle, by rows, of a 6 x 6 covariance without cross terms."""
    return [
        sigmas[row] ** 2 if row == column else 0.0 for row in range(6) for column in range(row, 6)
    ]
