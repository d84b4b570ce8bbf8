"""A finished log for the map's time slider: every fix in columns, and the truth beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from ..core.geo import distance_m
from .fix import Reason, State
from .score_read import ScoredFix, fix_lines, parse_fix
from .score_truth import Truth

Floats = npt.NDArray[np.float64]

STATES = tuple(state.value for state in State)
REASONS = tuple(reason.value for reason in Reason)
SOURCES = ("visual", "propagated")
# Of a reason or source that this version does not know, and of none.
_OTHER, _NONE = 254, 255
_MOST_CANDIDATES = 5
_EXTRA = ("ve_mps", "vn_mps", "heading_deg")


@dataclass(frozen=True)
class Log:
    """A log in columns.

    Attributes:
        name: of the file.
        columns: (N,) each: `t`, `lat`, `lon` float64, `state`, `reason`, `source` uint8, all other
            numbers float32; NaN and 255 for none.
        top: of each fix: latitude, longitude, side in metres, cosine.
        events: of the truth: number of the fix from which on, and name.
    """

    name: str
    columns: dict[str, npt.NDArray[Any]]
    top: list[list[list[float]]]
    events: list[tuple[int, str]]

    def describe(self) -> dict[str, Any]:
        """Return what a reader of `pack` has to know: columns, and where each begins."""
        at, places = 0, []
        for name, column in self.columns.items():
            places.append({"name": name, "type": column.dtype.str, "at": at})
            at += _padded(column.nbytes)
        return {
            "name": self.name,
            "count": len(self.columns["state"]),
            "states": STATES,
            "reasons": REASONS,
            "sources": SOURCES,
            "has_truth": "error_m" in self.columns,
            "columns": places,
            "events": self.events,
        }

    def packed(self) -> bytes:
        """Return all columns, little-endian, each padded to 8 bytes."""
        return b"".join(c.tobytes().ljust(_padded(c.nbytes), b"\0") for c in self.columns.values())


def read_log(path: Path, truth: Truth | None) -> Log:
    """Read a `fixes.jsonl`; every line is verified.

    Args:
        path: the file.
        truth: true positions; what is made of them is only shown.

    Raises:
        InputError: a line is no fix of this format, or no fix is covered by the truth.
    """
    fixes: list[ScoredFix] = []
    extra: list[list[float]] = []
    sources: list[int] = []
    top: list[list[list[float]]] = []
    for line, origin in fix_lines(path):
        fixes.append(parse_fix(line, origin))
        value = json.loads(line)
        extra.append([_finite(value.get(name), name, origin) for name in _EXTRA])
        sources.append(_code(SOURCES, value.get("source")))
        top.append(_candidates(value["top"], origin))
    columns: dict[str, npt.NDArray[Any]] = {
        name: _column(fixes, name, np.float64) for name in ("t", "lat", "lon")
    }
    for name in ("sigma_m", "hpl_m", "agl_m", "anchor_age_s", "score", "latency_ms"):
        columns[name] = _column(fixes, name, np.float32)
    for name, column in zip(_EXTRA, np.array(extra, np.float32).T, strict=True):
        columns[name] = np.ascontiguousarray(column)
    columns["frame"] = np.array([fix.frame for fix in fixes], np.float64)
    columns["state"] = np.array([_code(STATES, fix.state) for fix in fixes], np.uint8)
    columns["reason"] = np.array([_code(REASONS, fix.reason) for fix in fixes], np.uint8)
    columns["source"] = np.array(sources, np.uint8)
    events = [] if truth is None else _add_truth(columns, fixes, truth, path)
    return Log(path.name, columns, top, events)


def _add_truth(
    columns: dict[str, npt.NDArray[Any]], fixes: Sequence[ScoredFix], truth: Truth, path: Path
) -> list[tuple[int, str]]:
    """Add true positions and errors; return what befell the flight, by number of a fix."""
    places = [truth.at(fix.file, fix.t) for fix in fixes]
    known = [i for i, place in enumerate(places) if place is not None]
    if not known:
        raise InputError(
            f"{truth.name}: covers none of the fixes in {path}; give the truth of this flight"
        )
    true = np.full((len(fixes), 2), np.nan)
    true[known] = [places[i] for i in known]
    columns["true_lat"], columns["true_lon"] = np.ascontiguousarray(true.T)
    error_m = np.full(len(fixes), np.nan, np.float32)
    both = np.flatnonzero(np.isfinite(true[:, 0]) & np.isfinite(columns["lat"]))
    if len(both):
        lat, lon = columns["lat"][both], columns["lon"][both]
        error_m[both] = distance_m(true[both, 0], true[both, 1], lat, lon)
    columns["error_m"] = error_m
    rows = {fix.file: number for number, fix in enumerate(fixes) if fix.file is not None}
    files = {row: file for file, row in truth.row_of_file.items()}
    found: list[tuple[int, str]] = []
    for event in truth.events:
        number = rows.get(files.get(event.row, ""))
        if number is None and truth.t is not None:
            later = np.flatnonzero(columns["t"] >= truth.t[event.row])
            number = int(later[0]) if len(later) else None
        if number is not None:
            found.append((number, event.name))
    return found


def _column(fixes: Sequence[ScoredFix], name: str, kind: Any) -> npt.NDArray[Any]:
    values = (getattr(fix, name) for fix in fixes)
    return np.array([math.nan if value is None else value for value in values], kind)


def _code(names: Sequence[str], name: str | None) -> int:
    if name is None:
        return _NONE
    return names.index(name) if name in names else _OTHER


def _finite(value: object, what: str, origin: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{origin}: {what} {value!r}, expected a finite number, or null")
    return float(value)


def _candidates(top: Any, origin: str) -> list[list[float]]:
    try:
        rows = [[c["lat"], c["lon"], c["level"], c["score"]] for c in top[:_MOST_CANDIDATES]]
    except (KeyError, TypeError):
        rows = [[None]]
    found = [[_finite(value, "top", origin) for value in row] for row in rows]
    if any(len(row) != 4 or not all(map(math.isfinite, row)) for row in found):
        raise InputError(f"{origin}: top is no list of candidates; expected lat, lon, level, score")
    return found


def _padded(size: int) -> int:
    return -(-size // 8) * 8
