"""ArduPilot's DataFlash logs (`.bin`): attitude, height, velocity, gimbal.

A log describes its own messages: FMT messages give each type's length, format and column names
(ArduPilot, libraries/AP_Logger/README.md). Only the columns named here are ever looked at; GPS
messages are stepped over, also for the clock. Old firmware counts milliseconds.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError, IntegrityError
from .telemetry_rotation import Floats, quaternions
from .telemetry_series import in_order
from .telemetry_vehicle import LogTelemetry, Mount, Tracks

_SYNC = b"\xa3\x95"
_FMT_TYPE = 128
_FMT = struct.Struct("<BB4s16s64s")  # type, length, name, format, columns
_FMT_BYTES = 3 + _FMT.size

# What format characters stand for: numpy's type; a count of `cCeE` is a hundredth.
_TYPES = {
    **{"b": "i1", "B": "u1", "M": "u1", "h": "<i2", "H": "<u2", "i": "<i4", "I": "<u4"},
    **{"q": "<i8", "Q": "<u8", "g": "<f2", "f": "<f4", "d": "<f8", "L": "<i4"},
    **{"c": "<i2", "C": "<u2", "e": "<i4", "E": "<u4"},
    **{"a": "V64", "n": "V4", "N": "V16", "Z": "V64"},
}
_HUNDREDTHS = "cCeE"

# Messages and columns that are read; a type's first that is there counts.
_WANTED = {
    "ATT": ("Yaw", "Pitch", "Roll"),
    "MNT": ("I", "Roll", "Pitch", "YawB", "YawE"),
    "RFND": tuple(f"{name}{n}" for n in ("", 1, 2) for name in ("Dist", "Stat", "Orient")),
    "TERR": ("Status", "CHeight"),
    "POS": ("RelHomeAlt",),
    "CTUN": ("Alt",),
    "XKF1": ("C", "VN", "VE"),
    "NKF1": ("C", "VN", "VE"),
    "EKF1": ("VN", "VE"),
}
_PARAMETERS = "PARM"  # its columns Name and Value
# The first column of a message with a time: microseconds of its count since the autopilot started.
_CLOCKS_US = {"TimeUS": 1, "TimeMS": 1000}
_SENSOR_CLOCKS = ("ACC", "GYR")  # whose milliseconds are of another clock
_RANGE_GOOD = 4  # RangeFinder::Status::Good
_DOWN = 25  # ROTATION_PITCH_270
_TERRAIN_OK = 2  # AP_Terrain::TerrainStatusOK


@dataclass
class _Kind:
    """One type of message, as the log's FMT message describes it."""

    name: str
    length: int
    dtype: np.dtype[np.void] | None  # None where the description does not add up
    units: dict[str, float]
    at: list[int]

    @property
    def clock(self) -> str | None:
        """Name of the column that tells the time."""
        if self.dtype is None or not self.dtype.names:
            return None
        first = self.dtype.names[0]
        foreign = first == "TimeMS" and self.name.startswith(_SENSOR_CLOCKS)
        counts = first in _CLOCKS_US and self.dtype[0].kind in "iu"
        return first if counts and not foreign else None

    @property
    def is_wanted(self) -> bool:
        """Tell whether its messages are kept."""
        if self.name != _PARAMETERS:
            return self.name in _WANTED and self.clock is not None
        if self.dtype is None or not {"Name", "Value"} <= self.units.keys():
            return False
        return self.dtype["Name"].kind == "V" and self.dtype["Value"].kind == "f"


def read_dataflash(path: Path, offset_s: float = 0.0, mount: Mount | None = None) -> LogTelemetry:
    """Read a DataFlash log.

    Args:
        path: the file.
        offset_s: what the frames' clock shows at the log's first record.
        mount: of the camera on the body (`telemetry_vehicle.sample_at`).

    Raises:
        InputError: it cannot be read, or tells neither attitude nor height.
        IntegrityError: its clock jumps back, or no message could be made out.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            kinds, first_us = _scan(data)
            rows = {kind.name: (kind, _rows(data, kind)) for kind in kinds.values() if kind.at}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if first_us is None:
        raise IntegrityError(f"{path}: holds no message with a time; it is damaged or cut short")
    parameters = _parameters(rows.pop(_PARAMETERS)[1]) if _PARAMETERS in rows else {}
    columns = {}
    for name, (kind, found) in rows.items():
        t = (_microseconds(kind, found) - first_us) / 1e6
        keep = in_order(t, f"{path}: {name}")
        numbers = _numbers(kind, found) | {"t": t}
        columns[name] = {key: values[keep] for key, values in numbers.items()}
    return LogTelemetry(str(path), _tracks(columns, parameters), offset_s, mount)


def _scan(data: mmap.mmap) -> tuple[dict[int, _Kind], float | None]:
    """Return the wanted kinds with where their messages lie, and the log's first time."""
    lengths = [0] * 256
    lengths[_FMT_TYPE] = _FMT_BYTES
    wanted: dict[int, _Kind] = {}
    timed: dict[int, _Kind] = {}
    first_us: float | None = None
    at, end = 0, len(data)
    while at + 3 <= end:
        if data[at] != 0xA3 or data[at + 1] != 0x95 or not lengths[data[at + 2]]:
            at = data.find(_SYNC, at + 1)  # damaged: on to what may be the next message
            if at < 0:
                break
            continue
        number = data[at + 2]
        if at + lengths[number] > end:
            break
        if number == _FMT_TYPE:
            described, kind = _kind(data[at + 3 : at + _FMT_BYTES])
            if described != _FMT_TYPE and kind.length > 3:
                lengths[described] = kind.length
                timed.pop(described, None)
                if kind.clock is not None:
                    timed[described] = kind
                if kind.is_wanted and described not in wanted:
                    wanted[described] = kind
        else:
            if first_us is None and number in timed:
                row = np.frombuffer(data[at + 3 : at + lengths[number]], timed[number].dtype)
                first_us = float(_microseconds(timed[number], row)[0])
            if number in wanted:
                wanted[number].at.append(at)
        at += lengths[number]
    return wanted, first_us


def _kind(payload: bytes) -> tuple[int, _Kind]:
    number, length, name, form, columns = _FMT.unpack(payload)
    texts = (t.split(b"\x00")[0].decode("ascii", "replace") for t in (name, form, columns))
    title, characters, names = next(texts), next(texts), next(texts).split(",")
    dtype: np.dtype[np.void] | None = None
    fields = list(zip(names, characters, strict=False))
    known = all(character in _TYPES for _, character in fields)
    if known and len(names) == len(characters) == len({*names, ""}) - 1:
        dtype = np.dtype([(column, _TYPES[character]) for column, character in fields])
    if dtype is not None and dtype.itemsize != length - 3:
        dtype = None
    units = {column: 0.01 if character in _HUNDREDTHS else 1.0 for column, character in fields}
    return number, _Kind(title, length, dtype, units, [])


def _rows(data: mmap.mmap, kind: _Kind) -> npt.NDArray[np.void]:
    """Return the messages (N,) of a kind, as they are in the log."""
    assert kind.dtype is not None
    at = np.asarray(kind.at, np.int64)[:, None] + np.arange(3, kind.length)
    rows: npt.NDArray[np.void] = np.frombuffer(data, np.uint8)[at].view(kind.dtype)[:, 0]
    return rows


def _microseconds(kind: _Kind, rows: npt.NDArray[np.void]) -> Floats:
    """Return the times (N,) of messages since the autopilot's start."""
    assert kind.clock is not None
    return rows[kind.clock].astype(np.float64) * _CLOCKS_US[kind.clock]


def _numbers(kind: _Kind, rows: npt.NDArray[np.void]) -> dict[str, Floats]:
    """Return the wanted columns (N,) of messages, in plain units."""
    names = [n for n in _WANTED[kind.name] if n in kind.units and rows.dtype[n].kind != "V"]
    return {n: rows[n].astype(np.float64) * kind.units[n] for n in names}


def _parameters(rows: npt.NDArray[np.void]) -> dict[str, float]:
    """Return the autopilot's parameters by name, as they were last."""
    names, values = rows["Name"].tolist(), rows["Value"].astype(np.float64).tolist()
    texts = (name.split(b"\x00")[0].decode("ascii", "replace") for name in names)
    return dict(zip(texts, values, strict=True))


def _fill(rows: dict[str, Floats], names: tuple[str, ...], keep: Floats) -> tuple[Floats, Floats]:
    """Return times (M,) and values (M, K) of the rows to keep whose values are all finite."""
    values = np.stack([rows[name] for name in names], axis=-1)
    good = keep.astype(bool) & np.isfinite(values).all(axis=1)
    return rows["t"][good], values[good]


def _range_m(found: dict[str, Floats], parameters: dict[str, float]) -> Floats:
    """Return the distance (N,) to the ground by the first rangefinder that sees it, NaN where none.

    Firmware that logs no orientation takes its first rangefinder for one that looks down; where no
    status is logged, a distance counts within the bounds that the parameters set it.
    """
    distance_m = np.full(len(found["t"]), np.nan)
    for n in ("2", "1", ""):
        if f"Dist{n}" not in found:
            continue
        this_m = found[f"Dist{n}"]
        down = found[f"Orient{n}"] == _DOWN if f"Orient{n}" in found else np.array(n == "1")
        if f"Stat{n}" in found:
            good = found[f"Stat{n}"] == _RANGE_GOOD
        else:
            bounds = (f"RNGFND{'' if n == '1' else n}_{end}_CM" for end in ("MIN", "MAX"))
            least, most = (parameters.get(bound, math.nan) / 100 for bound in bounds)
            good = (this_m >= least) & (this_m <= most)
        distance_m = np.where(down & good, this_m, distance_m)
    return distance_m


def _tracks(columns: dict[str, dict[str, Floats]], parameters: dict[str, float]) -> Tracks:
    tracks = Tracks()

    def rows(name: str, *needed: str) -> tuple[dict[str, Floats], Floats] | None:
        found = columns.get(name)
        if found is None or any(column not in found for column in needed):
            return None
        keep = np.ones(len(found["t"]))
        for column in ("C", "I"):  # the first core, the first mount
            keep *= found.get(column, np.zeros(1)) == 0
        return found, keep

    if found := rows("ATT", "Yaw", "Pitch", "Roll"):
        times, angles = _fill(found[0], ("Yaw", "Pitch", "Roll"), found[1])
        tracks.body.extend(times, quaternions(angles))
    if found := rows("MNT", "Roll", "Pitch", "YawE"):
        times, angles = _fill(found[0], ("YawE", "Pitch", "Roll"), found[1])
        tracks.gimbal_north.extend(times, quaternions(angles))
    if found := rows("MNT", "Roll", "Pitch", "YawB"):
        times, angles = _fill(found[0], ("YawB", "Pitch", "Roll"), found[1])
        tracks.gimbal_nose.extend(times, quaternions(angles))
    if found := rows("RFND"):
        found[0]["down_m"] = _range_m(found[0], parameters)
        tracks.range_m.extend(*_fill(found[0], ("down_m",), found[1]))
    if found := rows("TERR", "Status", "CHeight"):
        good = found[0]["Status"] == _TERRAIN_OK
        tracks.terrain_m.extend(*_fill(found[0], ("CHeight",), found[1] * good))
    for name, column in (("POS", "RelHomeAlt"), ("CTUN", "Alt")):
        if len(tracks.relative_m) == 0 and (found := rows(name, column)):
            tracks.relative_m.extend(*_fill(found[0], (column,), found[1]))
    for name in ("XKF1", "NKF1", "EKF1"):
        if len(tracks.velocity_mps) == 0 and (found := rows(name, "VN", "VE")):
            tracks.velocity_mps.extend(*_fill(found[0], ("VN", "VE"), found[1]))
    return tracks
