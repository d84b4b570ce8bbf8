"""The map's ground: tiles as they lie in a pack, or cut from its picture of the region."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from s4g.core.engine import load_engine
from s4g.core.images import decode_rgb
from s4g.core.sources import open_ground
from s4g.core.tile_image import decode_tile
from s4g.core.tile_pyramid import PyramidGround, tile_range
from s4g.runtime import view_tiles
from s4g.runtime.view_tiles import MapTiles, Zooms
from s4g.tilepacks.build import build_pack
from s4g.tilepacks.imagery_tiles import read_tiles
from s4g.tilepacks.options import BuildOptions
from s4g.tilepacks.plan import plan_pack
from s4g.tilepacks.reader import Pack, open_pack

Build = Callable[..., Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory, toy_encoder: Path, toy_source: Path) -> Build:
    def make(**options: object) -> Path:
        ground, engine = open_ground(str(toy_source)), load_engine(toy_encoder, "cpu", 1)
        path = tmp_path_factory.mktemp("pack") / "toy.s4gpack"
        plan = plan_pack(ground, engine.spec, levels_m=(48.0,))
        build_pack([ground], engine, plan, path, BuildOptions(**options))  # type: ignore[arg-type]
        ground.close()
        return path

    return make


@pytest.fixture(scope="module")
def with_imagery(build: Build) -> Path:
    return build(imagery_quality=90)


def all_tiles(pack: Pack, zoom: int) -> list[tuple[int, int]]:
    left, top, right, bottom = tile_range(pack.bounds, zoom)
    return [(x, y) for x in range(left, right) for y in range(top, bottom)]


def test_imagery_is_served_byte_for_byte(with_imagery: Path) -> None:
    with open_pack(with_imagery) as pack:
        tiles, imagery = MapTiles(pack), pack.imagery()
        assert isinstance(imagery, PyramidGround)
        record = pack.manifest.imagery
        assert record is not None
        assert tiles.zooms == Zooms(record.min_zoom, record.max_zoom)
        served = 0
        for zoom in range(record.min_zoom, record.max_zoom + 1):
            for x, y in all_tiles(pack, zoom):
                data = tiles.tile(zoom, x, y)
                assert data == imagery.tile(zoom, x, y)
                served += data is not None
        assert served == record.tiles
        tiles.close()
        imagery.close()


def test_pixels_of_a_tile_are_those_of_the_ground_it_shows(with_imagery: Path) -> None:
    with open_pack(with_imagery) as pack:
        tiles, imagery = MapTiles(pack), pack.imagery()
        assert tiles.zooms is not None and imagery is not None
        zoom = tiles.zooms.high
        x, y = max(all_tiles(pack, zoom), key=lambda at: len(tiles.tile(zoom, *at) or b""))
        data = tiles.tile(zoom, x, y)
        assert data is not None
        shown = decode_tile(data, "tile", 256)
        ground = read_tiles(imagery, pack.frame, zoom, range(x, x + 1), range(y, y + 1))
        both = (shown[..., 3] > 0) & ground.valid
        apart = np.abs(shown[..., :3].astype(int) - ground.rgb)[both]
        assert both.sum() > 10_000
        assert np.median(apart) <= 3  # it was warped there and back
        tiles.close()
        imagery.close()


def test_a_pack_without_imagery_shows_its_picture_of_the_region(build: Build) -> None:
    with open_pack(build()) as pack:
        tiles, overview = MapTiles(pack), pack.overview()
        assert tiles.zooms is not None and overview is not None
        rgb, west_m, north_m, gsd_m = overview
        zoom = tiles.zooms.high
        compared = 0
        for x, y in all_tiles(pack, zoom):
            data = tiles.tile(zoom, x, y)
            if data is None:
                continue
            tile = decode_tile(data, "tile", 256)
            # The tile's middle, on Web Mercator, is this place on the picture.
            share_x, share_y = (x + 0.5) / 2**zoom, (y + 0.5) / 2**zoom
            lon = share_x * 360 - 180
            lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * share_y))))
            east, north = pack.frame.to_local(lat, lon)
            column, row = int((east - west_m) / gsd_m), int((north_m - north) / gsd_m)
            inside = 8 <= row < rgb.shape[0] - 8 and 8 <= column < rgb.shape[1] - 8
            if not inside:
                continue
            there = rgb[row - 4 : row + 4, column - 4 : column + 4].mean(axis=(0, 1))
            size = max(2, round(4 * gsd_m / _tile_gsd_m(float(lat), zoom)))
            here = tile[128 - size : 128 + size, 128 - size : 128 + size, :3].mean(axis=(0, 1))
            assert np.abs(there - here).max() < 25
            compared += 1
        assert compared > 0
        tiles.close()


def _tile_gsd_m(lat: float, zoom: int) -> float:
    from s4g.core.geo import mercator_gsd_m

    return mercator_gsd_m(lat, zoom)


def test_a_pack_without_any_picture_has_no_tiles(build: Build) -> None:
    with open_pack(build(overview=False)) as pack:
        tiles = MapTiles(pack)
        assert tiles.zooms is None
        assert tiles.tile(16, 0, 0) is None


@pytest.mark.parametrize(
    ("zoom", "x", "y"),
    [(99, 0, 0), (-1, 0, 0), (0, 0, 0), (16, 0, 0), (16, -1, 5), (16, 2**16, 5), (16, 5, 10**9)],
)
def test_beyond_the_region_there_is_nothing(with_imagery: Path, zoom: int, x: int, y: int) -> None:
    with open_pack(with_imagery) as pack:
        tiles = MapTiles(pack)
        assert tiles.tile(zoom, x, y) is None
        tiles.close()


def test_tiles_that_are_cut_are_kept_up_to_a_bound(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_pack(build()) as pack:
        tiles = MapTiles(pack)
        assert tiles.zooms is not None
        zoom = tiles.zooms.high
        places = all_tiles(pack, zoom)
        cut = []
        monkeypatch.setattr(
            view_tiles,
            "read_tiles",
            lambda *place: cut.append(place[2:]) or read_tiles(*place),
        )
        first = [tiles.tile(zoom, *place) for place in places]
        assert len(cut) == len(places)
        assert [tiles.tile(zoom, *place) for place in places] == first
        assert len(cut) == len(places)
        monkeypatch.setattr(view_tiles, "_MOST_BYTES", max(len(t or b"") for t in first))
        tiles.tile(zoom - 1, *all_tiles(pack, zoom - 1)[0])
        assert tiles._kept_bytes <= view_tiles._MOST_BYTES
        tiles.close()


def test_imagery_that_was_changed_in_flight_is_told_once_and_shown_no_more(
    with_imagery: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "changed.s4gpack"
    path.write_bytes(with_imagery.read_bytes())
    with open_pack(path) as pack:
        tiles = MapTiles(pack)
        assert tiles.zooms is not None
        zoom = tiles.zooms.high
        place = next(at for at in all_tiles(pack, zoom) if tiles.tile(zoom, *at))
        path.write_bytes(b"\0" * 100)
        assert tiles.tile(zoom, *place) is None
        assert tiles.tile(zoom, *place) is None
        tiles.close()
    err = capfd.readouterr().err
    assert err.count("the map shows no imagery any more") == 1
    assert err.startswith(f"note: {path}")


def test_tiles_are_webp_that_browsers_decode(with_imagery: Path) -> None:
    with open_pack(with_imagery) as pack:
        tiles = MapTiles(pack)
        assert tiles.zooms is not None
        zoom = tiles.zooms.low
        found = [data for at in all_tiles(pack, zoom) if (data := tiles.tile(zoom, *at))]
        assert found
        assert all(data[8:12] == b"WEBP" for data in found)
        assert all(decode_rgb(data, "tile").shape == (256, 256, 3) for data in found)
        tiles.close()
