"""What is said to an autopilot or ground station besides positions."""

from __future__ import annotations

from typing import Any

from .fix import Fix, State
from .mavlink_local import Origin
from .mavlink_messages import MOST_32, boot_ms, e7, microseconds, within

_TEXT_BYTES = 50


def heartbeat(m: Any, is_vehicle: bool = False) -> Any:
    """Return HEARTBEAT (0), of a companion computer, or of a vehicle without an autopilot."""
    return m.MAVLink_heartbeat_message(
        m.MAV_TYPE_QUADROTOR if is_vehicle else m.MAV_TYPE_ONBOARD_CONTROLLER,
        m.MAV_AUTOPILOT_GENERIC if is_vehicle else m.MAV_AUTOPILOT_INVALID,
        *(0, 0, m.MAV_STATE_ACTIVE, 3),
    )


def statustext(m: Any, fix: Fix) -> Any:
    """Return STATUSTEXT (253) that tells a fix's state and its reason."""
    severity = {
        State.TRACK: m.MAV_SEVERITY_INFO,
        State.ACQUIRING: m.MAV_SEVERITY_INFO,
        State.INIT: m.MAV_SEVERITY_INFO,
        State.DEGRADED: m.MAV_SEVERITY_NOTICE,
    }.get(fix.state, m.MAV_SEVERITY_WARNING)
    text = f"s4g: {fix.state.value}" + (f" {fix.reason.value}" if fix.reason else "")
    return m.MAVLink_statustext_message(severity, text.encode()[:_TEXT_BYTES])


def named_values(m: Any, fix: Fix) -> list[Any]:
    """Return NAMED_VALUE_FLOAT (251) of protection level and anchor age, where they are known."""
    values = {b"s4g_hpl": fix.hpl_m, b"anchor_age": fix.anchor_age_s}
    return [
        m.MAVLink_named_value_float_message(boot_ms(fix.t or 0.0), name, value)
        for name, value in values.items()
        if value is not None
    ]


def set_origin(m: Any, origin: Origin, system: int, t: float) -> Any:
    """Return SET_GPS_GLOBAL_ORIGIN (48); altitude goes in millimetres."""
    alt_mm = within(round(origin.alt_m * 1e3), MOST_32)
    return m.MAVLink_set_gps_global_origin_message(
        system, e7(origin.lat), e7(origin.lon), alt_mm, microseconds(t)
    )


def ask_origin(m: Any, system: int) -> Any:
    """Return MAV_CMD_REQUEST_MESSAGE (512) for GPS_GLOBAL_ORIGIN (49)."""
    return m.MAVLink_command_long_message(
        system,
        m.MAV_COMP_ID_AUTOPILOT1,
        m.MAV_CMD_REQUEST_MESSAGE,
        *(0, m.MAVLINK_MSG_ID_GPS_GLOBAL_ORIGIN, 0, 0, 0, 0, 0, 0),
    )


def timesync(m: Any, asked_ns: int, now_s: float) -> Any:
    """Return the answer to a TIMESYNC (111), by which an autopilot reads our time stamps."""
    return m.MAVLink_timesync_message(tc1=round(now_s * 1e9), ts1=asked_ns)
