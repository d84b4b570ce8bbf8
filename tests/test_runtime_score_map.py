import base64
import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from s4g.core.errors import InputError
from s4g.core.geo import LocalFrame
from s4g.core.ground import ArrayGround
from s4g.core.images import decode_rgb
from s4g.runtime.score_flight import Flight, match_flight
from s4g.runtime.score_map import Map, draw_map
from s4g.runtime.score_read import ScoredFix
from s4g.runtime.score_truth import Event, Truth
from s4g.tilepacks.reader import Pack, open_pack

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_fixes.py"))))


@pytest.fixture
def pack(toy_pack: Path) -> Pack:
    return open_pack(toy_pack)


def flown(
    frame: LocalFrame,
    true_m: list[tuple[float, float]],
    fixed_m: list[tuple[float, float] | None],
    events: tuple[Event, ...] = (),
    **changes: Any,
) -> Flight:
    """A flight through these places, east and north in metres, a frame a second."""
    lat, lon = frame.to_wgs84(*np.array(true_m, np.float64).T)
    truth = Truth("truth.csv", lat, lon, np.arange(float(len(lat))), {}, events)
    fixes: list[ScoredFix] = []
    for number, place in enumerate(fixed_m):
        if place is None:
            fixes.append(toy.fix(number, None))
        else:
            at = [float(v) for v in frame.to_wgs84(*place)]
            fixes.append(toy.fix(number, 0, lat=at[0], lon=at[1], **changes))
    return match_flight(fixes, truth)


class Sheet:
    """A map read back: places in metres from the middle of the picture's left upper corner."""

    def __init__(self, drawn: Map) -> None:
        self.root = ElementTree.fromstring(drawn.svg)
        width, height = map(float, (self.root.get("viewBox") or "").split()[2:])
        self.size_px = (width, height)
        self.gsd_m = drawn.bar_m / (drawn.bar_share * width)

    def d(self, kind: str) -> str:
        return next((p.get("d") or "" for p in self.root.iter() if p.get("class") == kind), "")

    def places_m(self, kind: str) -> np.ndarray:
        """East and south of the corner, metres."""
        found = re.findall(r"[ML]([\d.-]+) ([\d.-]+)", self.d(kind))
        return np.array(found, np.float64).reshape(-1, 2) * self.gsd_m

    def picture(self) -> np.ndarray:
        (image,) = [part for part in self.root.iter() if part.tag == "image"]
        kind, data = (image.get("href") or "").split(",")
        assert kind == "data:image/jpeg;base64"
        return decode_rgb(base64.b64decode(data), "map")


def test_fixes_lie_beside_their_true_places_to_scale(pack: Pack) -> None:
    flight = flown(pack.frame, [(0, 0), (50, 0), (50, 40)], [(3, 0), (50, -4), None])
    sheet = Sheet(draw_map(flight, pack, []))
    true_m, fixed_m = sheet.places_m("truth"), sheet.places_m("dot TRACK")
    assert true_m - true_m[0] == pytest.approx(
        np.array([[0, 0], [50, 0], [50, -40]]), abs=sheet.gsd_m
    )
    assert fixed_m - true_m[0] == pytest.approx(np.array([[3, 0], [50, 4]]), abs=sheet.gsd_m)
    assert sheet.places_m("dot missed") == pytest.approx(true_m[2:], abs=sheet.gsd_m)


def test_circles_hold_95_percent(pack: Pack) -> None:
    drawn = draw_map(flown(pack.frame, [(0, 0)], [(0, 0)], sigma_m=5.0), pack, [])
    sheet = Sheet(drawn)
    radii = re.findall(r"a([\d.]+) ", sheet.d("r95"))
    assert [float(r) * sheet.gsd_m for r in radii] == pytest.approx([2.448 * 5] * 2, abs=0.05)
    assert drawn.every == 1


def test_of_many_fixes_some_have_their_circle(pack: Pack) -> None:
    places = [(i / 10, 0.0) for i in range(1000)]
    drawn = draw_map(flown(pack.frame, places, list(places)), pack, [])
    assert drawn.every == 9
    assert Sheet(drawn).d("r95").count("M") == 112


def test_false_fixes_and_the_marked_are_joined_with_the_truth(pack: Pack) -> None:
    flight = flown(pack.frame, [(0, 0), (9, 0), (18, 0)], [(0, 45), (9, 5), (18, 2)])
    assert Sheet(draw_map(flight, pack, [])).d("join").count("M") == 1
    sheet = Sheet(draw_map(flight, pack, [1, 0]))
    assert sheet.d("join").count("M") == 2
    steps = np.diff(sheet.places_m("join").reshape(2, 2, 2), axis=1)[:, 0]
    assert steps == pytest.approx(np.array([[0, 45], [0, 5]]), abs=2 * sheet.gsd_m)


def test_states_have_marks_of_their_own(pack: Pack) -> None:
    flight = flown(pack.frame, [(0, 0)], [(1, 0)], state="DEGRADED")
    sheet = Sheet(draw_map(flight, pack, []))
    assert sheet.d("dot DEGRADED") and not sheet.d("dot TRACK")


def test_the_path_is_broken_where_the_drone_was_carried_off(pack: Pack) -> None:
    places = [(0.0, 0.0), (2.0, 0.0), (4.0, 0.0), (90.0, 50.0), (92.0, 50.0)]
    flight = flown(pack.frame, places, [None] * 5, (Event("kidnap", 3),))
    assert Sheet(draw_map(flight, pack, [])).d("truth").count("M") == 2


def test_a_fix_far_away_is_counted_and_not_shown(pack: Pack) -> None:
    flight = flown(pack.frame, [(0, 0), (60, 0)], [(0, 5), (50_000, 0)])
    drawn = draw_map(flight, pack, [])
    assert drawn.beyond == 1
    width_px, height_px = Sheet(drawn).size_px
    assert max(width_px, height_px) == 1400
    assert width_px * Sheet(drawn).gsd_m < 120
    near = draw_map(flown(pack.frame, [(0, 0), (60, 0)], [(0, 5), (72, 0)]), pack, [])
    assert near.beyond == 0


def test_the_imagery_lies_where_the_ground_is(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A red square of 10 m, 20 m east and 10 m north of the flight."""
    rgb = np.full((400, 400, 3), 60, np.uint8)
    rgb[160:180, 240:260] = (255, 0, 0)
    ground = ArrayGround(rgb, np.ones((400, 400), bool), pack.frame, -100.0, 100.0, 0.5)
    monkeypatch.setattr(pack, "imagery", lambda: ground)
    drawn = draw_map(flown(pack.frame, [(0, 0), (30, 0)], [(0, 0), (30, 0)]), pack, [])
    sheet = Sheet(drawn)
    picture = sheet.picture().astype(int)
    assert picture.shape[:2] == sheet.size_px[::-1]
    red = np.argwhere((picture[..., 0] > 200) & (picture[..., 1] < 80))[:, ::-1] + 0.5
    start = sheet.places_m("truth")[0]
    assert red.mean(axis=0) * sheet.gsd_m - start == pytest.approx([25, -15], abs=0.3)
    assert len(red) * sheet.gsd_m**2 == pytest.approx(100, rel=0.05)


def test_the_overview_serves_where_there_is_no_imagery(pack: Pack) -> None:
    drawn = draw_map(flown(pack.frame, [(0, 0), (30, 0)], [(0, 0), None]), pack, [])
    assert pack.imagery() is None
    assert Sheet(drawn).picture().std() > 5
    assert drawn.credit == pack.attribution


def test_without_a_pack_there_is_a_plain_sheet() -> None:
    drawn = draw_map(flown(toy.HOME, [(0, 0), (30, 0)], [(1, 0), (31, 2)]), None, [])
    sheet = Sheet(drawn)
    assert [part.get("class") for part in sheet.root if part.tag == "rect"] == ["sheet"]
    assert (drawn.credit, drawn.beyond) == ("", 0)
    true_m = sheet.places_m("truth")
    assert true_m[1] - true_m[0] == pytest.approx([30, 0], abs=sheet.gsd_m)


def test_a_pack_without_any_picture_leaves_a_plain_sheet(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "overview", lambda: None)
    drawn = draw_map(flown(pack.frame, [(0, 0)], [(1, 0)]), pack, [])
    assert "<image" not in drawn.svg and drawn.credit == ""


def test_the_scale_bar_is_round_and_to_scale(pack: Pack) -> None:
    drawn = draw_map(flown(pack.frame, [(0, 0), (100, 0)], [None, None]), pack, [])
    assert drawn.bar_m == 20.0
    assert 0.1 < drawn.bar_share <= 0.2


def test_a_pack_of_another_place_is_refused(pack: Pack) -> None:
    flight = flown(LocalFrame(-33.0, 151.0), [(0, 0), (30, 0)], [(0, 0), None])
    with pytest.raises(InputError) as error:
        draw_map(flight, pack, [])
    assert str(error.value) == (
        f"{pack.path}: holds no ground of this flight; give the pack that it was flown with"
    )
