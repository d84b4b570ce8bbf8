import dataclasses
from pathlib import Path

import numpy as np
import pytest

from s4g.core.images import decode_rgb
from s4g.runtime.plot import draw_track
from s4g.runtime.score import ScoredFix, Truth
from s4g.tilepacks.reader import Pack, open_pack


@pytest.fixture
def pack(toy_pack: Path) -> Pack:
    return open_pack(toy_pack)


def place(pack: Pack, east_m: float, north_m: float) -> tuple[float, float]:
    lat, lon = pack.frame.to_wgs84(east_m, north_m)
    return float(lat), float(lon)


def fix(frame: int, where: tuple[float, float] | None) -> ScoredFix:
    lat, lon = where if where is not None else (None, None)
    state = "NO_FIX" if where is None else "TRACK"
    return ScoredFix(frame, float(frame), None, state, None, lat, lon, 2.0, 7.0, 64.0, 9.0)


def truth(pack: Pack, *places_m: tuple[float, float]) -> Truth:
    lat, lon = np.array([place(pack, *p) for p in places_m]).T
    return Truth("truth.csv", lat, lon, np.arange(float(len(lat))), {})


def count(picture: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((np.abs(picture.astype(int) - color).max(axis=2) < 8).sum())


ORANGE, RED, BLUE = (255, 176, 0), (230, 40, 90), (120, 200, 255)
VIOLET = (200, 120, 255)


def test_fixes_errors_and_misses_are_drawn_on_the_imagery(pack: Pack) -> None:
    plain = decode_rgb(draw_track(pack, [], None), "plot")
    found = [fix(0, place(pack, -50, 0)), fix(1, None), fix(2, place(pack, 60, 40))]
    real = truth(pack, (-50, 30), (0, 0), (60, 0))
    picture = decode_rgb(draw_track(pack, found, real), "plot")
    assert picture.shape == plain.shape
    for color in (ORANGE, RED, BLUE):
        assert count(picture, color) > count(plain, color) + 40


def test_what_is_carried_on_is_told_apart_from_what_is_matched(pack: Pack) -> None:
    found = [fix(0, place(pack, -50, 0)), fix(1, place(pack, 60, 40))]
    matched = decode_rgb(draw_track(pack, found, None), "plot")
    found[1] = dataclasses.replace(found[1], state="DEGRADED")
    carried = decode_rgb(draw_track(pack, found, None), "plot")
    assert count(matched, VIOLET) == 0
    # Beside each mark on the map there is one in the legend.
    assert count(carried, VIOLET) == pytest.approx(count(carried, ORANGE), rel=0.2)


def test_a_mark_lies_where_its_place_is(pack: Pack) -> None:
    overview = pack.overview()
    assert overview is not None
    _, west_m, north_m, _ = overview
    picture = decode_rgb(draw_track(pack, [fix(0, place(pack, 30, -20))], None), "plot")
    scale = picture.shape[1] / (overview[0].shape[1] * overview[3])
    x, y = (30 - west_m) * scale, (north_m + 20) * scale
    marks = np.argwhere(np.abs(picture.astype(int) - ORANGE).max(axis=2) < 8)
    near = marks[np.hypot(*(marks - [y, x]).T) < 20]
    assert near.mean(axis=0) == pytest.approx([y, x], abs=2.0)


def test_without_imagery_the_track_is_drawn_on_a_plain_sheet(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "overview", lambda: None)
    picture = decode_rgb(draw_track(pack, [fix(0, place(pack, 0, 0))], None), "plot")
    assert max(picture.shape) == pytest.approx(1000, abs=2)
    assert count(picture, ORANGE) > 40
    assert tuple(picture[picture.shape[0] // 3, picture.shape[1] // 3]) == (70, 70, 70)


def white_between(picture: np.ndarray, pack: Pack, *places_m: tuple[float, float]) -> bool:
    """Tell whether the true path is drawn half way between two places."""
    overview = pack.overview()
    assert overview is not None
    _, west_m, north_m, gsd_m = overview
    scale = picture.shape[1] / (overview[0].shape[1] * gsd_m)
    east, north = np.mean(places_m, axis=0)
    x, y = round((east - west_m) * scale), round((north_m - north) * scale)
    near = picture[y - 3 : y + 4, x - 3 : x + 4]
    return bool((near.min(axis=2) > 240).any())


def test_the_true_path_is_broken_where_the_drone_was_carried_off(pack: Pack) -> None:
    flown = [(-60.0 + 7 * i, -40.0) for i in range(4)]
    after = [(20.0 + 7 * i, 50.0) for i in range(4)]
    seen = [fix(i, None) for i in range(8)]
    picture = decode_rgb(draw_track(pack, seen, truth(pack, *flown, *after)), "plot")
    assert white_between(picture, pack, flown[0], flown[1])
    assert white_between(picture, pack, after[2], after[3])
    assert not white_between(picture, pack, flown[-1], after[0])


def test_the_true_path_is_broken_where_there_is_no_truth(pack: Pack) -> None:
    flown = [(-60.0 + 20 * i, -40.0) for i in range(4)]
    seen = [fix(i, None) for i in (0, 1, 7, 2, 3)]
    picture = decode_rgb(draw_track(pack, seen, truth(pack, *flown)), "plot")
    assert white_between(picture, pack, flown[0], flown[1])
    assert not white_between(picture, pack, flown[1], flown[2])


def test_a_mark_beyond_the_imagery_gets_room(pack: Pack) -> None:
    inside = decode_rgb(draw_track(pack, [fix(0, place(pack, 0, 0))], None), "plot")
    beyond = decode_rgb(draw_track(pack, [fix(0, place(pack, 0, 160))], None), "plot")
    assert beyond.shape[0] / beyond.shape[1] > inside.shape[0] / inside.shape[1] + 0.05
    assert count(beyond, ORANGE) == pytest.approx(count(inside, ORANGE), rel=0.1)


def test_a_fix_far_outside_does_not_break_the_picture(pack: Pack) -> None:
    picture = decode_rgb(draw_track(pack, [fix(0, (0.0, 0.0))], truth(pack, (0, 0))), "plot")
    assert max(picture.shape) == pytest.approx(1000, abs=2)
