"""VIGOR is read in both layouts and both areas; semi-positives are never negatives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from s4g.core.errors import InputError
from s4g.core.images import encode_rgb
from s4g.train.data_vigor import CITIES, Vigor
from s4g.train.dataset import Count

TREE = (
    "VIGOR looks like CITY/{panorama,satellite}/* or {ground,satellite}/CITY/*, and splits/CITY/"
    "{satellite_list,same_area_balanced_train,same_area_balanced_test,pano_label_balanced}.txt"
)


def satellite(city: str, number: int) -> str:
    return f"satellite_{40 + CITIES.index(city)}.{number}_-74.{number}.png"


def line(city: str, panorama: int, tiles: tuple[int, ...]) -> str:
    """One panorama with its positive and three semi-positives, as in the official lists."""
    triplets = " ".join(f"{satellite(city, tile)} 12.5 -3.0" for tile in tiles)
    return f"pano{panorama},4{CITIES.index(city)}.5,-74.5,.jpg {triplets}"


def write_set(root: Path, official: bool = True) -> Path:
    """Write four cities of six tiles; two panoramas to train on share a tile."""
    tile = encode_rgb(np.full((8, 8, 3), 60, np.uint8), ".png")
    panorama = encode_rgb(np.full((8, 16, 3), 200, np.uint8), ".jpg")
    lists = {
        "same_area_balanced_train.txt": [(0, (0, 1, 2, 3)), (1, (0, 3, 4, 5)), (2, (1, 0, 2, 4))],
        "same_area_balanced_test.txt": [(3, (4, 5, 3, 2)), (4, (5, 4, 0, 1))],
    }
    for city in CITIES:
        ground, above = (
            (root / city / "panorama", root / city / "satellite")
            if official
            else (root / "ground" / city, root / "satellite" / city)
        )
        splits = root / "splits" / city
        for folder in (ground, above, splits):
            folder.mkdir(parents=True)
        names = [satellite(city, i) for i in range(6)]
        for name in names:
            (above / name).write_bytes(tile)
        (splits / "satellite_list.txt").write_text("\n".join(names) + "\n")
        for file, rows in lists.items():
            text = [line(city, number, tiles) for number, tiles in rows]
            (splits / file).write_text("\n".join(text) + "\n")
        everything = [line(city, n, tiles) for rows in lists.values() for n, tiles in rows]
        (splits / "pano_label_balanced.txt").write_text("\n".join(everything) + "\n")
        for row in everything:
            (ground / row.split()[0]).write_bytes(panorama)
    return root


@pytest.mark.parametrize("official", [True, False])
def test_both_layouts_give_the_same_pairs(tmp_path: Path, official: bool) -> None:
    pairs = Vigor(write_set(tmp_path, official), "same").training()
    assert len(pairs) == len(pairs.queries) == 4 * 3
    assert len(pairs.references) == 4 * 2  # tiles 0 and 1 are somebody's positive
    prefix = "NewYork/panorama" if official else "ground/NewYork"
    assert pairs.queries.name(0) == f"{prefix}/pano0,40.5,-74.5,.jpg"
    assert pairs.queries.read(0, 8, 16).shape == (8, 16, 3)
    assert pairs.references.read(7, 8, 8).shape == (8, 8, 3)
    assert pairs.pair_reference[:4].tolist() == [0, 0, 1, 2]


def test_semi_positives_have_weight_0_in_training(tmp_path: Path) -> None:
    pairs = Vigor(write_set(tmp_path), "same").training()
    references, weights = pairs.relations.of(0)
    assert (references.tolist(), weights.tolist()) == ([0, 1], [1.0, 0.0])
    references, weights = pairs.relations.of(2)
    assert (references.tolist(), weights.tolist()) == ([0, 1], [0.0, 1.0])
    # Panorama 1 has no tile among its semi-positives that is somebody's positive.
    assert pairs.relations.of(1)[0].tolist() == [0]


def test_positions_are_in_the_names_of_tiles(tmp_path: Path) -> None:
    positions = Vigor(write_set(tmp_path), "same").training().reference_positions
    assert positions is not None and positions.kind == "wgs84"
    assert positions.coordinates[:2].tolist() == [[40.0, -74.0], [40.1, -74.1]]


def test_all_tiles_of_the_test_cities_compete(tmp_path: Path) -> None:
    write_set(tmp_path)
    (same,) = Vigor(tmp_path, "same").tasks()
    assert (len(same.queries), len(same.gallery)) == (4 * 2, 4 * 6)
    assert same.protocol == "VIGOR same-area test: all 24 tiles of its cities"
    (cross,) = Vigor(tmp_path, "cross").tasks()
    assert (len(cross.queries), len(cross.gallery)) == (2 * 5, 2 * 6)
    assert cross.queries.name(0).startswith("SanFrancisco/")


def test_semi_positives_of_the_test_make_the_hit_rate(tmp_path: Path) -> None:
    (task,) = Vigor(write_set(tmp_path), "same").tasks()
    assert task.metrics == ("recall", "hit_rate")
    assert task.positives.of(0)[0].tolist() == [4]
    assert task.semi_positives is not None
    assert task.semi_positives.of(0)[0].tolist() == [2, 3, 5]
    assert np.diff(task.semi_positives.start).tolist() == [3] * 8


def test_the_cross_area_trains_on_new_york_and_seattle(tmp_path: Path) -> None:
    pairs = Vigor(write_set(tmp_path), "cross").training()
    cities = {pairs.queries.name(i).split("/")[0] for i in range(len(pairs.queries))}
    assert cities == {"NewYork", "Seattle"}
    assert len(pairs) == 2 * 5


def test_counts_stand_beside_the_official_ones(tmp_path: Path) -> None:
    write_set(tmp_path)
    assert Vigor(tmp_path, "cross").counts() == [
        Count("train panoramas", 10, 51_520),
        Count("test panoramas", 10, 53_694),
        Count("satellite tiles of the four cities", 24, 90_618),
    ]
    assert [count.found for count in Vigor(tmp_path / "none", "same").counts()] == [0, 0, 0]


def test_a_wrong_layout_is_named_with_the_tree(tmp_path: Path) -> None:
    (tmp_path / "splits").mkdir()
    with pytest.raises(InputError) as error:
        Vigor(tmp_path, "same").training()
    assert str(error.value) == f"{tmp_path / 'NewYork/panorama'}: no such folder; {TREE}"


def test_a_missing_split_file_is_named_with_the_tree(tmp_path: Path) -> None:
    file = write_set(tmp_path) / "splits/Chicago/same_area_balanced_train.txt"
    file.unlink()
    with pytest.raises(InputError) as error:
        Vigor(tmp_path, "same").training()
    assert str(error.value) == f"{file}: no such file; {TREE}"


def test_a_tile_without_coordinates_in_its_name_is_refused(tmp_path: Path) -> None:
    file = write_set(tmp_path) / "splits/NewYork/same_area_balanced_train.txt"
    file.write_text(file.read_text().replace(satellite("NewYork", 0), "tile_0.png"))
    with pytest.raises(InputError) as error:
        Vigor(tmp_path, "same").training()
    assert str(error.value) == (
        "NewYork/satellite/tile_0.png: expected a name like satellite_40.7128_-74.0060.png"
    )


def test_a_panorama_whose_tile_is_not_in_the_list_is_refused(tmp_path: Path) -> None:
    file = write_set(tmp_path) / "splits/NewYork/satellite_list.txt"
    file.write_text("\n".join(satellite("NewYork", i) for i in range(5)) + "\n")
    with pytest.raises(InputError) as error:
        Vigor(tmp_path, "same").tasks()
    assert str(error.value) == (
        "NewYork/panorama/pano4,40.5,-74.5,.jpg: nothing in satellite_list.txt shows its place "
        "(1 of 8 queries); fetch the missing pictures"
    )


def test_a_short_line_is_shown(tmp_path: Path) -> None:
    file = write_set(tmp_path) / "splits/NewYork/same_area_balanced_train.txt"
    file.write_text("pano.jpg tile.png 1 2\n")
    with pytest.raises(InputError) as error:
        Vigor(tmp_path, "same").training()
    assert str(error.value) == (
        f"{file}: line 1 has 4 columns, expected 11 or more: 'pano.jpg tile.png 1 2'"
    )
