"""What time it is where the frames come from: their clock in Unix seconds.

Inside, times are those of the frames' own clock; UTC is for what leaves.
"""

from __future__ import annotations

import math
import re
import time
from datetime import datetime, timezone

from ..core.errors import InputError

# A clock that shows more than this, September 2001, counts from 1970: no video lasts that long.
_UNIX_FROM_S = 1e9
_CLOSE_S = 1e-3
_TRIES = 5
_LATEST_S = 253402300799.0  # the last second of the year 9999


class Utc:
    """Turns times of the frames' clock into Unix seconds."""

    def __init__(self, is_live: bool, epoch_s: float | None = None) -> None:
        """Choose the clock.

        Args:
            is_live: frames come on the machine's monotonic clock. Its UTC is asked each time: a
                drone often learns it only in flight, and then it jumps.
            epoch_s: Unix seconds at which the clock of files shows 0; None where nobody knows.
        """
        self._is_live = is_live
        self._epoch_s = epoch_s

    def of(self, t: float | None) -> float | None:
        """Return a time in Unix seconds; None where nobody knows."""
        if t is None:
            return None
        if self._is_live:
            return _unix_minus_monotonic_s() + t
        if self._epoch_s is not None:
            return self._epoch_s + t
        return t if _UNIX_FROM_S <= t <= _LATEST_S else None


def _unix_minus_monotonic_s() -> float:
    """Return how much the one clock shows more than the other, read within a millisecond."""
    best_s, offset_s = math.inf, 0.0
    for _ in range(_TRIES):
        before_s = time.monotonic()
        unix_s = time.time()
        after_s = time.monotonic()
        if after_s - before_s < best_s:
            # Another thread may run between two readings.
            best_s, offset_s = after_s - before_s, unix_s - (before_s + after_s) / 2
        if best_s < _CLOSE_S:
            break
    return offset_s


def parse_epoch(text: str) -> float:
    """Read a time: ISO 8601 (UTC where it names no zone), or Unix seconds.

    Raises:
        InputError: it is neither.
    """
    try:
        # Python 3.10 does not read the Z yet.
        moment = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text.strip()))
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    except ValueError:
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
    if not 0 <= seconds <= _LATEST_S:
        raise InputError(
            f"--epoch {text}: no time; expected ISO 8601, such as 2026-05-04T09:30:00Z, or Unix "
            "seconds"
        )
    return seconds


def iso_utc(utc_s: float) -> str:
    """Return Unix seconds as ISO 8601 to the millisecond: `2026-05-04T09:30:00.125Z`."""
    milliseconds = round(utc_s * 1e3)
    moment = datetime.fromtimestamp(milliseconds // 1000, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"
