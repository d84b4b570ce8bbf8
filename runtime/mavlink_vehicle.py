"""What an output has to know of the vehicle it talks to: who it is, how high and how it is turned.

Only the fields named here are ever looked at. The vehicle's own latitude and longitude are not
among them: an output that took them up would hand the autopilot its own position back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .mavlink_local import Origin
from .mavlink_messages import Body

FRESH_S = 2.0
_BODY_FRESH_S = 0.5
_AUTOPILOT = 1  # MAV_COMP_ID_AUTOPILOT1
_NO_AUTOPILOT = 8  # MAV_AUTOPILOT_INVALID
_GROUND_STATION = 6  # MAV_TYPE_GCS
_MOST_ALT_M = 100_000.0
# Where several messages tell the altitude, the first of these that does is taken.
_ALT_KINDS = ("GLOBAL_POSITION_INT", "ALTITUDE", "VFR_HUD")
_DOWN_KINDS = ("LOCAL_POSITION_NED", "GLOBAL_POSITION_INT", "VFR_HUD")

Timed = tuple[float, float]  # value, monotonic time


@dataclass(frozen=True)
class Counts:
    """What became of the messages.

    Attributes:
        taken: of use.
        foreign: of other systems.
        damaged: stretches of bytes that were no message, and numbers that cannot be.
    """

    taken: int = 0
    foreign: int = 0
    damaged: int = 0


class Vehicle:
    """Follows the first autopilot heard, or the one it is told to.

    Args:
        system: to follow; None takes the first whose autopilot sends a HEARTBEAT.
    """

    def __init__(self, system: int | None = None) -> None:
        """Start without a message."""
        self.system = system
        self.is_heard = False
        self.counts = Counts()
        self.origin: Origin | None = None
        self.origin_moves = 0
        self.asked_ns: list[int] = []  # TIMESYNC requests that wait for an answer
        self._alt_m: dict[str, Timed] = {}
        self._down_mps: dict[str, Timed] = {}
        self._attitude: tuple[tuple[float, ...], float] | None = None

    def add(self, message: Any, now_s: float) -> None:
        """Take one message of pymavlink's, if it is of use."""
        kind = message.get_type()
        if kind == "BAD_DATA":
            self._count(damaged=1)
            return
        reader = _READERS.get(kind)
        if reader is None:
            return
        system = message.get_srcSystem()
        if message.get_srcComponent() != _AUTOPILOT or (
            self.system is not None and system != self.system
        ):
            self._count(foreign=1)
            return
        if kind == "HEARTBEAT":
            if message.autopilot == _NO_AUTOPILOT or message.type == _GROUND_STATION:
                self._count(foreign=1)
                return
            self.system, self.is_heard = system, True
        elif self.system is None:
            return
        if not reader(self, message, now_s):
            self._count(damaged=1)
            return
        self._count(taken=1)

    def note_damage(self, times: int) -> None:
        """Count bytes that pymavlink failed at."""
        self._count(damaged=times)

    def alt_m(self, now_s: float) -> float | None:
        """Return the altitude above mean sea level that the vehicle tells, None for old ones."""
        return _freshest(self._alt_m, _ALT_KINDS, now_s)

    def body(self, now_s: float) -> Body | None:
        """Return attitude and climb, None where either is unknown or old."""
        down_mps = _freshest(self._down_mps, _DOWN_KINDS, now_s)
        if self._attitude is None or down_mps is None:
            return None
        (roll, pitch, yaw, *rates), at_s = self._attitude
        if now_s - at_s > _BODY_FRESH_S:
            return None
        return Body(roll, pitch, yaw, (rates[0], rates[1], rates[2]), down_mps)

    def _count(self, taken: int = 0, foreign: int = 0, damaged: int = 0) -> None:
        c = self.counts
        self.counts = replace(
            c, taken=c.taken + taken, foreign=c.foreign + foreign, damaged=c.damaged + damaged
        )

    def _heartbeat(self, m: Any, now_s: float) -> bool:
        return True

    def _global_position(self, m: Any, now_s: float) -> bool:
        self._down_mps["GLOBAL_POSITION_INT"] = (m.vz / 100, now_s)
        return self._altitude("GLOBAL_POSITION_INT", m.alt / 1e3, now_s)

    def _altitude_message(self, m: Any, now_s: float) -> bool:
        return self._altitude("ALTITUDE", m.altitude_amsl, now_s)

    def _vfr_hud(self, m: Any, now_s: float) -> bool:
        if not math.isfinite(m.climb):
            return False
        self._down_mps["VFR_HUD"] = (-m.climb, now_s)
        return self._altitude("VFR_HUD", m.alt, now_s)

    def _local_position(self, m: Any, now_s: float) -> bool:
        if not math.isfinite(m.vz):
            return False
        self._down_mps["LOCAL_POSITION_NED"] = (m.vz, now_s)
        return True

    def _turned(self, m: Any, now_s: float) -> bool:
        values = (m.roll, m.pitch, m.yaw, m.rollspeed, m.pitchspeed, m.yawspeed)
        if not all(map(math.isfinite, values)):
            return False
        self._attitude = values, now_s
        return True

    def _has_origin(self, m: Any, now_s: float) -> bool:
        lat, lon = m.latitude / 1e7, m.longitude / 1e7
        # 0, 0 is what autopilots send while they have none.
        if not (abs(lat) <= 90 and abs(lon) <= 180) or (lat, lon) == (0, 0):
            return False
        origin = Origin(lat, lon, m.altitude / 1e3)
        if origin != self.origin:
            self.origin_moves += self.origin is not None
            self.origin = origin
        return True

    def _timesync(self, m: Any, now_s: float) -> bool:
        if m.tc1 == 0 and len(self.asked_ns) < 8:
            self.asked_ns.append(m.ts1)
        return True

    def _altitude(self, kind: str, alt_m: float, now_s: float) -> bool:
        if not abs(alt_m) <= _MOST_ALT_M:
            return False
        self._alt_m[kind] = (alt_m, now_s)
        return True


_READERS: dict[str, Callable[[Vehicle, Any, float], bool]] = {
    "HEARTBEAT": Vehicle._heartbeat,
    "GLOBAL_POSITION_INT": Vehicle._global_position,
    "ALTITUDE": Vehicle._altitude_message,
    "VFR_HUD": Vehicle._vfr_hud,
    "LOCAL_POSITION_NED": Vehicle._local_position,
    "ATTITUDE": Vehicle._turned,
    "GPS_GLOBAL_ORIGIN": Vehicle._has_origin,
    "TIMESYNC": Vehicle._timesync,
}


def _freshest(values: dict[str, Timed], kinds: tuple[str, ...], now_s: float) -> float | None:
    for kind in kinds:
        value, at_s = values.get(kind, (0.0, -math.inf))
        if now_s - at_s <= FRESH_S:
            return value
    return None
