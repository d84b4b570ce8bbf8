"""A fix: where the drone is, how sure that is, or why nobody knows; one JSON line each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

FIX_VERSION = 1


class State(str, Enum):
    """What a consumer may do with a fix; `lat`/`lon` are set in TRACK and DEGRADED alone."""

    INIT = "INIT"
    ACQUIRING = "ACQUIRING"
    TRACK = "TRACK"
    DEGRADED = "DEGRADED"
    NO_FIX = "NO_FIX"
    OUT_OF_PACK = "OUT_OF_PACK"


class Reason(str, Enum):
    """Why a frame gave no fix."""

    NO_FRAMES = "no_frames"  # the camera delivers nothing, or nothing recent
    NO_TELEMETRY = "no_telemetry"  # nothing is known of attitude and height at this time
    FRAME_SIZE = "frame_size"  # the frame has another shape than the lens was calibrated for
    NO_HEIGHT = "no_height"  # the height above ground is not positive
    TILT = "tilt"  # the camera looks too far off straight down
    TOO_LOW = "too_low"  # the frame shows less ground than the smallest tile of the pack
    TOO_HIGH = "too_high"  # a tile is only a few pixels of the frame
    DARK = "dark"
    BRIGHT = "bright"
    UNIFORM = "uniform"  # fog, cloud, water, a covered lens
    BLURRED = "blurred"
    AMBIGUOUS = "ambiguous"  # several places in the pack look alike
    STALE = "stale"  # nothing was recognised for so long that the position is no longer known


@dataclass(frozen=True)
class Candidate:
    """A tile that looks like the ground in the middle of the frame.

    Attributes:
        lat: of the tile's centre, degrees WGS84.
        lon: of the tile's centre.
        level_m: side of the tile, metres.
        score: cosine similarity, -1 to 1.
    """

    lat: float
    lon: float
    level_m: float
    score: float


@dataclass(frozen=True)
class Diagnostics:
    """What led to a fix or its refusal, for calibration; never a position to fly by.

    Attributes:
        lat: most likely latitude, accepted or not.
        lon: most likely longitude.
        mass: share of the probability in the dominant mode.
        spread_m: standard deviation per axis inside the mode, metres.
        level_m: side of the tiles, metres.
        patches: how many patches of the frame were matched.
    """

    lat: float
    lon: float
    mass: float
    spread_m: float
    level_m: float
    patches: int


@dataclass(frozen=True)
class Fix:
    """The result for one frame; units in the names, None where unknown or withheld.

    Attributes:
        frame: index of the frame in its source.
        t: seconds on the frames' clock.
        state: what this is.
        file: name of the photo, None for videos and cameras.
        reason: why there is no fix.
        lat: latitude of the drone, degrees WGS84.
        lon: longitude.
        sigma_m: standard deviation per axis, metres.
        hpl_m: horizontal protection level: the error exceeds it in 1 of 1000 fixes.
        ve_mps: speed east.
        vn_mps: speed north.
        heading_deg: of the camera's top edge, clockwise from true north.
        agl_m: height above ground.
        source: `visual` (matched in this frame) or `propagated`.
        anchor_age_s: seconds since the last match.
        score: cosine of the best tile.
        latency_ms: from the frame's arrival to this fix, None where no frame led to it.
        top: the best tiles.
        diagnostics: only when asked for.
    """

    frame: int
    t: float | None
    state: State
    file: str | None = None
    reason: Reason | None = None
    lat: float | None = None
    lon: float | None = None
    sigma_m: float | None = None
    hpl_m: float | None = None
    ve_mps: float | None = None
    vn_mps: float | None = None
    heading_deg: float | None = None
    agl_m: float | None = None
    source: str | None = None
    anchor_age_s: float | None = None
    score: float | None = None
    latency_ms: float | None = 0.0
    top: tuple[Candidate, ...] = ()
    diagnostics: Diagnostics | None = None

    def to_json(self) -> str:
        """Return the fix as one line of JSON (docs/fixes.md), degrees to 1 cm."""
        value: dict[str, Any] = {
            "v": FIX_VERSION,
            "t": _rounded(self.t, 6),
            "frame": self.frame,
            "state": self.state.value,
            "lat": _rounded(self.lat, 7),
            "lon": _rounded(self.lon, 7),
            "sigma_m": _rounded(self.sigma_m, 2),
            "hpl_m": _rounded(self.hpl_m, 2),
            "ve_mps": _rounded(self.ve_mps, 2),
            "vn_mps": _rounded(self.vn_mps, 2),
            "heading_deg": _rounded(self.heading_deg, 2),
            "agl_m": _rounded(self.agl_m, 2),
            "source": self.source,
            "anchor_age_s": _rounded(self.anchor_age_s, 3),
            "score": _rounded(self.score, 4),
            "latency_ms": _rounded(self.latency_ms, 2),
            "top": [
                {
                    "lat": _rounded(c.lat, 7),
                    "lon": _rounded(c.lon, 7),
                    "level": _rounded(c.level_m, 2),
                    "score": _rounded(c.score, 4),
                }
                for c in self.top
            ],
        }
        if self.file is not None:
            value["file"] = self.file
        if self.reason is not None:
            value["reason"] = self.reason.value
        if (d := self.diagnostics) is not None:
            value["diagnostics"] = {
                "lat": _rounded(d.lat, 7),
                "lon": _rounded(d.lon, 7),
                "mass": _rounded(d.mass, 5),
                "spread_m": _rounded(d.spread_m, 3),
                "level": _rounded(d.level_m, 2),
                "patches": d.patches,
            }
        return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
