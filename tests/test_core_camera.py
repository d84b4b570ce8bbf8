"""The camera: attitude conventions, the homography to the ground, distortion, north-up patches."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from s4g.core.camera import (
    Attitude,
    Camera,
    apply_homography,
    distort,
    ground_from_pixel,
    look_point_m,
    pixel_from_ground,
)
from s4g.core.errors import InputError

CAMERA = Camera.from_hfov(641, 481, 60.0)
CENTER = [[320.0, 240.0]]
DOWN = Attitude(0, 0, 0, 100.0)
# k1, k2, p1, p2, k3 as a consumer drone's calibration has them.
DRONE_DISTORTION = (-0.28, 0.10, 0.0008, -0.0005, -0.02)

attitudes = st.builds(
    Attitude,
    yaw_deg=st.floats(-360, 360),
    pitch_deg=st.floats(-40, 40),
    roll_deg=st.floats(-40, 40),
    agl_m=st.floats(5, 3000),
).filter(lambda attitude: attitude.tilt_deg < 59)


def ground(attitude: Attitude, column: float, row: float) -> tuple[float, float]:
    east, north = apply_homography(ground_from_pixel(CAMERA, attitude), [[column, row]])[0]
    return float(east), float(north)


# ---- intrinsics ---------------------------------------------------------------------------------


def test_the_field_of_view_reaches_from_edge_to_edge() -> None:
    west, _ = ground(DOWN, -0.5, 240)
    east, _ = ground(DOWN, 640.5, 240)
    assert east - west == pytest.approx(2 * 100 * math.tan(math.radians(30)))
    assert CAMERA.hfov_deg == pytest.approx(60)


@pytest.mark.parametrize("hfov_deg", [0.0, -60.0, 171.0, math.nan])
def test_an_impossible_field_of_view_is_refused(hfov_deg: float) -> None:
    with pytest.raises(InputError) as caught:
        Camera.from_hfov(640, 480, hfov_deg)
    assert str(caught.value) == f"--hfov {hfov_deg:g}: expected degrees between 1 and 170"


def test_a_resized_camera_sees_the_same_ground_at_the_same_place_of_the_frame() -> None:
    half = Camera.from_hfov(640, 480, 60.0).resized(320, 240)
    assert half == Camera.from_hfov(320, 240, 60.0)


def test_a_reduced_camera_maps_blocks_of_pixels_to_their_middle() -> None:
    reduced = CAMERA.reduced(4)
    assert (reduced.width_px, reduced.height_px) == (161, 121)
    full = apply_homography(ground_from_pixel(CAMERA, DOWN), [[9.5, 21.5]])  # columns 8 to 11
    assert np.allclose(apply_homography(ground_from_pixel(reduced, DOWN), [[2, 5]]), full)


def test_a_crop_is_not_taken_for_a_resize() -> None:
    with pytest.raises(InputError) as caught:
        Camera.from_hfov(640, 480, 60.0).resized(640, 360)
    assert str(caught.value) == (
        "frame of 640x360 px, camera calibrated at 640x480: the aspect ratio differs; "
        "calibrate at the frame's own size"
    )


# ---- attitude, worked out by hand ---------------------------------------------------------------


def test_looking_straight_down_the_top_of_the_image_is_north_and_the_right_is_east() -> None:
    metres_per_pixel = 100 / CAMERA.fx_px
    assert ground(DOWN, 320, 240) == pytest.approx((0, 0))
    assert ground(DOWN, 320, 140) == pytest.approx((0, 100 * metres_per_pixel))
    assert ground(DOWN, 420, 240) == pytest.approx((100 * metres_per_pixel, 0))


def test_yaw_turns_the_top_of_the_image_clockwise_to_the_east() -> None:
    east, north = ground(Attitude(90, 0, 0, 100), 320, 140)
    assert east > 10 and north == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("attitude", "expected"),
    [
        (Attitude(0, 10, 0, 100), (0, 100 * math.tan(math.radians(10)))),  # nose up: forward
        (Attitude(0, -10, 0, 100), (0, -100 * math.tan(math.radians(10)))),
        (Attitude(0, 0, 10, 100), (-100 * math.tan(math.radians(10)), 0)),  # right down: left
        (Attitude(90, 10, 0, 100), (100 * math.tan(math.radians(10)), 0)),
        (Attitude(90, 0, 10, 100), (0, 100 * math.tan(math.radians(10)))),
        (Attitude(180, 20, 0, 50), (0, -50 * math.tan(math.radians(20)))),
    ],
)
def test_a_tilted_camera_looks_where_trigonometry_says(
    attitude: Attitude, expected: tuple[float, float]
) -> None:
    assert look_point_m(CAMERA, attitude) == pytest.approx(expected, abs=1e-9)


@given(attitudes)
def test_attitude_is_a_rotation_and_tilt_the_angle_of_its_axis(attitude: Attitude) -> None:
    rotation = attitude.ned_from_camera
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    pitch, roll = math.radians(attitude.pitch_deg), math.radians(attitude.roll_deg)
    expected = math.degrees(math.acos(math.cos(pitch) * math.cos(roll)))
    assert attitude.tilt_deg == pytest.approx(expected, abs=1e-5)


# ---- homography ---------------------------------------------------------------------------------


@given(attitudes, st.floats(0, 640), st.floats(0, 480))
def test_a_pixel_comes_back_from_the_ground(attitude: Attitude, column: float, row: float) -> None:
    ray = attitude.ned_from_camera @ np.linalg.inv(CAMERA.matrix) @ [column, row, 1]
    assume(ray[2] > 0.02)  # below the horizon
    there = apply_homography(ground_from_pixel(CAMERA, attitude), [[column, row]])
    back = apply_homography(pixel_from_ground(CAMERA, attitude), there)
    assert np.allclose(back, [[column, row]], atol=1e-4)


@given(attitudes, st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))
def test_ground_projects_where_opencv_projects_it(
    attitude: Attitude, east_slope: float, north_slope: float
) -> None:
    east, north = look_point_m(CAMERA, attitude)
    east, north = east + east_slope * attitude.agl_m, north + north_slope * attitude.agl_m
    camera_from_ned = attitude.ned_from_camera.T
    point = np.array([[north, east, attitude.agl_m]])
    assume((camera_from_ned @ point[0])[2] > 0.05 * attitude.agl_m)
    rotation, _ = cv2.Rodrigues(camera_from_ned)
    expected, _ = cv2.projectPoints(point, rotation, np.zeros(3), CAMERA.matrix, np.zeros(4))
    seen = apply_homography(pixel_from_ground(CAMERA, attitude), [[east, north]])
    assert np.allclose(seen, expected.reshape(1, 2), atol=1e-3)


@pytest.mark.parametrize("agl_m", [0.0, -5.0, math.nan])
def test_a_height_that_is_not_positive_is_refused(agl_m: float) -> None:
    with pytest.raises(InputError) as caught:
        ground_from_pixel(CAMERA, Attitude(0, 0, 0, agl_m))
    assert str(caught.value) == f"agl_m {agl_m:g}: the height above ground must be positive"


def test_a_camera_that_looks_to_the_horizon_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        pixel_from_ground(CAMERA, Attitude(0, 75, 0, 100))
    assert str(caught.value) == (
        "camera tilt 75 deg: frames beyond 60 deg off straight down are not used"
    )


def test_a_homography_that_is_kept_cannot_be_changed() -> None:
    for homography in (ground_from_pixel, pixel_from_ground):
        with pytest.raises(ValueError, match="read-only"):
            homography(CAMERA, Attitude(0, 0, 0, 100))[0, 0] = 1.0


# ---- distortion ---------------------------------------------------------------------------------


@given(st.floats(0, 640), st.floats(0, 480))
def test_distortion_is_the_inverse_of_opencvs_undistortion(column: float, row: float) -> None:
    camera = Camera(641, 481, 560, 560, 318, 243, DRONE_DISTORTION)
    real = np.array([[[column, row]]], np.float64)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-10)
    ideal = cv2.undistortPoints(
        real, camera.matrix, np.array(DRONE_DISTORTION), P=camera.matrix, criteria=criteria
    )
    back = distort(camera, ideal.reshape(-1, 2).astype(np.float32))
    assert np.allclose(back, [[column, row]], atol=1e-3)


@pytest.mark.parametrize("terms", [4, 5, 8])
def test_distortion_is_opencvs_with_any_number_of_terms(terms: int) -> None:
    distortion = (-0.28, 0.10, 0.0008, -0.0005, -0.02, 0.01, -0.03, 0.002)[:terms]
    camera = Camera(641, 481, 560, 570, 318, 243, distortion)
    pixels = np.random.default_rng(terms).uniform([0, 0], [640, 480], (200, 2)).astype(np.float32)
    rays = np.column_stack([(pixels - [318, 243]) / [560, 570], np.ones(len(pixels))])
    zero = np.zeros(3)
    expected, _ = cv2.projectPoints(rays, zero, zero, camera.matrix, np.array(distortion))
    assert np.allclose(distort(camera, pixels), expected.reshape(-1, 2), atol=1e-3)


def test_without_distortion_pixels_stay_where_they_are() -> None:
    pixels = np.array([[-100.0, 7.5]], np.float32)
    assert np.array_equal(distort(CAMERA, pixels), pixels)


@pytest.mark.parametrize("distortion", [(-0.3, 0.0, 0.0, 0.0), DRONE_DISTORTION])
def test_rays_beyond_the_reach_of_the_polynomial_stay_out_of_the_frame(
    distortion: tuple[float, ...],
) -> None:
    camera = Camera(641, 481, 400, 400, 320, 240, distortion)
    slopes = np.linspace(0, 10, 400)
    pixels = np.stack([320 + 400 * slopes, np.full(400, 240.0)], axis=1).astype(np.float32)
    columns = distort(camera, pixels)[:, 0]
    left = np.flatnonzero(columns > 640.5)
    beyond = columns[left[0] :] if left.size else columns[columns.argmax() + 1 :]
    assert beyond.size > 100
    assert ((beyond > 640.5) | (beyond < -1000)).all()
