"""The lens: from a field of view, a camera.json, an OpenCV calibration or a ROS camera_info."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from ..core.camera import Camera
from ..core.errors import InputError
from ..core.files import read_bytes
from .video import quiet_opencv

# Models whose coefficients are OpenCV's own, in its order, and how many those have.
_MODELS = ("plumb_bob", "rational_polynomial")
_LENGTHS = (0, 4, 5, 8)


@dataclass(frozen=True)
class Lens:
    """What the user said about the camera's optics; one of the two is set, or neither.

    Attributes:
        hfov_deg: horizontal field of view of distortion-free frames.
        camera: a calibration, at the size it was made for.
    """

    hfov_deg: float | None = None
    camera: Camera | None = None

    def camera_for(self, width_px: int, height_px: int, own_hfov_deg: float | None) -> Camera:
        """Return the intrinsics of frames of a size.

        Args:
            width_px: columns of the frame at full size.
            height_px: rows of the frame at full size.
            own_hfov_deg: what the photo itself says, used where the user said nothing.

        Raises:
            InputError: nothing is known, or the calibration is of another aspect ratio.
        """
        if self.camera is not None:
            return self.camera.resized(width_px, height_px)
        hfov_deg = self.hfov_deg if self.hfov_deg is not None else own_hfov_deg
        if hfov_deg is None:
            raise InputError(
                "the camera's field of view is unknown; pass --hfov DEG or --intrinsics FILE"
            )
        return Camera.from_hfov(width_px, height_px, hfov_deg)


def read_intrinsics(path: Path) -> Camera:
    """Read a calibration: `camera.json`, OpenCV FileStorage YAML, or ROS camera_info YAML.

    Raises:
        InputError: it is none of these, an entry is missing or absurd, or the distortion model
            is not one of OpenCV's (plumb_bob, rational_polynomial).
    """
    data = read_bytes(path)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InputError(f"--intrinsics {path}: not a text file") from None
    camera = _from_json(path, text) if path.suffix.lower() == ".json" else _from_yaml(path, text)
    _check(path, camera)
    return camera


def _from_json(path: Path, text: str) -> Camera:
    try:
        values: Any = json.loads(text)
        names = {f.name for f in dataclasses.fields(Camera)}
        known = {k: v for k, v in dict(values).items() if k in names}
        return Camera(**{**known, "distortion": tuple(known.get("distortion", ()))})
    except (ValueError, TypeError) as error:
        raise InputError(
            f"--intrinsics {path}: not a camera.json ({error}); expected width_px, height_px, "
            "fx_px, fy_px, cx_px, cy_px and distortion"
        ) from None


def _from_yaml(path: Path, text: str) -> Camera:
    # ROS writes plain YAML; OpenCV's reader wants its own first line.
    if not text.startswith("%YAML"):
        text = "%YAML:1.0\n---\n" + text
    flags = cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY | cv2.FILE_STORAGE_FORMAT_YAML
    quiet_opencv()
    try:
        storage = cv2.FileStorage(text, flags)
    except (cv2.error, SystemError):
        raise InputError(
            f"--intrinsics {path}: not YAML of OpenCV or ROS camera_info; convert it, or write "
            "a camera.json"
        ) from None
    try:
        matrix = _numbers(path, storage, "camera_matrix")
        distortion = _numbers(path, storage, "distortion_coefficients")
        if len(matrix) != 9:
            raise InputError(f"--intrinsics {path}: camera_matrix has {len(matrix)} numbers, not 9")
        model = storage.getNode("distortion_model")
        if model.isString():
            _check_model(path, model.string())
        return Camera(
            int(_scalar(path, storage, "image_width")),
            int(_scalar(path, storage, "image_height")),
            matrix[0],
            matrix[4],
            matrix[2],
            matrix[5],
            () if not any(distortion) else tuple(distortion),
        )
    finally:
        storage.release()


def _scalar(path: Path, storage: cv2.FileStorage, name: str) -> float:
    node = storage.getNode(name)
    if not (node.isInt() or node.isReal()):
        raise InputError(f"--intrinsics {path}: lacks {name}")
    return float(node.real())


def _numbers(path: Path, storage: cv2.FileStorage, name: str) -> list[float]:
    node = storage.getNode(name)
    data = node.getNode("data") if node.isMap() else node
    if not data.isSeq():
        raise InputError(f"--intrinsics {path}: lacks {name}")
    return [float(data.at(i).real()) for i in range(data.size())]


def _check_model(path: Path, model: str) -> None:
    if model not in _MODELS:
        raise InputError(
            f"--intrinsics {path}: distortion_model {model} is not supported; calibrate as "
            f"{' or '.join(_MODELS)}, or rectify the frames"
        )


def _check(path: Path, camera: Camera) -> None:
    numbers = (camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px, *camera.distortion)
    try:
        finite = all(math.isfinite(v) for v in (*numbers, camera.width_px, camera.height_px))
    except TypeError:
        finite = False
    if not (
        finite
        and camera.width_px > 0
        and camera.height_px > 0
        and min(camera.fx_px, camera.fy_px) > 0
    ):
        raise InputError(
            f"--intrinsics {path}: sizes and focal lengths must be positive numbers; seen "
            f"{camera.width_px}x{camera.height_px} px, fx {camera.fx_px}, fy {camera.fy_px}"
        )
    if len(camera.distortion) not in _LENGTHS:
        raise InputError(
            f"--intrinsics {path}: {len(camera.distortion)} distortion coefficients; OpenCV's "
            "model has 4, 5 or 8"
        )
