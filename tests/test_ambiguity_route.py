from __future__ import annotations

import dataclasses
import json
import runpy
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("shapely", reason="areas need shapely (the pack extra)")

from s4g.core.errors import InputError
from s4g.core.geo import LocalFrame
from s4g.tilepacks import ambiguity_route
from s4g.tilepacks.ambiguity import find_ambiguity
from s4g.tilepacks.ambiguity_route import (
    FINE,
    HARD,
    NOTHING,
    OUTSIDE,
    RouteAhead,
    Stretch,
    look_ahead,
    route_text,
    route_values,
    stretches,
)
from s4g.tilepacks.area import Area, read_route
from s4g.tilepacks.pictures import draw_route
from s4g.tilepacks.reader import Pack
from s4g.tilepacks.variants import Variant

_HERE = Path(__file__)
toy = SimpleNamespace(**runpy.run_path(str(_HERE.with_name("toy_vectors.py"))))
land = SimpleNamespace(**runpy.run_path(str(_HERE.with_name("toy_map.py"))))

Floats = npt.NDArray[np.float64]
Line = Sequence[tuple[float, float]]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pack]:
    """20 x 20 tiles of 64 m, centres at 8, 24, … 152 m from the origin.

    The five columns in the west look like the five in the east; in the two rows at the southern
    edge there is nothing to see.
    """
    rows, columns = np.divmod(np.arange(400), 20)
    vectors = toy.smooth(20, 20)
    vectors[columns < 5] = vectors[columns >= 15]
    detail = np.where(rows >= 18, 15, 16)
    tiles = land.tiles_of(land.lattice_of(20, 20), vectors, detail=detail)
    grey = np.full((368, 368, 3), 100, np.uint8)
    path = tmp_path_factory.mktemp("pack") / "p.s4gpack"
    with land.write_map(path, [tiles], picture=grey) as opened:
        yield opened


def route(folder: Path, *lines: Line) -> Area:
    return read_route(land.write_route(folder / "r.geojson", *lines), 1.0)


def area(*lines: Line) -> Area:
    """Lines of east, north metres without a file."""
    rings = []
    for line in lines:
        lat, lon = land.FRAME.to_wgs84(*np.array(line, float).T)
        rings.append((tuple(zip(lon.tolist(), lat.tolist(), strict=True)),))
    return Area("r.geojson", tuple(rings), 0.5, land.FRAME)


def kinds(ahead: RouteAhead) -> list[int]:
    return [int(kind) for kind in ahead.kind]


def test_a_line_is_sampled_in_equal_steps_to_its_end(pack: Pack) -> None:
    ahead = look_ahead(pack, 0, area([(0.0, 0.0), (100.0, 0.0)]), 30.0)
    np.testing.assert_allclose(ahead.at_m, [0, 30, 60, 90, 100], atol=1e-6)
    np.testing.assert_allclose(ahead.length_m, [15, 30, 30, 20, 5], atol=1e-6)
    np.testing.assert_allclose(ahead.east_m, [0, 30, 60, 90, 100], atol=1e-6)
    np.testing.assert_allclose(ahead.north_m, 0, atol=1e-6)
    assert ahead.line.tolist() == [0] * 5


def test_a_whole_number_of_steps_has_no_sample_too_many(pack: Pack) -> None:
    ahead = look_ahead(pack, 0, area([(0.0, 0.0), (90.0, 0.0)]), 30.0)
    np.testing.assert_allclose(ahead.at_m, [0, 30, 60, 90], atol=1e-6)


def test_steps_go_around_corners(pack: Pack) -> None:
    ahead = look_ahead(pack, 0, area([(0.0, 0.0), (40.0, 0.0), (40.0, 40.0)]), 30.0)
    np.testing.assert_allclose(ahead.east_m, [0, 30, 40, 40], atol=1e-6)
    np.testing.assert_allclose(ahead.north_m, [0, 0, 20, 40], atol=1e-6)


def test_between_two_lines_there_are_no_metres(pack: Pack) -> None:
    lines = [(0.0, 0.0), (50.0, 0.0)], [(0.0, 100.0), (0.0, 40.0)]
    ahead = look_ahead(pack, 0, area(*lines), 25.0)
    assert ahead.line.tolist() == [0, 0, 0, 1, 1, 1, 1]
    np.testing.assert_allclose(ahead.at_m, [0, 25, 50, 50, 75, 100, 110], atol=1e-6)
    assert ahead.metres(OUTSIDE, NOTHING, HARD, FINE) == pytest.approx(110, abs=1e-6)


def test_a_line_of_one_place_is_one_sample_without_length(pack: Pack) -> None:
    for line in ([(8.0, 8.0)], [(8.0, 8.0), (8.0, 8.0)]):
        ahead = look_ahead(pack, 0, area(line), 25.0)
        assert (ahead.at_m.tolist(), ahead.length_m.tolist()) == ([0.0], [0.0])
        assert kinds(ahead) == [FINE]


# A route is given in degrees: what is shorter than their last digits is one place.
_DECIMETRES = st.integers(-4000, 4000).map(lambda tenths: tenths / 10)


@settings(max_examples=40)
@given(
    lines=st.lists(
        st.lists(st.tuples(_DECIMETRES, _DECIMETRES), min_size=2, max_size=5),
        min_size=1,
        max_size=3,
    ),
    spacing_m=st.floats(7, 900),
)
def test_samples_lie_on_the_route_and_their_lengths_add_up(
    pack: Pack, lines: list[Line], spacing_m: float
) -> None:
    ahead = look_ahead(pack, 0, area(*lines), spacing_m)
    length = [float(np.hypot(*np.diff(np.array(line), axis=0).T).sum()) for line in lines]
    whole_m = ahead.metres(OUTSIDE, NOTHING, HARD, FINE)
    assert whole_m == pytest.approx(sum(length), abs=1e-3)
    assert whole_m == pytest.approx(sum(ahead.metres(kind) for kind in range(4)))
    assert (ahead.length_m >= 0).all()
    before = 0.0
    for number, line in enumerate(lines):
        own = ahead.line == number
        at = ahead.at_m[own]
        assert (at[0], at[-1]) == (
            pytest.approx(before if len(at) > 1 else at[0], abs=1e-3),
            pytest.approx(before + length[number], abs=1e-3),
        )
        steps = np.diff(at)
        np.testing.assert_allclose(steps[:-1], spacing_m, rtol=1e-6)
        assert (steps > 0).all() and (steps <= spacing_m * (1 + 2e-6)).all()
        corners = np.array(line)
        along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(corners, axis=0).T))])
        for values, axis in ((ahead.east_m, 0), (ahead.north_m, 1)):
            expected = np.interp(at - before, along, corners[:, axis])
            np.testing.assert_allclose(values[own], expected, atol=1e-3)
        before += length[number]


def test_each_sample_is_told_of_the_tile_under_it(pack: Pack) -> None:
    ahead = look_ahead(pack, 0, area([(-152.0, 24.0), (152.0, 24.0)]), 16.0)
    found = find_ambiguity(pack, 0)
    east, north = pack.east_m[ahead.tile], pack.north_m[ahead.tile]
    np.testing.assert_allclose(east, ahead.east_m, atol=1e-5)
    np.testing.assert_allclose(north, 24.0, atol=1e-5)
    np.testing.assert_allclose(ahead.cosine, found.cosine[ahead.tile], atol=1e-6)
    np.testing.assert_allclose(ahead.own, found.own[ahead.tile], atol=1e-6)
    np.testing.assert_allclose(ahead.away_m, found.away_m[ahead.tile], atol=1e-6)
    np.testing.assert_allclose(ahead.detail_grey, 1.0)
    assert kinds(ahead)[:5] == kinds(ahead)[-5:] == [HARD] * 5
    assert kinds(ahead)[6:14] == [FINE] * 8  # at the seam the ground changes fast
    assert (found.hard[ahead.tile] == (ahead.kind == HARD)).all()


def test_beyond_half_a_footprint_from_every_tile_is_outside(pack: Pack) -> None:
    places = [(183.9, 24.0), (184.1, 24.0)]
    inside, outside = (look_ahead(pack, 0, area([place]), 16.0) for place in places)
    assert kinds(inside) == [HARD]
    assert kinds(outside) == [OUTSIDE]
    assert outside.tile.tolist() == [-1]
    for name in ("cosine", "own", "away_m", "detail_grey"):
        assert np.isnan(getattr(outside, name)).all()


def test_a_coarse_lattice_has_no_holes_between_its_tiles(tmp_path: Path) -> None:
    tiles = land.tiles_of(land.lattice_of(3, 3, stride_px=64), toy.unit(9, 8))
    with land.write_map(tmp_path / "p", [tiles]) as pack:
        ahead = look_ahead(pack, 0, area([(32.0, 32.0)]), 16.0)
    assert kinds(ahead) == [FINE]
    assert np.isnan(ahead.own).all()


def test_where_there_is_nothing_to_see_it_matters_not_how_hard_it_is(pack: Pack) -> None:
    ahead = look_ahead(pack, 0, area([(-152.0, -136.0), (152.0, -136.0)]), 16.0)
    assert kinds(ahead) == [NOTHING] * 20
    np.testing.assert_allclose(ahead.detail_grey, 15 / 16)
    ahead = look_ahead(pack, 0, area([(-152.0, -120.0)]), 16.0)
    assert kinds(ahead) == [HARD]  # one grey level is something


def test_of_tiles_equally_near_the_hardest_is_told(pack: Pack) -> None:
    # Columns 4 and 5, and 14 and 15, with the edge of the hard ground half-way between.
    for edge in (-80.0, 80.0):
        ahead = look_ahead(pack, 0, area([(edge, 24.0)]), 16.0)
        assert kinds(ahead) == [HARD]
        assert abs(pack.east_m[ahead.tile[0]]) == 88.0


@pytest.mark.parametrize("hard", [0, 1])
def test_of_two_dates_in_a_place_the_harder_is_told(tmp_path: Path, hard: int) -> None:
    names = Variant(0, 0.0), Variant(0, 180.0)
    vectors = toy.smooth(1, 20)
    pair = np.stack([vectors, toy.smooth(1, 20, seed=1)])
    pair[hard, 10:] = pair[hard, :10]
    both = np.concatenate([pair[0], pair[1]])
    cells, variants = np.tile(np.arange(20), 2), np.repeat([0, 1], 20)
    tiles = land.tiles_of(land.lattice_of(1, 20), both, cells, variants)
    with land.write_map(tmp_path / "p", [tiles], names) as pack:
        ahead = look_ahead(pack, 0, area([(-152.0, 0.0), (152.0, 0.0)]), 16.0)
        assert (pack.variants(0)[ahead.tile] == hard).all()
    assert (ahead.cosine > 0.999).all()


@pytest.mark.parametrize("like", [0, 1])
def test_where_own_scores_are_unknown_the_rival_tells_the_hardest(
    tmp_path: Path, like: int
) -> None:
    names = Variant(0, 0.0), Variant(0, 180.0)
    vectors = toy.unit(6, 8).reshape(2, 3, 8)
    vectors[like, 2] = vectors[like, 0]
    cells, variants = np.tile(np.arange(3), 2), np.repeat([0, 1], 3)
    tiles = land.tiles_of(
        land.lattice_of(1, 3, stride_px=64), vectors.reshape(6, 8), cells, variants
    )
    with land.write_map(tmp_path / "p", [tiles], names) as pack:
        ahead = look_ahead(pack, 0, area([(-64.0, 0.0)]), 16.0)
    assert ahead.cosine[0] > 0.999


def test_tiles_of_another_level_are_told_by_their_own_numbers(tmp_path: Path) -> None:
    first = land.tiles_of(land.lattice_of(8, 8), toy.smooth(8, 8))
    second = land.tiles_of(land.lattice_of(2, 2, footprint_m=128.0), toy.unit(4, 16))
    with land.write_map(tmp_path / "p", [first, second]) as pack:
        ahead = look_ahead(pack, 1, area([(16.0, 16.0)]), 16.0)
        assert ahead.tile[0] >= 64
        assert (pack.east_m[ahead.tile[0]], pack.north_m[ahead.tile[0]]) == (16.0, 16.0)
        assert ahead.detail_grey.tolist() == [6.0]
    assert ahead.away_m.tolist() == [np.inf] and ahead.cosine.tolist() == [-1.0]


@pytest.mark.parametrize("spacing_m", [0.0, -5.0, float("nan")])
def test_a_spacing_that_is_none_is_refused(pack: Pack, spacing_m: float) -> None:
    with pytest.raises(InputError) as error:
        look_ahead(pack, 0, area([(0.0, 0.0), (9.0, 0.0)]), spacing_m)
    assert str(error.value) == f"--spacing {spacing_m:g}: expected metres above 0"


@pytest.mark.parametrize("spacing_m", [0.0004, 1e-320])
def test_samples_without_end_are_refused(pack: Pack, spacing_m: float) -> None:
    with pytest.raises(InputError) as error:
        look_ahead(pack, 0, area([(0.0, 0.0), (90.0, 0.0)]), spacing_m)
    assert str(error.value) == (
        f"--spacing {spacing_m:g} m: more than 200,000 samples along r.geojson; choose a longer one"
    )


def test_samples_of_all_lines_are_counted(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ambiguity_route, "MAX_SAMPLES", 20)
    line = [(0.0, 0.0), (95.0, 0.0)]
    look_ahead(pack, 0, area(line), 10.0)
    with pytest.raises(InputError, match="more than 20 samples"):
        look_ahead(pack, 0, area(line, line), 10.0)


def test_progress_ends_at_the_tiles_that_are_compared(pack: Pack) -> None:
    told: list[tuple[str, int]] = []
    done: list[int] = []

    def progress(description: str, total: int) -> Any:
        told.append((description, total))
        return nullcontext(done.append)

    look_ahead(pack, 0, area([(-152.0, 24.0), (152.0, 24.0)]), 4.0, progress)
    assert told == [("comparing tiles", 20)] and sum(done) == 20


def ahead_of(
    kind: Sequence[int],
    line: Sequence[int] | None = None,
    cosine: Sequence[float] | None = None,
    own: Sequence[float] | None = None,
    away_m: Sequence[float] | None = None,
) -> RouteAhead:
    """Samples every 10 m, each of which stands for 10 m."""
    count = len(kind)
    at, metres = 10.0 * np.arange(count), np.full(count, 10.0)
    outside = np.array(kind) == OUTSIDE

    def known(values: Sequence[float] | None, usual: float) -> Floats:
        found = np.full(count, usual) if values is None else np.array(values, float)
        found[outside] = np.nan
        return found

    return RouteAhead(
        np.zeros(count, np.int64) if line is None else np.array(line),
        at,
        metres,
        at - 50,
        np.full(count, 20.0),
        np.where(outside, -1, np.arange(count)),
        known(cosine, 0.9),
        known(own, 0.8),
        known(away_m, 300.0),
        known(None, 6.0),
        np.array(kind),
    )


def test_stretches_are_told_longest_first() -> None:
    ahead = ahead_of([FINE, HARD, FINE, NOTHING, HARD, HARD, OUTSIDE, FINE, HARD, HARD])
    found = stretches(ahead)
    assert [(s.first, s.last, s.from_m, s.to_m, s.kinds) for s in found] == [
        (3, 6, 30.0, 70.0, ("outside", "nothing to see", "hard")),
        (8, 9, 80.0, 100.0, ("hard",)),
        (1, 1, 10.0, 20.0, ("hard",)),
    ]


def test_of_equally_long_stretches_the_first_comes_first() -> None:
    found = stretches(ahead_of([HARD, FINE, OUTSIDE, FINE, HARD]))
    assert [s.first for s in found] == [0, 2, 4]


def test_a_route_without_a_safe_fix_is_one_stretch_for_each_line() -> None:
    found = stretches(ahead_of([HARD] * 5, line=[0, 0, 0, 1, 1]))
    assert [(s.first, s.last) for s in found] == [(0, 2), (3, 4)]


def test_a_fine_route_has_no_stretch() -> None:
    assert stretches(ahead_of([FINE] * 3)) == []


def test_a_stretch_that_ends_a_route_does_not_go_on_at_its_begin() -> None:
    found = stretches(ahead_of([HARD, FINE, FINE, HARD]))
    assert [(s.first, s.last) for s in found] == [(0, 0), (3, 3)]


def test_the_worst_of_a_stretch_is_its_hardest_sample() -> None:
    # By what is left of the margin, not by the cosine alone.
    cosine, own = [0.9, 0.95, 0.8, 0.9], [0.8, 0.9, 0.6, 0.8]
    (found,) = stretches(ahead_of([HARD] * 4, cosine=cosine, own=own))
    assert found.worst == 2
    (found,) = stretches(ahead_of([OUTSIDE, OUTSIDE, HARD], cosine=cosine[:3], own=own[:3]))
    assert found.worst == 2


def test_without_any_rival_the_first_is_the_worst() -> None:
    (found,) = stretches(ahead_of([OUTSIDE] * 3))
    assert found.worst == 0
    alone = ahead_of([NOTHING] * 3, cosine=[-1] * 3, own=[0.9, 0.8, 0.7], away_m=[np.inf] * 3)
    assert stretches(alone)[0].worst == 0


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_every_bad_sample_is_in_one_stretch(kind: list[int]) -> None:
    ahead = ahead_of(kind)
    found = stretches(ahead)
    inside = [number for s in found for number in range(s.first, s.last + 1)]
    assert sorted(inside) == [number for number, k in enumerate(kind) if k != FINE]
    assert sum(s.to_m - s.from_m for s in found) == ahead.metres(OUTSIDE, NOTHING, HARD)
    lengths = [s.to_m - s.from_m for s in found]
    assert lengths == sorted(lengths, reverse=True)
    assert all(s.first <= s.worst <= s.last for s in found)


def place_of(east_m: float, north_m: float) -> tuple[float, float]:
    lat, lon = land.FRAME.to_wgs84(east_m, north_m)
    return round(float(lat), 7), round(float(lon), 7)


def test_the_text_tells_the_longest_stretches_and_the_totals(pack: Pack) -> None:
    ahead = ahead_of(
        [FINE, HARD, HARD, FINE, OUTSIDE, FINE, NOTHING],
        cosine=[0.5, 0.9, 0.95, 0.5, 0, 0.5, -1],
        away_m=[300, 310.6, 321.4, 300, 0, 300, np.inf],
    )
    ahead = dataclasses.replace(ahead, length_m=np.array([5, 100, 200, 10, 20, 10, 50.0]))
    found = stretches(ahead)
    worst, nothing = place_of(-30.0, 20.0), place_of(10.0, 20.0)
    first = (
        f"  1  km    0.01 to    0.30  hard, worst at {worst[0]:.6f},{worst[1]:.6f}, "
        "cosine 0.95 to a place 321 m away"
    )
    second = (
        f"  2  km    0.34 to    0.40  nothing to see, worst at {nothing[0]:.6f},{nothing[1]:.6f}"
    )
    total = "route 0.40 km: 0.38 in the pack, 0.30 hard, 0.05 with nothing to see, 0.02 outside"
    assert route_text(pack, ahead, found, 2).splitlines() == [
        first,
        second,
        "     1 shorter ones, 0.02 km in all",
        total,
    ]
    last = route_text(pack, ahead, found, 3).splitlines()[2:]
    assert len(last) == 2 and last[0].startswith("  3  km ")
    assert route_text(pack, ahead, [], 10) == total


def test_kinds_of_a_stretch_are_joined_in_the_text(pack: Pack) -> None:
    ahead = ahead_of([HARD, OUTSIDE])
    lat, lon = place_of(-50.0, 20.0)
    assert route_text(pack, ahead, stretches(ahead), 1).splitlines()[0] == (
        f"  1  km    0.00 to    0.02  outside and hard, worst at {lat:.6f},{lon:.6f}, "
        "cosine 0.90 to a place 300 m away"
    )


def test_json_has_totals_stretches_and_every_sample(pack: Pack) -> None:
    ahead = ahead_of(
        [FINE, HARD, OUTSIDE, NOTHING],
        cosine=[0.51234567, 0.9, 0, -1],
        own=[0.81239, 0.85, 0, np.nan],
        away_m=[300.04, 310.06, 0, np.inf],
    )
    places = [place_of(10.0 * number - 50, 20.0) for number in range(4)]

    def sample(number: int, what: str, *known: object) -> dict[str, object]:
        lat, lon = places[number]
        values = dict(
            zip(("tile", "cosine", "own_cosine", "rival_away_m", "detail_grey"), known, strict=True)
        )
        place = {"at_m": 10.0 * number, "lat": lat, "lon": lon, "what": what}
        return {**place, **values}

    samples = [
        sample(0, "fine", 0, 0.5123, 0.8124, 300.0, 6.0),
        sample(1, "hard", 1, 0.9, 0.85, 310.1, 6.0),
        sample(2, "outside", None, None, None, None, None),
        sample(3, "nothing to see", 3, -1.0, None, None, 6.0),
    ]
    told = route_values(pack, ahead, stretches(ahead))
    assert told == {
        "length_m": 40.0,
        "in_pack_m": 30.0,
        "hard_m": 10.0,
        "nothing_m": 10.0,
        "outside_m": 10.0,
        "stretches": [
            {
                "from_m": 10.0,
                "to_m": 40.0,
                "why": ["outside", "nothing to see", "hard"],
                "worst": samples[1],
            }
        ],
        "samples": samples,
    }
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def drawn(pack: Pack, ahead: RouteAhead, found: Sequence[Stretch] = ()) -> npt.NDArray[np.int64]:
    data = draw_route(pack, 0, ahead, found, "plan.waypoints")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return np.asarray(image, np.int64)


def pixel(image: npt.NDArray[np.int64], east_m: float, north_m: float) -> list[int]:
    """The colour of a place on a map of the pack's region alone, 368 m to 1000 pixels."""
    column, row = (round((184.0 + v) * 1000 / 368 - 0.5) for v in (east_m, -north_m))
    return [int(value) for value in image[16 + row, 16 + column]]


BLACK, ORANGE, RED, BLUE = (0, 0, 0), (255, 150, 0), (215, 20, 30), (30, 110, 220)
GROUND = (178, 178, 178)  # grey 100, pale


def test_the_route_is_drawn_in_the_colours_of_what_it_meets(pack: Pack) -> None:
    lines = [(-130.0, 24.0), (130.0, 24.0)], [(0.0, -100.0), (0.0, -150.0)]
    image = drawn(pack, look_ahead(pack, 0, area(*lines), 16.0))
    for east, north, colour in (
        (-100.0, 24.0, RED),
        (40.0, 24.0, BLUE),
        (120.0, 24.0, RED),
        (0.0, -110.0, BLUE),
        (0.0, -145.0, ORANGE),
        (100.0, -60.0, GROUND),
        (97.5, -7.0, GROUND),  # between two lines nothing is flown
        (32.5, -69.0, GROUND),
    ):
        assert pixel(image, east, north) == pytest.approx(colour, abs=4), (east, north)
    beside = pixel(image, 40.0, 24.0 + 3 * 0.368)
    assert min(beside) > 200  # white along its sides


def test_beyond_the_region_the_route_is_black_on_white(pack: Pack) -> None:
    image = drawn(pack, look_ahead(pack, 0, area([(0.0, 24.0), (260.0, 24.0)]), 16.0))
    assert image.shape[1] == 1000 + 32
    across = image[16:-92, 960]
    assert (across.min(axis=1) == 255).sum() > len(across) - 20
    assert (across.max(axis=1) < 20).any()
    legend = image[-92:]
    for colour in (BLACK, ORANGE, RED, BLUE):
        assert (legend == colour).all(axis=2).sum() >= 40


def test_a_far_route_leaves_the_region_large(pack: Pack) -> None:
    image = drawn(pack, look_ahead(pack, 0, area([(0.0, 0.0), (90_000.0, 40_000.0)]), 2000.0))
    assert max(image.shape) <= 1000 + 2 * 16 + 92
    ground = np.abs(image - np.array(GROUND)).max(axis=2) < 3
    assert ground.any(axis=0).sum() > 700


@pytest.mark.parametrize("away_m", [1_000.0, 3_000_000.0])
def test_of_a_route_wholly_outside_both_it_and_the_pack_are_drawn(
    pack: Pack, away_m: float
) -> None:
    ahead = look_ahead(pack, 0, area([(away_m, 0.0), (1.2 * away_m, 0.0)]), away_m / 50)
    assert (ahead.kind == OUTSIDE).all()
    image = drawn(pack, ahead)
    assert max(image.shape) <= 1000 + 2 * 16 + 92
    shown = (image[16:-92, 16:-16] != 255).any(axis=(0, 2))
    assert shown[:500].any()  # the pack
    line = (image[16:-92, 16:-16].max(axis=2) < 5).sum(axis=0) >= 3
    assert line[:400].sum() < 10 and 80 < line[500:].sum() < 300


def test_stretches_are_numbered_and_begins_are_named(pack: Pack) -> None:
    ahead = look_ahead(pack, 0, area([(-130.0, 24.0), (60.0, 24.0)]), 16.0)
    plain, numbered = drawn(pack, ahead), drawn(pack, ahead, stretches(ahead))
    changed = np.argwhere((plain != numbered).any(axis=2))
    middle = (ahead.east_m[2] + 184.0) * 1000 / 368 + 16
    assert len(changed) and np.abs(changed[:, 1] - middle).max() < 60
    # On paper of its own, beside the begin.
    start = (184.0 - 130.0) * 1000 / 368 + 16
    row = (184.0 - 24.0) * 1000 / 368 + 16
    paper = plain[round(row) - 19 : round(row) - 5, round(start) + 9 : round(start) + 30]
    assert (paper.min(axis=2) == 255).any() and (paper.max(axis=2) < 100).any()


def test_what_matters_is_drawn_over_what_does_not(pack: Pack) -> None:
    # There and back on one line: fine first or last, hard stays in sight.
    ahead = ahead_of([HARD] * 9 + [FINE] * 9)
    east = np.concatenate([np.arange(9), np.arange(8, -1, -1)]) * 10.0
    for kind in (ahead.kind, ahead.kind[::-1]):
        both = dataclasses.replace(ahead, east_m=east, kind=kind)
        assert pixel(drawn(pack, both), 40.0, 20.0) == pytest.approx(RED, abs=4)


def test_a_route_of_one_place_is_drawn(pack: Pack) -> None:
    image = drawn(pack, look_ahead(pack, 0, area([(8.0, 8.0)]), 16.0))
    assert pixel(image, 8.0, 8.0) == pytest.approx(BLUE, abs=40)


def test_a_route_is_read_from_a_file_in_any_frame(pack: Pack, tmp_path: Path) -> None:
    other = LocalFrame(47.001, 8.001)
    lat, lon = pack.frame.to_wgs84([0.0, 100.0], [8.0, 8.0])
    east, north = other.to_local(lat, lon)
    line = list(zip(east.tolist(), north.tolist(), strict=True))
    path = land.write_route(tmp_path / "r.geojson", line, frame=other)
    ahead = look_ahead(pack, 0, read_route(path, 1.0), 20.0)
    np.testing.assert_allclose(ahead.east_m, [0, 20, 40, 60, 80, 100], atol=1e-4)
    np.testing.assert_allclose(ahead.north_m, 8.0, atol=1e-4)
