from __future__ import annotations

import copy
import dataclasses
import os
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4g.core.engine import load_engine
from s4g.core.errors import InputError, IntegrityError
from s4g.core.geo import LocalFrame
from s4g.core.ground import ArrayGround, GroundSource, GroundWindow
from s4g.core.sources import open_ground
from s4g.tilepacks.build import build_pack
from s4g.tilepacks.columns import decode_column, encode_column
from s4g.tilepacks.format import encode_container, open_container
from s4g.tilepacks.graph import Graph
from s4g.tilepacks.links import decode_graph, encode_graph
from s4g.tilepacks.options import BuildOptions
from s4g.tilepacks.plan import plan_pack
from s4g.tilepacks.reader import Pack, open_pack

REMEDY = "; copy it again from where it was built, or rebuild it with s4g-pack"


@dataclasses.dataclass(frozen=True)
class Content:
    """A pack taken apart."""

    manifest: dict[str, Any]
    sections: dict[str, bytes]


def build(
    source: GroundSource, encoder: Path, path: Path, *levels_m: float, **given: Any
) -> Content:
    with closing(load_engine(encoder, threads=1)) as engine:
        plan = plan_pack(source, engine.spec, None, levels_m)
        build_pack([source], engine, plan, path, BuildOptions(**given))
    container = open_container(path)
    return Content(
        container.manifest, {name: bytes(container.section(name)) for name in container.names}
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pack") / "whole.s4gpack"


@pytest.fixture(scope="module")
def content(toy_source: Path, toy_encoder: Path, path: Path) -> Content:
    with closing(open_ground(str(toy_source))) as ground:
        return build(ground, toy_encoder, path, 80.0, 190.0, graph_min_vectors=12, dims=16)


@pytest.fixture(scope="module")
def pack(content: Content, path: Path) -> Pack:
    return open_pack(path)


def _write(folder: Path, content: Content, **sections: bytes | None) -> Path:
    """Write a pack whose hashes are right, with some sections replaced or taken out."""
    parts = {**content.sections, **sections}
    kept = {name: data for name, data in parts.items() if data is not None}
    path = folder / "p.s4gpack"
    path.write_bytes(b"".join(encode_container(content.manifest, kept)))
    return path


def _verify(path: Path) -> None:
    with open_pack(path) as pack:
        pack.verify()


def test_pack_says_what_it_holds(pack: Pack, path: Path, content: Content) -> None:
    assert pack.path == path
    assert pack.spec.model_id == content.manifest["encoder"]["model_id"]
    assert pack.attribution == "toy imagery, public domain"
    assert dataclasses.asdict(pack.bounds) == content.manifest["bounds"]
    assert [(level.footprint_m, level.stride_m, level.first) for level in pack.levels] == [
        (80.0, 20.0, 0),
        (190.0, 47.5, pack.levels[0].count),
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
    assert (scores[:, 0] > 0.99).all() and (scores <= 1 + 1e-5).all()
    assert (np.diff(scores, axis=1) <= 0).all()


def test_length_of_a_query_does_not_matter(pack: Pack) -> None:
    queries = np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)
    for number in range(2):
        ids, scores = pack.search(queries, number, 5)
        again, same = pack.search(queries * 37, number, 5)
        assert (ids == again).all()
        np.testing.assert_allclose(scores, same, atol=3e-5)


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


def test_closed_pack_is_no_longer_searched(content: Content, path: Path) -> None:
    with open_pack(path) as pack:
        pass
    with pytest.raises(InputError, match=": level 0: the pack has 0 levels$"):
        pack.search(np.ones((1, 32), np.float32), 0, 1)


@settings(max_examples=50)
@given(st.data())
def test_a_search_near_finds_what_comparing_all_tiles_there_finds(
    pack: Pack, data: st.DataObject
) -> None:
    level = data.draw(st.integers(0, 1), "level")
    radius_m = data.draw(st.floats(0, 150), "radius")
    places = st.floats(-150, 150)
    points_m = np.array(data.draw(st.lists(st.tuples(places, places), min_size=3, max_size=3)))
    seed = data.draw(st.integers(0, 9), "seed")
    queries = np.random.default_rng(seed).standard_normal((3, 32)).astype(np.float32)
    found = pack.search_near(queries, level, 7, points_m, radius_m)
    if found is None:
        return
    for query, (east, north), ids, scores in zip(queries, points_m, *found, strict=True):
        all_ids, surface = pack.search_within(query[None], level, east, north, radius_m)
        best = np.argsort(-surface[0], kind="stable")[:7]
        assert (ids[: len(best)] == all_ids[best]).all()
        np.testing.assert_allclose(scores[: len(best)], surface[0, best], atol=1e-6)
        assert (scores[len(best) :] == -1).all()


def test_a_search_near_is_left_to_the_search_of_all_where_that_is_faster(pack: Pack) -> None:
    queries = np.ones((1, 32), np.float32)
    exact, graph = pack.levels[1], pack.levels[0]
    assert [record.search.method for record in pack.manifest.levels] == ["graph", "exact"]
    one = np.array([[pack.east_m[exact.first], pack.north_m[exact.first]]])
    few = pack.search_near(queries, 1, 10_000, one, 10.0)
    assert few is not None and few[0].shape == (1, exact.count)
    assert (few[0][0, 0], few[1][0, 1]) == (exact.first, -1)
    assert pack.search_near(queries, 1, 3, one, 5000.0) is None  # all of them
    assert pack.search_near(queries, 1, 3, one + 5000.0, 10.0) is None  # none at all
    found = pack.search_near(queries, 0, 3, one, 5000.0)  # all of them, but a graph takes longer
    assert found is not None and (found[0] < graph.count).all()


@pytest.mark.parametrize(
    ("point_m", "radius_m", "message"),
    [
        ((0.0, 0.0), -1.0, "radius -1 m: expected a number from 0"),
        ((np.nan, 0.0), 50.0, "point nan, 0 m: expected metres in the pack's frame"),
    ],
)
def test_a_search_near_nowhere_is_refused(
    pack: Pack, point_m: tuple[float, float], radius_m: float, message: str
) -> None:
    queries = np.ones((1, 32), np.float32)
    with pytest.raises(InputError) as error:
        pack.search_near(queries, 0, 3, np.array([point_m]), radius_m)
    assert str(error.value) == f"{pack.path}: {message}"
    with pytest.raises(InputError, match=": k 0: expected at least 1$"):
        pack.search_near(queries, 0, 0, np.zeros((1, 2)), 50.0)


def test_ready_is_a_pack_of_which_every_byte_is_as_it_was_written(
    content: Content, path: Path, tmp_path: Path
) -> None:
    container = open_container(path)
    for name in container.names:
        damaged, whole = tmp_path / f"{name}.s4gpack", path.read_bytes()
        place = whole.index(content.sections[name]) + len(content.sections[name]) // 2
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with open_pack(damaged) as pack, pytest.raises(IntegrityError) as error:
            pack.make_ready()
        assert f"section {name} does not match its SHA-256" in str(error.value)


def test_a_pack_that_was_verified_answers_the_same_whatever_becomes_of_its_file(
    content: Content, path: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "p.s4gpack"
    shutil.copy(path, copied)
    os.utime(copied, (1_000_000_000, 1_000_000_000))
    queries = np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)
    with open_pack(copied) as pack:
        pack.verify()

        def answers() -> list[np.ndarray]:
            return [*pack.search(queries, 0, 5), *pack.search_within(queries, 0, 0.0, 0.0, 100.0)]

        before = answers()
        assert pack.fate() is None
        copied.write_bytes(bytes(copied.stat().st_size))
        assert all(map(np.array_equal, before, answers()))
        assert pack.fate() == "was written over while it was open"


@settings(max_examples=200)
@given(st.data())
def test_any_flipped_byte_or_truncation_is_refused(
    content: Content, path: Path, data: st.DataObject
) -> None:
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
        _verify(victim)
    assert "\n" not in str(error.value)


def _cells(content: Content, *changes: tuple[int, int]) -> bytes:
    cells = decode_column(content.sections["level0.cells"], content.manifest["levels"][0]["count"])
    for index, value in changes:
        cells[index] = value
    return encode_column(cells)


def test_a_place_outside_the_lattice_is_refused(tmp_path: Path, content: Content) -> None:
    path = _write(tmp_path, content, **{"level0.cells": _cells(content, (3, 2**31))})
    with pytest.raises(IntegrityError) as error:
        _verify(path)
    assert str(error.value) == (
        f"{path}: damaged or altered: section level0.cells names a place outside the lattice"
        + REMEDY
    )


def test_a_place_that_is_named_twice_is_refused(tmp_path: Path, content: Content) -> None:
    path = _write(tmp_path, content, **{"level0.cells": _cells(content, (1, 0), (0, 0))})
    with pytest.raises(IntegrityError, match="section level0.cells names a place twice"):
        _verify(path)


def test_a_vector_of_zeros_is_refused(tmp_path: Path, content: Content) -> None:
    codes = bytes(16) + content.sections["level0.codes"][16:]
    path = _write(tmp_path, content, **{"level0.codes": codes})
    with pytest.raises(IntegrityError, match="level0: a vector is zero"):
        _verify(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, 5.0, 1e38])
def test_a_projection_that_is_none_is_refused(
    tmp_path: Path, content: Content, value: float
) -> None:
    matrix = np.frombuffer(content.sections["projection"], "<f4").copy()
    matrix[7] = value
    path = _write(tmp_path, content, projection=matrix.tobytes())
    with pytest.raises(IntegrityError, match="section projection holds no orthonormal directions"):
        _verify(path)


def test_more_tiles_than_a_section_can_hold_are_refused_before_memory_is_taken(
    tmp_path: Path, content: Content
) -> None:
    manifest = copy.deepcopy(content.manifest)
    manifest["levels"][0]["count"] = 1_000_000
    path = _write(tmp_path, dataclasses.replace(content, manifest=manifest))
    with pytest.raises(IntegrityError, match="cells is too short for 1000000 tiles"):
        open_pack(path)


def test_many_tiles_of_few_vectors_are_refused(tmp_path: Path, content: Content) -> None:
    manifest = copy.deepcopy(content.manifest)
    fine, coarse = manifest["levels"]
    limit = (1 << 20) + 64 * (fine["vectors"] + coarse["vectors"])
    fine["count"] = limit + 1 - coarse["count"]
    path = _write(tmp_path, dataclasses.replace(content, manifest=manifest))
    vectors = fine["vectors"] + coarse["vectors"]
    with pytest.raises(IntegrityError, match=f"it has {limit + 1} tiles of only {vectors} vectors"):
        open_pack(path)


@pytest.mark.parametrize("dims", [0, 17])
def test_a_graph_of_impossible_dimensions_is_refused(
    tmp_path: Path, content: Content, dims: int
) -> None:
    manifest = copy.deepcopy(content.manifest)
    manifest["levels"][0]["search"]["dims"] = dims
    path = _write(tmp_path, dataclasses.replace(content, manifest=manifest))
    with pytest.raises(IntegrityError, match=f"level0 is searched in {dims} dimensions"):
        open_pack(path)


@pytest.mark.parametrize(
    "section",
    [
        "level0.cells",
        "level0.codes",
        "level0.detail",
        "level0.graph",
        "level0.sample",
        "overview",
        "projection",
    ],
)
def test_missing_section_is_named(tmp_path: Path, content: Content, section: str) -> None:
    path = _write(tmp_path, content, **{section: None})
    with pytest.raises(IntegrityError, match=f": section {section} is missing;"):
        open_pack(path)


def test_section_of_another_length_is_refused(tmp_path: Path, content: Content) -> None:
    path = _write(tmp_path, content, **{"level1.codes": b"\1" * 8})
    length = 16 * content.manifest["levels"][1]["vectors"]
    with pytest.raises(IntegrityError, match=f"section level1.codes has 8 bytes, not {length}"):
        open_pack(path)


def test_section_of_a_later_version_is_passed_over(tmp_path: Path, content: Content) -> None:
    path = _write(tmp_path, content, signature=b"of a later version")
    _verify(path)


def _graph(content: Content, **changes: object) -> bytes:
    graph: Graph = decode_graph(
        content.sections["level0.graph"], content.manifest["levels"][0]["search"]["sampled"]
    )
    return encode_graph(dataclasses.replace(graph, **changes))  # type: ignore[arg-type]


def test_graph_that_would_crash_hnswlib_is_refused(tmp_path: Path, content: Content) -> None:
    graph = decode_graph(
        content.sections["level0.graph"], content.manifest["levels"][0]["search"]["sampled"]
    )
    low = int(np.flatnonzero(graph.levels < graph.levels.max())[0])
    path = _write(tmp_path, content, **{"level0.graph": _graph(content, entry=low)})
    with pytest.raises(IntegrityError, match="its graph starts at a node that is not at the top"):
        _verify(path)


@pytest.mark.parametrize(
    "altered",
    [lambda s: s[::-1], lambda s: s + 200, lambda s: s * 0],
    ids=["order", "end", "twice"],
)
def test_a_sample_of_impossible_vectors_is_refused(
    tmp_path: Path, content: Content, altered: Callable[[Any], Any]
) -> None:
    count = content.manifest["levels"][0]["search"]["sampled"]
    sample = decode_column(content.sections["level0.sample"], count)
    path = _write(tmp_path, content, **{"level0.sample": encode_column(altered(sample))})
    with (
        pytest.raises(
            IntegrityError, match="section level0.sample does not name vectors in ascending order"
        ),
        open_pack(path) as pack,
    ):
        pack.search(np.ones((1, 32), np.float32), 0, 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"method": "exact"}, "level0 is searched by exact in steps of 3"),
        ({"method": "sample", "step": 1}, "level0 is searched by sample in steps of 1"),
        ({"sampled": 0}, "level0 has a sample of 0 vectors"),
    ],
)
def test_a_search_that_contradicts_itself_is_refused(
    tmp_path: Path, content: Content, changes: dict[str, Any], reason: str
) -> None:
    manifest = copy.deepcopy(content.manifest)
    manifest["levels"][0]["search"] |= changes
    path = tmp_path / "p.s4gpack"
    path.write_bytes(b"".join(encode_container(manifest, content.sections)))
    with pytest.raises(IntegrityError, match=reason):
        open_pack(path)


def test_a_folder_is_no_pack(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        open_pack(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: is a folder, expected a .s4gpack file or a set of packs"
    )
    index = tmp_path / "index.s4gset"
    index.write_bytes(b"")
    with pytest.raises(InputError) as error:
        open_pack(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: is a set of packs; take the part for a flight out of it: s4g-pack extract "
        f"{tmp_path} --bbox W,S,E,N --out flight.s4gpack"
    )
    with pytest.raises(InputError) as error:
        open_pack(index)
    assert str(error.value) == (
        f"{index}: is the index of a set of packs; give its folder, {tmp_path}"
    )


def test_graph_of_other_vectors_is_refused(tmp_path: Path, content: Content) -> None:
    small = Graph(12, 0, np.zeros(2, np.uint8), np.ones(2, np.uint8), np.array([1, 0], np.uint32))
    path = _write(tmp_path, content, **{"level0.graph": encode_graph(small)})
    with pytest.raises(IntegrityError, match="its graph is of another number of vectors"):
        _verify(path)


def test_picture_that_is_none_is_refused_when_looked_at(tmp_path: Path, content: Content) -> None:
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
    content = build(ground, toy_encoder, tmp_path / "whole", 64.0)
    (record,) = content.manifest["levels"]
    assert record["vectors"] < record["count"]
    flat = engine.embed(np.full((1, 64, 64, 3), 90, np.uint8))
    with open_pack(_write(tmp_path, content)) as pack:
        ids, scores = pack.search(flat, 0, record["count"])
        west_m, *_ = pack.frame.local_bounds(pack.bounds)
        alike = ids[0, scores[0] > 0.9999]
        assert len(set(ids[0])) == record["count"]
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
    content = build(ground, toy_encoder, tmp_path / "whole", 64.0)
    count = content.manifest["levels"][0]["count"]
    wrong = decode_column(content.sections["level0.vectors"], count)
    wrong[2] = 7
    path = _write(tmp_path, content, **{"level0.vectors": encode_column(wrong)})
    with pytest.raises(IntegrityError, match="section level0.vectors does not name every vector"):
        _verify(path)


def test_tiles_within_a_radius_are_compared_exactly(pack: Pack) -> None:
    queries = np.random.default_rng(1).standard_normal((3, 32)).astype(np.float32)
    for number, level in enumerate(pack.levels):
        own = np.arange(level.first, level.first + level.count)
        away = np.hypot(pack.east_m[own] - 10.0, pack.north_m[own] + 5.0)
        ids, scores = pack.search_within(queries, number, 10.0, -5.0, 70.0)
        assert ids.tolist() == own[away <= 70.0].tolist()
        assert pack.tiles_within(number, 10.0, -5.0, 70.0).tolist() == ids.tolist()
        all_ids, all_scores = pack.search(queries, number, level.count)
        for row in range(3):
            wanted = dict(zip(all_ids[row].tolist(), all_scores[row].tolist(), strict=True))
            np.testing.assert_allclose(scores[row], [wanted[i] for i in ids.tolist()], atol=3e-5)


def test_nothing_lies_within_a_radius_outside_the_region(pack: Pack) -> None:
    ids, scores = pack.search_within(np.ones((2, 32), np.float32), 0, 1e6, 0.0, 50.0)
    assert ids.shape == (0,) and scores.shape == (2, 0)


@pytest.mark.parametrize("radius_m", [-1.0, np.nan])
def test_a_radius_that_is_none_is_refused(pack: Pack, radius_m: float) -> None:
    with pytest.raises(InputError) as error:
        pack.search_within(np.ones((1, 32), np.float32), 0, 0.0, 0.0, radius_m)
    assert str(error.value) == f"{pack.path}: radius {radius_m:g} m: expected a number from 0"


def test_detail_tells_flat_ground_from_ground_with_something_to_see(
    tmp_path: Path, toy_encoder: Path
) -> None:
    rgb = np.full((300, 300, 3), 90, np.uint8)
    rgb[:, 200:] = np.random.default_rng(0).integers(0, 256, (300, 100, 3), dtype=np.uint8)
    ground = ArrayGround(rgb, np.ones((300, 300), bool), LocalFrame(47.0, 8.0), 0.0, 0.0, 1.0)
    build(ground, toy_encoder, tmp_path / "whole", 64.0)
    with open_pack(tmp_path / "whole") as pack:
        west_m, *_ = pack.frame.local_bounds(pack.bounds)
        flat = pack.east_m < west_m + 200 - 33
        assert not pack.detail(0)[flat].any()
        assert (pack.detail(0)[pack.east_m > west_m + 240] > 200).all()
