"""Imagery in packs: what was cut lies where it should, and nothing that is altered is used."""

from __future__ import annotations

import copy
import dataclasses
import gzip
import runpy
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
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

from s4g.core import source_pmtiles
from s4g.core.console import run_command
from s4g.core.engine import load_engine
from s4g.core.errors import InputError, IntegrityError, S4GError
from s4g.core.geo import BBox, LocalFrame, mercator_from_wgs84, mercator_gsd_m
from s4g.core.ground import ArrayGround, GroundImage, GroundSource, GroundWindow
from s4g.core.pmtiles_directory import first_id, tile_ids
from s4g.core.source_raster import RasterGround
from s4g.core.tile_pyramid import tile_range, tiles_bounds
from s4g.tilepacks import imagery_plan, imagery_tiles
from s4g.tilepacks.area import Area
from s4g.tilepacks.build import build_pack
from s4g.tilepacks.cli import cli
from s4g.tilepacks.format import encode_container, open_container
from s4g.tilepacks.imagery import make_imagery
from s4g.tilepacks.imagery_merge import cut_imagery, merge_imagery
from s4g.tilepacks.imagery_plan import coarsest_zoom, imagery_blocks, plan_imagery
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
    found = plan_imagery(plan_of(HERE, 9000, 5000, 1.0), 1.0)
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


# Tiles as they are made.


def ground(hole: bool = False, gsd_m: float = 0.4) -> ArrayGround:
    """400 x 320 m around `HERE`, soft in all colours; with a round hole off its middle."""
    height, width = round(320 / gsd_m), round(400 / gsd_m)
    coarse = np.random.default_rng(3).integers(60, 200, (14, 14, 3)).astype(np.float32)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    valid = np.ones((height, width), np.bool_)
    if hole:
        rows, columns = np.indices(valid.shape)
        valid &= np.hypot(columns - 0.6 * width, rows - 0.4 * height) * gsd_m > 40
    rgb = np.clip(image, 1, 255).astype(np.uint8)
    return ArrayGround(rgb, valid, HERE, -200.0, 160.0, gsd_m, "scene", CREDIT)


class Counted:
    """A source that counts what is read of it, and may fail at a reading."""

    def __init__(self, inner: GroundSource, fails_at: int = -1) -> None:
        self.name, self.attribution = inner.name, inner.attribution
        self.bounds, self.gsd_m = inner.bounds, inner.gsd_m
        self.reads, self._inner, self._fails_at = 0, inner, fails_at

    def read(self, frame: LocalFrame, window: GroundWindow) -> GroundImage:
        self.reads += 1
        if self.reads - 1 == self._fails_at:
            raise Killed
        return self._inner.read(frame, window)

    def close(self) -> None:
        self._inner.close()


class Killed(BaseException):
    """What no code of ours catches."""


def make(
    source: GroundSource,
    folder: Path,
    plan: Plan | None = None,
    workers: int = 1,
    advance: Callable[[int], None] = lambda steps: None,
) -> tuple[ImageryRecord, bytes]:
    plan = plan or plan_of(HERE, 400, 320, 0.4)
    folder.mkdir(exist_ok=True)
    imagery = plan_imagery(plan, source.gsd_m)
    record, archive = make_imagery(source, plan, imagery, WorkFolder(folder), 75, workers, advance)
    return record, bytes(archive)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 2 x 2 tiles, so that a small region has several."""
    monkeypatch.setattr(imagery_plan, "_BLOCK_ZOOMS", 1)


def test_holes_are_transparent_and_imagery_beside_them_keeps_its_colours(tmp_path: Path) -> None:
    plan, source = plan_of(HERE, 400, 320, 0.4), ground(hole=True)
    found = tiles_of(make(source, tmp_path, plan)[1])
    x0, y0, x1, y1 = tile_range(plan.region, 18)
    whole, holed = (
        read_tiles(each, HERE, 18, range(x0, x1), range(y0, y1)) for each in (ground(), source)
    )
    shape = holed.valid.shape
    tiles = np.zeros((*shape, 4), np.uint8)
    for (zoom, x, y), data in found.items():
        if zoom == 18:
            top, left = (y - y0) * 256, (x - x0) * 256
            tiles[top : top + 256, left : left + 256] = decoded(data)
    assert set(np.unique(tiles[..., 3])) == {0, 255}
    # Sheets of other sizes are cut at scales that differ by 1e-6: a pixel at most is moved.
    differs = (tiles[..., 3] > 0) != holed.valid
    near = np.ones((3, 3))
    edge = cv2.dilate(holed.valid.astype(np.uint8), near) != cv2.erode(
        holed.valid.astype(np.uint8), near
    )
    assert not (differs & ~edge).any() and differs.mean() < 0.001
    beside = edge & (tiles[..., 3] > 0)
    beside &= cv2.erode(whole.valid.astype(np.uint8), np.ones((81, 81))).astype(bool)
    assert beside.sum() > 300
    wrong = np.abs(tiles[..., :3].astype(float) - whole.rgb)[beside]
    assert wrong.mean() < 4, "black bleeds in from the hole"


def test_places_without_imagery_have_no_tile(tmp_path: Path) -> None:
    source = ground()
    source.valid[:, :600] = False
    source.rgb[~source.valid] = 0
    plan = plan_of(HERE, 400, 320, 0.4)
    record, archive = make(source, tmp_path, plan)
    x0, y0, x1, y1 = tile_range(plan.region, 18)
    columns = {x for zoom, x, _ in tiles_of(archive) if zoom == 18}
    assert columns == set(range(min(columns), x1)) and min(columns) > x0 + 1
    assert record.tiles == len(tiles_of(archive))


def test_a_hole_is_a_hole_again_when_it_is_read(tmp_path: Path, built: Built) -> None:
    source = ground(hole=True)
    plan = plan_of(HERE, 400, 320, 0.4)
    record, archive = make(source, tmp_path, plan)
    path = pack_with(built.path, tmp_path / "p.s4gpack", plan.region, record, archive)
    window = GroundWindow(-180.0, 140.0, 0.4, 900, 700)
    with open_pack(path) as pack, closing(imagery_of(pack)) as imagery:
        seen, wanted = imagery.read(HERE, window), source.read(HERE, window)
        assert (~wanted.valid).mean() > 0.002
        assert (seen.valid != wanted.valid).mean() < 0.002
        assert (seen.rgb[~seen.valid] == 0).all()
        coarse = imagery.read(HERE, GroundWindow(-180.0, 140.0, 1.6, 225, 175))
        wanted = source.read(HERE, GroundWindow(-180.0, 140.0, 1.6, 225, 175))
        assert (coarse.valid != wanted.valid).mean() < 0.01
        both = coarse.valid & wanted.valid
        assert np.abs(coarse.rgb.astype(float) - wanted.rgb)[both].mean() < 3


def test_no_imagery_at_all_is_refused(tmp_path: Path) -> None:
    source = ground()
    source.valid[:] = False
    plan = plan_of(HERE, 400, 320, 0.4)
    with pytest.raises(InputError) as error:
        make(source, tmp_path, plan)
    assert str(error.value) == f"scene: has no imagery in the region {plan.region}"


def mean_of_four(tiles: Tiles, zoom: int, x: int, y: int) -> bytes | None:
    """The tile above four, pixel by pixel in floats, encoded."""
    sheet = np.zeros((512, 512, 4))
    for i in range(4):
        data = tiles.get((zoom + 1, 2 * x + i % 2, 2 * y + i // 2))
        if data is not None:
            top, left = 256 * (i // 2), 256 * (i % 2)
            tile = decoded(data).astype(float)
            tile[..., 3] = tile[..., 3] >= 128
            sheet[top : top + 256, left : left + 256] = tile
    four = sheet.reshape(256, 2, 256, 2, 4).transpose(0, 2, 1, 3, 4).reshape(256, 256, 4, 4)
    weight = four[..., 3].sum(axis=2)
    total = (four[..., :3] * four[..., 3:]).sum(axis=2)
    rgb = np.floor(total / np.maximum(weight, 1)[..., None] + 0.5).astype(np.uint8)
    return encode_tile(rgb, weight >= 2, 75)


@pytest.mark.parametrize("hole", [False, True])
@pytest.mark.usefixtures("small_blocks")
def test_lower_zooms_follow_from_the_four_tiles_below(tmp_path: Path, hole: bool) -> None:
    record, archive = make(ground(hole), tmp_path)
    found = tiles_of(archive)
    assert record.max_zoom - record.min_zoom >= 2, "zooms above the blocks too"
    lower = {zxy for zxy in found if zxy[0] < record.max_zoom}
    assert lower == {(zoom - 1, x // 2, y // 2) for zoom, x, y in found if zoom > record.min_zoom}
    for zxy in lower:
        assert found[zxy] == mean_of_four(found, *zxy), zxy


def test_a_pixel_is_seen_where_two_of_four_are() -> None:
    rng = np.random.default_rng(0)
    valid = rng.random((256, 256)) < 0.4
    rgb = np.full((256, 256, 3), 200, np.uint8) * valid[..., None].astype(np.uint8)
    child = encode_tile(rgb, valid, 100)
    parent = parent_tile([child, None, None, None], "a", 100)
    assert parent is not None
    tile = decoded(parent)
    seen = valid.reshape(128, 2, 128, 2).sum(axis=(1, 3)) >= 2
    assert (tile[:128, :128, 3] == 255).tolist() == seen.tolist()
    assert not tile[128:].any(axis=-1)[..., None][tile[128:, :, 3:] > 0].any()
    assert np.abs(tile[:128, :128, :3][seen].astype(int) - 200).max() < 25, "holes darken nothing"
    assert parent_tile([None] * 4, "a", 100) is None


def test_a_damaged_tile_below_is_named() -> None:
    with pytest.raises(IntegrityError) as error:
        parent_tile([b"nothing", None, None, None], "p: a tile under 3/1/2", 75)
    assert str(error.value).startswith("p: a tile under 3/1/2 is no PNG, JPEG or WebP")


def test_a_tile_without_holes_has_no_alpha() -> None:
    rgb = np.full((256, 256, 3), 90, np.uint8)
    whole = encode_tile(rgb, np.ones((256, 256), np.bool_), 75)
    assert whole is not None and cv2.imdecode(np.frombuffer(whole, np.uint8), -1).shape[2] == 3
    assert encode_tile(rgb, np.zeros((256, 256), np.bool_), 75) is None


# Kills: what is done stays, and the bytes are the same.


@pytest.mark.usefixtures("small_blocks")
def test_resumed_after_a_kill_at_any_block_the_bytes_are_the_same(tmp_path: Path) -> None:
    source, plan = Counted(ground(hole=True)), plan_of(HERE, 300, 220, 0.4)
    steps: list[int] = []
    wanted = make(source, tmp_path / "whole", plan, advance=steps.append)
    reads = source.reads
    assert len(steps) >= 4 and sum(steps) == plan_imagery(plan, 0.4).count
    assert reads >= len(steps)
    for block in range(len(steps)):
        done: list[int] = []

        def kill(count: int, done: list[int] = done, at: int = block) -> None:
            done.append(count)
            if len(done) > at:
                raise Killed

        folder = tmp_path / f"after{block}"
        first, second = Counted(ground(hole=True)), Counted(ground(hole=True))
        with pytest.raises(Killed):
            make(first, folder, plan, advance=kill)
        assert make(second, folder, plan) == wanted
        assert first.reads + second.reads == reads, "no block is read twice"
    for reading in range(reads):
        folder = tmp_path / f"during{reading}"
        with pytest.raises(Killed):
            make(Counted(ground(hole=True), fails_at=reading), folder, plan)
        assert make(ground(hole=True), folder, plan) == wanted


@pytest.mark.usefixtures("small_blocks")
def test_what_a_kill_left_half_written_is_made_anew(tmp_path: Path) -> None:
    wanted = make(ground(), tmp_path)
    entries = sorted((tmp_path / "imagery").iterdir())
    assert [entry.name for entry in entries][-1] == "top" and len(entries) > 4
    for entry in entries:
        data = entry.read_bytes()
        entry.write_bytes(data[: len(data) // 2])
        assert make(ground(), tmp_path) == wanted
        assert entry.read_bytes() == data
        middle = len(data) // 2
        entry.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        assert make(ground(), tmp_path) == wanted


@pytest.mark.usefixtures("small_blocks")
def test_threads_are_no_part_of_the_result(tmp_path: Path) -> None:
    assert make(ground(), tmp_path / "1") == make(ground(), tmp_path / "3", workers=3)


@pytest.mark.usefixtures("small_blocks")
def test_an_entry_that_is_damaged_meanwhile_is_told(tmp_path: Path) -> None:
    first = tmp_path / "imagery" / "000000"

    def damage(count: int) -> None:
        first.write_bytes(first.read_bytes()[:-9])

    with pytest.raises(S4GError) as error:
        make(ground(), tmp_path, advance=damage)
    assert str(error.value) == (
        f"{first}: was damaged since it was written; run the same command again, which makes it "
        "anew"
    )


# Packs with other imagery: hashes right, the rest in question.


def pack_with(
    base: Path, path: Path, region: BBox, record: ImageryRecord | None, archive: bytes | None
) -> Path:
    """Write a pack of a region with some imagery, and everything else of another pack."""
    with open_pack(base) as pack:
        names = [name for name in pack.container.names if name != "imagery"]
        sections = {name: bytes(pack.container.section(name)) for name in names}
        manifest = dataclasses.replace(pack.manifest, bounds=region, imagery=record)
    if archive is not None:
        sections["imagery"] = archive
    write_pack(path, manifest, sections, overwrite=True)
    return path


def changed(base: Path, path: Path, change: Callable[[dict[str, Any]], None], data: bytes) -> Path:
    """Write a pack with another manifest and section, unchecked; its hashes are right."""
    with closing(open_container(base)) as container:
        manifest = copy.deepcopy(container.manifest)
        sections = {name: bytes(container.section(name)) for name in container.names}
    change(manifest)
    path.write_bytes(b"".join(encode_container(manifest, {**sections, "imagery": data})))
    return path


def use(path: Path) -> None:
    """Verify a pack; it must hold or be refused in one line."""
    tracemalloc.start()
    try:
        with open_pack(path) as pack:
            pack.verify()
    except InputError as error:
        check_message(path, error)
        raise
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < LIMIT_BYTES


def use_unverified(path: Path) -> None:
    """Read and cut it as nobody should, without looking at all of it first."""
    tracemalloc.start()
    try:
        with open_pack(path) as pack:
            imagery = pack.imagery()
            if imagery is not None:
                with closing(imagery):
                    for gsd_m in (0.5, 2.0):
                        imagery.read(pack.frame, GroundWindow(-60.0, 60.0, gsd_m, 100, 100))
                cut_imagery(pack, pack.bounds, path.with_suffix(".cut"))
    except InputError as error:
        check_message(path, error)
        raise
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < LIMIT_BYTES


def check_message(path: Path, error: InputError) -> None:
    assert str(error).startswith(f"{path}: ")
    assert len(str(error).splitlines()) == 1 and str(error).isprintable()


def same(manifest: dict[str, Any]) -> None:
    """Change nothing."""


def refusal(path: Path) -> str:
    with pytest.raises(IntegrityError) as error:
        use(path)
    begin = f"{path}: damaged or altered: "
    assert str(error.value).startswith(begin) and str(error.value).endswith(REMEDY)
    return str(error.value)[len(begin) : -len(REMEDY)]


def test_the_section_is_verified_before_it_is_used(built: Built, tmp_path: Path) -> None:
    data = bytearray(built.path.read_bytes())
    archive = section(built.path)
    at = bytes(data).index(archive)
    for offset in (9, 200, len(archive) - 3):
        altered = bytearray(data)
        altered[at + offset] ^= 1
        path = tmp_path / "p.s4gpack"
        path.write_bytes(altered)
        with open_pack(path) as pack:
            queries = np.ones((1, pack.spec.embedding_dim), np.float32)
            assert pack.search(queries, 0, 1)[0].shape == (1, 1), "what is not altered serves"
            for call in (pack.imagery, pack.verify, pack.imagery):
                with pytest.raises(IntegrityError) as error:
                    call()
                assert str(error.value) == (
                    f"{path}: damaged or altered: section imagery does not match its SHA-256"
                    + REMEDY
                )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda m: m["imagery"].update(min_zoom=15),
            "section imagery has other zooms or tiles than its manifest says",
        ),
        (
            lambda m: m["imagery"].update(max_zoom=19),
            "section imagery has other zooms or tiles than its manifest says",
        ),
        (
            lambda m: m["imagery"].update(tiles=m["imagery"]["tiles"] + 1),
            "section imagery has other zooms or tiles than its manifest says",
        ),
        (
            lambda m: m["bounds"].update(west=m["bounds"]["west"] - 1e-5),
            "section imagery has other bounds than its manifest says",
        ),
        (
            lambda m: m["imagery"].update(quality=0),
            "its manifest entry imagery.quality is out of range",
        ),
        (
            lambda m: m["imagery"].update(min_zoom=19),
            "its manifest entry imagery.max_zoom is out of range",
        ),
        (
            lambda m: m["imagery"].update(max_zoom=31),
            "its manifest entry imagery.max_zoom is out of range",
        ),
        (
            lambda m: m["imagery"].update(tiles=(1 << 26) + 1),
            "its manifest entry imagery.tiles is out of range",
        ),
        (
            lambda m: m["imagery"].update(gsd_m=0),
            "its manifest entry imagery.gsd_m is 0, out of range",
        ),
        (
            lambda m: m.pop("imagery"),
            "its manifest entry imagery is missing or of a wrong type",
        ),
        (
            lambda m: m.update(imagery=[]),
            "its manifest entry imagery is missing or of a wrong type",
        ),
    ],
)
def test_record_and_section_must_fit(
    built: Built, tmp_path: Path, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    path = changed(built.path, tmp_path / "p.s4gpack", change, section(built.path))
    assert refusal(path) == reason
    with pytest.raises(IntegrityError, match=reason), open_pack(path) as pack:
        pack.imagery()


def test_a_missing_section_is_found_when_the_pack_is_opened(built: Built, tmp_path: Path) -> None:
    with closing(open_container(built.path)) as container:
        names = [name for name in container.names if name != "imagery"]
        sections = {name: bytes(container.section(name)) for name in names}
        data = b"".join(encode_container(container.manifest, sections))
    path = tmp_path / "p.s4gpack"
    path.write_bytes(data)
    with pytest.raises(IntegrityError) as error:
        open_pack(path)
    assert str(error.value) == f"{path}: damaged or altered: section imagery is missing{REMEDY}"


def test_a_section_that_the_manifest_does_not_name_is_passed_over(
    built: Built, tmp_path: Path
) -> None:
    path = tmp_path / "p.s4gpack"
    changed(built.path, path, lambda m: m.update(imagery=None), b"anything")
    use(path)
    with open_pack(path) as pack:
        assert pack.imagery() is None


def with_header(archive: bytes, **fields: Any) -> bytes:
    header: Any = deserialize_header(archive)
    return bytes(official_header({**header, **fields})) + archive[127:]


def header_of(archive: bytes) -> dict[str, Any]:
    found: Any = deserialize_header(archive)
    return dict(found)


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (lambda a: a[:100], "section imagery has 100 bytes, the header alone 127"),
        (lambda a: b"", "section imagery has 0 bytes, the header alone 127"),
        (lambda a: b"pmtiles" + a[7:], "section imagery is no PMTiles archive of version 3"),
        (lambda a: a[:7] + b"\x04" + a[8:], "section imagery is no PMTiles archive of version 3"),
        (
            lambda a: a[:96] + b"\x00" + a[97:],
            "section imagery holds no WebP tiles along the Hilbert curve",
        ),
        (
            lambda a: a[:98] + b"\x02" + a[99:],
            "section imagery holds no WebP tiles along the Hilbert curve",
        ),
        (
            lambda a: a[:99] + b"\x02" + a[100:],
            "section imagery holds no WebP tiles along the Hilbert curve",
        ),
        (
            lambda a: with_header(a, root_offset=128),
            "section imagery has parts that do not follow each other",
        ),
        (
            lambda a: with_header(a, tile_data_length=header_of(a)["tile_data_length"] - 1),
            None,
        ),
        (lambda a: a + b"\x00", None),
        (
            lambda a: with_header(a, tile_entries_count=1),
            "section imagery has more tiles than its header says",
        ),
        (
            lambda a: with_header(a, tile_entries_count=header_of(a)["tile_entries_count"] + 1),
            "section imagery has other numbers of tiles than its header says",
        ),
        (
            lambda a: with_header(a, tile_contents_count=header_of(a)["tile_contents_count"] + 1),
            "section imagery has other numbers of tiles than its header says",
        ),
    ],
)
def test_an_archive_whose_header_is_wrong_is_refused(
    built: Built, tmp_path: Path, alter: Callable[[bytes], bytes], reason: str | None
) -> None:
    archive = section(built.path)
    altered = alter(archive)
    path = changed(built.path, tmp_path / "p.s4gpack", same, altered)
    size = len(archive) - (1 if len(altered) == len(archive) else 0)
    assert refusal(path) == (
        reason or f"section imagery has {len(altered)} bytes, its header says {size}"
    )


Rows = list[list[int]]  # number, run, offset, length


def data_of(archive: bytes) -> bytes:
    return archive[header_of(archive)["tile_data_offset"] :]


def rows_of(archive: bytes) -> Rows:
    header = header_of(archive)
    root = deserialize_directory(archive[127 : 127 + header["root_length"]])
    return [[e.tile_id, e.run_length, e.offset, e.length] for e in root]


def directory_of(rows: Rows) -> bytes:
    return bytes(serialize_directory([Entry(n, at, size, run) for n, run, at, size in rows]))


def with_root(archive: bytes, root: bytes, leaves: bytes = b"", **fields: Any) -> bytes:
    """Replace an archive's directories; the parts follow each other as they should."""
    header = header_of(archive)
    metadata = archive[header["metadata_offset"] :][: header["metadata_length"]]
    data = fields.pop("data", data_of(archive))
    at = {"root": root, "metadata": metadata, "leaf_directory": leaves, "tile_data": data}
    offset = 127
    for name, part in at.items():
        fields |= {f"{name}_offset": offset, f"{name}_length": len(part)}
        offset += len(part)
    return with_header(archive, **fields)[:127] + root + metadata + leaves + data


def test_an_archive_with_leaf_directories_is_read(built: Built, tmp_path: Path) -> None:
    archive = section(built.path)
    rows = rows_of(archive)
    assert len(rows) > 8
    leaves = [directory_of(rows[:5]), directory_of(rows[5:])]
    root = directory_of([[rows[0][0], 0, 0, len(leaves[0])],
                         [rows[5][0], 0, len(leaves[0]), len(leaves[1])]])  # fmt: skip
    path = changed(
        built.path, tmp_path / "p.s4gpack", same, with_root(archive, root, b"".join(leaves))
    )
    use(path)
    use_unverified(path)


def test_directories_are_kept_in_bounded_memory(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = section(built.path)
    rows, wanted = rows_of(archive), tiles_of(archive)
    parts = [rows[at : at + 3] for at in range(0, len(rows), 3)]
    leaves = [directory_of(each) for each in parts]
    starts = np.cumsum([0, *map(len, leaves)]).tolist()
    root = directory_of(
        [[p[0][0], 0, at, len(d)] for p, d, at in zip(parts, leaves, starts, strict=False)]
    )
    monkeypatch.setattr(source_pmtiles, "_CACHED_ENTRIES", len(parts) + 4)
    data = memoryview(with_root(archive, root, b"".join(leaves)))
    with closing(source_pmtiles.PmtilesReader(data, "a")) as reader:
        for zxy in sorted(wanted):
            assert reader.tile(*zxy) == wanted[zxy]
            kept = list(reader._directories.values())
            assert sum(map(len, kept)) <= len(parts) + 4 and len(kept) > 1


def hostile_leaves(how: str) -> Callable[[bytes], bytes]:
    def alter(archive: bytes) -> bytes:
        rows = rows_of(archive)
        leaves = [directory_of(rows[:5]), directory_of(rows[5:])]
        places = [[rows[0][0], 0, 0, len(leaves[0])],
                  [rows[5][0], 0, len(leaves[0]), len(leaves[1])]]  # fmt: skip
        data = b"".join(leaves)
        if how == "gap":
            data = leaves[0] + b"\x00" + leaves[1]
            places[1][2] += 1
        elif how == "twice":
            places[1][2] = 1
        elif how == "rest":
            data += b"\x00"
        elif how == "mixed":
            places[0][1] = 1
        elif how == "number":
            places[1][0] -= 1
        elif how == "deep":
            deep = directory_of([[rows[5][0], 0, 0, len(leaves[0])]])
            data, places[1][3] = leaves[0] + deep, len(deep)
        elif how == "unused":
            return with_root(archive, directory_of(rows), data)
        elif how == "empty":
            empty = directory_of([])
            data, places[1][3] = leaves[0] + empty, len(empty)
        return with_root(archive, directory_of(places), data)

    return alter


def altered_rows(change: Callable[[Rows], object]) -> Callable[[bytes], bytes]:
    def alter(archive: bytes) -> bytes:
        rows = rows_of(archive)
        change(rows)
        return with_root(archive, directory_of(rows))

    return alter


def entry(number: int, column: int, value: int) -> Callable[[bytes], bytes]:
    def change(rows: Rows) -> None:
        rows[number][column] += value

    return altered_rows(change)


FOLLOW = "section imagery has leaf directories that do not follow each other"
NOWHERE = "section imagery has a tile where none can be"


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (hostile_leaves("gap"), FOLLOW),
        (hostile_leaves("twice"), FOLLOW),
        (hostile_leaves("rest"), FOLLOW),
        (hostile_leaves("mixed"), FOLLOW),
        (
            hostile_leaves("number"),
            "section imagery has a leaf directory that is not as the root says",
        ),
        (
            hostile_leaves("deep"),
            "section imagery has a leaf directory that is not as the root says",
        ),
        (hostile_leaves("unused"), "section imagery has leaf directories that nothing leads to"),
        (hostile_leaves("empty"), "section imagery has an empty directory"),
        (lambda a: with_root(a, directory_of([])), "section imagery has an empty directory"),
        (
            lambda a: with_root(a, b"nothing"),
            "section imagery: Error -3 while decompressing data: incorrect header check",
        ),
        (
            lambda a: with_root(a, gzip.compress(bytes(100 << 20))),
            "section imagery: not one gzip member of 4194304 bytes at most",
        ),
        (altered_rows(lambda rows: rows.pop(0)), None),
        (
            altered_rows(lambda rows: rows[0].__setitem__(0, first_id(16) - 1)),
            "section imagery has tiles that do not ascend",
        ),
        (entry(-1, 0, 1 << 40), "section imagery has tiles of other zooms than its manifest says"),
        (entry(0, 1, 1 << 30), "section imagery has more tiles than its header says"),
        (entry(1, 1, 1), "section imagery has more tiles than its header says"),
        (entry(3, 2, 1), NOWHERE),
        (entry(-1, 3, 1), NOWHERE),
        (
            lambda a: with_root(a, directory_of(rows_of(a)), data=data_of(a) + bytes(1)),
            "section imagery has other numbers of tiles than its header says",
        ),
        (altered_rows(lambda rows: rows[-1].__setitem__(3, 29)), NOWHERE),
        (entry(-1, 2, 1 << 50), NOWHERE),
    ],
)
def test_directories_that_cannot_be_are_refused(
    built: Built, tmp_path: Path, alter: Callable[[bytes], bytes], reason: str | None
) -> None:
    path = changed(built.path, tmp_path / "p.s4gpack", same, alter(section(built.path)))
    found = refusal(path)
    if reason is not None:
        assert found == reason


def test_a_run_over_other_tiles_is_refused(built: Built, tmp_path: Path) -> None:
    archive = section(built.path)
    rows = rows_of(archive)
    at = next(i for i in range(1, len(rows)) if rows[i][0] == rows[i - 1][0] + 1)
    rows[at - 1][1] += 1
    altered = with_root(
        archive, directory_of(rows), addressed_tiles_count=sum(row[1] for row in rows)
    )

    def more(manifest: dict[str, Any]) -> None:
        manifest["imagery"]["tiles"] += 1

    path = changed(built.path, tmp_path / "p.s4gpack", more, altered)
    assert refusal(path) == "section imagery has tiles that do not ascend"


def replaced(archive: bytes, picture: bytes) -> bytes:
    """The archive with another picture as its last tile."""
    rows = rows_of(archive)
    data = data_of(archive)[: rows[-1][2]] + picture
    rows[-1][3] = len(picture)
    return with_root(archive, directory_of(rows), data=data)


def picture(suffix: str, side_px: int = 256) -> bytes:
    return cv2.imencode(suffix, np.full((side_px, side_px, 3), 90, np.uint8))[1].tobytes()


@pytest.mark.parametrize(
    "tile",
    [
        picture(".webp", 512),
        picture(".png"),
        picture(".webp")[:-1],
        # A comment whose length reads as a RIFF file's, then the size of a JPEG.
        b"\xff\xd8\xff\xfe\0\4\0\0\xff\xc0\0\x11\x08\1\0\1\0\3" + bytes(2000),
        b"RIFF" + bytes(40),
        b"x",
        picture(".webp", 8000),
    ],
    ids=["large", "png", "torn", "jpeg", "empty", "short", "huge"],
)
def test_a_tile_that_is_no_webp_of_256_px_is_found_by_verify(
    built: Built, tmp_path: Path, tile: bytes
) -> None:
    archive = replaced(section(built.path), tile)
    number = rows_of(archive)[-1][0]
    path = changed(built.path, tmp_path / "p.s4gpack", same, archive)
    assert refusal(path).startswith(
        f"section imagery: tile number {number} is no WebP of 256 px"
        if len(tile) >= 30
        else NOWHERE
    )
    with suppress(IntegrityError):
        use_unverified(path)


def test_imagery_that_cannot_be_read_is_refused_before_it_is(built: Built, tmp_path: Path) -> None:
    archive = section(built.path)
    header = header_of(archive)
    junk = gzip.compress(b"{", mtime=0)
    start, end = header["metadata_offset"], header["leaf_directory_offset"]
    moved = {
        f"{part}_offset": header[f"{part}_offset"] + len(junk) - header["metadata_length"]
        for part in ("leaf_directory", "tile_data")
    }
    torn = with_header(archive, metadata_length=len(junk), **moved)[:start] + junk + archive[end:]
    reasons = {
        torn: "section imagery cannot be used: is damaged (metadata is no JSON)",
        replaced(archive, picture(".webp", 512)): (
            "section imagery has tiles of 512 px, expected 256"
        ),
    }
    for altered, reason in reasons.items():
        path = changed(built.path, tmp_path / "p.s4gpack", same, altered)
        with open_pack(path) as pack, pytest.raises(IntegrityError) as error:
            pack.imagery()
        assert str(error.value) == f"{path}: damaged or altered: {reason}{REMEDY}"
        refusal(path)


def test_many_tiles_of_few_pictures_are_refused_before_memory_is_taken(
    built: Built, tmp_path: Path
) -> None:
    """A run of a zoom's 67 million tiles takes some bytes in the file."""
    archive, run = section(built.path), 1 << 26
    rows = [[(run - 1) // 3, run, 0, rows_of(archive)[0][3]]]
    hostile = with_root(
        archive,
        directory_of(rows),
        data=data_of(archive)[: rows[0][3]],
        addressed_tiles_count=run,
        tile_entries_count=1,
        tile_contents_count=1,
        min_zoom=13,
        max_zoom=13,
    )

    def change(manifest: dict[str, Any]) -> None:
        manifest["imagery"] |= {"tiles": run, "min_zoom": 13, "max_zoom": 13}

    path = changed(built.path, tmp_path / "p.s4gpack", change, hostile)
    assert refusal(path) == f"section imagery has {run} tiles of only 1 pictures"
    with pytest.raises(IntegrityError, match="tiles of only 1 pictures"):
        use_unverified(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_archive_is_refused_or_survived(
    built: Built, tmp_path: Path, data: st.DataObject
) -> None:
    archive = section(built.path)
    how = data.draw(st.sampled_from(["bytes", "header", "rows", "root", "cut"]))
    if how in ("bytes", "header"):
        altered = bytearray(archive)
        end = 126 if how == "header" else len(archive) - 1
        for _ in range(data.draw(st.integers(1, 4))):
            altered[data.draw(st.integers(0, end))] = data.draw(st.integers(0, 255))
        archive = bytes(altered)
    elif how == "rows":
        rows = rows_of(archive)
        values = st.one_of(st.integers(0, 5), st.sampled_from([1 << 20, 1 << 31, 1 << 40, 1 << 61]))
        for _ in range(data.draw(st.integers(1, 3))):
            row = data.draw(st.sampled_from(rows))
            row[data.draw(st.integers(0, 3))] = data.draw(values)
        rows.sort()
        archive = with_root(archive, directory_of(rows))
    elif how == "root":
        archive = with_root(archive, gzip.compress(data.draw(st.binary(max_size=60))))
    else:
        archive = archive[: data.draw(st.integers(0, len(archive) - 1))]
    path = changed(built.path, tmp_path / "p.s4gpack", same, archive)
    for run in (use, use_unverified):
        try:
            run(path)
        except IntegrityError:
            continue


VALUES = st.one_of(
    st.integers(-3, 40),
    st.sampled_from([2**31, 2**63, 10**400, None, True, [], {}, "15", 0.5, -1e300]),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_record_is_refused_or_survived(
    built: Built, tmp_path: Path, data: st.DataObject
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        keys = st.sampled_from(sorted(manifest["imagery"]))
        for _ in range(data.draw(st.integers(1, 2))):
            manifest["imagery"][data.draw(keys)] = data.draw(VALUES)

    path = changed(built.path, tmp_path / "p.s4gpack", change, section(built.path))
    for run in (use, use_unverified):
        try:
            run(path)
        except IntegrityError:
            continue


# Cut and merged.


@dataclasses.dataclass(frozen=True)
class Scene:
    """A pack of 400 x 320 m with a hole, in zooms 16 to 18."""

    path: Path
    region: BBox
    record: ImageryRecord
    archive: bytes


@pytest.fixture(scope="module")
def scene(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("scene")
    plan = plan_of(HERE, 400, 320, 0.4)
    source = ground(hole=True)
    source.valid[500:, :350] = False  # whole tiles too
    source.rgb[:480, :760] = 77  # of one colour: several tiles alike
    record, archive = make(source, folder / "work", plan)
    assert max(run for _, run, _, _ in rows_of(archive)) > 1
    path = pack_with(built.path, folder / "scene.s4gpack", plan.region, record, archive)
    return Scene(path, plan.region, record, archive)


def part(box: BBox, west: float, east: float, south: float = 0.0, north: float = 1.0) -> BBox:
    """A part of a box, given as shares of its sides."""
    width, height = box.east - box.west, box.north - box.south
    return BBox(
        box.west + west * width,
        box.south + south * height,
        box.west + east * width,
        box.south + north * height,
    )


def cut(scene: Scene, box: BBox, path: Path) -> Path:
    """Write the imagery of a part as a pack."""
    with open_pack(scene.path) as pack:
        made = cut_imagery(pack, box, path.with_suffix(".cut"))
        assert made is not None
        return pack_with(scene.path, path, box, made[0], bytes(made[1]))


def merged(
    paths: list[Path], bounds: BBox, path: Path
) -> tuple[tuple[ImageryRecord, bytes] | None, list[str]]:
    with ExitStack() as stack:
        packs = [stack.enter_context(open_pack(each)) for each in paths]
        made, notes = merge_imagery(packs, bounds, path)
        return (None if made is None else (made[0], bytes(made[1]))), notes


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_what_is_cut_anywhere_and_merged_is_the_archive_byte_for_byte(
    scene: Scene, tmp_path: Path, data: st.DataObject
) -> None:
    shares = st.floats(0.2, 0.8)
    x, y = data.draw(shares), data.draw(shares)
    over = data.draw(st.sampled_from([0.0, 0.01, 0.19]))
    quarters = [(0.0, x, 0.0, y), (x - over, 1.0, 0.0, y), (0.0, x, y - over, 1.0),
                (x, 1.0, y, 1.0)]  # fmt: skip
    paths = []
    for i in data.draw(st.permutations(range(4))):
        box, path = part(scene.region, *quarters[i]), tmp_path / f"{i}.s4gpack"
        with open_pack(scene.path) as pack:
            found = cut_imagery(pack, box, path.with_suffix(".cut"))
        if found is not None:  # in the south-west there may be none
            paths.append(pack_with(scene.path, path, box, found[0], bytes(found[1])))
    assert len(paths) > 2
    made, notes = merged(paths, scene.region, tmp_path / "merged")
    assert notes == []
    assert made == (scene.record, scene.archive)


def test_all_of_it_cut_is_the_archive_byte_for_byte(scene: Scene, tmp_path: Path) -> None:
    assert section(cut(scene, scene.region, tmp_path / "p.s4gpack")) == scene.archive


def test_a_cut_keeps_the_tiles_that_its_box_touches(scene: Scene, tmp_path: Path) -> None:
    box = part(scene.region, 0.3, 0.62, 0.35, 0.9)
    path = cut(scene, box, tmp_path / "p.s4gpack")
    whole, found = tiles_of(scene.archive), tiles_of(section(path))
    x0, y0, x1, y1 = tile_range(box, 18)
    touched = {zxy for zxy in whole if zxy[0] == 18 and x0 <= zxy[1] < x1 and y0 <= zxy[2] < y1}
    assert {zxy for zxy in found if zxy[0] == 18} == touched
    assert all(found[zxy] == whole[zxy] for zxy in touched)
    with open_pack(path) as pack:
        record = pack.manifest.imagery
        assert record is not None
        assert record.min_zoom == coarsest_zoom(box, 18)
        assert record == dataclasses.replace(
            scene.record, min_zoom=record.min_zoom, tiles=len(found)
        )
    for zxy in found.keys() - touched:
        assert found[zxy] == mean_of_four(found, *zxy)


def test_a_cut_without_imagery_has_none(scene: Scene, toy_pack: Path, tmp_path: Path) -> None:
    with open_pack(scene.path) as pack:
        assert cut_imagery(pack, part(scene.region, 0.0, 0.1, 0.0, 0.1), tmp_path / "cut") is None
    with open_pack(toy_pack) as pack:
        assert cut_imagery(pack, pack.bounds, tmp_path / "cut") is None
        assert merge_imagery([pack, pack], pack.bounds, tmp_path / "cut") == (None, [])


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often a tile is encoded."""
    calls: list[int] = []
    real = imagery_tiles.encode_tile

    def count(*given: Any) -> bytes | None:
        calls.append(1)
        return real(*given)

    monkeypatch.setattr(imagery_tiles, "encode_tile", count)
    return calls


def test_nothing_is_encoded_again_but_what_lies_above_a_cut_or_a_seam(
    scene: Scene, tmp_path: Path, encoded: list[int]
) -> None:
    calls = encoded
    x0, _, x1, _ = tile_range(scene.region, 18)
    middle = (x0 // 2 + 1) * 2  # an edge of zoom 17, too
    assert x0 < middle < x1
    edge = tiles_bounds(18, middle, 0, middle + 1, 1).west
    box = dataclasses.replace(scene.region, east=edge)
    west = cut(scene, box, tmp_path / "w.s4gpack")
    found = tiles_of(section(west))
    whole = tiles_of(scene.archive)
    anew = {zxy for zxy, data in found.items() if data != whole.get(zxy)}
    assert len(calls) == len(anew) <= 18 - scene.record.min_zoom
    east = cut(scene, dataclasses.replace(scene.region, west=edge), tmp_path / "e.s4gpack")
    calls.clear()
    made, _ = merged([west, east], scene.region, tmp_path / "merged")
    assert made == (scene.record, scene.archive)
    seam = [zxy for zxy in whole if zxy[0] < 17]
    assert len(calls) <= len(seam), "of zoom 18 and 17 none"
    calls.clear()
    assert section(cut(scene, scene.region, tmp_path / "p.s4gpack")) == scene.archive
    merged([scene.path, scene.path], scene.region, tmp_path / "merged")
    assert calls == []


def other_pack(built: Built, folder: Path, gsd_m: float, **given: Any) -> Path:
    """A pack of the same region whose finest level has pixels of another size."""
    plan = plan_of(HERE, 400, 320, gsd_m)
    source = ground(**given)
    record, archive = make(source, folder / f"work{gsd_m}", plan)
    return pack_with(built.path, folder / f"{gsd_m}.s4gpack", plan.region, record, archive)


def test_packs_of_different_zooms_are_merged_at_the_one_they_share(
    built: Built, scene: Scene, tmp_path: Path
) -> None:
    coarse = other_pack(built, tmp_path, 0.8)
    made, notes = merged([scene.path, coarse], scene.region, tmp_path / "merged")
    assert notes == [f"{scene.path} has imagery of zoom 18, the merged one ends at 17"]
    assert made is not None
    record, archive = made
    assert (record.min_zoom, record.max_zoom) == (scene.record.min_zoom, 17)
    found, fine, rest = tiles_of(archive), tiles_of(scene.archive), tiles_of(section(coarse))
    assert record.tiles == len(found) and max(zoom for zoom, _, _ in found) == 17
    for zxy, data in found.items():
        if zxy[0] < 17:
            assert data == mean_of_four(found, *zxy)
        elif zxy not in fine:
            assert data == rest[zxy]
        elif decoded(fine[zxy])[..., 3].all():
            assert data == fine[zxy], "the first is on top"
        elif decoded(rest[zxy])[..., 3].all():
            assert data == rest[zxy], "the one without holes is taken as it is"
    path = pack_with(scene.path, tmp_path / "p.s4gpack", scene.region, record, archive)
    with open_pack(path) as pack, closing(imagery_of(pack)) as imagery:
        window = GroundWindow(-150.0, 120.0, 0.8, 375, 300)
        image = imagery.read(HERE, window)
        assert image.valid.mean() > 0.999, "the hole is filled by the other"


def test_packs_whose_zooms_have_nothing_in_common_lose_their_imagery(
    built: Built, scene: Scene, tmp_path: Path
) -> None:
    coarse = other_pack(built, tmp_path, 3.3)
    with open_pack(coarse) as pack:
        assert pack.manifest.imagery is not None
        assert pack.manifest.imagery.max_zoom < scene.record.min_zoom
    assert merged([scene.path, coarse], scene.region, tmp_path / "merged") == (
        None,
        ["the imagery of the packs has no zoom in common: the merged one has none"],
    )


def test_a_merged_record_is_as_good_as_the_worst(
    built: Built, scene: Scene, tmp_path: Path
) -> None:
    path = pack_with(
        built.path,
        tmp_path / "p.s4gpack",
        scene.region,
        dataclasses.replace(scene.record, gsd_m=0.7, quality=30),
        scene.archive,
    )
    for order in ([scene.path, path], [path, scene.path]):
        made, notes = merged(order, scene.region, tmp_path / "merged")
        assert made is not None and notes == []
        assert made[0] == dataclasses.replace(scene.record, gsd_m=0.7, quality=30)
        assert made[1] == scene.archive


def test_where_packs_overlap_the_first_is_on_top_and_its_holes_are_filled() -> None:
    left = np.zeros((256, 256), np.bool_)
    left[:, :128] = True
    first = encode_tile(np.full((256, 256, 3), 60, np.uint8), left, 90)
    right = np.roll(left, 64, axis=1)  # half of it under the first
    second = encode_tile(np.full((256, 256, 3), 190, np.uint8), right, 90)
    whole = encode_tile(np.full((256, 256, 3), 120, np.uint8), np.ones_like(left), 90)
    assert first is not None and second is not None and whole is not None
    made = merged_tile([first, second], "a", 90)
    assert made is not None
    tile = decoded(made)
    assert (tile[..., 3] == 255 * (left | right)).all()
    assert np.abs(tile[:, :120, :3].astype(int) - 60).max() < 8
    assert np.abs(tile[:, 136:190, :3].astype(int) - 190).max() < 8
    assert merged_tile([first, first], "a", 90) == first
    assert merged_tile([first, whole], "a", 90) == whole
    assert merged_tile([whole, first], "a", 90) == whole


def test_a_damaged_pack_is_named_when_it_is_cut_or_merged(
    built: Built, scene: Scene, tmp_path: Path
) -> None:
    altered = altered_rows(lambda rows: rows.pop())(scene.archive)
    path = changed(scene.path, tmp_path / "p.s4gpack", same, altered)
    wanted = (
        f"{path}: damaged or altered: section imagery has other numbers of tiles than its header "
        "says" + REMEDY
    )
    with open_pack(path) as pack, open_pack(scene.path) as good:
        with pytest.raises(IntegrityError) as error:
            cut_imagery(pack, pack.bounds, tmp_path / "cut")
        assert str(error.value) == wanted
        with pytest.raises(IntegrityError) as error:
            merge_imagery([good, pack], pack.bounds, tmp_path / "cut")
        assert str(error.value) == wanted
    assert not (tmp_path / "cut").exists()


def test_the_credits_of_all_packs_are_in_the_merged_archive(
    built: Built, scene: Scene, toy_pack: Path, tmp_path: Path
) -> None:
    with open_pack(scene.path) as pack, open_pack(toy_pack) as bare:
        made, notes = merge_imagery([pack, bare], scene.region, tmp_path / "merged")
        assert notes == [f"{toy_pack} has no imagery: its part of the merged one is a hole"]
        assert made is not None
        assert Reader(MemorySource(bytes(made[1]))).metadata()["attribution"] == (
            "Survey &amp; Sons &lt;2024&gt;; toy imagery, public domain"
        )
