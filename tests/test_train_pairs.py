"""Pairs show the same ground; a batch never holds the same ground twice."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4g.core.errors import InputError, S4GError
from s4g.train.grounds import Ground, load_grounds
from s4g.train.model import ModelConfig
from s4g.train.pairs import PairSampler, draw_neighbourhood, footprint_range_m, join, prefetch
from s4g.train.recipe import GroundConfig, OptimConfig, Recipe, ViewConfig
from s4g.train.views import Place, cut_patch, drone_geometry, tile_geometry

SIZE_PX = 64


@pytest.fixture(scope="module")
def grounds() -> list[Ground]:
    config = GroundConfig("landscape", worlds=2, val_worlds=1, size_m=256.0, renders=2)
    return load_grounds((config,), None, lambda name: None)


def recipe(**views: float) -> Recipe:
    return Recipe(
        name="test",
        description="",
        seed=3,
        model=ModelConfig("resnet10t", SIZE_PX, 16),
        views=dataclasses.replace(ViewConfig(), **views),  # type: ignore[arg-type]
        optim=OptimConfig(steps=4, batch_pairs=12, neighbours=4),
    )


EXACT = {
    "center_offset": 0.0,
    "yaw_error_deg": 0.0,
    "tilt_deg": 8.0,
    "tilt_error_deg": 0.0,
    "height_error": 0.0,
    "photometric": 0.0,
}


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.astype(float).ravel(), b.astype(float).ravel())[0, 1])


@given(
    turn_deg=st.floats(0, 360),
    mirror=st.booleans(),
    seed=st.integers(0, 1000),
    footprint_m=st.floats(30, 80),
)
@settings(max_examples=25)
def test_without_errors_a_tilted_drone_view_equals_its_tile(
    grounds: list[Ground], turn_deg: float, mirror: bool, seed: int, footprint_m: float
) -> None:
    place = Place(grounds[0], 128, 128, footprint_m, turn_deg, mirror)
    geometry, offset = drone_geometry(
        place, SIZE_PX, recipe(**EXACT).views, np.random.default_rng(seed)
    )
    tile = cut_patch(place, 0, tile_geometry(place, SIZE_PX), SIZE_PX)
    drone = cut_patch(place, 0, geometry, SIZE_PX)
    assert offset == (0.0, 0.0)
    assert correlation(tile, drone) > 0.995


def test_the_reported_offset_is_where_the_patch_was_cut(grounds: list[Ground]) -> None:
    views = recipe(**{**EXACT, "center_offset": 0.3, "tilt_deg": 0.0}).views
    place = Place(grounds[0], 128, 128, 60, 0, False)
    geometry, (east, north) = drone_geometry(place, SIZE_PX, views, np.random.default_rng(5))
    moved = Place(grounds[0], 128 + east * 60, 128 - north * 60, 60, 0, False)
    there = cut_patch(moved, 0, tile_geometry(moved, SIZE_PX), SIZE_PX)
    assert (abs(east) + abs(north)) > 0.1
    assert correlation(there, cut_patch(place, 0, geometry, SIZE_PX)) > 0.98


def test_a_tile_is_north_up_and_to_scale(grounds: list[Ground]) -> None:
    place = Place(grounds[0], 100, 80, 32, 0, False)
    tile = cut_patch(place, 0, tile_geometry(place, SIZE_PX), SIZE_PX)
    # 0.5 m/px imagery, 32 m over 64 px: a plain cut
    direct = grounds[0].dates[0][0][160 - 32 : 160 + 32, 200 - 32 : 200 + 32]
    assert np.array_equal(tile, direct)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40)
def test_neighbours_never_show_the_same_ground(grounds: list[Ground], seed: int) -> None:
    places = draw_neighbourhood(grounds[0], 0, recipe(), 4, np.random.default_rng(seed))
    footprint = places.footprint_m[0]
    for i in range(len(places)):
        for j in range(i + 1, len(places)):
            apart = math.hypot(places.x_m[i] - places.x_m[j], places.y_m[i] - places.y_m[j])
            assert 0.55 * footprint <= apart <= 2 * math.sqrt(2) * 3 * footprint
        assert grounds[0].valid_share(places.x_m[i], places.y_m[i], footprint) >= 0.97


def test_a_plan_depends_on_the_seed_and_the_step_alone(grounds: list[Ground]) -> None:
    sampler = PairSampler(grounds, recipe())
    first, again, other = sampler.plan(2), PairSampler(grounds, recipe()).plan(2), sampler.plan(3)
    assert np.array_equal(first.local_from_drone, again.local_from_drone)
    assert np.array_equal(first.dates, again.dates)
    assert first.seed == again.seed != other.seed
    assert not np.array_equal(first.places.x_m, other.places.x_m)
    assert len(first.places) == 12


def test_plans_made_ahead_come_in_order(grounds: list[Ground]) -> None:
    sampler = PairSampler(grounds, recipe())
    ahead = list(prefetch(sampler, range(1, 4), threads=2))
    assert [plan.seed for plan in ahead] == [sampler.plan(step).seed for step in (1, 2, 3)]


def test_views_of_one_date_are_changed_more_than_those_of_two(grounds: list[Ground]) -> None:
    plan = PairSampler(grounds, recipe()).plan(0)
    same = plan.dates[:, 0] == plan.dates[:, 1]
    assert np.allclose(plan.strength[same], [0.6, 1.0])
    assert np.allclose(plan.strength[~same], [0.42, 0.7])


def test_a_share_of_a_batch_is_drawn_among_lookalikes(grounds: list[Ground]) -> None:
    mined = dataclasses.replace(recipe(), optim=dataclasses.replace(recipe().optim, lookalikes=0.5))
    sampler = PairSampler(grounds, mined)
    pool = sampler.draw(20, np.random.default_rng(0))
    lists = np.full((20, 3), -1)
    lists[:, 0] = np.roll(np.arange(20), 1)
    sampler.mine(pool, lists)
    places = sampler.plan(5).places
    rows = [int(np.flatnonzero(pool.x_m == x)[0]) for x in places.x_m if x in pool.x_m]
    assert len(places) == 12
    assert len(rows) == 6
    assert not set(places.x_m[6:]) & set(pool.x_m)


def test_lookalikes_that_share_ground_never_meet(grounds: list[Ground]) -> None:
    mined = dataclasses.replace(recipe(), optim=dataclasses.replace(recipe().optim, lookalikes=1.0))
    sampler = PairSampler(grounds, mined)
    one = sampler.draw(1, np.random.default_rng(0))
    pool = join([one, one])
    sampler.mine(pool, np.array([[1], [0]]))
    assert len(sampler._alike(2, np.random.default_rng(1))) == 1


def test_ground_without_a_valid_place_is_named_as_empty(grounds: list[Ground]) -> None:
    empty = dataclasses.replace(grounds[0])
    side = empty.invalid_area.shape[0]
    rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    empty = dataclasses.replace(empty, invalid_area=(rows * columns).astype(np.int32))
    with pytest.raises(S4GError) as error:
        PairSampler([empty], recipe()).plan(0)
    assert str(error.value) == (
        "found 0 of 12 places with valid imagery; the grounds are nearly empty: check nodata, "
        "footprint_min_m and footprint_max_m"
    )


def test_held_out_ground_is_never_drawn(grounds: list[Ground]) -> None:
    held_out = [g for g in grounds if g.validates]
    with pytest.raises(InputError) as error:
        PairSampler(held_out, recipe())
    assert str(error.value) == (
        "recipe test: no training ground can hold a footprint between 20 and 1200 m at 64 px; "
        "add imagery or widen the footprints"
    )


def test_footprints_respect_the_imagery_and_the_ground(grounds: list[Ground]) -> None:
    low, high = footprint_range_m(grounds[0], recipe()) or (0, 0)
    assert low == pytest.approx(max(20, 0.7 * 0.5 * SIZE_PX))
    assert high == pytest.approx(0.6 * 256)
    assert footprint_range_m(grounds[0], recipe(footprint_min_m=500.0)) is None


def test_patches_coarser_than_the_imagery_are_averaged_not_sampled() -> None:
    checker = np.indices((512, 512)).sum(0) % 2 * 255
    image = np.repeat(checker[..., None], 3, axis=2).astype(np.uint8)
    pyramid = [image]
    while pyramid[-1].shape[0] >= 128:
        half = pyramid[-1].shape[0] // 2
        pyramid.append(cv2.resize(pyramid[-1], (half, half), interpolation=cv2.INTER_AREA))
    area = np.zeros((513, 513), np.int32)
    ground = Ground("checker", 0.25, (tuple(pyramid),), area, 1.0, False, 0)
    place = Place(ground, 64, 64, 64, 30, False)
    patch = cut_patch(place, 0, tile_geometry(place, SIZE_PX), SIZE_PX)
    assert patch.std() < 3
