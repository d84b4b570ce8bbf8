import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.camera import (
    Attitude,
    Camera,
    apply_homography,
    look_point_m,
    patch_coverage,
    pixel_from_ground,
)
from s4g.core.errors import InputError
from s4g.core.warp import north_up_patch
from s4g.runtime import normalise
from s4g.runtime.fix import Reason
from s4g.runtime.normalise import (
    GOOD_COVERAGE,
    MIN_COVERAGE,
    PatchPlan,
    cut_patches,
    find_level,
    max_reduction,
    picture_fault,
    plan_patches,
    plan_warps,
)

# 90 degrees: a frame from 100 m shows 200 x 100 m.
CAMERA = Camera.from_hfov(800, 400, 90.0)
LEVELS = (40.0, 80.0, 160.0)


def plan(attitude: Attitude, patches: int = 1, fixed: int | None = None) -> PatchPlan | Reason:
    return plan_patches(CAMERA, attitude, LEVELS, 64, patches, fixed)


def good_plan(attitude: Attitude, patches: int = 1) -> PatchPlan:
    result = plan(attitude, patches)
    assert isinstance(result, PatchPlan)
    return result


def texture(seed: int = 1, side: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize(("agl_m", "footprint_m"), [(50, 40), (100, 80), (180, 160), (400, 160)])
def test_the_largest_level_that_the_frame_covers_is_taken(agl_m: float, footprint_m: float) -> None:
    assert good_plan(Attitude(0, 0, 0, agl_m)).footprint_m == footprint_m


def test_heading_shrinks_what_a_wide_frame_covers() -> None:
    assert good_plan(Attitude(0, 0, 0, 100)).footprint_m == 80
    assert good_plan(Attitude(45, 0, 0, 100)).footprint_m == 80  # to 91 %
    assert good_plan(Attitude(45, 0, 0, 70)).footprint_m == 40


def test_the_patch_lies_where_the_camera_looks() -> None:
    attitude = Attitude(90, 10, 0, 100)
    result = good_plan(attitude)
    assert result.centers_m[0] == pytest.approx(look_point_m(CAMERA, attitude))
    assert result.centers_m[0] == pytest.approx([17.6, 0.0], abs=0.2)


def test_the_middle_comes_first_and_the_corners_of_the_frame_next() -> None:
    attitude = Attitude(30, 3, -2, 140)
    result = good_plan(attitude, patches=9)
    assert result.centers_m[0] == pytest.approx(look_point_m(CAMERA, attitude))
    pixels = apply_homography(pixel_from_ground(CAMERA, attitude), result.centers_m[1:5])
    sides = np.sign(pixels - [400, 200]).astype(int)
    assert {tuple(side) for side in sides} == {(-1, -1), (-1, 1), (1, -1), (1, 1)}


def test_all_patches_are_covered_and_apart() -> None:
    attitude = Attitude(30, 3, -2, 140)
    result = good_plan(attitude, patches=13)
    for center in result.centers_m:
        east, north = (float(v) for v in center)
        # Judged on fewer points than the patch is measured by: 2 % of tolerance.
        seen = patch_coverage(CAMERA, attitude, (east, north), result.footprint_m)
        assert seen >= GOOD_COVERAGE - 0.02
    apart = np.linalg.norm(result.centers_m[:, None] - result.centers_m, axis=2)
    assert apart[apart > 0].min() >= 0.3 * result.footprint_m


def test_a_level_with_room_for_five_patches_beats_a_larger_one_without() -> None:
    attitude = Attitude(0, 0, 0, 80)
    assert good_plan(attitude, patches=1).footprint_m == 80
    assert good_plan(attitude, patches=13).footprint_m == 40


@given(
    yaw=st.floats(0, 360),
    pitch=st.floats(-17, 17),
    roll=st.floats(-17, 17),
    agl=st.floats(1, 5000),
)
def test_every_plan_is_covered_and_every_refusal_has_its_reason(
    yaw: float, pitch: float, roll: float, agl: float
) -> None:
    attitude = Attitude(yaw, pitch, roll, agl)
    result = plan(attitude, patches=5)
    if isinstance(result, PatchPlan):
        middle = tuple(result.centers_m[0])
        assert patch_coverage(CAMERA, attitude, middle, result.footprint_m) >= MIN_COVERAGE
        assert 1 <= len(result.centers_m) <= 5
    else:
        assert result in (Reason.TOO_LOW, Reason.TOO_HIGH)


@given(
    yaw=st.floats(0, 360), pitch=st.floats(-17, 17), roll=st.floats(-17, 17), agl=st.floats(40, 400)
)
def test_looking_closely_at_a_few_places_alone_changes_no_plan(
    yaw: float, pitch: float, roll: float, agl: float
) -> None:
    attitude = Attitude(yaw, pitch, roll, agl)
    result = plan(attitude, patches=13)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(normalise, "_PROBED", 0.0)  # of a covered place the middle is always seen
        expected = plan(attitude, patches=13)
    if not isinstance(result, PatchPlan) or not isinstance(expected, PatchPlan):
        assert result is expected
        return
    assert (result.level, result.footprint_m) == (expected.level, expected.footprint_m)
    assert np.array_equal(result.centers_m, expected.centers_m)


@pytest.mark.parametrize("agl_m", [0.0, -3.0])
def test_without_height_there_is_no_plan(agl_m: float) -> None:
    assert plan(Attitude(0, 0, 0, agl_m)) is Reason.NO_HEIGHT


def test_a_camera_that_looks_aside_is_refused() -> None:
    assert plan(Attitude(0, 24, 0, 100)) not in (Reason.TILT,)
    assert plan(Attitude(0, 26, 0, 100)) is Reason.TILT


def test_a_frame_smaller_than_the_smallest_tile_is_too_low() -> None:
    assert plan(Attitude(0, 0, 0, 25)) is Reason.TOO_LOW


def test_a_tile_of_a_few_pixels_is_too_high() -> None:
    assert plan(Attitude(0, 0, 0, 5000)) is Reason.TOO_HIGH


def test_a_fixed_level_is_kept_whatever_the_height() -> None:
    result = plan(Attitude(0, 0, 0, 400), fixed=0)
    assert isinstance(result, PatchPlan)
    assert result.footprint_m == 40
    assert plan(Attitude(0, 0, 0, 60), fixed=2) is Reason.TOO_LOW


@pytest.mark.parametrize(("agl_m", "reduction"), [(50, 8), (400, 4), (1000, 2), (2000, 1)])
def test_reduced_decoding_leaves_a_frame_pixel_per_patch_pixel(
    agl_m: float, reduction: int
) -> None:
    big = Camera.from_hfov(1600, 800, 90.0)
    attitude = Attitude(20, 0, 0, agl_m)
    result = plan_patches(big, attitude, (10.0, *LEVELS), 64, 1)
    assert isinstance(result, PatchPlan)
    chosen = max_reduction(big, attitude, result, 64)
    across = result.footprint_m / (agl_m / big.fx_px)
    assert across / chosen >= 64 or chosen == 1
    assert across / (2 * chosen) < 64 or chosen == 8
    assert chosen == reduction


def test_patches_from_a_reduced_frame_show_the_same_ground() -> None:
    rng = np.random.default_rng(4)
    coarse = rng.integers(0, 256, (14, 27, 3), dtype=np.uint8)
    frame = np.asarray(cv2.resize(coarse, (801, 401), interpolation=cv2.INTER_CUBIC), np.uint8)
    camera = Camera.from_hfov(801, 401, 90.0)
    attitude = Attitude(30, 4, 0, 100)
    result = plan_patches(camera, attitude, (60.0,), 64, 1)
    assert isinstance(result, PatchPlan)
    whole, reduced = np.zeros((2, 1, 64, 64, 3), np.uint8)
    cut_patches(frame, plan_warps(camera, attitude, result, 64, 0, 1), whole)
    small = cv2.resize(
        cv2.copyMakeBorder(frame, 0, 1, 0, 1, cv2.BORDER_REPLICATE), (401, 201),
        interpolation=cv2.INTER_AREA,
    )  # fmt: skip
    warps = plan_warps(camera.reduced(2), attitude, result, 64, 0, 1)
    cut_patches(np.asarray(small, np.uint8), warps, reduced)
    assert np.abs(whole.astype(int) - reduced).mean() < 2.0


def test_the_warps_of_a_plan_are_those_of_its_patches_one_by_one() -> None:
    attitude = Attitude(30, 3, -2, 140)
    result = good_plan(attitude, patches=9)
    frame = texture(side=800)[:400]
    warps = plan_warps(CAMERA, attitude, result, 64, 2, 5)
    patches = np.zeros((4, 64, 64, 3), np.uint8)
    cut_patches(frame, warps, patches)
    for place, number in enumerate((2, 3, 4)):
        east, north = (float(v) for v in result.centers_m[number])
        alone, _ = north_up_patch(frame, CAMERA, attitude, (east, north), result.footprint_m, 64)
        assert np.array_equal(patches[place], alone)
    assert not patches[3].any()


def test_a_good_picture_has_no_fault() -> None:
    assert picture_fault(texture()) is None


@pytest.mark.parametrize(
    ("patch", "fault"),
    [
        (texture() // 40, Reason.DARK),
        (np.zeros((64, 64, 3), np.uint8), Reason.DARK),
        (255 - texture() // 40, Reason.BRIGHT),
        (120 + texture() // 128, Reason.UNIFORM),
    ],
)
def test_a_useless_picture_is_named(patch: np.ndarray, fault: Reason) -> None:
    assert picture_fault(np.asarray(patch, np.uint8)) is fault


def test_a_blurred_picture_is_named() -> None:
    coarse = texture(side=4)
    smooth = cv2.resize(coarse, (256, 256), interpolation=cv2.INTER_CUBIC)
    assert picture_fault(np.asarray(smooth, np.uint8)) is Reason.BLURRED


def test_a_level_is_found_by_its_footprint() -> None:
    assert find_level(LEVELS, 80.0, "a.s4gpack") == 1
    with pytest.raises(InputError) as error:
        find_level(LEVELS, 100.0, "a.s4gpack")
    assert str(error.value) == (
        "--level 100: a.s4gpack has levels of 40, 80, 160 m; choose one of them"
    )
