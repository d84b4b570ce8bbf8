import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from s4g.core.camera import Attitude
from s4g.runtime.telemetry_rotation import attitude_of, between, matrix_of, quaternions, rotation

YAW = st.floats(-360, 720)
PITCH = st.floats(-89, 89)
ROLL = st.floats(-179, 179)


@given(YAW, PITCH, ROLL)
def test_a_rotation_is_the_one_that_an_attitude_means(
    yaw: float, pitch: float, roll: float
) -> None:
    camera_axes = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    expected = Attitude(yaw, pitch, roll, 1.0).ned_from_camera
    np.testing.assert_allclose(rotation(yaw, pitch, roll) @ camera_axes, expected, atol=1e-12)


@given(YAW, PITCH, ROLL)
def test_angles_come_back_from_their_rotation(yaw: float, pitch: float, roll: float) -> None:
    attitude = attitude_of(rotation(yaw, pitch, roll), 70.0)
    assert 0 <= attitude.yaw_deg <= 360
    assert (attitude.yaw_deg - yaw + 180) % 360 - 180 == pytest.approx(0, abs=1e-6)
    assert attitude.pitch_deg == pytest.approx(pitch, abs=1e-6)
    assert attitude.roll_deg == pytest.approx(roll, abs=1e-6)
    assert attitude.agl_m == 70.0


@given(YAW, PITCH, ROLL, st.floats(0.5, 2))
def test_a_quaternion_of_any_length_is_the_rotation_of_its_angles(
    yaw: float, pitch: float, roll: float, length: float
) -> None:
    quaternion = quaternions([[yaw, pitch, roll]])[0]
    np.testing.assert_allclose(
        matrix_of(quaternion * length), rotation(yaw, pitch, roll), atol=1e-12
    )


@given(YAW, st.floats(-179, 179), st.floats(0, 1), st.booleans())
def test_between_two_headings_lies_their_share_the_short_way(
    yaw: float, turn: float, share: float, negated: bool
) -> None:
    first, second = quaternions([[yaw, 0, 0], [yaw + turn, 0, 0]])
    middle = between(first, -second if negated else second, share)
    np.testing.assert_allclose(matrix_of(middle), rotation(yaw + share * turn, 0, 0), atol=1e-6)


@given(YAW, PITCH, ROLL, YAW, PITCH, ROLL, st.floats(0, 1))
def test_what_lies_between_turns_at_an_even_pace(
    yaw: float, pitch: float, roll: float, yaw2: float, pitch2: float, roll2: float, share: float
) -> None:
    first, second = quaternions([[yaw, pitch, roll], [yaw2, pitch2, roll2]])
    whole = angle_deg(matrix_of(first), matrix_of(second))
    assume(whole < 179)  # half a turn may go either way
    middle = matrix_of(between(first, second, share))
    assert angle_deg(matrix_of(first), middle) == pytest.approx(share * whole, abs=1e-3)
    assert angle_deg(middle, matrix_of(second)) == pytest.approx((1 - share) * whole, abs=1e-3)


def angle_deg(first: np.ndarray, second: np.ndarray) -> float:
    turn = first.T @ second
    sine = np.linalg.norm(
        [turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]
    )
    return float(np.degrees(np.arctan2(sine / 2, (np.trace(turn) - 1) / 2)))
