"""Imagery in packs: what was cut lies where it should, and nothing that is altered is used."""

from __future__ import annotations

import copy
import dataclasses
import gzip
import io
import json
import runpy
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pmtiles.reader import MemorySource, Reader, all_tiles
from pmtiles.tile import Entry, deserialize_directory, deserialize_header, serialize_directory
from pmtiles.tile import serialize_header as official_header

from s4g.core.console import run_command
from s4g.core.engine import load_engine
from s4g.core.errors import InputError, IntegrityError, S4GError
from s4g.core.geo import BBox, LocalFrame, mercator_from_wgs84, mercator_gsd_m
from s4g.core.ground import ArrayGround, GroundImage, GroundSource, GroundWindow
from s4g.core.pmtiles_directory import tile_ids
from s4g.core.source_raster import RasterGround
from s4g.core.tile_image import decode_tile
from s4g.core.tile_pyramid import tile_range, tiles_bounds
from s4g.tilepacks import imagery_plan, imagery_tiles
from s4g.tilepacks.area import Area
from s4g.tilepacks.build import build_pack
from s4g.tilepacks.cli import cli
from s4g.tilepacks.format import encode_container, open_container
from s4g.tilepacks.imagery import make_imagery
from s4g.tilepacks.imagery_merge import cut_imagery, merge_imagery
from s4g.tilepacks.imagery_plan import ImageryPlan, coarsest_zoom, imagery_blocks, plan_imagery
from s4g.tilepacks.imagery_tiles import encode_tile, merged_tile, parent_tile, read_tiles
from s4g.tilepacks.manifest import ImageryRecord
from s4g.tilepacks.options import BuildOptions
from s4g.tilepacks.plan import Plan, plan_pack
from s4g.tilepacks.reader import Pack, open_pack
from s4g.tilepacks.tiling import Lattice, lattice_over
from s4g.tilepacks.work import WorkFolder
from s4g.tilepacks.write import write_pack

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_tiles.py"))))

REMEDY = "; copy it again from where it was built, or rebuild it with s4g-pack"
CREDIT = "Survey & Sons <2024>"
LIMIT_BYTES = 40_000_000
Tiles = dict[tuple[int, int, int], bytes]  # by zoom, column and row


def decoded(data: bytes) -> npt.NDArray[np.uint8]:
    """A tile's pixels, (256, 256, 4), as OpenCV alone sees them; RGBA."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image.shape[2] == 3:
        image = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    found: npt.NDArray[np.uint8] = image[..., [2, 1, 0, 3]]
    return found


def tiles_of(archive: bytes | memoryview) -> Tiles:
    return dict(all_tiles(MemorySource(bytes(archive))))


def section(path: Path) -> bytes:
    with closing(open_container(path)) as container:
        return bytes(container.section("imagery"))


def imagery_of(pack: Pack) -> GroundSource:
    imagery = pack.imagery()
    assert imagery is not None
    return imagery


# A toy orthophoto in a pack, built as users build it.


@dataclasses.dataclass(frozen=True)
class Built:
    """A pack with imagery, and the orthophoto it is of."""

    path: Path
    orthophoto: Path


@pytest.fixture(scope="module")
def built(toy_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    orthophoto = folder / "o.tif"
    toy.write_orthophoto(orthophoto)
    with (
        closing(RasterGround(orthophoto)) as ground,
        closing(load_engine(toy_encoder, threads=1)) as engine,
    ):
        ground.attribution = CREDIT
        plan = plan_pack(ground, engine.spec, None, (32.0,), stride=1.0)
        options = BuildOptions(dims=16, overview=False, imagery_quality=75)
        build_pack([ground], engine, plan, folder / "built.s4gpack", options)
    return Built(folder / "built.s4gpack", orthophoto)


def test_a_build_carries_the_imagery(built: Built) -> None:
    with open_pack(built.path) as pack:
        pack.verify()
        record = pack.manifest.imagery
        assert record is not None
        assert (record.min_zoom, record.max_zoom) == (16, 18)
        assert (record.gsd_m, record.quality) == (pytest.approx(0.5, rel=1e-2), 75)
        found = tiles_of(section(built.path))
        assert record.tiles == len(found)
        assert {zoom for zoom, _, _ in found} == {16, 17, 18}
        with closing(imagery_of(pack)) as imagery:
            assert imagery.gsd_m == pytest.approx(mercator_gsd_m(pack.bounds.center[0], 18))
            for side in ("west", "south", "east", "north"):
                assert getattr(imagery.bounds, side) == pytest.approx(
                    getattr(pack.bounds, side), abs=1e-7
                )


@pytest.mark.parametrize("away_deg", [(0.0, 0.0), (0.02, -0.05), (-0.3, 0.4)])
def test_a_known_place_lands_where_it_should_in_any_frame(
    built: Built, away_deg: tuple[float, float]
) -> None:
    with open_pack(built.path) as pack, closing(imagery_of(pack)) as imagery:
        lat, lon = pack.bounds.center
        frame = LocalFrame(lat + away_deg[0], lon + away_deg[1])
        for gsd_m in (0.41, 0.8, 1.5):
            side = round(50 / gsd_m)
            for east, north in toy.landmark_places(frame):
                west, top = east - side * gsd_m / 2, north + side * gsd_m / 2
                image = imagery.read(frame, GroundWindow(west, top, gsd_m, side, side))
                assert image.valid.all()
                assert toy.off_middle_px(image.rgb[..., 2]) < 0.3


def test_it_shows_the_orthophoto(built: Built) -> None:
    with (
        open_pack(built.path) as pack,
        closing(imagery_of(pack)) as imagery,
        closing(RasterGround(built.orthophoto)) as truth,
    ):
        window = GroundWindow(-150.0, 150.0, 0.5, 600, 600)
        seen, wanted = imagery.read(pack.frame, window), truth.read(pack.frame, window)
        assert seen.valid.all() and wanted.valid.all()
        assert np.abs(seen.rgb.astype(float) - wanted.rgb).mean() < 2.0


def test_the_credit_is_in_the_archive_as_html_and_read_back_as_it_was(built: Built) -> None:
    reader = Reader(MemorySource(section(built.path)))
    assert reader.metadata() == {
        "attribution": "Survey &amp; Sons &lt;2024&gt;",
        "format": "webp",
    }
    with open_pack(built.path) as pack, closing(imagery_of(pack)) as imagery:
        assert imagery.attribution == pack.attribution == CREDIT


def test_a_pack_without_imagery_says_so(toy_pack: Path) -> None:
    with open_pack(toy_pack) as pack:
        assert pack.manifest.imagery is None
        assert pack.imagery() is None


def test_imagery_serves_on_after_the_pack_is_closed(built: Built) -> None:
    pack = open_pack(built.path)
    window = GroundWindow(-20.0, 20.0, 0.5, 80, 80)
    with closing(imagery_of(pack)) as imagery:
        frame, before = pack.frame, imagery.read(pack.frame, window).rgb
        pack.close()
        assert (imagery.read(frame, window).rgb == before).all()


def test_the_command_carries_it_too(
    tmp_path: Path, toy_source: Path, toy_encoder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.s4gpack"
    options = ["--source", toy_source, "--encoder", toy_encoder, "--device", "cpu"]
    options += ["--threads", 1, "--levels", 64, "--dims", 16, "--imagery", "--out", out]
    for quality, more in ((75, []), (40, ["--imagery-quality", 40, "--overwrite"])):
        with pytest.raises(SystemExit) as end:
            run_command(cli, [str(option) for option in (*options, *more)])
        assert end.value.code in (0, None), capfd.readouterr().err
        with open_pack(out) as pack:
            pack.verify()
            assert pack.manifest.imagery is not None
            assert pack.manifest.imagery.quality == quality
            assert pack.attribution == "toy imagery, public domain"


# Which tiles, of which zooms.


def plan_of(
    frame: LocalFrame, width_m: float, height_m: float, gsd_m: float = 1.0, **given: Any
) -> Plan:
    """A plan of a box around a frame's origin with one level of 64-px tiles."""
    half = width_m / 2, height_m / 2
    extent = -half[0], -half[1], half[0], half[1]
    lattice = lattice_over(extent, 64 * gsd_m, 64, 0.5)
    assert lattice is not None
    return Plan(frame.wgs84_bounds(*extent), frame, extent, (lattice,), (), **given)


HERE = LocalFrame(46.95, 9.0)


@settings(max_examples=60)
@given(
    st.floats(-75, 75),
    st.floats(200, 3000),
    st.floats(200, 3000),
    st.floats(0.3, 3.0),
    st.floats(0.1, 5.0),
)
def test_zooms_are_as_fine_as_needed_and_as_coarse_as_one_tile(
    lat: float, width: float, height: float, gsd: float, native: float
) -> None:
    plan = plan_of(LocalFrame(lat, 9.0), width, height, gsd)
    found = plan_imagery(plan, native)
    center, wanted = plan.region.center[0], max(gsd, native)
    assert mercator_gsd_m(center, found.max_zoom) <= 1.02 * wanted
    assert mercator_gsd_m(center, found.max_zoom - 1) > 1.02 * wanted
    x, y = mercator_from_wgs84(
        [plan.region.south, plan.region.north], [plan.region.west, plan.region.east]
    )
    side = max(np.ptp(x), np.ptp(y))
    world = 2 * np.pi * 6378137.0
    if found.min_zoom < found.max_zoom:
        assert side > world / 2 ** (found.min_zoom + 1) * 0.999999
    assert side <= world / 2**found.min_zoom * 1.000001
    x0, y0, x1, y1 = tile_range(plan.region, found.max_zoom)
    assert found.count == (x1 - x0) * (y1 - y0)
    assert found.wanted_of(range(x0, x1), range(y0, y1)).all()
    assert found.block_zoom == max(found.min_zoom, found.max_zoom - 4)


def test_the_finest_level_decides_and_the_imagery_where_it_is_coarser() -> None:
    frame = LocalFrame(0.0, 9.0)
    plan = plan_of(frame, 500, 500, 0.6)
    coarser = lattice_over(plan.extent_m, 128.0, 64, 0.5)
    assert coarser is not None
    plan = dataclasses.replace(plan, lattices=(*plan.lattices, coarser))
    assert mercator_gsd_m(0.0, 18) == pytest.approx(0.597, abs=1e-3)
    assert plan_imagery(plan, 0.1).max_zoom == 18
    assert plan_imagery(plan, 1.2).max_zoom == 17
    # Imagery that is a pyramid itself is cut at its own zoom, not at the next.
    assert plan_imagery(plan, mercator_gsd_m(0.0, 17) * 0.99).max_zoom == 17


def test_blocks_hold_every_wanted_tile_once_along_the_curve() -> None:
    found = plan_imagery(plan_of(HERE, 9000, 5000, 2.0), 2.0)
    assert found.block_side == 16
    seen = np.zeros_like(found.wanted, np.int64)
    numbers = []
    for x, y in imagery_blocks(found):
        assert x.start % 16 == 0 == y.start % 16 and len(x) == len(y) == 16
        assert found.wanted_of(x, y).any()
        seen[y.start - found.y0 : y.stop - found.y0, x.start - found.x0 : x.stop - found.x0] += 1
        numbers.append(int(tile_ids(found.block_zoom, [x.start // 16], [y.start // 16])[0]))
    assert (seen[found.wanted] == 1).all() and seen.max() == 1
    assert numbers == sorted(numbers) and len(numbers) > 4


def corridor(frame: LocalFrame, *places_m: tuple[float, float], margin_m: float = 20.0) -> Area:
    lat, lon = frame.to_wgs84([p[0] for p in places_m], [p[1] for p in places_m])
    line = tuple(zip(lon.tolist(), lat.tolist(), strict=True))
    return Area("route", ((line,),), margin_m, frame)


def test_an_area_limits_what_is_wanted_to_the_ground_of_its_tiles() -> None:
    area = corridor(HERE, (-900.0, -900.0), (0.0, 0.0), (900.0, -300.0))
    plan = plan_of(HERE, 2000, 2000, 1.0, area=area)
    found = plan_imagery(plan, 1.0)
    whole = plan_imagery(dataclasses.replace(plan, area=None), 1.0)
    wanted = np.zeros_like(found.wanted)
    (lattice,) = plan.lattices
    cells = np.arange(lattice.count, dtype=np.uint32)
    east, north = lattice.centers_m(cells)
    inside = area.holds(HERE, east, north)
    assert 20 < inside.sum() < lattice.count / 4
    for x, y in zip(east[inside], north[inside], strict=True):
        box = BBox(*footprint_degrees(x, y, lattice))
        x0, y0, x1, y1 = tile_range(box, found.max_zoom)
        wanted[y0 - found.y0 : y1 - found.y0, x0 - found.x0 : x1 - found.x0] = True
    assert (found.wanted == wanted).all()
    assert 0 < found.count < whole.count / 2
    assert (found.min_zoom, found.max_zoom) == (whole.min_zoom, whole.max_zoom)


def footprint_degrees(east: float, north: float, lattice: Lattice) -> tuple[float, ...]:
    half = lattice.footprint_m / 2
    lat, lon = HERE.to_wgs84(
        [east - half, east - half, east + half, east + half],
        [north - half, north + half, north - half, north + half],
    )
    return float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())


def test_a_region_beyond_web_mercator_is_refused() -> None:
    plan = plan_of(LocalFrame(85.05, 9.0), 500, 500)
    with pytest.raises(InputError) as error:
        plan_imagery(plan, 1.0)
    assert str(error.value) == (
        f"region {plan.region}: imagery in a pack ends at latitude 85.05; pack it without imagery"
    )


def test_too_many_tiles_are_refused_before_memory_is_taken() -> None:
    box = BBox(0.0, 40.0, 30.0, 60.0)
    plan = dataclasses.replace(plan_of(HERE, 500, 500, 0.3), region=box)
    x0, y0, x1, y1 = tile_range(box, 18)
    tracemalloc.start()
    with pytest.raises(InputError) as error:
        plan_imagery(plan, 0.4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(error.value) == (
        f"region {box}: {(x1 - x0) * (y1 - y0)} tiles of imagery at zoom 18, a pack holds at most "
        f"{1 << 25}; split the region or pack it without imagery"
    )
    assert peak < 1_000_000
