"""Rotations of vehicle, gimbal and camera: angles, matrices, quaternions.

A rotation `a_from_b` maps vectors of frame b to frame a. Bodies are forward-right-down, the earth
north-east-down; angles turn in the aerospace order yaw, pitch, roll.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..core.camera import Attitude

Floats = npt.NDArray[np.float64]

# A gimbal that looks ahead, pitched down by 90 degrees, looks straight down.
AHEAD_FROM_DOWN: Floats = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])

# Quaternions closer than this are blended along the chord: the arc's formula divides by its sine.
_NEARLY_PARALLEL = 0.9995


def rotation(yaw_deg: float, pitch_deg: float, roll_deg: float) -> Floats:
    """Return earth_from_body (3, 3) of three angles in degrees."""
    yaw, pitch, roll = (math.radians(v) for v in (yaw_deg, pitch_deg, roll_deg))
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    cr, sr = math.cos(roll), math.sin(roll)
    about_down = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    about_right = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_forward = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    return np.asarray(about_down @ about_right @ about_forward, np.float64)


def attitude_of(earth_from_body: Floats, agl_m: float) -> Attitude:
    """Return the attitude whose body (a camera looking down its z axis) is turned that way."""
    r = earth_from_body
    return Attitude(
        yaw_deg=math.degrees(math.atan2(r[1, 0], r[0, 0])) % 360.0,
        pitch_deg=math.degrees(math.asin(min(max(-float(r[2, 0]), -1.0), 1.0))),
        roll_deg=math.degrees(math.atan2(r[2, 1], r[2, 2])),
        agl_m=agl_m,
    )


def quaternions(angles_deg: npt.ArrayLike) -> Floats:
    """Return quaternions (N, 4), scalar first, of angles (N, 3): yaw, pitch, roll in degrees."""
    half = np.radians(np.asarray(angles_deg, np.float64)) / 2
    (cy, cp, cr), (sy, sp, sr) = np.cos(half).T, np.sin(half).T
    return np.stack(
        [
            cr * cp * cy + sr * sp * sy,
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
        ],
        axis=-1,
    )


def matrix_of(quaternion: npt.ArrayLike) -> Floats:
    """Return the rotation (3, 3) of a quaternion (4,), scalar first, of any length but 0."""
    q = np.asarray(quaternion, np.float64)
    w, x, y, z = (float(v) for v in q / np.linalg.norm(q))
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def between(first: Floats, second: Floats, share: float) -> Floats:
    """Return the rotation a share of the way from one quaternion (4,) to another, the short way.

    Shoemake, Animating Rotation with Quaternion Curves, SIGGRAPH 1985.
    """
    cosine = float(first @ second)
    if cosine < 0:  # q and -q are one rotation
        second, cosine = -second, -cosine
    if cosine > _NEARLY_PARALLEL:
        blend = first + share * (second - first)
        return np.asarray(blend / np.linalg.norm(blend), np.float64)
    angle = math.acos(cosine)
    blend = math.sin((1 - share) * angle) * first + math.sin(share * angle) * second
    return np.asarray(blend / math.sin(angle), np.float64)
