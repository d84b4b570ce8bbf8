"""University-1652: one tile a building, two directions, two galleries that share pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from s4g.core.errors import InputError
from s4g.core.images import encode_rgb
from s4g.train.data_university import University
from s4g.train.dataset import Count, RetrievalTask

TREE = (
    "University-1652 looks like train/{satellite,drone}/ID/*.jpg, "
    "test/{query_drone,gallery_satellite,query_satellite,gallery_drone}/ID/*.jpg"
)
TRAIN, QUERIES, DISTRACTORS = ("0839", "1001"), ("0000", "0007"), ("0010", "0011", "0012")
VIEWS = 54


def write_set(root: Path) -> Path:
    data = encode_rgb(np.full((8, 8, 3), 120, np.uint8), ".jpg")

    def write(folder: str, ids: tuple[str, ...], images: int) -> None:
        for place in ids:
            (root / folder / place).mkdir(parents=True)
            for i in range(images):
                name = f"image-{i + 1:02d}.jpeg" if images > 1 else f"{place}.jpg"
                (root / folder / place / name).write_bytes(data)

    write("train/satellite", TRAIN, 1)
    write("train/drone", TRAIN, VIEWS)
    write("test/query_drone", QUERIES, VIEWS)
    write("test/query_satellite", QUERIES, 1)
    write("test/gallery_satellite", QUERIES + DISTRACTORS, 1)
    write("test/gallery_drone", QUERIES + DISTRACTORS, VIEWS)
    return root


@pytest.fixture(scope="module")
def university(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("university"))


def competing(task: RetrievalTask) -> int:
    return len(task.gallery) if task.gallery_rows is None else len(task.gallery_rows)


def test_every_drone_view_is_paired_with_the_tile_of_its_building(university: Path) -> None:
    pairs = University(university).training()
    assert (len(pairs), len(pairs.queries), len(pairs.references)) == (2 * VIEWS, 2 * VIEWS, 2)
    assert np.bincount(pairs.pair_reference).tolist() == [VIEWS, VIEWS]
    assert pairs.queries.name(VIEWS) == "train/drone/1001/image-01.jpeg"
    assert pairs.references.name(int(pairs.pair_reference[VIEWS])).startswith(
        "train/satellite/1001"
    )
    assert pairs.geometry == "nadir"
    assert pairs.queries.read(0, 4, 4).shape == (4, 4, 3)


def test_both_directions_come_with_both_galleries(university: Path) -> None:
    tasks = University(university).tasks()
    assert [(task.name, competing(task)) for task in tasks] == [
        ("drone→satellite", 5),
        ("drone→satellite", 2),
        ("satellite→drone", 5 * VIEWS),
        ("satellite→drone", 2 * VIEWS),
    ]
    assert [task.protocol for task in tasks] == [
        "official: all 5 satellite tiles, distractors included",
        "reduced, as in the literature: 2 satellite tiles, distractors dropped",
        "official: all 270 drone images, distractors included",
        "reduced, as in the literature: 108 drone images, distractors dropped",
    ]
    assert [task.one_percent_k for task in tasks] == [1, 1, 4, 2]
    assert all(task.metrics == ("recall", "ap") for task in tasks)


def test_the_two_galleries_share_their_pictures(university: Path) -> None:
    official, reduced, official_back, reduced_back = University(university).tasks()
    assert official.gallery is reduced.gallery and official.queries is reduced.queries
    assert official_back.gallery is reduced_back.gallery


def test_the_reduced_gallery_holds_the_queried_buildings_only(university: Path) -> None:
    _, reduced, _, reduced_back = University(university).tasks()
    assert reduced.gallery_rows is not None and reduced_back.gallery_rows is not None
    names = [reduced.gallery.name(int(row)) for row in reduced.gallery_rows]
    assert [name.split("/")[2] for name in names] == list(QUERIES)
    assert all(
        reduced_back.gallery.name(int(row)).split("/")[2] in QUERIES
        for row in reduced_back.gallery_rows
    )


def test_a_tile_has_54_drone_views_to_find(university: Path) -> None:
    _, _, back, _ = University(university).tasks()
    assert (back.query_view, back.gallery_view) == ("reference", "query")
    related, weights = back.positives.of(1)
    assert len(related) == VIEWS and (weights == 1).all()
    assert {back.gallery.name(int(row)).split("/")[2] for row in related} == {"0007"}


def test_coordinates_are_optional(university: Path) -> None:
    assert University(university).training().reference_positions is None


def test_coordinates_lie_beside_train(tmp_path: Path) -> None:
    write_set(tmp_path)
    rows = [f"{int(place)},{50 + i}.5,{-i}.25" for i, place in enumerate(TRAIN)]
    (tmp_path / "coordinates.csv").write_text("id,lat,lon\n" + "\n".join(rows) + "\n")
    positions = University(tmp_path).training().reference_positions
    assert positions is not None and positions.kind == "wgs84"
    assert positions.coordinates.tolist() == [[50.5, 0.25], [51.5, -1.25]]


def test_coordinates_that_lack_a_place_are_refused(tmp_path: Path) -> None:
    file = write_set(tmp_path) / "coordinates.csv"
    file.write_text("id,lat,lon\n0839,50,1\n")
    with pytest.raises(InputError) as error:
        University(tmp_path).training()
    assert str(error.value) == (
        f"{file}: has no row for place 1001 (1 missing); add it, or remove the file to go without "
        "coordinates"
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("id,lat\n0839,50\n", "lacks the column lon; found id, lat"),
        ("id,lat,lon\n", "has no rows; expected one a picture or place"),
        (
            "id,lat,lon\n0839,91,1\n",
            "line 2, column lat: '91' is not a finite number between -90 and 90",
        ),
    ],
)
def test_a_wrong_table_of_coordinates_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    file = write_set(tmp_path) / "coordinates.csv"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        University(tmp_path).training()
    assert str(error.value).removeprefix(f"{file}: ") == fault


def test_counts_stand_beside_the_official_ones(university: Path) -> None:
    assert University(university).counts() == [
        Count("train/satellite images", 2, 701),
        Count("train/drone images", 108, 37_854),
        Count("test/query_drone images", 108, 37_855),
        Count("test/gallery_satellite images", 5, 951),
        Count("test/query_satellite images", 2, 701),
        Count("test/gallery_drone images", 270, 51_355),
    ]
    assert [count.found for count in University(university / "none").counts()] == [0] * 6


def test_a_missing_folder_is_named_with_the_tree(tmp_path: Path) -> None:
    (tmp_path / "train" / "satellite").mkdir(parents=True)
    with pytest.raises(InputError) as error:
        University(tmp_path).training()
    assert str(error.value) == f"{tmp_path / 'train/drone'}: no such folder; {TREE}"


def test_pictures_without_a_folder_a_place_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train" / "drone").mkdir(parents=True)
    (tmp_path / "train" / "drone" / "0001.jpg").write_bytes(b"")
    with pytest.raises(InputError) as error:
        University(tmp_path).training()
    assert str(error.value) == f"{tmp_path / 'train/drone'}: holds no pictures as ID/*; {TREE}"


def test_a_building_without_a_tile_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "train/satellite/1001/1001.jpg").unlink()
    with pytest.raises(InputError) as error:
        University(tmp_path).training()
    assert str(error.value) == (
        "train/drone/1001/image-01.jpeg: nothing in the training tiles shows its place "
        "(54 of 108 queries); fetch the missing pictures"
    )
