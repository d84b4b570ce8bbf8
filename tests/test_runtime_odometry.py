"""Steps between frames, on views cut from ground that is known."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4g.runtime.odometry import SIDE_PX, Odometry, Step

RGB = npt.NDArray[np.uint8]
GSD_M = 0.625
FOOTPRINT_M = SIDE_PX * GSD_M
_GROUND_PX = 900


def made_ground(seed: int) -> npt.NDArray[np.float32]:
    """Return ground with details of all sizes, as real ground has."""
    rng = np.random.default_rng(seed)
    ground = np.zeros((_GROUND_PX, _GROUND_PX), np.float32)
    for size in (1, 3, 9, 27):
        layer = cv2.GaussianBlur(rng.standard_normal(ground.shape).astype(np.float32), (0, 0), size)
        ground += layer / layer.std()
    return np.asarray(115 + 22 * ground, np.float32)


GROUND = made_ground(5)


def view(
    east_m: float,
    north_m: float,
    *,
    footprint_m: float = FOOTPRINT_M,
    heading_deg: float = 0.0,
    light: float = 1.0,
    noise: float = 2.0,
    ground: npt.NDArray[np.float32] = GROUND,
    side_px: int = SIDE_PX,
) -> RGB:
    """Return what a camera sees whose top points to `heading_deg`, (S, S, 3) uint8."""
    gsd = footprint_m / side_px / GSD_M
    cos, sin = (gsd * f(math.radians(heading_deg)) for f in (math.cos, math.sin))
    middle = (side_px - 1) / 2
    x, y = _GROUND_PX / 2 + east_m / GSD_M, _GROUND_PX / 2 - north_m / GSD_M
    # Right in the view is `heading` clockwise of east.
    to_ground = np.array([[cos, -sin, 0], [sin, cos, 0]])
    to_ground[:, 2] = np.array([x, y]) - to_ground[:, :2] @ [middle, middle]
    picture = cv2.warpAffine(
        ground, to_ground, (side_px, side_px), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    )
    rng = np.random.default_rng([round(east_m * 1000) % 2**32, round(north_m * 1000) % 2**32])
    grey = light * picture[..., None] + noise * rng.standard_normal((side_px, side_px, 3))
    return np.clip(np.rint(grey), 1, 255).astype(np.uint8)


def step_between(first: RGB, second: RGB, **values: float) -> Step | None:
    odometry = Odometry()
    assert odometry.step(0.0, first, FOOTPRINT_M) is None
    return odometry.step(1.0, second, FOOTPRINT_M, **values)


def found(step: Step | None) -> Step:
    assert step is not None
    return step


@settings(max_examples=60)
@given(
    east=st.floats(-50, 50),
    north=st.floats(-50, 50),
    light=st.floats(0.5, 1.4),
    noise=st.floats(0, 6),
)
def test_a_shift_is_found_to_a_fraction_of_a_pixel(
    east: float, north: float, light: float, noise: float
) -> None:
    if (1 - abs(east) / FOOTPRINT_M) * (1 - abs(north) / FOOTPRINT_M) < 0.3:
        return
    step = found(step_between(view(0, 0), view(east, north, light=light, noise=noise)))
    assert step.moved_m == pytest.approx([east, north], abs=0.3 * GSD_M)
    assert step.seconds == 1.0
    assert step.turned_deg == 0.0


def test_east_is_right_and_north_is_up() -> None:
    first, second = GROUND[300:428, 300:428], GROUND[260:388, 320:448]
    pictures = [np.repeat(part[..., None], 3, axis=2).astype(np.uint8) for part in (first, second)]
    step = found(step_between(*pictures))
    assert step.moved_m == pytest.approx([20 * GSD_M, 40 * GSD_M], abs=0.05)


@pytest.mark.parametrize("share", [0.65, -0.65])
def test_a_third_of_overlap_is_enough(share: float) -> None:
    step = found(step_between(view(0, 0), view(share * FOOTPRINT_M, 3.0)))
    assert step.moved_m == pytest.approx([share * FOOTPRINT_M, 3.0], abs=0.3)


def test_a_view_that_swings_ahead_is_no_movement() -> None:
    """The nose rises: the view's middle moves 10 m north, the drone 2 m."""
    odometry = Odometry()
    odometry.step(0.0, view(0, 0), FOOTPRINT_M, center_m=(0.0, 0.0))
    step = found(odometry.step(1.0, view(0, 12), FOOTPRINT_M, center_m=(0.0, 10.0)))
    assert step.moved_m == pytest.approx([0, 2], abs=0.2)


@settings(max_examples=40)
@given(
    turn=st.floats(-15, 15),
    along=st.floats(-180, 180),
    far=st.floats(0, 25),
    start=st.floats(-180, 180),
)
def test_a_turn_is_found_where_the_heading_is_unknown(
    turn: float, along: float, far: float, start: float
) -> None:
    east, north = far * math.sin(math.radians(along)), far * math.cos(math.radians(along))
    odometry = Odometry()
    odometry.step(0.0, view(0, 0, heading_deg=start), FOOTPRINT_M, yaw_known=False)
    second = view(east, north, heading_deg=start + turn)
    step = found(odometry.step(1.0, second, FOOTPRINT_M, yaw_known=False))
    assert step.turned_deg == pytest.approx(turn, abs=1.5)
    # Along the axes of the first view.
    ahead = math.radians(along - start)
    expected = [far * math.sin(ahead), far * math.cos(ahead)]
    assert step.moved_m == pytest.approx(expected, abs=0.6)


def test_a_turn_and_the_swing_of_the_view_are_told_apart() -> None:
    """A camera that looks ahead sees other ground after a turn on the spot."""
    odometry = Odometry()
    for t, heading in ((0.0, 0.0), (1.0, 10.0)):
        ahead = math.radians(heading)
        seen = view(30 * math.sin(ahead), 30 * math.cos(ahead), heading_deg=heading)
        step = odometry.step(t, seen, FOOTPRINT_M, center_m=(0.0, 30.0), yaw_known=False)
    assert found(step).moved_m == pytest.approx([0, 0], abs=0.7)


def test_small_steps_do_not_drift() -> None:
    """Thirty frames a second at 15 m/s: half a metre a frame, less than a pixel."""
    odometry, total = Odometry(), np.zeros(2)
    odometry.step(0.0, view(-60, 0), FOOTPRINT_M)
    for frame in range(1, 241):
        total += found(odometry.step(frame / 30, view(-60 + frame / 2, 0), FOOTPRINT_M)).moved_m
    assert total == pytest.approx([120, 0], abs=0.3)


def test_steps_are_differences_to_a_key() -> None:
    """A view of no error between two others changes nothing of their sum."""
    places = [(0.0, 0.0), (3.1, -2.0), (6.4, 1.0)]
    odometry = Odometry()
    odometry.step(0.0, view(*places[0]), FOOTPRINT_M)
    first, second = (
        found(odometry.step(float(i), view(*places[i]), FOOTPRINT_M)).moved_m for i in (1, 2)
    )
    direct = found(step_between(view(*places[0]), view(*places[2]))).moved_m
    assert first + second == pytest.approx(direct, abs=1e-9)


@pytest.mark.parametrize(("before", "after"), [(80.0, 40.0), (40.0, 80.0), (80.0, 55.0)])
def test_another_footprint_is_bridged(before: float, after: float) -> None:
    odometry = Odometry()
    odometry.step(0.0, view(0, 0, footprint_m=before), before)
    step = found(odometry.step(1.0, view(8, -5, footprint_m=after), after))
    assert step.moved_m == pytest.approx([8, -5], abs=0.3)
    step = found(odometry.step(2.0, view(14, -5, footprint_m=after), after))
    assert step.moved_m == pytest.approx([6, 0], abs=0.3)


def test_a_footprint_five_times_as_large_is_not() -> None:
    odometry = Odometry()
    odometry.step(0.0, view(0, 0, footprint_m=16.0), 16.0)
    assert odometry.step(1.0, view(0, 0), FOOTPRINT_M) is None


def test_views_of_another_size_are_as_good() -> None:
    odometry = Odometry()
    odometry.step(0.0, view(0, 0, side_px=192), FOOTPRINT_M)
    step = found(odometry.step(1.0, view(10, 4, side_px=192), FOOTPRINT_M))
    assert step.moved_m == pytest.approx([10, 4], abs=0.3)


def test_garbage_is_no_step_and_the_next_one_spans_it() -> None:
    odometry = Odometry()
    odometry.step(0.0, view(0, 0), FOOTPRINT_M)
    found(odometry.step(1.0, view(5, 0), FOOTPRINT_M))
    noise = np.random.default_rng(0).integers(1, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
    assert odometry.step(2.0, noise, FOOTPRINT_M) is None
    step = found(odometry.step(3.0, view(15, 1), FOOTPRINT_M))
    assert step.seconds == 2.0
    assert step.moved_m == pytest.approx([10, 1], abs=0.3)


def test_after_a_jump_it_goes_on_from_there() -> None:
    odometry = Odometry()
    odometry.step(0.0, view(0, 0), FOOTPRINT_M)
    found(odometry.step(1.0, view(5, 0), FOOTPRINT_M))
    assert odometry.step(2.0, view(-150, 90), FOOTPRINT_M) is None
    step = found(odometry.step(3.0, view(-145, 90), FOOTPRINT_M))
    assert step.seconds == 1.0
    assert step.moved_m == pytest.approx([5, 0], abs=0.3)


@pytest.mark.parametrize("swell", [0.0, 1.5])
def test_water_under_a_dirty_lens_is_no_step(swell: float) -> None:
    """Dirt, and the blocks of a codec, stay where they are in the frame."""
    odometry, rng = Odometry(), np.random.default_rng(1)
    dirt = cv2.GaussianBlur(rng.standard_normal((SIDE_PX, SIDE_PX)), (0, 0), 2)
    for t in range(20):
        waves = cv2.GaussianBlur(rng.standard_normal((SIDE_PX, SIDE_PX)), (0, 0), 2)
        noise = rng.standard_normal(waves.shape)
        grey = 90 + swell * waves / waves.std() + dirt / dirt.std() + noise / 2
        picture = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
        _, file = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 80])
        water = np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8)
        assert odometry.step(float(t), water, FOOTPRINT_M) is None


def test_black_corners_do_not_hold_the_view() -> None:
    """What the frame does not show is black, and stays in its corner while the ground moves."""
    first, second = view(0, 0), view(20, 10)
    for picture in (first, second):
        picture[:, :20] = 0
        picture[:12] = 0
    assert found(step_between(first, second)).moved_m == pytest.approx([20, 10], abs=0.3)


def test_black_corners_over_water_are_no_step() -> None:
    odometry, rng = Odometry(), np.random.default_rng(1)
    for t in range(5):
        water = (90 + rng.standard_normal((SIDE_PX, SIDE_PX, 3))).astype(np.uint8)
        cv2.fillPoly(water, [np.array([[0, 0], [90, 0], [0, 70]])], (0, 0, 0))
        assert odometry.step(float(t), water, FOOTPRINT_M) is None


def test_nothing_but_black_is_no_step() -> None:
    odometry = Odometry()
    for t in range(3):
        assert (
            odometry.step(float(t), np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8), FOOTPRINT_M) is None
        )


def test_an_orchard_that_shows_nothing_else_is_no_step() -> None:
    """Its rows fit at many shifts: 51 m on, 20 % of the view is the same, the rest looks so."""
    y, x = np.mgrid[:_GROUND_PX, :_GROUND_PX].astype(np.float32)
    rows = 100 + 40 * np.cos(2 * np.pi * x / 11) * np.cos(2 * np.pi * y / 14) + 0.2 * (GROUND - 115)
    assert step_between(view(0, 0, ground=rows), view(70, 3, ground=rows)) is None


def test_a_clock_that_goes_back_starts_anew() -> None:
    odometry = Odometry()
    odometry.step(5.0, view(0, 0), FOOTPRINT_M)
    found(odometry.step(6.0, view(5, 0), FOOTPRINT_M))
    assert odometry.step(2.0, view(10, 0), FOOTPRINT_M) is None
    step = found(odometry.step(3.0, view(15, 0), FOOTPRINT_M))
    assert step.seconds == 1.0
    assert step.moved_m == pytest.approx([5, 0], abs=0.3)


def test_sigma_grows_with_height_and_way() -> None:
    near = found(step_between(view(0, 0), view(5, 0)))
    high = found(step_between(view(0, 0), view(5, 0), agl_m=200.0))
    far = found(step_between(view(0, 0), view(45, 0)))
    assert near.sigma_m < 0.3
    assert high.sigma_m == pytest.approx(200 * 0.0175 * math.sqrt(2 - 2 * math.exp(-0.5)), rel=0.02)
    assert far.sigma_m > 5 * near.sigma_m


@settings(max_examples=60)
@given(seed=st.integers(0, 2**16), east=st.floats(-120, 120), turn=st.floats(-180, 180))
def test_other_ground_is_never_a_step(seed: int, east: float, turn: float) -> None:
    other = view(east, 0, heading_deg=turn, ground=made_ground(seed + 100))
    for yaw_known in (True, False):
        odometry = Odometry()
        odometry.step(0.0, view(0, 0), FOOTPRINT_M)
        assert odometry.step(1.0, other, FOOTPRINT_M, yaw_known=yaw_known) is None
