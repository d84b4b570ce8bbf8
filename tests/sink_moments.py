"""Moments for tests of outputs, and what a run tells them; read with `runpy`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st

from s4g.runtime.fix import Fix, Reason, State
from s4g.runtime.sink import Moment, SinkUrl, parse_sink_url

START_UTC_S = 1777887000.125  # 2026-05-04T09:30:00.125Z


def running(overwrite: bool = False) -> Any:
    """What `open_sink` asks of a run."""
    return SimpleNamespace(options={"overwrite": overwrite})


def url(text: str) -> SinkUrl:
    return parse_sink_url(text)


def seen_at(lat: float, lon: float, number: int = 0, **changes: Any) -> Moment:
    """A fix with a position, the `number`-th of five a second."""
    t = number / 5
    values: dict[str, Any] = {
        "frame": number,
        "t": t,
        "state": State.TRACK,
        "lat": lat,
        "lon": lon,
        "sigma_m": 2.5,
        "hpl_m": 9.3,
        "ve_mps": 3.0,
        "vn_mps": -4.0,
        "heading_deg": 44.2,
        "agl_m": 101.5,
        "source": "visual",
        "anchor_age_s": 0.0,
        "score": 0.8123,
        "latency_ms": 31.5,
    }
    outer = {key: changes.pop(key) for key in ("utc_s", "resets", "jpeg") if key in changes}
    return Moment(Fix(**(values | changes)), **({"utc_s": START_UTC_S + t} | outer))


def lost_at(number: int, reason: Reason = Reason.DARK, **changes: Any) -> Moment:
    """A frame without a fix."""
    fix = Fix(number, number / 5, State.NO_FIX, reason=reason, agl_m=101.5)
    return Moment(dataclasses.replace(fix, **changes), START_UTC_S + number / 5)


def flight(count: int = 20, gap: range = range(8, 12)) -> list[Moment]:
    """A flight to the north-east with a gap."""
    return [
        lost_at(i) if i in gap else seen_at(47.0 + i * 1e-4, 11.0 + i * 2e-4, i)
        for i in range(count)
    ]


def moments() -> st.SearchStrategy[Moment]:
    """Anything that outputs may be told."""
    number = st.floats(-1e4, 1e4)

    def build(**values: Any) -> Moment:
        state, lat, lon = values.pop("state"), values.pop("lat"), values.pop("lon")
        utc_s, resets = values.pop("utc_s"), values.pop("resets")
        if state in (State.TRACK, State.DEGRADED):
            place = {"lat": lat, "lon": lon, "sigma_m": 3.0, "hpl_m": 11.16}
            return Moment(Fix(state=state, **place, **values), utc_s, resets=resets)
        return Moment(Fix(state=state, **values), utc_s, resets=resets)

    return st.builds(
        build,
        frame=st.integers(0, 10**6),
        t=st.none() | st.floats(0, 1e6),
        state=st.sampled_from(State),
        lat=st.floats(-90, 90),
        lon=st.floats(-180, 180),
        reason=st.none() | st.sampled_from(Reason),
        ve_mps=st.none() | number,
        vn_mps=st.none() | number,
        agl_m=st.none() | number,
        heading_deg=st.none() | st.floats(0, 360),
        source=st.none() | st.sampled_from(["visual", "propagated"]),
        utc_s=st.none() | st.floats(0, 4e9),
        resets=st.integers(0, 2),
    )


def write_all(sink: Any, said: list[Moment], path: Path | None = None) -> None:
    """Send all and end the file."""
    for moment in said:
        sink.send(moment)
    sink.close()
