import math
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.runtime.mavlink_local import Origin
from s4g.runtime.mavlink_messages import Body
from s4g.runtime.mavlink_vehicle import FRESH_S, Counts, Vehicle

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_mavlink.py"))))
m = toy.common
BEAT = m.MAVLink_heartbeat_message(2, 3, 0, 0, 4, 3)


def hear(vehicle: Vehicle, *made: Any, system: int = 1, component: int = 1, at: float = 0) -> None:
    for message in made:
        data = bytearray(message.pack(m.MAVLink(None, system, component)))
        vehicle.add(m.MAVLink(None).decode(data), at)


def position(alt_mm: int = 612_500, vz: int = 150, lat: int = 1, lon: int = 2) -> Any:
    return m.MAVLink_global_position_int_message(0, lat, lon, alt_mm, 0, 0, 0, vz, 0)


def attitude(yaw: float = 1.0) -> Any:
    return m.MAVLink_attitude_message(0, 0.1, 0.2, yaw, 0.01, 0.02, 0.03)


def hud(alt: float = 700.0, climb: float = -2.0) -> Any:
    return m.MAVLink_vfr_hud_message(20, 20, 90, 50, alt, climb)


def altitude(amsl: float) -> Any:
    return m.MAVLink_altitude_message(0, 1.0, amsl, 2.0, 3.0, 4.0, 5.0)


def test_the_first_autopilot_with_a_heartbeat_is_followed() -> None:
    vehicle = Vehicle()
    hear(vehicle, position(), system=5)  # nobody knows yet who that is
    assert vehicle.alt_m(0) is None
    hear(vehicle, m.MAVLink_heartbeat_message(6, 8, 0, 0, 4, 3), system=255)  # a ground station
    hear(vehicle, m.MAVLink_heartbeat_message(18, 8, 0, 0, 4, 3), component=191)  # a companion
    hear(vehicle, m.MAVLink_heartbeat_message(26, 3, 0, 0, 4, 3), component=154)  # a gimbal
    assert (vehicle.system, vehicle.is_heard) == (None, False)
    hear(vehicle, BEAT, system=42)
    hear(vehicle, BEAT, position(alt_mm=9_000), system=5)
    hear(vehicle, position(), system=42)
    assert (vehicle.system, vehicle.is_heard) == (42, True)
    assert vehicle.alt_m(0) == 612.5
    assert vehicle.counts == Counts(taken=2, foreign=5)


def test_one_that_is_told_whom_to_follow_listens_to_nobody_else() -> None:
    vehicle = Vehicle(7)
    hear(vehicle, BEAT, position(), system=1)
    assert (vehicle.is_heard, vehicle.alt_m(0), vehicle.counts.foreign) == (False, None, 2)
    hear(vehicle, BEAT, position(), system=7)
    assert (vehicle.is_heard, vehicle.alt_m(0)) == (True, 612.5)


def test_altitudes_are_taken_in_order_and_while_they_are_fresh() -> None:
    vehicle = Vehicle(1)
    hear(vehicle, hud(alt=700), at=0)
    assert vehicle.alt_m(0) == 700
    hear(vehicle, altitude(650), at=1)
    assert vehicle.alt_m(1) == 650
    hear(vehicle, position(), at=0.5)
    assert vehicle.alt_m(1) == 612.5
    assert vehicle.alt_m(0.5 + FRESH_S + 0.01) == 650
    assert vehicle.alt_m(1 + FRESH_S + 0.01) is None


def test_attitude_and_climb_make_a_body() -> None:
    vehicle = Vehicle(1)
    hear(vehicle, attitude())
    assert vehicle.body(0) is None  # its climb is unknown
    hear(vehicle, hud(climb=-2))
    assert vehicle.body(0).down_mps == 2
    hear(vehicle, position(vz=150))
    assert vehicle.body(0).down_mps == 1.5
    hear(vehicle, m.MAVLink_local_position_ned_message(0, 9, 9, 9, 9, 9, -0.5))
    body = vehicle.body(0)
    assert body.down_mps == -0.5
    assert body == Body(*(pytest.approx(v) for v in (0.1, 0.2, 1.0)), body.rates_radps, -0.5)
    assert body.rates_radps == pytest.approx((0.01, 0.02, 0.03))
    assert vehicle.body(0.6) is None  # an attitude half a second old is another one


@pytest.mark.parametrize(
    "bad",
    [
        hud(alt=math.nan), hud(climb=math.inf), hud(alt=1e9), altitude(math.nan), altitude(-1e9),
        attitude(yaw=math.nan), m.MAVLink_gps_global_origin_message(910000000, 0, 0),
        m.MAVLink_gps_global_origin_message(0, 0, 488_000),
        m.MAVLink_local_position_ned_message(0, 0, 0, 0, 0, 0, math.nan),
    ],
    ids=str,
)  # fmt: skip
def test_numbers_that_cannot_be_are_counted_and_left_out(bad: Any) -> None:
    vehicle = Vehicle(1)
    hear(vehicle, bad)
    assert (vehicle.alt_m(0), vehicle.body(0), vehicle.origin) == (None, None, None)
    assert vehicle.counts == Counts(damaged=1)


def test_an_origin_is_heard_and_its_moves_are_counted() -> None:
    vehicle = Vehicle(1)
    made = m.MAVLink_gps_global_origin_message(473977000, -85456000, 488_250)
    hear(vehicle, made, made)
    assert vehicle.origin == Origin(47.3977, -8.5456, 488.25)
    assert vehicle.origin_moves == 0
    hear(vehicle, m.MAVLink_gps_global_origin_message(473978000, -85456000, 488_250))
    assert (vehicle.origin.lat, vehicle.origin_moves) == (47.3978, 1)


def test_timesync_requests_wait_for_an_answer_and_do_not_pile_up() -> None:
    vehicle = Vehicle(1)
    hear(vehicle, *(m.MAVLink_timesync_message(0, i) for i in range(1, 30)))
    hear(vehicle, m.MAVLink_timesync_message(5, 99))  # an answer to somebody else
    assert vehicle.asked_ns == list(range(1, 9))


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
def test_the_vehicles_own_position_changes_nothing(lat: int, lon: int) -> None:
    poisoned, clean = Vehicle(1), Vehicle(1)
    hear(clean, BEAT, position(lat=0, lon=0), attitude(), hud())
    hear(
        poisoned, BEAT, position(lat=lat, lon=lon), attitude(), hud(),
        m.MAVLink_gps_raw_int_message(0, 3, lat, lon, 1, 2, 3, 4, 5, 6),
        m.MAVLink_gps2_raw_message(0, 3, lat, lon, 1, 2, 3, 4, 5, 6, 7, 8),
        m.MAVLink_home_position_message(lat, lon, 3, 1, 1, 1, [1, 0, 0, 0], 1, 1, 1),
        m.MAVLink_hil_state_quaternion_message(
            0, [1, 0, 0, 0], 0, 0, 0, lat, lon, 1, 0, 0, 0, 0, 0, 0, 0, 0
        ),
        m.MAVLink_terrain_report_message(lat, lon, 100, 1, 2, 3, 4),
    )  # fmt: skip
    assert vars(poisoned) == vars(clean)
