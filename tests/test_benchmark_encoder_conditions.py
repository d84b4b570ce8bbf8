"""The benchmark of conditions: its queries show held-out ground, its faults are what they say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from s4g.core.camera import Attitude
from s4g.core.geo import LocalFrame
from s4g.core.ground import ArrayGround
from s4g.core.landscape import HELD_OUT

SIZE_PX = 64


@pytest.fixture(autouse=True)
def benchmark_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[1] / "benchmarks" / "encoder"
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])


def picture(side_px: int, seed: int) -> npt.NDArray[np.uint8]:
    """Return soft blots (side, side, 3): no two places alike, nothing finer than 8 pixels."""
    import cv2

    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 236, (side_px // 8, side_px // 8, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
    return np.asarray(image, np.uint8)


def toy_scene(valid: npt.NDArray[np.bool_] | None = None) -> Any:
    """A picture of 400 x 400 m at 1 m/px around the origin."""
    from scene import scene_of

    image = picture(400, 5)
    whole = np.ones((400, 400), np.bool_) if valid is None else valid
    ground = ArrayGround(image, whole, LocalFrame(47.0, 8.0), -200.0, 200.0, 1.0)
    return scene_of("toy", "toy", ground)


def alike(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> float:
    pixels = [image.astype(np.float64).ravel() for image in (first, second)]
    return float(np.corrcoef(*pixels)[0, 1])


def test_tiles_lie_a_quarter_footprint_apart_and_hold_imagery() -> None:
    valid = np.ones((400, 400), np.bool_)
    valid[:, :200] = False  # the west
    gallery = toy_scene(valid).gallery(80.0, SIZE_PX)
    assert set(np.diff(np.unique(gallery.center_m[:, 0]))) == {20.0}
    # 97 % of 80 m may reach 2.4 m into the west, which is less than a stride.
    assert gallery.center_m.min(axis=0).tolist() == [40.0, -160.0]
    assert gallery.center_m.max(axis=0).tolist() == [160.0, 160.0]
    assert gallery.tiles.shape == (7 * 17, SIZE_PX, SIZE_PX, 3)


def test_a_frame_with_true_telemetry_becomes_its_tile() -> None:
    from scene import agl_for, foot_below, normalised

    scene = toy_scene()
    true = Attitude(137.0, 6.0, -4.0, agl_for(60.0))
    frame = scene.frame(true, foot_below(true, (25.0, -40.0)))
    query = normalised(frame, true, 60.0, SIZE_PX)
    assert alike(query, scene.tile(25.0, -40.0, 60.0, SIZE_PX)) > 0.99
    assert alike(query, scene.tile(55.0, -40.0, 60.0, SIZE_PX)) < 0.5


@pytest.mark.parametrize(("name", "shown"), [("height +40 %", 1 / 1.4), ("height -40 %", 1 / 0.6)])
def test_a_wrong_height_shows_the_ground_of_another_footprint(name: str, shown: float) -> None:
    from faults import FAULTS
    from scene import agl_for, foot_below, normalised

    scene = toy_scene()
    true = Attitude(0.0, 0.0, 0.0, agl_for(60.0))
    frame = scene.frame(true, foot_below(true, (0.0, 0.0)))
    fault = next(fault for fault in FAULTS if fault.name == name)
    (reported,) = fault.report(true, np.random.default_rng(0))
    query = normalised(frame, reported, 60.0, SIZE_PX)
    assert alike(query, scene.tile(0.0, 0.0, 60.0 * shown, SIZE_PX)) > 0.98


def test_without_a_heading_one_of_the_views_is_nearly_north_up() -> None:
    from faults import FAULTS, HEADINGS
    from scene import agl_for, foot_below, normalised

    scene = toy_scene()
    true = Attitude(200.0, 0.0, 0.0, agl_for(60.0))
    frame = scene.frame(true, foot_below(true, (0.0, 0.0)))
    fault = next(fault for fault in FAULTS if fault.name == "heading unknown")
    reported = fault.report(true, np.random.default_rng(0))
    assert len(reported) == HEADINGS
    likeness = [
        alike(normalised(frame, pose, 60.0, SIZE_PX), scene.tile(0.0, 0.0, 60.0, SIZE_PX))
        for pose in reported
    ]
    assert int(np.argmax(likeness)) == round(200.0 / 360.0 * HEADINGS)


def test_a_tilt_that_is_not_reported_is_ten_degrees() -> None:
    from faults import FAULTS

    fault = next(fault for fault in FAULTS if fault.name == "tilt 10 deg")
    true = Attitude(30.0, 0.0, 0.0, 100.0)
    (reported,) = fault.report(true, np.random.default_rng(3))
    assert reported.tilt_deg == pytest.approx(10.0, abs=0.1)


def test_a_fifth_of_the_ground_is_changed() -> None:
    from faults import FAULTS

    fault = next(fault for fault in FAULTS if fault.name == "20 % changed")
    frames = [picture(640, seed)[:480] for seed in (1, 2)]
    middle = np.s_[120:360, 200:440]
    shares = []
    for seed in range(8):
        changed = fault.change(frames[0], frames[1:], np.random.default_rng(seed))
        shares.append((changed != frames[0]).any(axis=2)[middle].mean())
    assert 0.18 < np.mean(shares) < 0.3


@pytest.mark.parametrize("name", ["blur", "night", "haze", "JPEG", "shadow"])
def test_a_fault_of_the_camera_spoils_the_frame_and_leaves_telemetry_alone(name: str) -> None:
    from faults import FAULTS

    fault = next(fault for fault in FAULTS if fault.name == name)
    rng, frame = np.random.default_rng(4), picture(640, 1)[:480]
    true = Attitude(30.0, 0.0, 0.0, 100.0)
    spoilt = fault.change(frame, [frame], rng)
    assert fault.report(true, rng) == [true]
    assert spoilt.shape == frame.shape and spoilt.dtype == np.uint8
    assert np.abs(spoilt.astype(int) - frame).mean() > 2


def test_north_dakota_is_asked_in_the_east_and_searched_everywhere(data_dir: Path) -> None:
    from condition import Setting
    from date_conditions import GROUPS, NAIP, NAIP_YEARS, _middle
    from scene import read_scene

    if not (data_dir / NAIP).is_dir():
        pytest.skip(f"no {NAIP} in {data_dir}")
    name = "other year, 640 m"
    (condition,) = GROUPS[0].make(Setting(data_dir, SIZE_PX, 50), (name,))
    (region,) = condition.regions
    file = next(iter(sorted((data_dir / NAIP).glob("*_2020*.tif"))))
    west_m, _, east_m, _ = read_scene(file, NAIP, _middle(str(file))).bounds_m
    middle_m = (west_m + east_m) / 2
    assert len(region.queries) == 50 // len(NAIP_YEARS) * len(NAIP_YEARS)
    assert region.center_m[:, 0].min() >= middle_m + 320
    assert region.gallery.center_m[:, 0].min() == pytest.approx(west_m + 320)
    assert region.gallery.center_m[:, 0].max() > east_m - 320 - 160


@pytest.mark.slow
def test_only_held_out_plots_are_asked(data_dir: Path) -> None:
    from condition import Setting
    from date_conditions import GROUPS, NEON

    if not (data_dir / NEON).is_dir():
        pytest.skip(f"no {NEON} in {data_dir}")
    (condition,) = GROUPS[1].make(Setting(data_dir, SIZE_PX, 28), ("other season",))
    (region,) = condition.regions
    assert sorted(set(region.cluster.tolist())) == [4, 9, 14, 19, 24, 29, 34]
    nearest_m = np.linalg.norm(
        region.center_m[:, None] - region.gallery.center_m[None], axis=2
    ).min(axis=1)
    assert nearest_m.max() < 3.0  # their plots are in the map, with all others


def test_orthophotos_are_asked_in_their_eastern_part(data_dir: Path) -> None:
    from condition import Setting
    from fault_conditions import ORTHOS, SITES, TRAINS, _flight

    if not (data_dir / ORTHOS).is_dir():
        pytest.skip(f"no {ORTHOS} in {data_dir}")
    setting = Setting(data_dir, SIZE_PX, 5)
    assert [site.trains for site in SITES][:4] == [TRAINS] * 4
    for number in range(4):
        scene = SITES[number].load(setting.data)
        west_m, _, east_m, _ = scene.bounds_m
        places, _, _ = _flight(setting.data, number, setting.queries)
        edge_m = min(east for east, _ in places) - SITES[number].footprint_m / 2
        assert edge_m >= west_m + TRAINS * (east_m - west_m)


def test_worlds_are_of_styles_that_no_recipe_trains_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import world_conditions

    monkeypatch.setattr(world_conditions, "SIZE_M", 64.0)
    world_conditions._world.cache_clear()
    worlds = [world_conditions._world(number) for number in (0, 1)]
    world_conditions._world.cache_clear()
    assert {world.style.name for world in worlds} == set(HELD_OUT)
    assert [world.seed for world in worlds] == [900_000, 900_001]


def test_held_out_photos_of_seneca_touch_no_photo_that_trains(data_dir: Path) -> None:
    from flight_block import SENECA, Photo
    from photo_conditions import held_out

    from s4g.core.camera import Camera

    folder = data_dir / SENECA.folder
    if not folder.is_dir():
        pytest.skip(f"no {SENECA.folder} in {data_dir}")
    camera = Camera.from_hfov(1200, 900, 60.0)
    none, level = np.zeros((1, 1, 3), np.uint8), Attitude(0.0, 0.0, 0.0, 70.0)
    photos = [
        Photo(file.name, none, camera, level, level, np.zeros(2), np.zeros(2))
        for file in sorted((folder / "photos").glob("*.jpg"))
    ]
    assert len(held_out(data_dir, photos)) == 11


def test_a_block_finds_what_telemetry_has_wrong() -> None:
    from flight_block import Photo, _moved, _solved

    from s4g.core.camera import Camera

    camera = Camera.from_hfov(100, 100, 60.0)
    level = Attitude(0.0, 0.0, 0.0, 70.0)
    none = np.zeros((1, 1, 3), np.uint8)
    # Five photos in a row; the third's heading is 10 degrees off.
    places = np.array([[30.0 * i, 5.0 * (i % 2)] for i in range(5)])
    angles = np.radians([0, 0, 10, 0, 0])
    shift = np.column_stack([np.cos(angles), np.sin(angles), places])
    photos = [Photo("", none, camera, level, level, place, place) for place in places]
    rng = np.random.default_rng(6)
    ties = []
    for i in range(4):
        ground = places[i] + rng.uniform(-20, 50, (40, 2))
        pair = []
        for j in (i, i + 1):
            back = np.array([shift[j, 0], -shift[j, 1], 0.0, 0.0])
            pair.append(_moved(back, ground - places[j]))
        ties.append((i, i + 1, pair[0], pair[1]))
    solved = _solved(photos, ties)
    found_deg = np.degrees(np.arctan2(solved[:, 1], solved[:, 0]))
    assert found_deg == pytest.approx([0, 0, 10, 0, 0], abs=2.5)
    assert np.abs(solved[:, 2:] - places).max() < 2.0
