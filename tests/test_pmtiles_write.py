"""PMTiles as packs write it: what the official package reads, and directories from anywhere."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pmtiles.reader import MemorySource, Reader, all_tiles
from pmtiles.tile import (
    Compression,
    Entry,
    TileType,
    deserialize_directory,
    serialize_directory,
    tileid_to_zxy,
    zxy_to_tileid,
)

from s4g.core import pmtiles_write
from s4g.core.geo import BBox
from s4g.core.pmtiles_directory import (
    MAX_DIRECTORY_BYTES,
    MAX_ZOOM,
    Entries,
    Ints,
    compressed,
    decode_directory,
    encode_directory,
    first_id,
    inflated,
    tile_ids,
    tile_places,
)
from s4g.core.pmtiles_write import TileTable, digests_of, encode_pmtiles

Tiles = Mapping[tuple[int, int, int], bytes]  # by zoom, column and row

BOUNDS = BBox(8.9, 46.9, 9.1, 47.1)
FIRST_REQUEST = 16384  # what readers fetch at first: the header and the root must fit


class Asked:
    """Tiles as the writer asks for them: which rows, and how often."""

    def __init__(self, contents: list[bytes]) -> None:
        self.contents = contents
        self.rows: list[list[int]] = []

    def __call__(self, rows: Ints) -> Iterator[bytes]:
        self.rows.append(rows.tolist())
        return (self.contents[row] for row in rows.tolist())


def archive(tiles: Tiles, metadata: dict[str, Any] | None = None) -> tuple[bytes, Asked]:
    by_id: dict[int, bytes] = {}
    for zoom in {z for z, _, _ in tiles}:
        here = [zxy for zxy in tiles if zxy[0] == zoom]
        numbers = tile_ids(zoom, [x for _, x, _ in here], [y for _, _, y in here]).tolist()
        by_id |= dict(zip(numbers, (tiles[zxy] for zxy in here), strict=True))
    ids = sorted(by_id)
    contents = [by_id[number] for number in ids]
    lengths = np.array([len(data) for data in contents])
    table = TileTable(np.array(ids), lengths, digests_of(contents))
    zooms = min(z for z, _, _ in tiles), max(z for z, _, _ in tiles)
    asked = Asked(contents)
    parts = encode_pmtiles(table, asked, zooms, BOUNDS, metadata or {})
    return b"".join(bytes(part) for part in parts), asked


def scattered(count: int, seed: int = 0) -> dict[tuple[int, int, int], bytes]:
    """Tiles of zoom 12 at random places, each of its own content."""
    rng = np.random.default_rng(seed)
    places = rng.integers(0, 1 << 12, (count, 2)).tolist()
    return {(12, x, y): rng.bytes(int(rng.integers(1, 40))) for x, y in places}


@st.composite
def some_tiles(draw: st.DrawFn) -> dict[tuple[int, int, int], bytes]:
    zooms = st.integers(0, 5)
    found = {}
    for _ in range(draw(st.integers(1, 60))):
        zoom = draw(zooms)
        at = st.integers(0, (1 << zoom) - 1)
        found[zoom, draw(at), draw(at)] = draw(st.sampled_from([b"a", b"bb", b"ccc", b"dddd"]))
    return found


@given(some_tiles())
def test_the_official_reader_finds_every_tile_and_no_other(
    tiles: dict[tuple[int, int, int], bytes],
) -> None:
    data, _ = archive(tiles)
    assert dict(all_tiles(MemorySource(data))) == tiles
    reader = Reader(MemorySource(data))
    for zoom in range(7):
        assert reader.get(zoom, 0, 0) == tiles.get((zoom, 0, 0))


@given(some_tiles())
def test_each_content_is_stored_once_in_the_order_of_the_curve(
    tiles: dict[tuple[int, int, int], bytes],
) -> None:
    data, asked = archive(tiles)
    header = Reader(MemorySource(data)).header()
    along = [tiles[zxy] for zxy in sorted(tiles, key=lambda zxy: zxy_to_tileid(*zxy))]
    distinct = list(dict.fromkeys(along))
    start = header["tile_data_offset"]
    assert data[start:] == b"".join(distinct)
    assert header["clustered"]
    assert header["tile_contents_count"] == len(distinct)
    assert header["addressed_tiles_count"] == len(tiles)
    assert len(asked.rows) == 1 and len(asked.rows[0]) == len(distinct)


@given(some_tiles())
def test_equal_neighbours_along_the_curve_are_one_run_within_a_zoom(
    tiles: dict[tuple[int, int, int], bytes],
) -> None:
    data, _ = archive(tiles)
    header = Reader(MemorySource(data)).header()
    at = header["root_offset"]
    entries = deserialize_directory(data[at : at + header["root_length"]])
    assert len(entries) == header["tile_entries_count"]
    by_id = {zxy_to_tileid(*zxy): content for zxy, content in tiles.items()}
    starts = {first_id(zoom) for zoom in range(7)}
    runs = [
        n for n in sorted(by_id) if n in starts or n - 1 not in by_id or by_id[n - 1] != by_id[n]
    ]
    assert [entry.tile_id for entry in entries] == runs
    assert sum(entry.run_length for entry in entries) == len(tiles)


def test_a_run_ends_with_its_zoom() -> None:
    data, _ = archive({(0, 0, 0): b"x", (1, 0, 0): b"x", (1, 0, 1): b"x", (2, 3, 3): b"x"})
    at = Reader(MemorySource(data)).header()["root_offset"]
    length = Reader(MemorySource(data)).header()["root_length"]
    entries = deserialize_directory(data[at : at + length])
    assert [(e.tile_id, e.run_length, e.offset) for e in entries] == [
        (0, 1, 0),
        (1, 2, 0),
        (zxy_to_tileid(2, 3, 3), 1, 0),
    ]


def test_the_header_says_what_is_there() -> None:
    tiles = {(3, 4, 2): b"one", (5, 17, 11): b"two", (5, 17, 12): b"two"}
    data, _ = archive(tiles, {"attribution": "me & you", "format": "webp"})
    reader = Reader(MemorySource(data))
    header: Any = reader.header()
    assert header["version"] == 3
    assert (header["min_zoom"], header["max_zoom"], header["center_zoom"]) == (3, 5, 3)
    corners = ("min_lon", "min_lat", "max_lon", "max_lat", "center_lon", "center_lat")
    assert [header[f"{key}_e7"] for key in corners] == [
        89_000_000,
        469_000_000,
        91_000_000,
        471_000_000,
        90_000_000,
        470_000_000,
    ]
    assert header["tile_type"] is TileType.WEBP
    assert header["internal_compression"] is Compression.GZIP
    assert header["tile_compression"] is Compression.NONE
    assert reader.metadata() == {"attribution": "me & you", "format": "webp"}
    at = 127
    for part in ("root", "metadata", "leaf_directory", "tile_data"):
        assert header[f"{part}_offset"] == at
        at += header[f"{part}_length"]
    assert at == len(data)
    assert header["leaf_directory_length"] == 0


def test_many_tiles_lie_in_leaf_directories_that_the_official_reader_follows() -> None:
    tiles = scattered(9_000)
    data, _ = archive(tiles)
    header = Reader(MemorySource(data)).header()
    assert header["leaf_directory_length"] > 0
    assert header["tile_data_offset"] > header["root_offset"] + header["root_length"]
    assert header["root_offset"] + header["root_length"] <= FIRST_REQUEST
    assert dict(all_tiles(MemorySource(data))) == tiles
    reader = Reader(MemorySource(data))
    for zxy in list(tiles)[::2001]:
        assert reader.get(*zxy) == tiles[zxy]
    root = deserialize_directory(data[127 : 127 + header["root_length"]])
    assert len(root) == -(-header["tile_entries_count"] // 4096)
    assert {entry.run_length for entry in root} == {0}


def test_leaves_are_doubled_until_the_root_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pmtiles_write._ROOT_BYTES + 127 == FIRST_REQUEST
    monkeypatch.setattr(pmtiles_write, "_ROOT_BYTES", 200)
    monkeypatch.setattr(pmtiles_write, "_LEAF_ENTRIES", 3)
    tiles = scattered(900)
    data, _ = archive(tiles)
    header = Reader(MemorySource(data)).header()
    assert header["root_length"] <= 200
    root = deserialize_directory(data[127 : 127 + header["root_length"]])
    leaves = data[header["leaf_directory_offset"] :]
    sizes = [len(deserialize_directory(leaves[e.offset :][: e.length])) for e in root]
    assert sizes[0] in (24, 48) and set(sizes[:-1]) == {sizes[0]}
    assert sum(sizes) == header["tile_entries_count"]
    assert dict(all_tiles(MemorySource(data))) == tiles


def test_the_same_tiles_give_the_same_bytes_in_whatever_order() -> None:
    tiles = scattered(7_000, seed=1)
    backwards = dict(reversed(tiles.items()))
    data = archive(tiles, {"b": 1, "a": 2})[0]
    assert archive(backwards, {"a": 2, "b": 1})[0] == data


def test_nothing_of_time_or_machine_is_in_compressed_parts() -> None:
    data = compressed(b"content")
    assert data[3:8] == bytes(5), "no name, no time"
    assert gzip.decompress(data) == b"content"


def test_digests_are_the_first_half_of_sha256() -> None:
    assert digests_of([b"abc"])[0] == bytes.fromhex("ba7816bf8f01cfea414140de5dae2223")
    # numpy drops zero bytes at the end of such values: they must still compare as they are.
    assert digests_of([b"a", b"b", b"a"]).dtype == "S16"


# Numbers of tiles.


@pytest.mark.parametrize("zoom", range(6))
def test_every_tile_of_a_zoom_has_the_official_number(zoom: int) -> None:
    y, x = (side.ravel() for side in np.indices((1 << zoom, 1 << zoom)))
    ids = tile_ids(zoom, x, y)
    assert ids.tolist() == [zxy_to_tileid(zoom, a, b) for a, b in zip(x, y, strict=True)]
    assert sorted(ids) == list(range(first_id(zoom), first_id(zoom + 1)))
    columns, rows = tile_places(zoom, ids)
    assert (columns == x).all() and (rows == y).all()


@given(st.integers(0, MAX_ZOOM), st.data())
def test_numbers_and_places_are_the_official_ones_at_every_zoom(
    zoom: int, data: st.DataObject
) -> None:
    last = (1 << zoom) - 1
    at = st.one_of(st.integers(0, last), st.sampled_from([0, last]))
    x, y = data.draw(at), data.draw(at)
    number = tile_ids(zoom, [x], [y])
    assert int(number[0]) == zxy_to_tileid(zoom, x, y)
    places = tile_places(zoom, number)
    assert (zoom, *(int(side[0]) for side in places)) == tileid_to_zxy(int(number[0]))


def test_the_four_tiles_below_one_follow_each_other() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 1 << 9, (2, 50))
    above = tile_ids(9, x, y) - first_id(9)
    for i in range(4):
        below = tile_ids(10, 2 * x + i % 2, 2 * y + i // 2) - first_id(10)
        assert (below // 4 == above).all()


# Directories.


@st.composite
def some_entries(draw: st.DrawFn) -> Entries:
    count = draw(st.integers(1, 30))
    sizes = st.one_of(st.integers(1, 5), st.integers(100, 1 << 40))
    steps = [draw(sizes) for _ in range(count)]
    runs = [draw(st.integers(0, 300)) for _ in range(count)]
    lengths = [draw(sizes) for _ in range(count)]
    offsets: list[int] = []
    for i in range(count):
        follows = i > 0 and draw(st.booleans())
        offsets.append(
            offsets[i - 1] + lengths[i - 1] if follows else draw(st.integers(0, 1 << 45))
        )
    ids = np.cumsum(steps) - 1
    return Entries(*(np.array(column, np.int64) for column in (ids, runs, offsets, lengths)))


@given(some_entries())
def test_a_directory_is_the_official_one_byte_for_byte(entries: Entries) -> None:
    columns = (entries.ids, entries.offsets, entries.lengths, entries.runs)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    official = serialize_directory([Entry(*row) for row in rows])
    assert gzip.decompress(encode_directory(entries)) == gzip.decompress(official)


@given(some_entries())
def test_a_directory_is_read_as_it_was_written(entries: Entries) -> None:
    found = decode_directory(encode_directory(entries))
    for key in ("ids", "runs", "offsets", "lengths"):
        assert getattr(found, key).tolist() == getattr(entries, key).tolist(), key


def test_a_directory_without_entries_is_read() -> None:
    assert len(decode_directory(gzip.compress(b"\x00"))) == 0


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def directory(*numbers: int) -> bytes:
    return gzip.compress(b"".join(varint(number) for number in numbers))


LIMIT = f"not one gzip member of {MAX_DIRECTORY_BYTES} bytes at most"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gzip.compress(bytes(MAX_DIRECTORY_BYTES + 1)), LIMIT),
        (directory(0) + directory(0), LIMIT),
        (directory(0) + b"\x00", LIMIT),
        (directory(0)[:-4], LIMIT),
        (b"", LIMIT),
        (b"no gzip", "Error -3 while decompressing data: incorrect header check"),
        (gzip.compress(b""), "a directory ends within a number"),
        (gzip.compress(b"\x01\x01\x01\x01\x81"), "a directory ends within a number"),
        (gzip.compress(b"\xff" * 9 + b"\x01"), "a directory holds numbers out of range"),
        (directory(2, 1, 1, 9, 1), "a directory holds another number of entries than it says"),
        (directory(1, 1, 1, 9, 1, 5), "a directory holds another number of entries than it says"),
        (directory(1 << 61, 1, 1), "a directory holds another number of entries than it says"),
        (directory(1, 1, 1, 9, 0), "a directory's first entry follows none"),
        (directory(2, 1, 0, 1, 1, 9, 9, 1, 0), "a directory's tiles do not ascend"),
    ],
    ids=map(str, range(14)),
)  # fmt: skip
def test_a_directory_that_cannot_be_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError) as error:
        decode_directory(data)
    assert str(error.value) == message


@pytest.mark.parametrize("column", range(4))
def test_numbers_that_would_come_round_are_refused(column: int) -> None:
    """Two or more numbers below 2^63 whose sum is not."""
    rows = [[1, 1, 1], [1, 1, 1], [9, 9, 9], [1, 1, 1]]
    rows[column] = [1 << 62, 1 << 62, 1 << 62]
    with pytest.raises(ValueError) as error:
        decode_directory(directory(3, *sum(rows, [])))
    assert str(error.value) == "a directory holds numbers out of range"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_directory_or_refused(data: bytes) -> None:
    try:
        found = decode_directory(gzip.compress(data))
    except ValueError as error:
        assert "\n" not in str(error)
        return
    columns = (found.ids, found.runs, found.offsets, found.lengths)
    assert all(len(column) == len(found) and (column >= 0).all() for column in columns)
    assert (np.diff(found.ids) > 0).all()


def test_a_directory_that_swells_takes_bounded_memory() -> None:
    bomb = gzip.compress(bytes(200 << 20), 1)
    most = 0
    tracemalloc.start()
    for decode in (decode_directory, lambda data: inflated(data, 1000)):
        with pytest.raises(ValueError):
            decode(bomb)
        most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 3 * MAX_DIRECTORY_BYTES


def test_what_is_inflated_may_just_reach_the_limit() -> None:
    assert inflated(gzip.compress(bytes(100)), 100) == bytes(100)
    with pytest.raises(ValueError):
        inflated(gzip.compress(bytes(101)), 100)


def test_metadata_is_plain_json() -> None:
    data, _ = archive({(0, 0, 0): b"x"}, {"attribution": "Öffentlich"})
    header = Reader(MemorySource(data)).header()
    at = header["metadata_offset"]
    text = gzip.decompress(data[at : at + header["metadata_length"]])
    assert text == b'{"attribution":"\\u00d6ffentlich"}'
    assert json.loads(text) == {"attribution": "Öffentlich"}
