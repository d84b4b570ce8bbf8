"""What readers share: places in folders, subsets, and the two ways to count one percent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from s4g.train.layout import (
    FileImages,
    Places,
    Subset,
    cmc_percent,
    read_places,
    rows_at,
    same_place,
    take_relations,
    top_percent,
)
from s4g.train.relations import Relations


def places(*shown: str) -> Places:
    ids = tuple(sorted(set(shown)))
    files = [f"{name}/{i}.jpg" for i, name in enumerate(shown)]
    rows = np.array([ids.index(name) for name in shown], np.int32)
    return Places(FileImages(Path("root"), files), ids, rows)


@pytest.mark.parametrize(
    ("references", "k"), [(8_884, 88), (92_802, 928), (90_618, 906), (99, 1), (1, 1)]
)
def test_one_percent_of_panorama_sets_is_rounded_down(references: int, k: int) -> None:
    assert top_percent(references) == k


@pytest.mark.parametrize(
    ("gallery", "k"), [(951, 11), (701, 8), (51_355, 515), (200, 3), (80, 2), (3, 1)]
)
def test_one_percent_of_the_others_is_an_index_counted_from_0(gallery: int, k: int) -> None:
    assert cmc_percent(gallery) == k


def test_pictures_of_one_place_are_related() -> None:
    relations = same_place(places("b", "a", "c"), places("a", "b", "b", "d"))
    assert [relations.of(i)[0].tolist() for i in range(3)] == [[1, 2], [0], []]


def test_pictures_at_given_places_are_found() -> None:
    assert rows_at(places("b", "a", "b"), ["b", "z"]).tolist() == [0, 2]


def test_only_pictures_in_folders_of_places_are_listed(tmp_path: Path) -> None:
    for name in ("2/b.JPG", "2/a.png", "2/notes.txt", "1/x/far.jpg", "10/c.tif", "lone.jpg"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).touch()
    found = read_places(tmp_path, "set", "tree")
    assert found.ids == ("10", "2")
    assert [found.images.name(i) for i in range(3)] == [
        "set/10/c.tif",
        "set/2/a.png",
        "set/2/b.JPG",
    ]
    assert found.place.tolist() == [0, 1, 1]


def test_relations_between_some_are_numbered_anew() -> None:
    relations = Relations.from_edges([0, 0, 1, 2], [0, 3, 3, 1], 3, [1.0, 0.0, 0.5, 1.0])
    taken = take_relations(relations, np.array([1, 0]), np.array([3, 2]))
    assert len(taken) == 2
    assert [taken.of(i)[0].tolist() for i in range(2)] == [[0], [0]]
    assert [taken.of(i)[1].tolist() for i in range(2)] == [[0.5], [0.0]]


def test_a_subset_shows_the_pictures_it_took() -> None:
    subset = Subset(places("a", "b", "c").images, np.array([2, 0]))
    assert (len(subset), subset.name(0), subset.name(1)) == (2, "c/2.jpg", "a/0.jpg")
