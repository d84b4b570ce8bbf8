"""Poses of the Brighton Beach photos, as their table and their pixels say."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from s4g.core.camera import Attitude
from s4g.runtime.exif import attitude_from_gimbal, hfov_from_35mm_deg


@dataclass(frozen=True)
class Pose:
    """Where a photo was taken: file, attitude, WGS84 position as the table writes it."""

    file: str
    attitude: Attitude
    lat: str
    lon: str


def _turned(pose: Attitude) -> Attitude:
    """Return the attitude of a photo stored upside down.

    The six photos of the leg flown south-west show north-east at the top: a camera looking
    straight down cannot tell up, wrote orientation 180 into the EXIF, and the copies had that
    applied. Matched by hand on the orthophoto, they lie 177 to 180 degrees from their gimbal yaw,
    the other twelve -4.5 to 1.5.
    """
    return Attitude((pose.yaw_deg + 180.0) % 360.0, -pose.pitch_deg, -pose.roll_deg, pose.agl_m)


def read_poses(photos_csv: Path) -> tuple[list[Pose], float]:
    """Return the poses of `photos.csv` and the field of view in degrees."""
    with photos_csv.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    poses = []
    for row in rows:
        pose = attitude_from_gimbal(
            *(float(row[n]) for n in ("gimbal_yaw", "gimbal_pitch", "gimbal_roll", "rel_alt_m"))
        )
        if abs((pose.yaw_deg + 180.0) % 360.0 - 180.0) > 90.0:
            pose = _turned(pose)
        poses.append(Pose(row["file"], pose, row["lat"], row["lon"]))
    first = rows[0]
    size = (int(first["orig_w"]), int(first["orig_h"]))
    return poses, hfov_from_35mm_deg(float(first["f35_mm"]), *size)
