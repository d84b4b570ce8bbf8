"""Pairs show the same ground; a batch never holds the same ground twice."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.train.grounds import Ground, load_grounds
from s4g.train.model import ModelConfig
from s4g.train.pairs import PairSampler, draw_neighbourhood, footprint_range_m, prefetch
from s4g.train.recipe import GroundConfig, OptimConfig, Recipe, ViewConfig
from s4g.train.views import Place, cut_patch, drone_geometry, photometric, tile_geometry

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
    places = draw_neighbourhood(grounds[0], recipe(), 4, np.random.default_rng(seed))
    footprint = places[0].footprint_m
    for i, a in enumerate(places):
        for b in places[i + 1 :]:
            apart = math.hypot(a.x_m - b.x_m, a.y_m - b.y_m)
            assert 0.55 * footprint <= apart <= 2 * math.sqrt(2) * 3 * footprint
        assert grounds[0].valid_share(a.x_m, a.y_m, footprint) >= 0.97


def test_a_batch_depends_on_the_seed_and_the_step_alone(grounds: list[Ground]) -> None:
    sampler = PairSampler(grounds, recipe())
    first, again, other = sampler[2], PairSampler(grounds, recipe())[2], sampler[3]
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    assert first[0].shape == (12, SIZE_PX, SIZE_PX, 3)
    assert first[0].dtype == np.uint8


def test_batches_made_ahead_come_in_order(grounds: list[Ground]) -> None:
    sampler = PairSampler(grounds, recipe())
    ahead = list(prefetch(sampler, range(1, 4), threads=2))
    assert len(ahead) == 3
    for step, (tiles, _) in enumerate(ahead, start=1):
        assert np.array_equal(tiles, sampler[step][0])


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


@given(seed=st.integers(0, 100_000))
@settings(max_examples=60)
def test_photometric_change_keeps_the_picture_a_picture(grounds: list[Ground], seed: int) -> None:
    image = np.ascontiguousarray(grounds[0].dates[0][0][:SIZE_PX, :SIZE_PX])
    before = image.copy()
    changed = photometric(image, 1.0, np.random.default_rng(seed))
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8
    assert np.array_equal(image, before), "the input must not be written to"


def test_photometric_strength_zero_changes_nothing(grounds: list[Ground]) -> None:
    image = grounds[0].dates[0][0][:SIZE_PX, :SIZE_PX]
    assert photometric(image, 0.0, np.random.default_rng(0)) is image


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
