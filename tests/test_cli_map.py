from __future__ import annotations

import json
import runpy
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("rasterio", reason="maps for a GIS need rasterio (the pack extra)")
pytest.importorskip("pyogrio", reason="GeoPackages need pyogrio (the pack extra)")
pytest.importorskip("shapely", reason="routes need shapely (the pack extra)")

import rasterio

from s4g.tilepacks.ambiguity import find_ambiguity
from s4g.tilepacks.ambiguity_route import look_ahead, route_text, route_values, stretches
from s4g.tilepacks.area import read_route
from s4g.tilepacks.cli import cli
from s4g.tilepacks.pictures import draw_ambiguity, draw_preview, draw_route
from s4g.tilepacks.reader import open_pack

_HERE = Path(__file__)
toy = SimpleNamespace(**runpy.run_path(str(_HERE.with_name("toy_vectors.py"))))
land = SimpleNamespace(**runpy.run_path(str(_HERE.with_name("toy_map.py"))))

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of 144 tiles of 64 m, whose west looks like its east, and 9 of 96 m."""
    vectors = toy.smooth(12, 12)
    columns = np.arange(144) % 12
    vectors[columns < 3] = vectors[columns >= 9]
    first = land.tiles_of(land.lattice_of(12, 12), vectors)
    second = land.tiles_of(land.lattice_of(3, 3, stride_px=32, footprint_m=96.0), toy.unit(9, 16))
    path = tmp_path_factory.mktemp("pack") / "made.s4gpack"
    land.write_map(path, [first, second]).close()
    return path


@pytest.fixture
def pack(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made, tmp_path / "p.s4gpack"))


@pytest.fixture
def apart(tmp_path: Path) -> Path:
    """A pack whose tiles do not overlap."""
    tiles = land.tiles_of(land.lattice_of(4, 4, stride_px=64), toy.unit(16, 8))
    land.write_map(tmp_path / "apart.s4gpack", [tiles]).close()
    return tmp_path / "apart.s4gpack"


@pytest.fixture
def route(tmp_path: Path) -> Path:
    path: Path = land.write_route(tmp_path / "r.geojson", [(-80.0, 8.0), (200.0, 8.0)])
    return path


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# Pictures and GeoTIFFs.


def test_a_preview_is_drawn(run: Run, pack: Path, tmp_path: Path) -> None:
    for out, options, level in (("a.png", (), 0), ("b.PNG", ("--level", "96"), 1)):
        assert run("preview", pack, "--out", tmp_path / out, *options) == (
            0,
            f"{tmp_path / out}\n",
            "",
        )
        with open_pack(pack) as opened:
            assert (tmp_path / out).read_bytes() == draw_preview(opened, level)


@pytest.mark.parametrize("name", ["a.tif", "a.TIFF"])
def test_a_preview_for_a_gis_is_written(run: Run, pack: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    assert run("preview", pack, "--out", out, "--level", 96) == (0, f"{out}\n", "")
    with rasterio.open(out) as file:
        assert file.descriptions == ("detail_grey",)
        assert file.shape == (3, 3)


def test_ambiguity_is_drawn_and_told(run: Run, pack: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    code, text, err = run("ambiguity", pack, "--out", out)
    assert (code, err) == (0, "")
    with open_pack(pack) as opened:
        found = find_ambiguity(opened, 0)
        assert out.read_bytes() == draw_ambiguity(opened, 0, found)
        worst = np.argsort(-found.hardness, kind="stable")[:5]
        lat, lon = opened.frame.to_wgs84(found.east_m[worst], found.north_m[worst])
    p50, p95, most = (round(float(np.percentile(found.cosine, q)), 4) for q in (50, 95, 100))
    lines = text.splitlines()
    assert lines[0] == (
        f"level 64 m, 144 tiles: the most similar place elsewhere has a cosine of {p50} (median), "
        f"{p95} (95 %), {most} (most); {found.hard.mean():.1%} of them are hard"
    )
    assert found.hard.any() and not found.hard.all()
    assert lines[1:6] == [
        f"  hard at {round(float(lat[i]), 7):.6f},{round(float(lon[i]), 7):.6f}: cosine "
        f"{round(float(found.cosine[row]), 4)} to a place {found.away_m[row]:.0f} m away, "
        f"margin {round(float(found.margin[row]), 4)}"
        for i, row in enumerate(worst)
    ]
    assert lines[6:] == [str(out)]


def test_ambiguity_for_a_gis_is_written(run: Run, pack: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.tif"
    code, text, _ = run("ambiguity", pack, "--out", out)
    assert code == 0 and text.endswith(f"{out}\n")
    with rasterio.open(out) as file:
        assert file.descriptions == ("rival_cosine", "rival_away_m", "margin")


def test_ambiguity_as_json(run: Run, pack: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    code, text, err = run("ambiguity", pack, "--json", "--out", out)
    assert (code, err) == (0, "") and out.is_file()
    told = json.loads(text)
    with open_pack(pack) as opened:
        found = find_ambiguity(opened, 0)
    hardest = told.pop("hardest")
    assert told == {
        "file": str(pack),
        "level_m": 64.0,
        "tiles": 144,
        "hard": round(float(found.hard.mean()), 4),
        "cosine": {
            name: round(float(np.percentile(found.cosine, share)), 4)
            for name, share in (("p5", 5), ("p50", 50), ("p95", 95), ("max", 100))
        },
    }
    rows = np.argsort(-found.hardness, kind="stable")[:5]
    assert [(place["cosine"], place["rival_away_m"], place["hard"]) for place in hardest] == [
        (round(float(found.cosine[r]), 4), round(float(found.away_m[r]), 1), True) for r in rows
    ]
    assert all(set(place) >= {"lat", "lon"} for place in hardest)


def test_the_hardest_places_come_first_though_others_have_a_nearer_rival(
    run: Run, tmp_path: Path
) -> None:
    # Neighbours alike have rivals of cosine 0.9; two on their own ground are hard at 0.8.
    lattice = land.lattice_of(1, 24)
    flat, steep = np.array([1.0, 0, 0, 0]), np.array([0, 0, 1.0, 0])
    vectors = np.tile(flat, (24, 1))
    vectors[8:16] = [0.9, np.sqrt(1 - 0.81), 0, 0]
    vectors[[3, 20]] = steep, [0, 0, 0.8, 0.6]
    vectors[16:] = np.where(vectors[16:] == flat, [0, 0, 0, 1.0], vectors[16:])
    tiles = land.tiles_of(lattice, vectors.astype(np.float32))
    with land.write_map(tmp_path / "p.s4gpack", [tiles]) as pack:
        found = find_ambiguity(pack, 0)
    told = json.loads(run("ambiguity", tmp_path / "p.s4gpack", "--json")[1])["hardest"]
    left = np.sort(found.margin)[:5]
    hard = [bool(place["hard"]) for place in told]
    assert hard == sorted(hard, reverse=True)
    assert hard == (left <= 0).tolist()


def test_a_level_without_another_place_is_refused(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "p.s4gpack"
    land.write_map(path, [land.tiles_of(land.lattice_of(2, 2), toy.unit(4, 8))]).close()
    code, text, err = run("ambiguity", path, "--out", tmp_path / "a.png")
    assert (code, text) == (2, "")
    assert err == (
        f"error: {path}: level 64 m: its tiles are all less than a footprint apart, there is no "
        "other place to compare them with; choose a finer --level\n"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["p.s4gpack"]


NOTE = (
    "note: level 64 m: its tiles do not overlap, so that nothing tells how like a tile a frame is: "
    "none is called hard\n"
)


def test_tiles_that_do_not_overlap_are_noted(
    run: Run, apart: Path, route: Path, tmp_path: Path
) -> None:
    code, text, err = run("ambiguity", apart)
    assert (code, err) == (0, NOTE)
    assert "; 0.0% of them are hard\n  least safe at " in text
    assert run("ambiguity", apart, "--route", route)[2] == NOTE
    assert run("export", apart, "--out", tmp_path / "a.gpkg", "--ambiguity")[2] == NOTE
    assert run("export", apart, "--out", tmp_path / "b.gpkg")[2] == ""


def test_tiles_that_are_left_out_are_noted(run: Run, pack: Path, tmp_path: Path) -> None:
    note = "note: level 64 m: 5 of 144 tiles compared with all; --tiles 144 compares every one\n"
    code, text, err = run("ambiguity", pack, "--tiles", 5)
    assert (code, err) == (0, note)
    assert text.startswith("level 64 m, 5 tiles: ")
    code, text, err = run("ambiguity", pack, "--tiles", 5, "--json")
    assert (err, json.loads(text)["tiles"]) == (note, 5)
    assert run("ambiguity", pack, "--tiles", 144)[2] == ""
    assert run("ambiguity", pack, "--tiles", 999)[2] == ""
    code, _, err = run("export", pack, "--out", tmp_path / "p.gpkg", "--ambiguity", "--tiles", 9)
    assert err == (
        "note: level 64 m: 9 of 144 tiles compared with all; --tiles 144 compares every one\n"
    )


# Along a route.


@pytest.mark.parametrize(("options", "spacing_m"), [((), 16.0), (("--spacing", "0.04km"), 40.0)])
def test_a_route_is_told_and_drawn(
    run: Run, pack: Path, route: Path, tmp_path: Path, options: Sequence[str], spacing_m: float
) -> None:
    out = tmp_path / "a.png"
    code, text, err = run("ambiguity", pack, "--route", route, "--out", out, *options)
    with open_pack(pack) as opened:
        stride_m = opened.levels[0].stride_m
        note = (
            f"note: samples {spacing_m:g} m apart, tiles every {stride_m:g} m: what is hard "
            "between samples is missed\n"
        )
        assert (code, err) == (0, note if spacing_m > stride_m else "")
        ahead = look_ahead(opened, 0, read_route(route, 1.0), spacing_m)
        found = stretches(ahead)
        assert text == route_text(opened, ahead, found, 10) + f"\n{out}\n"
        assert out.read_bytes() == draw_route(opened, 0, ahead, found, "r.geojson")
    assert text.splitlines()[-2].startswith("route 0.28 km: ")


def test_a_route_as_json_has_every_sample(run: Run, pack: Path, route: Path) -> None:
    code, text, err = run("ambiguity", pack, "--route", route, "--level", 96, "--json")
    assert (code, err) == (0, "")
    with open_pack(pack) as opened:
        ahead = look_ahead(opened, 1, read_route(route, 1.0), 48.0)
        values = route_values(opened, ahead, stretches(ahead))
    assert json.loads(text) == {
        "file": str(pack),
        "level_m": 96.0,
        "route": str(route),
        "spacing_m": 48.0,
        **values,
    }
    assert len(values["samples"]) == 7


def test_only_the_ten_longest_stretches_are_told(run: Run, pack: Path, tmp_path: Path) -> None:
    lines = [[(200.0 + i, 0.0), (200.0 + i, 5.0)] for i in range(12)]
    route = land.write_route(tmp_path / "many.geojson", *lines)
    lines_told = run("ambiguity", pack, "--route", route)[1].splitlines()
    assert len(lines_told) == 12
    assert lines_told[10] == "     2 shorter ones, 0.01 km in all"


def test_a_route_wholly_outside_is_said_to_be(run: Run, pack: Path, tmp_path: Path) -> None:
    route = land.write_route(tmp_path / "far.geojson", [(5000.0, 0.0), (6000.0, 0.0)])
    with open_pack(pack) as opened:
        note = f"note: {route} lies wholly outside {pack}, which covers {opened.bounds}\n"
    code, _, err = run("ambiguity", pack, "--route", route, "--out", tmp_path / "far.png")
    assert (code, err) == (0, note)


# GeoPackages.


def layers_of(path: Path) -> dict[str, list[str]]:
    """The layers of a GeoPackage with their columns."""
    with closing(sqlite3.connect(path)) as file:
        names = [row[0] for row in file.execute("SELECT table_name FROM gpkg_contents")]
        return {
            name: [row[1] for row in file.execute(f'PRAGMA table_info("{name}")')] for name in names
        }


def test_all_levels_are_exported(run: Run, pack: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.gpkg"
    assert run("export", pack, "--out", out) == (0, f"{out}\n", "")
    layers = layers_of(out)
    assert set(layers) == {"region", "level_64m", "level_96m", "layer_styles"}
    assert "hard" not in layers["level_64m"]


def test_one_level_is_exported_with_where_it_is_hard(run: Run, pack: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.GPKG"
    assert run("export", pack, "--out", out, "--level", 64, "--ambiguity") == (0, f"{out}\n", "")
    layers = layers_of(out)
    assert set(layers) == {"region", "level_64m", "layer_styles"}
    assert "hard" in layers["level_64m"]
    with open_pack(pack) as opened, closing(sqlite3.connect(out)) as file:
        found = find_ambiguity(opened, 0)
        (hard,) = file.execute("SELECT sum(hard) FROM level_64m").fetchone()
    assert hard == found.hard.sum()


# Refusals: one line, exit code 2, nothing written.

COMMANDS = [
    ("preview", "a.png"),
    ("preview", "a.tif"),
    ("ambiguity", "a.png"),
    ("ambiguity", "a.tif"),
    ("export", "a.gpkg"),
]


@pytest.mark.parametrize(("command", "name"), COMMANDS)
def test_an_existing_file_is_replaced_only_when_told(
    run: Run, pack: Path, tmp_path: Path, command: str, name: str
) -> None:
    out = tmp_path / name
    out.write_text("mine")
    assert run(command, pack, "--out", out) == (
        2,
        "",
        f"error: {out}: already exists; pass --overwrite to replace it\n",
    )
    assert out.read_text() == "mine"
    # Told at once, before any work.
    missing = tmp_path / "none.s4gpack"
    assert run(command, missing, "--out", out)[2].startswith(f"error: {out}: already exists; ")
    assert run(command, pack, "--out", out, "--overwrite")[0] == 0
    assert len(out.read_bytes()) > 100
    assert names_in(tmp_path) == {"p.s4gpack", name}


def test_a_picture_of_a_route_is_replaced_only_when_told(
    run: Run, pack: Path, route: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.png"
    out.write_text("mine")
    arguments = "ambiguity", pack, "--route", route, "--out", out
    assert run(*arguments)[2] == f"error: {out}: already exists; pass --overwrite to replace it\n"
    assert out.read_text() == "mine"
    assert run(*arguments, "--overwrite")[0] == 0
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("command", "name", "expected"),
    [
        ("preview", "a.jpg", ".png or .tif or .tiff"),
        ("preview", "png", ".png or .tif or .tiff"),
        ("ambiguity", "a.gpkg", ".png or .tif or .tiff"),
        ("export", "a.tif", ".gpkg"),
        ("export", "a.gpkg.zip", ".gpkg"),
    ],
)
def test_a_name_of_another_kind_is_refused(
    run: Run, pack: Path, tmp_path: Path, command: str, name: str, expected: str
) -> None:
    out = tmp_path / name
    message = f"error: --out {out}: expected a name that ends in {expected}\n"
    assert run(command, pack, "--out", out) == (2, "", message)
    assert names_in(tmp_path) == {"p.s4gpack"}


def test_a_route_is_a_picture_alone(run: Run, pack: Path, route: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.tif"
    assert run("ambiguity", pack, "--route", route, "--out", out) == (
        2,
        "",
        f"error: --out {out}: expected a name that ends in .png\n",
    )


@pytest.mark.parametrize(("command", "name"), COMMANDS)
def test_a_level_that_a_pack_lacks_is_refused(
    run: Run, pack: Path, tmp_path: Path, command: str, name: str
) -> None:
    answer = run(command, pack, "--out", tmp_path / name, "--level", 7.5)
    assert answer == (2, "", f"error: --level 7.5: {pack} has 64, 96\n")
    assert names_in(tmp_path) == {"p.s4gpack"}


def test_a_level_that_a_pack_lacks_is_refused_along_a_route(
    run: Run, pack: Path, route: Path
) -> None:
    answer = run("ambiguity", pack, "--route", route, "--level", 7)
    assert answer == (2, "", f"error: --level 7: {pack} has 64, 96\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("ambiguity", "p.s4gpack", "--route", "r", "--tiles", "5"),
            "--tiles has no effect with --route; all along it are compared",
        ),
        (("ambiguity", "p.s4gpack", "--spacing", "5m"), "--spacing goes with --route"),
        (
            ("export", "p.s4gpack", "--out", "a.gpkg", "--tiles", "5"),
            "--tiles goes with --ambiguity",
        ),
        (
            ("ambiguity", "p.s4gpack", "--tiles", "1"),
            "Invalid value for '--tiles': 1 is not in the range x>=2",
        ),
        (("preview", "p.s4gpack"), "Missing option '--out'"),
        (("export", "p.s4gpack"), "Missing option '--out'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    pack: Path, monkeypatch: pytest.MonkeyPatch, run: Run, arguments: Sequence[str], message: str
) -> None:
    monkeypatch.chdir(pack.parent)
    code, out, err = run(*arguments)
    told, hint = err.split(" (see ")
    assert (code, out, told) == (2, "", f"error: {message}")
    # The command's name before it is as it was started.
    assert hint.endswith(f"{arguments[0]} --help)\n")
    assert names_in(pack.parent) == {"p.s4gpack"}


@pytest.mark.parametrize("spacing", ["5", "0m", "-5m", "nanm", "infkm", "m"])
def test_a_spacing_that_is_none_is_refused(run: Run, pack: Path, route: Path, spacing: str) -> None:
    assert run("ambiguity", pack, "--route", route, "--spacing", spacing) == (
        2,
        "",
        f"error: --spacing {spacing}: expected a length with its unit, for example 800m or 2km\n",
    )


def test_samples_without_end_are_refused(run: Run, pack: Path, route: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    for spacing, told in (("0.001m", "0.001"), ("1e-300km", "1e-297")):
        answer = run("ambiguity", pack, "--route", route, "--spacing", spacing, "--out", out)
        assert answer == (
            2,
            "",
            f"error: --spacing {told} m: more than 200,000 samples along {route}; choose a longer "
            "one\n",
        )
    assert not out.exists()


def test_a_route_that_is_none_is_refused_before_the_pack_is_read(run: Run, tmp_path: Path) -> None:
    wrong = tmp_path / "r.geojson"
    wrong.write_text("{}")
    assert run("ambiguity", tmp_path / "missing.s4gpack", "--route", wrong) == (
        2,
        "",
        f"error: {wrong}: holds no route; expected GPX, GeoJSON, .waypoints or .plan\n",
    )
    missing = tmp_path / "none.gpx"
    assert run("ambiguity", tmp_path / "missing.s4gpack", "--route", missing)[2] == (
        f"error: {missing}: cannot be read (No such file or directory)\n"
    )


@pytest.mark.parametrize(("command", "name"), COMMANDS)
def test_a_folder_that_is_missing_is_refused(
    run: Run, pack: Path, tmp_path: Path, command: str, name: str
) -> None:
    out = tmp_path / "no" / name
    assert run(command, pack, "--out", out) == (
        2,
        "",
        f"error: {out}: the folder {out.parent} does not exist; create it first\n",
    )


@pytest.mark.parametrize(("command", "name"), COMMANDS)
def test_a_damaged_pack_leaves_nothing_behind(
    run: Run, pack: Path, tmp_path: Path, command: str, name: str
) -> None:
    data = bytearray(pack.read_bytes())
    with open_pack(pack) as opened:
        wanted = "level0.codes" if command == "ambiguity" else "level0.detail"
        section = bytes(opened.container.section(wanted))
    at = data.index(section)
    data[at + len(section) // 2] ^= 1
    pack.write_bytes(data)
    code, out, err = run(command, pack, "--out", tmp_path / name)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {pack}: ") and wanted in err and len(err.splitlines()) == 1
    assert names_in(tmp_path) == {"p.s4gpack"}


@pytest.mark.parametrize(("command", "name"), COMMANDS)
def test_a_pack_that_is_missing_is_refused(
    run: Run, tmp_path: Path, command: str, name: str
) -> None:
    pack = tmp_path / "none.s4gpack"
    code, out, err = run(command, pack, "--out", tmp_path / name)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {pack}: ") and len(err.splitlines()) == 1
    assert names_in(tmp_path) == set()


@pytest.mark.parametrize("command", ["preview", "ambiguity", "export"])
def test_help_has_an_example(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--help"])
    assert result.exit_code == 0
    assert f"s4g-pack {command} " in result.output
    assert "Example" in result.output
