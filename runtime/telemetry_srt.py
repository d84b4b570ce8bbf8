"""DJI's subtitle files (`.SRT`): gimbal attitude, height and focal length for each video frame.

Models write different texts; what is common to all is the time of each subtitle in the video. Only
the words named here are ever looked at: positions, spelt in many ways, are not.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from ..core.files import read_bytes
from .telemetry_rotation import quaternions
from .telemetry_vehicle import LogTelemetry, Tracks

_TIMES = re.compile(r"(\d{1,4}):(\d\d):(\d\d)[,.](\d{1,3})\s*-->")
_NUMBER = r"([+-]?\d{1,9}(?:\.\d{1,9})?)"
# [gb_yaw: 12.3 gb_pitch: -89.9 gb_roll: 0.0], of Mavic 3, Matrice 30 and later.
_GIMBAL = [re.compile(rf"\bgb_{axis}\s*:\s*{_NUMBER}") for axis in ("yaw", "pitch", "roll")]
# G.PRY (-40.0°, 0.0°, 28.2°), pitch, roll, yaw, of Phantom 4 RTK.
_GIMBAL_PRY = re.compile(rf"\bG\.PRY\s*\(\s*{_NUMBER}°?\s*,\s*{_NUMBER}°?\s*,\s*{_NUMBER}°?\s*\)")
# Above take-off: [rel_alt: 1.300 abs_alt: …], BAROMETER:1.9, or D 75.4m, H 76.19m, H.S ….
_HEIGHT = re.compile(rf"\brel_alt\s*:\s*{_NUMBER}|\bBAROMETER\s*:\s*{_NUMBER}|\bH\s{_NUMBER}m\b")
_FOCAL = re.compile(rf"\bfocal_len\s*:\s*{_NUMBER}")
_ZOOM = re.compile(rf"\bdzoom_ratio\s*:\s*{_NUMBER}")
_NO_ZOOM = ("1.00", "10000")


def read_srt(path: Path, offset_s: float = 0.0) -> LogTelemetry:
    """Read a DJI subtitle file; the camera's attitude is the gimbal's.

    Args:
        path: the file.
        offset_s: what the frames' clock shows at the subtitles' 00:00:00,000.

    Raises:
        InputError: it is no text, tells neither attitude nor height, or its times go backwards.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: is no text; expected a DJI .srt in UTF-8") from None
    tracks = Tracks()
    starts = list(_TIMES.finditer(text))
    last_s = -math.inf
    for i, start in enumerate(starts):
        hours, minutes, seconds, thousandths = start.groups()
        t = (
            3600 * int(hours)
            + 60 * int(minutes)
            + int(seconds)
            + int(thousandths.ljust(3, "0")) / 1e3
        )
        if t < last_s:
            line = text.count("\n", 0, start.start()) + 1
            raise InputError(f"{path}: line {line}: the time goes backwards; sort the subtitles")
        last_s = t
        end = starts[i + 1].start() if i + 1 < len(starts) else len(text)
        _read_subtitle(tracks, t, text[start.end() : end])
    if tracks.range_s is None:
        raise InputError(
            f"{path}: its subtitles tell neither a gimbal's attitude nor a height; give a CSV"
        )
    return LogTelemetry(str(path), tracks, offset_s)


def _read_subtitle(tracks: Tracks, t: float, text: str) -> None:
    angles = [match.group(1) for pattern in _GIMBAL if (match := pattern.search(text))]
    if pry := _GIMBAL_PRY.search(text):
        angles = [pry.group(3), pry.group(1), pry.group(2)]
    if len(angles) == 3:
        tracks.gimbal_north.append(t, *quaternions(np.array([angles], np.float64))[0])
    if height := _HEIGHT.search(text):
        tracks.relative_m.append(t, float(next(g for g in height.groups() if g is not None)))
    zoom = _ZOOM.search(text)
    focal = _FOCAL.search(text)
    # Models differ in whether the focal length holds digital zoom: where there is any, neither is
    # believed.
    if focal and (zoom is None or zoom.group(1) in _NO_ZOOM):
        focal_mm = float(focal.group(1))
        # Written 24.00, or as tenths: 240.
        if "." not in focal.group(1) and focal_mm >= 100:
            focal_mm /= 10
        if focal_mm > 0:
            tracks.focal_35mm.append(t, focal_mm)
