"""PMTiles: what the package writes is read where it lies; damaged archives are refused."""

from __future__ import annotations

import gzip
import io
import runpy
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pmtiles.tile import (
    Compression,
    Entry,
    TileType,
    deserialize_header,
    serialize_directory,
    serialize_header,
    zxy_to_tileid,
)
from pmtiles.writer import Writer

from s4g.core.errors import InputError, IntegrityError
from s4g.core.geo import BBox, LocalFrame
from s4g.core.ground import GroundWindow
from s4g.core.source_pmtiles import PmtilesReader, open_pmtiles
from s4g.core.sources import open_ground
from s4g.core.tile_pyramid import tiles_bounds

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_tiles.py"))))
Tiles = dict[tuple[int, int, int], bytes]

COLUMN, ROW, ZOOM = 34_406, 23_064, 16


def archive(
    tiles: Tiles,
    bounds: BBox,
    kind: TileType = TileType.PNG,
    compression: Compression = Compression.NONE,
    metadata: dict[str, Any] | None = None,
) -> bytes:
    """Let the package write an archive."""
    file = io.BytesIO()
    writer = Writer(file)
    for number, data in sorted((zxy_to_tileid(*key), data) for key, data in tiles.items()):
        writer.write_tile(number, data)
    header = {
        "tile_type": kind,
        "tile_compression": compression,
        "min_lon_e7": round(bounds.west * 1e7),
        "min_lat_e7": round(bounds.south * 1e7),
        "max_lon_e7": round(bounds.east * 1e7),
        "max_lat_e7": round(bounds.north * 1e7),
    }
    writer.finalize(header, {"attribution": "me"} if metadata is None else metadata)
    return file.getvalue()


def small_archive(**how: Any) -> bytes:
    """Four tiles of four colours at zoom 16."""
    tiles = {(ZOOM, COLUMN + i % 2, ROW + i // 2): toy.png((50 * i, 20, 30 + i)) for i in range(4)}
    return archive(tiles, tiles_bounds(ZOOM, COLUMN, ROW, COLUMN + 2, ROW + 2), **how)


SMALL = small_archive()


def changed(data: bytes, **fields: Any) -> bytes:
    """Return an archive with another header."""
    header: Any = deserialize_header(data)
    return serialize_header({**header, **fields}) + data[127:]


def with_root(directory: bytes, data: bytes = SMALL, **fields: Any) -> bytes:
    """Return an archive whose root directory is other bytes, put at its end."""
    fields = {"root_offset": len(data), "root_length": len(directory), **fields}
    return changed(data + directory, **fields)


def read(data: bytes, name: str = "a") -> PmtilesReader:
    return PmtilesReader(memoryview(data), name)


def message_of(data: bytes, kind: type[InputError] = IntegrityError) -> str:
    with pytest.raises(kind) as error:
        reader = read(data)
        reader.tile(ZOOM, COLUMN, ROW)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def orthophoto(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("orthophoto") / "o.tif"
    toy.write_orthophoto(path)
    return path


@pytest.fixture(scope="module")
def tiles(orthophoto: Path) -> Tiles:
    path = orthophoto.with_name("o.mbtiles")
    toy.write_mbtiles(orthophoto, path)
    found: Tiles = toy.tiles_of(path)
    return found


@pytest.fixture(scope="module")
def pmtiles(orthophoto: Path, tiles: Tiles) -> Path:
    path = orthophoto.with_name("o.pmtiles")
    raster = open_ground(str(orthophoto))
    raster.close()
    path.write_bytes(archive(tiles, raster.bounds))
    return path


def test_an_archive_agrees_with_the_orthophoto(pmtiles: Path, orthophoto: Path) -> None:
    source = open_ground(str(pmtiles))
    toy.check_against_orthophoto(source, orthophoto)
    source.close()


def test_it_says_what_the_archive_says(pmtiles: Path) -> None:
    reader = open_pmtiles(pmtiles)
    assert (reader.name, reader.attribution) == (str(pmtiles), "me")
    assert (reader.min_zoom, reader.max_zoom, reader.tile_px) == (16, 18, 256)
    reader.close()


def test_every_tile_is_found_and_no_other(pmtiles: Path, tiles: Tiles) -> None:
    reader = open_pmtiles(pmtiles)
    for (zoom, x, y), data in tiles.items():
        assert reader.tile(zoom, x, y) == data
    assert reader.tile(18, 0, 0) is None
    assert reader.tile(3, 1, 1) is None and reader.tile(40, 1, 1) is None
    reader.close()


def test_an_archive_inside_another_file_is_read_alike(pmtiles: Path, tiles: Tiles) -> None:
    data = pmtiles.read_bytes()
    outer = memoryview(b"header" + data + b"end")
    reader = PmtilesReader(outer[6 : 6 + len(data)], "pack")
    assert all(reader.tile(*key) == data for key, data in tiles.items())
    reader.close()
    assert outer[:6] == b"header", "what holds the archive is still open"


def test_repeated_tiles_and_leaf_directories_are_read() -> None:
    side = 150  # 22,500 entries do not fit into a root directory
    pictures = [toy.png((40 * i, 9, 9)) for i in range(6)]
    rng = np.random.default_rng(0)
    tiles = {
        (ZOOM, COLUMN + x, ROW + y): pictures[int(rng.integers(6))]
        for x in range(side)
        for y in range(side)
    }
    data = archive(tiles, tiles_bounds(ZOOM, COLUMN, ROW, COLUMN + side, ROW + side))
    assert deserialize_header(data)["leaf_directory_length"] > 0
    reader = read(data)
    for key in list(tiles)[::997]:
        assert reader.tile(*key) == tiles[key]
    assert reader.tile(ZOOM, COLUMN - 1, ROW) is None


def test_several_threads_read_at_once(pmtiles: Path, tiles: Tiles) -> None:
    reader = open_pmtiles(pmtiles)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(lambda key: reader.tile(*key), tiles)) == list(tiles.values())
    reader.close()


def test_the_ground_is_read_from_memory() -> None:
    from s4g.core.tile_pyramid import PyramidGround

    ground = PyramidGround(read(SMALL))
    frame = LocalFrame(*ground.bounds.center)
    image = ground.read(frame, GroundWindow(-100, 100, 1.0, 200, 200))
    assert image.valid.all()
    assert tuple(image.rgb[10, 10]) == (0, 20, 30) and tuple(image.rgb[190, 190]) == (150, 20, 33)


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (TileType.MVT, "vector tiles (MVT)"),
        (TileType.AVIF, "tiles of a kind that is not read (AVIF)"),
        (TileType.UNKNOWN, "tiles of a kind that is not read (UNKNOWN)"),
    ],
)
def test_only_pictures_are_served(kind: TileType, what: str) -> None:
    assert message_of(small_archive(kind=kind), InputError) == (
        f"a: holds {what}; give an archive of PNG, JPEG or WebP tiles"
    )


@pytest.mark.parametrize(
    ("fields", "inside", "tiles"),
    [
        ({"internal_compression": Compression.BROTLI}, "BROTLI", "NONE"),
        ({"tile_compression": Compression.GZIP}, "GZIP", "GZIP"),
    ],
)
def test_other_compressions_are_refused(fields: dict[str, Any], inside: str, tiles: str) -> None:
    assert message_of(changed(SMALL, **fields), InputError) == (
        f"a: directories compressed by {inside} and tiles by {tiles} are not read, "
        "expected GZIP and NONE; make it again with pmtiles convert"
    )


def test_another_version_is_refused() -> None:
    assert message_of(SMALL[:7] + b"\x02" + SMALL[8:], InputError) == (
        "a: is PMTiles version 2, expected 3; convert it with pmtiles convert"
    )


def test_what_is_no_archive_is_refused() -> None:
    assert message_of(b"SQLite format 3\0 and so on") == (
        r"a: is no PMTiles archive (begins 'SQLite format 3\x00'); fetch or make it again"
    )


def test_an_archive_that_ends_in_its_header_is_refused() -> None:
    assert message_of(SMALL[:100]) == (
        "a: is damaged (100 bytes, the header alone has 127); fetch or make it again"
    )


@pytest.mark.parametrize("at", [97, 98, 99])
def test_codes_that_do_not_exist_are_refused(at: int) -> None:
    message = message_of(SMALL[:at] + b"\x77" + SMALL[at + 1 :])
    assert message.startswith("a: is damaged (119 is not a valid ")


def test_every_truncation_is_refused() -> None:
    size = len(SMALL) - 1
    assert message_of(SMALL[:size]).startswith("a: is damaged (tile_data of ")
    for length in range(0, size, 97):
        message_of(SMALL[:length])


@pytest.mark.parametrize("section", ["root", "metadata", "leaf_directory", "tile_data"])
def test_a_section_beyond_the_end_is_refused(section: str) -> None:
    data = changed(SMALL, **{f"{section}_offset": len(SMALL) - 1, f"{section}_length": 5})
    assert message_of(data) == (
        f"a: is damaged ({section} of 5 bytes at {len(SMALL) - 1} does not fit into "
        f"{len(SMALL)} bytes); fetch or make it again"
    )


def test_zooms_that_cannot_be_are_refused() -> None:
    assert message_of(changed(SMALL, min_zoom=9, max_zoom=3)) == (
        "a: is damaged (zooms 9 to 3); fetch or make it again"
    )


def test_bounds_over_the_antimeridian_are_refused() -> None:
    data = changed(SMALL, min_lon_e7=1_790_000_000, max_lon_e7=-1_790_000_000)
    assert message_of(data, InputError) == (
        "a: its bounds cross the antimeridian (west 179, east -179); "
        "such imagery is not supported, cut it in two there"
    )


def bomb() -> bytes:
    return gzip.compress(bytes(5 << 20))


@pytest.mark.parametrize(
    "directory",
    [
        bomb(),
        gzip.compress(b"\x00") + bomb(),  # a second member
        gzip.compress(b"\x00")[:-4],
        gzip.compress(b""),
        gzip.compress(b"\x05\x01"),  # five entries of which there are none
        gzip.compress(b"\xff" * 1000 + b"\x01"),  # a number without end
        gzip.compress(b"\x01\x01\x01\x01\x81"),
        zlib.compress(b"\x00"),
        b"",
    ],
)
def test_a_directory_that_cannot_be_is_refused_before_the_package_reads_it(
    directory: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pmtiles.tile

    def trusting(_: bytes) -> None:
        raise AssertionError("the package was handed a bad directory")

    monkeypatch.setattr(pmtiles.tile, "deserialize_directory", trusting)
    message = message_of(with_root(directory))
    assert message.startswith("a: is damaged (") and message.endswith("; fetch or make it again")


def entries(*given: tuple[int, int, int, int]) -> bytes:
    return serialize_directory([Entry(*each) for each in given])


FIRST = zxy_to_tileid(ZOOM, COLUMN, ROW)


@pytest.mark.parametrize(("offset", "length"), [(1 << 40, 9), (0, 1 << 40), (10, 0), (-1, 9)])
def test_a_tile_outside_the_archive_is_named(offset: int, length: int) -> None:
    assert message_of(with_root(entries((FIRST, offset, length, 1)))) == (
        f"a: tile {ZOOM}/{COLUMN}/{ROW} of {length} bytes at {offset} lies outside the archive; "
        "fetch or make it again"
    )


def test_a_huge_tile_is_refused() -> None:
    data = SMALL + bytes(5 << 20)
    data = with_root(
        entries((FIRST, 0, 5 << 20, 1)), data, tile_data_offset=500, tile_data_length=5 << 20
    )
    assert message_of(data) == (
        f"a: tile {ZOOM}/{COLUMN}/{ROW} has 5242880 bytes, expected at most 4194304"
    )


def test_directories_that_lead_to_themselves_end() -> None:
    leaf = entries((0, 0, 1, 0))
    for _ in range(3):  # until the length it names is its own
        leaf = entries((0, 0, len(leaf), 0))
    good = read(SMALL)
    good._directories.clear()
    good._header |= {
        "root_offset": 0, "root_length": len(leaf),
        "leaf_directory_offset": 0, "leaf_directory_length": len(leaf),
    }  # fmt: skip
    good._view = memoryview(leaf)
    with pytest.raises(IntegrityError) as error:
        good.tile(ZOOM, COLUMN, ROW)
    assert str(error.value) == (
        "a: is damaged (directories lie more than 4 deep); fetch or make it again"
    )


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (1 << 40, 9), (-1, 9), (0, 0)])
def test_a_leaf_directory_outside_the_archive_is_refused(offset: int, length: int) -> None:
    assert message_of(with_root(entries((FIRST, offset, length, 0)))) == (
        f"a: is damaged (a leaf directory of {length} bytes at {offset}); fetch or make it again"
    )


def test_a_number_beyond_every_zoom_is_refused() -> None:
    number = 1 << 65
    assert message_of(with_root(entries((number, 0, 9, 1)))) == (
        f"a: is damaged (tile number {number}); fetch or make it again"
    )


def test_an_archive_without_tiles_is_refused() -> None:
    assert message_of(with_root(entries()), InputError) == (
        "a: holds no tiles; give one that has imagery"
    )


def test_metadata_that_is_no_json_is_refused() -> None:
    metadata = gzip.compress(b"{" * 9)
    data = changed(SMALL + metadata, metadata_offset=len(SMALL), metadata_length=len(metadata))
    assert message_of(data) == "a: is damaged (metadata is no JSON); fetch or make it again"


@pytest.mark.parametrize("metadata", [{}, {"attribution": 7}, {"attribution": None}])
def test_an_archive_may_have_no_attribution(metadata: dict[str, Any]) -> None:
    assert read(small_archive(metadata=metadata)).attribution == ""


@given(st.integers(0, len(SMALL) - 1), st.binary(min_size=1, max_size=16))
def test_a_damaged_archive_is_read_or_refused_in_one_line(start: int, junk: bytes) -> None:
    data = (SMALL[:start] + junk + SMALL[start + len(junk) :])[: len(SMALL)]
    try:
        reader = read(data)
        for column in (COLUMN, COLUMN + 1):
            reader.tile(ZOOM, column, ROW)
    except InputError as error:
        assert str(error).startswith("a: ") and "\n" not in str(error)


@given(st.binary(max_size=300))
def test_any_directory_is_read_or_refused_in_one_line(directory: bytes) -> None:
    try:
        read(with_root(gzip.compress(directory))).tile(ZOOM, COLUMN, ROW)
    except InputError as error:
        assert str(error).startswith("a: ") and "\n" not in str(error)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "cannot be read (No such file or directory)"),
        (lambda path: path.mkdir(), "cannot be read (Is a directory)"),
        (lambda path: path.write_bytes(b""), "is empty; fetch or make it again"),
        (
            lambda path: path.write_bytes(struct.pack("<7sB", b"PMTiles", 3)),
            "is damaged (8 bytes, the header alone has 127); fetch or make it again",
        ),
    ],
)
def test_a_file_that_cannot_serve_is_refused(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "a.pmtiles"
    make(path)
    with pytest.raises(InputError) as error:
        open_pmtiles(path)
    assert str(error.value) == f"{path}: {message}"


def test_a_damaged_file_is_closed_again(tmp_path: Path) -> None:
    path = tmp_path / "a.pmtiles"
    path.write_bytes(with_root(bomb()))
    with pytest.raises(IntegrityError) as error:
        open_pmtiles(path)
    assert error.value.__traceback__ is not None, "or the mapping would go with its frames"
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("only Linux lists what is mapped")
    assert str(path) not in maps.read_text()
