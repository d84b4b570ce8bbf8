"""DenseUAV: six tiles a place are positives; pairs keep to one height; lines have coordinates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from s4g.core.errors import InputError
from s4g.core.images import encode_rgb
from s4g.train.data_denseuav import DenseUav
from s4g.train.dataset import Count

Pillow = pytest.importorskip("PIL.Image", reason="writing .tif needs pillow (the train extra)")

TREE = (
    "DenseUAV looks like train/{drone,satellite}/ID/*, test/{query_drone,gallery_satellite}/ID/* "
    "(H80.JPG; H80.tif, H80_old.tif) and Dense_GPS_ALL.txt or Dense_GPS_{train,test}.txt"
)
TRAIN, TEST = ("000000", "000001"), ("002256", "002257", "002258")
HEIGHTS = ("H80", "H90", "H100")


def write_set(root: Path) -> Path:
    grey = np.full((8, 8, 3), 99, np.uint8)
    jpeg = encode_rgb(grey, ".jpg")
    lines = []
    for split, folder, places in (
        ("train", "drone", TRAIN),
        ("train", "satellite", TRAIN),
        ("test", "query_drone", TEST[:2]),
        ("test", "gallery_satellite", TRAIN + TEST),
    ):
        for place in places:
            here = root / split / folder / place
            here.mkdir(parents=True)
            for height in HEIGHTS:
                if "drone" in folder:
                    (here / f"{height}.JPG").write_bytes(jpeg)
                    lines.append(
                        f"/data/my sets/{split}/{folder}/{place}/{height}.JPG "
                        f"E120.{place} N30.{place} 93.5"
                    )
                else:
                    for date in ("", "_old"):
                        Pillow.fromarray(grey).save(here / f"{height}{date}.tif")
                        lines.append(
                            f"{split}/{folder}/{place}/{height}{date}.tif "
                            f"E120.{place} N30.{place} 93.5"
                        )
    (root / "Dense_GPS_ALL.txt").write_text("\n".join(lines) + "\n")
    return root


def test_a_drone_view_is_paired_with_both_tiles_of_its_height(tmp_path: Path) -> None:
    pairs = DenseUav(write_set(tmp_path)).training()
    assert (len(pairs), len(pairs.queries), len(pairs.references)) == (12, 6, 12)
    named = [
        (
            pairs.queries.name(int(q)).removeprefix("train/drone/"),
            pairs.references.name(int(r)).removeprefix("train/satellite/"),
        )
        for q, r in zip(pairs.pair_query, pairs.pair_reference, strict=True)
    ]
    assert named[:2] == [
        ("000000/H100.JPG", "000000/H100.tif"),
        ("000000/H100.JPG", "000000/H100_old.tif"),
    ]
    assert len(set(named)) == 12


def test_all_six_tiles_of_a_place_are_positives(tmp_path: Path) -> None:
    pairs = DenseUav(write_set(tmp_path)).training()
    related, weights = pairs.relations.of(0)
    assert related.tolist() == [0, 1, 2, 3, 4, 5] and (weights == 1).all()


def test_pictures_of_both_kinds_are_read(tmp_path: Path) -> None:
    pairs = DenseUav(write_set(tmp_path)).training()
    assert pairs.queries.read(0, 4, 4).mean() == pytest.approx(99, abs=2)
    assert pairs.references.read(0, 4, 4).mean() == 99


def test_the_task_searches_tiles_of_all_places_and_reports_metres(tmp_path: Path) -> None:
    (task,) = DenseUav(write_set(tmp_path)).tasks()
    assert (len(task.queries), len(task.gallery)) == (6, 30)
    assert task.protocol == "DenseUAV test: all 30 satellite tiles"
    assert task.metrics == ("recall", "ap", "sdm")
    assert np.diff(task.positives.start).tolist() == [6] * 6
    assert task.query_positions is not None and task.gallery_positions is not None
    assert task.query_positions.coordinates[0].tolist() == [30.002256, 120.002256]
    assert task.gallery_positions.coordinates[-1].tolist() == [30.002258, 120.002258]


def test_the_letters_tell_latitude_from_longitude(tmp_path: Path) -> None:
    file = write_set(tmp_path) / "Dense_GPS_ALL.txt"
    file.write_text("a/000000/H80.JPG 30.5 -120.5 80\nb/000001/H80.JPG W0.5 S30.25 80\n")
    positions = DenseUav(tmp_path).training().reference_positions
    assert positions is not None
    assert np.unique(positions.coordinates, axis=0).tolist() == [[-30.25, -0.5], [30.5, -120.5]]


def test_the_lists_of_the_two_splits_serve_as_well_as_the_whole(tmp_path: Path) -> None:
    whole = write_set(tmp_path) / "Dense_GPS_ALL.txt"
    text = whole.read_text()
    (tmp_path / "Dense_GPS_train.txt").write_text(text)
    whole.unlink()
    assert DenseUav(tmp_path).training().reference_positions is not None


def test_missing_coordinates_are_named_with_the_tree(tmp_path: Path) -> None:
    file = write_set(tmp_path) / "Dense_GPS_ALL.txt"
    file.unlink()
    with pytest.raises(InputError) as error:
        DenseUav(tmp_path).training()
    assert str(error.value) == f"{file}: no such file; {TREE}"


def test_a_place_without_coordinates_is_named(tmp_path: Path) -> None:
    file = write_set(tmp_path) / "Dense_GPS_ALL.txt"
    file.write_text("a/000000/H80.JPG E120.5 N30.5 80\n")
    with pytest.raises(InputError) as error:
        DenseUav(tmp_path).training()
    assert str(error.value) == (
        f"{tmp_path}: Dense_GPS_*.txt has no line for place 000001 (1 missing); {TREE}"
    )


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (
            "a/000000/H80.JPG E120.5 Nowhere 80",
            "row 1, latitude: 'owhere' is not a finite number between -90 and 90",
        ),
        ("a/000000/H80.JPG E120.5 N30.5", "line 1 has 3 columns, expected 4 or more: "),
        ("H80.JPG E120.5 N30.5 80", "row 1: 'H80.JPG' names no place; "),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str, fault: str) -> None:
    file = write_set(tmp_path) / "Dense_GPS_ALL.txt"
    file.write_text(line + "\n")
    with pytest.raises(InputError) as error:
        DenseUav(tmp_path).training()
    assert str(error.value).startswith(f"{file}: {fault}")


def test_places_without_a_tile_of_their_height_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path)
    for tile in tmp_path.glob("train/satellite/*/*.tif"):
        tile.rename(tile.with_name(f"tile{tile.name}"))
    with pytest.raises(InputError) as error:
        DenseUav(tmp_path).training()
    assert str(error.value) == (
        f"{tmp_path / 'train'}: no drone view has a tile of its place and height; {TREE}"
    )


def test_counts_stand_beside_the_official_ones(tmp_path: Path) -> None:
    assert DenseUav(write_set(tmp_path)).counts() == [
        Count("train/drone images", 6, 6_768),
        Count("train/satellite images", 12, 13_536),
        Count("test/query_drone images", 6, 2_331),
        Count("test/gallery_satellite images", 30, 18_198),
    ]
    assert [count.found for count in DenseUav(tmp_path / "none").counts()] == [0] * 4


def test_a_missing_folder_is_named_with_the_tree(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        DenseUav(tmp_path).tasks()
    assert str(error.value) == f"{tmp_path / 'test/query_drone'}: no such folder; {TREE}"
