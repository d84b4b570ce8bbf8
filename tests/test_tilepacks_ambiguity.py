from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from s4g.tilepacks.ambiguity import Ambiguity, find_ambiguity
from s4g.tilepacks.pictures import draw_ambiguity, draw_preview
from s4g.tilepacks.quantise import dequantise
from s4g.tilepacks.reader import Pack, open_pack


@pytest.fixture(scope="module")
def pack(toy_pack: Path) -> Pack:
    return open_pack(toy_pack)


@pytest.mark.parametrize("level", [0, 1])
def test_the_rival_is_the_most_similar_tile_at_least_a_footprint_away(
    pack: Pack, level: int
) -> None:
    found, record = find_ambiguity(pack, level), pack.levels[level]
    own = np.arange(record.first, record.first + record.count)
    assert found.tiles.tolist() == own.tolist()
    search = pack.vectors(level)
    codes = search.codes if search.vector_of_tile is None else search.codes[search.vector_of_tile]
    cosine = dequantise(codes) @ dequantise(codes).T
    east, north = pack.east_m[own], pack.north_m[own]
    away = np.hypot(east[:, None] - east, north[:, None] - north)
    cosine[away < record.footprint_m] = -1
    np.testing.assert_allclose(found.cosine, cosine.max(axis=1), atol=3e-5)
    row = np.arange(len(own))
    np.testing.assert_allclose(cosine[row, found.rival - record.first], found.cosine, atol=3e-5)
    assert (found.away_m >= record.footprint_m).all()


def test_fewer_tiles_are_spread_evenly_and_compared_with_all(pack: Pack) -> None:
    whole, some = find_ambiguity(pack, 0), find_ambiguity(pack, 0, 10)
    assert len(some.tiles) == 10
    assert (some.tiles[0], some.tiles[-1]) == (whole.tiles[0], whole.tiles[-1])
    np.testing.assert_allclose(some.cosine, whole.cosine[some.tiles], atol=1e-6)


def test_progress_ends_at_the_number_of_tiles(pack: Pack) -> None:
    done: list[int] = []
    find_ambiguity(pack, 0, advance=done.append)
    assert sum(done) == pack.levels[0].count


def picture(data: bytes) -> npt.NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return np.asarray(image, np.uint8)


def test_ambiguous_ground_is_red_and_other_ground_blue(pack: Pack) -> None:
    record = pack.levels[0]
    own = np.arange(record.first, record.first + record.count)
    east = pack.east_m[own]
    cosine = np.where(east < np.median(east), 0.2, 0.9).astype(np.float32)
    found = Ambiguity(own, east, pack.north_m[own], cosine, own, np.full(len(own), 500.0))
    image = picture(draw_ambiguity(pack, 0, found)).astype(int)
    height = image.shape[0] // 2
    west, middle = image[height, 200], image[height, 800]
    assert west[2] > west[0] + 50
    assert middle[0] > middle[2] + 50


def test_a_preview_shows_every_level(pack: Pack) -> None:
    first, second = (picture(draw_preview(pack, level)) for level in (0, 1))
    assert first.shape == second.shape
    assert not np.array_equal(first, second)


def test_pictures_are_the_same_each_time(pack: Pack) -> None:
    assert draw_preview(pack, 0) == draw_preview(pack, 0)
