"""CSV tables with one row per frame or moment: what telemetry and truth files share."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError


def read_csv_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the column names and the rows of a CSV file, spaces around values removed.

    Raises:
        InputError: it cannot be read, is no UTF-8 text, or has no rows.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True, restval="")
            names = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = names
            rows = [{k: (v or "").strip() for k, v in row.items() if k} for row in reader]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError(
            f"{path}: not a CSV file; expected UTF-8 text with a header line"
        ) from None
    if not rows:
        raise InputError(f"{path}: has no rows; expected a header line and one row per frame")
    return names, rows


def read_numbers(
    path: Path, rows: list[dict[str, str]], column: str, empty_ok: bool = False
) -> npt.NDArray[np.float64]:
    """Return one column (N,) float64; with `empty_ok` NaN stands for an empty cell.

    Raises:
        InputError: a value is no finite number; the message names line, column and value.
    """
    numbers = np.empty(len(rows))
    for i, row in enumerate(rows):
        if empty_ok and not row[column]:
            numbers[i] = math.nan
            continue
        try:
            numbers[i] = float(row[column])
        except ValueError:
            numbers[i] = math.nan
        if not math.isfinite(numbers[i]):
            raise InputError(
                f"{path}: line {i + 2}, column {column}: {row[column]!r} is not a finite number"
            )
    return numbers


def require_columns(path: Path, found: list[str], needed: tuple[str, ...]) -> None:
    """Refuse a CSV that lacks a column, or has neither `t` nor `file`.

    Raises:
        InputError: the message names the missing column and the found ones.
    """
    missing = [name for name in needed if name not in found]
    if not {"t", "file"} & set(found):
        missing.insert(0, "'t' or 'file'")
    if missing:
        raise InputError(
            f"{path}: lacks the column {missing[0]}; found {', '.join(found) or 'none'}"
        )


def row_of_file(path: Path, rows: list[dict[str, str]]) -> dict[str, int]:
    """Return the row of each name in the `file` column; folders in a name are dropped.

    Raises:
        InputError: a name is listed twice.
    """
    index: dict[str, int] = {}
    for i, row in enumerate(rows):
        name = Path(row["file"]).name
        if name in index:
            raise InputError(
                f"{path}: line {i + 2} lists {name} again (first on line {index[name] + 2}); "
                "keep one of them"
            )
        index[name] = i
    return index
