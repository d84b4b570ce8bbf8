"""Attitude and height of the camera for each frame: from a file, a stream, or the photos.

A position in any of them cannot leak into a fix: the readers look at named fields alone.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..core.errors import InputError
from .exif import read_photo_pose
from .fix import Reason
from .frames import Frame
from .telemetry_csv import CsvTelemetry, read_csv_telemetry
from .telemetry_sample import Coverage, Sample, Telemetry

__all__ = [
    "CsvTelemetry",
    "ExifTelemetry",
    "Sample",
    "Telemetry",
    "is_stream",
    "open_telemetry",
    "read_telemetry",
]

# What files begin with.
_ULOG = b"ULog\x01\x12\x35"
_DATAFLASH = b"\xa3\x95"
_HEAD_BYTES = 4096
_STREAM = re.compile(r"(udpin|udpout|udp|tcp|serial):|/dev/")


class ExifTelemetry:
    """Pose from the photos' own XMP and EXIF."""

    def __init__(self) -> None:
        """Start with no photo."""
        self._coverage = Coverage()

    def at(self, frame: Frame) -> Sample | Reason:
        """Return pose and field of view written in the photo, NO_TELEMETRY where it has no pose.

        Raises:
            InputError: the frame is no photo file, or its pose is damaged.
        """
        if frame.encoded is None:
            raise InputError(
                "--telemetry exif: only photos carry EXIF; give a CSV for a video or a live camera"
            )
        pose = read_photo_pose(frame.encoded, frame.name)
        self._coverage.note(frame, pose is not None)
        if pose is None:
            return Reason.NO_TELEMETRY
        return Sample(
            pose.attitude,
            hfov_deg=pose.hfov_deg,
            yaw_known=pose.yaw_known,
            tilt_known=pose.tilt_known,
            agl_known=pose.agl_known,
        )

    def complaint(self) -> str | None:
        """Return one line that says why no photo so far told its pose; None where one did."""
        if not self._coverage.is_empty:
            return None
        return (
            "--telemetry exif: no photo tells its attitude or height (XMP drone-dji:Gimbal…Degree, "
            "RelativeAltitude); pass --telemetry FILE.csv instead"
        )

    def close(self) -> None:
        """Nothing to release."""


def is_stream(source: str) -> bool:
    """Tell whether what follows `--telemetry` names a MAVLink stream, not a file."""
    return _STREAM.match(source) is not None


def open_telemetry(
    source: str,
    *,
    offset_s: float = 0.0,
    mount_deg: tuple[float, float, float] | None = None,
    system: int | None = None,
    request_rates: bool = False,
) -> Telemetry:
    """Open what follows `--telemetry`.

    Args:
        source: `exif`, a MAVLink stream (`udpin:127.0.0.1:14550`, `udpout:…`, `tcp:…`,
            `serial:/dev/ttyACM0:115200`), or a file.
        offset_s: what the frames' clock shows when the file's clock shows 0.
        mount_deg: yaw, pitch, roll of a camera fixed to the vehicle, 0/0/0 looking straight down
            with the image's top edge to the nose. None: a gimbal's attitude where there is one,
            else 0/0/0.
        system: MAVLink system of a stream to listen to; None takes the first autopilot heard.
        request_rates: ask the autopilot of a stream for the messages at useful rates.

    Raises:
        InputError: there is no such file or stream, it is of no known kind, or an argument does
            not go with it.
    """
    if source == "exif":
        _refuse_mount(source, mount_deg)
        return ExifTelemetry()
    if not is_stream(source):
        return read_telemetry(Path(source), offset_s, mount_deg)
    from .telemetry_live import MavlinkTelemetry

    return MavlinkTelemetry(
        source, mount_deg=mount_deg, system=system, request_rates=request_rates, offset_s=offset_s
    )


def read_telemetry(
    path: Path, offset_s: float = 0.0, mount_deg: tuple[float, float, float] | None = None
) -> Telemetry:
    """Read a telemetry file; its content, not its name, tells which kind it is.

    Args:
        path: a CSV, an ArduPilot DataFlash `.bin`, a MAVLink `.tlog`, a PX4 `.ulg`, a DJI `.srt`.
        offset_s: what the frames' clock shows when the file's clock shows 0; logs count from
            their first record.
        mount_deg: as in `open_telemetry`; only for logs, which tell the vehicle's attitude.

    Raises:
        InputError: it cannot be read, is of no known kind, or holds nothing of use.
        IntegrityError: it is damaged.
    """
    head = _head(path)
    if head.startswith(_DATAFLASH):
        from .telemetry_dataflash import read_dataflash

        return read_dataflash(path, offset_s, mount_deg)
    if head.startswith(_ULOG):
        from .telemetry_ulog import read_ulog

        return read_ulog(path, offset_s, mount_deg)
    from .telemetry_tlog import is_tlog, read_tlog

    if is_tlog(head):
        return read_tlog(path, offset_s, mount_deg)
    _refuse_mount(str(path), mount_deg)
    if b"\x00" in head:
        raise InputError(
            f"{path}: is no telemetry; expected a CSV, an ArduPilot .bin, a MAVLink .tlog, a PX4 "
            ".ulg or a DJI .srt"
        )
    if b"-->" in head:
        from .telemetry_srt import read_srt

        return read_srt(path, offset_s)
    return read_csv_telemetry(path, offset_s)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _refuse_mount(source: str, mount_deg: tuple[float, float, float] | None) -> None:
    if mount_deg is not None:
        raise InputError(
            f"--mount: {source} tells the camera's own attitude, which needs none; leave it out"
        )
