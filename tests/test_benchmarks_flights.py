"""Flights as files: what scenarios say, what faults do, and that no way sees the truth."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from s4g.core.engine import load_engine
from s4g.core.errors import InputError
from s4g.core.geo import distance_m
from s4g.core.images import read_rgb
from s4g.runtime.score import match_flight, parse_fix, read_truth
from s4g.tilepacks.reader import open_pack

FLIGHTS = Path(__file__).parents[1] / "benchmarks" / "flights"
NOWHERE = Path("/no/imagery")
WANTED = {
    "straight", "survey", "loiter", "climb", "heading_unknown", "heading_bias", "bank",
    "height_error", "season", "repetitive", "water", "night_blur", "blackout", "kidnap", "outside",
    "stale", "camera_3hz", "fast", "naip_2009", "naip_2015", "neon",
}  # fmt: skip
NAMES = sorted(path.stem for path in (FLIGHTS / "scenarios").glob("*.toml"))

TOY = """
title = "toy"
about = "A small flight."
alert_limit_m = 20

[world]
style = "suburb"
seed = 90099
size_m = 320
flown = { year = 1, light = 3 }

[pack]
levels_m = [40]

[route]
points_m = [[-80, -60], [80, 60]]
agl_m = [70]
speed_mps = 10

[camera]
size_px = [160, 120]
fps = 0.5
"""


@pytest.fixture(autouse=True)
def benchmark_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(FLIGHTS), *sys.path])


def read(text: str, folder: Path) -> Any:
    """Read a scenario from text."""
    from scenario import read_scenario

    path = folder / "toy.toml"
    path.write_text(text)
    return read_scenario(path)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the toy's ground, pack and flights are kept while this module is tested."""
    folder = tmp_path_factory.mktemp("flights")
    for name in ("grounds", "packs", "flights", "embeddings", "fixes"):
        (folder / name).mkdir()
    return folder


def flown(scenario: Any, out: Path) -> tuple[Any, Path]:
    """Make a flight; return what is seen of it and its truth."""
    from making import make_flight

    return make_flight(scenario, NOWHERE, out)


# -- scenario files -------------------------------------------------------------------------------


def test_every_scenario_that_is_wanted_is_there() -> None:
    assert set(NAMES) >= WANTED


@pytest.mark.parametrize("name", NAMES)
def test_every_scenario_can_be_flown_and_has_frames_enough_for_rates(
    name: str, request: pytest.FixtureRequest
) -> None:
    from making import flown_moments
    from scenario import read_scenario

    scenario = read_scenario(FLIGHTS / "scenarios" / f"{name}.toml")
    data = NOWHERE if scenario.rasters is None else request.getfixturevalue("data_dir")
    flight = flown_moments(scenario, data)
    assert len(flight) >= 150
    assert all(fault.from_s < flight[-1].t for fault in scenario.fault)


@pytest.mark.parametrize("name", NAMES)
def test_no_world_is_one_that_a_recipe_trains_on(name: str) -> None:
    from grounds import _OTHER
    from scenario import read_scenario, tomllib

    world = read_scenario(FLIGHTS / "scenarios" / f"{name}.toml").world
    recipes = sorted((FLIGHTS.parents[1] / "train" / "recipes").rglob("*.toml"))
    assert recipes
    for recipe in recipes:
        for ground in tomllib.loads(recipe.read_text()).get("ground", []):
            first = ground.get("first_seed", 1000)
            trained = range(first, first + ground.get("worlds", 0) + ground.get("val_worlds", 0))
            assert world is None or not {world.seed, world.seed + _OTHER} & set(trained)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("speed_mps", "sped_mps", "route: unknown key 'sped_mps'; did you mean speed_mps? known: "
         "points_m, circle_m, survey_m, visits, agl_m, speed_mps"),
        ('title = "toy"', "", "lacks the key 'title'"),
        ("alert_limit_m = 20", 'alert_limit_m = "20"', "alert_limit_m: '20', expected float"),
        ("agl_m = [70]", "agl_m = 70", "route: agl_m: 70, expected a list"),
        ("agl_m = [70]", "agl_m = []", "route.agl_m: 0 numbers, expected 1 or 2"),
        ("agl_m = [70]", "circle_m = [0, 0, 9, 1]",
         "route: give exactly one of points_m, circle_m, survey_m, visits"),
        ("[pack]", '[rasters]\nmap = "a"\nflown = "b"\n[pack]',
         "give exactly one of [world] and [rasters]"),
        ("seed = 90099", 'seed = 90099\nmap = { season = "sommer" }',
         "world: season: 'sommer', expected one of spring, summer, autumn, winter"),
        ("[pack]", '[[fault]]\nkind = "fog"\nfrom_s = 1\n[pack]',
         "fault.kind: 'fog', expected one of blackout, night, blur, kidnap, silence"),
        ("[pack]", '[[fault]]\nkind = "kidnap"\nfrom_s = 1\n[pack]',
         "fault: by_m = [east, north] goes with a kidnap, and only"),
        ("[pack]", '[[fault]]\nkind = "blur"\nfrom_s = 2\nto_s = 2\n[pack]',
         "fault: blur ends before it begins"),
        ("[pack]", '[sensors]\nmissing = ["compass"]\n[pack]',
         "sensors.missing: 'compass', expected one of heading, tilt, height, velocity"),
    ],
)  # fmt: skip
def test_a_scenario_that_says_something_wrong_is_refused(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    assert old in TOY
    with pytest.raises(InputError) as refused:
        read(TOY.replace(old, new, 1), tmp_path)
    assert str(refused.value) == f"{tmp_path / 'toy.toml'}: {message}"


def test_a_scenario_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"toy\.toml: not a TOML file \("):
        read("title = ", tmp_path)


def test_a_route_that_leaves_the_ground_is_refused(tmp_path: Path) -> None:
    from making import flown_moments

    scenario = read(TOY.replace("[80, 60]]", "[300, 60]]"), tmp_path)
    with pytest.raises(InputError, match=r"^toy: \d+ of \d+ frames lie off the ground$"):
        flown_moments(scenario, NOWHERE)


# -- what is made ---------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_flight_and_another_seed_another(
    tmp_path: Path, toy_folder: Path
) -> None:
    scenario = read(TOY, tmp_path)
    first, truth = flown(scenario, toy_folder)
    again = tmp_path / "again"
    for name in ("grounds", "flights"):
        (again / name).mkdir(parents=True)
    second, truth_again = flown(scenario, again)
    files = sorted(path.relative_to(first.folder) for path in first.folder.rglob("*.*"))
    assert len(files) == 11 + 3
    for file in files:
        assert (first.folder / file).read_bytes() == (second.folder / file).read_bytes()
    assert truth.read_bytes() == truth_again.read_bytes()
    other, _ = flown(read("seed = 1\n" + TOY, tmp_path), toy_folder)
    assert other.telemetry.read_bytes() != first.telemetry.read_bytes()
    assert (other.frames / "000000.jpg").read_bytes() != (first.frames / "000000.jpg").read_bytes()


def test_what_is_kept_goes_by_what_it_was_made_from(tmp_path: Path) -> None:
    from making import flight_key

    key = flight_key(read(TOY, tmp_path), NOWHERE)
    for change in (("seed = 90099", "seed = 90098"), ("fps = 0.5", "fps = 1"), ("[70]", "[71]")):
        assert flight_key(read(TOY.replace(*change), tmp_path), NOWHERE) != key
    for change in (
        ("m = 20", "m = 30"),
        ('"toy"', '"a toy"'),
        ("levels_m = [40]", "levels_m = [50]"),
    ):
        assert flight_key(read(TOY.replace(*change), tmp_path), NOWHERE) == key


def test_a_change_of_code_counts_where_it_is_imported_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import kept

    (tmp_path / "runtime").mkdir()
    (tmp_path / "core").mkdir()
    files = {
        "runtime/filter.py": "def f():\n    from ..core import geo\n",
        "runtime/render.py": "import s4g.core.ground\n",
        "core/geo.py": "",
        "core/ground.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(kept, "ROOT", tmp_path)

    def hashes() -> tuple[str, str, str]:
        kept.code_of.cache_clear()
        kept._imports.cache_clear()
        alone = kept.code_of("runtime/filter.py", follow=False)
        return kept.code_of("runtime/filter.py"), kept.code_of("runtime/render.py"), alone

    before = hashes()
    (tmp_path / "core" / "geo.py").write_text("1")
    after = hashes()
    kept.code_of.cache_clear()
    kept._imports.cache_clear()
    assert [a != b for a, b in zip(before, after, strict=True)] == [True, False, False]


def test_a_kidnap_takes_the_drone_away_and_nothing_reports_it() -> None:
    from making import flown_moments
    from scenario import read_scenario

    scenario = read_scenario(FLIGHTS / "scenarios" / "kidnap.toml")
    flight = flown_moments(scenario, NOWHERE)
    (fault,) = scenario.fault
    number = next(m.index for m in flight if m.t >= fault.from_s)
    before, after = flight[number - 1], flight[number]
    step_m = float(distance_m(before.lat_deg, before.lon_deg, after.lat_deg, after.lon_deg))
    assert step_m == pytest.approx(2000.0, abs=10.0)
    usual_m = scenario.route.speed_mps / scenario.camera.fps
    for a, b in ((flight[number - 2], before), (after, flight[number + 1])):
        moved_m = float(distance_m(a.lat_deg, a.lon_deg, b.lat_deg, b.lon_deg))
        assert moved_m == pytest.approx(usual_m, rel=0.01)
    assert math.hypot(
        after.reported_vel_e_mps - before.reported_vel_e_mps,
        after.reported_vel_n_mps - before.reported_vel_n_mps,
    ) == pytest.approx(0.0, abs=1.0)


def test_a_kidnap_is_an_event_of_the_truth_alone(tmp_path: Path, toy_folder: Path) -> None:
    fault = '\n[[fault]]\nkind = "kidnap"\nfrom_s = 10\nby_m = [-100, 90]\n'
    seen, truth_csv = flown(read(TOY + fault, tmp_path), toy_folder)
    events = read_truth(truth_csv).events
    assert [(event.name, event.row) for event in events] == [("kidnap", 5)]
    assert "event" not in rows_of(seen.telemetry)[0]


def test_blackout_frames_are_black_and_the_others_are_not(tmp_path: Path, toy_folder: Path) -> None:
    fault = '\n[[fault]]\nkind = "blackout"\nfrom_s = 6\nto_s = 12\n'
    seen, truth_csv = flown(read(TOY + fault, tmp_path), toy_folder)
    brightest = [int(read_rgb(path).max()) for path in sorted(seen.frames.iterdir())]
    assert [value == 0 for value in brightest] == [6 <= 2 * i < 12 for i in range(11)]
    assert [(e.name, e.row) for e in read_truth(truth_csv).events] == [("after the dark", 6)]


def test_a_night_leaves_a_sixth_of_the_light_and_blur_takes_the_edges() -> None:
    from spoil import spoilt

    rng = np.random.default_rng(0)
    frame = rng.integers(60, 200, (120, 160, 3), dtype=np.uint8)
    night = spoilt(frame, "night", rng)
    assert float(night.mean() / frame.mean()) == pytest.approx(1 / 6, rel=0.15)
    blurred = spoilt(frame, "blur", rng)
    assert float(blurred.mean()) == pytest.approx(float(frame.mean()), rel=0.02)
    assert float(blurred.std()) < 0.6 * float(frame.std())
    assert spoilt(frame, "kidnap", rng) is frame


def test_a_biased_compass_and_a_wrong_height_are_in_the_telemetry_and_not_in_the_truth(
    tmp_path: Path,
) -> None:
    from making import flown_moments

    plain = flown_moments(read(TOY, tmp_path), NOWHERE)
    wrong = "\n[sensors]\nheading_bias_deg = 8\nheight_factor = 1.3\n"
    for right, biased in zip(
        plain, flown_moments(read(TOY + wrong, tmp_path), NOWHERE), strict=True
    ):
        assert biased.true == right.true
        turned = (biased.reported.yaw_deg - right.reported.yaw_deg) % 360
        assert turned == pytest.approx(8.0)
        assert biased.reported.agl_m == pytest.approx(1.3 * right.reported.agl_m)


def test_a_bank_is_flown_and_reported(tmp_path: Path) -> None:
    from making import flown_moments

    plain = flown_moments(read(TOY, tmp_path), NOWHERE)
    for right, banked in zip(
        plain, flown_moments(read(TOY + "\n[sensors]\nbank_deg = 15\n", tmp_path), NOWHERE),
        strict=True,
    ):  # fmt: skip
        assert banked.true.roll_deg - right.true.roll_deg == pytest.approx(15.0)
        assert banked.reported.roll_deg - right.reported.roll_deg == pytest.approx(15.0)


def test_what_is_missing_and_what_falls_silent_is_not_in_the_telemetry(
    tmp_path: Path, toy_folder: Path
) -> None:
    text = TOY + '\n[sensors]\nmissing = ["heading", "velocity"]\n'
    text += '\n[[fault]]\nkind = "silence"\nfrom_s = 6\nto_s = 10\n'
    seen, _ = flown(read(text, tmp_path), toy_folder)
    rows = rows_of(seen.telemetry)
    assert list(rows[0]) == ["t", "pitch_deg", "roll_deg", "agl_m"]
    assert [float(row["t"]) for row in rows] == [0, 2, 4, 10, 12, 14, 16, 18, 20]
    assert len(rows_of(seen.clock)) == 11


def test_what_is_said_of_the_start_is_as_wrong_as_it_should_be(
    tmp_path: Path, toy_folder: Path
) -> None:
    text = TOY + "\n[start]\nradius_m = 90\noff_m = 40\n"
    seen, truth_csv = flown(read(text, tmp_path), toy_folder)
    assert seen.start is not None
    lat, lon, radius_m = seen.start
    first = rows_of(truth_csv)[0]
    away_m = float(distance_m(lat, lon, float(first["lat"]), float(first["lon"])))
    assert (away_m, radius_m) == (pytest.approx(40.0, abs=0.1), 90.0)
    assert flown(read(TOY, tmp_path), toy_folder)[0].start is None


def test_a_stale_map_differs_in_the_share_of_the_ground_that_was_asked_for() -> None:
    from grounds import changed_ground, pictures
    from scenario import World

    from s4g.core.landscape import make_world

    world = World("patchwork", 90099, size_m=600.0, gsd_m=1.0)
    stale = dataclasses.replace(world, changed_share=0.2)
    changed = changed_ground(make_world(90099, 600.0, 1.0, "patchwork"), stale)
    assert float(changed.mean()) == pytest.approx(0.2, abs=0.02)
    (map_now, flown_now), (map_then, flown_then) = pictures(world), pictures(stale)
    np.testing.assert_array_equal(map_now, map_then)
    np.testing.assert_array_equal(flown_now[~changed], flown_then[~changed])
    assert float((flown_now != flown_then).any(axis=2)[changed].mean()) > 0.9


def test_a_lake_shows_no_ground_and_its_waves_are_others_every_day() -> None:
    from grounds import pictures
    from scenario import View, World

    dry = World("patchwork", 90099, flown=View(light=3), size_m=600.0, gsd_m=1.0)
    shown, seen = pictures(dataclasses.replace(dry, lake_m=(0.0, 0.0, 150.0, 150.0)))
    middle = np.s_[240:360, 240:360]
    for picture in (shown, seen):
        assert float(picture[middle].std(axis=(0, 1)).max()) < 6.0
    assert (shown[middle] != seen[middle]).any()
    corner = np.s_[:100, :100]
    np.testing.assert_array_equal(shown[corner], pictures(dry)[0][corner])


def test_ground_that_is_absent_is_named() -> None:
    from grounds import missing_data
    from scenario import read_scenario

    scenario = read_scenario(FLIGHTS / "scenarios" / "neon.toml")
    assert missing_data(scenario, NOWHERE) == (
        "no imagery /no/imagery/neon_sjer_two_years/2017; --data names the folder that holds it"
    )
    straight = read_scenario(FLIGHTS / "scenarios" / "straight.toml")
    assert missing_data(straight, NOWHERE) is None


def test_plots_are_visited_one_by_one_and_only_those_that_are_held_out(data_dir: Path) -> None:
    from grounds import raster_centers
    from making import flown_moments
    from scenario import read_scenario

    scenario = read_scenario(FLIGHTS / "scenarios" / "neon.toml")
    assert scenario.rasters is not None
    flight = flown_moments(scenario, data_dir)
    held_out = raster_centers(scenario.rasters, data_dir)[4::5]
    nearest = [
        min(range(len(held_out)), key=lambda k, m=m: distance_m(m.lat_deg, m.lon_deg, *held_out[k]))
        for m in flight
    ]
    assert (
        sorted(set(nearest))
        == list(range(len(held_out)))
        == sorted(set(nearest), key=nearest.index)
    )
    away_m = [
        float(distance_m(m.lat_deg, m.lon_deg, *held_out[k]))
        for m, k in zip(flight, nearest, strict=True)
    ]
    assert max(away_m) < 6.1


# -- the ways -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    found = load_engine(None, "cpu", 1)
    yield found
    found.close()


@pytest.fixture
def toy(tmp_path: Path, toy_folder: Path, engine: Any) -> Iterator[Any]:
    """The toy flight, its pack, and an engine that remembers."""
    from compare import Setting, made_pack
    from memo import MemoEngine

    scenario = read(TOY, tmp_path)
    seen, truth_csv = flown(scenario, toy_folder)
    path = made_pack(Setting(NOWHERE, toy_folder, engine), scenario)
    memory = MemoEngine(engine, toy_folder / "embeddings" / "toy.npz")
    with open_pack(path) as pack:
        yield SimpleNamespace(
            seen=seen, truth=truth_csv, pack=pack, engine=memory, scenario=scenario
        )
    memory.close()


def without_times(fix: Any) -> Any:
    return dataclasses.replace(fix, latency_ms=None)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["filtered", "single", "top1", "sift"])
def test_no_way_sees_the_truth(way: str, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """False positions in the truth, or none at all, change no fix."""
    from ways import WAYS

    def fixes() -> list[Any]:
        return [without_times(fix) for fix, _ in WAYS[way](toy.seen, toy.pack, toy.engine)]

    before = fixes()
    text = toy.truth.read_text()
    try:
        lines = text.splitlines()
        names = lines[0].split(",")
        poisoned = [lines[0]]
        for line in lines[1:]:
            cells = line.split(",")
            cells[names.index("lat")], cells[names.index("lon")] = "48.5", "9.5"
            poisoned.append(",".join(cells))
        toy.truth.write_text("\n".join(poisoned) + "\n")
        assert fixes() == before
        toy.truth.unlink()
        assert fixes() == before
    finally:
        toy.truth.write_text(text)


def test_no_file_that_a_way_sees_holds_a_position(toy: Any) -> None:
    for path in toy.seen.folder.rglob("*"):
        assert path.name != "truth.csv"
        if path.suffix in (".csv", ".json"):
            text = path.read_text()
            assert "lat" not in text and "lon" not in text and "47." not in text


@pytest.mark.slow
def test_single_frames_and_best_tiles_find_the_toy(toy: Any) -> None:
    """Ways that do not work would make any product look good."""
    from ways import WAYS

    truth = read_truth(toy.truth)
    for way, least in (("single", 0.7), ("top1", 0.7)):
        fixes = [
            parse_fix(fix.to_json(), way) for fix, _ in WAYS[way](toy.seen, toy.pack, toy.engine)
        ]
        frames = match_flight(fixes, truth, 20.0).frames
        assert float(frames.right.mean()) >= least, way


@pytest.mark.slow
def test_sift_finds_every_frame_on_a_map_of_the_same_day(
    tmp_path: Path, toy_folder: Path, engine: Any
) -> None:
    from compare import Setting, made_pack
    from ways import sift

    scenario = read(TOY.replace("flown = { year = 1, light = 3 }", ""), tmp_path)
    seen, truth_csv = flown(scenario, toy_folder)
    with open_pack(made_pack(Setting(NOWHERE, toy_folder, engine), scenario)) as pack:
        fixes = [parse_fix(fix.to_json(), "sift") for fix, _ in sift(seen, pack, engine)]
    frames = match_flight(fixes, read_truth(truth_csv), 20.0).frames
    assert float(frames.right.mean()) >= 0.9
    # A degree of unreported tilt is 1.2 m at this height.
    assert float(np.median(frames.error_m[frames.issued])) < 3.0


def test_a_batch_that_was_embedded_once_is_remembered_with_the_time_it_took(tmp_path: Path) -> None:
    from memo import MemoEngine

    asked = []

    def embed(images: Any) -> Any:
        asked.append(len(images))
        return np.full((len(images), 4), images.mean(), np.float32)

    inner: Any = SimpleNamespace(spec=None, name="toy", backend="toy cpu", embed=embed)
    first = MemoEngine(inner, tmp_path / "memory.npz")
    bright, dark = (np.full((3, 8, 8, 3), value, np.uint8) for value in (200, 20))
    told = first.embed(bright)
    np.testing.assert_array_equal(first.embed(bright), told)
    assert asked == [3]
    first.embed(dark[:2])
    first.close()
    second = MemoEngine(inner, tmp_path / "memory.npz")
    np.testing.assert_array_equal(second.embed(bright), told)
    assert second.embed(dark[:2])[0, 0] == 20
    assert asked == [3, 2]
    second._known = {key: (found, 5.0) for key, (found, _) in second._known.items()}
    second.settle()
    second.embed(bright)
    assert second.settle() == pytest.approx(5.0, abs=1.0)
    assert second.settle() == 0.0


# -- the table ------------------------------------------------------------------------------------


def result(
    way: str, errors_m: list[float], hpl_m: float | None, scenario: Any, tmp_path: Path
) -> Any:
    """A flight north at 10 m/s whose fixes are so far to the east."""
    from table import Result

    lines = ["t,lat,lon"]
    fixes = []
    for number, error_m in enumerate(errors_m):
        lat = 47.0 + number * 10 / 111_200
        lines.append(f"{number},{lat:.7f},8.0")
        values = {
            "v": 1, "t": float(number), "frame": number, "state": "TRACK", "lat": lat,
            "lon": 8.0 + error_m / 76_000, "sigma_m": None if hpl_m is None else hpl_m / 3.72,
            "hpl_m": hpl_m, "agl_m": 100.0, "anchor_age_s": 0.0, "score": 0.8, "latency_ms": 9.0,
            "top": [],
        }  # fmt: skip
        fixes.append(parse_fix(json.dumps(values), "toy"))
    path = tmp_path / "truth.csv"
    path.write_text("\n".join(lines) + "\n")
    return Result(scenario, way, match_flight(fixes, read_truth(path), scenario.alert_limit_m))


def test_the_table_tells_each_way_and_what_the_product_misses(tmp_path: Path) -> None:
    from table import markdown, to_json

    scenario = read(TOY, tmp_path)
    results = [
        result("filtered", [2.0, 2.0, 2.0, 9.0], 8.0, scenario, tmp_path),
        result("top1", [3.0, 3.0, 3.0, 300.0], None, scenario, tmp_path),
    ]
    text = markdown(results, {"savanna": "no imagery"})
    lines = text.splitlines()
    assert lines[2].startswith("| toy (20 m) | filtered | 100 % | 100 % | 2.0 | ")
    assert "| 0 (0 %) | 1 (25.0 %) | 0.0 | 0.0 | 9.0 |" in lines[2]
    assert "| toy (20 m) | top1 | 100 % | – | 3.0 | " in lines[3]
    assert "| 1 (25.0 %) | – |" in lines[3]
    assert (
        "CEP50 of `filtered` at most half of that of `top1`: in 0 of 1 scenarios; not in toy."
        in text
    )
    assert "No fix of `filtered` beyond its HPL: in 0 of 1 scenarios; not in toy (1)." in text
    assert "No false fix of `filtered`: in 1 of 1 scenarios." in text
    assert text.endswith("Left out: savanna: no imagery\n")
    figures = to_json(results, {}, {"encoder": "70"})
    assert figures["scenarios"]["toy"]["filtered"]["misleading"] == 1
    assert figures["scenarios"]["toy"]["top1"]["misleading_rate"] is None


def test_a_scenario_that_is_not_there_is_told_from_those_that_are(tmp_path: Path) -> None:
    from compare import cli

    told = CliRunner().invoke(cli, ["--out", str(tmp_path), "--scenario", "moon"])
    assert isinstance(told.exception, InputError)
    assert str(told.exception).startswith(
        "--scenario moon: no such file; there are bank, blackout, "
    )


@pytest.mark.slow
def test_a_second_run_makes_nothing_anew(
    tmp_path: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command flies, packs, localises and scores; what it keeps serves again."""
    import compare
    import ways

    (tmp_path / "toy.toml").write_text(TOY)
    monkeypatch.setattr(compare, "scenario_files", lambda folder: {"toy": tmp_path / "toy.toml"})
    json_path = tmp_path / "figures.json"
    command = ["--out", str(toy_folder), "--way", "single", "--json", str(json_path)]
    first = CliRunner().invoke(compare.cli, command, catch_exceptions=False)
    assert "| toy (20 m) | single |" in first.stdout
    assert json.loads(json_path.read_text())["scenarios"]["toy"]["single"]["frames"] == 11
    monkeypatch.setattr(ways, "WAYS", {})
    monkeypatch.setattr(compare, "make_flight", _only_kept(compare.make_flight, toy_folder))
    again = CliRunner().invoke(compare.cli, command, catch_exceptions=False)
    assert again.stdout == first.stdout
    drawn = [*command, "--plot", str(tmp_path / "plots")]
    CliRunner().invoke(compare.cli, drawn, catch_exceptions=False)
    assert (tmp_path / "plots" / "toy-single.png").read_bytes().startswith(b"\x89PNG")


def _only_kept(make: Any, folder: Path) -> Any:
    def kept(*given: Any) -> Any:
        before = sorted(folder.rglob("*"))
        made = make(*given)
        assert sorted(folder.rglob("*")) == before
        return made

    return kept
