"""A data set is counted against the official figures, and its files are looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from s4g.core.errors import InputError
from s4g.core.images import encode_rgb
from s4g.train.data_check import (
    FileCheck,
    check_dataset,
    check_files,
    detect_kind,
    format_counts,
    format_files,
    is_complete,
)
from s4g.train.dataset import Count, DataConfig
from s4g.train.datasets import open_dataset


def write_cvusa(root: Path, train: int = 3, test: int = 2) -> Path:
    picture = encode_rgb(np.full((8, 8, 3), 90, np.uint8), ".jpg")
    (root / "splits").mkdir()
    for name, ids in (("train", range(1, train + 1)), ("val", range(train + 1, train + test + 1))):
        lines = []
        for i in ids:
            for folder in ("bingmap/19", "streetview/panos"):
                (root / folder).mkdir(parents=True, exist_ok=True)
                (root / folder / f"{i:07d}.jpg").write_bytes(picture)
            lines.append(f"bingmap/19/{i:07d}.jpg,streetview/panos/{i:07d}.jpg,x.png")
        (root / "splits" / f"{name}-19zl.csv").write_text("\n".join(lines) + "\n")
    return root


def test_counts_are_shown_beside_the_official_ones(tmp_path: Path) -> None:
    counts = check_dataset(open_dataset(DataConfig("cvusa"), write_cvusa(tmp_path)))
    assert format_counts(counts) == (
        "             found  official\n"
        "train pairs      3    35,532  35,529 missing\n"
        "test pairs       2     8,884  8,882 missing"
    )
    assert not is_complete(counts)


def test_a_count_that_is_met_gets_a_tick_and_one_without_official_figure_nothing() -> None:
    counts = [Count("a", 1200, 1200), Count("b", 7), Count("c", 12, 10)]
    assert format_counts(counts) == (
        "   found  official\na  1,200     1,200  ✓\nb      7         -\nc     12        10  2 more"
    )
    assert not is_complete(counts)
    assert is_complete(counts[:2])


def test_all_files_are_looked_at(tmp_path: Path) -> None:
    files = check_files(open_dataset(DataConfig("cvusa"), write_cvusa(tmp_path)))
    assert files == FileCheck(10, (), ())
    assert format_files(files) == "10 files; all there, all readable"
    assert is_complete([Count("a", 1, 1)], files)


def test_missing_and_damaged_files_are_counted_and_named(tmp_path: Path) -> None:
    write_cvusa(tmp_path, train=6)
    panoramas = [tmp_path / f"streetview/panos/{i:07d}.jpg" for i in range(1, 6)]
    for path in panoramas[:4]:
        path.unlink()
    panoramas[4].write_bytes(b"")
    files = check_files(open_dataset(DataConfig("cvusa"), tmp_path))
    named = ", ".join(map(str, panoramas[:3]))
    assert format_files(files) == (
        f"16 files; 4 missing: {named}, … 1 more; 1 unreadable: {panoramas[4]}"
    )
    assert not is_complete([Count("a", 1, 1)], files)


def test_a_split_that_is_not_on_disk_does_not_stop_the_check(tmp_path: Path) -> None:
    (write_cvusa(tmp_path) / "splits/val-19zl.csv").unlink()
    assert check_files(open_dataset(DataConfig("cvusa"), tmp_path)).files == 6


def test_a_folder_without_any_split_is_refused_by_the_first_missing_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^{tmp_path}/splits/train-19zl.csv: no such file; CVUSA"):
        check_files(open_dataset(DataConfig("cvusa"), tmp_path))


@pytest.mark.parametrize(
    ("path", "config"),
    [
        ("splits/train-19zl.csv", DataConfig("cvusa")),
        ("ACT_data.mat", DataConfig("cvact")),
        ("splits/Chicago/satellite_list.txt", DataConfig("vigor")),
        ("same-area-drone2sate-test.json", DataConfig("gtauav")),
        ("cross-area-drone2sate-train.json", DataConfig("gtauav", area="cross")),
        ("Dense_GPS_ALL.txt", DataConfig("denseuav")),
        ("Testing/250/query_drone/0008/0.jpg", DataConfig("sues200", height_m=250)),
        ("drone_view_512/0001/300/0.jpg", DataConfig("sues200", height_m=300)),
        ("train/drone/0839/image-01.jpeg", DataConfig("university1652")),
        ("test/query_drone/0000/image-01.jpeg", DataConfig("university1652")),
    ],
)
def test_the_kind_is_told_from_the_names_in_a_folder(
    tmp_path: Path, path: str, config: DataConfig
) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).touch()
    assert detect_kind(tmp_path) == config


def test_denseuav_is_not_taken_for_university_1652(tmp_path: Path) -> None:
    (tmp_path / "train/drone/000001").mkdir(parents=True)
    (tmp_path / "Dense_GPS_train.txt").touch()
    assert detect_kind(tmp_path).kind == "denseuav"


def test_a_folder_that_looks_like_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        detect_kind(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: looks like none of cvusa, cvact, vigor, university1652, sues200, denseuav, "
        "gtauav, own; pass --kind to see what is missing"
    )


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        detect_kind(tmp_path / "none")
    assert str(error.value) == f"{tmp_path / 'none'}: no such folder"


def test_photos_of_your_own_need_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "photos.csv").touch()
    with pytest.raises(InputError) as error:
        detect_kind(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: holds photos.csv, a set of your own; its source and footprint_m stand in a "
        "recipe: pass --recipe"
    )
