"""Tile pyramids as ground: zooms, holes, scales, threads, and tiles that cannot serve."""

from __future__ import annotations

import runpy
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import InputError, IntegrityError
from s4g.core.geo import BBox, LocalFrame, mercator_gsd_m
from s4g.core.ground import GroundImage, GroundWindow
from s4g.core.tile_pyramid import (
    PyramidGround,
    plain_attribution,
    pyramid_bounds,
    tile_range,
    tiles_bounds,
)

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_tiles.py"))))

X0, Y0, ZOOM = 34_406, 23_064, 16  # near 46.9 N, 9 E


class Tiles:
    """Tiles in memory; counts how often each is asked for."""

    name, attribution = "tiles", "me"

    def __init__(
        self,
        tiles: dict[tuple[int, int, int], bytes],
        zooms: tuple[int, int] = (ZOOM, ZOOM),
        tile_px: int = 256,
    ) -> None:
        self.tiles, self.tile_px = tiles, tile_px
        self.min_zoom, self.max_zoom = zooms
        self.bounds = tiles_bounds(ZOOM, X0, Y0, X0 + 4, Y0 + 4)
        self.asked: Counter[tuple[int, int, int]] = Counter()
        self.closed = False
        self.takes_s = 0.0
        self._lock = threading.Lock()

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        with self._lock:
            self.asked[zoom, x, y] += 1
        time.sleep(self.takes_s)
        return self.tiles.get((zoom, x, y))

    def close(self) -> None:
        self.closed = True


def cut(
    image: npt.NDArray[np.uint8], side_px: int, zoom: int = ZOOM, x0: int = X0, y0: int = Y0
) -> dict[tuple[int, int, int], bytes]:
    """Cut (H, W, C) RGB(A) into tiles from column x0 and row y0."""
    code = cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    bgr = cv2.cvtColor(image, code)
    return {
        (zoom, x0 + column // side_px, y0 + row // side_px): cv2.imencode(
            ".png", bgr[row : row + side_px, column : column + side_px]
        )[1].tobytes()
        for row in range(0, image.shape[0], side_px)
        for column in range(0, image.shape[1], side_px)
    }


def ramp(side_px: int) -> npt.NDArray[np.uint8]:
    """Colours that say which pixel it is: red its column, green its row, in 5ths of a side."""
    rows, columns = np.indices((side_px, side_px)) * 200 / side_px
    return np.stack([columns, rows, np.full_like(rows, 90)], axis=-1).round().astype(np.uint8) + 20


def middle(ground: PyramidGround, gsd_m: float, side_px: int) -> tuple[LocalFrame, GroundWindow]:
    half = side_px * gsd_m / 2
    return LocalFrame(*ground.bounds.center), GroundWindow(-half, half, gsd_m, side_px, side_px)


def read(ground: PyramidGround, gsd_m: float, side_px: int) -> GroundImage:
    return ground.read(*middle(ground, gsd_m, side_px))


def test_the_interface_is_that_of_the_reader() -> None:
    tiles = Tiles(cut(ramp(1024), 256))
    ground = PyramidGround(tiles)
    assert (ground.name, ground.attribution, ground.bounds) == ("tiles", "me", tiles.bounds)
    assert ground.gsd_m == mercator_gsd_m(tiles.bounds.center[0], ZOOM)
    ground.close()
    assert tiles.closed


@pytest.mark.parametrize("gsd_m", [0.8, 1.6, 2.1, 3.3, 7.0])
def test_ground_lies_where_proj_says_at_every_scale(gsd_m: float) -> None:
    from pyproj import Transformer

    ground = PyramidGround(Tiles(cut(ramp(1024), 256)))
    frame = LocalFrame(ground.bounds.south - 0.1, ground.bounds.west - 0.2)
    east, north = (float(v) for v in frame.to_local(*ground.bounds.center))
    side_px = int(1000 / gsd_m)
    window = GroundWindow(east - 500, north + 500, gsd_m, side_px, side_px)
    image = ground.read(frame, window)
    assert image.valid.all()
    rows, columns = np.indices((side_px, side_px))
    lat, lon = frame.to_wgs84(
        window.west_m + (columns + 0.5) * gsd_m, window.north_m - (rows + 0.5) * gsd_m
    )
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True).transform(lon, lat)
    world_m = 2 * 20037508.342789244
    column = (x / world_m + 0.5) * (1 << ZOOM) - X0
    row = (0.5 - y / world_m) * (1 << ZOOM) - Y0
    # A fifth of a grey level is a pixel; colours are whole numbers.
    assert np.abs(image.rgb[..., 0] - 20 - column * 50).max() < 1.2
    assert np.abs(image.rgb[..., 1] - 20 - row * 50).max() < 1.2


def test_the_ground_is_drawn_alike_wherever_blocks_of_it_end() -> None:
    ground = PyramidGround(Tiles(cut(ramp(1024), 256)))
    frame, window = middle(ground, 1.0, 1100)
    whole = ground.read(frame, window)
    part = ground.read(
        frame, GroundWindow(window.west_m + 400, window.north_m - 450, 1.0, 300, 250)
    )
    assert np.abs(part.rgb.astype(int) - whole.rgb[450:700, 400:700]).max() <= 1


@pytest.mark.parametrize(("gsd_m", "zoom"), [(5.0, 14), (2.0, 15), (0.9, 16), (0.3, 16), (40, 14)])
def test_the_zoom_just_finer_than_the_window_is_read(gsd_m: float, zoom: int) -> None:
    tiles = Tiles({}, (14, 16), tile_px=512)  # 0.82 m at zoom 16
    read(PyramidGround(tiles), gsd_m, 32)
    assert {z for z, _, _ in tiles.asked} == {zoom}


def test_tiles_of_512_px_are_a_zoom_finer() -> None:
    small = PyramidGround(Tiles(cut(ramp(1024), 256)))
    large = PyramidGround(Tiles(cut(ramp(2048), 512), tile_px=512))
    assert large.gsd_m == small.gsd_m / 2
    seen, wanted = read(large, 1.0, 300), read(small, 1.0, 300)
    assert seen.valid.all()
    assert np.abs(seen.rgb.astype(int) - wanted.rgb).max() <= 1


@pytest.mark.parametrize("gsd_m", [2.6, 6.5, 13.0, 29.0])
def test_a_coarser_window_is_averaged(gsd_m: float) -> None:
    checkers = (np.indices((1024, 1024)).sum(axis=0) % 2 * 255).astype(np.uint8)
    image = read(PyramidGround(Tiles(cut(np.dstack([checkers] * 3), 256))), gsd_m, int(900 / gsd_m))
    assert image.valid.all()
    assert np.abs(image.rgb.astype(int) - 127).max() <= (40 if gsd_m < 3 else 2)


def test_a_window_coarser_than_a_tile_is_refused() -> None:
    with pytest.raises(InputError) as error:
        read(PyramidGround(Tiles({})), 1000, 2)
    assert str(error.value) == (
        "tiles: a window of 1000 m/px is too coarse for its coarsest zoom 16; "
        "ask for a finer window"
    )


def test_a_window_from_the_equator_to_a_pole_is_refused() -> None:
    ground = PyramidGround(Tiles({}, (7, 7)))
    with pytest.raises(InputError) as error:
        ground.read(LocalFrame(60, 0), GroundWindow(-6e5, 3e6, 2150, 560, 6200))
    assert str(error.value) == (
        "tiles: a window reaches too far towards a pole to be drawn at one zoom; "
        "ask for a smaller one"
    )


def test_no_tile_is_asked_for_that_the_window_does_not_touch() -> None:
    tiles = Tiles(cut(ramp(1024), 256))
    ground = PyramidGround(tiles)
    gsd_m = ground.gsd_m
    frame = LocalFrame(*tiles_bounds(ZOOM, X0, Y0, X0 + 1, Y0 + 1).center)
    ground.read(frame, GroundWindow(-120 * gsd_m, 120 * gsd_m, gsd_m, 240, 240))
    assert set(tiles.asked) == {(ZOOM, X0, Y0)}


@pytest.mark.parametrize("gsd_m", [1.0, 2.5, 8.0])
def test_a_missing_tile_is_a_hole_though_its_parent_is_there(gsd_m: float) -> None:
    tiles = cut(np.full((1024, 1024, 3), 200, np.uint8), 256)
    for place in [key for key in tiles if key[1] >= X0 + 2]:  # the east half
        del tiles[place]
    tiles |= cut(np.full((256, 256, 3), 99, np.uint8), 256, ZOOM - 3, X0 >> 3, Y0 >> 3)
    coarsest = ZOOM - 3 if gsd_m < 2 else ZOOM
    image = read(PyramidGround(Tiles(tiles, (coarsest, ZOOM))), gsd_m, int(400 / gsd_m))
    half = image.valid.shape[1] // 2
    assert image.valid[:, : half - 1].all() and not image.valid[:, half + 1 :].any()
    assert (image.rgb[~image.valid] == 0).all()
    assert np.abs(image.rgb[image.valid].astype(int) - 200).max() <= 1, "holes darken nothing"


def test_transparent_pixels_are_holes_and_do_not_darken_their_neighbours() -> None:
    picture = np.full((1024, 1024, 4), 180, np.uint8)
    picture[..., 3] = 255
    picture[:512, :, :] = (255, 0, 0, 0)  # the north half, of a colour that must not show
    for gsd_m in (0.7, 1.6, 3.1, 9.0):
        image = read(PyramidGround(Tiles(cut(picture, 256))), gsd_m, int(400 / gsd_m))
        half = image.valid.shape[0] // 2
        assert not image.valid[: half - 1].any() and image.valid[half + 1 :].all()
        assert not image.rgb[~image.valid].any()
        assert np.abs(image.rgb[image.valid].astype(int) - 180).max() <= 1


@pytest.mark.parametrize(
    ("west_m", "north_m"), [(1e5, 0), (-1e5, 0), (0, 4.3e6), (0, -1.2e7), (3e7, 0), (0, 5e7)]
)
def test_a_window_far_outside_is_all_invalid(west_m: float, north_m: float) -> None:
    ground = PyramidGround(Tiles(cut(ramp(1024), 256)))
    image = ground.read(
        LocalFrame(*ground.bounds.center), GroundWindow(west_m, north_m, 1.0, 16, 8)
    )
    assert image.rgb.shape == (8, 16, 3) and image.valid.shape == (8, 16)
    assert not image.valid.any() and not image.rgb.any()


def test_a_window_at_a_pole_is_all_invalid() -> None:
    ground = PyramidGround(Tiles(cut(ramp(1024), 256)))
    image = ground.read(LocalFrame(90, 0), GroundWindow(-8, 8, 1.0, 16, 16))
    assert not image.valid.any()


def test_a_window_over_the_antimeridian_ends_there() -> None:
    class East(Tiles):
        def __init__(self) -> None:
            last = (1 << 10) - 1
            super().__init__({(10, last, 512): toy.png(), (10, 0, 512): toy.png()}, (10, 10))
            self.bounds = tiles_bounds(10, last, 512, last + 1, 513)

    reader = East()
    frame = LocalFrame(-0.1, 180.0)
    image = PyramidGround(reader).read(frame, GroundWindow(-5000, 5000, 100, 100, 100))
    assert image.valid[:, :50].all() and not image.valid[:, 51:].any()
    assert set(reader.asked) == {(10, 1023, 512)}


def test_a_tile_is_decoded_once_while_it_is_needed() -> None:
    tiles = Tiles(cut(ramp(1024), 256))
    ground = PyramidGround(tiles)
    for _ in range(3):
        read(ground, 1.0, 400)
    assert set(tiles.asked.values()) == {1}


def test_the_cache_is_bounded() -> None:
    tiles = Tiles(cut(ramp(1024), 256))
    ground = PyramidGround(tiles, 600_000)  # two tiles of 262 kB
    image = [read(ground, 1.0, 400) for _ in range(2)]
    assert max(tiles.asked.values()) == 2
    assert (image[0].rgb == image[1].rgb).all()
    assert ground._cache_bytes <= 600_000 and len(ground._cache) == 2


def test_what_was_used_last_stays_longest() -> None:
    tiles = Tiles(cut(ramp(1024), 256))
    ground = PyramidGround(tiles, 600_000)
    for x in (0, 1, 0, 2, 0):
        ground._tile(ZOOM, X0 + x, Y0, 1)
    assert tiles.asked == {(ZOOM, X0 + x, Y0): 1 for x in range(3)}


def test_several_threads_see_what_one_sees_and_ask_for_each_tile_once() -> None:
    tiles = Tiles(cut(ramp(1024), 256))
    tiles.takes_s = 0.005  # long enough for all threads to want the same
    ground = PyramidGround(tiles)
    wanted = read(PyramidGround(Tiles(tiles.tiles)), 1.1, 500)
    with ThreadPoolExecutor(6) as pool:
        seen = list(pool.map(lambda _: read(ground, 1.1, 500), range(12)))
    assert all((image.rgb == wanted.rgb).all() and image.valid.all() for image in seen)
    assert set(tiles.asked.values()) == {1}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<html>no", "is no PNG, JPEG or WebP (begins '<html>no'); remove it or fetch it again"),
        (
            toy.png(side_px=512),
            "is 512x512 px, expected 256x256 px like the others; remove it or fetch it again",
        ),
    ],
)
def test_a_tile_that_cannot_serve_is_named(data: bytes, message: str) -> None:
    tiles = cut(ramp(1024), 256)
    tiles[ZOOM, X0 + 1, Y0 + 2] = data
    with pytest.raises(IntegrityError) as error:
        read(PyramidGround(Tiles(tiles)), 1.0, 400)
    assert str(error.value) == f"tiles: tile 16/{X0 + 1}/{Y0 + 2} {message}"


def test_bounds_over_the_antimeridian_are_refused() -> None:
    with pytest.raises(InputError) as error:
        pyramid_bounds("a", 179, 10, -179, 11)
    assert str(error.value) == (
        "a: its bounds cross the antimeridian (west 179, east -179); "
        "such imagery is not supported, cut it in two there"
    )


@pytest.mark.parametrize(("south", "north", "shown"), [(80, 86, 86), (-90, 10, -90)])
def test_bounds_beyond_web_mercator_are_refused(south: float, north: float, shown: int) -> None:
    with pytest.raises(InputError) as error:
        pyramid_bounds("a", 1, south, 2, north)
    assert str(error.value) == (
        f"a: its bounds reach latitude {shown}, but Web Mercator ends at 85.05 degrees; "
        "correct its bounds"
    )


@pytest.mark.parametrize("side", [float("nan"), float("inf"), 181.0])
def test_bounds_that_are_no_box_are_refused_with_the_name(side: float) -> None:
    with pytest.raises(InputError, match=r"^a: bbox .*") as error:
        pyramid_bounds("a", 1, 2, side, 4)
    assert "\n" not in str(error.value)


def test_bounds_rounded_outwards_are_trimmed() -> None:
    box = pyramid_bounds("a", -180, -85.0512, 180, 85.06)
    assert box.south == pytest.approx(-85.05112878) and box.north == pytest.approx(85.05112878)


@given(st.integers(0, 22), st.data())
def test_the_range_of_a_tile_is_that_tile(zoom: int, data: st.DataObject) -> None:
    number = st.integers(0, (1 << zoom) - 1)
    x, y = data.draw(number), data.draw(number)
    box = tiles_bounds(zoom, x, y, x + 1, y + 1)
    lat, lon = box.center
    assert tile_range(box, zoom) == (x, y, x + 1, y + 1)
    middle = BBox(lon, lat, lon + 1e-9, lat + 1e-9)
    assert tile_range(middle, zoom) == (x, y, x + 1, y + 1)


def test_a_sliver_at_the_edge_of_the_world_is_in_the_last_tile() -> None:
    assert tile_range(BBox(180 - 1e-12, -85.05112877, 180, -85.0511287), 3) == (7, 7, 8, 8)


@given(st.floats(-179, 178), st.floats(-84, 83), st.integers(0, 20))
def test_ranges_cover_their_box(west: float, south: float, zoom: int) -> None:
    box = BBox(west, south, west + 0.7, south + 0.3)
    cover = tiles_bounds(zoom, *tile_range(box, zoom))
    slack = 360 * 1e-6 / (1 << zoom)
    assert cover.west <= box.west + slack and cover.east >= box.east - slack
    assert cover.south <= box.south + slack and cover.north >= box.north - slack


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ('<a href="https://x.org">&copy; X</a>\n and  Y', "© X and Y"),
        ("plain", "plain"),
        ("\x1b[2Jred&#x202e;", "[2Jred"),
        (None, ""),
        (7, ""),
        ("a" * 600, "a" * 500),
    ],
)
def test_an_attribution_is_plain_text(text: object, plain: str) -> None:
    assert plain_attribution(text) == plain
