"""Which photos of a flight train and which validate: photos overlap, so a split by file leaks."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from ..core.geo import LocalFrame

_COLUMNS = ("file", "lat", "lon")


def read_positions(table: Path, photos: Sequence[Path]) -> npt.NDArray[np.float64]:
    """Return east, north metres (N, 2) of photos, by a CSV table of file, lat and lon.

    Raises:
        InputError: there is no such table, it lacks a column or a photo, or a position is no
            number.
    """
    try:
        with table.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            rows = {row["file"]: row for row in reader if row.get("file")}
    except FileNotFoundError:
        raise InputError(
            f"positions {table}: no such file; a split 'apart' needs where each photo was taken"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"positions {table}: cannot be read as CSV ({error})") from None
    for column in _COLUMNS:
        if column not in columns:
            raise InputError(
                f"positions {table}: has no column {column!r}; it needs {', '.join(_COLUMNS)}"
            )
    places = []
    for photo in photos:
        row = rows.get(photo.name)
        if row is None:
            raise InputError(f"positions {table}: does not list {photo.name}; add its position")
        try:
            place = float(row["lat"]), float(row["lon"])
        except (TypeError, ValueError):
            place = (float("nan"), float("nan"))
        if not (abs(place[0]) <= 90 and abs(place[1]) <= 180):
            raise InputError(
                f"positions {table}: {photo.name} has lat {row['lat']!r}, lon {row['lon']!r}; "
                "give decimal degrees"
            )
        places.append(place)
    frame = LocalFrame(*places[0])
    return np.array([frame.to_local(lat, lon) for lat, lon in places])


def split_apart(
    places_m: npt.NDArray[np.float64], share: float, diagonal_m: float
) -> list[bool | None]:
    """Say which photos validate (True), train (False) or fall away (None).

    Along the flight's longer axis the first share trains. Of the others those validate whose
    ground touches no training photo's.

    Args:
        places_m: (N, 2) where the photos' centres lie.
        share: of the photos that train.
        diagonal_m: of a photo on the ground.
    """
    axis = int(np.ptp(places_m, axis=0).argmax())
    order = np.argsort(places_m[:, axis], kind="stable")
    trains = np.zeros(len(places_m), bool)
    trains[order[: round(share * len(order))]] = True
    apart = np.linalg.norm(places_m[:, None] - places_m[trains][None], axis=2)
    far = apart.min(axis=1, initial=np.inf) > diagonal_m
    return [False if t else (True if f else None) for t, f in zip(trains, far, strict=True)]
