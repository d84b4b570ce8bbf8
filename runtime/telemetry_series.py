"""Numbers over time: where a moment lies among the rows, and what they say about it."""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..core.errors import IntegrityError
from . import telemetry_rotation

Floats = npt.NDArray[np.float64]

# At 25 m/s and gentle turns an attitude this old is still good to a few degrees.
MAX_GAP_S = 1.0
# Rows a little out of order are left out, and rows so far off that their bytes must be damaged; a
# clock that jumps back further is another flight's.
MAX_BACKWARDS_S = 3.0
_MAX_LENGTH_S = 48 * 3600.0
_FIRST_ROWS = 256


class Place(NamedTuple):
    """Where a moment lies among rows: `share` of the way from row `before` to row `after`."""

    before: int
    after: int
    share: float
    age_s: float  # to the nearest row


def place_of(times: Floats, t: float) -> Place | None:
    """Return where t lies among times (N,), not decreasing; None where no row is near.

    Before the first row and after the last one, and in a hole between two rows so far apart that
    none is near everywhere between them, the nearest row counts alone.
    """
    if len(times) == 0:
        return None
    after = bisect_left(times, t)
    before, after = max(after - 1, 0), min(after, len(times) - 1)
    from_before, to_after = abs(t - float(times[before])), abs(float(times[after]) - t)
    age_s = min(from_before, to_after)
    if not age_s <= MAX_GAP_S:
        return None
    span = float(times[after]) - float(times[before])
    if before == after or span <= 0 or span > 2 * MAX_GAP_S:
        nearest = before if from_before <= to_after else after
        return Place(nearest, nearest, 0.0, age_s)
    return Place(before, after, from_before / span, age_s)


def in_order(t: Floats, name: str) -> npt.NDArray[np.bool_]:
    """Return which rows of a log (N,) to keep so that times (seconds since its start) never fall.

    Args:
        t: times as they come in the log.
        name: of file and message, for the error.

    Raises:
        IntegrityError: the clock jumps back.
    """
    keep = (t >= -MAX_BACKWARDS_S) & (t <= _MAX_LENGTH_S)
    kept = t[keep]
    newest = np.maximum.accumulate(kept)
    behind = newest - kept
    if behind.max(initial=0.0) > MAX_BACKWARDS_S:
        row = int(np.argmax(behind > MAX_BACKWARDS_S))
        raise IntegrityError(
            f"{name}: the clock goes backwards, from {newest[row]:.1f} to {kept[row]:.1f} s; split "
            "the log there"
        )
    keep[keep] = behind == 0
    return np.asarray(keep, np.bool_)


class Track:
    """One quantity over time: rows of numbers, or of quaternions.

    Args:
        width: numbers per row.
        rotation: rows are quaternions, scalar first, blended as rotations.
        limit: most rows kept; the older half goes when they are full. None: all are kept.
    """

    def __init__(self, width: int, rotation: bool = False, limit: int | None = None) -> None:
        """Start without rows."""
        self._rotation = rotation
        self._limit = limit
        self._count = 0
        self._t = np.empty(_FIRST_ROWS)
        self._rows = np.empty((_FIRST_ROWS, width))

    def __len__(self) -> int:
        """Return how many rows there are."""
        return self._count

    @property
    def first_s(self) -> float | None:
        """Time of the first row, None where there is none."""
        return float(self._t[0]) if self._count else None

    @property
    def last_s(self) -> float | None:
        """Time of the last row, None where there is none."""
        return float(self._t[self._count - 1]) if self._count else None

    @property
    def last_step_s(self) -> float | None:
        """Time between the last two rows, None where there are fewer."""
        if self._count < 2:
            return None
        return float(self._t[self._count - 1] - self._t[self._count - 2])

    def append(self, t: float, *row: float) -> None:
        """Add a row; one that is not later than the last is taken as at the last one's time."""
        if self._count == len(self._t):
            self._make_room()
        last_s = self.last_s
        self._t[self._count] = t if last_s is None else max(t, last_s)
        self._rows[self._count] = row
        self._count += 1

    def extend(self, times: Floats, rows: Floats) -> None:
        """Take times (N,), not decreasing, and rows (N, width) at once, in place of what was."""
        self._t = np.asarray(times, np.float64)
        self._rows = np.asarray(rows, np.float64)
        self._count = len(self._t)

    def clear(self) -> None:
        """Forget all rows."""
        self._count = 0

    def _make_room(self) -> None:
        if self._limit is not None and self._count >= self._limit:
            keep = self._count // 2
            self._t[:keep] = self._t[self._count - keep : self._count]
            self._rows[:keep] = self._rows[self._count - keep : self._count]
            self._count = keep
            return
        more = max(self._count, _FIRST_ROWS)
        self._t = np.concatenate([self._t, np.empty(more)])
        self._rows = np.concatenate([self._rows, np.empty((more, self._rows.shape[1]))])

    def at(self, t: float) -> tuple[Floats, float] | None:
        """Return the row (width,) at a time and the age of the nearest one; None if all are far."""
        place = place_of(self._t[: self._count], t)
        if place is None:
            return None
        first, second = self._rows[place.before], self._rows[place.after]
        if self._rotation:
            row = telemetry_rotation.between(first, second, place.share)
        else:
            row = first + place.share * (second - first)
        return row, place.age_s
