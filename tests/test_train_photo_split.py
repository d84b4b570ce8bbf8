"""Photos of a flight are split by the ground they show, not by file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from s4g.core.errors import InputError
from s4g.train.photo_split import read_positions, split_apart

PHOTOS = [Path("a.jpg"), Path("b.jpg")]


def table(folder: Path, text: str) -> Path:
    path = folder / "photos.csv"
    path.write_text(text)
    return path


def test_positions_are_metres_in_the_order_of_the_photos(tmp_path: Path) -> None:
    path = table(tmp_path, "file,lat,lon,more\nb.jpg,47.001,8.0,x\na.jpg,47.0,8.0,y\n")
    places = read_positions(path, PHOTOS)
    assert np.allclose(places[0], 0, atol=1e-6)
    assert places[1] == pytest.approx([0, 111.2], abs=0.3)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("file,lat\na.jpg,1\n", "has no column 'lon'; it needs file, lat, lon"),
        ("file,lat,lon\na.jpg,1,2\n", "does not list b.jpg; add its position"),
        (
            "file,lat,lon\na.jpg,1,2\nb.jpg,north,2\n",
            "b.jpg has lat 'north', lon '2'; give decimal degrees",
        ),
        (
            "file,lat,lon\na.jpg,1,2\nb.jpg,nan,2\n",
            "b.jpg has lat 'nan', lon '2'; give decimal degrees",
        ),
    ],
)
def test_a_table_that_does_not_say_where_is_refused(tmp_path: Path, text: str, what: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(InputError) as error:
        read_positions(path, PHOTOS)
    assert str(error.value) == f"positions {path}: {what}"


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_positions(tmp_path / "none.csv", PHOTOS)
    assert str(error.value) == (
        f"positions {tmp_path / 'none.csv'}: no such file; a split 'apart' needs where each photo "
        "was taken"
    )


def test_only_photos_that_touch_no_training_ground_validate() -> None:
    places = np.column_stack([np.arange(10) * 20.0, np.zeros(10)])
    # 0 to 80 m train; a photo is 50 m across: 100 and 120 touch the last of them
    assert split_apart(places, 0.5, 50.0) == [False] * 5 + [None] * 2 + [True] * 3


def test_the_longer_axis_of_the_flight_is_cut() -> None:
    places = np.column_stack([np.zeros(4), [300.0, 0.0, 200.0, 100.0]])
    assert split_apart(places, 0.5, 60.0) == [True, False, True, False]
