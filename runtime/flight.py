"""Writing the folder of a simulated flight: frames, telemetry, truth, camera, settings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from ..core.camera import Camera
from ..core.errors import S4GError
from ..core.images import encode_rgb
from .simulate import Moment

RGB = npt.NDArray[np.uint8]

TELEMETRY_COLUMNS = (
    "t", "file", "yaw_deg", "pitch_deg", "roll_deg", "agl_m", "vel_n_mps", "vel_e_mps",
)  # fmt: skip
TRUTH_COLUMNS = (
    "t", "file", "lat", "lon", "yaw_deg", "pitch_deg", "roll_deg", "agl_m",
    "vel_n_mps", "vel_e_mps",
)  # fmt: skip


class FrameSink(Protocol):
    """Where frames go."""

    def __enter__(self) -> FrameSink:
        """Open."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        ...

    def write(self, index: int, frame: RGB) -> None:
        """Take a frame (H, W, 3) uint8 RGB."""
        ...


class PhotoSink:
    """One picture file per frame in `frames/`."""

    def __init__(self, folder: Path, suffix: str, quality: int) -> None:
        """Make the folder."""
        self._folder, self._suffix, self._quality = folder / "frames", suffix, quality
        self._folder.mkdir()

    def __enter__(self) -> PhotoSink:
        """Nothing to open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to close."""

    def write(self, index: int, frame: RGB) -> None:
        """Write one file."""
        path = self._folder / photo_name(index, self._suffix)
        path.write_bytes(encode_rgb(frame, self._suffix, self._quality))


class VideoSink:
    """All frames in `flight.mp4` (MPEG-4 part 2)."""

    def __init__(self, folder: Path, camera: Camera, fps: float) -> None:
        """Open the file.

        Raises:
            S4GError: this OpenCV cannot write MP4.
        """
        self._path = folder / "flight.mp4"
        fourcc = cv2.VideoWriter.fourcc(*"mp4v")
        size = (camera.width_px, camera.height_px)
        self._writer = cv2.VideoWriter(str(self._path), cv2.CAP_FFMPEG, fourcc, fps, size)
        if not self._writer.isOpened():
            raise S4GError(
                f"--format mp4: this OpenCV {cv2.__version__} cannot write MP4 at "
                f"{size[0]}x{size[1]} px, {fps:g} frames/s; use --format jpg"
            )

    def __enter__(self) -> VideoSink:
        """Opened already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the file.

        Raises:
            S4GError: nothing arrived in it.
        """
        self._writer.release()
        if kind is None and not (self._path.is_file() and self._path.stat().st_size > 0):
            raise S4GError("--format mp4: the video could not be written; is the disk full?")

    def write(self, index: int, frame: RGB) -> None:
        """Append a frame."""
        self._writer.write(np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), np.uint8))


def photo_name(index: int, suffix: str) -> str:
    """Return the file name of a frame."""
    return f"{index:06d}{suffix}"


def write_flight(
    folder: Path,
    moments: Iterable[Moment],
    render: Callable[[Moment], tuple[RGB, float]],
    sink: FrameSink,
    suffix: str | None,
    advance: Callable[[int], None],
) -> tuple[int, float]:
    """Render every moment; write frames, `telemetry.csv` and `truth.csv`.

    Args:
        folder: an empty folder.
        moments: the flight.
        render: gives a frame and the share of it that shows the source.
        sink: where frames go.
        suffix: of the picture files, None for a video: its tables have no `file` column.
        advance: called with 1 after each frame.

    Returns:
        How many frames see past the source's border, and the least share that shows the source.
    """
    past_border, least = 0, 1.0
    telemetry, truth = [], []
    with sink:
        for moment in moments:
            frame, share = render(moment)
            sink.write(moment.index, frame)
            past_border += share < 1.0
            least = min(least, share)
            file = None if suffix is None else photo_name(moment.index, suffix)
            telemetry.append(_telemetry_row(moment, file))
            truth.append(_truth_row(moment, file))
            advance(1)
    _write_csv(folder / "telemetry.csv", TELEMETRY_COLUMNS, telemetry)
    _write_csv(folder / "truth.csv", TRUTH_COLUMNS, truth)
    return past_border, least


def write_settings(folder: Path, camera: Camera, settings: dict[str, Any]) -> None:
    """Write `camera.json` and `flight.json`."""
    values = dataclasses.asdict(camera) | {"distortion": list(camera.distortion)}
    for name, value in (("camera.json", values), ("flight.json", settings)):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _number(value: float, digits: int) -> str:
    """Return a number as text, without a negative zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def _telemetry_row(moment: Moment, file: str | None) -> dict[str, str | None]:
    pose = moment.reported
    return {
        "t": _number(moment.t, 3),
        "file": file,
        "yaw_deg": _number(pose.yaw_deg, 3),
        "pitch_deg": _number(pose.pitch_deg, 3),
        "roll_deg": _number(pose.roll_deg, 3),
        "agl_m": _number(pose.agl_m, 3),
        "vel_n_mps": _number(moment.reported_vel_n_mps, 3),
        "vel_e_mps": _number(moment.reported_vel_e_mps, 3),
    }


def _truth_row(moment: Moment, file: str | None) -> dict[str, str | None]:
    pose = moment.true
    return {
        "t": _number(moment.t, 3),
        "file": file,
        "lat": _number(moment.lat_deg, 8),  # a millimetre
        "lon": _number(moment.lon_deg, 8),
        "yaw_deg": _number(pose.yaw_deg, 3),
        "pitch_deg": _number(pose.pitch_deg, 3),
        "roll_deg": _number(pose.roll_deg, 3),
        "agl_m": _number(pose.agl_m, 3),
        "vel_n_mps": _number(moment.vel_n_mps, 3),
        "vel_e_mps": _number(moment.vel_e_mps, 3),
    }


def _write_csv(path: Path, columns: tuple[str, ...], rows: list[dict[str, str | None]]) -> None:
    used = [name for name in columns if rows and rows[0][name] is not None]
    lines = [",".join(used)]
    lines += [",".join(str(row[name]) for name in used) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
