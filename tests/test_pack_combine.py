"""Parts of packs, and packs of packs: what `s4g-pack extract` and `merge` promise."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import runpy
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from s4g.core.engine import load_engine
from s4g.core.errors import InputError, IntegrityError, S4GError
from s4g.core.geo import BBox, LocalFrame
from s4g.core.sources import open_ground
from s4g.tilepacks.area import Area, read_area
from s4g.tilepacks.build import build_pack
from s4g.tilepacks.build_set import build_set
from s4g.tilepacks.cli import cli
from s4g.tilepacks.combine import CombineOptions, merge_packs
from s4g.tilepacks.extract import NoTileError, extract_from_set, extract_pack
from s4g.tilepacks.format import open_container
from s4g.tilepacks.manifest import LayerRecord
from s4g.tilepacks.options import BuildOptions
from s4g.tilepacks.pack_set import open_set
from s4g.tilepacks.plan import plan_pack
from s4g.tilepacks.reader import open_pack
from s4g.tilepacks.signature import make_keys, sign_pack
from s4g.tilepacks.tiling import cells_inside

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_packs.py"))))

REMEDY = "; copy it again from where it was built, or rebuild it with s4g-pack"
LINKED = CombineOptions(graph_min_vectors=12)
Run = Callable[..., tuple[int, str, str]]


def part_of(box: BBox, west: float, east: float, south: float = 0.0, north: float = 1.0) -> BBox:
    """A part of a box, given as shares of its sides."""
    width, height = box.east - box.west, box.north - box.south
    return BBox(
        box.west + west * width,
        box.south + south * height,
        box.west + east * width,
        box.south + north * height,
    )


def extract(
    pack: Path, region: BBox | Area, out: Path, *levels_m: float, **given: Any
) -> list[str]:
    with open_pack(pack) as opened:
        return extract_pack(opened, region, out, levels_m or None, CombineOptions(**given))


def merge(out: Path, *packs: Path, **given: Any) -> tuple[int, list[str]]:
    with ExitStack() as stack:
        opened = [stack.enter_context(open_pack(pack)) for pack in packs]
        return merge_packs(opened, out, CombineOptions(**given))


def content(path: Path) -> dict[Any, tuple[int, bytes]]:
    with open_pack(path) as pack:
        pack.verify()
        found: dict[Any, tuple[int, bytes]] = toy.content_of(pack)
        return found


def manifest(path: Path) -> Any:
    with open_pack(path) as pack:
        return pack.manifest


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def halves(whole: Path, folder: Path, **given: Any) -> tuple[Path, Path]:
    """Two parts that overlap by more than a tile."""
    west, east = folder / "west.s4gpack", folder / "east.s4gpack"
    box = manifest(whole).bounds
    extract(whole, part_of(box, 0.0, 0.65), west, **given)
    extract(whole, part_of(box, 0.4, 1.0), east, **given)
    return west, east


KINDS: dict[str, dict[str, Any]] = {
    "exact": {},
    "shared vectors": {"water": True},
    "sample": {"holes": 0.0, "graph_min_vectors": 100},
    "graph": {"holes": 0.0, "graph_min_vectors": 12},
    "everything": {
        "footprints_m": (80.0, 160.0),
        "layers": (toy.SPRING, toy.WINTER),
        "headings_deg": (0.0, 120.0, 240.0),
        "matrix": toy.matrix_of(8),
        "water": True,
        "graph_min_vectors": 12,
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_two_halves_put_together_are_the_pack(tmp_path: Path, kind: str) -> None:
    whole = toy.write_toy_pack(tmp_path / "whole.s4gpack", **KINDS[kind])
    record = manifest(whole).levels[0]
    method = {"sample": "sample", "graph": "graph", "everything": "graph"}.get(kind, "exact")
    assert record.search.method == method
    assert (record.vectors < record.count) == KINDS[kind].get("water", False)
    least = {"graph_min_vectors": KINDS[kind].get("graph_min_vectors", 1 << 30)}
    west, east = halves(whole, tmp_path, **least)
    out = tmp_path / "out.s4gpack"
    shared, notes = merge(out, west, east, **least)
    parts = content(west), content(east)
    assert all(0 < len(part) < len(content(whole)) for part in parts)
    assert shared == len(parts[0].keys() & parts[1].keys()) > 20
    assert notes == ["no pack has an overview: neither has the merged one"]
    assert content(out) == content(whole)
    queries = toy.queries_of(20)
    with open_pack(whole) as one, open_pack(out) as other:
        assert other.manifest.levels == one.manifest.levels
        assert other.manifest.variants == one.manifest.variants
        assert toy.answers_of(other, queries, 10) == toy.answers_of(one, queries, 10)
    assert names(tmp_path) == ["east.s4gpack", "out.s4gpack", "west.s4gpack", "whole.s4gpack"]


def test_all_of_a_pack_is_the_same_bytes_but_for_the_name_of_the_tool(tmp_path: Path) -> None:
    whole = toy.write_toy_pack(tmp_path / "whole.s4gpack", **KINDS["everything"])
    out, again = tmp_path / "out.s4gpack", tmp_path / "again.s4gpack"
    with open_pack(whole) as pack:
        extract_pack(pack, pack.bounds, out, None, LINKED)
    assert manifest(out) == dataclasses.replace(manifest(whole), tool=manifest(out).tool)
    assert re.fullmatch(r"s4g \d+\.\d+\.\d+\S*", manifest(out).tool)
    with closing(open_container(whole)) as one, closing(open_container(out)) as other:
        assert one.names == other.names
        assert all(bytes(one.section(n)) == bytes(other.section(n)) for n in one.names)
    with open_pack(whole) as pack:
        extract_pack(pack, pack.bounds, again, None, LINKED)
    assert again.read_bytes() == out.read_bytes()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of two levels with holes."""
    path: Path = tmp_path_factory.mktemp("plain") / "plain.s4gpack"
    toy.write_toy_pack(path, footprints_m=(80.0, 160.0), found=0.97)
    return path


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack in the far north and east of its frame, whose tiles are not parallel to a box."""
    path: Path = tmp_path_factory.mktemp("turned") / "turned.s4gpack"
    frame, where = LocalFrame(75.0, 8.0), (range(9), range(4000, 4009))
    bounds = frame.wgs84_bounds(*toy.extent_of(*where))
    toy.write_toy_pack(path, *where, frame=frame, bounds=bounds, holes=0.0)
    return path


@settings(max_examples=100)
@given(st.lists(st.floats(-0.1, 1.1), min_size=4, max_size=4), st.booleans())
def test_a_box_takes_the_tiles_that_a_build_would_pack_there(
    plain: Path, turned: Path, sides: list[float], upright: bool
) -> None:
    (west, east), (south, north) = sorted(sides[:2]), sorted(sides[2:])
    assume(east - west > 1e-3 and north - south > 1e-3)
    with TemporaryDirectory() as folder, open_pack(plain if upright else turned) as pack:
        out, box = Path(folder) / "part.s4gpack", part_of(pack.bounds, west, east, south, north)
        whole, places, wanted = toy.content_of(pack), toy.places_of(pack), set()
        for number, record in enumerate(pack.manifest.levels):
            lattice = record.lattice
            rows, columns = range(lattice.rows), range(lattice.columns)
            inside = cells_inside(lattice, pack.frame, box, rows, columns).ravel()
            level = pack.levels[number]
            kept = np.flatnonzero(inside[pack.cells(number)]) + level.first
            wanted |= {places[tile] for tile in kept}
        if wanted:
            extract_pack(pack, box, out)
            assert content(out) == {place: whole[place] for place in wanted}
            assert manifest(out).bounds == box.intersection(pack.bounds)
        else:
            with pytest.raises(InputError):
                extract_pack(pack, box, out)
        assert names(Path(folder)) == ["part.s4gpack"] * bool(wanted)


def polygon(path: Path, frame: LocalFrame, *corners_m: tuple[float, float]) -> Area:
    """An area with straight sides between places in a frame."""
    ring = [[float(v) for v in frame.to_wgs84(*corner)[::-1]] for corner in corners_m]
    shape = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    path.write_text(json.dumps(shape))
    return read_area(path)


def test_an_area_takes_the_tiles_whose_centres_lie_in_it(tmp_path: Path, plain: Path) -> None:
    shapely = pytest.importorskip("shapely", reason="areas need shapely (the pack extra)")
    corners = (-151.0, -92.0), (133.0, -41.0), (-23.0, 147.0)
    area = polygon(tmp_path / "a.geojson", toy.FRAME, *corners)
    out = tmp_path / "part.s4gpack"
    assert extract(plain, area, out) == []
    triangle = shapely.Polygon(corners)
    inside = {
        place for place in content(plain) if triangle.contains(shapely.Point(place[1], place[2]))
    }
    assert {place[0] for place in inside} == {80.0, 160.0}
    assert content(out) == {place: content(plain)[place] for place in inside}
    # The box holds the tiles whole: half of the coarsest level's around the area.
    found = toy.FRAME.local_bounds(manifest(out).bounds)
    assert found == pytest.approx((-151 - 81.6, -92 - 81.6, 133 + 81.6, 147 + 81.6), abs=0.1)


def test_the_smallest_lattice_that_holds_the_tiles_is_kept(tmp_path: Path, plain: Path) -> None:
    out = tmp_path / "part.s4gpack"
    extract(plain, part_of(manifest(plain).bounds, 0.2, 0.8, 0.3, 0.7), out, 80.0)
    with open_pack(out) as pack:
        lattice = pack.manifest.levels[0].lattice
        rows, columns = np.divmod(pack.cells(0), lattice.columns)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (
        0,
        lattice.rows - 1,
        0,
        lattice.columns - 1,
    )
    assert lattice.count < manifest(plain).levels[0].lattice.count / 3


def test_levels_are_taken_by_their_footprints(tmp_path: Path, plain: Path) -> None:
    out, box = tmp_path / "part.s4gpack", manifest(plain).bounds
    extract(plain, box, out, 160.0)
    assert content(out) == {p: v for p, v in content(plain).items() if p[0] == 160.0}
    extract(plain, box, out, 160.0, 80.0, overwrite=True)
    assert [level.lattice.footprint_m for level in manifest(out).levels] == [80.0, 160.0]


def test_a_level_too_coarse_for_the_region_is_left_out_and_told(
    tmp_path: Path, plain: Path
) -> None:
    out, box = tmp_path / "part.s4gpack", manifest(plain).bounds
    narrow = part_of(box, 0.3, 0.5)
    assert extract(plain, narrow, out) == [
        f"level 160: left out, it has no tile in --bbox {narrow}"
    ]
    assert [level.lattice.footprint_m for level in manifest(out).levels] == [80.0]
    with pytest.raises(NoTileError) as error:
        extract(plain, narrow, tmp_path / "other", 80.0, 160.0)
    assert str(error.value) == (
        f"--bbox {narrow}: holds no tile of level 160 of {plain}, which covers {box}; choose a "
        "larger region"
    )


def test_a_region_with_no_tile_is_refused(tmp_path: Path, plain: Path) -> None:
    box = manifest(plain).bounds
    tiny = part_of(box, 0.5, 0.51)
    with pytest.raises(NoTileError) as error:
        extract(plain, tiny, tmp_path / "part")
    assert str(error.value) == (
        f"--bbox {tiny}: holds no tile of level 80 of {plain}, which covers {box}; choose a larger "
        "region"
    )
    assert not names(tmp_path)


def test_a_region_elsewhere_is_refused(tmp_path: Path, plain: Path) -> None:
    box = manifest(plain).bounds
    with pytest.raises(InputError) as error:
        extract(plain, BBox(9.0, 47.0, 9.1, 47.1), tmp_path / "part")
    assert str(error.value) == (
        f"--bbox 9,47,9.1,47.1: has nothing in common with {plain}, which covers {box}; choose a "
        "region inside it"
    )
    area = polygon(tmp_path / "a.geojson", LocalFrame(46.0, 8.0), (0, 0), (9, 0), (0, 9))
    with pytest.raises(InputError) as error:
        extract(plain, area, tmp_path / "part")
    assert str(error.value).startswith(f"{tmp_path / 'a.geojson'}: has nothing in common with ")
    assert names(tmp_path) == ["a.geojson"]


def test_a_region_that_reaches_beyond_the_pack_is_clipped_and_told(
    tmp_path: Path, plain: Path
) -> None:
    out, box = tmp_path / "part.s4gpack", manifest(plain).bounds
    wide = part_of(box, -0.5, 0.6, 0.2, 1.3)
    common = part_of(box, 0.0, 0.6, 0.2, 1.0)
    assert extract(plain, wide, out) == [
        f"--bbox {wide} reaches beyond {plain}: clipped to {common}"
    ]
    assert manifest(out).bounds == BBox(box.west, wide.south, wide.east, box.north)


@pytest.mark.parametrize("wanted", [(40.0,), (80.0, 40.0)])
def test_a_level_that_a_pack_lacks_is_refused(
    tmp_path: Path, plain: Path, wanted: tuple[float, ...]
) -> None:
    with pytest.raises(InputError) as error:
        extract(plain, manifest(plain).bounds, tmp_path / "part", *wanted)
    assert str(error.value) == f"{plain}: has no level of 40 m; choose of 80, 160"


def test_what_trial_views_found_is_not_carried_over(tmp_path: Path, plain: Path) -> None:
    assert [level.found for level in manifest(plain).levels] == [0.97, 0.97]
    west, east = halves(plain, tmp_path)
    merge(tmp_path / "out", west, east)
    for path in (west, east, tmp_path / "out"):
        assert [level.found for level in manifest(path).levels] == [None, None]


boxes = st.tuples(
    st.integers(0, 8), st.integers(2, 6), st.integers(0, 8), st.integers(2, 6), st.integers(0, 1)
)


def write(path: Path, box: tuple[int, ...], *layers: LayerRecord, **given: Any) -> Path:
    rows, columns = range(box[0], box[0] + box[1]), range(box[2], box[2] + box[3])
    given = {"seed": box[4], "holes": 0.3, **given}
    found: Path = toy.write_toy_pack(path, rows, columns, layers=layers or (toy.SPRING,), **given)
    return path if found else found


LAYERS = (toy.SPRING, toy.AUTUMN, toy.WINTER)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(boxes, st.permutations(LAYERS), st.integers(1, 3)), min_size=2, max_size=4)
)
def test_the_first_pack_that_has_a_place_wins(given_packs: list[Any]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        packs = [
            write(folder / f"{i}.s4gpack", box, *layers[:count])
            for i, (box, layers, count) in enumerate(given_packs)
        ]
        held = [content(pack) for pack in packs]
        wanted: dict[Any, Any] = {}
        for tiles in held:
            wanted = {**tiles, **wanted}
        shared, _ = merge(folder / "out", *packs)
        assert content(folder / "out") == wanted
        assert shared == sum(map(len, held)) - len(wanted)


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(st.tuples(boxes, boxes, boxes), st.tuples(*[st.permutations(LAYERS)] * 3))
def test_it_does_not_matter_which_packs_are_merged_first(
    boxes: tuple[Any, ...], layers: tuple[Any, ...]
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        a, b, c = (
            write(folder / f"{i}.s4gpack", box, *own[:2])
            for i, (box, own) in enumerate(zip(boxes, layers, strict=True))
        )
        merge(folder / "ab", a, b)
        merge(folder / "bc", b, c)
        merge(folder / "ab-c", folder / "ab", c)
        merge(folder / "a-bc", a, folder / "bc")
        merge(folder / "abc", a, b, c)
        assert content(folder / "ab-c") == content(folder / "abc") == content(folder / "a-bc")
        assert (
            manifest(folder / "ab-c").bounds
            == manifest(folder / "abc").bounds
            == manifest(folder / "a-bc").bounds
        )


def test_layers_are_united_and_renumbered(tmp_path: Path) -> None:
    box, turned = (0, 4, 0, 4, 0), {"headings_deg": (0.0, 180.0)}
    a = write(tmp_path / "a", box, toy.SPRING, toy.WINTER, **turned)
    b = write(tmp_path / "b", (2, 4, 2, 4, 0), toy.AUTUMN, toy.WINTER, toy.SPRING, **turned)
    merge(tmp_path / "out", a, b)
    found = manifest(tmp_path / "out")
    assert found.layers == (toy.SPRING, toy.WINTER, toy.AUTUMN)
    assert [(v.layer, v.heading_deg) for v in found.variants] == [
        (layer, heading) for layer in range(3) for heading in (0.0, 180.0)
    ]
    assert content(tmp_path / "out") == {**content(b), **content(a)}


def test_other_imagery_of_a_place_is_kept_beside_the_first(tmp_path: Path) -> None:
    a = write(tmp_path / "a", (0, 4, 0, 4, 0), toy.SPRING)
    b = write(tmp_path / "b", (0, 4, 0, 4, 0), toy.AUTUMN)
    shared, _ = merge(tmp_path / "out", a, b)
    assert shared == 0
    with open_pack(tmp_path / "out") as pack:
        assert pack.levels[0].count == len(content(a)) + len(content(b))
        assert set(pack.variants(0)) == {0, 1}
    assert content(tmp_path / "out") == {**content(a), **content(b)}


def test_two_dates_of_one_name_stay_two(tmp_path: Path) -> None:
    """Both layers of each pack are called the same: the first ones meet, and the second ones."""
    twins = {"layers": (toy.SPRING, toy.SPRING), "holes": 0.0}
    a = toy.write_toy_pack(tmp_path / "a", range(4), range(4), **twins)
    b = toy.write_toy_pack(tmp_path / "b", range(4), range(2, 6), **twins)
    shared, _ = merge(tmp_path / "out", a, b)
    assert shared == 2 * 4 * 2
    assert manifest(tmp_path / "out").layers == (toy.SPRING, toy.SPRING)
    assert manifest(tmp_path / "out").levels[0].count == 2 * 4 * 6


def test_levels_that_only_one_pack_has_are_kept(tmp_path: Path) -> None:
    a = toy.write_toy_pack(tmp_path / "a", range(8), range(8), footprints_m=(160.0,))
    b = toy.write_toy_pack(tmp_path / "b", range(8), range(6, 14), footprints_m=(80.0, 320.0))
    c = toy.write_toy_pack(tmp_path / "c", range(8), range(6, 14), footprints_m=(160.0, 80.0))
    merge(tmp_path / "out", a, b, c)
    levels = manifest(tmp_path / "out").levels
    assert [level.lattice.footprint_m for level in levels] == [80.0, 160.0, 320.0]
    assert content(tmp_path / "out") == {**content(c), **content(b), **content(a)}


def test_the_merged_pack_says_what_holds_for_all(tmp_path: Path) -> None:
    a = toy.write_toy_pack(tmp_path / "a", range(4), range(4), min_valid=0.8)
    b = toy.write_toy_pack(tmp_path / "b", range(9, 13), range(7, 11), min_valid=0.6)
    merge(tmp_path / "out", a, b)
    found, boxes = manifest(tmp_path / "out"), [manifest(a).bounds, manifest(b).bounds]
    assert found.bounds == BBox(boxes[0].west, boxes[1].south, boxes[1].east, boxes[0].north)
    assert found.min_valid == 0.6
    merge(tmp_path / "out", a, a, overwrite=True)
    assert manifest(tmp_path / "out").min_valid == 0.8


def test_what_was_measured_on_other_packs_is_not_said_of_this_one(tmp_path: Path) -> None:
    record = manifest(toy.write_toy_pack(tmp_path / "plain")).projection
    measured = dataclasses.replace(record, shares={"full": 0.9})
    whole = toy.write_toy_pack(tmp_path / "whole", found=0.9, projection=measured)
    extract(whole, part_of(manifest(whole).bounds, 0, 0.5), tmp_path / "part")
    merge(tmp_path / "out", whole, whole)
    for name in ("part", "out"):
        made = manifest(tmp_path / name)
        assert made.projection.shares == {}
        assert [level.found for level in made.levels] == [None]


def test_the_search_is_as_wide_as_that_of_the_widest_part(tmp_path: Path) -> None:
    whole = toy.write_toy_pack(tmp_path / "whole", **KINDS["graph"])
    (record,) = manifest(whole).levels
    wide = dataclasses.replace(record, search=dataclasses.replace(record.search, ef=384))
    toy.write_toy_pack(whole, **KINDS["graph"], levels=(wide,))
    out = tmp_path / "out"
    with open_pack(whole) as pack:
        extract_pack(pack, pack.bounds, out, None, LINKED)
    assert record.search.ef < manifest(out).levels[0].search.ef == 384


# Refusals.


def refusal(tmp_path: Path, *packs: Path) -> str:
    before = names(tmp_path)
    with pytest.raises(InputError) as error:
        merge(tmp_path / "out", *packs)
    assert names(tmp_path) == before
    return str(error.value)


OTHER_SPEC = dataclasses.replace(toy.SPEC, model_id="71" * 32)


@pytest.mark.parametrize(
    ("given", "other", "reason"),
    [
        (
            {},
            {"spec": OTHER_SPEC},
            f"encoder model_id is {'71' * 20}, not {'70' * 20}",
        ),
        (
            {},
            {"spec": dataclasses.replace(toy.SPEC, temperature=0.2)},
            "encoder temperature is 0.2, not 0.1",
        ),
        ({}, {"frame": LocalFrame(47.0, 8.01)}, "frame is [47.0, 8.01], not [47.0, 8.0]"),
        ({}, {"headings_deg": (0.0, 90.0)}, "headings is [0.0, 90.0], not [0.0]"),
        ({}, {"matrix": toy.matrix_of(8)}, "dims is 8, not 16"),
        ({}, {"matrix": toy.matrix_of(16)}, "projection is matrix, not leading"),
        (
            {},
            {"shift_m": 5.0},
            "level 80 has tiles of 64 px every 20 m from -255.000,260.000 m, not tiles of 64 px "
            "every 20 m from -300.000,280.000 m",
        ),
    ],
    ids=["encoder", "temperature", "frame", "headings", "dims", "projection", "grid"],
)
def test_packs_that_do_not_fit_are_refused(
    tmp_path: Path, given: dict[str, Any], other: dict[str, Any], reason: str
) -> None:
    a = toy.write_toy_pack(tmp_path / "a.s4gpack", range(3), range(3), **given)
    b = toy.write_toy_pack(tmp_path / "b.s4gpack", range(1, 4), range(2, 5), **other)
    assert (
        refusal(tmp_path, a, a, b) == f"{b}: does not fit {a}: {reason}; build it with --like {a}"
    )


def test_packs_of_other_directions_are_refused(tmp_path: Path) -> None:
    a = toy.write_toy_pack(tmp_path / "a", range(3), range(3), matrix=toy.matrix_of(8, seed=1))
    b = toy.write_toy_pack(tmp_path / "b", range(3), range(3), matrix=toy.matrix_of(8, seed=2))
    assert re.fullmatch(
        f"{b}: does not fit {a}: directions is [0-9a-f]{{12}}, not [0-9a-f]{{12}}; build it with "
        f"--like {a}",
        refusal(tmp_path, a, b),
    )


def test_where_an_encoder_comes_from_is_no_hindrance(tmp_path: Path) -> None:
    spec = dataclasses.replace(toy.SPEC, provenance={"recipe": "another"})
    a = toy.write_toy_pack(tmp_path / "a", range(3), range(3))
    b = toy.write_toy_pack(tmp_path / "b", range(3), range(3, 6), spec=spec)
    merge(tmp_path / "out", a, b)
    assert manifest(tmp_path / "out").spec == toy.SPEC


def test_too_many_imageries_are_refused(tmp_path: Path) -> None:
    layers = [dataclasses.replace(toy.SPRING, date=str(i)) for i in range(70)]
    a = write(tmp_path / "a", (0, 2, 0, 2, 0), *layers[:40])
    b = write(tmp_path / "b", (0, 2, 1, 2, 0), *layers[30:70])
    assert refusal(tmp_path, a, b) == (
        f"{b}: does not fit {a}: 70 imageries and headings together, at most 64; build it from one "
        "folder of imagery"
    )
    c = write(tmp_path / "c", (0, 2, 1, 2, 0), *layers[24:64])
    merge(tmp_path / "out", a, c)
    assert content(tmp_path / "out") == {**content(c), **content(a)}


def test_too_many_levels_are_refused(tmp_path: Path) -> None:
    several = [80.0 + i for i in range(17)]
    a = toy.write_toy_pack(tmp_path / "a", range(2), range(2), footprints_m=several[:9])
    b = toy.write_toy_pack(tmp_path / "b", range(2), range(2), footprints_m=several[8:])
    assert refusal(tmp_path, a, b) == (
        f"{b}: does not fit {a}: 17 levels together, at most 16; take fewer with s4g-pack extract "
        "--levels"
    )


def test_two_levels_of_one_footprint_are_refused(tmp_path: Path) -> None:
    a = toy.write_toy_pack(tmp_path / "a", range(2), range(2))
    b = toy.write_toy_pack(tmp_path / "b", range(2), range(2), footprints_m=(80.0, 80.0))
    assert refusal(tmp_path, a, b) == f"{b}: has two levels of one footprint; build them apart"


def test_packs_too_far_apart_are_refused(tmp_path: Path) -> None:
    far = range(70_000, 70_002)
    a = toy.write_toy_pack(tmp_path / "a", range(2), range(2))
    b = toy.write_toy_pack(tmp_path / "b", far, far, bounds=BBox(20.0, 30.0, 21.0, 31.0))
    assert refusal(tmp_path, a, b) == (
        f"{b}: lies too far from {a} (70002 x 70002 cells, at most 4294967295); keep them apart"
    )


def test_one_pack_is_not_merged(tmp_path: Path, plain: Path) -> None:
    assert refusal(tmp_path, plain) == (
        f"{tmp_path / 'out'}: is to be made of one pack; name two or more"
    )


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_pack_is_not_read_and_written_at_once(tmp_path: Path, overwrite: bool) -> None:
    a = toy.write_toy_pack(tmp_path / "a", range(4), range(4))
    b = toy.write_toy_pack(tmp_path / "b", range(4), range(2, 6))
    (tmp_path / "link").symlink_to(b)
    data = b.read_bytes()
    for out in (b, tmp_path / "link", tmp_path / "." / "b"):
        with pytest.raises(InputError) as error:
            merge(out, a, b, overwrite=overwrite)
        assert str(error.value) == f"{out}: is read and written at once; choose another --out"
        with pytest.raises(InputError) as error:
            extract(b, manifest(b).bounds, out, overwrite=overwrite)
        assert str(error.value) == f"{out}: is read and written at once; choose another --out"
    assert b.read_bytes() == data
    assert names(tmp_path) == ["a", "b", "link"]


def test_a_file_is_replaced_only_when_told(tmp_path: Path, plain: Path) -> None:
    out, box = tmp_path / "out", manifest(plain).bounds
    out.write_bytes(b"old")
    for call in (lambda: extract(plain, box, out), lambda: merge(out, plain, plain)):
        with pytest.raises(InputError) as error:
            call()
        assert str(error.value) == f"{out}: already exists; pass --overwrite to replace it"
        assert out.read_bytes() == b"old"
    extract(plain, box, out, overwrite=True)
    assert content(out) == content(plain)
    merge(out, plain, plain, overwrite=True)
    assert content(out) == content(plain)
    assert names(tmp_path) == ["out"]


def test_a_missing_folder_is_told_before_work(tmp_path: Path, plain: Path) -> None:
    out = tmp_path / "no" / "out"
    with pytest.raises(InputError) as error:
        extract(plain, manifest(plain).bounds, out)
    assert str(error.value) == f"{out}: the folder {out.parent} does not exist; create it first"


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, plain: Path) -> None:
    out = tmp_path / ("n" * 250)  # the name is allowed, that of the scratch folder is not
    with pytest.raises(S4GError) as error:
        extract(plain, manifest(plain).bounds, out)
    assert str(error.value) == (
        f"{out}: cannot write (File name too long); choose a shorter name; nothing was left behind"
    )
    assert not names(tmp_path)


def test_a_closed_pack_is_refused(tmp_path: Path, plain: Path) -> None:
    with open_pack(plain) as pack:
        box = pack.bounds
    for call in (
        lambda: extract_pack(pack, box, tmp_path / "out"),
        lambda: merge_packs([pack, pack], tmp_path / "out"),
    ):
        with pytest.raises(InputError) as error:
            call()
        assert str(error.value) == f"{plain}: the pack is closed; open it again"


# Damage.


def damage(path: Path, section: str) -> Path:
    """Flip a bit in the middle of a section."""
    data = bytearray(path.read_bytes())
    with closing(open_container(path)) as container:
        part = bytes(container.section(section))
    data[data.index(part) + len(part) // 2] ^= 1
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "section",
    [
        "projection",
        "level0.cells",
        "level0.detail",
        "level0.codes",
        "level0.variants",
        "level0.vectors",
        "overview",
    ],
)
def test_a_damaged_part_is_told_and_nothing_is_left_behind(tmp_path: Path, section: str) -> None:
    kept = {"matrix": toy.matrix_of(8), "layers": LAYERS[:2], "water": True, "holes": 0.0}
    a = toy.write_toy_pack(tmp_path / "a", **kept, picture=(picture(), 4.0))
    b = damage(Path(shutil.copy(a, tmp_path / "b")), section)
    (tmp_path / "out").write_bytes(b"old")
    before, box = names(tmp_path), part_of(manifest(a).bounds, 0.1, 0.9)
    for call in (
        lambda: extract(b, box, tmp_path / "out", overwrite=True),
        lambda: merge(tmp_path / "out", a, b, overwrite=True),
    ):
        with pytest.raises(IntegrityError) as error:
            call()
        assert str(error.value) == (
            f"{b}: damaged or altered: section {section} does not match its SHA-256" + REMEDY
        )
        assert names(tmp_path) == before
        assert (tmp_path / "out").read_bytes() == b"old"


# The signature.


def test_a_signature_is_not_carried_over_and_told(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="signatures need cryptography (the pack extra)")
    a = toy.write_toy_pack(tmp_path / "a", range(6), range(6))
    b = toy.write_toy_pack(tmp_path / "b", range(6), range(4, 10))
    key, _ = make_keys(tmp_path / "ops")
    sign_pack(a, key)
    out = tmp_path / "out"
    note = f"{out} is not signed, {a} was; sign it with s4g-pack sign"
    assert extract(a, manifest(a).bounds, out) == [note]
    assert merge(out, a, b, overwrite=True)[1] == [
        "no pack has an overview: neither has the merged one",
        note,
    ]
    with closing(open_container(out)) as container:
        assert container.seal is None
    assert extract(b, manifest(b).bounds, out, overwrite=True) == []


# Pictures.

GREY, RED = 110, (250, 20, 30)


def picture(*squares_px: tuple[int, int, int], size: tuple[int, int] = (155, 145)) -> Any:
    """Grey ground with red squares: left, top and side."""
    image = np.full((*size, 3), GREY, np.uint8)
    for left, top, side in squares_px:
        image[top : top + side, left : left + side] = RED
    return image


def seen_at(path: Path, lat: float, lon: float) -> npt.NDArray[np.int64]:
    """The colour that the picture of a pack shows at a place."""
    with open_pack(path) as pack:
        found = pack.overview()
        assert found is not None
        rgb, west_m, north_m, gsd_m = found
        east, north = pack.frame.to_local(lat, lon)
    pixel = rgb[int((north_m - north) // gsd_m), int((east - west_m) // gsd_m)]
    return np.asarray(pixel, np.int64)


def red_share(path: Path) -> tuple[float, float, float]:
    """East and north of the middle of what is red in a pack's picture, and its area, metres."""
    with open_pack(path) as pack:
        found = pack.overview()
        assert found is not None
        rgb, west_m, north_m, gsd_m = found
    red = (rgb[..., 0].astype(int) - rgb[..., 1]) / (RED[0] - RED[1])
    red = np.where(red > 0.15, red, 0.0)
    rows, columns = np.indices(red.shape) + 0.5
    east = west_m + gsd_m * float((red * columns).sum() / red.sum())
    north = north_m - gsd_m * float((red * rows).sum() / red.sum())
    return east, north, float(red.sum()) * gsd_m**2


def test_the_part_of_the_picture_that_shows_the_region_is_cut_out(tmp_path: Path) -> None:
    whole = toy.write_toy_pack(tmp_path / "whole", picture=(picture((60, 50, 20)), 4.0))
    west, _, _, north = toy.extent_of(*toy.WHOLE)
    lat, lon = toy.FRAME.to_wgs84(west + 70 * 4.0, north - 60 * 4.0)  # the square's middle
    box = part_of(manifest(whole).bounds, 0.2, 0.9, 0.15, 0.85)
    extract(whole, box, tmp_path / "part")
    record, old = manifest(tmp_path / "part").overview, manifest(whole).overview
    # Pixels stay where they were, and there are no more than the box takes.
    left, top = (record.west_m - old.west_m) / 4.0, (old.north_m - record.north_m) / 4.0
    assert (left, top) == pytest.approx((round(left), round(top)))
    around = toy.FRAME.local_bounds(box)
    assert 0 <= around[0] - record.west_m < 4.0
    assert 0 <= record.north_m - around[3] < 4.0
    assert 0 <= record.west_m + 4.0 * record.width_px - around[2] < 4.0
    assert 0 <= around[1] - (record.north_m - 4.0 * record.height_px) < 4.0
    assert np.abs(seen_at(tmp_path / "part", lat, lon) - RED).max() < 25
    east_m, north_m, area = red_share(tmp_path / "part")
    assert (east_m, north_m) == pytest.approx((west + 280.0, north - 240.0), abs=1.0)
    assert area == pytest.approx(80.0**2, rel=0.1)


def test_a_picture_that_is_kept_whole_keeps_its_bytes(tmp_path: Path) -> None:
    whole = toy.write_toy_pack(tmp_path / "whole", picture=(picture((60, 50, 20)), 4.0))
    extract(whole, manifest(whole).bounds, tmp_path / "part")
    with (
        closing(open_container(whole)) as one,
        closing(open_container(tmp_path / "part")) as other,
    ):
        assert bytes(one.section("overview")) == bytes(other.section("overview"))


@pytest.mark.parametrize("gsd_m", [4.0, 3.0, 8.0])
def test_pictures_are_joined_where_they_lie(tmp_path: Path, gsd_m: float) -> None:
    """The second pack lies 300 m east and 100 m south of the first, and its pixels are others."""
    size = round(240 / gsd_m), round(240 / gsd_m)
    square = round(100 / gsd_m), round(140 / gsd_m), round(60 / gsd_m)
    a = toy.write_toy_pack(
        tmp_path / "a", range(9), range(9), picture=(picture(size=(60, 60)), 4.0)
    )
    b = toy.write_toy_pack(
        tmp_path / "b", range(5, 14), range(15, 24), picture=(picture(square, size=size), gsd_m)
    )
    merge(tmp_path / "out", a, b)
    record = manifest(tmp_path / "out").overview
    assert (record.west_m, record.north_m) == (toy.WEST_M, toy.NORTH_M)
    assert record.gsd_m == max(4.0, gsd_m)
    assert record.width_px == math.ceil(540 / record.gsd_m)
    assert record.height_px == math.ceil(340 / record.gsd_m)
    left, top, side = (v * gsd_m for v in square)
    wanted = toy.WEST_M + 300 + left + side / 2, toy.NORTH_M - 100 - top - side / 2
    east_m, north_m, area = red_share(tmp_path / "out")
    assert (east_m, north_m) == pytest.approx(wanted, abs=0.2 * record.gsd_m)
    assert area == pytest.approx(side**2, rel=0.15)
    lat, lon = toy.FRAME.to_wgs84(*wanted)
    assert np.abs(seen_at(tmp_path / "out", lat, lon) - RED).max() < 30
    # Between them there is nothing, and in the first one its own ground.
    for at, colour in (((270.0, 50.0), 0), ((100.0, 100.0), GREY), ((500.0, 300.0), GREY)):
        lat, lon = toy.FRAME.to_wgs84(toy.WEST_M + at[0], toy.NORTH_M - at[1])
        assert np.abs(seen_at(tmp_path / "out", lat, lon) - colour).max() < 12


def test_the_first_picture_lies_on_top_but_for_its_holes(tmp_path: Path) -> None:
    first = picture(size=(60, 60))
    first[20:40, 20:40] = 0  # a hole, 80 m wide
    a = toy.write_toy_pack(tmp_path / "a", range(9), range(9), picture=(first, 4.0))
    b = toy.write_toy_pack(
        tmp_path / "b", range(9), range(9), picture=(picture((0, 0, 60), size=(60, 60)), 4.0)
    )
    merge(tmp_path / "out", a, b)
    for at, colour in ((120.0, RED), (30.0, (GREY,) * 3), (210.0, (GREY,) * 3)):
        lat, lon = toy.FRAME.to_wgs84(toy.WEST_M + at, toy.NORTH_M - at)
        assert np.abs(seen_at(tmp_path / "out", lat, lon) - colour).max() < 30


def test_a_pack_without_a_picture_leaves_its_part_black(tmp_path: Path) -> None:
    a = toy.write_toy_pack(tmp_path / "a", range(9), range(9))
    b = toy.write_toy_pack(
        tmp_path / "b", range(9), range(5, 14), picture=(picture(size=(60, 60)), 4.0)
    )
    assert merge(tmp_path / "out", a, b)[1] == [
        f"{a} has no overview: its part of the merged one stays black"
    ]
    assert manifest(tmp_path / "out").overview == manifest(b).overview
    part = tmp_path / "part"
    assert extract(a, manifest(a).bounds, part) == []
    assert manifest(part).overview is None


# A pack that was built of imagery, and carries it.


@pytest.fixture(scope="module")
def built(toy_source: Path, toy_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("built") / "built.s4gpack"
    with (
        closing(load_engine(toy_encoder, threads=1)) as engine,
        closing(open_ground(str(toy_source))) as ground,
    ):
        plan = plan_pack(ground, engine.spec, None, (48.0, 64.0))
        build_pack([ground], engine, plan, path, BuildOptions(dims=16, imagery_quality=80))
    return path


def test_halves_of_a_pack_that_was_built_give_it_back(tmp_path: Path, built: Path) -> None:
    west, east = halves(built, tmp_path)
    shared, notes = merge(tmp_path / "out", west, east)
    assert notes == []
    assert shared == len(content(west).keys() & content(east).keys()) > 20
    assert content(tmp_path / "out") == content(built)
    assert manifest(tmp_path / "out").bounds == manifest(built).bounds
    queries = np.random.default_rng(1).standard_normal((20, 32)).astype(np.float32)
    with open_pack(built) as one, open_pack(tmp_path / "out") as other:
        assert toy.answers_of(other, queries, 10) == toy.answers_of(one, queries, 10)


@pytest.mark.parametrize("cuts", [(0.65, 0.4), (0.5, 0.5), (0.31, 0.3)])
@pytest.mark.parametrize("across", [False, True], ids=["west and east", "south and north"])
def test_imagery_cut_in_two_and_merged_is_the_archive_byte_for_byte(
    tmp_path: Path, built: Path, cuts: tuple[float, float], across: bool
) -> None:
    box, whole = manifest(built).bounds, manifest(built).imagery
    shares = [(0.0, 1.0, 0.0, cuts[0]), (0.0, 1.0, cuts[1], 1.0)]
    for i, share in enumerate(shares):
        part = part_of(box, *(share if across else (*share[2:], *share[:2])))
        extract(built, part, tmp_path / str(i))
        record = manifest(tmp_path / str(i)).imagery
        assert 0 < record.tiles <= whole.tiles and record.max_zoom == whole.max_zoom
    merge(tmp_path / "out", tmp_path / "0", tmp_path / "1")
    assert manifest(tmp_path / "out").imagery == whole
    with (
        closing(open_container(built)) as one,
        closing(open_container(tmp_path / "out")) as other,
    ):
        assert bytes(one.section("imagery")) == bytes(other.section("imagery"))


def test_imagery_of_a_part_shows_the_same_ground(tmp_path: Path, built: Path) -> None:
    from s4g.core.ground import GroundWindow

    with open_pack(built) as pack:
        extract_pack(pack, part_of(pack.bounds, 0.4, 1.0), tmp_path / "part")
        window = GroundWindow(20.0, 60.0, 0.5, 200, 200)
        with open_pack(tmp_path / "part") as part:
            images = []
            for opened in (pack, part):
                imagery = opened.imagery()
                assert imagery is not None
                images.append(imagery.read(pack.frame, window))
                imagery.close()
    assert images[1].valid.all()
    assert (images[0].rgb == images[1].rgb).all()


def test_a_pack_without_imagery_leaves_a_hole_and_is_told(tmp_path: Path, built: Path) -> None:
    box = manifest(built).bounds
    extract(built, part_of(box, 0.0, 0.6), tmp_path / "a")
    extract(built, part_of(box, 0.4, 1.0), tmp_path / "with")
    with open_pack(tmp_path / "with") as pack:
        sections = {
            n: bytes(pack.container.section(n)) for n in pack.container.names if n != "imagery"
        }
        bare = dataclasses.replace(pack.manifest, imagery=None)
    write_pack = toy.write_pack
    write_pack(tmp_path / "b", bare, sections, False)
    assert merge(tmp_path / "out", tmp_path / "a", tmp_path / "b")[1] == [
        f"{tmp_path / 'b'} has no imagery: its part of the merged one is a hole"
    ]
    with open_pack(tmp_path / "out") as pack:
        pack.verify()
        assert pack.manifest.imagery is not None


# The commands.


def test_extract_shows_what_it_wrote(run: Run, tmp_path: Path, plain: Path) -> None:
    out, box = tmp_path / "flight.s4gpack", manifest(plain).bounds
    narrow = part_of(box, 0.3, 0.5)
    code, text, err = run("extract", plain, "--bbox", narrow, "--out", out)
    # What a user types has six decimals.
    assert code == 0
    assert err == f"note: level 160: left out, it has no tile in --bbox {narrow}\n"
    assert text == run("info", out)[1]
    code, text, err = run("extract", plain, f"--bbox={narrow}", "--out", out)
    assert (code, text) == (2, "")
    assert err == f"error: {out}: already exists; pass --overwrite to replace it\n"
    code, text, err = run(
        "extract", plain, "--bbox", box, "--levels", "160", "--out", out, "--overwrite", "--json"
    )
    told = json.loads(text)
    assert (code, err) == (0, "")
    assert told["from"] == str(plain)
    assert [level["footprint_m"] for level in told["levels"]] == [160.0]
    assert told == {**json.loads(run("info", out, "--json")[1]), "from": str(plain)}


def test_extract_takes_an_area_or_a_corridor(run: Run, tmp_path: Path, plain: Path) -> None:
    pytest.importorskip("shapely", reason="areas need shapely (the pack extra)")
    polygon(tmp_path / "a.geojson", toy.FRAME, (-190, -190), (9, -190), (9, 190), (-190, 190))
    line = [[float(v) for v in toy.FRAME.to_wgs84(x, 0.0)[::-1]] for x in (-100.0, 100.0)]
    route = tmp_path / "r.geojson"
    route.write_text(json.dumps({"type": "LineString", "coordinates": line}))
    out = tmp_path / "out.s4gpack"
    assert run("extract", plain, "--area", tmp_path / "a.geojson", "--out", out)[0] == 0
    assert content(out).keys() == {
        place for place in content(plain) if -190 < place[1] < 9 and -190 < place[2] < 190
    }
    code, _, _ = run(
        "extract", plain, "--route", route, "--width", "120m", "--out", out, "--overwrite"
    )
    assert code == 0
    for place in content(plain):
        away = np.hypot(max(abs(place[1]) - 100, 0), place[2])
        if abs(away - 60) > 0.5:  # the corridor's round ends have corners
            assert (place in content(out)) == (away < 60)


@pytest.fixture(scope="module")
def folder(toy_source: Path, toy_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of four packs of two levels."""
    path = tmp_path_factory.mktemp("set") / "toy.s4gpacks"
    with (
        closing(load_engine(toy_encoder, threads=1)) as engine,
        closing(open_ground(str(toy_source))) as ground,
    ):
        plan = plan_pack(ground, engine.spec, None, (64.0, 128.0))
        build_set([ground], engine, plan, 130.0, path, BuildOptions(dims=8))
    return path


def test_extract_takes_the_part_of_a_set(run: Run, tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "part.s4gpack"
    with open_set(folder) as packs:
        box, tiles = packs.bounds, packs.tiles
    code, text, err = run("extract", folder, "--bbox", box, "--out", out, "--json")
    told = json.loads(text)
    assert (code, err, told["from"]) == (0, "", str(folder))
    assert sum(level["tiles"] for level in told["levels"]) == tiles == len(content(out))
    code, text, err = run("extract", folder, "--bbox", "3,4,5,6", "--out", tmp_path / "no.s4gpack")
    assert (code, text) == (2, "")
    assert err == (
        f"error: --bbox 3,4,5,6: has nothing in common with {folder}, which covers {box}; choose a "
        "region inside it\n"
    )
    assert names(tmp_path) == ["part.s4gpack"]


def test_a_pack_of_a_set_in_which_only_a_fine_level_has_tiles_is_not_left_out(
    tmp_path: Path, folder: Path
) -> None:
    whole = tmp_path / "whole.s4gpack"
    with open_set(folder) as packs:
        extract_from_set(packs, packs.bounds, whole)
        for share in (0.45, 0.55, 0.6, 0.65, 0.7):
            box, part, again = (
                part_of(packs.bounds, 0.0, share),
                tmp_path / "p.s4gpack",
                tmp_path / "q.s4gpack",
            )
            for levels in ((64.0, 128.0), None):
                given = CombineOptions(overwrite=True)
                extract_from_set(packs, box, part, levels, given)
                with open_pack(whole) as pack:
                    extract_pack(pack, box, again, levels, given)
                assert content(part) == content(again)


def test_a_level_that_a_set_lacks_is_refused(tmp_path: Path, folder: Path) -> None:
    with open_set(folder) as packs, pytest.raises(InputError) as error:
        extract_from_set(packs, packs.bounds, tmp_path / "out.s4gpack", (64.0, 40.0))
    assert str(error.value) == f"{folder}: has no level of 40 m; choose of 64, 128"
    assert not names(tmp_path)


def test_packs_of_a_set_that_lack_a_level_do_not_hinder_the_others(
    tmp_path: Path, toy_source: Path, toy_encoder: Path
) -> None:
    """Centres of large tiles lie in the middle of the region alone."""
    folder, out = tmp_path / "toy.s4gpacks", tmp_path / "out.s4gpack"
    with (
        closing(load_engine(toy_encoder, threads=1)) as engine,
        closing(open_ground(str(toy_source))) as ground,
    ):
        plan = plan_pack(ground, engine.spec, None, (64.0, 190.0))
        build_set([ground], engine, plan, 90.0, folder, BuildOptions(dims=8, overview=False))
    with open_set(folder) as packs:
        held = []
        for place in packs.packs:
            with packs.open(place) as pack:
                held.append([level.footprint_m for level in pack.levels])
        assert [64.0] in held and [64.0, 190.0] in held
        extract_from_set(packs, packs.bounds, out, (190.0,))
        assert len(content(out)) == packs.levels[1].tiles


def test_a_level_of_a_set_that_has_no_tile_in_the_region_is_refused(
    tmp_path: Path, folder: Path
) -> None:
    with open_set(folder) as packs:
        box = part_of(packs.bounds, 0.3, 0.6)  # some 96 m wide
        with pytest.raises(InputError) as error:
            extract_from_set(packs, box, tmp_path / "out.s4gpack", (128.0, 64.0))
        assert str(error.value) == (
            f"--bbox {box}: holds no tile of level 128 of {folder}, which covers {packs.bounds}; "
            "choose a larger region"
        )
        assert not names(tmp_path)
        notes = extract_from_set(packs, box, tmp_path / "out.s4gpack")
        assert notes == [f"level 128: left out, it has no tile in --bbox {box}"]
        assert [
            level.lattice.footprint_m for level in manifest(tmp_path / "out.s4gpack").levels
        ] == [64.0]
        wide = part_of(packs.bounds, -0.5, 0.9)
        given = CombineOptions(overwrite=True)
        out = tmp_path / "out.s4gpack"
        notes = extract_from_set(packs, wide, out, None, given)
        clipped = manifest(out).bounds
        assert notes == [f"--bbox {wide} reaches beyond {folder}: clipped to {clipped}"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "--bbox, --area and --route: give one of them"),
        (
            ["--bbox", "1,2,3,4", "--area", "a"],
            "--bbox, --area and --route: give one of them",
        ),
        (["--route", "a"], "--route and --width go together"),
        (
            ["--bbox", "1,2,3,4", "--width", "5m"],
            "--route and --width go together",
        ),
        (
            ["--bbox", "3,2,1,4"],
            "--bbox 3,2,1,4: west 3 must be less than east 1; the order is W,S,E,N",
        ),
    ],
    ids=["nothing", "two", "no width", "no route", "order"],
)
def test_a_region_that_is_none_is_refused(
    run: Run, tmp_path: Path, plain: Path, given: Sequence[str], message: str
) -> None:
    code, out, err = run("extract", plain, *given, "--out", tmp_path / "out.s4gpack")
    assert (code, out) == (2, "")
    assert re.sub(r" \(see \S+ extract --help\)", "", err) == f"error: {message}\n"
    assert not names(tmp_path)


def test_merge_tells_what_was_left_out(run: Run, tmp_path: Path, plain: Path) -> None:
    west, east = halves(plain, tmp_path)
    out = tmp_path / "out.s4gpack"
    shared = len(content(west).keys() & content(east).keys())
    notes = (
        "note: no pack has an overview: neither has the merged one\n"
        f"note: {shared} tiles left out: a pack named before has the same place\n"
    )
    code, text, err = run("merge", west, east, "--out", out)
    assert (code, err) == (0, notes)
    assert text == run("info", out)[1]
    code, text, err = run("merge", west, east, "--out", out)
    assert (code, text) == (2, "")
    assert err == f"error: {out}: already exists; pass --overwrite to replace it\n"
    code, text, err = run("merge", west, east, "--out", out, "--overwrite", "--json")
    told = json.loads(text)
    assert (code, err) == (0, notes)
    assert told["from"] == [str(west), str(east)]
    assert told["tiles_left_out"] == shared
    assert content(out) == content(plain)


def test_merge_of_what_is_no_pack_fails_in_one_line(run: Run, tmp_path: Path, plain: Path) -> None:
    (tmp_path / "no.s4gpack").write_bytes(b"something else")
    code, text, err = run(
        "merge", plain, tmp_path / "no.s4gpack", "--out", tmp_path / "out.s4gpack"
    )
    assert (code, text) == (2, "")
    assert err == (
        f"error: {tmp_path / 'no.s4gpack'}: not a pack of s4g (it starts with b'somethin'); give a "
        ".s4gpack file\n"
    )
    code, _, err = run("merge", plain, "--out", tmp_path / "out.s4gpack")
    assert code == 2
    assert (
        err == f"error: {tmp_path / 'out.s4gpack'}: is to be made of one pack; name two or more\n"
    )
    assert names(tmp_path) == ["no.s4gpack"]


@pytest.mark.parametrize("command", ["extract", "merge", "diff"])
def test_help_has_an_example(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--help"])
    assert result.exit_code == 0
    assert f"Example: s4g-pack {command} " in result.output


def test_progress_counts_every_tile(tmp_path: Path, plain: Path) -> None:
    from contextlib import contextmanager

    seen: list[tuple[str, int]] = []
    steps: list[int] = []

    @contextmanager
    def show(description: str, total: int) -> Iterator[Callable[[int], None]]:
        seen.append((description, total))
        yield steps.append

    box = manifest(plain).bounds
    extract(plain, box, tmp_path / "out.s4gpack", progress=show)
    counts = [level.count for level in manifest(plain).levels]
    assert seen == [("level 80 m: links", counts[0]), ("level 160 m: links", counts[1])]
    assert sum(steps) == sum(counts)
