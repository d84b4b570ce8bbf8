import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.camera import Attitude
from s4g.core.errors import InputError
from s4g.runtime.exif import attitude_from_gimbal, hfov_from_35mm_deg
from s4g.runtime.fix import Reason
from s4g.runtime.frames import Frame
from s4g.runtime.telemetry_rotation import quaternions
from s4g.runtime.telemetry_sample import Sample
from s4g.runtime.telemetry_vehicle import (
    LogTelemetry,
    Mount,
    Tracks,
    gimbal_counts_from_nose,
    sample_at,
)

YAW, PITCH, ROLL = st.floats(-180, 180), st.floats(-80, 80), st.floats(-80, 80)


def frame(t: float | None = 0.0) -> Frame:
    return Frame(0, t, None, "clip.mp4 frame 0", 64, 48, 0.0)


def tracks(**rows: tuple[float, ...]) -> Tracks:
    """Tracks of one row each, at 0 s; attitudes as yaw, pitch, roll in degrees."""
    made = Tracks()
    for name, row in rows.items():
        is_rotation = name in ("body", "gimbal_north", "gimbal_nose")
        getattr(made, name).append(0.0, *(quaternions([row])[0] if is_rotation else row))
    return made


def sample(known: Tracks, t: float = 0.0, mount: Mount | None = None) -> Sample:
    found = sample_at(known, t, frame(t), mount)
    assert isinstance(found, Sample)
    return found


def assert_same_view(attitude: Attitude, expected: Attitude) -> None:
    np.testing.assert_allclose(attitude.ned_from_camera, expected.ned_from_camera, atol=1e-9)


@given(YAW, PITCH, ROLL)
def test_without_a_mount_the_camera_looks_down_from_the_body(
    yaw: float, pitch: float, roll: float
) -> None:
    found = sample(tracks(body=(yaw, pitch, roll)))
    assert_same_view(found.attitude, Attitude(yaw, pitch, roll, 0.0))
    assert (found.yaw_known, found.tilt_known, found.agl_known) == (True, True, False)


@given(YAW, PITCH, ROLL, YAW, PITCH, ROLL)
def test_a_mount_is_a_turn_of_the_camera_in_the_body(
    yaw: float, pitch: float, roll: float, yaw2: float, pitch2: float, roll2: float
) -> None:
    body, camera = Attitude(yaw, pitch, roll, 0.0), Attitude(yaw2, pitch2, roll2, 0.0)
    axes = Attitude(0.0, 0.0, 0.0, 0.0).ned_from_camera
    expected = body.ned_from_camera @ axes.T @ camera.ned_from_camera
    found = sample(tracks(body=(yaw, pitch, roll)), mount=(yaw2, pitch2, roll2))
    np.testing.assert_allclose(found.attitude.ned_from_camera, expected, atol=1e-9)


def test_a_camera_mounted_sideways_sees_the_bodys_pitch_as_its_roll() -> None:
    """Angles added up would leave the pitch a pitch."""
    attitude = sample(tracks(body=(0, 10, 0)), mount=(90, 0, 0)).attitude
    assert attitude.yaw_deg == pytest.approx(90)
    assert attitude.pitch_deg == pytest.approx(0, abs=1e-9)
    assert attitude.roll_deg == pytest.approx(10)


@given(YAW, st.floats(-120, -60), st.floats(-30, 30))
def test_a_gimbal_that_knows_north_is_used_instead_of_the_body(
    yaw: float, pitch: float, roll: float
) -> None:
    found = sample(tracks(body=(70, 20, -15), gimbal_north=(yaw, pitch, roll)))
    assert_same_view(found.attitude, attitude_from_gimbal(yaw, pitch, roll, 0.0))
    assert found.yaw_known


@given(YAW, st.floats(-60, 60), YAW, st.floats(-120, -60))
def test_a_gimbal_that_counts_from_the_nose_is_turned_by_the_heading_alone(
    heading: float, climb: float, yaw: float, pitch: float
) -> None:
    found = sample(tracks(body=(heading, climb, 12.0), gimbal_nose=(yaw, pitch, 0.0)))
    assert_same_view(found.attitude, attitude_from_gimbal(heading + yaw, pitch, 0.0, 0.0))


def test_a_gimbal_that_counts_from_the_nose_of_an_unknown_body_has_no_heading() -> None:
    found = sample(tracks(gimbal_nose=(35, -80, 0)))
    assert (found.yaw_known, found.tilt_known) == (False, True)
    assert found.attitude.yaw_deg == 0.0
    assert found.attitude.pitch_deg == pytest.approx(10)


def test_a_camera_said_to_be_fixed_does_not_follow_the_gimbal() -> None:
    known = tracks(body=(70, 5, 0), gimbal_north=(10, -45, 0))
    attitude = sample(known, mount=(0, 0, 0)).attitude
    assert (attitude.yaw_deg, attitude.pitch_deg) == (pytest.approx(70), pytest.approx(5))


def test_a_gimbal_gone_silent_is_not_replaced_by_the_body() -> None:
    known = tracks(gimbal_north=(10, -45, 0), relative_m=(80.0,))
    known.body.append(5.0, *quaternions([[70, 5, 0]])[0])
    known.relative_m.append(5.0, 80.0)
    found = sample(known, t=5.0)
    assert (found.yaw_known, found.tilt_known, found.agl_known) == (False, False, True)
    assert found.attitude == Attitude(0.0, 0.0, 0.0, 80.0)


def test_of_two_gimbal_frames_the_newer_counts() -> None:
    known = tracks(body=(90, 0, 0), gimbal_north=(10, -90, 0))
    known.gimbal_nose.append(0.5, *quaternions([[20, -90, 0]])[0])
    assert sample(known, t=0.1).attitude.yaw_deg == pytest.approx(10)
    assert sample(known, t=0.4).attitude.yaw_deg == pytest.approx(110)


@pytest.mark.parametrize(
    ("rows", "agl_m"),
    [
        ({"range_m": (50.0,), "terrain_m": (60.0,), "relative_m": (70.0,)}, 50.0),
        ({"terrain_m": (60.0,), "relative_m": (70.0,)}, 60.0),
        ({"relative_m": (70.0,)}, 70.0),
        ({"body": (0.0, 0.0, 60.0), "range_m": (50.0,)}, 25.0),
        ({"body": (0.0, 0.0, 120.0), "range_m": (50.0,), "relative_m": (70.0,)}, 70.0),
    ],
)
def test_the_height_is_the_one_nearest_to_the_ground_in_view(
    rows: dict[str, tuple[float, ...]], agl_m: float
) -> None:
    found = sample(tracks(**rows))
    assert found.agl_known
    assert found.attitude.agl_m == pytest.approx(agl_m)


def test_a_rangefinder_gone_silent_leaves_the_next_height() -> None:
    known = tracks(range_m=(50.0,))
    known.relative_m.append(3.0, 70.0)
    assert sample(known, t=3.0).attitude.agl_m == 70.0


def test_speeds_and_lens_come_along() -> None:
    found = sample(tracks(body=(0, 0, 0), velocity_mps=(5.0, -3.0), focal_35mm=(24.0,)))
    assert (found.vel_n_mps, found.vel_e_mps) == (5.0, -3.0)
    assert found.hfov_deg == hfov_from_35mm_deg(24.0, 64, 48)


def test_neither_attitude_nor_height_is_no_telemetry() -> None:
    known = tracks(body=(0, 0, 0))
    known.velocity_mps.append(9.0, 1.0, 1.0)
    assert sample_at(known, 9.0, frame(), None) is Reason.NO_TELEMETRY


def test_the_age_is_the_attitudes() -> None:
    known = tracks(body=(0, 0, 0))
    known.relative_m.append(0.4, 70.0)
    assert sample(known, t=0.4).age_s == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("flags", "from_nose"), [(0, True), (16, False), (32, True), (32 + 16, True), (64, False)]
)
def test_gimbal_flags_say_where_yaw_counts_from(flags: int, from_nose: bool) -> None:
    assert gimbal_counts_from_nose(flags) is from_nose


def test_a_log_is_looked_up_on_its_own_clock() -> None:
    known = tracks(body=(0, 0, 0), relative_m=(70.0,))
    known.relative_m.append(1.0, 80.0)
    found = LogTelemetry("a.bin", known, offset_s=100.0).at(frame(100.5))
    assert isinstance(found, Sample)
    assert (found.attitude.agl_m, found.t) == (pytest.approx(75.0), 100.5)


def test_a_log_that_covers_no_frame_names_both_clocks() -> None:
    known = tracks(body=(0, 0, 0))
    known.relative_m.append(20.0, 80.0)
    telemetry = LogTelemetry("a.bin", known, offset_s=100.0)
    for t in (3.0, 7.5):
        assert telemetry.at(frame(t)) is Reason.NO_TELEMETRY
    assert telemetry.complaint() == (
        "a.bin: covers no frame: its rows run from 100.000 to 120.000 s, the frames from 3.000 to "
        "7.500 s; check that both use one clock, or pass --telemetry-offset"
    )
    telemetry.at(frame(100.0))
    assert telemetry.complaint() is None


def test_a_log_cannot_be_looked_up_for_photos() -> None:
    photo = Frame(0, None, "a.jpg", "photos/a.jpg", 64, 48, 0.0)
    with pytest.raises(InputError) as error:
        LogTelemetry("a.bin", tracks(body=(0, 0, 0))).at(photo)
    assert str(error.value) == (
        "a.bin: a log goes by time, and photos/a.jpg has none; give a CSV with a 'file' column"
    )


def test_a_log_that_tells_neither_attitude_nor_height_is_refused() -> None:
    with pytest.raises(InputError) as error:
        LogTelemetry("a.bin", tracks(velocity_mps=(1.0, 1.0)))
    assert str(error.value) == (
        "a.bin: tells neither attitude nor height; log them (docs/telemetry.md) or give a CSV"
    )


def test_limited_tracks_stay_limited() -> None:
    known = Tracks.limited(512)
    for i in range(2000):
        known.body.append(i / 50, 1, 0, 0, 0)
        known.range_m.append(i / 50, 1)
        known.velocity_mps.append(i / 50, 1, 1)
    assert max(len(known.body), len(known.range_m), len(known.velocity_mps)) <= 512
    known.clear()
    assert known.range_s is None and len(known.velocity_mps) == 0
