"""Attitude and height of the camera for each frame: from a CSV, or from the photos themselves.

Only the columns named here are ever looked at: a position in the file cannot leak into a fix.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..core.camera import Attitude
from ..core.errors import InputError
from .exif import read_photo_pose
from .frames import Frame
from .tables import read_csv_rows, read_numbers, require_columns, row_of_file

POSE_COLUMNS = ("yaw_deg", "pitch_deg", "roll_deg", "agl_m")
VELOCITY_COLUMNS = ("vel_n_mps", "vel_e_mps")
# At 25 m/s and gentle turns an attitude this old is still good to a few degrees.
MAX_GAP_S = 1.0


@dataclass(frozen=True)
class Sample:
    """Telemetry at the moment of one frame.

    Attributes:
        attitude: of the camera, with its height above ground.
        t: seconds on the frames' clock, None where unknown.
        vel_n_mps: ground speed north, None where unknown.
        vel_e_mps: ground speed east, None where unknown.
        hfov_deg: horizontal field of view, where the telemetry knows it.
    """

    attitude: Attitude
    t: float | None = None
    vel_n_mps: float | None = None
    vel_e_mps: float | None = None
    hfov_deg: float | None = None


class Telemetry(Protocol):
    """Where attitude and height come from."""

    def at(self, frame: Frame) -> Sample:
        """Return the sample of a frame.

        Raises:
            InputError: it does not cover the frame.
        """
        ...


class ExifTelemetry:
    """Pose from the photos' own XMP and EXIF."""

    def at(self, frame: Frame) -> Sample:
        """Return pose and field of view written in the photo.

        Raises:
            InputError: the frame is no photo file, or carries no pose.
        """
        if frame.encoded is None:
            raise InputError(
                "--telemetry exif: only photos carry EXIF; give a CSV for a video or a live camera"
            )
        pose = read_photo_pose(frame.encoded, frame.name)
        return Sample(pose.attitude, hfov_deg=pose.hfov_deg)


@dataclass(frozen=True)
class CsvTelemetry:
    """Rows of a telemetry CSV, by file name or by time.

    Attributes:
        name: the file, for errors.
        columns: the numbers of each known column, (N,) float64.
        row_of_file: row of each file name, empty when the rows go by time.
    """

    name: str
    columns: dict[str, npt.NDArray[np.float64]]
    row_of_file: dict[str, int]

    def at(self, frame: Frame) -> Sample:
        """Return the row of the frame's file, or the rows around its time interpolated.

        Raises:
            InputError: the file is not listed, or the nearest row is over a second away.
        """
        if self.row_of_file and frame.file is not None:
            return self._row(frame)
        if "t" not in self.columns:
            raise InputError(
                f"{self.name}: has a 'file' column but no 't', and frame {frame.index} of a video "
                "or camera has no file name; add a 't' column in seconds"
            )
        if frame.t is None:
            raise InputError(
                f"{self.name}: has a 't' column but no 'file', and {frame.name} has no time; "
                "add a 'file' column"
            )
        return self._interpolated(frame, frame.t)

    def _row(self, frame: Frame) -> Sample:
        row = self.row_of_file.get(frame.file or "")
        if row is None:
            raise InputError(
                f"{self.name}: has no row for frame {frame.file}; add it or remove the frame"
            )
        return _sample({name: float(values[row]) for name, values in self.columns.items()})

    def _interpolated(self, frame: Frame, t: float) -> Sample:
        times = self.columns["t"]
        after = int(np.searchsorted(times, t))
        before, after = max(after - 1, 0), min(after, len(times) - 1)
        gap = min(abs(t - times[before]), abs(t - times[after]))
        if gap > MAX_GAP_S:
            raise InputError(
                f"{self.name}: does not cover {frame.name} at t {t:.3f} s (rows from "
                f"{times[0]:.3f} to {times[-1]:.3f} s, the nearest {gap:.1f} s away); check that "
                "both use one clock"
            )
        span = times[after] - times[before]
        share = float(np.clip((t - times[before]) / span, 0.0, 1.0)) if span > 0 else 0.0
        values = {"t": t}
        for name, column in self.columns.items():
            if name != "t":
                values[name] = _between(name, column[before], column[after], share)
        return _sample(values)


def _between(name: str, first: float, second: float, share: float) -> float:
    step = second - first
    if name.endswith("_deg"):
        step = (step + 180.0) % 360.0 - 180.0  # the short way round
    return float(first + share * step)


def _sample(values: dict[str, float]) -> Sample:
    return Sample(
        Attitude(*(values[name] for name in POSE_COLUMNS)),
        t=values.get("t"),
        vel_n_mps=values.get("vel_n_mps"),
        vel_e_mps=values.get("vel_e_mps"),
    )


def read_telemetry(path: Path) -> CsvTelemetry:
    """Read a telemetry CSV: `t` or `file`, yaw, pitch, roll in degrees, `agl_m`, speeds optional.

    Raises:
        InputError: a column is missing, a number is not finite, times go backwards.
    """
    names, rows = read_csv_rows(path)
    require_columns(path, names, POSE_COLUMNS)
    wanted = [n for n in ("t", *POSE_COLUMNS, *VELOCITY_COLUMNS) if n in names]
    columns = {name: read_numbers(path, rows, name) for name in wanted}
    files = row_of_file(path, rows) if "file" in names else {}
    if "t" in columns and (np.diff(columns["t"]) < 0).any():
        line = int(np.argmax(np.diff(columns["t"]) < 0)) + 3
        raise InputError(f"{path}: line {line}: t goes backwards; sort the rows by time")
    return CsvTelemetry(str(path), columns, files)
