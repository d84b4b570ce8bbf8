"""What heading and height a frame may have, and how its patches tell them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.camera import Attitude, Camera
from s4g.runtime.hypotheses import (
    ANYTHING,
    HEADINGS,
    Expected,
    best_of,
    best_score,
    heading_bin,
    possible,
    turned,
    useful_heights_m,
)
from s4g.runtime.locate import Evidence, Gate
from s4g.runtime.normalise import PatchPlan, plan_patches
from s4g.runtime.telemetry import Sample

CAMERA = Camera.from_hfov(640, 480, 60.0)
TOLD = Attitude(50.0, 3.0, -2.0, 100.0)
HEIGHTS_M = [60.0, 84.0, 117.0]
FOOTPRINT_M = 40.0


def sample(yaw: bool = True, agl: bool = True) -> Sample:
    return Sample(TOLD, yaw_known=yaw, agl_known=agl)


def pairs(attitudes: list[Attitude]) -> set[tuple[float, float]]:
    return {(round(a.yaw_deg, 3), round(a.agl_m, 3)) for a in attitudes}


def test_what_telemetry_tells_is_not_doubted() -> None:
    assert possible(sample(), Expected(7.0, 7.0, 7), HEIGHTS_M) == [TOLD]


def test_an_unknown_heading_may_be_any_or_about_what_it_was() -> None:
    anything = possible(sample(yaw=False), ANYTHING, HEIGHTS_M)
    assert pairs(anything) == {(22.5 * i, 100.0) for i in range(16)}
    assert {(a.pitch_deg, a.roll_deg) for a in anything} == {(3.0, -2.0)}
    about = possible(sample(yaw=False), Expected(yaw_deg=10.0, turn=3), HEIGHTS_M)
    assert pairs(about) == {(10.0, 100.0), (32.5, 100.0), (347.5, 100.0)}


def test_an_unknown_height_may_be_any_that_is_of_use_or_about_what_it_was() -> None:
    anything = possible(sample(agl=False), ANYTHING, HEIGHTS_M)
    assert pairs(anything) == {(50.0, h) for h in HEIGHTS_M}
    about = possible(sample(agl=False), Expected(agl_m=70.0), HEIGHTS_M)
    assert pairs(about) == {(50.0, 70.0), (50.0, 50.0), (50.0, 98.0)}


def test_a_search_for_both_is_spread_over_frames() -> None:
    neither = sample(yaw=False, agl=False)
    frames = [possible(neither, Expected(turn=turn), HEIGHTS_M) for turn in range(3)]
    assert [len(attitudes) for attitudes in frames] == [HEADINGS] * 3
    together = set().union(*map(pairs, frames))
    assert together == pairs(possible(neither, ANYTHING, HEIGHTS_M))
    assert len(together) == HEADINGS * len(HEIGHTS_M)
    about = possible(neither, Expected(10.0, 70.0, 5), HEIGHTS_M)
    assert pairs(about) == {(10, 70), (32.5, 70), (347.5, 70), (10, 50), (10, 98)}


@pytest.mark.parametrize("footprints_m", [(40.0,), (40.0, 80.0, 160.0), (500.0,)])
def test_at_a_height_that_is_of_use_the_frame_holds_a_tile_however_it_is_turned(
    footprints_m: tuple[float, ...],
) -> None:
    heights = useful_heights_m(CAMERA, footprints_m, 224)
    steps = np.array(heights[1:]) / heights[:-1]
    assert np.all((steps > 1.2) & (steps <= 1.4 + 1e-9))
    for agl_m in heights:
        for yaw_deg in (0.0, 45.0):
            attitude = Attitude(yaw_deg, 0.0, 0.0, agl_m)
            assert isinstance(plan_patches(CAMERA, attitude, footprints_m, 224, 1), PatchPlan)
    # One step beyond either end it does not, or shows no detail.
    for agl_m in (heights[0] / 2, heights[-1] * 1.4):
        attitude = Attitude(45.0, 0.0, 0.0, agl_m)
        assert not isinstance(plan_patches(CAMERA, attitude, footprints_m, 224, 1), PatchPlan)


def test_a_camera_that_fits_no_level_well_still_has_a_height_to_try() -> None:
    assert len(useful_heights_m(Camera.from_hfov(64, 48, 60.0), [40.0], 224)) == 1


@given(st.floats(-0.45, 0.45), st.integers(0, 15))
def test_the_scores_of_neighbours_tell_a_heading_between_them(off: float, number: int) -> None:
    attitudes = possible(sample(yaw=False), ANYTHING, HEIGHTS_M)
    steps = [(i - number - off + 8) % 16 - 8 for i in range(16)]
    best, attitude = best_of(attitudes, [0.8 - 0.1 * s**2 for s in steps])
    assert best == number
    apart = (attitude.yaw_deg - 22.5 * (number + off) + 180) % 360 - 180
    assert apart == pytest.approx(0, abs=1e-6)
    assert attitude.agl_m == 100.0


def test_the_scores_of_neighbours_tell_a_height_between_them() -> None:
    attitudes = possible(sample(agl=False), Expected(agl_m=100.0), HEIGHTS_M)
    _, attitude = best_of(attitudes, [0.8, 0.7, 0.75])  # in the middle, below, above
    assert 100 < attitude.agl_m < 120
    assert attitude.yaw_deg == 50.0


def test_at_the_end_of_what_was_tried_nothing_lies_between() -> None:
    attitudes = [Attitude(0.0, 0.0, 0.0, h) for h in HEIGHTS_M]
    assert best_of(attitudes, [0.9, 0.5, 0.1]) == (0, attitudes[0])


def seen_under(factor: complex, place_m: np.ndarray) -> tuple[Evidence, np.ndarray]:
    """Patches thought to be seen at offsets, whose tiles lie at `factor` times these."""
    rng = np.random.default_rng(5)
    offsets = np.array([[0.0, 0.0], [60, 40], [-60, 40], [-60, -40], [60, -40]])
    true = offsets @ np.array([1, 1j]) * factor
    tiles = (
        place_m + np.stack([true.real, true.imag], axis=1)[:, None] + rng.normal(0, 2, (5, 3, 2))
    )
    tiles[:, 2] += 500.0  # tiles elsewhere
    own = np.tile([0.6, 0.3, 0.05], (5, 1))
    scores = np.tile(np.float32([0.8, 0.7, 0.6]), (5, 1))
    return Evidence(np.zeros((5, 3), np.int64), scores, tiles, offsets), own


@given(st.floats(-12, 12), st.floats(0.85, 1.2))
def test_the_places_of_the_patches_to_each_other_tell_turn_and_height(
    turn_deg: float, scale: float
) -> None:
    place_m = np.array([300.0, -200.0])
    turn = math.radians(turn_deg)
    factor = scale * complex(math.cos(turn), -math.sin(turn))  # clockwise
    evidence, own = seen_under(factor, place_m)
    for yaw, agl in ((False, False), (False, True), (True, False)):
        told = turned(TOLD, sample(yaw, agl), evidence, own, place_m, FOOTPRINT_M)
        assert told is not None
        attitude, offsets_m = told
        wanted_turn, wanted_scale = (0.0 if yaw else turn_deg), (1.0 if agl else scale)
        assert attitude.yaw_deg == pytest.approx(50.0 + wanted_turn, abs=2.0)
        assert attitude.agl_m == pytest.approx(100.0 * wanted_scale, rel=0.04)
        if not yaw and not agl:
            seen = evidence.tiles_m[:, 0] - place_m
            assert np.abs(offsets_m - seen).max() < 8


def test_patches_of_one_place_tell_neither() -> None:
    evidence, own = seen_under(1.0, np.zeros(2))
    close = Evidence(evidence.ids, evidence.scores, evidence.tiles_m, evidence.offsets_m / 100)
    assert turned(TOLD, sample(False, False), close, own, np.zeros(2), FOOTPRINT_M) is None
    doubtful = np.full_like(own, 0.1)
    assert turned(TOLD, sample(False), evidence, doubtful, np.zeros(2), FOOTPRINT_M) is None


def test_where_the_place_is_known_only_tiles_near_it_count() -> None:
    tiles = np.array([[[900.0, 0.0], [30.0, 20.0], [0.0, 10.0], [-500.0, 0.0]]])
    scores = np.array([[0.8, 0.7, 0.6, 0.5]], np.float32)
    evidence = Evidence(np.zeros((1, 4), np.int64), scores, tiles, np.array([[20.0, 20.0]]))
    assert best_score(evidence, ANYTHING) == pytest.approx(0.8)
    near = Expected(near=Gate(0.0, 0.0, 15.0))
    assert best_score(evidence, near) == pytest.approx(0.7)
    nowhere = Expected(near=Gate(0.0, 800.0, 15.0))
    assert best_score(evidence, nowhere) == pytest.approx(0.5)


def test_the_nearest_heading_of_the_sixteen() -> None:
    assert [heading_bin(yaw) for yaw in (0.0, 11.0, 12.0, 349.0, 359.9, 180.0)] == [
        0, 0, 1, 0, 0, 8,
    ]  # fmt: skip


def test_a_known_height_is_kept_where_every_heading_is_tried() -> None:
    neither = sample(yaw=False, agl=False)
    about = possible(neither, Expected(agl_m=70.0), HEIGHTS_M)
    assert {attitude.agl_m for attitude in about} == {70.0}
    assert len(about) == HEADINGS
