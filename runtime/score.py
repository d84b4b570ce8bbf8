"""Scoring fixes against the truth: the only place where a true position is ever read."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from ..core.files import read_bytes
from ..core.geo import distance_m
from .tables import read_csv_rows, read_numbers, require_columns, row_of_file

Floats = npt.NDArray[np.float64]

MAX_GAP_S = 1.0  # truth is interpolated between rows, and not extended further than this
_STATES = ("INIT", "ACQUIRING", "TRACK", "DEGRADED", "NO_FIX", "OUT_OF_PACK")


@dataclass(frozen=True)
class ScoredFix:
    """What scoring and plotting need of a fix, as it stands in `fixes.jsonl`."""

    frame: int
    t: float | None
    file: str | None
    state: str
    reason: str | None
    lat: float | None
    lon: float | None
    sigma_m: float | None
    hpl_m: float | None
    level_m: float | None
    latency_ms: float
    agl_m: float | None = None
    diagnostics: dict[str, Any] | None = None


@dataclass(frozen=True)
class Truth:
    """True positions, by file name or by time.

    Attributes:
        name: the file, for errors.
        lat: (N,) degrees.
        lon: (N,) degrees.
        t: (N,) seconds, None where the rows go by file.
        row_of_file: row of each file name.
    """

    name: str
    lat: Floats
    lon: Floats
    t: Floats | None
    row_of_file: dict[str, int]

    def at(self, file: str | None, t: float | None) -> tuple[float, float] | None:
        """Return latitude and longitude of a frame, None where the truth does not cover it."""
        if file is not None and file in self.row_of_file:
            row = self.row_of_file[file]
            return float(self.lat[row]), float(self.lon[row])
        if t is None or self.t is None or np.abs(self.t - t).min() > MAX_GAP_S:
            return None
        return float(np.interp(t, self.t, self.lat)), float(np.interp(t, self.t, self.lon))


@dataclass(frozen=True)
class Score:
    """How good a run was; errors are horizontal, in metres, over the fixes issued.

    Attributes:
        frames: frames with a known true position.
        fixes: frames among them that got a position.
        states: frames per state.
        reasons: frames per reason of refusal.
        median_m: half of the fixes are closer (CEP50).
        r95_m: 95 % of the fixes are closer.
        rmse_m: root mean square.
        max_m: the worst.
        false_fixes: fixes farther off than the footprint of the tile that matched.
        within_hpl: share of the fixes closer than their own `hpl_m`.
        sigma_ratio: root mean square of error / sigma; honest sigmas per axis give 1.41.
        latency_p50_ms: median time from frame to fix.
        latency_p95_ms: 95 % of the frames were faster.
    """

    frames: int
    fixes: int
    states: dict[str, int]
    reasons: dict[str, int]
    median_m: float | None
    r95_m: float | None
    rmse_m: float | None
    max_m: float | None
    false_fixes: int
    within_hpl: float | None
    sigma_ratio: float | None
    latency_p50_ms: float
    latency_p95_ms: float

    def to_dict(self) -> dict[str, Any]:
        """Return the score for `--json`."""
        return {
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }


def read_truth(path: Path) -> Truth:
    """Read a truth CSV: `file` or `t`, `lat`, `lon` in degrees.

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
    return Truth(str(path), lat, lon, t, files)


def read_fixes(path: Path) -> list[ScoredFix]:
    """Read a `fixes.jsonl`.

    Raises:
        InputError: a line is no fix of this format.
    """
    try:
        lines = read_bytes(path).decode().splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a fixes file; expected UTF-8 JSON lines") from None
    if not lines:
        raise InputError(f"{path}: holds no fixes")
    return [parse_fix(line, f"{path}: line {number}") for number, line in enumerate(lines, 1)]


def parse_fix(line: str, origin: str) -> ScoredFix:
    """Read one line of a fixes file; `origin` names it in errors.

    Raises:
        InputError: it is no fix of this format.
    """
    try:
        value = json.loads(line)
        if value["v"] != 1:
            raise InputError(f"{origin}: fix version {value['v']!r}, expected 1; update s4g")
        fix = ScoredFix(
            frame=int(value["frame"]),
            t=_optional(value["t"]),
            file=value.get("file"),
            state=str(value["state"]),
            reason=value.get("reason"),
            lat=_optional(value["lat"]),
            lon=_optional(value["lon"]),
            sigma_m=_optional(value["sigma_m"]),
            hpl_m=_optional(value["hpl_m"]),
            level_m=_optional(value["top"][0]["level"]) if value["top"] else None,
            latency_ms=float(value["latency_ms"]),
            agl_m=_optional(value["agl_m"]),
            diagnostics=value.get("diagnostics"),
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise InputError(
            f"{origin}: not a fix of s4g-run; expected a line of fixes.jsonl"
        ) from None
    if fix.state not in _STATES:
        raise InputError(f"{origin}: state {fix.state!r}, expected one of {', '.join(_STATES)}")
    return fix


def _optional(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def score_fixes(fixes: Sequence[ScoredFix], truth: Truth) -> Score:
    """Score fixes against the truth.

    Raises:
        InputError: the truth covers none of the frames.
    """
    pairs = [(fix, place) for fix in fixes if (place := truth.at(fix.file, fix.t)) is not None]
    if not pairs:
        raise InputError(
            f"{truth.name}: covers none of the {len(fixes)} frames; its 'file' or 't' column must "
            "match the frames"
        )
    issued = [(f, p) for f, p in pairs if f.lat is not None and f.lon is not None]
    errors = errors_m(issued)
    latency = np.array([fix.latency_ms for fix, _ in pairs])
    found = bool(issued)
    return Score(
        frames=len(pairs),
        fixes=len(issued),
        states=_counts([fix.state for fix, _ in pairs]),
        reasons=_counts([fix.reason for fix, _ in pairs if fix.reason is not None]),
        median_m=float(np.median(errors)) if found else None,
        r95_m=float(np.percentile(errors, 95)) if found else None,
        rmse_m=float(np.sqrt((errors**2).mean())) if found else None,
        max_m=float(errors.max()) if found else None,
        false_fixes=int((errors > _values(issued, "level_m", math.inf)).sum()),
        within_hpl=float((errors < _values(issued, "hpl_m", math.inf)).mean()) if found else None,
        sigma_ratio=_rms(errors / _values(issued, "sigma_m", math.nan)) if found else None,
        latency_p50_ms=float(np.percentile(latency, 50)),
        latency_p95_ms=float(np.percentile(latency, 95)),
    )


def errors_m(issued: Sequence[tuple[ScoredFix, tuple[float, float]]]) -> Floats:
    """Return the distance of each fix from its true latitude and longitude, metres."""
    if not issued:
        return np.empty(0)
    lat, lon = _values(issued, "lat", math.nan), _values(issued, "lon", math.nan)
    true_lat, true_lon = np.array([place for _, place in issued], np.float64).T
    return distance_m(lat, lon, true_lat, true_lon)


def _values(
    issued: Sequence[tuple[ScoredFix, tuple[float, float]]], name: str, missing: float
) -> Floats:
    values = [getattr(fix, name) for fix, _ in issued]
    return np.array([missing if v is None else v for v in values], np.float64)


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _counts(names: Sequence[str | None]) -> dict[str, int]:
    return {str(name): names.count(name) for name in sorted(set(map(str, names)))}


def score_table(score: Score) -> str:
    """Return the score as lines of text."""
    share = 100 * score.fixes / score.frames
    rows = [("fixes", f"{score.fixes} of {score.frames} frames ({share:.0f} %)")]
    if reasons := ", ".join(f"{count} {name}" for name, count in score.reasons.items()):
        rows.append(("without", reasons))
    if score.median_m is not None:
        assert score.r95_m is not None and score.max_m is not None and score.rmse_m is not None
        rows += [
            ("median (CEP50)", f"{score.median_m:.1f} m"),
            ("R95", f"{score.r95_m:.1f} m"),
            ("RMSE", f"{score.rmse_m:.1f} m"),
            ("max", f"{score.max_m:.1f} m"),
            ("false fixes", f"{score.false_fixes} (farther off than a tile)"),
            ("within hpl", f"{100 * (score.within_hpl or 0):.1f} %"),
            ("error / sigma", f"{score.sigma_ratio:.2f} rms (1.41 is honest)"),
        ]
    rows.append(
        ("frame to fix", f"p50 {score.latency_p50_ms:.1f} ms, p95 {score.latency_p95_ms:.1f} ms")
    )
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def stage_table(stages: Collection[dict[str, float]]) -> str:
    """Return p50 and p95 of each stage's milliseconds as lines of text."""
    names = list(dict.fromkeys(name for times in stages for name in times))
    lines = [f"{'stage':<10} {'p50 ms':>8} {'p95 ms':>8}"]
    for name in names:
        p50, p95 = np.percentile([times[name] for times in stages if name in times], [50, 95])
        lines.append(f"{name:<10} {p50:8.1f} {p95:8.1f}")
    return "\n".join(lines)
