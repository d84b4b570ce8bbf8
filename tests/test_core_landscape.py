from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.core.geo import distance_m
from s4g.core.ground import GroundWindow
from s4g.core.landscape import (
    SEASONS,
    SENSORS,
    World,
    make_world,
    open_landscape,
    render_world,
)
from s4g.core.landscape_cover import roof_tables
from s4g.core.landscape_noise import fractal
from s4g.core.landscape_palette import KINDS, SURFACES
from s4g.core.landscape_render import cast_shadow
from s4g.core.landscape_sensor import Light
from s4g.core.landscape_style import draw_style
from s4g.core.landscape_world import LANE, MAIN, PARCEL, STREET, WATER
from s4g.core.sources import open_ground

SUBURB, RIVER, PATCHWORK = 11, 2, 10  # seeds whose style the tests below rely on


@pytest.fixture(scope="module")
def suburb() -> World:
    return make_world(SUBURB, 320, 1.0)


@pytest.fixture(scope="module")
def patchwork() -> World:
    return make_world(PATCHWORK, 500, 1.0)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel().astype(float), b.ravel().astype(float))[0, 1])


def brightness(picture: np.ndarray) -> np.ndarray:
    return picture.astype(np.float32).mean(axis=2)


def test_the_same_arguments_give_the_same_bytes() -> None:
    pictures = [
        render_world(make_world(5, 200, 1.0), "autumn", 2, light_seed=9, sensor="c")
        for _ in range(2)
    ]
    assert pictures[0].tobytes() == pictures[1].tobytes()


def test_rendering_leaves_the_world_as_it_was(suburb: World) -> None:
    before = [layer.copy() for layer in (suburb.surface, suburb.crown, suburb.soil, suburb.slope)]
    first = render_world(suburb, "summer", 0, 0, "a")
    render_world(suburb, "winter", 9, 4, "d")
    after = [suburb.surface, suburb.crown, suburb.soil, suburb.slope]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert np.array_equal(first, render_world(suburb, "summer", 0, 0, "a"))


@pytest.mark.parametrize(("size_m", "gsd_m", "side_px"), [(200, 1.0, 200), (90, 0.3, 300)])
def test_a_picture_has_the_size_asked_for(size_m: float, gsd_m: float, side_px: int) -> None:
    picture = render_world(make_world(1, size_m, gsd_m), "summer", 0, 0, "a")
    assert picture.shape == (side_px, side_px, 3)
    assert picture.dtype == np.uint8


def test_seeds_give_different_ground() -> None:
    pictures = [
        brightness(render_world(make_world(seed, 200, 1.0), "summer", 0, 0, "a"))
        for seed in range(20, 26)
    ]
    pairs = [(a, b) for i, a in enumerate(pictures) for b in pictures[i + 1 :]]
    assert max(correlation(a, b) for a, b in pairs) < 0.3


def test_seeds_visit_every_kind_of_country() -> None:
    assert {draw_style(seed).name for seed in range(200)} == {
        "plains", "patchwork", "strips", "suburb", "savanna", "forest", "mediterranean",
        "smallholder",
    }  # fmt: skip


def test_a_style_is_drawn_within_its_ranges() -> None:
    for seed in range(100):
        style = draw_style(seed)
        shares = (style.town, style.wood, style.hedge, style.conifer, style.pasture, style.dry)
        assert all(0 <= share <= 1 for share in shares)
        assert 900 <= style.field_m2 <= 2.2e5


@pytest.mark.parametrize("seed", range(8))
def test_every_piece_of_ground_has_a_colour(seed: int) -> None:
    world = make_world(seed, 150, 1.0)
    codes = np.unique(world.surface)
    assert set(codes[codes < PARCEL].tolist()) <= set(SURFACES)
    assert codes.max() < PARCEL + len(world.parcels)
    assert {p.kind for p in world.parcels} <= {*KINDS, "crop"}


def test_the_ground_has_detail_everywhere(patchwork: World) -> None:
    picture = brightness(render_world(patchwork, "summer", 0, 0, "a"))
    windows = picture[:480, :480].reshape(12, 40, 12, 40).swapaxes(1, 2).reshape(144, -1)
    assert (windows.std(axis=1) > 2.5).all()


def test_a_coarse_world_shows_the_same_ground_as_a_fine_one() -> None:
    fine = brightness(render_world(make_world(SUBURB, 320, 0.5), "summer", 0, 0, "a"))
    coarse = brightness(render_world(make_world(SUBURB, 320, 1.0), "summer", 0, 0, "a"))
    shrunk = fine.reshape(320, 2, 320, 2).mean(axis=(1, 3))
    assert correlation(shrunk, coarse) > 0.7


def test_noise_is_the_same_ground_at_any_resolution() -> None:
    fine = fractal(3, "soil", (256.0, 256.0), 0.5, 64.0, 3)
    coarse = fractal(3, "soil", (256.0, 256.0), 2.0, 64.0, 3)
    assert correlation(fine.reshape(128, 4, 128, 4).mean(axis=(1, 3)), coarse) > 0.999


@pytest.mark.parametrize("wavelength_m", [16.0, 64.0])
def test_noise_has_about_unit_variance(wavelength_m: float) -> None:
    noise = fractal(1, "any", (1024.0, 1024.0), 2.0, wavelength_m, 4)
    assert abs(float(noise.mean())) < 0.15
    assert 0.8 < float(noise.std()) < 1.25


def test_another_year_changes_the_fields_and_keeps_the_roads(patchwork: World) -> None:
    first = render_world(patchwork, "summer", 0, 0, "a").astype(float)
    later = render_world(patchwork, "summer", 3, 0, "a").astype(float)
    change = np.abs(first - later).mean(axis=2)
    crop = np.array([p.kind == "crop" for p in patchwork.parcels])
    number = np.maximum(patchwork.surface - PARCEL, 0)
    open_ground_ = (patchwork.crown == 0) & (patchwork.building == 0)
    fields = crop[number] & (patchwork.surface >= PARCEL) & open_ground_
    roads = np.isin(patchwork.surface, (MAIN, LANE, STREET)) & open_ground_
    assert fields.sum() > 5000
    assert roads.sum() > 1000
    assert change[fields].mean() > 3 * change[roads].mean()


def test_two_seasons_are_the_same_ground_in_other_colours(patchwork: World) -> None:
    def edges(picture: np.ndarray) -> np.ndarray:
        grey = brightness(picture)
        return np.hypot(*np.gradient(grey))

    summer = render_world(patchwork, "summer", 0, 0, "a")
    autumn = render_world(patchwork, "autumn", 1, 5, "b")
    other = render_world(make_world(12, 500, 1.0), "autumn", 1, 5, "b")
    assert np.abs(brightness(summer) - brightness(autumn)).mean() > 10
    same = correlation(edges(summer), edges(autumn))
    assert same > 0.25
    assert same > 5 * abs(correlation(edges(summer), edges(other)))


@pytest.mark.parametrize("season", SEASONS)
@pytest.mark.parametrize("sensor", sorted(SENSORS))
def test_no_season_or_sensor_burns_out_the_picture(suburb: World, season: str, sensor: str) -> None:
    picture = render_world(suburb, season, 1, 3, sensor)
    assert 35 < picture.mean() < 215
    assert brightness(picture).std() > 12
    assert ((picture == 0) | (picture == 255)).mean() < 0.05


def test_light_changes_the_picture_and_nothing_else(suburb: World) -> None:
    first, second = (render_world(suburb, "summer", 0, light, "a") for light in (1, 2))
    assert not np.array_equal(first, second)
    assert correlation(brightness(first), brightness(second)) > 0.5


def test_sensor_d_is_near_grey(suburb: World) -> None:
    def colourfulness(sensor: str) -> float:
        picture = render_world(suburb, "summer", 0, 0, sensor).astype(float)
        return float((picture.max(axis=2) - picture.min(axis=2)).mean())

    assert colourfulness("d") < 0.35 * colourfulness("a")


def test_some_winter_days_have_snow_and_no_summer_day_has(suburb: World) -> None:
    def white(season: str, light: int) -> float:
        return float((render_world(suburb, season, 0, light, "a").min(axis=2) > 190).mean())

    assert max(white("winter", light) for light in range(24)) > 0.15
    assert max(white("summer", light) for light in range(8)) < 0.10


def test_leaves_fall(patchwork: World) -> None:
    woods = patchwork.crown > 40
    broad = 1 - patchwork.style.conifer
    assert broad > 0.2
    greenness = {}
    for season in ("summer", "winter"):
        picture = render_world(patchwork, season, 0, 0, "a").astype(float)[woods]
        greenness[season] = float((picture[:, 1] - picture[:, 0]).mean())
    assert greenness["summer"] > greenness["winter"] + 3


def test_buildings_come_and_go_over_the_years(suburb: World) -> None:
    standing = [(roof_tables(suburb, year)[1][1:] > 0) for year in (-12, 0, 12)]
    changed = (standing[0] != standing[2]).mean()
    assert 0.05 < changed < 0.35
    assert (standing[0] != standing[1]).any()
    # What is there at both ends and was never pulled down is there in the middle.
    both = standing[0] & standing[2]
    assert (standing[1] | ~both).all()


def test_what_stands_on_a_roof_goes_with_the_roof(suburb: World) -> None:
    height = roof_tables(suburb, 12)[1][1:]
    owner = 0
    units = 0
    for number, building in enumerate(suburb.buildings):
        if building.on_roof:
            units += 1
            assert (height[number] > 0) == (height[owner] > 0)
        else:
            owner = number
    assert units > 3


def test_no_building_stands_in_water_or_on_a_road(suburb: World) -> None:
    size = len(suburb.surface)
    for building in suburb.buildings:
        column = round((building.center[0] + size / 2) - 0.5)
        row = round((size / 2 - building.center[1]) - 0.5)
        if 0 <= column < size and 0 <= row < size and not building.on_roof:
            assert suburb.surface[row, column] not in (WATER, MAIN, STREET, LANE)


@pytest.mark.parametrize(
    ("azimuth_deg", "towards"), [(180, (-1, 0)), (90, (0, -1)), (0, (1, 0)), (270, (0, 1))]
)
@pytest.mark.parametrize("elevation_deg", [30, 45, 60])
def test_a_shadow_falls_away_from_the_sun_as_far_as_its_height_says(
    azimuth_deg: float, towards: tuple[int, int], elevation_deg: float
) -> None:
    gsd_m, height_m = 0.5, 10.0
    top = np.zeros((201, 201), np.float32)
    top[98:103, 98:103] = height_m
    light = Light(math.radians(azimuth_deg), math.radians(elevation_deg), 0.6, (1, 1, 1), 0.0)
    shadow = cast_shadow(top, gsd_m, light)
    rows, columns = np.nonzero(shadow > 0.5)
    reach = {(-1, 0): 98 - rows.min(), (1, 0): rows.max() - 102,
             (0, -1): 98 - columns.min(), (0, 1): columns.max() - 102}  # fmt: skip
    expected = height_m / math.tan(math.radians(elevation_deg)) / gsd_m
    assert reach.pop(towards) == pytest.approx(expected, abs=2.5)
    assert max(reach.values()) <= 0
    assert not shadow[100, 100]


def test_flat_ground_has_no_shadow() -> None:
    light = Light(2.0, 0.6, 0.6, (1, 1, 1), 0.0)
    assert not cast_shadow(np.zeros((50, 60), np.float32), 1.0, light).any()


def test_open_landscape_places_the_ground_around_its_centre() -> None:
    ground = open_landscape("landscape:seed=3,size_m=300,gsd_m=1,lat=-33.5,lon=151.2")
    lat, lon = ground.bounds.center
    assert (lat, lon) == (pytest.approx(-33.5, abs=1e-6), pytest.approx(151.2, abs=1e-6))
    box = ground.bounds
    assert distance_m(lat, box.west, lat, box.east) == pytest.approx(300, abs=0.1)
    assert distance_m(box.south, lon, box.north, lon) == pytest.approx(300, abs=0.1)
    assert ground.gsd_m == 1.0
    assert ground.attribution == "procedural landscape, s4g"


def test_open_landscape_renders_what_render_world_renders() -> None:
    source = "landscape:seed=4,size_m=200,gsd_m=1,season=winter,year=-2,light=3,sensor=b"
    ground = open_ground(source)
    picture = render_world(make_world(4, 200, 1.0), "winter", -2, 3, "b")
    image = ground.read(open_landscape(source).frame, GroundWindow(-100, 100, 1.0, 200, 200))
    assert np.array_equal(image.rgb, picture)
    assert image.valid.all()
    assert ground.name == source


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "landscape:saeson=winter",
            "landscape:saeson=winter: unknown key 'saeson'; did you mean season? legal: "
            "seed, size_m, gsd_m, season, year, light, sensor, lat, lon, style",
        ),
        (
            "landscape:seed",
            "landscape:seed: seed has no value; write seed=7",
        ),
        (
            "landscape:seed=1,,year=2",
            "landscape:seed=1,,year=2: unknown key ''; legal: "
            "seed, size_m, gsd_m, season, year, light, sensor, lat, lon, style",
        ),
        ("landscape:seed=x", "landscape seed=x: expected a whole number"),
        ("landscape:seed=-1", "landscape seed=-1: expected 0 to 4294967295"),
        ("landscape:year=1.5", "landscape year=1.5: expected a whole number"),
        ("landscape:size_m=wide", "landscape size_m=wide: expected a number"),
        ("landscape:light=-3", "landscape light=-3: expected 0 to 4294967295"),
        ("landscape:lat=nan", "landscape lat=nan: expected a number"),
        (
            "landscape:lat=88",
            "landscape lat=88,lon=8: expected latitude -85 to 85 and longitude -180 to 180 degrees",
        ),
        (
            "landscape:gsd_m=0",
            "landscape gsd_m=0: expected 0.05 to 20 metres per pixel",
        ),
        (
            "landscape:size_m=1e6",
            "landscape size_m=1e+06 at gsd_m=0.5: 2000000 pixels a side, expected 32 to 16384",
        ),
        (
            "landscape:size_m=100,season=sumer",
            "landscape: unknown season 'sumer'; did you mean summer? legal: "
            "spring, summer, autumn, winter",
        ),
        (
            "landscape:size_m=100,style=oak",
            "landscape: unknown style 'oak'; did you mean oaks? legal: "
            "desert, floodplain, forest, groves, irrigated, mediterranean, oaks, patchwork, "
            "plains, prairie, savanna, shanty, smallholder, strips, suburb, terraces, works",
        ),
        (
            "landscape:size_m=100,sensor=z",
            "landscape: unknown sensor 'z'; legal: a, b, c, d, e, f, g, h",
        ),
    ],
)
def test_a_wrong_landscape_is_refused_with_the_legal_values(source: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        open_landscape(source)


@given(st.text(alphabet="sed=,17.:exonlat_-", max_size=25))
def test_any_text_is_a_landscape_or_refused(text: str) -> None:
    source = f"landscape:{text},size_m=1"  # too small to be made: only the parsing runs
    with pytest.raises(InputError):
        open_landscape(source)
