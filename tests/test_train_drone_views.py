"""Batches of camera views obey the one-camera mathematics of core."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.camera import Attitude, Camera, ground_from_patch, ground_from_pixel, look_point_m
from s4g.train.drone_views import (
    _ground_from_pixel,
    _look_points,
    local_from_drone,
    local_from_tile,
    pixel_from_local,
)
from s4g.train.recipe import ViewConfig

EXACT = ViewConfig(
    center_offset=0.0, yaw_error_deg=0.0, tilt_deg=0.0, tilt_error_deg=0.0, height_error=0.0
)


@given(
    yaw=st.floats(0, 360),
    pitch=st.floats(-25, 25),
    roll=st.floats(-25, 25),
    agl_m=st.floats(5, 500),
    hfov_deg=st.floats(30, 100),
)
def test_a_batch_of_cameras_sees_ground_as_one_camera_does(
    yaw: float, pitch: float, roll: float, agl_m: float, hfov_deg: float
) -> None:
    camera = Camera.from_hfov(640, 480, hfov_deg)
    attitude = Attitude(yaw, pitch, roll, agl_m)
    middle = (camera.cx_px, camera.cy_px)
    batch = _ground_from_pixel(
        np.array([camera.fx_px]),
        middle,
        np.array([yaw]),
        np.array([[pitch], [roll]]),
        np.array([agl_m]),
    )
    assert np.allclose(batch[0], ground_from_pixel(camera, attitude), atol=1e-12)
    assert np.allclose(_look_points(batch, middle)[0], look_point_m(camera, attitude))


def test_tiles_are_north_up_and_to_scale() -> None:
    maps = local_from_tile([30.0, 60.0], 64)
    for footprint, tile in zip((30.0, 60.0), maps, strict=True):
        assert np.allclose(tile, ground_from_patch(0.0, 0.0, footprint, 64))


def test_without_errors_the_drone_sees_the_tile() -> None:
    maps, shares = local_from_drone([40.0] * 3, 32, EXACT, np.random.default_rng(0))
    maps /= maps[:, 2:, 2:]
    assert np.allclose(maps, local_from_tile([40.0] * 3, 32))
    assert np.array_equal(shares, np.zeros((3, 2)))


def test_the_patch_lies_off_the_place_by_the_share_that_is_told() -> None:
    views = dataclasses.replace(EXACT, center_offset=0.3, tilt_deg=8.0, height_error=0.1)
    maps, shares = local_from_drone([50.0] * 40, 65, views, np.random.default_rng(3))
    middle = maps @ np.array([32.0, 32.0, 1.0])
    assert np.allclose(middle[:, :2] / middle[:, 2:], shares * 50.0)
    assert 0.2 < np.abs(shares).max() <= 0.3


@pytest.mark.parametrize(("share", "beyond"), [(0.0, 0), (1.0, 150)])
def test_wild_telemetry_is_off_in_scale_by_as_much_as_it_says(share: float, beyond: int) -> None:
    views = dataclasses.replace(EXACT, wild_share=share, wild_height=0.5)
    maps, _ = local_from_drone([50.0] * 400, 64, views, np.random.default_rng(1))
    scales = np.sqrt(np.abs(np.linalg.det(maps[:, :2, :2]))) / (50 / 64) / maps[:, 2, 2]
    assert (np.abs(np.log(scales)) > 0.25).sum() >= beyond
    if not share:
        assert np.allclose(scales, 1)


def test_a_turned_and_mirrored_place_keeps_its_middle() -> None:
    maps = pixel_from_local([0.5, 0.5], [20.0, 20.0], [30.0, 30.0], [0.0, 90.0], [False, True])
    east = maps @ np.array([1.0, 0.0, 1.0])
    assert np.allclose(maps[:, :2, 2], [39.5, 59.5])
    assert np.allclose(east[0, :2] - maps[0, :2, 2], [2, 0])
    assert np.allclose(east[1, :2] - maps[1, :2, 2], [0, 2])
