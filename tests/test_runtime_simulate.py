from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4g.core.camera import (
    Attitude,
    Camera,
    apply_homography,
    distort,
    pixel_from_ground,
)
from s4g.core.errors import InputError
from s4g.core.geo import LocalFrame
from s4g.core.ground import ArrayGround, GroundSource, GroundWindow
from s4g.core.sources import open_ground
from s4g.core.warp import north_up_patch
from s4g.runtime.route import Route, fly
from s4g.runtime.simulate import (
    FrameRenderer,
    Moment,
    Optics,
    SensorErrors,
    footprint_m,
    moments,
    undistorted_pixels,
)

FRAME = LocalFrame(47.0, 8.0)
PERFECT = Optics(exposure_ms=0, exposure_ev=0, vignetting=0, noise=0)
CAMERA = Camera.from_hfov(320, 240, 60)
BARREL = replace(CAMERA, distortion=(-0.2, 0.03, 0.0, 0.0))


def ground(rgb: np.ndarray, gsd_m: float = 0.5, valid: np.ndarray | None = None) -> ArrayGround:
    """Return a picture centred on 47 N, 8 E."""
    height, width = rgb.shape[:2]
    mask = np.ones((height, width), np.bool_) if valid is None else valid
    return ArrayGround(rgb, mask, FRAME, -width * gsd_m / 2, height * gsd_m / 2, gsd_m)


def textured(size_px: int = 800, seed: int = 3) -> np.ndarray:
    """Return soft noise with detail at 4 pixels and more."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size_px, size_px, 3), np.float32)
    for cells in (12, 50, 200):
        lattice = rng.standard_normal((cells, cells, 3)).astype(np.float32)
        total += cv2.resize(lattice, (size_px, size_px), interpolation=cv2.INTER_CUBIC)
    return np.clip(total * 30 + 128, 1, 255).astype(np.uint8)


def moment(
    attitude: Attitude,
    east_m: float = 0.0,
    north_m: float = 0.0,
    velocity: tuple[float, float] = (0, 0),
) -> Moment:
    lat, lon = FRAME.to_wgs84(east_m, north_m)
    return Moment(
        0, 0.0, float(lat), float(lon), attitude, velocity[0], velocity[1], attitude, 0, 0, 0.0
    )


def render(source: GroundSource, where: Moment, camera: Camera = CAMERA) -> np.ndarray:
    return FrameRenderer(source, camera, PERFECT, 0).frame(where)[0]


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel().astype(float), b.ravel().astype(float))[0, 1])


def blob_center(picture: np.ndarray) -> np.ndarray:
    """Return column, row of the centre of brightness."""
    weight = picture.astype(float).mean(axis=2)
    rows, columns = np.mgrid[: weight.shape[0], : weight.shape[1]]
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


def dot_at(east_m: float, north_m: float, gsd_m: float = 0.25) -> ArrayGround:
    """Return black ground with a soft white dot whose centre lies at east, north."""
    size = 1200
    axis = (np.arange(size) + 0.5) * gsd_m
    east, north = axis - size * gsd_m / 2, size * gsd_m / 2 - axis
    square = (east[None, :] - east_m) ** 2 + (north[:, None] - north_m) ** 2
    dot = np.round(250 * np.exp(-square / (2 * 1.0**2))).astype(np.uint8)
    return ground(np.repeat(dot[..., None], 3, axis=2), gsd_m)


@pytest.mark.parametrize("camera", [CAMERA, BARREL], ids=["straight", "barrel"])
@pytest.mark.parametrize(
    "attitude",
    [
        Attitude(0, 0, 0, 100),
        Attitude(73, 0, 0, 100),
        Attitude(200, 8, 0, 90),
        Attitude(310, 0, -9, 110),
        Attitude(125, -6, 7, 100),
    ],
)
def test_a_known_place_lands_where_the_homography_says(camera: Camera, attitude: Attitude) -> None:
    for east_m, north_m in ((0.0, 0.0), (17.0, 9.0), (-20.0, 14.0), (6.0, -21.0)):
        picture = render(dot_at(east_m, north_m), moment(attitude), camera)
        pixel = apply_homography(pixel_from_ground(camera, attitude), [[east_m, north_m]])
        expected = distort(camera, pixel.astype(np.float32))[0]
        assert picture.max() > 100
        assert blob_center(picture) == pytest.approx(expected, abs=0.25)


def test_the_camera_stands_where_the_moment_says() -> None:
    attitude = Attitude(0, 0, 0, 100)
    picture = render(dot_at(40.0, -30.0), moment(attitude, east_m=40.0, north_m=-30.0))
    assert blob_center(picture) == pytest.approx([CAMERA.cx_px, CAMERA.cy_px], abs=0.1)


def test_the_image_top_points_along_the_heading() -> None:
    picture = render(dot_at(20.0, 0.0), moment(Attitude(90, 0, 0, 100)))
    column, row = blob_center(picture)
    assert column == pytest.approx(CAMERA.cx_px, abs=0.2)
    assert row < CAMERA.cy_px - 40  # a place to the east lies up in a frame that heads east


@pytest.mark.parametrize("camera", [CAMERA, BARREL], ids=["straight", "barrel"])
@pytest.mark.parametrize("pose", [(37, 6, -4), (0, 0, 0), (181, -9, 3), (275, 2, 10)])
def test_a_north_up_patch_of_a_frame_equals_the_ground(
    camera: Camera, pose: tuple[float, float, float]
) -> None:
    source = ground(textured())
    attitude = Attitude(*pose, 150.0)
    where = moment(attitude, east_m=12.0, north_m=-7.0)
    frame = render(source, where, camera)
    patch, coverage = north_up_patch(frame, camera, attitude, (3.0, 2.0), 56.0, 56)
    here = LocalFrame(where.lat_deg, where.lon_deg)
    direct = source.read(here, GroundWindow(3.0 - 28, 2.0 + 28, 1.0, 56, 56))
    assert coverage == 1.0
    assert correlation(patch, direct.rgb) > 0.98


@settings(max_examples=20)
@given(
    yaw=st.floats(0, 360),
    pitch=st.floats(-10, 10),
    roll=st.floats(-10, 10),
    agl_m=st.floats(150, 190),
)
def test_any_pose_shows_the_ground_it_looks_at(
    yaw: float, pitch: float, roll: float, agl_m: float
) -> None:
    source = ground(textured())
    attitude = Attitude(yaw, pitch, roll, agl_m)
    frame = render(source, moment(attitude))
    patch, coverage = north_up_patch(frame, CAMERA, attitude, (0.0, 0.0), 40.0, 40)
    direct = source.read(FRAME, GroundWindow(-20, 20, 1.0, 40, 40))
    assert coverage == 1.0
    assert correlation(patch, direct.rgb) > 0.98


def test_ground_finer_than_the_frame_is_averaged_and_does_not_alias() -> None:
    # Stripes far finer than a frame pixel: sampled, they would beat between 0 and 200; averaged
    # over seven or eight of them, they are grey to within a seventh.
    stripes = np.zeros((1000, 1000, 3), np.uint8)
    stripes[:, ::2] = 200
    source = ground(stripes, gsd_m=0.25)
    agl_m = 0.25 * 2 * 4 * CAMERA.fx_px  # a frame pixel is 2 m wide, 8 ground pixels
    wide = render(source, moment(Attitude(20, 0, 0, agl_m)))
    middle = wide[80:160, 130:190]
    assert middle.std() < 7
    assert middle.mean() == pytest.approx(100, abs=3)


def test_what_lies_outside_the_source_is_black_and_counted() -> None:
    source = ground(np.full((400, 400, 3), 180, np.uint8))  # 200 m wide
    optics = Optics(exposure_ms=5, exposure_ev=0, vignetting=0.1, noise=6)
    where = moment(Attitude(0, 0, 0, 100), east_m=100.0)  # the frame's right half is outside
    frame, share = FrameRenderer(source, CAMERA, optics, 0).frame(where)
    assert share == pytest.approx(0.5, abs=0.01)
    assert not frame[:, 163:].any()
    assert frame[:, :157].min() > 100


def test_invalid_ground_is_black() -> None:
    valid = np.ones((400, 400), np.bool_)
    valid[:, 200:] = False
    source = ground(np.full((400, 400, 3), 180, np.uint8), valid=valid)
    frame, share = FrameRenderer(source, CAMERA, PERFECT, 0).frame(moment(Attitude(0, 0, 0, 100)))
    assert share == pytest.approx(0.5, abs=0.01)
    assert not frame[:, 163:].any()
    assert (frame[:, :157] == 180).all()


def test_a_frame_far_from_the_source_is_black() -> None:
    source = ground(textured(100))
    frame, share = FrameRenderer(source, CAMERA, PERFECT, 0).frame(
        moment(Attitude(0, 0, 0, 100), east_m=5000)
    )
    assert share == 0.0
    assert not frame.any()


def test_motion_blur_is_as_long_as_the_way_during_exposure() -> None:
    source = dot_at(0.0, 0.0)
    optics = replace(PERFECT, exposure_ms=400)  # at 20 m/s: 8 m
    where = moment(Attitude(0, 0, 0, 100), velocity=(20.0, 0.0))  # northwards: along the rows
    sharp = render(source, where).astype(float).mean(axis=2)
    blurred = FrameRenderer(source, CAMERA, optics, 0).frame(where)[0].astype(float).mean(axis=2)
    rows = np.arange(len(sharp)) - CAMERA.cy_px
    columns = np.arange(sharp.shape[1]) - CAMERA.cx_px

    def spread(profile: np.ndarray, axis: np.ndarray) -> float:
        return float((profile * axis**2).sum() / profile.sum())

    way_px = 8.0 / (100 / CAMERA.fx_px)
    grown = spread(blurred.sum(axis=1), rows) - spread(sharp.sum(axis=1), rows)
    assert grown == pytest.approx(way_px**2 / 12, rel=0.06)  # variance of a uniform spread
    across = spread(blurred.sum(axis=0), columns) - spread(sharp.sum(axis=0), columns)
    assert abs(across) < 1.0


def test_vignetting_darkens_the_corners_by_its_share() -> None:
    source = ground(np.full((800, 800, 3), 200, np.uint8))
    optics = replace(PERFECT, vignetting=0.4)
    frame = FrameRenderer(source, CAMERA, optics, 0).frame(moment(Attitude(0, 0, 0, 100)))[0]
    assert frame[120, 160].mean() == pytest.approx(200, abs=1)
    assert frame[0, 0].mean() == pytest.approx(120, abs=2)


@pytest.mark.parametrize(("ev", "level"), [(1.0, 137), (-1.0, 73), (0.0, 100)])
def test_exposure_scales_brightness_in_display_gamma(ev: float, level: float) -> None:
    source = ground(np.full((800, 800, 3), 100, np.uint8))
    where = replace(moment(Attitude(0, 0, 0, 100)), exposure_ev=ev)
    assert render(source, where).mean() == pytest.approx(level, abs=1)


def test_noise_has_its_strength_and_differs_from_frame_to_frame() -> None:
    source = ground(np.full((800, 800, 3), 100, np.uint8))
    renderer = FrameRenderer(source, CAMERA, replace(PERFECT, noise=5), seed=1)
    where = moment(Attitude(0, 0, 0, 100))
    first, second = (renderer.frame(replace(where, index=i))[0].astype(float) for i in (0, 1))
    assert first.std() == pytest.approx(5, abs=0.2)
    assert abs(correlation(first, second)) < 0.02


def test_a_frame_depends_on_its_number_and_seed_alone() -> None:
    source = ground(textured())
    optics = Optics()
    where = replace(moment(Attitude(10, 1, 1, 100)), index=5)
    alone = FrameRenderer(source, CAMERA, optics, 3).frame(where)[0]
    renderer = FrameRenderer(source, CAMERA, optics, 3)
    renderer.frame(replace(where, index=4))
    assert np.array_equal(renderer.frame(where)[0], alone)
    assert not np.array_equal(FrameRenderer(source, CAMERA, optics, 4).frame(where)[0], alone)


def test_a_frame_towards_the_horizon_is_refused() -> None:
    source = ground(textured(200))
    camera = Camera.from_hfov(320, 240, 120)
    message = (
        "frame 0: a lens of 120 degrees tilted 30 degrees sees towards the horizon; reduce "
        "--hfov, --tilt or --sway"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        FrameRenderer(source, camera, PERFECT, 0).frame(moment(Attitude(0, 30, 0, 100)))


def test_a_lens_that_folds_its_frame_is_refused() -> None:
    camera = replace(CAMERA, distortion=(-2.0, 0.0, 0.0, 0.0))
    message = (
        "--distortion -2,0: folds a frame of 60 degrees over itself; choose smaller coefficients "
        "or a narrower --hfov"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        undistorted_pixels(camera)


def test_undistorted_pixels_go_back_where_they_came_from() -> None:
    straight = undistorted_pixels(BARREL).reshape(-1, 2)
    back = distort(BARREL, straight.astype(np.float32))
    grid = undistorted_pixels(CAMERA).reshape(-1, 2)
    assert np.abs(back - grid).max() < 0.02


def test_a_level_camera_sees_its_footprint() -> None:
    wide, high = footprint_m(CAMERA, 100.0)
    assert wide == pytest.approx(2 * 100 * np.tan(np.radians(30)), rel=1e-6)
    assert high == pytest.approx(wide * 240 / 320, rel=1e-6)


def long_flight(errors: SensorErrors, seed: int = 0, exposure_ev: float = 0.0) -> list[Moment]:
    lat, lon = FRAME.to_wgs84([0, 0], [0, 60_000])
    return moments(fly(Route("test", lat, lon), 100.0, 20, 1), errors, exposure_ev, seed)


def test_without_errors_the_sensors_report_the_truth() -> None:
    for m in long_flight(SensorErrors(0, 0, 0, 0, 0))[::500]:
        assert m.reported == m.true
        assert (m.reported_vel_n_mps, m.reported_vel_e_mps) == (m.vel_n_mps, m.vel_e_mps)


def test_errors_have_the_spread_asked_for() -> None:
    flight = long_flight(SensorErrors(1.5, 0.0, 4.0, 0.05, 0.8), exposure_ev=0.3)
    yaw = np.array([(m.reported.yaw_deg - m.true.yaw_deg + 180) % 360 - 180 for m in flight])
    agl = np.array([m.reported.agl_m / m.true.agl_m for m in flight])
    assert np.std([m.true.pitch_deg for m in flight]) == pytest.approx(1.5, rel=0.15)
    assert np.std([m.true.roll_deg for m in flight]) == pytest.approx(1.5, rel=0.15)
    assert yaw.std() == pytest.approx(4.0, rel=0.35)
    assert np.log(agl).std() == pytest.approx(0.05, rel=0.35)
    assert np.std([m.reported_vel_e_mps for m in flight]) == pytest.approx(0.8, rel=0.35)
    assert np.std([m.exposure_ev for m in flight]) == pytest.approx(0.3, rel=0.25)


def test_errors_wander_rather_than_jump() -> None:
    flight = long_flight(SensorErrors(0, 0, 4.0, 0, 0))
    yaw = np.array([(m.reported.yaw_deg - m.true.yaw_deg + 180) % 360 - 180 for m in flight])
    assert np.std(np.diff(yaw)) < 0.35 * yaw.std()


def test_tilt_is_not_reported_and_sway_is() -> None:
    tilted = long_flight(SensorErrors(2, 0, 0, 0, 0))
    assert {(m.reported.pitch_deg, m.reported.roll_deg) for m in tilted} == {(0.0, 0.0)}
    swaying = long_flight(SensorErrors(0, 2, 0, 0, 0))
    assert all(m.reported.pitch_deg == m.true.pitch_deg for m in swaying)
    assert np.std([m.reported.roll_deg for m in swaying]) > 1


def test_the_same_seed_gives_the_same_flight() -> None:
    errors = SensorErrors()
    assert long_flight(errors, seed=5) == long_flight(errors, seed=5)
    assert long_flight(errors, seed=5) != long_flight(errors, seed=6)


@pytest.mark.parametrize(
    ("name", "agl_m"),
    [
        ("naip_nd_multidate/m_4709963_se_14_1_20120731.tif", 2000.0),
        ("small_orthos/naip_berkeley_campus_z17.tif", 500.0),
        ("small_orthos/naip_m_4208701_ne_16_060_20200902_crop.tif", 60.0),
    ],
)
def test_a_frame_over_real_imagery_equals_the_imagery(
    data_dir: Path, name: str, agl_m: float
) -> None:
    pytest.importorskip("rasterio", reason="GeoTIFFs need rasterio (the pack extra)")
    source = open_ground(str(data_dir / name))
    lat, lon = source.bounds.center
    attitude = Attitude(143.0, 3.0, -4.0, agl_m)
    where = replace(moment(attitude), lat_deg=lat, lon_deg=lon)
    frame = render(source, where)
    side = round(0.5 * agl_m)
    patch, coverage = north_up_patch(frame, CAMERA, attitude, (0.0, 0.0), side, 100)
    window = GroundWindow(-side / 2, side / 2, side / 100, 100, 100)
    direct = source.read(LocalFrame(lat, lon), window)
    source.close()
    assert direct.valid.all()
    assert coverage == 1.0
    assert correlation(patch, direct.rgb) > 0.98
