from pathlib import Path

import numpy as np
import pytest

from s4g.core.errors import InputError
from s4g.runtime.tables import read_csv_rows, read_numbers, require_columns, row_of_file


def write(folder: Path, text: str) -> Path:
    path = folder / "t.csv"
    path.write_bytes(text.encode())
    return path


def test_spaces_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    names, rows = read_csv_rows(write(tmp_path, "\ufefffile , t\r\na.jpg , 1.5\r\n"))
    assert names == ["file", "t"]
    assert rows == [{"file": "a.jpg", "t": "1.5"}]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_csv_rows(tmp_path / "none.csv")
    assert str(error.value) == f"{tmp_path}/none.csv: cannot be read (No such file or directory)"


def test_a_picture_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xff\xd8\xff\xe0\x00")
    with pytest.raises(InputError) as error:
        read_csv_rows(path)
    assert str(error.value) == f"{path}: not a CSV file; expected UTF-8 text with a header line"


@pytest.mark.parametrize("text", ["", "file,t\n"])
def test_a_table_without_rows_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as error:
        read_csv_rows(path)
    assert str(error.value) == (
        f"{path}: has no rows; expected a header line and one row per frame"
    )


@pytest.mark.parametrize("value", ["", "north", "nan", "-inf"])
def test_a_value_that_is_no_finite_number_is_named_with_its_line(
    tmp_path: Path, value: str
) -> None:
    path = write(tmp_path, f"t,yaw_deg\n0,1\n1,{value}\n")
    with pytest.raises(InputError) as error:
        read_numbers(path, read_csv_rows(path)[1], "yaw_deg")
    assert str(error.value) == (f"{path}: line 3, column yaw_deg: {value!r} is not a finite number")


def test_an_empty_cell_may_stand_for_an_unknown_number(tmp_path: Path) -> None:
    path = write(tmp_path, "t,yaw_deg\n0,1\n1,\n")
    numbers = read_numbers(path, read_csv_rows(path)[1], "yaw_deg", empty_ok=True)
    assert numbers[0] == 1.0 and np.isnan(numbers[1])


def test_where_empty_cells_are_allowed_words_are_not(tmp_path: Path) -> None:
    path = write(tmp_path, "t,yaw_deg\n0,nan\n")
    with pytest.raises(InputError, match="line 2, column yaw_deg: 'nan' is not a finite number"):
        read_numbers(path, read_csv_rows(path)[1], "yaw_deg", empty_ok=True)


def test_a_missing_column_is_named_with_those_found() -> None:
    with pytest.raises(InputError) as error:
        require_columns(Path("t.csv"), ["t", "lat"], ("lat", "lon"))
    assert str(error.value) == "t.csv: lacks the column lon; found t, lat"


def test_a_table_needs_time_or_file() -> None:
    with pytest.raises(InputError) as error:
        require_columns(Path("t.csv"), ["lat", "lon"], ("lat", "lon"))
    assert str(error.value) == "t.csv: lacks the column 't' or 'file'; found lat, lon"


def test_a_file_listed_twice_is_refused() -> None:
    with pytest.raises(InputError) as error:
        row_of_file(Path("t.csv"), [{"file": "x/a.jpg"}, {"file": "a.jpg"}])
    assert str(error.value) == (
        "t.csv: line 3 lists a.jpg again (first on line 2); keep one of them"
    )
