from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4g.core.engine import load_engine
from s4g.core.errors import InputError, IntegrityError
from s4g.core.geo import LocalFrame
from s4g.core.ground import ArrayGround, GroundWindow
from s4g.core.sources import open_ground
from s4g.tilepacks.build import PackContent, build_pack
from s4g.tilepacks.format import encode_container
from s4g.tilepacks.graph import Graph
from s4g.tilepacks.links import decode_graph, encode_graph
from s4g.tilepacks.plan import plan_pack
from s4g.tilepacks.reader import Pack, open_pack

REMEDY = "; copy it again from where it was built, or rebuild it with s4g-pack"


@pytest.fixture(scope="module")
def content(toy_source: Path, toy_encoder: Path) -> PackContent:
    engine, ground = load_engine(toy_encoder, threads=1), open_ground(str(toy_source))
    plan = plan_pack(ground, engine.spec, None, (80.0, 160.0))
    built = build_pack(ground, engine, plan, graph_min_vectors=100)
    ground.close()
    return built


@pytest.fixture(scope="module")
def path(content: PackContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("pack"), content)


@pytest.fixture(scope="module")
def pack(path: Path) -> Pack:
    return open_pack(path)


def _write(folder: Path, content: PackContent, **sections: bytes | None) -> Path:
    """Write a pack whose hashes are right, with some sections replaced or taken out."""
    parts = {**content.sections, **sections}
    kept = {name: data for name, data in parts.items() if data is not None}
    path = folder / "p.s4gpack"
    path.write_bytes(b"".join(encode_container(content.manifest.to_values(), kept)))
    return path


def test_pack_says_what_it_holds(pack: Pack, path: Path, content: PackContent) -> None:
    assert pack.path == path
    assert pack.spec == content.manifest.spec
    assert pack.attribution == "toy imagery, public domain"
    assert pack.bounds == content.manifest.bounds
    assert [(level.footprint_m, level.stride_m, level.first) for level in pack.levels] == [
        (80.0, 20.0, 0),
        (160.0, 40.0, pack.levels[0].count),
    ]
    assert len(pack.east_m) == len(pack.north_m) == sum(level.count for level in pack.levels)
    assert pack.manifest.levels[0].search.method == "graph"


@pytest.mark.parametrize("number", [0, 1], ids=["graph", "exact"])
def test_image_of_a_tile_finds_that_tile(
    pack: Pack, toy_source: Path, toy_encoder: Path, number: int
) -> None:
    engine, ground = load_engine(toy_encoder, threads=1), open_ground(str(toy_source))
    level = pack.levels[number]
    ids = np.arange(level.first, level.first + level.count)
    half, gsd = level.footprint_m / 2, level.footprint_m / 64
    images = [
        ground.read(
            pack.frame,
            GroundWindow(pack.east_m[i] - half, pack.north_m[i] + half, gsd, 64, 64),
        ).rgb
        for i in ids
    ]
    ground.close()
    found, scores = pack.search(engine.embed(np.stack(images)), number, 3)
    assert found.shape == scores.shape == (level.count, 3)
    assert (found.dtype, scores.dtype) == (np.int64, np.float32)
    assert (found[:, 0] == ids).all()
    assert (scores[:, 0] > 0.999).all() and (scores <= 1 + 1e-5).all()
    assert (np.diff(scores, axis=1) <= 0).all()


def test_length_of_a_query_does_not_matter(pack: Pack) -> None:
    queries = np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)
    for number in range(2):
        ids, scores = pack.search(queries, number, 5)
        again, same = pack.search(queries * 37, number, 5)
        assert (ids == again).all()
        np.testing.assert_allclose(scores, same, atol=1e-6)


def test_more_tiles_than_a_level_holds_are_clipped(pack: Pack) -> None:
    queries = np.ones((2, 32), np.float32)
    for number, level in enumerate(pack.levels):
        ids, _ = pack.search(queries, number, 10_000)
        assert sorted(ids[0]) == list(range(level.first, level.first + level.count))


def test_picture_lies_on_the_region(pack: Pack) -> None:
    overview = pack.overview()
    assert overview is not None
    rgb, west_m, north_m, gsd_m = overview
    west, south, east, north = pack.frame.local_bounds(pack.bounds)
    assert (west_m, north_m) == pytest.approx((west, north))
    assert rgb.shape[1] * gsd_m == pytest.approx(east - west, abs=gsd_m)
    assert rgb.shape[0] * gsd_m == pytest.approx(north - south, abs=gsd_m)


@pytest.mark.parametrize(
    ("queries", "level", "k", "message"),
    [
        (np.ones((1, 32), np.float32), 2, 1, "level 2: the pack has 2 levels"),
        (np.ones((1, 32), np.float32), -1, 1, "level -1: the pack has 2 levels"),
        (np.ones((1, 32), np.float32), 0, 0, "k 0: expected at least 1"),
        (
            np.ones((1, 31), np.float32),
            0,
            1,
            "queries of shape (1, 31) and type float32; expected (B, 32) float32",
        ),
        (
            np.ones((1, 32)),
            0,
            1,
            "queries of shape (1, 32) and type float64; expected (B, 32) float32",
        ),
        (np.zeros((1, 32), np.float32), 0, 1, "a query is zero or not finite"),
        (np.full((1, 32), np.nan, np.float32), 0, 1, "a query is zero or not finite"),
    ],
    ids=["level", "negative level", "k", "dimension", "type", "zero", "nan"],
)
def test_wrong_query_is_refused(
    pack: Pack, queries: np.ndarray, level: int, k: int, message: str
) -> None:
    with pytest.raises(InputError) as error:
        pack.search(queries, level, k)
    assert str(error.value) == f"{pack.path}: {message}"


def test_closed_pack_is_no_longer_searched(path: Path) -> None:
    with open_pack(path) as pack:
        pass
    with pytest.raises(InputError, match=": level 0: the pack has 0 levels$"):
        pack.search(np.ones((1, 32), np.float32), 0, 1)


@settings(max_examples=200)
@given(st.data())
def test_any_flipped_byte_or_truncation_is_refused(path: Path, data: st.DataObject) -> None:
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1), "place")
    if data.draw(st.booleans(), "truncate"):
        altered = whole[:place]
    else:
        change = data.draw(st.integers(1, 255), "change")
        altered = whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :]
    victim = path.with_name("victim.s4gpack")
    victim.write_bytes(altered)
    with pytest.raises(IntegrityError, match=f"^{re.escape(str(victim))}: ") as error:
        open_pack(victim)
    assert "\n" not in str(error.value)


def _changed(data: bytes, dtype: str, index: int, value: float) -> bytes:
    array = np.frombuffer(data, dtype).copy()
    array[index] = value
    return array.tobytes()


@pytest.mark.parametrize(
    ("section", "dtype", "index", "value", "reason"),
    [
        ("level0.cells", "<u4", 3, 2**31, "section level0.cells names a place twice or outside "
         "the lattice"),
        ("level0.scales", "<f4", 3, np.nan, "sections level0.codes and level0.scales are no unit "
         "vectors"),
        ("level0.codes", "i1", 3, -128, "sections level0.codes and level0.scales are no unit "
         "vectors"),
    ],
)  # fmt: skip
def test_impossible_values_with_right_hashes_are_refused(
    tmp_path: Path,
    content: PackContent,
    section: str,
    dtype: str,
    index: int,
    value: float,
    reason: str,
) -> None:
    data = _changed(content.sections[section], dtype, index, value)
    path = _write(tmp_path, content, **{section: data})
    with pytest.raises(IntegrityError) as error:
        open_pack(path)
    assert str(error.value) == f"{path}: damaged or altered: {reason}{REMEDY}"


def test_place_that_is_named_twice_is_refused(tmp_path: Path, content: PackContent) -> None:
    cells = np.frombuffer(content.sections["level0.cells"], "<u4").copy()
    cells[1] = cells[0]
    path = _write(tmp_path, content, **{"level0.cells": cells.tobytes()})
    with pytest.raises(IntegrityError, match="level0.cells names a place twice"):
        open_pack(path)


@pytest.mark.parametrize("section", ["level0.cells", "level0.codes", "level0.graph", "overview"])
def test_missing_section_is_named(tmp_path: Path, content: PackContent, section: str) -> None:
    path = _write(tmp_path, content, **{section: None})
    with pytest.raises(IntegrityError, match=f": section {section} is missing;"):
        open_pack(path)


def test_section_of_another_length_is_refused(tmp_path: Path, content: PackContent) -> None:
    path = _write(tmp_path, content, **{"level1.scales": b"\0" * 8})
    count = content.manifest.levels[1].vectors
    with pytest.raises(
        IntegrityError,
        match=f"section level1.scales has 8 bytes, not those of {count} numbers",
    ):
        open_pack(path)


def test_section_of_a_later_version_is_passed_over(tmp_path: Path, content: PackContent) -> None:
    path = _write(tmp_path, content, signature=b"of a later version")
    open_pack(path).close()


def _graph(content: PackContent, **changes: object) -> bytes:
    graph: Graph = decode_graph(content.sections["level0.graph"])
    return encode_graph(dataclasses.replace(graph, **changes))  # type: ignore[arg-type]


def test_graph_that_would_crash_hnswlib_is_refused(tmp_path: Path, content: PackContent) -> None:
    graph = decode_graph(content.sections["level0.graph"])
    low = int(np.flatnonzero(graph.levels < graph.levels.max())[0])
    path = _write(tmp_path, content, **{"level0.graph": _graph(content, entry=low)})
    with pytest.raises(IntegrityError, match="its graph starts at a node that is not at the top"):
        open_pack(path)


def test_graph_of_other_vectors_is_refused(tmp_path: Path, content: PackContent) -> None:
    small = Graph(12, 0, np.zeros(2, np.uint8), np.ones(2, np.uint8), np.array([1, 0], np.uint32))
    path = _write(tmp_path, content, **{"level0.graph": encode_graph(small)})
    with pytest.raises(IntegrityError, match="its graph is of another number of vectors"):
        open_pack(path)


def test_picture_that_is_none_is_refused_when_looked_at(
    tmp_path: Path, content: PackContent
) -> None:
    path = _write(tmp_path, content, overview=b"RIFF nonsense")
    with open_pack(path) as pack, pytest.raises(IntegrityError, match="its overview is no pict"):
        pack.overview()


def test_tiles_that_look_alike_share_a_vector_and_are_all_answers(
    tmp_path: Path, toy_encoder: Path
) -> None:
    rgb = np.full((300, 300, 3), 90, np.uint8)
    rgb[:, 200:] = np.random.default_rng(0).integers(0, 256, (300, 100, 3), dtype=np.uint8)
    ground = ArrayGround(rgb, np.ones((300, 300), bool), LocalFrame(47.0, 8.0), 0.0, 0.0, 1.0)
    engine = load_engine(toy_encoder, threads=1)
    plan = plan_pack(ground, engine.spec, None, (64.0,))
    content = build_pack(ground, engine, plan)
    (record,) = content.manifest.levels
    assert record.vectors < record.count
    flat = engine.embed(np.full((1, 64, 64, 3), 90, np.uint8))
    with open_pack(_write(tmp_path, content)) as pack:
        ids, scores = pack.search(flat, 0, record.count)
        west_m, *_ = pack.frame.local_bounds(pack.bounds)
        alike = ids[0, scores[0] > 0.9999]
        assert len(set(ids[0])) == record.count
        assert (pack.east_m[alike] < west_m + 200 - 32 + 1).all()
        assert len(alike) == (pack.east_m < west_m + 200 - 32 + 0.1).sum() > 20


def test_vector_that_no_tile_has_is_refused(tmp_path: Path, toy_encoder: Path) -> None:
    ground = ArrayGround(
        np.full((300, 300, 3), 90, np.uint8),
        np.ones((300, 300), bool),
        LocalFrame(47.0, 8.0),
        0.0,
        0.0,
        1.0,
    )
    engine = load_engine(toy_encoder, threads=1)
    content = build_pack(ground, engine, plan_pack(ground, engine.spec, None, (64.0,)))
    wrong = _changed(content.sections["level0.vectors"], "<u4", 2, 7)
    path = _write(tmp_path, content, **{"level0.vectors": wrong})
    with pytest.raises(IntegrityError, match="section level0.vectors does not name every vector"):
        open_pack(path)
