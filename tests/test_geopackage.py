from __future__ import annotations

import errno
import os
import runpy
import shutil
import sqlite3
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("pyogrio", reason="GeoPackages need pyogrio (the pack extra)")
pytest.importorskip("rasterio", reason="GeoPackages need rasterio (the pack extra)")
pytest.importorskip("shapely", reason="reading squares needs shapely (the pack extra)")

import pyogrio.errors
import pyogrio.raw
import rasterio
import rasterio.errors
import shapely
from pyproj import CRS, Geod

from s4g.core.errors import InputError, S4GError
from s4g.tilepacks import geopackage
from s4g.tilepacks.ambiguity import Ambiguity, find_ambiguity
from s4g.tilepacks.geopackage import export_geopackage
from s4g.tilepacks.reader import Pack
from s4g.tilepacks.variants import Variant

_HERE = Path(__file__)
toy = SimpleNamespace(**runpy.run_path(str(_HERE.with_name("toy_vectors.py"))))
land = SimpleNamespace(**runpy.run_path(str(_HERE.with_name("toy_map.py"))))

NAMES = Variant(0, 0.0), Variant(0, 180.0), Variant(1, 0.0)


def image() -> npt.NDArray[np.uint8]:
    """240 x 320 pixels: red in the north-west, else green."""
    found = np.full((240, 320, 3), (20, 160, 40), np.uint8)
    found[:120, :160] = (200, 30, 30)
    return found


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pack]:
    """Two levels with holes, three variants, and vectors that tiles share."""
    rng = np.random.default_rng(4)
    levels = []
    for seed, lattice in enumerate(
        (land.lattice_of(12, 17), land.lattice_of(5, 8, stride_px=24, footprint_m=76.8))
    ):
        count = lattice.count // 2 * 3
        cells, variants = np.divmod(np.sort(rng.permutation(lattice.count * 3)[:count]), 3)
        vectors = toy.unit(count // 2, 8, seed)[rng.integers(0, count // 2, count)]
        detail = rng.integers(0, 256, count)
        levels.append(land.tiles_of(lattice, vectors, cells, variants, detail))
    path = tmp_path_factory.mktemp("pack") / "p.s4gpack"
    dates = ("2024-07-01", "")
    with land.write_map(path, levels, NAMES, image(), "toy <office> & friends", dates) as opened:
        yield opened


@pytest.fixture(scope="module")
def found(pack: Pack) -> Ambiguity:
    return find_ambiguity(pack, 0, 60)


@pytest.fixture(scope="module")
def path(pack: Pack, found: Ambiguity, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("out") / "p.gpkg"
    export_geopackage(pack, path, range(2), {0: found})
    return path


def rows_of(path: Path, layer: str) -> tuple[list[Any], dict[str, list[Any]]]:
    """The shapes and the columns of a layer, nulls as None, read by SQLite itself."""
    _, _, data, _ = pyogrio.raw.read(path, layer=layer)
    shapes = [] if data is None else list(shapely.from_wkb(data))
    with closing(sqlite3.connect(path)) as file:
        answer = file.execute(f'SELECT * FROM "{layer}"')
        names = [column[0] for column in answer.description]
        rows = answer.fetchall()
    return shapes, {name: [row[i] for row in rows] for i, name in enumerate(names)}


def asked(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as file:
        return file.execute(query).fetchall()


def tiles_by_place(pack: Pack, level: int) -> dict[int, list[int]]:
    """The tiles of each cell, within the level, by variant; cells ascend."""
    cells, variants = pack.cells(level).tolist(), pack.variants(level).tolist()
    places: dict[int, list[int]] = {}
    for number in sorted(range(len(cells)), key=lambda n: (cells[n], variants[n])):
        places.setdefault(cells[number], []).append(number)
    return places


def test_it_is_a_whole_geopackage(path: Path) -> None:
    assert asked(path, "PRAGMA integrity_check") == [("ok",)]
    assert asked(path, "PRAGMA foreign_key_check") == []
    assert asked(path, "PRAGMA application_id") == [(0x47504B47,)]  # "GPKG"
    assert asked(path, "PRAGMA user_version")[0][0] >= 10200
    assert [found.name for found in path.parent.iterdir()] == ["p.gpkg"]


def test_it_lists_its_layers(path: Path) -> None:
    told = asked(path, "SELECT table_name, data_type, srs_id FROM gpkg_contents ORDER BY 1")
    kinds = {name: (kind, srs) for name, kind, srs in told}
    srs_id = kinds.pop("overview")[1]
    assert kinds.pop("layer_styles")[0] == "attributes"
    assert kinds == {
        "level_64m": ("features", 4326),
        "level_76.8m": ("features", 4326),
        "region": ("features", 4326),
    }
    assert dict(told and [(name, kind) for name, kind, _ in told])["overview"] == "tiles"
    assert srs_id not in (4326, -1, 0)
    columns = asked(path, "SELECT * FROM gpkg_geometry_columns ORDER BY 1")
    assert columns == [
        (layer, "geom", "POLYGON", 4326, 0, 0) for layer in ("level_64m", "level_76.8m", "region")
    ]


def test_its_boxes_hold_its_squares(path: Path, pack: Pack) -> None:
    for layer in ("level_64m", "level_76.8m", "region"):
        shapes, _ = rows_of(path, layer)
        query = f"SELECT min_x, min_y, max_x, max_y FROM gpkg_contents WHERE table_name='{layer}'"
        (box,) = asked(path, query)
        assert box == pytest.approx(tuple(shapely.total_bounds(shapes)), abs=1e-12)


@pytest.mark.parametrize(("level", "layer"), [(0, "level_64m"), (1, "level_76.8m")])
def test_corners_of_squares_lie_within_a_millimetre(
    path: Path, pack: Pack, level: int, layer: str
) -> None:
    shapes, columns = rows_of(path, layer)
    half, geod = pack.levels[level].footprint_m / 2, Geod(ellps="WGS84")
    for shape, tile in zip(shapes, columns["tile"], strict=True):
        assert shape.is_valid and shape.exterior.is_ccw and not shape.interiors
        lon, lat = np.array(shape.exterior.coords).T
        assert (lon[0], lat[0]) == (lon[4], lat[4])
        east = pack.east_m[tile] + half * np.array([-1, 1, 1, -1])
        north = pack.north_m[tile] + half * np.array([-1, -1, 1, 1])
        wanted_lat, wanted_lon = pack.frame.to_wgs84(east, north)
        _, _, away_m = geod.inv(lon[:4], lat[:4], wanted_lon, wanted_lat)
        assert np.max(away_m) < 1e-3


@pytest.mark.parametrize(("level", "layer"), [(0, "level_64m"), (1, "level_76.8m")])
def test_every_place_is_told_once_with_what_is_known_of_it(
    path: Path, pack: Pack, level: int, layer: str
) -> None:
    _, columns = rows_of(path, layer)
    places, record = tiles_by_place(pack, level), pack.levels[level]
    wide = pack.manifest.levels[level].lattice.columns
    first = [numbers[0] for numbers in places.values()]
    shared = pack.vectors(level).vector_of_tile
    assert shared is not None
    assert columns["tile"] == [number + record.first for number in first]
    assert columns["row"] == [cell // wide for cell in places]
    assert columns["column"] == [cell % wide for cell in places]
    assert columns["variants"] == [len(numbers) for numbers in places.values()]
    assert columns["vector"] == [int(shared[number]) for number in first]
    assert columns["detail_grey"] == [pack.detail(level)[number] / 16 for number in first]
    assert sum(columns["variants"]) == record.count


def test_a_place_is_told_by_its_hardest_tile_and_nothing_where_none_was_compared(
    path: Path, pack: Pack, found: Ambiguity
) -> None:
    _, columns = rows_of(path, "level_64m")
    row_of = {tile: row for row, tile in enumerate(found.tiles.tolist())}
    nulls = 0
    for place, numbers in enumerate(tiles_by_place(pack, 0).values()):
        rows = [row_of[n] for n in numbers if n in row_of]
        told = [columns[name][place] for name in ("rival_cosine", "rival_away_m", "margin")]
        if not rows:
            assert [*told, columns["hard"][place]] == [None] * 4
            nulls += 1
            continue
        row = max(rows, key=lambda row: float(found.hardness[row]))
        expected = [found.cosine[row], found.away_m[row], found.margin[row]]
        np.testing.assert_allclose(told, expected, rtol=1e-6)
        assert columns["hard"][place] == int(found.hard[row])
    assert 0 < nulls < len(columns["tile"])


def test_a_level_that_was_not_compared_has_no_such_columns(path: Path) -> None:
    assert list(rows_of(path, "level_76.8m")[1]) == [
        "fid", "geom", "tile", "row", "column", "detail_grey", "variants", "vector",
    ]  # fmt: skip


def one_place(
    folder: Path, cosine: tuple[float, float], margin: tuple[float, float], rival: int = 0
) -> dict[str, list[Any]]:
    """The columns of a level of one place with two tiles, and what they are mistaken for."""
    tiles = land.tiles_of(land.lattice_of(1, 1), toy.unit(2, 8), [0, 0], [0, 1])
    like, left = np.array(cosine, np.float32), np.array(margin, np.float32)
    with land.write_map(folder / "p.s4gpack", [tiles], NAMES[:2]) as pack:
        found = Ambiguity(
            np.arange(2), pack.east_m, pack.north_m, like,
            np.full(2, rival), np.array([100.0, 200.0]), like + left,
        )  # fmt: skip
        export_geopackage(pack, folder / "p.gpkg", [0], {0: found})
    return rows_of(folder / "p.gpkg", "level_64m")[1]


@pytest.mark.parametrize("turned", [False, True])
def test_hard_is_told_though_another_tile_there_is_more_like_its_rival(
    tmp_path: Path, turned: bool
) -> None:
    columns = one_place(
        tmp_path,
        (0.75, 0.5) if turned else (0.5, 0.75),
        (0.25, -0.25) if turned else (-0.25, 0.25),
    )
    assert columns["hard"] == [1]
    assert columns["rival_cosine"] == [0.5]
    assert columns["rival_away_m"] == [200.0 if turned else 100.0]


def test_no_margin_left_is_hard(tmp_path: Path) -> None:
    assert one_place(tmp_path, (0.5, 0.5), (0.0, 0.0))["hard"] == [1]


def test_where_no_place_is_a_rival_nothing_is_told(tmp_path: Path) -> None:
    columns = one_place(tmp_path, (-1, -1), (1.5, 1.5), rival=-1)
    for name in ("rival_cosine", "rival_away_m", "margin", "hard"):
        assert columns[name] == [None]


def test_of_tiles_that_do_not_overlap_none_is_called_hard_or_not(tmp_path: Path) -> None:
    columns = one_place(tmp_path, (0.5, 0.75), (np.nan, np.nan))
    assert columns["rival_cosine"] == [0.75]
    assert (columns["margin"], columns["hard"]) == ([None], [None])


def test_the_region_tells_where_it_comes_from(path: Path, pack: Pack) -> None:
    (shape,), columns = rows_of(path, "region")
    box = pack.bounds
    assert shape.equals(shapely.box(box.west, box.south, box.east, box.north))
    assert shape.exterior.is_ccw
    told = {name: values[0] for name, values in columns.items() if name not in ("fid", "geom")}
    assert told == {
        "pack": "p.s4gpack",
        "encoder": "toy",
        "model": "70" * 32,
        "imagery": "toy0.tif 2024-07-01; toy1.tif",
        "attribution": "toy <office> & friends",
        "tool": "s4g-pack 0",
        "dims": 8,
        "tiles": len(pack.east_m),
    }


def test_qgis_finds_a_style_for_each_layer(path: Path) -> None:
    _, columns = rows_of(path, "layer_styles")
    names = columns["f_table_name"], columns["styleName"], columns["useAsDefault"]
    assert list(zip(*names, strict=True)) == [
        ("level_64m", "margin", 1),
        ("level_64m", "detail_grey", 0),
        ("level_76.8m", "detail_grey", 1),
    ]
    assert columns["f_geometry_column"] == ["geom"] * 3
    # QGIS looks for equal words, not for nulls.
    for name in ("f_table_catalog", "f_table_schema"):
        assert columns[name] == [""] * 3
    assert all(time.endswith("Z") and len(time) == 24 for time in columns["update_time"])


def test_a_style_colours_its_column_from_bad_to_good(path: Path, pack: Pack) -> None:
    _, columns = rows_of(path, "layer_styles")
    expected = [
        ("margin", [0, 0.1, 0.2, 0.3], "hard (at most 0 of cosine left)", "16"),
        ("detail_grey", [1, 2, 4, 6], "nothing to see (at most 1 grey levels per pixel)", "16"),
        ("detail_grey", [1, 2, 4, 6], "nothing to see (at most 1 grey levels per pixel)", "28.8"),
    ]
    layers = columns["f_table_name"]
    for layer, text, (column, bounds, worst, side) in zip(
        layers, columns["styleQML"], expected, strict=True
    ):
        style = ET.fromstring(text)
        renderer = style.find("renderer-v2")
        assert renderer is not None
        assert (style.tag, renderer.get("type")) == ("qgis", "graduatedSymbol")
        assert renderer.get("attr") == column and column in rows_of(path, layer)[1]
        ranges = renderer.findall("ranges/range")
        edges = [float(one.get("upper", "")) for one in ranges]
        assert edges[:-1] == bounds and edges[-1] > 1e6
        assert [float(one.get("lower", "")) for one in ranges][1:] == bounds
        assert float(ranges[0].get("lower", "")) < -1e6
        assert ranges[0].get("label") == worst
        symbols = renderer.findall("symbols/symbol")
        assert [one.get("symbol") for one in ranges] == [one.get("name") for one in symbols]
        colours = []
        for symbol in symbols:
            marker = symbol.find("layer/symbol/layer")
            assert marker is not None
            values = {prop.get("k"): prop.get("v") for prop in marker.findall("prop")}
            assert (values["size"], values["size_unit"]) == (side, "RenderMetersInMapUnits")
            colours.append([int(v) for v in str(values["color"]).split(",")])
        red, blue = colours[0], colours[-1]
        assert red[0] > 2 * red[2] and blue[2] > 2 * blue[0]
        assert len({tuple(colour) for colour in colours}) == 5


def test_the_picture_lies_in_the_packs_frame(path: Path, pack: Pack) -> None:
    overview = pack.overview()
    assert overview is not None
    picture, west_m, north_m, gsd_m = overview
    with rasterio.open(f"GPKG:{path}:overview") as file:
        assert CRS.from_wkt(file.crs.to_wkt()).equals(CRS.from_user_input(pack.frame.crs))
        # GDAL may make it larger, to whole tiles: by place, not by pixel.
        assert file.res == pytest.approx((gsd_m, gsd_m))
        for row, column in ((60, 157), (60, 162), (117, 80), (122, 80), (230, 300)):
            x, y = west_m + (column + 0.5) * gsd_m, north_m - (row + 0.5) * gsd_m
            (value,) = file.sample([(x, y)], indexes=(1, 2, 3))
            assert value.tolist() == pytest.approx(picture[row, column].tolist(), abs=8)


def test_without_a_picture_there_is_none(tmp_path: Path) -> None:
    tiles = land.tiles_of(land.lattice_of(3, 3), toy.unit(9, 8))
    with land.write_map(tmp_path / "p.s4gpack", [tiles]) as pack:
        export_geopackage(pack, tmp_path / "p.gpkg", [0], {})
    tables = asked(tmp_path / "p.gpkg", "SELECT table_name FROM gpkg_contents ORDER BY 1")
    assert tables == [("layer_styles",), ("level_64m",), ("region",)]
    assert asked(tmp_path / "p.gpkg", "PRAGMA integrity_check") == [("ok",)]


def test_only_the_levels_that_are_asked_for_are_written(pack: Pack, tmp_path: Path) -> None:
    path = tmp_path / "p.gpkg"
    export_geopackage(pack, path, [1], {})
    names = {row[0] for row in asked(path, "SELECT table_name FROM gpkg_contents")}
    assert names == {"overview", "region", "level_76.8m", "layer_styles"}
    tile = rows_of(path, "level_76.8m")[1]["tile"]
    assert min(tile) >= pack.levels[1].first
    # The region is the whole pack's.
    assert rows_of(path, "region")[1]["tiles"] == [len(pack.east_m)]


def test_squares_are_written_in_parts_and_progress_ends_at_their_number(
    pack: Pack, found: Ambiguity, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geopackage, "_BATCH", 37)
    told: list[tuple[str, int]] = []
    done: list[int] = []

    def progress(description: str, total: int) -> Any:
        told.append((description, total))
        return nullcontext(done.append)

    export_geopackage(pack, tmp_path / "p.gpkg", range(2), {0: found}, progress=progress)
    counts = [len(tiles_by_place(pack, level)) for level in range(2)]
    layers = ["level_64m", "level_76.8m"]
    assert told == [(f"writing {name}", count) for name, count in zip(layers, counts, strict=True)]
    assert sum(done) == sum(counts) and max(done) == 37
    for layer in layers:
        (parts, columns), (whole, expected) = (
            rows_of(p, layer) for p in (tmp_path / "p.gpkg", path)
        )
        assert shapely.equals_exact(parts, whole).all()
        assert columns == expected


def test_an_existing_file_is_kept(pack: Pack, tmp_path: Path) -> None:
    path = tmp_path / "p.gpkg"
    path.write_text("mine")
    with pytest.raises(InputError) as error:
        export_geopackage(pack, path, [1], {})
    assert str(error.value) == f"{path}: already exists; pass --overwrite to replace it"
    assert path.read_text() == "mine"
    export_geopackage(pack, path, [1], {}, overwrite=True)
    assert asked(path, "PRAGMA integrity_check") == [("ok",)]
    # Not added to what was there.
    export_geopackage(pack, path, [1], {}, overwrite=True)
    assert len(rows_of(path, "region")[0]) == 1
    assert [found.name for found in tmp_path.iterdir()] == ["p.gpkg"]


@pytest.mark.parametrize("place", ["picture", "region", "level", "styles"])
def test_what_cannot_be_written_leaves_nothing_behind(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    real = pyogrio.raw.write
    layer = {"region": "region", "level": "level_76.8m", "styles": "layer_styles"}.get(place)

    def full(*values: Any, **given: Any) -> Any:
        if given["layer"] == layer:
            raise pyogrio.errors.DataSourceError("sqlite3_exec(INSERT) failed: disk full")
        return real(*values, **given)

    def full_picture(*values: Any, **given: Any) -> Any:
        raise rasterio.errors.RasterioIOError(f"{values[0]}: disk full")

    path = tmp_path / "p.gpkg"
    path.write_text("mine")
    monkeypatch.setattr(pyogrio.raw, "write", full)
    if place == "picture":
        monkeypatch.setattr(rasterio, "open", full_picture)
    with pytest.raises(S4GError) as error:
        export_geopackage(pack, path, [1], {}, overwrite=True)
    assert str(error.value) == (
        f"{path}: cannot write (disk full); free some space or choose another place; "
        "nothing was left behind"
    )
    assert error.value.exit_code == 1
    assert [found.name for found in tmp_path.iterdir()] == ["p.gpkg"]
    assert path.read_text() == "mine"


def test_a_full_disk_is_told_so_whatever_gdal_says(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*values: Any, **given: Any) -> Any:
        raise pyogrio.errors.DataLayerError("Failed to prepare SQL INSERT: no such table: region")

    monkeypatch.setattr(pyogrio.raw, "write", fail)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=4096))
    with pytest.raises(S4GError) as error:
        export_geopackage(pack, tmp_path / "p.gpkg", [1], {})
    assert str(error.value) == (
        f"{tmp_path / 'p.gpkg'}: cannot write (No space left on device); free some space or choose "
        "another place; nothing was left behind"
    )


def test_a_place_that_is_read_only_is_told_in_the_systems_words(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(file))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(S4GError) as error:
        export_geopackage(pack, tmp_path / "p.gpkg", [1], {})
    assert str(error.value) == (
        f"{tmp_path / 'p.gpkg'}: cannot write (Read-only file system); choose another place; "
        "nothing was left behind"
    )


def test_pyogrio_missing_is_said(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyogrio", None)
    with pytest.raises(S4GError) as error:
        export_geopackage(pack, tmp_path / "p.gpkg", [1], {})
    assert str(error.value) == "writing a GeoPackage needs pyogrio: pip install 's4g[pack]'"
    assert list(tmp_path.iterdir()) == []
