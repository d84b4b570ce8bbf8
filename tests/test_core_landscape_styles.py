"""Named countries: each shows what it is named for, and what a seed alone makes stays as it was."""

from __future__ import annotations

import dataclasses
import hashlib

import cv2
import numpy as np
import pytest

from s4g.core.ground import GroundWindow
from s4g.core.landscape import STYLES, World, make_world, open_landscape, render_world
from s4g.core.landscape_archetypes import ARCHETYPES
from s4g.core.landscape_cover import flooded
from s4g.core.landscape_palette import KINDS, SURFACES
from s4g.core.landscape_plan import Planner
from s4g.core.landscape_style import Style, draw_style
from s4g.core.landscape_world import (
    BALLAST,
    LAKE_DARK,
    LAKE_GREEN,
    MARSH,
    MUD,
    PARCEL,
    PARKING,
    RAILS,
    ROCK,
    SAND,
    VERGE,
    WATER,
)


def of_style(name: str, size_m: float = 300.0, gsd_m: float = 1.0, seeds: int = 6) -> list[World]:
    return [make_world(seed, size_m, gsd_m, name) for seed in range(seeds)]


def share(worlds: list[World], *codes: int) -> float:
    return float(np.mean([np.isin(world.surface, codes).mean() for world in worlds]))


def test_what_a_seed_alone_draws_is_what_it_always_drew() -> None:
    old = [f.name for f in dataclasses.fields(Style) if f.default is dataclasses.MISSING]
    drawn = [[getattr(draw_style(seed), name) for name in old] for seed in range(50)]
    text = repr(
        [
            (v[0], [round(float(n), 9) for n in v if isinstance(n, float)], v[old.index("crops")])
            for v in drawn
        ]
    )
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == "0edc69e338f0554dc68ae73c1d230478616808f051e24965ffd5d7ae26d82c08"


@pytest.mark.parametrize(
    ("seed", "counts"),
    [
        (2, (469, 176, 385, 232, 710)),
        (10, (512, 116, 735, 451, 2854)),
        (11, (183, 85, 372, 247, 781)),
    ],
)
def test_a_plan_of_a_seed_alone_is_what_it_always_was(seed: int, counts: tuple[int, ...]) -> None:
    plan = Planner(seed, 400.0, draw_style(seed)).run()
    parts = (plan.parcels, plan.lines, plan.buildings, plan.patches, plan.trees)
    assert tuple(map(len, parts)) == counts


def test_the_first_countries_are_the_same_by_name() -> None:
    for seed in range(8):
        style = draw_style(seed)
        assert style == draw_style(seed, style.name)
        assert style.name in ARCHETYPES


@pytest.mark.parametrize("name", STYLES)
def test_every_country_has_ground_of_known_colours_in_every_season(name: str) -> None:
    world = make_world(3, 200.0, 1.0, name)
    codes = np.unique(world.surface)
    assert set(codes[codes < PARCEL].tolist()) <= set(SURFACES)
    assert {p.kind for p in world.parcels} <= {*KINDS, "crop"}
    pictures = [render_world(world, season, 1, 3, "a") for season in ("spring", "winter")]
    assert all(30 < picture.mean() < 225 for picture in pictures)
    assert not np.array_equal(*pictures)


def test_lakes_of_the_prairie_rise_and_fall_over_the_years() -> None:
    worlds = of_style("prairie", 1500.0, 5.0)
    world = max(worlds, key=lambda w: share([w], MARSH, MARSH + 1, MARSH + 2))
    water = [
        np.isin(flooded(world, world.surface, "summer", year), (WATER, LAKE_GREEN, LAKE_DARK))
        for year in range(8)
    ]
    sizes = [int(w.sum()) for w in water]
    assert max(sizes) > 1.3 * min(sizes) > 0
    low, high = water[int(np.argmin(sizes))], water[int(np.argmax(sizes))]
    assert (high | ~low).all()  # the lake grows outwards


def test_a_lake_has_one_water() -> None:
    for world in of_style("prairie", 1500.0, 5.0):
        assert world.basin is not None
        count, lake = cv2.connectedComponents((world.basin > 0).astype(np.uint8))
        kinds = world.surface - MARSH
        for number in range(1, count):
            inside = kinds[(lake == number) & (kinds >= 0) & (kinds < 3)]
            assert len(np.unique(inside)) <= 1


def test_a_desert_has_rock_sand_and_bare_ground() -> None:
    worlds = of_style("desert")
    bare = [np.array([p.kind == "bare" for p in w.parcels])[w.parcel].mean() for w in worlds]
    assert np.mean(bare) > 0.4
    assert share(worlds, ROCK) > 0.005
    assert share(worlds, SAND) > 0.01


def test_oak_country_has_single_trees_and_rocks() -> None:
    worlds = of_style("oaks")
    assert share(worlds, ROCK) > 0.002
    crowned = [float((w.crown > 0).mean()) for w in worlds]
    assert 0.02 < np.mean(crowned) < 0.5


def test_terraces_follow_the_terrain() -> None:
    worlds = of_style("terraces")
    assert share(worlds, VERGE) > 2 * share(of_style("smallholder"), VERGE)


def test_a_shanty_town_has_many_small_houses_close_together() -> None:
    def houses_ha(worlds: list[World]) -> float:
        return sum(len(w.buildings) for w in worlds) / sum(w.size_m**2 / 1e4 for w in worlds)

    assert houses_ha(of_style("shanty")) > 2 * houses_ha(of_style("suburb"))


def test_works_have_car_parks_and_railways() -> None:
    worlds = of_style("works", gsd_m=0.5)
    assert share(worlds, PARKING) > 2 * share(of_style("suburb", gsd_m=0.5), PARKING)
    assert share(worlds, BALLAST) > 0
    assert share(worlds, RAILS) > 0


def test_a_river_on_its_plain_has_sand_bars() -> None:
    worlds = of_style("floodplain", 600.0, 2.0)
    assert share(worlds, SAND, MUD) > 0.002
    assert share(worlds, WATER) > 0.04


def test_irrigated_fields_are_round() -> None:
    outlines = [p.outline for w in of_style("irrigated", 1500.0, 5.0) for p in w.parcels]
    assert sum(len(outline) == 90 for outline in outlines) > 5


def test_groves_are_orchards_for_the_greater_part() -> None:
    kinds = [p.kind for w in of_style("groves") for p in w.parcels if not p.town]
    assert kinds.count("orchard") > 0.35 * len(kinds)


@pytest.mark.parametrize(
    ("seed", "season", "year", "light", "sensor", "grey"),
    [
        (2, "summer", 0, 0, "a", "116 130 138 115 123 126 106 95 129 117 111 107 112 124 111 111"),
        (10, "autumn", 3, 5, "b", "133 115 119 111 87 116 113 113 99 92 125 117 95 95 97 120"),
        (11, "winter", -4, 1, "d", "113 107 101 110 106 98 94 104 110 109 93 102 118 135 104 115"),
    ],
)
def test_a_picture_of_a_seed_alone_is_what_it_always_was(
    seed: int, season: str, year: int, light: int, sensor: str, grey: str
) -> None:
    picture = render_world(make_world(seed, 200.0, 1.0), season, year, light, sensor)
    blocks = picture.astype(float).mean(axis=2).reshape(4, 50, 4, 50).mean(axis=(1, 3)).ravel()
    assert np.abs(blocks - np.array(grey.split(), float)).max() < 1  # rounding, other libraries


def test_a_source_may_name_its_country() -> None:
    ground = open_landscape("landscape:seed=4,size_m=100,gsd_m=1,style=desert")
    picture = render_world(make_world(4, 100, 1.0, "desert"), "summer", 0, 0, "a")
    image = ground.read(ground.frame, GroundWindow(-50, 50, 1.0, 100, 100))
    assert np.array_equal(image.rgb, picture)
