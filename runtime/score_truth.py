"""True positions by file name or by time: the only place where a true position is ever read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from ..core.tile_image import one_line
from .tables import read_csv_rows, read_numbers, require_columns, row_of_file

Floats = npt.NDArray[np.float64]

_EVENT_CHARACTERS = 40
HOLD_S = 0.05  # half a frame period where the frames do not tell it
_MAX_STEP_S = 2.0  # between rows farther apart nobody knows where the drone was
_JUMP = 10.0  # a step so much longer than usual was not flown
_LEAST_JUMP_M = 30.0


@dataclass(frozen=True)
class Event:
    """What befell the flight at a row of the truth, such as `kidnap`, in the file's own words."""

    name: str
    row: int


@dataclass(frozen=True)
class Truth:
    """True positions, by file name or by time.

    Attributes:
        name: the file, for errors.
        lat: (N,) degrees.
        lon: (N,) degrees.
        t: (N,) seconds, not decreasing; None where the rows go by file.
        row_of_file: row of each file name.
        events: in the order of the rows.
    """

    name: str
    lat: Floats
    lon: Floats
    t: Floats | None
    row_of_file: dict[str, int]
    events: tuple[Event, ...] = ()

    def at(
        self, file: str | None, t: float | None, hold_s: float = HOLD_S
    ) -> tuple[float, float] | None:
        """Return latitude and longitude of a frame, None where the truth does not cover it.

        A file goes by its name. A time goes between two rows, if they are at most two seconds apart
        and the later one opens no event (a drone that is carried off is nowhere in between), else
        by the nearest row, if that is within `hold_s`.
        """
        if file is not None and file in self.row_of_file:
            return self._place(self.row_of_file[file])
        rows_t = self.t
        if t is None or rows_t is None:
            return None
        later = int(np.searchsorted(rows_t, t, side="right"))
        rows = [row for row in (later - 1, later) if 0 <= row < len(rows_t)]
        if len(rows) == 2 and later not in self._openings:
            step_s = float(rows_t[later] - rows_t[later - 1])
            if step_s <= _MAX_STEP_S:
                return self._between(later - 1, float(t - rows_t[later - 1]) / step_s)
        nearest = min(rows, key=lambda row: abs(float(rows_t[row]) - t))
        return self._place(nearest) if abs(float(rows_t[nearest]) - t) <= hold_s else None

    @cached_property
    def _openings(self) -> frozenset[int]:
        return frozenset(event.row for event in self.events)

    def _between(self, row: int, share: float) -> tuple[float, float]:
        lat = self.lat[row] + share * (self.lat[row + 1] - self.lat[row])
        # The short way round, also across the antimeridian.
        turn = (self.lon[row + 1] - self.lon[row] + 180) % 360 - 180
        lon = (self.lon[row] + share * turn + 180) % 360 - 180
        return float(lat), float(lon)

    def _place(self, row: int) -> tuple[float, float]:
        return float(self.lat[row]), float(self.lon[row])


def carried_off(places_m: Floats) -> npt.NDArray[np.int64]:
    """Return the rows of a track to which nobody flew from the row before.

    Args:
        places_m: (N, 2) east, north of true positions in their order, NaN where there is none.
    """
    steps_m = np.hypot(*np.diff(places_m, axis=0).T)
    moved_m = steps_m[steps_m > 0]
    usual_m = float(np.median(moved_m)) if len(moved_m) else 0.0
    return np.flatnonzero(steps_m > max(_JUMP * usual_m, _LEAST_JUMP_M)) + 1


def read_truth(path: Path) -> Truth:
    """Read a truth CSV: `file` or `t`, `lat`, `lon` in degrees, optional `event` in words.

    Raises:
        InputError: a column is missing, a value is no position, times go backwards.
    """
    names, rows = read_csv_rows(path)
    require_columns(path, names, ("lat", "lon"))
    lat, lon = read_numbers(path, rows, "lat"), read_numbers(path, rows, "lon")
    if (wrong := (np.abs(lat) > 90) | (np.abs(lon) > 180)).any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"{path}: line {row + 2}: lat {lat[row]:g}, lon {lon[row]:g} is no place on Earth; "
            "expected degrees"
        )
    t = read_numbers(path, rows, "t") if "t" in names else None
    if t is not None and (np.diff(t) < 0).any():
        line = int(np.argmax(np.diff(t) < 0)) + 3
        raise InputError(f"{path}: line {line}: t goes backwards; sort the rows by time")
    files = row_of_file(path, rows) if "file" in names else {}
    named = ((one_line(row.get("event", ""), _EVENT_CHARACTERS), i) for i, row in enumerate(rows))
    events = tuple(Event(name, i) for name, i in named if name)
    return Truth(str(path), lat, lon, t, files, events)
