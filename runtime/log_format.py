"""What a flight log holds: topics, the JSON of each frame, and what is refused on the way back.

A log is a folder of MCAP segments (mcap.dev/spec). Each begins with what it takes to rerun the
flight, then holds one step per frame, its picture, and what was said. A log names no true position:
samples have none, and photos lose their metadata (`log_pixels`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..core.camera import Attitude, Camera
from .fix import Fix, Reason, State
from .frames import Frame
from .intrinsics import Lens
from .telemetry_sample import Sample

FORMAT, VERSION = "s4g-flight-log", 1
FLIGHT, STEPS, NOTES, PLACES = "/flight", "/steps", "/log", "/position"
BOARD = "/board"
PICTURES, RESIDUALS = "/frames", "/frames/residual"
MAX_JSON_BYTES = 1 << 20
MAX_SIDE_PX, MAX_PIXELS = 1 << 16, 1 << 27
# What became of a frame's picture.
PHOTO, EXACT, LOSSY, NOT_ASKED, LOST = "photo", "exact", "lossy", "not_asked", "lost"
_FATES = (PHOTO, EXACT, LOSSY, NOT_ASKED, LOST)
_BROKEN = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


class Malformed(ValueError):
    """A message is none of this format; the text says what is wrong with it."""


@dataclass(frozen=True)
class FrameNote:
    """A frame without its pixels.

    Attributes:
        index: in its source.
        t: seconds on the frames' clock, None for photos.
        file: name of the photo, None for videos and cameras.
        name: what errors call it.
        width_px: columns at full size.
        height_px: rows.
        picture: what became of its picture: one of the constants above.
    """

    index: int
    t: float | None
    file: str | None
    name: str
    width_px: int
    height_px: int
    picture: str

    @classmethod
    def of(cls, frame: Frame, picture: str) -> FrameNote:
        """Describe a frame."""
        size = frame.width_px, frame.height_px
        return cls(frame.index, frame.t, frame.file, frame.name, *size, picture)


@dataclass(frozen=True)
class Step:
    """One turn of the loop: a frame, or the news that there is none.

    Attributes:
        number: 0, 1, 2 … in the flight; one that is missing was lost.
        t: time of the news that there is no frame; None with a frame.
        frame: None where the camera delivered none.
        sample: telemetry of the frame, or why there was none; NO_FRAMES without a frame.
        fix: what was said, as it stands in `fixes.jsonl`.
    """

    number: int
    t: float | None
    frame: FrameNote | None
    sample: Sample | Reason
    fix: dict[str, Any]


@dataclass(frozen=True)
class Flight:
    """What it takes to rerun a flight.

    Attributes:
        flight: its number in the folder.
        segment: number of this file in the flight, from 1.
        first_step: number of the first step that it may hold.
        lens: what the user said of the optics.
        live: whether frames came from a camera.
        pack_path, pack_sha256: of its header, which vouches for everything else in the file.
        encoder_path, encoder_sha256: None where that is a folder.
        model_id: of the encoder.
        backend: what ran it.
        options: of the command, by name.
        versions: of the program and of the libraries that compute.
        started_utc_s: by the machine's clock.
    """

    flight: int
    segment: int
    first_step: int
    lens: Lens
    live: bool
    pack_path: str
    pack_sha256: str
    encoder_path: str
    encoder_sha256: str | None
    model_id: str
    backend: str
    options: dict[str, Any]
    versions: dict[str, str]
    started_utc_s: float


def printable(text: str) -> str:
    """Return a text out of a log as a terminal may show it."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def dump(value: Mapping[str, Any]) -> bytes:
    """Return a value as JSON, floats to the last bit."""
    return json.dumps(_plain(value), separators=(",", ":"), allow_nan=False).encode()


def _plain(value: Any) -> Any:
    """Spell out numbers that JSON has none for."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def flight_json(flight: Flight) -> bytes:
    """Return the message that begins a segment."""
    return dump({"format": FORMAT, "version": VERSION} | asdict(flight))


def step_json(number: int, fix: Fix, frame: FrameNote | None, sample: Sample | None) -> bytes:
    """Return the message of a step; without a sample the fix tells the reason."""
    reason = None
    if frame is None:
        reason = Reason.NO_FRAMES.value
    elif sample is None:
        reason = (fix.reason or Reason.NO_TELEMETRY).value
    value = {
        "step": number,
        "t": fix.t if frame is None else None,
        "frame": None if frame is None else asdict(frame),
        "sample": None if sample is None else asdict(sample),
        "reason": reason,
        "fix": json.loads(fix.to_json()),
    }
    return dump(value)


def read_flight(data: bytes) -> Flight:
    """Read what `flight_json` wrote.

    Raises:
        Malformed: it is something else, or of a later format.
    """
    value = _object(data)
    if value.get("format") != FORMAT:
        raise Malformed("it is no flight log of s4g-run")
    if value.get("version") != VERSION:
        raise Malformed(f"its format is {value.get('version')!r}, this program reads {VERSION}")
    try:
        lens = value["lens"]
        camera = lens["camera"]
        if camera is not None:
            camera = Camera(
                width_px=_whole(camera["width_px"], 1, MAX_SIDE_PX),
                height_px=_whole(camera["height_px"], 1, MAX_SIDE_PX),
                fx_px=_number(camera["fx_px"]),
                fy_px=_number(camera["fy_px"]),
                cx_px=_number(camera["cx_px"]),
                cy_px=_number(camera["cy_px"]),
                distortion=tuple(_number(k) for k in camera["distortion"]),
            )
        options, versions = value["options"], value["versions"]
        if not isinstance(options, dict) or not isinstance(versions, dict):
            raise TypeError
        return Flight(
            flight=_whole(value["flight"]),
            segment=_whole(value["segment"]),
            first_step=_whole(value["first_step"]),
            lens=Lens(_maybe(lens["hfov_deg"]), camera),
            live=_flag(value["live"]),
            pack_path=_text(value["pack_path"]),
            pack_sha256=_text(value["pack_sha256"]),
            encoder_path=_text(value["encoder_path"]),
            encoder_sha256=_name(value["encoder_sha256"]),
            model_id=_text(value["model_id"]),
            backend=_text(value["backend"]),
            options=options,
            versions={_text(k): _text(v) for k, v in versions.items()},
            started_utc_s=_number(value["started_utc_s"]),
        )
    except _BROKEN:
        raise Malformed("what it says of the flight is not of this format") from None


def read_step(data: bytes) -> Step:
    """Read what `step_json` wrote.

    Raises:
        Malformed: it is something else, or a value cannot be.
    """
    value = _object(data)
    try:
        number = _whole(value["step"])
        frame = None if value["frame"] is None else _frame(value["frame"])
        sample = Reason(value["reason"]) if value["sample"] is None else _sample(value["sample"])
        if (frame is None) != (sample is Reason.NO_FRAMES):
            raise ValueError
        t = _maybe(value["t"])
        if (frame is None and t is None) or not isinstance(value["fix"], dict):
            raise ValueError
        State(value["fix"]["state"])
        return Step(number, t, frame, sample, value["fix"])
    except _BROKEN:
        raise Malformed("a step is not of this format") from None


def _frame(value: Any) -> FrameNote:
    frame = FrameNote(
        index=_whole(value["index"]),
        t=_maybe(value["t"]),
        file=_name(value["file"]),
        name=_text(value["name"]),
        width_px=_whole(value["width_px"], 1, MAX_SIDE_PX),
        height_px=_whole(value["height_px"], 1, MAX_SIDE_PX),
        picture=_text(value["picture"]),
    )
    if frame.picture not in _FATES or frame.width_px * frame.height_px > MAX_PIXELS:
        raise ValueError
    return frame


def _sample(value: Any) -> Sample:
    attitude = value["attitude"]
    angles = (attitude[key] for key in ("yaw_deg", "pitch_deg", "roll_deg", "agl_m"))
    return Sample(
        Attitude(*(_number(one) for one in angles)),
        t=_maybe(value["t"]),
        vel_n_mps=_maybe(value["vel_n_mps"]),
        vel_e_mps=_maybe(value["vel_e_mps"]),
        hfov_deg=_maybe(value["hfov_deg"]),
        yaw_known=_flag(value["yaw_known"]),
        tilt_known=_flag(value["tilt_known"]),
        agl_known=_flag(value["agl_known"]),
        age_s=_any_number(value["age_s"]),
    )


def _object(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_JSON_BYTES:
        raise Malformed(f"a message has {len(data)} bytes, more than {MAX_JSON_BYTES}")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise Malformed("a message is no JSON") from None
    if not isinstance(value, dict):
        raise Malformed("a message is no JSON object")
    return value


def _any_number(value: Any) -> float:
    if isinstance(value, dict):
        value = float(value["float"])
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    return float(value)


def _number(value: Any) -> float:
    number = _any_number(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _maybe(value: Any) -> float | None:
    return None if value is None else _any_number(value)


def _whole(value: Any, least: int = 0, most: int = 1 << 62) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _name(value: Any) -> str | None:
    return None if value is None else _text(value)
