"""Whole frames in the benchmark of conditions: which fly, over which map, what comes of them."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from s4g.core.camera import Attitude, Camera
from s4g.core.geo import LocalFrame
from s4g.core.ground import ArrayGround
from s4g.runtime.fix import Reason
from s4g.runtime.localise import FIRST_PATCHES, MAX_PATCHES

FOOTPRINT_M = 40.0
SIZE_PX = 64


@pytest.fixture(autouse=True)
def benchmark_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[1] / "benchmarks" / "encoder"
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])


def toy_scene(seed: int, side_px: int = 640) -> Any:
    """200 x 200 m of rectangles around the origin."""
    import cv2
    from scene import scene_of

    rng = np.random.default_rng(seed)
    image = np.full((side_px, side_px, 3), 120, np.uint8)
    for _ in range(side_px * side_px // 250):
        x, y = (int(v) for v in rng.integers(0, side_px, 2))
        w, h = (int(v) for v in rng.integers(5, 30, 2))
        cv2.rectangle(image, (x, y), (x + w, y + h), rng.integers(0, 256, 3).tolist(), -1)
    valid = np.ones(image.shape[:2], np.bool_)
    ground = ArrayGround(image, valid, LocalFrame(47.0, 8.0), -100.0, 100.0, 200.0 / side_px)
    return scene_of(f"toy {seed}", f"toy {seed}", ground)


def toy_region(seed: int, footprint_m: float = FOOTPRINT_M) -> Any:
    """A map, and four frames taken over it whose telemetry is right."""
    from condition import Region
    from scene import agl_for, foot_below, shots

    scene = toy_scene(seed)
    center_m = np.array([[0.0, 0.0], [-31.0, 12.0], [25.0, 33.0], [14.0, -27.0]])
    poses = [Attitude(70.0 * i, 3.0, -2.0, agl_for(footprint_m)) for i in range(4)]
    frames = [
        scene.frame(pose, foot_below(pose, (east, north)))
        for pose, (east, north) in zip(poses, center_m, strict=True)
    ]
    queries = np.stack([scene.tile(*place, footprint_m, SIZE_PX) for place in center_m])
    cluster = np.array([0, 1, 2, 2])
    flown = shots(frames, poses, footprint_m, center_m, cluster)
    gallery = scene.gallery(footprint_m, SIZE_PX)
    return Region(gallery, queries[:, None], center_m, cluster, flown)


def flown(method: Any, *regions: Any, pool: Any = (), count: int = 100) -> Any:
    from condition import Condition
    from evaluate import Kept
    from flown import fly

    return fly(Condition("toy", "", regions), method, list(pool), Kept(), count)


@pytest.fixture
def method(toy_encoder: Path) -> Any:
    from methods import encoder_method

    return encoder_method("toy", toy_encoder)


def parts(method: Any, region: Any) -> tuple[Any, Any]:
    """Return a region's map and the engine as the localiser gets them."""
    from flown import _Encoder, _Tiles

    tiles = _Tiles(region.gallery, method.prepare(region.gallery.tiles))
    return tiles, _Encoder(method, method.spec)


def test_frames_are_found_on_their_own_map(method: Any) -> None:
    found = flown(method, toy_region(1), toy_region(2))
    assert (found["count"], found["clusters"], found["foreign"]) == (8, 6, 8)
    values = {key: figure["value"] for key, figure in found["figures"].items()}
    assert values["right"] == 1.0
    assert values["issued"] == 1.0
    assert values["false"] == 0.0
    assert values["refused"] == 0.0


def test_a_frame_located_two_footprints_from_where_it_was_taken_is_a_false_fix(
    method: Any,
) -> None:
    region = toy_region(1)
    moved = tuple(
        dataclasses.replace(shot, center_m=shot.center_m + [0.0, 2 * FOOTPRINT_M])
        for shot in region.shots
    )
    figures = flown(method, dataclasses.replace(region, shots=moved))["figures"]
    assert figures["right"]["value"] == 0.0
    assert figures["issued"]["value"] == figures["false"]["value"] == 1.0


def test_how_far_off_a_frame_is_counts_in_its_tiles(method: Any) -> None:
    from flown import _off, located

    region = toy_region(1)
    tiles, engine = parts(method, region)
    shot = region.shots[1]
    finding = located(tiles, engine, shot)
    here = _off(finding, shot)
    assert here < 0.1
    away = dataclasses.replace(shot, center_m=shot.center_m + [0.0, 50 * FOOTPRINT_M])
    assert _off(finding, away) == pytest.approx(50.0, abs=here)


def test_the_runtime_matches_five_patches_and_all_others_only_in_doubt(method: Any) -> None:
    from flown import located

    here, elsewhere = toy_region(1), toy_region(2)
    tiles, engine = parts(method, here)
    counts = []
    for region in (here, elsewhere):
        evidence = located(tiles, engine, region.shots[0]).evidence
        assert evidence is not None
        counts.append(len(evidence.ids))
    assert counts == [FIRST_PATCHES, MAX_PATCHES]


def test_a_foreign_frame_flies_at_the_height_that_the_map_asks_for(method: Any) -> None:
    from flown import located

    small, large = toy_region(1), toy_region(2, 2 * FOOTPRINT_M)
    found = [located(*parts(method, region), small.shots[0]) for region in (small, large)]
    plans = [finding.plan for finding in found]
    assert plans[0] is not None and plans[1] is not None
    assert plans[1].footprint_m == 2 * plans[0].footprint_m
    assert plans[1].centers_m == pytest.approx(2 * plans[0].centers_m)


def test_what_the_runtime_refuses_is_not_found(method: Any) -> None:
    from flown import _off, located

    region = toy_region(1)
    night = dataclasses.replace(region.shots[0], image=region.shots[0].image // 32)
    tilted = dataclasses.replace(
        region.shots[1], reported=dataclasses.replace(region.shots[1].reported, pitch_deg=40.0)
    )
    tiles, engine = parts(method, region)
    assert [located(tiles, engine, shot).reason for shot in (night, tilted)] == [
        Reason.DARK,
        Reason.TILT,
    ]
    assert [_off(located(tiles, engine, shot), shot) for shot in (night, tilted)] == [np.inf] * 2
    of = dataclasses.replace(region, shots=(night, tilted, *region.shots[2:]))
    figures = flown(method, of)["figures"]
    assert figures["refused"]["value"] == 0.5
    assert figures["issued"]["value"] == figures["right"]["value"] == 0.5


def test_a_frame_that_is_matched_in_doubt_has_no_fix(method: Any) -> None:
    elsewhere = toy_region(2).shots
    figures = flown(method, dataclasses.replace(toy_region(1), shots=elsewhere))["figures"]
    assert figures["issued"]["value"] == figures["refused"]["value"] == 0.0
    assert figures["false"]["value"] is None


def test_a_baseline_without_probabilities_flies_no_frame(method: Any) -> None:
    assert flown(dataclasses.replace(method, spec=None), toy_region(1)) is None


def test_a_condition_without_frames_has_none_flown(method: Any) -> None:
    assert flown(method, dataclasses.replace(toy_region(1), shots=())) is None


def test_frames_of_the_pool_are_foreign_unless_they_show_the_same_source(method: Any) -> None:
    from evaluate import Foreign

    region, other = toy_region(1), toy_region(3)
    pool = [
        Foreign(of.gallery.source, of.queries, of.cluster, of.shots[:n])
        for of, n in ((region, 4), (other, 2))
    ]
    assert flown(method, region, pool=pool)["foreign"] == 2
    assert flown(method, region, toy_region(2), pool=pool)["foreign"] == 8  # each other's


def test_foreign_frames_of_two_sources_share_no_cluster() -> None:
    from condition import Condition
    from flown import _foreign

    regions = (toy_region(1), toy_region(2), toy_region(3))
    foreign = _foreign(Condition("", "", regions), regions[0], [])
    assert [number for _, number in foreign] == [0, 1, 2, 2, 10_000, 10_001, 10_002, 10_002]


def test_few_frames_are_taken_from_first_to_last(method: Any) -> None:
    from flown import _spread

    shots = [(shot, number) for number, shot in enumerate(toy_region(1).shots * 3)]
    assert [number for _, number in _spread(shots, 4)] == [0, 4, 7, 11]
    assert _spread(shots, 12) == shots
    found = flown(method, toy_region(1), toy_region(2), count=3)
    assert (found["count"], found["foreign"]) == (4, 4)  # two a region


def test_no_picture_is_embedded_twice() -> None:
    from methods import _once

    asked: list[npt.NDArray[np.uint8]] = []

    def embed(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        asked.extend(images)
        return images.reshape(len(images), -1)[:, :2].astype(np.float64)

    pictures = np.random.default_rng(1).integers(0, 256, (4, 3, 3, 3), dtype=np.uint8)
    prepare = _once(embed)
    first = prepare(pictures[[0, 1, 0]])
    second = prepare(pictures[[2, 1, 3]])
    assert np.array_equal(np.stack(asked), pictures)
    assert np.array_equal(first, embed(pictures[[0, 1, 0]]))
    assert np.array_equal(second, embed(pictures[[2, 1, 3]]))


@pytest.fixture
def toy_site(monkeypatch: pytest.MonkeyPatch) -> None:
    import fault_conditions

    site = fault_conditions.Site(lambda data: toy_scene(4), FOOTPRINT_M)
    monkeypatch.setattr(fault_conditions, "SITES", (site,))


def test_faulty_frames_fly_with_what_telemetry_says_of_them(toy_site: None, tmp_path: Path) -> None:
    import fault_conditions
    from condition import Setting

    setting = Setting(tmp_path, SIZE_PX, 4)
    names = ("no fault", "height -40 %", "haze")
    good, low, haze = (condition.regions[0] for condition in fault_conditions.make(setting, names))
    for true, shot in zip(good.shots, low.shots, strict=True):
        assert shot.reported.agl_m == pytest.approx(0.6 * true.reported.agl_m)
        assert np.array_equal(shot.image, true.image)
    for true, shot in zip(good.shots, haze.shots, strict=True):
        assert shot.reported == true.reported
        assert shot.image.std() < 0.6 * true.image.std()
    assert [shot.cluster for shot in good.shots] == good.cluster.tolist()
    assert np.array_equal([shot.center_m for shot in good.shots], good.center_m)


def test_frames_without_a_heading_do_not_fly(toy_site: None, tmp_path: Path) -> None:
    import fault_conditions
    from condition import Setting

    setting = Setting(tmp_path, SIZE_PX, 4)
    (condition,) = fault_conditions.make(setting, ("heading unknown",))
    assert condition.regions[0].shots == ()


def test_photos_fly_whose_middle_the_map_holds() -> None:
    from condition import Gallery
    from flight_block import Photo
    from photo_conditions import _reported, _shots

    camera = Camera.from_hfov(100, 100, 60.0)
    level = Attitude(0.0, 0.0, 0.0, 70.0)
    tilted = Attitude(90.0, 20.0, 0.0, 70.0)  # looks 25.5 m east
    none = np.zeros((1, 1, 3), np.uint8)
    gallery = Gallery("", "", FOOTPRINT_M, np.zeros((1, 1, 1, 3), np.uint8), np.zeros((1, 2)))
    photos = [
        Photo("", none, camera, level, true, np.array(foot), np.array(foot))
        for true, foot in ((level, [0.0, 9.0]), (level, [0.0, 11.0]), (tilted, [-25.0, 0.0]))
    ]
    shots = _shots(gallery, photos, _reported, 0, None)
    assert [shot.cluster for shot in shots] == [0, 2]
    assert shots[0].center_m == pytest.approx([0.0, 9.0])
    assert shots[1].center_m == pytest.approx([70 * np.tan(np.radians(20)) - 25, 0.0], abs=1e-6)
    assert shots[1].reported == level
