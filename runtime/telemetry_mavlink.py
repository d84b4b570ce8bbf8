"""From MAVLink messages to tracks: whose they are, which fields count, on which clock.

Only the messages and fields named here are ever looked at, never a position.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..core.errors import InputError
from .telemetry_rotation import quaternions
from .telemetry_series import MAX_BACKWARDS_S, MAX_GAP_S, Track
from .telemetry_vehicle import Tracks, gimbal_counts_from_nose

WANTED = (
    "ATTITUDE",
    "GLOBAL_POSITION_INT",
    "LOCAL_POSITION_NED",
    "DISTANCE_SENSOR",
    "TERRAIN_REPORT",
    "GIMBAL_DEVICE_ATTITUDE_STATUS",
)
# Gimbals and companion computers send ATTITUDE too, of themselves.
_ONLY_AUTOPILOT = {"ATTITUDE", "GLOBAL_POSITION_INT", "LOCAL_POSITION_NED", "TERRAIN_REPORT"}
_AUTOPILOT = 1  # MAV_COMP_ID_AUTOPILOT1
_DOWN = 25  # MAV_SENSOR_ROTATION_PITCH_270
_USELESS_SIGNAL = 1  # DISTANCE_SENSOR.signal_quality; 0 is unknown
# A delay that has grown for good is believed after a while: far more than clocks drift apart.
_CREEP_S_PER_S = 1e-3


def load_dialect(source: str) -> ModuleType:
    """Return pymavlink's `common` dialect of MAVLink 2, which reads MAVLink 1 too.

    Raises:
        InputError: pymavlink is not installed.
    """
    try:
        from pymavlink.dialects.v20 import common
    except ImportError:
        raise InputError(
            f"{source}: MAVLink is read with pymavlink, which is not installed; "
            "pip install 's4g[telemetry]'"
        ) from None
    module: ModuleType = common
    return module


class DeviceClock:
    """Where a device's clock lies on ours, from messages that carry both.

    A message is received some delay after it was stamped; the smallest delay seen is taken for
    none. So a burst after a stall keeps the times at which its messages were made.
    """

    def __init__(self) -> None:
        """Start without a message."""
        self._offset_s = math.inf
        self._newest_s = -math.inf
        self._received_s = 0.0

    def has_restarted(self, device_s: float) -> bool:
        """Tell whether a device's time lies so far back that the device must have restarted."""
        return device_s < self._newest_s - MAX_BACKWARDS_S

    def local_s(self, device_s: float, received_s: float) -> float:
        """Return on our clock the time that a device stamped on a message just received."""
        creep_s = _CREEP_S_PER_S * max(received_s - self._received_s, 0.0)
        self._offset_s = min(self._offset_s + creep_s, received_s - device_s)
        self._received_s = max(self._received_s, received_s)
        self._newest_s = max(self._newest_s, device_s)
        return device_s + self._offset_s


@dataclass
class Counts:
    """What became of the messages.

    Attributes:
        rows: taken.
        damaged: stretches of bytes that were no message, and messages with a number missing.
        older: messages that came after a newer one of their kind.
        foreign: messages of other systems.
        restarts: how often the autopilot's clock began anew.
    """

    rows: int = 0
    damaged: int = 0
    older: int = 0
    foreign: int = 0
    restarts: int = 0


class Collector:
    """Puts one system's messages into tracks.

    Args:
        tracks: filled, in seconds of the receiver's clock.
        system: to listen to; None takes the first whose autopilot tells its attitude.
        forget: empty the tracks when the autopilot restarts.
    """

    def __init__(self, tracks: Tracks, system: int | None = None, forget: bool = False) -> None:
        """Start without a message."""
        self.tracks = tracks
        self.system = system
        self.counts = Counts()
        self._forget = forget
        self._clocks: dict[int, DeviceClock] = {}
        self._newest_s: dict[tuple[int, str], float] = {}
        self._local_velocity_s = -math.inf
        self._gimbal_id: tuple[int, int] | None = None

    def add(self, message: Any, received_s: float) -> None:
        """Take one message of pymavlink's, if it is of use."""
        kind = message.get_type()
        if kind == "BAD_DATA":
            self.counts.damaged += 1
        if kind not in WANTED:
            return
        system, component = message.get_srcSystem(), message.get_srcComponent()
        if kind in _ONLY_AUTOPILOT and component != _AUTOPILOT:
            return
        if self.system is None and kind == "ATTITUDE":
            self.system = system
        if system != self.system:
            self.counts.foreign += self.system is not None
            return
        t = self._time_s(kind, component, getattr(message, "time_boot_ms", 0) / 1e3, received_s)
        if t is not None:
            _READERS[kind](self, message, t)

    def _time_s(
        self, kind: str, component: int, device_s: float, received_s: float
    ) -> float | None:
        """Return a message's time on our clock, None for one that a newer one has overtaken."""
        if device_s == 0:  # a message without a time, or a sender without a clock
            return received_s
        clock = self._clocks.setdefault(component, DeviceClock())
        if clock.has_restarted(device_s):
            clock = self._clocks[component] = DeviceClock()
            self._newest_s = {k: v for k, v in self._newest_s.items() if k[0] != component}
            if component == _AUTOPILOT:
                self.counts.restarts += 1
                if self._forget:
                    self.tracks.clear()
        if device_s <= self._newest_s.get((component, kind), -math.inf):
            self.counts.older += 1
            return None
        self._newest_s[component, kind] = device_s
        return clock.local_s(device_s, received_s)

    def _row(self, track: Track, t: float, *row: float) -> None:
        if all(map(math.isfinite, row)):
            track.append(t, *row)
            self.counts.rows += 1
        else:
            self.counts.damaged += 1

    def _attitude(self, m: Any, t: float) -> None:
        angles = (m.yaw, m.pitch, m.roll)
        if all(map(math.isfinite, angles)):
            angles = quaternions(np.degrees([angles]))[0]
        self._row(self.tracks.body, t, *angles)

    def _global_position(self, m: Any, t: float) -> None:
        self._row(self.tracks.relative_m, t, m.relative_alt / 1e3)
        # ArduPilot sends zeros while it knows no velocity; LOCAL_POSITION_NED it leaves out then.
        if (m.vx or m.vy) and t - self._local_velocity_s > MAX_GAP_S:
            self._row(self.tracks.velocity_mps, t, m.vx / 1e2, m.vy / 1e2)

    def _local_position(self, m: Any, t: float) -> None:
        self._local_velocity_s = t
        self._row(self.tracks.velocity_mps, t, m.vx, m.vy)

    def _distance(self, m: Any, t: float) -> None:
        in_range = m.min_distance < m.current_distance < m.max_distance
        if m.orientation == _DOWN and in_range and m.signal_quality != _USELESS_SIGNAL:
            self._row(self.tracks.range_m, t, m.current_distance / 1e2)

    def _terrain(self, m: Any, t: float) -> None:
        if m.spacing:  # 0: no terrain data there
            self._row(self.tracks.terrain_m, t, m.current_height)

    def _gimbal(self, m: Any, t: float) -> None:
        gimbal_id = (m.get_srcComponent(), m.gimbal_device_id)  # the first that tells is the one
        nose = gimbal_counts_from_nose(m.flags)
        track = self.tracks.gimbal_nose if nose else self.tracks.gimbal_north
        if any(m.q) and self._gimbal_id in (None, gimbal_id):
            self._gimbal_id = gimbal_id
            self._row(track, t, *m.q)


_READERS = {
    "ATTITUDE": Collector._attitude,
    "GLOBAL_POSITION_INT": Collector._global_position,
    "LOCAL_POSITION_NED": Collector._local_position,
    "DISTANCE_SENSOR": Collector._distance,
    "TERRAIN_REPORT": Collector._terrain,
    "GIMBAL_DEVICE_ATTITUDE_STATUS": Collector._gimbal,
}
