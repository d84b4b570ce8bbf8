"""Fixes and frames as messages that Foxglove and Lichtblick show, JSON with their schemas.

Field names and units are those of the published schemas (https://docs.foxglove.dev/docs/sdk/schemas:
LocationFix, CompressedImage, Log). Viewers read of a JSON schema only fields of one plain type
each, so nothing is ever null: what is unknown is left out.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from .fix import Fix, State
from .sink import Moment
from .utc import iso_utc

# LocationFix must have an altitude, and JSON knows no NaN. So it is 0, give or take 10 km.
UNKNOWN_VARIANCE_M2 = 1e8
KNOWN = 3  # PositionCovarianceType
INFO, WARNING = 2, 3  # LogLevel
_COLOURS = {
    State.TRACK: {"r": 0.1, "g": 0.7, "b": 0.2, "a": 1.0},
    State.DEGRADED: {"r": 0.95, "g": 0.6, "b": 0.1, "a": 1.0},
}
JPEG_FRAME = "camera"  # coordinate frames: of the lens, of the drone
DRONE_FRAME = "drone"


def location_fix(moment: Moment, time_ns: int) -> bytes | None:
    """Return a fix as foxglove.LocationFix; None where it has no position.

    `position_covariance` is in m², east-north-up, row by row; `sigma_m` is one standard deviation
    per axis. The altitude is not known: its variance says so, and `metadata` in words.

    Args:
        moment: told to the output.
        time_ns: its time.
    """
    fix = moment.fix
    if fix.lat is None or fix.lon is None or fix.sigma_m is None:
        return None
    variance_m2 = fix.sigma_m**2
    metadata = {
        "state": fix.state.value,
        "source": fix.source,
        "hpl_m": None if fix.hpl_m is None else f"{fix.hpl_m:.2f}",
        "altitude": "unknown",
    }
    return _json(
        {
            "timestamp": _time(time_ns),
            "frame_id": DRONE_FRAME,
            "latitude": round(fix.lat, 7),
            "longitude": round(fix.lon, 7),
            "altitude": 0.0,
            "position_covariance": [
                variance_m2, 0.0, 0.0,
                0.0, variance_m2, 0.0,
                0.0, 0.0, UNKNOWN_VARIANCE_M2,
            ],
            "position_covariance_type": KNOWN,
            "color": _COLOURS[fix.state],
            "metadata": [{"key": k, "value": v} for k, v in metadata.items() if v is not None],
        }
    )  # fmt: skip


def compressed_image(jpeg: bytes, time_ns: int) -> bytes:
    """Return a JPEG as foxglove.CompressedImage."""
    return _json(
        {
            "timestamp": _time(time_ns),
            "frame_id": JPEG_FRAME,
            "data": base64.b64encode(jpeg).decode(),
            "format": "jpeg",
        }
    )


def log_line(fix: Fix, before: State | None, time_ns: int) -> bytes | None:
    """Return a change of state as foxglove.Log; None where there is none."""
    if fix.state is before:
        return None
    why = "" if fix.reason is None else f" ({fix.reason.value})"
    since = "" if before is None else f"{before.value} -> "
    return _json(
        {
            "timestamp": _time(time_ns),
            "level": INFO if fix.state is State.TRACK else WARNING,
            "message": f"{since}{fix.state.value}{why}",
            "name": "s4g-run",
            "file": "",
            "line": 0,
        }
    )


def fix_message(moment: Moment) -> bytes:
    """Return a fix as in docs/fixes.md, without what is null, and its time as `utc`."""
    value = {k: v for k, v in json.loads(moment.fix.to_json()).items() if v is not None}
    if moment.utc_s is not None:
        value["utc"] = iso_utc(moment.utc_s)
    return _json(value)


def _time(time_ns: int) -> dict[str, int]:
    return {"sec": time_ns // 10**9, "nsec": time_ns % 10**9}


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    properties = required | (optional or {})
    return {"type": "object", "properties": properties, "required": list(required)}


def _array(items: dict[str, Any], **limits: int) -> dict[str, Any]:
    return {"type": "array", "items": items, **limits}


_NUMBER = {"type": "number"}
_INTEGER = {"type": "integer"}
_STRING = {"type": "string"}
_TIME = _object(
    {
        "sec": {"type": "integer", "minimum": 0},
        "nsec": {"type": "integer", "minimum": 0, "maximum": 999_999_999},
    }
)
_COLOUR = _object(dict.fromkeys("rgba", _NUMBER))
_CANDIDATE = _object({"lat": _NUMBER, "lon": _NUMBER, "level": _NUMBER, "score": _NUMBER})
_DIAGNOSTICS = _object(
    dict.fromkeys(("lat", "lon", "mass", "spread_m", "level", "patches"), _NUMBER)
)

LOCATION_FIX = "foxglove.LocationFix"
COMPRESSED_IMAGE = "foxglove.CompressedImage"
LOG = "foxglove.Log"
FIX = "s4g.Fix"
SCHEMAS: dict[str, dict[str, Any]] = {
    LOCATION_FIX: _object(
        {
            "timestamp": _TIME,
            "frame_id": _STRING,
            "latitude": _NUMBER,
            "longitude": _NUMBER,
            "altitude": _NUMBER,
            "position_covariance": _array(_NUMBER, minItems=9, maxItems=9),
            "position_covariance_type": {"type": "integer", "minimum": 0, "maximum": 3},
        },
        {
            "color": _COLOUR,
            "metadata": _array(_object({"key": _STRING, "value": _STRING})),
        },
    ),
    COMPRESSED_IMAGE: _object(
        {
            "timestamp": _TIME,
            "frame_id": _STRING,
            "data": {"type": "string", "contentEncoding": "base64"},
            "format": _STRING,
        }
    ),
    LOG: _object(
        {
            "timestamp": _TIME,
            "level": {"type": "integer", "minimum": 0, "maximum": 5},
            "message": _STRING,
            "name": _STRING,
            "file": _STRING,
            "line": {"type": "integer", "minimum": 0},
        }
    ),
    FIX: _object(
        {"v": _INTEGER, "frame": _INTEGER, "state": _STRING, "top": _array(_CANDIDATE)},
        {
            **dict.fromkeys(("utc", "source", "file", "reason"), _STRING),
            **dict.fromkeys(
                (
                    "t", "lat", "lon", "sigma_m", "hpl_m", "ve_mps", "vn_mps", "heading_deg",
                    "agl_m", "anchor_age_s", "score", "latency_ms",
                ),
                _NUMBER,
            ),
            "diagnostics": _DIAGNOSTICS,
        },
    ),
}  # fmt: skip
