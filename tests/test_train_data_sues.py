"""SUES-200 is read split or raw, at one height, with both galleries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from s4g.core.errors import InputError
from s4g.core.images import encode_rgb
from s4g.train.data_sues import TRAIN_IDS, Sues
from s4g.train.dataset import Count, RetrievalTask

TREE = (
    "SUES-200 looks like Training/HEIGHT/{drone,satellite}/ID/*, "
    "Testing/HEIGHT/{query_drone,query_satellite,gallery_drone,gallery_satellite}/ID/*, "
    "or raw like satellite-view/ID/*, drone_view…/ID/HEIGHT/*"
)
PICTURE = encode_rgb(np.full((8, 8, 3), 120, np.uint8), ".jpg")
QUERY_IDS = [i for i in range(1, 201) if i not in TRAIN_IDS]


def write(root: Path, folder: str, images: int) -> None:
    (root / folder).mkdir(parents=True)
    for i in range(images):
        (root / folder / f"{i}.jpg").write_bytes(PICTURE)


def write_split(root: Path, height_m: int, views: int = 3) -> Path:
    """Write two training places and three test places, one of them not asked for."""
    for place in ("0001", "0002"):
        write(root, f"Training/{height_m}/drone/{place}", views)
        write(root, f"Training/{height_m}/satellite/{place}", 1)
    for place in ("0001", "0008", "0012"):
        write(root, f"Testing/{height_m}/gallery_drone/{place}", views)
        write(root, f"Testing/{height_m}/gallery_satellite/{place}", 1)
        if place != "0001":
            write(root, f"Testing/{height_m}/query_drone/{place}", views)
            write(root, f"Testing/{height_m}/query_satellite/{place}", 1)
    return root


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 200 places, two drone views each at two heights."""
    root = tmp_path_factory.mktemp("sues")
    for i in range(1, 201):
        write(root, f"satellite-view/{i:04d}", 1)
        for height in (150, 300):
            write(root, f"drone_view_512/{i:04d}/{height}", 2)
    return root


def competing(task: RetrievalTask) -> int:
    return len(task.gallery) if task.gallery_rows is None else len(task.gallery_rows)


def test_the_official_split_has_120_training_places_of_200() -> None:
    assert len(TRAIN_IDS) == 120
    assert set(range(1, 201)) >= TRAIN_IDS
    assert {1, 7, 9, 24, 34, 196, 200} <= TRAIN_IDS and not {8, 12, 35, 195} & TRAIN_IDS


def test_the_raw_layout_is_split_by_the_official_ids(raw: Path) -> None:
    pairs = Sues(raw, 300).training()
    assert (len(pairs), len(pairs.references)) == (240, 120)
    assert pairs.queries.name(0) == "drone_view_512/0001/300/0.jpg"
    places = {int(pairs.queries.name(i).split("/")[1]) for i in range(240)}
    assert places == TRAIN_IDS
    assert pairs.references.name(int(pairs.pair_reference[0])) == "satellite-view/0001/0.jpg"
    assert pairs.queries.read(0, 4, 4).shape == (4, 4, 3)


def test_both_galleries_of_both_directions_have_the_official_sizes(raw: Path) -> None:
    tasks = Sues(raw, 150).tasks()
    assert [(task.name, len(task.queries), competing(task)) for task in tasks] == [
        ("drone→satellite", 160, 200),
        ("drone→satellite", 160, 80),
        ("satellite→drone", 80, 400),
        ("satellite→drone", 80, 160),
    ]
    assert [task.one_percent_k for task in tasks] == [3, 2, 5, 3]
    assert tasks[0].gallery is tasks[1].gallery
    asked = {int(tasks[0].queries.name(i).split("/")[1]) for i in range(160)}
    assert asked == set(QUERY_IDS)


def test_the_split_layout_is_taken_as_it_is(tmp_path: Path) -> None:
    data = Sues(write_split(tmp_path, 200), 200)
    pairs = data.training()
    assert (data.name, pairs.name) == ("SUES-200 200 m", "SUES-200 200 m")
    assert (len(pairs), len(pairs.references)) == (6, 2)
    assert [competing(task) for task in data.tasks()] == [3, 2, 9, 6]


def test_counts_stand_beside_the_official_ones(tmp_path: Path) -> None:
    assert Sues(write_split(tmp_path, 250), 250).counts() == [
        Count("train drone images, 250 m", 6, 6_000),
        Count("train satellite images, 250 m", 2, 120),
        Count("query drone images, 250 m", 6, 4_000),
        Count("gallery satellite images, 250 m", 3, 200),
        Count("query satellite images, 250 m", 2, 80),
        Count("gallery drone images, 250 m", 9, 10_000),
    ]
    assert [count.found for count in Sues(tmp_path, 150).counts()] == [0] * 6


def test_the_raw_layout_is_counted_too(raw: Path) -> None:
    found = [count.found for count in Sues(raw, 150).counts()]
    assert found == [240, 120, 160, 200, 80, 400]


def test_a_height_that_is_not_on_disk_is_named_with_the_tree(tmp_path: Path) -> None:
    write_split(tmp_path, 150)
    with pytest.raises(InputError) as error:
        Sues(tmp_path, 300).training()
    assert str(error.value) == f"{tmp_path / 'Training/300/drone'}: no such folder; {TREE}"


def test_a_height_that_the_raw_layout_lacks_is_named_with_the_tree(raw: Path) -> None:
    with pytest.raises(InputError) as error:
        Sues(raw, 200).training()
    assert str(error.value) == f"{raw / 'drone_view_512'}: holds no pictures as ID/200/*; {TREE}"


def test_raw_drone_views_that_are_missing_are_named_with_the_tree(tmp_path: Path) -> None:
    write(tmp_path, "satellite-view/0001", 1)
    with pytest.raises(InputError) as error:
        Sues(tmp_path, 150).training()
    assert str(error.value) == f"{tmp_path / 'drone_view'}: no such folder; {TREE}"


def test_a_height_that_was_never_flown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        Sues(tmp_path, 100)
    assert str(error.value) == "height_m = 100: SUES-200 has 150, 200, 250, 300"
