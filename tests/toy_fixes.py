"""Fixes and truths made up by hand, in metres around one home, for the tests of scoring."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from s4g.core.geo import LocalFrame
from s4g.runtime.score_read import ScoredFix

HOME = LocalFrame(47.0, 8.0)


def place(east_m: float, home: LocalFrame = HOME) -> tuple[float, float]:
    """Latitude and longitude of a place so far east of home."""
    lat, lon = home.to_wgs84(east_m, 0.0)
    return float(lat), float(lon)


def fix(number: int, off_m: float | None, **changes: Any) -> ScoredFix:
    """Frame `number` at `number` seconds with a fix so far east of home, or without one."""
    lat, lon = (None, None) if off_m is None else place(off_m)
    known = ScoredFix(
        frame=number,
        t=float(number),
        file=None,
        state="NO_FIX" if off_m is None else "TRACK",
        reason="ambiguous" if off_m is None else None,
        lat=lat,
        lon=lon,
        sigma_m=None if off_m is None else 2.0,
        hpl_m=None if off_m is None else 7.44,
        level_m=40.0,
        latency_ms=10.0 + number,
        anchor_age_s=None if off_m is None else 0.0,
    )
    return dataclasses.replace(known, **changes)


def flown(*offs_m: float | None, **changes: Any) -> list[ScoredFix]:
    """A frame a second, each with a fix so far east of home, or without one."""
    return [fix(number, off_m, **changes) for number, off_m in enumerate(offs_m)]


def truth_csv(
    folder: Path, count: int, events: dict[int, str] | None = None, home: LocalFrame = HOME
) -> Path:
    """A drone that stays at home for `count` seconds."""
    path = folder / "truth.csv"
    place = f"{home.lat_deg},{home.lon_deg}"
    rows = [f"{t},{place},{(events or {}).get(t, '')}" for t in range(count)]
    path.write_text("\n".join(["t,lat,lon,event", *rows]) + "\n")
    return path
