"""Pose and lens from a DJI photo: XMP `drone-dji:` attitude and height, EXIF focal length.

Only the names listed here are ever looked at: a position in the photo cannot leak into a fix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any
from xml.parsers import expat

from ..core.camera import Attitude
from ..core.errors import InputError
from ..core.jpeg import is_jpeg, jpeg_size
from .jpeg import TAG_FOCAL_LENGTH_35MM, exif_numbers, xmp_packet
from .telemetry_rotation import AHEAD_FROM_DOWN, attitude_of, rotation

_DJI_NAMESPACE = "http://www.dji.com/drone-dji/1.0/"
_POSE_NAMES = ("GimbalYawDegree", "GimbalPitchDegree", "GimbalRollDegree", "RelativeAltitude")
_REMEDY = "pass --telemetry FILE.csv instead"

# Diagonal of the 36 x 24 mm frame that 35 mm equivalents refer to (CIPA DCG-001).
_FULL_FRAME_DIAGONAL_MM = math.hypot(36.0, 24.0)
# Drone sensors are 4:3 unless the frame is 3:2; wider frames are crops at the sensor's full width.
_DIAGONAL_PER_WIDTH_4_3 = math.hypot(4.0, 3.0) / 4.0
_DIAGONAL_PER_WIDTH_3_2 = math.hypot(3.0, 2.0) / 3.0


@dataclass(frozen=True)
class PhotoPose:
    """What a photo says about itself.

    Attributes:
        attitude: of the camera, 0/0 looking straight down, and its height above take-off; 0
            stands for what is unknown.
        hfov_deg: horizontal field of view, None where the EXIF block does not tell.
        yaw_known: whether the heading is told.
        tilt_known: whether pitch and roll are told.
        agl_known: whether the height is told.
    """

    attitude: Attitude
    hfov_deg: float | None
    yaw_known: bool = True
    tilt_known: bool = True
    agl_known: bool = True


def attitude_from_gimbal(
    yaw_deg: float, pitch_deg: float, roll_deg: float, agl_m: float
) -> Attitude:
    """Turn gimbal angles (pitch 0 looks ahead, -90 down) into the camera attitude of s4g.

    A camera that looks down is one that looks ahead, pitched by -90 degrees; the rotation is
    carried over whole, since at -90 degrees gimbal yaw and roll turn about the same axis (DJI
    writes roll 180 with yaw off by 180 for an ordinary nadir photo).
    """
    return attitude_of(rotation(yaw_deg, pitch_deg, roll_deg) @ AHEAD_FROM_DOWN, agl_m)


def hfov_from_35mm_deg(focal_35mm: float, width_px: int, height_px: int) -> float:
    """Return the horizontal field of view of a 35 mm equivalent focal length.

    Equivalence is by the sensor's diagonal (CIPA DCG-001). Frames of 3:2 come from 3:2 sensors,
    all others are taken as 4:3 sensors used at their full width.
    """
    long_side, short_side = max(width_px, height_px), min(width_px, height_px)
    is_3_2 = abs(long_side / short_side - 1.5) < 0.02
    diagonal = _DIAGONAL_PER_WIDTH_3_2 if is_3_2 else _DIAGONAL_PER_WIDTH_4_3
    focal_px = focal_35mm / _FULL_FRAME_DIAGONAL_MM * diagonal * long_side
    return math.degrees(2 * math.atan(width_px / 2 / focal_px))


def read_photo_pose(data: bytes, origin: str) -> PhotoPose | None:
    """Read pose and field of view from the bytes of a DJI JPEG; positions are not looked at.

    Args:
        data: content of the file.
        origin: its name, for errors.

    Returns:
        What the photo tells; None where it tells neither attitude nor height.

    Raises:
        InputError: the pose is damaged.
    """
    packet = xmp_packet(data) if is_jpeg(data) else None
    values = _dji_values(packet, origin) if packet is not None else {}
    told = {name: _number(values, name, origin) for name in _POSE_NAMES if name in values}
    if not told:
        return None
    yaw_known, agl_known = "GimbalYawDegree" in told, "RelativeAltitude" in told
    tilt_known = "GimbalPitchDegree" in told and "GimbalRollDegree" in told
    attitude = attitude_from_gimbal(
        told.get("GimbalYawDegree", 0.0),
        told["GimbalPitchDegree"] if tilt_known else -90.0,
        told["GimbalRollDegree"] if tilt_known else 0.0,
        told.get("RelativeAltitude", 0.0),
    )
    return PhotoPose(
        attitude if yaw_known else replace(attitude, yaw_deg=0.0),
        _hfov_deg(data, origin),
        yaw_known,
        tilt_known,
        agl_known,
    )


def _hfov_deg(data: bytes, origin: str) -> float | None:
    size = jpeg_size(data)
    if size is None:
        return None
    if focal_35mm := exif_numbers(data, origin).get(TAG_FOCAL_LENGTH_35MM):
        return hfov_from_35mm_deg(focal_35mm, *size)
    return None


def _number(values: dict[str, str], name: str, origin: str) -> float:
    try:
        number = float(values[name])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(
            f"{origin}: drone-dji:{name} is {values[name]!r}, expected a number; {_REMEDY}"
        )
    return number


def _dji_values(packet: bytes, origin: str) -> dict[str, str]:
    """Return the `drone-dji:` attributes and elements of an XMP packet, names without prefix.

    Raises:
        InputError: it is not well-formed XML, or declares a document type (entity tricks).
    """
    values: dict[str, str] = {}
    open_name: list[str] = []

    def local_name(name: str) -> str | None:
        return name[len(_DJI_NAMESPACE) :] if name.startswith(_DJI_NAMESPACE) else None

    def start(name: str, attributes: dict[str, str]) -> None:
        for key, value in attributes.items():
            if (local := local_name(key)) is not None:
                values[local] = value
        open_name[:] = [local] if (local := local_name(name)) is not None else []

    def text(value: str) -> None:
        if open_name:
            values[open_name[0]] = values.get(open_name[0], "") + value

    def refuse(*_: Any) -> None:
        raise InputError(f"{origin}: its XMP declares a document type, which is refused; {_REMEDY}")

    parser = expat.ParserCreate(namespace_separator="")
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: open_name.clear()
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(packet.rstrip(b"\x00"), True)
    except expat.ExpatError as error:
        raise InputError(f"{origin}: its XMP is not well-formed ({error}); {_REMEDY}") from None
    return values
