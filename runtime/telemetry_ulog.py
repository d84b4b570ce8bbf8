"""PX4's logs (`.ulg`): attitude, height, velocity, gimbal, read with pyulog.

Only the topics and fields named here are ever looked at; positions are in others.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InputError, IntegrityError
from .telemetry_rotation import Floats
from .telemetry_series import in_order
from .telemetry_vehicle import LogTelemetry, Mount, Tracks, gimbal_counts_from_nose

_ATTITUDE = "vehicle_attitude"
_LOCAL = "vehicle_local_position"
_GIMBAL = "gimbal_device_attitude_status"
_Q = ("q[0]", "q[1]", "q[2]", "q[3]")
_MAX_LENGTH_ERROR = 0.1  # of a quaternion; an estimator that has not begun writes zeros


def read_ulog(path: Path, offset_s: float = 0.0, mount: Mount | None = None) -> LogTelemetry:
    """Read a ULog.

    Args:
        path: the file.
        offset_s: what the frames' clock shows at the log's first record.
        mount: of the camera on the body (`telemetry_vehicle.sample_at`).

    Raises:
        InputError: pyulog is not installed, or the log tells neither attitude nor height.
        IntegrityError: it is damaged.
    """
    try:
        from pyulog import ULog
    except ImportError:
        raise InputError(
            f"{path}: PX4 logs are read with pyulog, which is not installed; "
            "pip install 's4g[telemetry]'"
        ) from None
    try:
        # pyulog tells of damage on stdout, which is where fixes go.
        with contextlib.redirect_stdout(io.StringIO()), path.open("rb") as file:
            log = ULog(file, [_ATTITUDE, _LOCAL, _GIMBAL])
            topics = {d.name: d.data for d in log.data_list if d.multi_id == 0}
            start_us = int(log.start_timestamp)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # pyulog checks little: damage raises whatever it runs into
        raise IntegrityError(
            f"{path}: no ULog that can be read ({type(error).__name__}); copy it again from the "
            "vehicle"
        ) from None
    return LogTelemetry(str(path), _tracks(path, topics, start_us), offset_s, mount)


def _tracks(path: Path, topics: dict[str, Any], start_us: int) -> Tracks:
    tracks = Tracks()

    def rows(topic: str, *fields: str, valid: str | None = None) -> tuple[Floats, Floats] | None:
        """Return times (M,) and fields (M, K) of the rows that are finite and valid."""
        found = topics.get(topic, {})
        if any(field not in found for field in ("timestamp", *fields)):
            return None
        # When the estimate was true, where the log tells that from when it was published.
        stamps = found.get("timestamp_sample", found["timestamp"])
        t = (np.asarray(stamps, np.float64) - start_us) / 1e6
        values = np.stack([np.asarray(found[field], np.float64) for field in fields], axis=-1)
        good = in_order(t, f"{path}: {topic}") & np.isfinite(values).all(axis=1)
        if fields[:4] == _Q:
            good &= np.abs(np.linalg.norm(values[:, :4], axis=1) - 1) < _MAX_LENGTH_ERROR
        if valid is not None and valid in found:
            good &= np.asarray(found[valid]) != 0
        return t[good], values[good]

    if attitude := rows(_ATTITUDE, *_Q):
        tracks.body.extend(*attitude)
    if velocity := rows(_LOCAL, "vx", "vy", valid="v_xy_valid"):
        tracks.velocity_mps.extend(*velocity)
    # PX4 has turned its measured distance upright already: a height, whatever the body's tilt.
    if height := rows(_LOCAL, "dist_bottom", valid="dist_bottom_valid"):
        tracks.terrain_m.extend(*height)
    if down := rows(_LOCAL, "z", valid="z_valid"):
        tracks.relative_m.extend(down[0], -down[1])
    if gimbal := rows(_GIMBAL, *_Q, "device_flags"):
        times, values = gimbal
        nose = np.array([gimbal_counts_from_nose(int(flags)) for flags in values[:, 4]], bool)
        tracks.gimbal_nose.extend(times[nose], values[nose, :4])
        tracks.gimbal_north.extend(times[~nose], values[~nose, :4])
    return tracks
