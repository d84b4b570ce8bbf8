"""Every message packed and read back by pymavlink, so that units and ranges are the wire's own."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.runtime import mavlink_messages as messages
from s4g.runtime.fix import Fix, Reason, State
from s4g.runtime.mavlink_messages import Body, Place, gps_time, place_of

m = pytest.importorskip("pymavlink.dialects.v20.common", reason="needs pymavlink (s4g[telemetry])")

FIX = Fix(
    frame=3, t=100.25, state=State.TRACK, lat=47.3977419, lon=-8.5455938, sigma_m=6.5, hpl_m=24.2,
    ve_mps=-3.25, vn_mps=11.5, agl_m=120.0, source="visual", anchor_age_s=0.0,
)  # fmt: skip
PLACE = Place(47.3977419, -8.5455938, 6.5, 100.25, 1_785_000_000.125, 11.5, -3.25, 0.75)
BODY = Body(0.1, -0.2, math.pi / 2, (0.01, 0.02, 0.03), 1.5)


def over_the_wire(message: Any) -> Any:
    packed = bytearray(message.pack(m.MAVLink(None, 1, 197)))
    return m.MAVLink(None).decode(packed)


def test_gps_input_has_the_units_of_its_fields() -> None:
    got = over_the_wire(messages.gps_input(m, PLACE, 612.5, 1, None, 0))
    assert (got.get_msgId(), got.gps_id, got.fix_type) == (232, 1, 3)
    assert (got.lat, got.lon, got.alt) == (473977419, -85455938, 612.5)
    assert (got.vn, got.ve, got.vd) == (11.5, -3.25, 0.0)
    assert (got.horiz_accuracy, got.speed_accuracy) == (6.5, 0.75)
    assert got.time_usec == 100_250_000
    assert got.yaw == 0  # absent; north would be 36000


def test_gps_input_flags_what_is_not_known_and_never_the_altitude() -> None:
    got = over_the_wire(messages.gps_input(m, PLACE, 612.5, 0, None, 0))
    assert got.ignore_flags == 2 + 4 + 16 + 128  # HDOP, VDOP, VEL_VERT, VERT_ACC
    assert (got.hdop, got.vdop, got.satellites_visible) == (65535, 65535, 0)


def test_gps_input_without_a_speed_flags_speed_and_its_accuracy() -> None:
    place = replace(PLACE, vn_mps=None, ve_mps=None)
    got = over_the_wire(messages.gps_input(m, place, 0.0, 0, None, 0))
    assert got.ignore_flags == 2 + 4 + 8 + 16 + 32 + 128
    place = replace(PLACE, speed_sigma_mps=None)
    got = over_the_wire(messages.gps_input(m, place, 0.0, 0, None, 0))
    assert got.ignore_flags == 2 + 4 + 16 + 32 + 128


def test_gps_input_makes_up_a_dilution_and_satellites_only_if_asked_to() -> None:
    got = over_the_wire(messages.gps_input(m, PLACE, 612.5, 0, 1.0, 10))
    assert got.ignore_flags == 4 + 16 + 128
    assert (got.hdop, got.satellites_visible) == (1.0, 10)


@pytest.mark.parametrize(
    ("utc_s", "week", "week_ms"),
    [
        (0.0, 0, 0),  # a machine whose clock was never set: week 0 is none
        (315_964_800 - 18 + 7 * 86400 + 0.001, 1, 1),
        (4e10, 0, 0),  # more weeks than fit
        # 2026-07-25 17:20:00 UTC, a Saturday: 6 d, 17 h, 20 min and 18 s after Sunday's midnight.
        # Week 2048 began on 2019-04-07, 380 weeks before that Sunday.
        (1_785_000_000.125, 2428, 580_818_125),
        (1_784_419_182.0, 2428, 0),
        (1_784_419_181.999, 2427, 604_799_999),
    ],
)
def test_gps_time_is_utc_and_the_leap_seconds_split_into_weeks(
    utc_s: float, week: int, week_ms: int
) -> None:
    assert gps_time(utc_s) == (week, week_ms)


def test_gps_input_has_no_gps_time_where_nobody_knows_utc() -> None:
    got = over_the_wire(messages.gps_input(m, replace(PLACE, utc_s=None), 1.0, 0, None, 0))
    assert (got.time_week, got.time_week_ms) == (0, 0)


def test_global_position_sensor_is_stamped_when_sent_and_tells_how_long_it_took() -> None:
    got = over_the_wire(messages.global_position_sensor(m, PLACE, 612.5, 100.75, 7, 42))
    assert (got.get_msgId(), got.id, got.source, got.flags) == (296, 7, 2, 0)
    assert (got.target_system, got.target_component) == (42, 1)
    assert (got.time_usec, got.processing_time) == (100_750_000, 500_000)
    assert (got.lat, got.lon, got.alt, got.eph) == (473977419, -85455938, 612.5, 6.5)
    assert math.isnan(got.alt_ellipsoid)
    assert math.isnan(got.epv)


def test_global_position_sensor_may_leave_the_altitude_out() -> None:
    got = over_the_wire(messages.global_position_sensor(m, PLACE, None, 100.25, 1, 1))
    assert math.isnan(got.alt)
    assert got.processing_time == 0


def test_an_external_position_estimate_is_a_command_with_degrees_as_integers() -> None:
    place = replace(PLACE, t=1000.0)
    got = over_the_wire(messages.external_position_estimate(m, place, 1000.5, 42))
    assert (got.get_type(), got.command, got.frame) == ("COMMAND_INT", 43003, 0)
    assert (got.target_system, got.target_component) == (42, 1)
    assert (got.param1, got.param2, got.param3) == (0.5, 0.5, 6.5)  # 1000.5 s wrapped at 250 s
    assert (got.x, got.y) == (473977419, -85455938)
    assert math.isnan(got.z)


def test_odometry_is_north_east_down_and_speed_along_the_body() -> None:
    got = over_the_wire(messages.odometry(m, PLACE, (250.0, -80.0, -60.0), BODY, 300))
    assert (got.frame_id, got.child_frame_id) == (20, 12)  # LOCAL_FRD, BODY_FRD
    assert (got.x, got.y, got.z) == (250.0, -80.0, -60.0)
    assert (got.reset_counter, got.estimator_type, got.quality) == (44, 2, 0)
    assert got.time_usec == 100_250_000
    assert (got.rollspeed, got.pitchspeed, got.yawspeed) == pytest.approx((0.01, 0.02, 0.03))


def test_odometry_of_a_level_vehicle_that_looks_east() -> None:
    body = replace(BODY, roll_rad=0.0, pitch_rad=0.0)
    got = over_the_wire(messages.odometry(m, PLACE, (0.0, 0.0, 0.0), body, 0))
    assert got.q == pytest.approx([math.sqrt(0.5), 0, 0, math.sqrt(0.5)])
    # 11.5 m/s north are to its left, 3.25 m/s west behind it, 1.5 m/s down is down.
    assert (got.vx, got.vy, got.vz) == pytest.approx((-3.25, -11.5, 1.5))


@given(st.floats(-3.1, 3.1), st.floats(-1.5, 1.5), st.floats(-3.1, 3.1))
def test_odometrys_quaternion_turns_its_speed_back_to_the_earths(
    roll: float, pitch: float, yaw: float
) -> None:
    got = messages.odometry(m, PLACE, (0.0, 0.0, 0.0), Body(roll, pitch, yaw, (0, 0, 0), 1.5), 0)
    w, v = got.q[0], np.array(got.q[1:])
    speed = np.array([got.vx, got.vy, got.vz])
    turned = speed + 2 * np.cross(v, np.cross(v, speed) + w * speed)
    assert turned == pytest.approx([11.5, -3.25, 1.5], abs=1e-9)


def test_odometrys_covariance_has_variances_at_0_6_11_15_18_20() -> None:
    got = over_the_wire(messages.odometry(m, PLACE, (0.0, 0.0, 0.0), BODY, 0))
    filled = {i: v for i, v in enumerate(got.pose_covariance) if v}
    assert filled == pytest.approx({0: 42.25, 6: 42.25, 11: 25, 15: 0.04, 18: 0.04, 20: 0.04})
    assert got.velocity_covariance[0] == pytest.approx(0.5625)
    assert got.velocity_covariance[6] == pytest.approx(0.5625)


def test_odometry_without_a_speed_says_so() -> None:
    place = replace(PLACE, vn_mps=None, ve_mps=None)
    got = over_the_wire(messages.odometry(m, place, (0.0, 0.0, 0.0), BODY, 0))
    assert all(map(math.isnan, (got.vx, got.vy, got.vz, got.velocity_covariance[0])))


def test_a_ground_station_gets_a_position_and_its_uncertainty() -> None:
    got = over_the_wire(messages.global_position_int(m, PLACE, 612.5, 120.25))
    assert (got.lat, got.lon, got.alt, got.relative_alt) == (473977419, -85455938, 612500, 120250)
    assert (got.vx, got.vy, got.vz, got.hdg) == (1150, -325, 0, 65535)
    assert got.time_boot_ms == 100_250
    raw = over_the_wire(messages.gps_raw_int(m, PLACE, 612.5))
    assert (raw.fix_type, raw.h_acc, raw.vel_acc, raw.alt) == (3, 6500, 750, 612500)
    assert (raw.eph, raw.epv, raw.satellites_visible) == (65535, 65535, 255)
    assert (raw.vel, raw.cog) == (1195, 34422)  # 11.95 m/s, a little west of north


@pytest.mark.parametrize(
    "change",
    [
        {"state": State.NO_FIX, "reason": Reason.AMBIGUOUS, "lat": None, "lon": None},
        {"state": State.NO_FIX},  # were a position left in it by mistake
        {"state": State.OUT_OF_PACK},
        {"state": State.ACQUIRING},
        {"state": State.INIT},
        {"lat": None},
        {"sigma_m": None},
        {"lat": math.nan},
        {"sigma_m": math.inf},
        {"t": None},
    ],
    ids=str,
)
def test_there_is_no_place_without_a_fix(change: dict[str, Any]) -> None:
    assert place_of(FIX, None) == Place(47.3977419, -8.5455938, 6.5, 100.25, None, 11.5, -3.25)
    assert place_of(replace(FIX, **change), None) is None


@given(
    st.floats(-90, 90), st.floats(-180, 180), st.floats(0, 1e9), st.floats(0, 4e9),
    st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(-1e7, 1e7),
)  # fmt: skip
def test_whatever_a_fix_holds_can_be_packed(
    lat: float, lon: float, sigma_m: float, t: float, vn: float, ve: float, alt_m: float
) -> None:
    place = Place(lat, lon, sigma_m, t, t, vn, ve, sigma_m)
    made = [
        messages.gps_input(m, place, alt_m, 0, None, 0),
        messages.global_position_sensor(m, place, alt_m, t, 1, 1),
        messages.external_position_estimate(m, place, t, 1),
        messages.odometry(m, place, (vn, ve, alt_m), BODY, 5),
        messages.global_position_int(m, place, alt_m, alt_m),
        messages.gps_raw_int(m, place, alt_m),
    ]
    for message in made:
        assert over_the_wire(message).get_type() == message.get_type()
