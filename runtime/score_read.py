"""Reading fixes back from `fixes.jsonl`, to score and to draw them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.console import say
from ..core.errors import InputError
from ..core.files import read_bytes
from .fix import State

_STATES = tuple(state.value for state in State)
_BROKEN = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


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
    latency_ms: float | None
    agl_m: float | None = None
    diagnostics: dict[str, Any] | None = None
    anchor_age_s: float | None = None
    score: float | None = None

    @property
    def place(self) -> tuple[float, float] | None:
        """Latitude and longitude, None where no position was issued."""
        return None if self.lat is None or self.lon is None else (self.lat, self.lon)


def read_fixes(path: Path) -> list[ScoredFix]:
    """Read a `fixes.jsonl`; a last line that was cut short, as by a power cut, is left out.

    Raises:
        InputError: another line is no fix of this format, or there is none.
    """
    return [parse_fix(line, origin) for line, origin in fix_lines(path)]


def fix_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines of a `fixes.jsonl` and what errors call each; as `read_fixes`.

    Raises:
        InputError: there is none, or it is no text.
    """
    lines = read_bytes(path).split(b"\n")
    cut_short = lines[-1] != b"" and not _is_json(lines[-1])
    if cut_short:
        say(f"note: {path}: line {len(lines)} is cut short and left out")
    if cut_short or lines[-1] == b"":
        lines.pop()
    if not lines:
        raise InputError(f"{path}: holds no fixes")
    try:
        for number, line in enumerate(lines, 1):
            yield line.decode(), f"{path}: line {number}"
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a fixes file; expected UTF-8 JSON lines") from None


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def parse_fix(line: str, origin: str) -> ScoredFix:
    """Read one line of a fixes file; `origin` names it in errors.

    Raises:
        InputError: it is no fix of this format, or a value of it cannot be.
    """
    try:
        value = json.loads(line)
        if value["v"] != 1:
            raise InputError(f"{origin}: fix version {value['v']!r}, expected 1; update s4g")
        top = value["top"]
        fix = ScoredFix(
            frame=int(value["frame"]),
            t=_number(value, "t", origin),
            file=_text(value.get("file")),
            state=str(value["state"]),
            reason=_text(value.get("reason")),
            lat=_number(value, "lat", origin, -90, 90),
            lon=_number(value, "lon", origin, -180, 180),
            sigma_m=_number(value, "sigma_m", origin, 0),
            hpl_m=_number(value, "hpl_m", origin, 0),
            level_m=_number(top[0], "level", origin, 0) if top else None,
            latency_ms=_number(value, "latency_ms", origin, 0),
            agl_m=_number(value, "agl_m", origin),
            diagnostics=value.get("diagnostics"),
            anchor_age_s=_number(value, "anchor_age_s", origin, 0),
            score=_number(value, "score", origin),
        )
    except _BROKEN:
        raise InputError(
            f"{origin}: not a fix of s4g-run; expected a line of fixes.jsonl"
        ) from None
    if fix.state not in _STATES:
        raise InputError(f"{origin}: state {fix.state!r}, expected one of {', '.join(_STATES)}")
    if (fix.lat is None) != (fix.lon is None):
        raise InputError(f"{origin}: lat {fix.lat}, lon {fix.lon}; expected both or neither")
    if fix.sigma_m == 0:
        raise InputError(f"{origin}: sigma_m 0; expected more than 0 metres, or null for unknown")
    return fix


def _number(
    value: dict[str, Any],
    key: str,
    origin: str,
    least: float = -math.inf,
    most: float = math.inf,
) -> float | None:
    """Return a number of a fix, None for null."""
    if value[key] is None:
        return None
    number = float(value[key])
    if not math.isfinite(number) or not least <= number <= most:
        expected = "a finite number"
        if math.isfinite(most):
            expected += f" from {least:g} to {most:g}"
        elif math.isfinite(least):
            expected += f" of at least {least:g}"
        raise InputError(f"{origin}: {key} {number:g}, expected {expected}, or null")
    return number


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError
    return value
