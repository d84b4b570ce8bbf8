from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from unittest.mock import patch

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from s4g.tilepacks import ambiguity
from s4g.tilepacks.ambiguity import Ambiguity, compare_tiles, find_ambiguity
from s4g.tilepacks.pictures import draw_ambiguity, draw_preview
from s4g.tilepacks.quantise import dequantise
from s4g.tilepacks.reader import Pack, open_pack
from s4g.tilepacks.variants import Variant

_HERE = Path(__file__)
toy = SimpleNamespace(**runpy.run_path(str(_HERE.with_name("toy_vectors.py"))))
land = SimpleNamespace(**runpy.run_path(str(_HERE.with_name("toy_map.py"))))

MARGIN_PX, LINE_PX = 16, 20
# What the legend of a map of two lines takes below it, with the margin.
BELOW_PX = LINE_PX * 3 + 16 + MARGIN_PX
Floats = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def pack(toy_pack: Path) -> Pack:
    return open_pack(toy_pack)


def codes_of(pack: Pack, level: int) -> Floats:
    """The codes of all tiles of a level, (N, D)."""
    search = pack.vectors(level)
    codes = search.codes if search.vector_of_tile is None else search.codes[search.vector_of_tile]
    return codes.astype(np.float64)


def cosines_of(pack: Pack, level: int) -> Floats:
    """The cosines of all pairs of tiles; those of equal pairs are equal to the bit."""
    codes = codes_of(pack, level)
    length = np.sqrt((codes * codes).sum(axis=1))
    return np.asarray((codes @ codes.T) / (length[:, None] * length))


def distances_of(pack: Pack, level: int) -> Floats:
    record = pack.levels[level]
    own = slice(record.first, record.first + record.count)
    east, north = pack.east_m[own], pack.north_m[own]
    return np.asarray(np.hypot(east[:, None] - east, north[:, None] - north))


def own_of(pack: Pack, level: int) -> Floats:
    """What frames may score by the module's text, tile by tile."""
    lattice = pack.manifest.levels[level].lattice
    cosine, variants = cosines_of(pack, level), pack.variants(level)
    step = max(1, round(lattice.footprint_m / 4 / lattice.stride_m))
    rows, columns = np.divmod(pack.cells(level).astype(int), lattice.columns)
    if step * lattice.stride_m >= lattice.footprint_m:
        return np.full(len(rows), np.nan)
    place = {key: i for i, key in enumerate(zip(rows, columns, variants, strict=True))}
    found = np.full(len(rows), np.nan)
    for i, (row, column, variant) in enumerate(zip(rows, columns, variants, strict=True)):
        keys = [(row + step, column), (row - step, column)]
        keys += [(row, column + step), (row, column - step)]
        near = [place[(*key, variant)] for key in keys if (*key, variant) in place]
        if near:
            found[i] = cosine[i, near].mean()
    if np.isfinite(found).any():
        found[np.isnan(found)] = np.median(found[np.isfinite(found)])
    return (1 + found) / 2


@pytest.mark.parametrize("level", [0, 1])
def test_the_rival_is_the_most_similar_tile_at_least_a_footprint_away(
    pack: Pack, level: int
) -> None:
    found, record = find_ambiguity(pack, level), pack.levels[level]
    own = np.arange(record.first, record.first + record.count)
    assert found.tiles.tolist() == own.tolist()
    vectors = dequantise(codes_of(pack, level).astype(np.int8))
    cosine, away = vectors @ vectors.T, distances_of(pack, level)
    cosine[away < record.footprint_m] = -1
    np.testing.assert_allclose(found.cosine, cosine.max(axis=1), atol=3e-5)
    row = np.arange(len(own))
    np.testing.assert_allclose(cosine[row, found.rival - record.first], found.cosine, atol=3e-5)
    np.testing.assert_allclose(found.away_m, away[row, found.rival - record.first], atol=1e-6)
    assert (found.away_m >= record.footprint_m).all()
    assert (found.east_m.tolist(), found.north_m.tolist()) == (
        pack.east_m[own].tolist(),
        pack.north_m[own].tolist(),
    )


@settings(max_examples=40)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 12),
    stride_px=st.sampled_from([8, 11, 16, 32, 48, 64]),
    kinds=st.integers(1, 3),
    different=st.sampled_from([3, 30, 400]),
    share=st.sampled_from([0.3, 0.8, 1.0]),
    blocks=st.sampled_from([(128, 4096), (5, 7)]),
    seed=st.integers(0, 999),
)
def test_everything_told_is_what_comparing_pair_by_pair_tells(
    rows: int,
    columns: int,
    stride_px: int,
    kinds: int,
    different: int,
    share: float,
    blocks: tuple[int, int],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    lattice = land.lattice_of(rows, columns, stride_px)
    first = land.tiles_of(land.lattice_of(4, 4), toy.unit(16, 8, seed))
    places = rng.permutation(lattice.count * kinds)[: max(1, int(lattice.count * kinds * share))]
    cells, variants = np.divmod(np.sort(places), kinds)
    vectors = toy.unit(different, 8, seed)[rng.integers(0, different, len(cells))]
    tiles = land.tiles_of(lattice, vectors, cells, variants)
    names = tuple(Variant(0, 90.0 * number) for number in range(kinds))
    with TemporaryDirectory() as folder:
        pack = land.write_map(Path(folder) / "p", [first, tiles], names)
        with pack, patch.multiple(ambiguity, _ROWS=blocks[0], _BLOCK=blocks[1]):
            found = find_ambiguity(pack, 1)
            cosine, away = cosines_of(pack, 1), distances_of(pack, 1)
            own = own_of(pack, 1)
    assert found.tiles.tolist() == list(range(16, 16 + len(cells)))
    cosine[away < 64.0 - 1e-6] = -np.inf
    # By rounding alone no other tile comes close: of equal ones the first is told.
    rival = (cosine > cosine.max(axis=1, keepdims=True) - 1e-12).argmax(axis=1)
    some = np.isfinite(cosine.max(axis=1))
    assert found.rival.tolist() == np.where(some, rival + 16, -1).tolist()
    assert (found.rival >= 0).tolist() == some.tolist()
    row = np.arange(len(cells))
    expected = np.where(some, cosine[row, rival], -1)
    np.testing.assert_allclose(found.cosine, expected, atol=1e-6)
    np.testing.assert_allclose(found.away_m, np.where(some, away[row, rival], np.inf), atol=1e-6)
    np.testing.assert_allclose(found.own, own, atol=1e-6)
    np.testing.assert_allclose(found.margin, own - expected, atol=2e-6)
    clear = ~(np.abs(own - expected) < 1e-5)
    assert found.hard[clear].tolist() == (own <= expected)[clear].tolist()


def line_of(folder: Path, vectors: Sequence[Sequence[float]], stride_px: int = 16) -> Pack:
    """A pack of one row of tiles of 64 m."""
    lattice = land.lattice_of(1, len(vectors), stride_px)
    opened: Pack = land.write_map(
        folder / "line.s4gpack", [land.tiles_of(lattice, np.array(vectors, np.float32))]
    )
    return opened


def test_a_tile_that_overlaps_is_no_rival_and_one_a_footprint_away_is(tmp_path: Path) -> None:
    a, b = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    with line_of(tmp_path, [a, b, b, a, a, b]) as pack:
        east = {int(v): i for i, v in enumerate(pack.east_m)}
        found = find_ambiguity(pack, 0)
        west = east[-40]
    assert found.rival[west] == east[24]
    assert (found.cosine[west], found.away_m[west]) == (1.0, 64.0)


def test_where_nothing_is_far_enough_there_is_no_rival(tmp_path: Path) -> None:
    with line_of(tmp_path, [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]) as pack:
        found = find_ambiguity(pack, 0)
    assert found.rival.tolist() == [-1, -1, -1]
    assert found.cosine.tolist() == [-1.0, -1.0, -1.0]
    assert found.away_m.tolist() == [np.inf] * 3
    assert not found.hard.any()


def test_a_frame_scores_half_way_between_its_tile_and_the_neighbours(tmp_path: Path) -> None:
    # Cosines of neighbours 0.6 and 0.8; the middle one has both.
    vectors = [[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 1.0, 0.0]]
    with line_of(tmp_path, vectors) as pack:
        found = find_ambiguity(pack, 0)
        order = np.argsort(pack.east_m)
    np.testing.assert_allclose(found.own[order], [0.8, 0.85, 0.9], atol=2e-3)


def test_the_neighbour_that_counts_is_a_quarter_footprint_away(tmp_path: Path) -> None:
    # Every 8 of 64 m: two columns are a quarter; the next column is another world.
    vectors = [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.0, 1.0]]
    with line_of(tmp_path, vectors, stride_px=8) as pack:
        found = find_ambiguity(pack, 0)
        order = np.argsort(pack.east_m)
    np.testing.assert_allclose(found.own[order], [0.8, 1.0, 0.8, 1.0], atol=2e-3)


def test_a_tile_on_its_own_changes_as_fast_as_others(tmp_path: Path) -> None:
    lattice = land.lattice_of(1, 9)
    vectors = np.array([[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]], np.float32)
    tiles = land.tiles_of(lattice, vectors, [0, 1, 8])
    with land.write_map(tmp_path / "p.s4gpack", [tiles]) as pack:
        found = find_ambiguity(pack, 0)
        alone = int(np.argmax(pack.east_m))
    np.testing.assert_allclose(found.own, 0.8, atol=2e-3)
    assert found.hard[alone]  # its twin is 128 m away


def test_of_tiles_that_do_not_overlap_nothing_is_called_hard(tmp_path: Path) -> None:
    with line_of(tmp_path, [[1.0, 0.0]] * 4, stride_px=64) as pack:
        found = find_ambiguity(pack, 0)
    assert found.cosine.tolist() == [1.0] * 4
    assert np.isnan(found.own).all() and np.isnan(found.margin).all()
    assert not found.hard.any()
    assert found.hardness.tolist() == [1.0] * 4


def test_hard_is_a_rival_as_like_the_tile_as_a_frame_may_be() -> None:
    own = np.array([0.8, 0.8, 0.8, np.nan], np.float32)
    cosine = np.array([0.8, 0.7, 0.9, 1.0], np.float32)
    tiles, metres = np.arange(4), np.arange(4.0)
    found = Ambiguity(tiles, metres, metres, cosine, tiles[::-1], metres, own)
    assert found.hard.tolist() == [True, False, True, False]
    np.testing.assert_allclose(found.margin, [0.0, 0.1, -0.1, np.nan], atol=1e-6)
    np.testing.assert_allclose(found.hardness, [0.0, -0.1, 0.1, 1.0], atol=1e-6)


def test_fewer_tiles_are_spread_evenly_and_compared_with_all(pack: Pack) -> None:
    whole, some = find_ambiguity(pack, 0), find_ambiguity(pack, 0, 10)
    assert len(some.tiles) == 10
    assert (some.tiles[0], some.tiles[-1]) == (whole.tiles[0], whole.tiles[-1])
    assert np.ptp(np.diff(some.tiles)) <= 1
    np.testing.assert_allclose(some.cosine, whole.cosine[some.tiles], atol=1e-6)
    np.testing.assert_allclose(some.own, whole.own[some.tiles], atol=1e-6)


def test_tiles_that_are_asked_for_are_compared(pack: Pack) -> None:
    whole, first = find_ambiguity(pack, 1), pack.levels[1].first
    some = compare_tiles(pack, 1, np.array([first + 2, first + 5]))
    for name in ("tiles", "east_m", "north_m", "cosine", "rival", "away_m", "own"):
        assert getattr(some, name).tolist() == getattr(whole, name)[[2, 5]].tolist()


def test_progress_ends_at_the_number_of_tiles(pack: Pack) -> None:
    done: list[int] = []
    find_ambiguity(pack, 0, advance=done.append)
    assert sum(done) == pack.levels[0].count


def picture(data: bytes) -> npt.NDArray[np.int64]:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return np.asarray(image, np.int64)


def region(
    folder: Path, rows: int = 12, columns: int = 12, grey: int | None = None, **given: object
) -> Pack:
    """A pack of tiles of 64 m every 16 m over a plain picture."""
    lattice = land.lattice_of(rows, columns)
    detail = given.pop("detail", None)
    tiles = land.tiles_of(lattice, toy.smooth(rows, columns), detail=detail)
    image = None
    if grey is not None:
        shape = (16 * (rows - 1) + 64, 16 * (columns - 1) + 64, 3)
        image = np.full(shape, grey, np.uint8)
    name = str(given.pop("name", f"p{grey}.s4gpack"))
    opened: Pack = land.write_map(folder / name, [tiles], picture=image, **given)
    return opened


def told(pack: Pack, margin: Sequence[float] | Floats) -> Ambiguity:
    """What a pack's first tiles are mistaken for, by how much is left."""
    left = np.asarray(margin, np.float32)
    own, record = np.full(len(left), 0.8, np.float32), pack.levels[0]
    tiles = np.arange(record.first, record.first + len(left))
    metres = np.full(len(left), 500.0)
    east, north = pack.east_m[tiles], pack.north_m[tiles]
    return Ambiguity(tiles, east, north, own - left, tiles[::-1], metres, own)


def pixel(pack: Pack, image: npt.NDArray[np.int64], east_m: float, north_m: float) -> list[int]:
    """The colour of a place of a map whose larger side has 1000 pixels."""
    west, south, east, north = pack.frame.local_bounds(pack.bounds)
    gsd = max(east - west, north - south) / 1000
    column, row = int((east_m - west) / gsd), int((north - north_m) / gsd)
    return [int(value) for value in image[MARGIN_PX + row, MARGIN_PX + column]]


def is_red(colour: Sequence[int]) -> bool:
    return colour[0] > colour[2] + 50 and colour[0] > colour[1] + 50


def is_blue(colour: Sequence[int]) -> bool:
    return colour[2] > colour[0] + 50


def test_ambiguous_ground_is_red_and_other_ground_blue(tmp_path: Path) -> None:
    with region(tmp_path) as pack:
        margin = np.where((pack.east_m < 0) & (pack.north_m > 0), -0.1, 0.4)
        image = picture(draw_ambiguity(pack, 0, told(pack, margin)))
        assert is_red(pixel(pack, image, -50.0, 50.0))
        for east, north in ((-50.0, -50.0), (50.0, 50.0), (50.0, -50.0)):
            assert is_blue(pixel(pack, image, east, north))
        edge = pixel(pack, image, -110.0, 110.0)  # no tile has its centre there
    assert max(edge) - min(edge) < 5


def test_what_is_hard_stands_out_from_what_nearly_is(tmp_path: Path) -> None:
    with region(tmp_path) as pack:
        margin = np.where(pack.east_m < 0, 0.0, 0.01)
        image = picture(draw_ambiguity(pack, 0, told(pack, margin)))
        hard, nearly = (pixel(pack, image, east, 0.0) for east in (-50.0, 50.0))
    assert is_red(hard) and not is_red(nearly)
    assert np.abs(np.subtract(hard, nearly)).max() > 60


def test_of_tiles_in_one_place_the_hardest_is_seen(tmp_path: Path) -> None:
    lattice, names = land.lattice_of(5, 5), (Variant(0, 0.0), Variant(0, 180.0))
    cells = np.repeat(np.arange(25), 2)
    tiles = land.tiles_of(lattice, toy.unit(50, 8), cells, np.tile([0, 1], 25))
    with land.write_map(tmp_path / "p.s4gpack", [tiles], names) as pack:
        for hard in (0, 1):
            margin = np.where(pack.variants(0) == hard, -0.1, 0.4)
            image = picture(draw_ambiguity(pack, 0, told(pack, margin)))
            assert is_red(pixel(pack, image, 1.0, 1.0))


def test_the_ground_is_seen_through_the_colours(tmp_path: Path) -> None:
    colours = {}
    for grey in (0, 255):
        with region(tmp_path, grey=grey) as pack:
            image = picture(draw_ambiguity(pack, 0, told(pack, np.full(144, 0.4))))
            colours[grey] = pixel(pack, image, 5.0, 5.0)
    # The ground is drawn half as strong, and a colour hides 0.6 of it.
    assert np.subtract(colours[255], colours[0]) == pytest.approx(0.4 * 127.5, abs=3)


def test_where_tiles_do_not_overlap_colours_tell_the_cosine(tmp_path: Path) -> None:
    lattice = land.lattice_of(6, 6, stride_px=64)
    tiles = land.tiles_of(lattice, toy.unit(36, 8))
    with land.write_map(tmp_path / "p.s4gpack", [tiles]) as pack:
        metres, cosine = np.full(36, 500.0), np.where(pack.east_m < 0, 0.9, 0.2)
        found = Ambiguity(
            np.arange(36), pack.east_m, pack.north_m, cosine.astype(np.float32),
            np.arange(36), metres, np.full(36, np.nan, np.float32),
        )  # fmt: skip
        image = picture(draw_ambiguity(pack, 0, found))
        assert is_red(pixel(pack, image, -100.0, 10.0))
        assert is_blue(pixel(pack, image, 100.0, 10.0))


def test_a_few_tiles_stand_for_the_ground_around_them(tmp_path: Path) -> None:
    with region(tmp_path) as pack:
        every, some = find_ambiguity(pack, 0), find_ambiguity(pack, 0, 9)
        plain, tinted = (picture(draw_ambiguity(pack, 0, found)) for found in (every, some))
        share = []
        for image in (plain, tinted):
            ground = image[MARGIN_PX:-BELOW_PX, MARGIN_PX:-MARGIN_PX]
            share.append(float((np.ptp(ground, axis=2) > 20).mean()))
    assert share[1] > 0.6 * share[0]


def test_a_preview_shows_where_there_is_nothing_to_see(tmp_path: Path) -> None:
    rows, columns = np.divmod(np.arange(144), 12)
    detail = np.where((rows < 6) & (columns < 6), 0, 128)
    with region(tmp_path, grey=100, detail=detail) as pack:
        image = picture(draw_preview(pack, 0))
        assert is_red(pixel(pack, image, -56.0, 56.0))
        assert is_blue(pixel(pack, image, 56.0, 56.0))
        assert is_blue(pixel(pack, image, -56.0, -56.0))
        # Between the squares of two tiles lies the ground alone, pale.
        assert pixel(pack, image, 48.0, 48.0) == pytest.approx([178] * 3, abs=2)


def test_a_preview_shows_every_level(pack: Pack) -> None:
    first, second = (picture(draw_preview(pack, level)) for level in (0, 1))
    assert first.shape == second.shape
    assert not np.array_equal(first, second)


def test_the_picture_lies_where_its_ground_is(tmp_path: Path) -> None:
    lattice = land.lattice_of(12, 12)
    image = np.full((240, 240, 3), 255, np.uint8)
    image[:40, :20] = 0  # the north-west corner, wider to the south than to the east
    tiles = land.tiles_of(lattice, toy.smooth(12, 12))
    with land.write_map(tmp_path / "p.s4gpack", [tiles], picture=image) as pack:
        drawn = picture(draw_preview(pack, 0))
        dark = [pixel(pack, drawn, *place) for place in ((-117.0, 117.0), (-117.0, 85.0))]
        light = [pixel(pack, drawn, *place) for place in ((-94.0, 117.0), (-117.0, 75.0))]
    assert np.max(dark) < 140 and np.min(light) > 240


def test_pictures_are_the_same_each_time(pack: Pack) -> None:
    assert draw_preview(pack, 0) == draw_preview(pack, 0)
    found = find_ambiguity(pack, 0)
    assert draw_ambiguity(pack, 0, found) == draw_ambiguity(pack, 0, found)


@settings(max_examples=5)
@example(rows=60, columns=1, long_words=True)
@example(rows=1, columns=60, long_words=True)
@given(rows=st.integers(1, 60), columns=st.integers(1, 60), long_words=st.booleans())
@pytest.mark.parametrize("kind", ["preview", "ambiguity"])
def test_legend_and_scale_stand_inside_the_sheet_and_apart(
    kind: str, rows: int, columns: int, long_words: bool
) -> None:
    words = "imagery of many offices " * 9 if long_words else "x"
    name = ("p" * 120 if long_words else "p") + ".s4gpack"
    with (
        TemporaryDirectory() as folder,
        region(Path(folder), rows, columns, name=name, attribution=words) as pack,
    ):
        if kind == "preview":
            image = picture(draw_preview(pack, 0))
        else:
            image = picture(draw_ambiguity(pack, 0, told(pack, np.zeros(rows * columns))))
        west, south, east, north = pack.frame.local_bounds(pack.bounds)
    assert max(image.shape[:2]) <= 1000 + 2 * MARGIN_PX + BELOW_PX
    for edge in (image[:8], image[-8:], image[:, :8], image[:, -8:]):
        assert (edge == 255).all()
    legend = image[-BELOW_PX:]
    # The scale bar ends where the map's right edge may be, and is a round number of metres.
    bar = legend[16, : image.shape[1] - MARGIN_PX].max(axis=1) < 60
    left = int(np.flatnonzero(~bar)[-1]) + 1
    length_m = (len(bar) - left) * max(east - west, north - south) / 1000
    digit = length_m / 10 ** np.floor(np.log10(length_m))
    assert min(abs(digit / step - 1) for step in (1, 2, 5, 10)) < 0.02
    assert (legend[1 : 2 * LINE_PX + 8, left - 8 : left - 2] == 255).all()
    # The arrow: a triangle with its tip up, below the bar's right end.
    inked = (legend[28:42, -MARGIN_PX - 13 : -MARGIN_PX + 1].max(axis=2) < 100).sum(axis=1)
    assert inked[0] < inked[6] < inked[12] and inked[12] >= 10
    assert (legend[1:14, left:] == 255).all()
    # Words to the left, in every line.
    for line in range(3):
        top = line * LINE_PX + 6
        assert (legend[top : top + LINE_PX, MARGIN_PX:300].max(axis=2) < 128).any()


def test_imagery_without_credit_has_no_line_for_it(tmp_path: Path) -> None:
    with region(tmp_path, attribution="") as pack:
        legend = picture(draw_preview(pack, 0))[-BELOW_PX:]
    assert (legend[2 * LINE_PX + 8 :, :600] == 255).all()
