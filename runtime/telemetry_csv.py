"""Attitude and height from a CSV, by the photo's name or by time.

Only the columns named here are ever looked at: a position in the file cannot leak into a fix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..core.camera import Attitude
from ..core.errors import InputError
from .fix import Reason
from .frames import Frame
from .tables import read_csv_rows, read_numbers, require_columns, row_of_file
from .telemetry_sample import Coverage, Sample
from .telemetry_series import place_of

POSE_COLUMNS = ("yaw_deg", "pitch_deg", "roll_deg", "agl_m")
VELOCITY_COLUMNS = ("vel_n_mps", "vel_e_mps")
CLOCK_REMEDY = "check that both use one clock, or pass --telemetry-offset"


@dataclass(frozen=True)
class CsvTelemetry:
    """Rows of a telemetry CSV, by file name or by time.

    Attributes:
        name: the file, for errors.
        columns: the numbers of each known column, (N,) float64; NaN where a cell is empty.
        row_of_file: row of each file name, empty when the rows go by time.
        offset_s: what the frames' clock shows when `t` is 0.
    """

    name: str
    columns: dict[str, npt.NDArray[np.float64]]
    row_of_file: dict[str, int]
    offset_s: float = 0.0
    coverage: Coverage = field(default_factory=Coverage, compare=False)

    def at(self, frame: Frame) -> Sample | Reason:
        """Return the row of the frame's file, or the rows around its time interpolated.

        NO_TELEMETRY where the file is not listed, the nearest row is over a second away, or
        neither attitude nor height is told.

        Raises:
            InputError: the table goes by file names and the frame has none, or by time and the
                frame has none.
        """
        if self.row_of_file and frame.file is not None:
            values = self._row(frame.file)
        elif "t" not in self.columns:
            raise InputError(
                f"{self.name}: has a 'file' column but no 't', and frame {frame.index} of a video "
                "or camera has no file name; add a 't' column in seconds"
            )
        elif frame.t is None:
            raise InputError(
                f"{self.name}: has a 't' column but no 'file', and {frame.name} has no time; "
                "add a 'file' column"
            )
        else:
            values = self._interpolated(frame.t)
        sample = None if values is None else _sample(values)
        self.coverage.note(frame, sample is not None)
        return Reason.NO_TELEMETRY if sample is None else sample

    def _row(self, file: str) -> dict[str, float] | None:
        row = self.row_of_file.get(file)
        if row is None:
            return None
        return {name: float(values[row]) for name, values in self.columns.items()}

    def _interpolated(self, t: float) -> dict[str, float] | None:
        place = place_of(self.columns["t"], t - self.offset_s)
        if place is None:
            return None
        values = {"t": t, "age_s": place.age_s}
        for name, column in self.columns.items():
            if name != "t":
                first, second = float(column[place.before]), float(column[place.after])
                values[name] = _between(name, first, second, place.share)
        return values

    def complaint(self) -> str | None:
        """Return one line that says why no frame so far was covered; None where one was."""
        if not self.coverage.is_empty:
            return None
        if files := list(self.row_of_file):
            return (
                f"{self.name}: covers no frame: of the {len(files)} files it lists, {files[0]} "
                "first, none is a frame with attitude or height; check the 'file' column"
            )
        t = self.columns["t"] + self.offset_s
        return self.coverage.clocks(self.name, (float(t[0]), float(t[-1])), CLOCK_REMEDY)

    def close(self) -> None:
        """Nothing to release."""


def _between(name: str, first: float, second: float, share: float) -> float:
    if share == 0.0 or share == 1.0:  # an empty cell beside the row does not count
        return first if share == 0.0 else second
    step = second - first
    if name.endswith("_deg"):
        step = (step + 180.0) % 360.0 - 180.0  # the short way round
    return first + share * step


def _sample(values: dict[str, float]) -> Sample | None:
    """Return the sample of a row; None where it tells neither attitude nor height."""
    told = {name: value for name, value in values.items() if not math.isnan(value)}
    if not any(name in told for name in POSE_COLUMNS):
        return None
    return Sample(
        Attitude(*(told.get(name, 0.0) for name in POSE_COLUMNS)),
        t=told.get("t"),
        vel_n_mps=told.get("vel_n_mps"),
        vel_e_mps=told.get("vel_e_mps"),
        yaw_known="yaw_deg" in told,
        tilt_known="pitch_deg" in told,
        agl_known="agl_m" in told,
        age_s=told.get("age_s", 0.0),
    )


def read_csv_telemetry(path: Path, offset_s: float = 0.0) -> CsvTelemetry:
    """Read a telemetry CSV: `t` or `file`; of yaw, pitch and roll, height and speeds what there is.

    Args:
        path: the file.
        offset_s: what the frames' clock shows when `t` is 0.

    Raises:
        InputError: it tells neither attitude nor height, a number is not finite, one of pitch and
            roll is told without the other, times go backwards.
    """
    names, rows = read_csv_rows(path)
    require_columns(path, names, ())
    told = [name for name in POSE_COLUMNS if name in names]
    if not told:
        raise InputError(
            f"{path}: has none of the columns {', '.join(POSE_COLUMNS)}; found {', '.join(names)}"
        )
    if ("pitch_deg" in told) != ("roll_deg" in told):
        there, missing = sorted(("pitch_deg", "roll_deg"), key=told.count, reverse=True)
        raise InputError(f"{path}: has {there} but no {missing}; give both of them or neither")
    columns = {"t": read_numbers(path, rows, "t")} if "t" in names else {}
    for name in (*told, *(n for n in VELOCITY_COLUMNS if n in names)):
        columns[name] = read_numbers(path, rows, name, empty_ok=True)
    _check_pairs(path, columns)
    files = row_of_file(path, rows) if "file" in names else {}
    if "t" in columns and (np.diff(columns["t"]) < 0).any():
        line = int(np.argmax(np.diff(columns["t"]) < 0)) + 3
        raise InputError(f"{path}: line {line}: t goes backwards; sort the rows by time")
    return CsvTelemetry(str(path), columns, files, offset_s)


def _check_pairs(path: Path, columns: dict[str, npt.NDArray[np.float64]]) -> None:
    if "pitch_deg" not in columns:
        return
    halves = np.isnan(columns["pitch_deg"]) != np.isnan(columns["roll_deg"])
    if halves.any():
        raise InputError(
            f"{path}: line {int(np.argmax(halves)) + 2}: one of pitch_deg and roll_deg is empty; "
            "give both of them or neither"
        )
