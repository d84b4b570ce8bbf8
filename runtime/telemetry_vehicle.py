"""From what an autopilot says of vehicle and gimbal to the attitude and height of the camera."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..core.camera import Attitude
from ..core.errors import InputError
from .exif import hfov_from_35mm_deg
from .fix import Reason
from .frames import Frame
from .telemetry_csv import CLOCK_REMEDY
from .telemetry_rotation import AHEAD_FROM_DOWN, Floats, attitude_of, matrix_of, rotation
from .telemetry_sample import Coverage, Sample
from .telemetry_series import Track

Mount = tuple[float, float, float]  # yaw, pitch, roll in degrees, body_from_camera


@dataclass(frozen=True)
class Tracks:
    """What is known of a vehicle over time; all on one clock, in seconds.

    Attributes:
        body: earth_from_body quaternions, scalar first.
        gimbal_north: earth_from_gimbal quaternions; 0/0/0 looks ahead, north.
        gimbal_nose: the same, but yaw counts from the vehicle's heading.
        range_m: distance along the body's down axis.
        terrain_m: height above the autopilot's terrain model.
        relative_m: height above take-off.
        velocity_mps: ground speed north, east.
        focal_35mm: focal length, 35 mm equivalent.
    """

    body: Track = field(default_factory=lambda: Track(4, rotation=True))
    gimbal_north: Track = field(default_factory=lambda: Track(4, rotation=True))
    gimbal_nose: Track = field(default_factory=lambda: Track(4, rotation=True))
    range_m: Track = field(default_factory=lambda: Track(1))
    terrain_m: Track = field(default_factory=lambda: Track(1))
    relative_m: Track = field(default_factory=lambda: Track(1))
    velocity_mps: Track = field(default_factory=lambda: Track(2))
    focal_35mm: Track = field(default_factory=lambda: Track(1))

    @classmethod
    def limited(cls, rows: int) -> Tracks:
        """Return tracks that keep about the newest `rows` rows each."""
        rotations = {
            name: Track(4, rotation=True, limit=rows)
            for name in ("body", "gimbal_north", "gimbal_nose")
        }
        numbers = {
            name: Track(1, limit=rows)
            for name in ("range_m", "terrain_m", "relative_m", "focal_35mm")
        }
        return cls(**rotations, **numbers, velocity_mps=Track(2, limit=rows))

    @property
    def pose_tracks(self) -> tuple[Track, ...]:
        """Those that tell attitude or height."""
        heights = (self.range_m, self.terrain_m, self.relative_m)
        return (self.body, self.gimbal_north, self.gimbal_nose, *heights)

    @property
    def range_s(self) -> tuple[float, float] | None:
        """First and last time of attitude or height, None where there is neither."""
        firsts = [t.first_s for t in self.pose_tracks if t.first_s is not None]
        lasts = [t.last_s for t in self.pose_tracks if t.last_s is not None]
        return (min(firsts), max(lasts)) if firsts else None

    def clear(self) -> None:
        """Forget everything."""
        for track in (*self.pose_tracks, self.velocity_mps, self.focal_35mm):
            track.clear()


# GIMBAL_DEVICE_FLAGS of MAVLink, which PX4's log shares.
_YAW_LOCK, _YAW_IN_VEHICLE_FRAME, _YAW_IN_EARTH_FRAME = 16, 32, 64


def gimbal_counts_from_nose(flags: int) -> bool:
    """Tell from GIMBAL_DEVICE_FLAGS whether yaw counts from the vehicle's nose, not from north."""
    if flags & (_YAW_IN_VEHICLE_FRAME | _YAW_IN_EARTH_FRAME):
        return bool(flags & _YAW_IN_VEHICLE_FRAME)
    return not flags & _YAW_LOCK  # as devices said it before those two flags


class _Camera(NamedTuple):
    earth_from_camera: Floats  # of the body that `Attitude` speaks of, which looks down its z axis
    yaw_known: bool
    age_s: float


def sample_at(tracks: Tracks, t: float, frame: Frame, mount: Mount | None) -> Sample | Reason:
    """Return what is known of the camera at a time, NO_TELEMETRY where that is nothing.

    Args:
        tracks: of the vehicle.
        t: seconds on the tracks' clock.
        frame: whose size and time go into the sample.
        mount: of a camera fixed to the body. None: on the gimbal where there ever was one, whose
            silence then leaves the camera's attitude unknown, whatever the body does; else 0/0/0.
    """
    body = tracks.body.at(t)
    earth_from_body = None if body is None else matrix_of(body[0])
    has_gimbal = len(tracks.gimbal_north) > 0 or len(tracks.gimbal_nose) > 0
    if mount is None and has_gimbal:
        camera = _on_gimbal(tracks, t, earth_from_body)
    elif body is None or earth_from_body is None:
        camera = None
    else:
        camera = _Camera(earth_from_body @ rotation(*(mount or (0.0, 0.0, 0.0))), True, body[1])
    agl_m = _height_m(tracks, t, earth_from_body)
    if camera is None and agl_m is None:
        return Reason.NO_TELEMETRY
    known_m = 0.0 if agl_m is None else agl_m
    attitude = Attitude(0.0, 0.0, 0.0, known_m)
    if camera is not None:
        attitude = attitude_of(camera.earth_from_camera, known_m)
        if not camera.yaw_known:
            attitude = replace(attitude, yaw_deg=0.0)
    velocity, focal = tracks.velocity_mps.at(t), tracks.focal_35mm.at(t)
    hfov_deg = None
    if focal is not None:
        hfov_deg = hfov_from_35mm_deg(float(focal[0][0]), frame.width_px, frame.height_px)
    return Sample(
        attitude,
        t=frame.t,
        vel_n_mps=None if velocity is None else float(velocity[0][0]),
        vel_e_mps=None if velocity is None else float(velocity[0][1]),
        hfov_deg=hfov_deg,
        yaw_known=camera is not None and camera.yaw_known,
        tilt_known=camera is not None,
        agl_known=agl_m is not None,
        age_s=0.0 if camera is None else camera.age_s,
    )


def _on_gimbal(tracks: Tracks, t: float, earth_from_body: Floats | None) -> _Camera | None:
    north, nose = tracks.gimbal_north.at(t), tracks.gimbal_nose.at(t)
    if north is not None and (nose is None or north[1] <= nose[1]):
        return _Camera(matrix_of(north[0]) @ AHEAD_FROM_DOWN, True, north[1])
    if nose is None:
        return None
    nose_from_camera = matrix_of(nose[0]) @ AHEAD_FROM_DOWN
    if earth_from_body is None:
        return _Camera(nose_from_camera, False, nose[1])
    heading_deg = math.degrees(math.atan2(earth_from_body[1, 0], earth_from_body[0, 0]))
    return _Camera(rotation(heading_deg, 0.0, 0.0) @ nose_from_camera, True, nose[1])


def _height_m(tracks: Tracks, t: float, earth_from_body: Floats | None) -> float | None:
    """Return the best height there is: measured to the ground, from a terrain model, barometric."""
    distance = tracks.range_m.at(t)
    if distance is not None:
        upright = 1.0 if earth_from_body is None else float(earth_from_body[2, 2])
        if upright > 0:  # else it looks at the sky
            return float(distance[0][0]) * upright
    for track in (tracks.terrain_m, tracks.relative_m):
        height = track.at(t)
        if height is not None:
            return float(height[0][0])
    return None


class LogTelemetry:
    """Telemetry from a log, interpolated to the frames' times.

    Args:
        name: of the file.
        tracks: what it holds, in seconds since its first record.
        offset_s: what the frames' clock shows at the log's first record.
        mount: as in `sample_at`.
    """

    def __init__(
        self, name: str, tracks: Tracks, offset_s: float = 0.0, mount: Mount | None = None
    ) -> None:
        """Check that there is something to look up.

        Raises:
            InputError: the log tells neither attitude nor height.
        """
        if tracks.range_s is None:
            raise InputError(
                f"{name}: tells neither attitude nor height; log them (docs/telemetry.md) or give "
                "a CSV"
            )
        self.name = name
        self.tracks = tracks
        self._offset_s = offset_s
        self._mount = mount
        self._coverage = Coverage()

    def at(self, frame: Frame) -> Sample | Reason:
        """Return the camera's attitude and height at a frame's time, as far as they are known.

        Raises:
            InputError: the frame has no time.
        """
        if frame.t is None:
            raise InputError(
                f"{self.name}: a log goes by time, and {frame.name} has none; give a CSV with a "
                "'file' column"
            )
        sample = sample_at(self.tracks, frame.t - self._offset_s, frame, self._mount)
        self._coverage.note(frame, isinstance(sample, Sample))
        return sample

    def complaint(self) -> str | None:
        """Return one line that says why no frame so far was covered; None where one was."""
        first_s, last_s = self.tracks.range_s or (0.0, 0.0)
        rows_s = (first_s + self._offset_s, last_s + self._offset_s)
        return self._coverage.clocks(self.name, rows_s, CLOCK_REMEDY)

    def close(self) -> None:
        """Nothing to release."""
