"""An autopilot for tests, which packs the MAVLink messages that the runtime reads."""

from __future__ import annotations

from typing import Any

import pytest

common = pytest.importorskip(
    "pymavlink.dialects.v20.common", reason="needs pymavlink (s4g[telemetry])"
)


class Autopilot:
    """Packs messages of one system and component."""

    def __init__(self, system: int = 1, component: int = 1) -> None:
        self._mav = common.MAVLink(None, system, component)

    def pack(self, message: Any) -> bytes:
        data = bytes(message.pack(self._mav))
        self._mav.seq = (self._mav.seq + 1) % 256
        return data

    def attitude(self, boot_s: float, yaw_rad: float, pitch: float = 0.0, roll: float = 0) -> bytes:
        ms = round(boot_s * 1e3)
        return self.pack(common.MAVLink_attitude_message(ms, roll, pitch, yaw_rad, 0, 0, 0))

    def global_position(
        self, boot_s: float, height_m: float, vn: float = 0.0, ve: float = 0.0, **truth: int
    ) -> bytes:
        place = {"lat": 470000000, "lon": 80000000, "alt": 500000, "hdg": 9000} | truth
        return self.pack(
            common.MAVLink_global_position_int_message(
                round(boot_s * 1e3),
                place["lat"],
                place["lon"],
                place["alt"],
                round(height_m * 1e3),
                *(round(vn * 100), round(ve * 100), 0, place["hdg"]),
            )
        )

    def local_position(self, boot_s: float, vn: float, ve: float, x: float = 7.0) -> bytes:
        ms = round(boot_s * 1e3)
        return self.pack(common.MAVLink_local_position_ned_message(ms, x, x, x, vn, ve, 0))

    def distance(
        self, boot_s: float, cm: int, orientation: int = 25, quality: int = 0, most_cm: int = 12000
    ) -> bytes:
        return self.pack(
            common.MAVLink_distance_sensor_message(
                *(round(boot_s * 1e3), 20, most_cm, cm, 0, 0, orientation, 0),
                signal_quality=quality,
            )
        )

    def terrain(self, height_m: float, spacing: int = 100, lat: int = 470000000) -> bytes:
        return self.pack(
            common.MAVLink_terrain_report_message(lat, 80000000, spacing, 400, height_m, 0, 9)
        )

    def gimbal(self, boot_s: float, q: Any, flags: int, gimbal_id: int = 0) -> bytes:
        return self.pack(
            common.MAVLink_gimbal_device_attitude_status_message(
                *(0, 0, round(boot_s * 1e3), flags, list(q), 0, 0, 0, 0),
                gimbal_device_id=gimbal_id,
            )
        )

    def heartbeat(self) -> bytes:
        return self.pack(common.MAVLink_heartbeat_message(2, 3, 0, 0, 4, 3))
