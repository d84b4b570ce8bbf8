"""MBTiles: what GDAL writes is read where it lies; damaged and foreign files are refused."""

from __future__ import annotations

import runpy
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s4g.core import source_mbtiles
from s4g.core.errors import InputError, IntegrityError
from s4g.core.geo import BBox, LocalFrame, mercator_gsd_m
from s4g.core.ground import GroundWindow
from s4g.core.source_mbtiles import MbtilesReader
from s4g.core.sources import open_ground

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_tiles.py"))))


@pytest.fixture(scope="module")
def orthophoto(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("orthophoto") / "o.tif"
    toy.write_orthophoto(path)
    return path


@pytest.fixture(scope="module")
def mbtiles(orthophoto: Path) -> Path:
    path = orthophoto.with_name("o.mbtiles")
    toy.write_mbtiles(orthophoto, path)
    return path


@pytest.fixture
def copy(mbtiles: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copy(mbtiles, tmp_path / "a.mbtiles"))


def change(path: Path, *statements: str) -> Path:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return path


def make(path: Path, *statements: str) -> Path:
    """Write an empty MBTiles file and run statements on it."""
    return change(
        path,
        "CREATE TABLE metadata (name TEXT, value TEXT)",
        "CREATE TABLE tiles (zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER, "
        "tile_data BLOB)",
        *statements,
    )


def tile_row(zoom: object, x: object, row: object, data: bytes) -> str:
    return f"INSERT INTO tiles VALUES ({zoom}, {x}, {row}, x'{data.hex()}')"


def test_what_gdal_wrote_agrees_with_the_orthophoto(mbtiles: Path, orthophoto: Path) -> None:
    source = open_ground(str(mbtiles))
    toy.check_against_orthophoto(source, orthophoto)
    source.close()


def test_it_says_what_the_file_says(mbtiles: Path, orthophoto: Path) -> None:
    reader = MbtilesReader(mbtiles)
    assert (reader.name, reader.min_zoom, reader.max_zoom) == (str(mbtiles), 16, 18)
    assert reader.tile_px == 256
    raster = open_ground(str(orthophoto))
    assert reader.bounds.intersection(raster.bounds) == raster.bounds
    source = open_ground(str(mbtiles))
    assert source.gsd_m == mercator_gsd_m(source.bounds.center[0], 18)
    for each in (reader, raster, source):
        each.close()


def test_jpeg_tiles_show_the_same_ground(orthophoto: Path, tmp_path: Path) -> None:
    path = tmp_path / "jpeg.mbtiles"
    toy.write_mbtiles(orthophoto, path, "JPEG")
    source, truth = open_ground(str(path)), open_ground(str(orthophoto))
    frame, window = LocalFrame(*truth.bounds.center), GroundWindow(-60, 60, 0.5, 240, 240)
    seen, wanted = source.read(frame, window), truth.read(frame, window)
    assert np.abs(seen.rgb.astype(float) - wanted.rgb).mean() < 3
    source.close()
    truth.close()


def test_a_missing_tile_is_a_hole(copy: Path) -> None:
    reader = MbtilesReader(copy)
    assert reader.tile(18, 0, 0) is None
    assert reader.tile(25, 1, 1) is None
    reader.close()


def test_rows_count_from_the_south(tmp_path: Path) -> None:
    reader = MbtilesReader(make(tmp_path / "a.mbtiles", tile_row(3, 5, 1, toy.png())))
    assert reader.tile(3, 5, 6) == toy.png() and reader.tile(3, 5, 1) is None
    assert reader.bounds.south == pytest.approx(-79.17, abs=0.01)
    assert (reader.bounds.west, reader.bounds.east) == (45, 90)
    reader.close()


def test_the_attribution_is_plain_text(copy: Path) -> None:
    change(copy, "INSERT INTO metadata VALUES ('attribution', '<a href=\"x\">&copy; Town</a>')")
    reader = MbtilesReader(copy)
    assert reader.attribution == "© Town"
    reader.close()


def test_bounds_come_from_the_tiles_where_the_metadata_has_none(copy: Path) -> None:
    first = MbtilesReader(copy)
    first.close()
    reader = MbtilesReader(change(copy, "DELETE FROM metadata WHERE name = 'bounds'"))
    for name in ("west", "south", "east", "north"):
        # GDAL writes tiles with a picture in them only, so at most a tile less a side.
        assert abs(getattr(reader.bounds, name) - getattr(first.bounds, name)) < 3 * 360 / (1 << 18)
    reader.close()


def test_zooms_come_from_the_tiles_and_end_at_a_gap(copy: Path) -> None:
    change(
        copy,
        "UPDATE metadata SET value = '0' WHERE name = 'minzoom'",
        "DELETE FROM tiles WHERE zoom_level = 17",
    )
    reader = MbtilesReader(copy)
    assert (reader.min_zoom, reader.max_zoom) == (18, 18)
    reader.close()


def test_several_threads_read_at_once(mbtiles: Path) -> None:
    reader, tiles = MbtilesReader(mbtiles), toy.tiles_of(mbtiles)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert list(pool.map(lambda key: reader.tile(*key), tiles)) == list(tiles.values())
    reader.close()


def test_each_thread_has_its_own_connection(mbtiles: Path) -> None:
    with closing(MbtilesReader(mbtiles)) as reader, ThreadPoolExecutor(1) as pool:
        assert pool.submit(reader._connection).result() is not reader._connection()


def test_nothing_is_written_to_the_file_or_beside_it(copy: Path) -> None:
    connection = sqlite3.connect(copy)
    connection.execute("PRAGMA journal_mode = WAL")  # readers of such a file write beside it
    connection.close()
    before = copy.read_bytes()
    reader = MbtilesReader(copy)
    reader.tile(18, 0, 0)
    assert list(copy.parent.iterdir()) == [copy]
    with pytest.raises(sqlite3.OperationalError):
        reader._connection().execute("DELETE FROM tiles")
    reader.close()
    assert copy.read_bytes() == before


def message_of(path: Path, kind: type[InputError] = InputError) -> str:
    with pytest.raises(kind) as error:
        MbtilesReader(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_vector_tiles_are_refused(copy: Path) -> None:
    change(copy, "UPDATE metadata SET value = 'pbf' WHERE name = 'format'")
    assert message_of(copy) == (
        f"{copy}: holds vector tiles (pbf), which are no imagery; "
        "give an MBTiles file of PNG, JPEG or WebP tiles"
    )


def test_a_file_without_tiles_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mbtiles")
    assert message_of(path) == f"{path}: holds no tiles; give one that has imagery"


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mbtiles"
    path.write_bytes(b"PMTiles\x03 and so on")
    assert message_of(path, IntegrityError) == (
        rf"{path}: is no MBTiles file (begins 'PMTiles\x03 and so '); fetch or make it again"
    )


def test_a_database_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = change(tmp_path / "a.mbtiles", "CREATE TABLE gpkg_contents (a)")
    assert message_of(path, IntegrityError) == (
        f"{path}: cannot be read as MBTiles (no such table: metadata); fetch or make it again"
    )


def test_a_truncated_file_is_refused(copy: Path) -> None:
    copy.write_bytes(copy.read_bytes()[:30_000])
    assert message_of(copy, IntegrityError).startswith(f"{copy}: cannot be read as MBTiles (")


# A table's name that is no text: SQLite's complaint about it cannot be decoded either.
@example(start=3876, junk=b"\x80")
@given(start=st.integers(100, 400_000), junk=st.binary(min_size=1, max_size=64))
def test_a_damaged_file_is_read_or_refused_in_one_line(
    mbtiles: Path, tmp_path_factory: pytest.TempPathFactory, start: int, junk: bytes
) -> None:
    data = bytearray(mbtiles.read_bytes())
    start %= len(data) - len(junk)
    data[start : start + len(junk)] = junk
    path = tmp_path_factory.getbasetemp() / "damaged.mbtiles"
    path.write_bytes(data)
    try:
        with closing(MbtilesReader(path)) as reader:
            for key in toy.tiles_of(mbtiles):
                reader.tile(*key)
    except InputError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)


def test_changes_that_are_not_written_yet_are_not_overlooked(copy: Path) -> None:
    connection = sqlite3.connect(copy)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("DELETE FROM tiles")
    connection.commit()
    assert message_of(copy) == (
        f"{copy}: has changes that are still in a.mbtiles-wal; close the program that writes it, "
        "or run: sqlite3 a.mbtiles 'PRAGMA wal_checkpoint(TRUNCATE)'"
    )
    connection.close()


@pytest.mark.parametrize("bounds", ["", "1,2,3", "a,b,c,d", "1;2;3;4"])
def test_bounds_that_are_no_numbers_are_refused(copy: Path, bounds: str) -> None:
    change(copy, f"UPDATE metadata SET value = '{bounds}' WHERE name = 'bounds'")
    assert message_of(copy) == (
        f"{copy}: its bounds are {bounds!r}, expected west,south,east,north in degrees; "
        "correct its metadata"
    )


def test_bounds_over_the_antimeridian_are_refused(copy: Path) -> None:
    change(copy, "UPDATE metadata SET value = '179,1,-179,2' WHERE name = 'bounds'")
    assert message_of(copy).startswith(f"{copy}: its bounds cross the antimeridian (")


def test_a_tile_outside_its_zoom_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mbtiles", tile_row(2, 7, 1, toy.png()))
    assert message_of(path, IntegrityError) == (
        f"{path}: columns 7 to 7 and rows 1 to 1 are outside zoom 2; make it again"
    )


def test_a_first_tile_that_is_no_picture_is_named(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mbtiles", tile_row(2, 1, 1, b"\x1f\x8b\x08 vector"))
    assert message_of(path, IntegrityError) == (
        rf"{path}: tile 2/1/2 is no PNG, JPEG or WebP (begins '\x1f\x8b\x08 vector'); "
        "remove it or fetch it again"
    )


def test_a_huge_tile_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = make(
        tmp_path / "a.mbtiles",
        tile_row(2, 1, 1, toy.png()),
        "INSERT INTO tiles VALUES (2, 1, 0, zeroblob(4194305))",
    )
    reader = MbtilesReader(path)
    with pytest.raises(IntegrityError) as error:
        reader.tile(2, 1, 3)
    assert str(error.value) == (
        f"{path}: tile 2/1/3 is no picture or too large "
        "(4194305 bytes, at most 4194304); make the file again"
    )
    reader.close()


def test_a_view_that_never_ends_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_mbtiles, "_MAX_STEPS", 100_000)
    path = change(
        tmp_path / "a.mbtiles",
        "CREATE TABLE metadata (name TEXT, value TEXT)",
        "CREATE VIEW tiles AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT i AS zoom_level, 0 AS tile_column, 0 AS tile_row, x'00' AS tile_data FROM n",
    )
    assert message_of(path, IntegrityError) == (
        f"{path}: cannot be read as MBTiles (interrupted); fetch or make it again"
    )


def test_a_view_may_not_call_what_reaches_beyond_the_file(tmp_path: Path) -> None:
    path = change(
        tmp_path / "a.mbtiles",
        "CREATE TABLE metadata (name TEXT, value TEXT)",
        "CREATE VIEW tiles AS SELECT load_extension('a') AS zoom_level, 0 AS tile_column, "
        "0 AS tile_row, x'00' AS tile_data",
    )
    assert message_of(path, IntegrityError) == (
        f"{path}: cannot be read as MBTiles (unsafe use of load_extension()); "
        "fetch or make it again"
    )


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    assert message_of(tmp_path / "a.mbtiles") == (
        f"{tmp_path / 'a.mbtiles'}: cannot be read (No such file or directory)"
    )


def test_a_name_with_marks_of_urls_is_a_name(copy: Path) -> None:
    path = copy.rename(copy.with_name("a?mode=rw#b%20.mbtiles"))
    reader = MbtilesReader(path)
    assert isinstance(reader.bounds, BBox)
    reader.close()
