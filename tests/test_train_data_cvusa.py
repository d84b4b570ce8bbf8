"""CVUSA is read as it is published, id 0 included, and refused where a part is missing."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from s4g.core.errors import InputError
from s4g.core.images import encode_rgb
from s4g.train.data_cvusa import Cvusa
from s4g.train.dataset import Count, UnreadableImageError

TREE = (
    "CVUSA looks like splits/{train,val}-19zl.csv, bingmap/19/ID.jpg, streetview/panos/ID.jpg "
    "and, for coordinates, split_locations/all.csv"
)


def picture(path: Path, grey: int, height_px: int = 16, width_px: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_rgb(np.full((height_px, width_px, 3), grey, np.uint8), ".jpg"))


def write_set(root: Path, train: tuple[int, ...] = (1, 3), test: tuple[int, ...] = (2,)) -> Path:
    (root / "splits").mkdir(parents=True)
    for name, ids in (("train", train), ("val", test)):
        lines = []
        for i in ids:
            satellite, panorama = f"bingmap/19/{i:07d}.jpg", f"streetview/panos/{i:07d}.jpg"
            picture(root / satellite, 10 * i % 250)
            picture(root / panorama, 10 * i % 250 + 5, width_px=64)
            lines.append(f"{satellite},{panorama},streetview/annotations/{i:07d}.png")
        (root / "splits" / f"{name}-19zl.csv").write_text("\n".join(lines) + "\n")
    return root


def write_locations(root: Path, rows: int = 3) -> None:
    (root / "split_locations").mkdir()
    lines = [f"{30 + i},{-90 - i},{30.5 + i},{-90.5 - i},7" for i in range(rows)]
    (root / "split_locations" / "all.csv").write_text("\n".join(lines) + "\n")


def test_a_pair_is_a_panorama_and_its_satellite_image(tmp_path: Path) -> None:
    pairs = Cvusa(write_set(tmp_path)).training()
    assert [pairs.queries.name(i) for i in range(2)] == [
        "streetview/panos/0000001.jpg",
        "streetview/panos/0000003.jpg",
    ]
    assert pairs.references.name(1) == "bingmap/19/0000003.jpg"
    assert pairs.pair_query.tolist() == pairs.pair_reference.tolist() == [0, 1]
    assert pairs.relations.of(1)[0].tolist() == [1]
    assert pairs.geometry == "panorama"


def test_pictures_are_read_at_the_size_asked_for(tmp_path: Path) -> None:
    pairs = Cvusa(write_set(tmp_path)).training()
    image = pickle.loads(pickle.dumps(pairs.queries)).read(1, 8, 24)  # as in a worker
    assert image.shape == (8, 24, 3)
    assert abs(int(image.mean()) - 35) <= 2


def test_a_picture_that_is_not_there_is_named_when_it_is_read(tmp_path: Path) -> None:
    pairs = Cvusa(write_set(tmp_path)).training()
    path = tmp_path / "bingmap/19/0000003.jpg"
    path.unlink()
    with pytest.raises(UnreadableImageError, match=f"^{path}: "):
        pairs.references.read(1, 8, 8)


def test_id_0_is_an_item_like_any_other(tmp_path: Path) -> None:
    pairs = Cvusa(write_set(tmp_path, train=(0, 1))).training()
    assert pairs.references.name(0) == "bingmap/19/0000000.jpg"
    assert pairs.relations.of(0)[0].tolist() == [0]


def test_coordinates_come_from_the_row_before_the_id(tmp_path: Path) -> None:
    write_locations(write_set(tmp_path))
    data = Cvusa(tmp_path)
    positions = data.training().reference_positions
    assert positions is not None and positions.kind == "wgs84"
    assert positions.coordinates.tolist() == [[30.0, -90.0], [32.0, -92.0]]
    (task,) = data.tasks()
    assert task.query_positions is not None and task.gallery_positions is not None
    assert task.gallery_positions.coordinates.tolist() == [[31.0, -91.0]]
    assert task.query_positions.coordinates.tolist() == [[31.5, -91.5]]


def test_without_the_file_of_coordinates_there_are_none(tmp_path: Path) -> None:
    assert Cvusa(write_set(tmp_path)).training().reference_positions is None


def test_coordinates_that_lack_an_id_are_refused(tmp_path: Path) -> None:
    write_locations(write_set(tmp_path), rows=2)
    with pytest.raises(InputError) as error:
        Cvusa(tmp_path).training()
    assert str(error.value) == (
        f"{tmp_path / 'split_locations/all.csv'}: has 2 rows, none for id 3 (row = id - 1); "
        "fetch it again, or remove it to go without coordinates"
    )


def test_a_coordinate_that_is_no_number_is_named(tmp_path: Path) -> None:
    write_locations(write_set(tmp_path))
    file = tmp_path / "split_locations/all.csv"
    file.write_text(file.read_text().replace("30,", "north,", 1))
    with pytest.raises(InputError) as error:
        Cvusa(tmp_path).training()
    assert str(error.value) == f"{file}: row 1, column 1: 'north' is not a finite number"


def test_the_task_asks_every_panorama_of_the_test_split(tmp_path: Path) -> None:
    (task,) = Cvusa(write_set(tmp_path, test=tuple(range(4, 4 + 250)))).tasks()
    assert task.name == "panorama→satellite"
    assert task.protocol == "CVUSA test: all 250 satellite images"
    assert (len(task.queries), len(task.gallery), task.one_percent_k) == (250, 250, 2)
    assert task.query_rows is None and task.gallery_rows is None
    assert task.metrics == ("recall",)


def test_counts_stand_beside_the_official_ones(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "splits/val-19zl.csv").unlink()
    assert Cvusa(tmp_path).counts() == [
        Count("train pairs", 2, 35_532),
        Count("test pairs", 0, 8_884),
    ]


def test_a_missing_split_file_is_named_with_the_tree(tmp_path: Path) -> None:
    write_set(tmp_path)
    file = tmp_path / "splits/train-19zl.csv"
    file.unlink()
    with pytest.raises(InputError) as error:
        Cvusa(tmp_path).training()
    assert str(error.value) == f"{file}: no such file; {TREE}"


def test_a_line_without_a_panorama_is_shown(tmp_path: Path) -> None:
    write_set(tmp_path)
    file = tmp_path / "splits/train-19zl.csv"
    file.write_text(file.read_text() + "bingmap/19/0000009.jpg\n")
    with pytest.raises(InputError) as error:
        Cvusa(tmp_path).training()
    assert str(error.value) == (
        f"{file}: line 3 has 1 columns, expected 2 or more: 'bingmap/19/0000009.jpg'"
    )


def test_a_satellite_file_without_a_number_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path)
    file = tmp_path / "splits/train-19zl.csv"
    file.write_text("bingmap/19/first.jpg,streetview/panos/0000001.jpg,x\n")
    with pytest.raises(InputError) as error:
        Cvusa(tmp_path).training()
    assert str(error.value) == (
        f"{file}: row 1: 'bingmap/19/first.jpg' is no satellite image of a number; "
        "expected bingmap/19/0000001.jpg"
    )


def test_an_empty_split_file_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path)
    file = tmp_path / "splits/train-19zl.csv"
    file.write_text("\n")
    with pytest.raises(InputError, match="is empty; fetch the file again$"):
        Cvusa(tmp_path).training()


def test_a_split_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path)
    file = tmp_path / "splits/train-19zl.csv"
    file.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError) as error:
        Cvusa(tmp_path).training()
    assert str(error.value) == f"{file}: not UTF-8 text; fetch the file again"
