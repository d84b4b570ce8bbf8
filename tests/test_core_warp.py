"""North-up patches: the warp as numbers, and OpenCV's way of drawing it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.camera import (
    Attitude,
    Camera,
    apply_homography,
    ground_from_pixel,
    look_point_m,
    patch_coverage,
)
from s4g.core.errors import InputError
from s4g.core.warp import (
    FrameWarp,
    cut_all_with_opencv,
    cut_with_opencv,
    north_up_patch,
    north_up_warp,
)

CAMERA = Camera.from_hfov(641, 481, 60.0)
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


def painted_ground(
    east: npt.NDArray[np.float64], north: npt.NDArray[np.float64]
) -> npt.NDArray[np.uint8]:
    """A smooth, unmistakable plane: no two places within 150 m look alike."""
    return np.stack(
        [
            127 + 100 * np.sin(east / 25 + 0.4),
            127 + 100 * np.sin(north / 20),
            127 + 60 * np.sin((east + 2 * north) / 35) + 40 * np.cos(east / 60),
        ],
        axis=-1,
    ).astype(np.uint8)


def photograph(camera: Camera, attitude: Attitude) -> npt.NDArray[np.uint8]:
    """The frame that the camera takes of the painted ground, worked out pixel by pixel."""
    columns, rows = np.meshgrid(np.arange(camera.width_px), np.arange(camera.height_px))
    pixels = np.stack([columns, rows], axis=-1).reshape(-1, 1, 2).astype(np.float64)
    if camera.distortion:
        pixels = cv2.undistortPoints(
            pixels, camera.matrix, np.array(camera.distortion), P=camera.matrix
        )
    rays = np.column_stack([pixels.reshape(-1, 2), np.ones(len(pixels))])
    ned = rays @ (attitude.ned_from_camera @ np.linalg.inv(camera.matrix)).T
    below = ned[:, 2] > 1e-3
    scale = np.where(below, attitude.agl_m / np.where(below, ned[:, 2], 1), 0)
    image = painted_ground(ned[:, 1] * scale, ned[:, 0] * scale)
    image[~below] = 255  # sky
    return image.reshape(camera.height_px, camera.width_px, 3)


def expected_patch(
    center_m: tuple[float, float], footprint_m: float, size_px: int
) -> npt.NDArray[np.uint8]:
    offset = ((np.arange(size_px) + 0.5) / size_px - 0.5) * footprint_m
    east, north = np.meshgrid(center_m[0] + offset, center_m[1] - offset)
    return painted_ground(east, north)


@pytest.mark.parametrize("distortion", [(), DRONE_DISTORTION])
@pytest.mark.parametrize(
    "attitude",
    [
        Attitude(0, 0, 0, 100),
        Attitude(137, 0, 0, 100),
        Attitude(-70, 12, -8, 90),
        Attitude(250, -25, 10, 110),
    ],
)
@pytest.mark.parametrize("footprint_m", [30.0, 60.0])
def test_a_patch_shows_the_ground_as_if_sampled_directly(
    attitude: Attitude, distortion: tuple[float, ...], footprint_m: float
) -> None:
    camera = Camera(640, 480, 520, 520, 320, 236, distortion)
    center_m = look_point_m(camera, attitude)
    frame = photograph(camera, attitude)
    patch, coverage = north_up_patch(frame, camera, attitude, center_m, footprint_m, 64)
    assert coverage == 1.0
    difference = np.abs(patch.astype(int) - expected_patch(center_m, footprint_m, 64))
    assert difference.mean() < 1.0
    assert difference.max() <= 6


def test_a_patch_away_from_the_middle_shows_the_ground_there() -> None:
    patch, coverage = north_up_patch(
        photograph(CAMERA, DOWN), CAMERA, DOWN, (18.0, -12.0), 30.0, 48
    )
    assert coverage == 1.0
    difference = np.abs(patch.astype(int) - expected_patch((18.0, -12.0), 30.0, 48))
    assert difference.max() <= 6


def test_a_fine_pattern_is_averaged_and_not_aliased() -> None:
    checkers = (np.indices((480, 640)).sum(axis=0) % 2 * 255).astype(np.uint8)
    camera = Camera.from_hfov(640, 480, 60.0)
    patch, _ = north_up_patch(np.dstack([checkers] * 3), camera, DOWN, (0, 0), 80.0, 40)
    assert np.abs(patch.astype(int) - 127).max() <= 4


def test_half_a_patch_outside_the_frame_is_black_and_counts_as_half() -> None:
    frame = np.full((481, 641, 3), 200, np.uint8)
    edge_m = float(apply_homography(ground_from_pixel(CAMERA, DOWN), [[640, 240]])[0, 0])
    patch, coverage = north_up_patch(frame, CAMERA, DOWN, (edge_m, 0), 40.0, 64)
    assert coverage == pytest.approx(0.5, abs=1 / 32)
    assert (patch[:, :31] == 200).all()
    assert (patch[:, 33:] == 0).all()


def test_coverage_alone_is_the_patchs_own() -> None:
    attitude = Attitude(30, 20, -10, 100)
    _, coverage = north_up_patch(photograph(CAMERA, attitude), CAMERA, attitude, (20, 30), 90.0, 64)
    assert patch_coverage(CAMERA, attitude, (20, 30), 90.0) == coverage
    assert 0 < coverage < 1


@pytest.mark.parametrize("distortion", [(), (-0.05, 0.01, 0.0, 0.0)])
def test_ground_behind_a_tilted_camera_is_outside_and_not_mirrored(
    distortion: tuple[float, ...],
) -> None:
    wide = Camera(641, 641, 180, 180, 320, 320, distortion)  # 121 degrees: the sky is in view
    attitude = Attitude(0, 55, 0, 50)
    frame = np.full((641, 641, 3), 200, np.uint8)
    patch, coverage = north_up_patch(frame, wide, attitude, (0, -800), 100.0, 32)
    assert coverage == 0.0
    assert (patch == 0).all()


def test_a_frame_of_another_size_than_the_camera_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        north_up_patch(np.zeros((480, 640, 3), np.uint8), CAMERA, DOWN, (0, 0), 40.0, 64)
    assert str(caught.value) == "frame of 640x480 px, camera of 641x481 px; use Camera.resized"


@given(
    attitudes,
    st.floats(-5000, 5000),
    st.floats(-5000, 5000),
    st.floats(1, 50_000),
    st.integers(16, 48),
)
def test_any_square_gives_a_patch_and_a_share(
    attitude: Attitude, east: float, north: float, footprint_m: float, size_px: int
) -> None:
    frame = np.full((481, 641, 3), 200, np.uint8)
    patch, coverage = north_up_patch(frame, CAMERA, attitude, (east, north), footprint_m, size_px)
    assert patch.shape == (size_px, size_px, 3)
    assert 0 <= coverage <= 1


def test_a_warp_is_the_numbers_of_the_patch() -> None:
    """From 100 m a pixel of this camera shows 0.1 m; the patch wants 0.3 m: shrunk by 3."""
    camera = Camera(640, 480, 1000, 1000, 319.5, 239.5)
    warp = north_up_warp(camera, DOWN, (0.0, 0.0), 19.2, 64)
    assert (warp.camera, warp.shrink, warp.size_px) == (camera, 3, 64)
    seen = apply_homography(warp.frame_from_patch, [[31.5, 31.5], [32.5, 31.5], [31.5, 32.5]])
    assert np.allclose(seen, [[319.5, 239.5], [322.5, 239.5], [319.5, 242.5]])


def test_a_frame_is_shrunk_by_whole_blocks_and_the_rest_dropped() -> None:
    """Patch pixel (i, j) shows the mean of the 2 x 2 block; the fifth row and column vanish."""
    frame = np.arange(5 * 5 * 3, dtype=np.uint8).reshape(5, 5, 3)
    double = np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]])
    patch = cut_with_opencv(frame, FrameWarp(Camera(5, 5, 5, 5, 2, 2), double, 2, 3))
    blocks = frame[:4, :4].reshape(2, 2, 2, 2, 3).mean(axis=(1, 3))
    assert np.array_equal(patch[:2, :2], (blocks + 0.5).astype(np.uint8))
    assert not patch[2].any() and not patch[:, 2].any()


def test_patches_cut_together_are_those_cut_alone_whatever_their_scales() -> None:
    frame = photograph(CAMERA, DOWN)
    warps = [north_up_warp(CAMERA, DOWN, (3.0, -5.0), side_m, 32) for side_m in (5, 20, 40, 20)]
    assert {warp.shrink for warp in warps} == {1, 3, 6}
    patches = np.full((5, 32, 32, 3), 7, np.uint8)
    cut_all_with_opencv(frame, warps, patches)
    assert np.array_equal(patches[:4], [cut_with_opencv(frame, warp) for warp in warps])
    assert (patches[4] == 7).all()
