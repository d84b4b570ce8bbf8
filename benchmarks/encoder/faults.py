"""What goes wrong with a frame or its telemetry, one fault at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from condition import Images

from s4g.core.camera import Attitude
from s4g.core.images import decode_rgb, encode_rgb

HEADINGS = 24  # tried where none is reported
_CHANGED_SHARE = 0.2
_SHADOW_SHARE = 0.35

Frame = Callable[[Images, Sequence[Images], np.random.Generator], Images]
Report = Callable[[Attitude, np.random.Generator], list[Attitude]]


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: of its condition.
        about: one line.
        report: from the true attitude to what telemetry says; several where it says nothing.
        change: from a frame, and others of the same flight, to what the camera delivers.
    """

    name: str
    about: str
    report: Report = lambda true, rng: [true]
    change: Frame = lambda frame, others, rng: frame


def _height(factor: float) -> Report:
    return lambda true, rng: [dataclasses.replace(true, agl_m=factor * true.agl_m)]


def _heading(true: Attitude, rng: np.random.Generator) -> list[Attitude]:
    off_deg = 10.0 * float(rng.choice([-1, 1]))
    return [dataclasses.replace(true, yaw_deg=true.yaw_deg + off_deg)]


def _no_heading(true: Attitude, rng: np.random.Generator) -> list[Attitude]:
    step_deg = 360.0 / HEADINGS
    return [dataclasses.replace(true, yaw_deg=i * step_deg) for i in range(HEADINGS)]


def _tilt(true: Attitude, rng: np.random.Generator) -> list[Attitude]:
    angle = float(rng.uniform(0, 2 * np.pi))
    pitch, roll = 10.0 * np.cos(angle), 10.0 * np.sin(angle)
    return [
        dataclasses.replace(
            true, pitch_deg=true.pitch_deg + float(pitch), roll_deg=true.roll_deg + float(roll)
        )
    ]


def _blur(frame: Images, others: Sequence[Images], rng: np.random.Generator) -> Images:
    """Smear along a line of 9 to 15 px, a quarter of them out of focus instead."""
    if rng.random() < 0.25:
        return np.asarray(cv2.GaussianBlur(frame, (0, 0), 3.0), np.uint8)
    length = int(rng.integers(9, 16)) | 1
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1 / length
    turn = cv2.getRotationMatrix2D((length // 2, length // 2), float(rng.uniform(0, 180)), 1.0)
    turned = np.asarray(cv2.warpAffine(kernel, turn, (length, length)), np.float32)
    return np.asarray(cv2.filter2D(frame, -1, turned / turned.sum()), np.uint8)


def _night(frame: Images, others: Sequence[Images], rng: np.random.Generator) -> Images:
    """Leave an eighth of the light, with the noise of a raised gain, warm."""
    seen = frame.astype(np.float32) * np.array([0.2, 0.17, 0.13], np.float32)
    seen += rng.standard_normal(frame.shape, np.float32) * 6
    return _bytes(seen)


def _haze(frame: Images, others: Sequence[Images], rng: np.random.Generator) -> Images:
    """Mix with 55 to 70 % scattered light, more towards one side."""
    height, width = frame.shape[:2]
    slope = np.linspace(-0.1, 0.1, width, dtype=np.float32) * float(rng.choice([-1, 1]))
    thick = (float(rng.uniform(0.55, 0.7)) + slope)[None, :, None]
    return _bytes(frame * (1 - thick) + thick * np.array([205, 210, 218], np.float32))


def _jpeg(frame: Images, others: Sequence[Images], rng: np.random.Generator) -> Images:
    return decode_rgb(encode_rgb(frame, ".jpg", 12), "a frame")


def _shadow(frame: Images, others: Sequence[Images], rng: np.random.Generator) -> Images:
    """Darken a third of the frame with straight edges, bluish, as buildings and clouds do."""
    mask = _pieces(frame.shape[:2], _SHADOW_SHARE, rng)
    soft = cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(0.8, 6.0)))[..., None]
    dark = frame * np.array([0.33, 0.36, 0.43], np.float32)
    return _bytes(frame * (1 - soft) + dark * soft)


def _changed(frame: Images, others: Sequence[Images], rng: np.random.Generator) -> Images:
    """Cover a fifth of the frame with other ground or plain colour."""
    mask = _pieces(frame.shape[:2], _CHANGED_SHARE, rng) > 0.5
    other = others[int(rng.integers(len(others)))][::-1, ::-1]
    _, labels = cv2.connectedComponents(mask.astype(np.uint8))
    changed = frame.copy()
    for label in range(1, int(labels.max()) + 1):
        here = labels == label
        if rng.random() < 0.5:
            grain = rng.normal(0, 6, (int(here.sum()), 1))
            changed[here] = _bytes(rng.uniform(40, 220, 3) + grain)
        else:
            changed[here] = other[here]
    return changed


def _pieces(
    shape: tuple[int, ...], share: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Return turned rectangles (H, W) float32 0 or 1 over a share of the frame's middle.

    They lie evenly over the whole frame, but are counted where patches are cut from.
    """
    height, width = shape[:2]
    mask = np.zeros((height, width), np.float32)
    half = height // 4
    middle = np.s_[height // 2 - half : height // 2 + half, width // 2 - half : width // 2 + half]
    for _ in range(400):
        if mask[middle].mean() >= share:
            break
        place = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
        sides = rng.uniform(0.06, 0.22, 2) * height
        box = cv2.boxPoints((place, (float(sides[0]), float(sides[1])), float(rng.uniform(0, 90))))
        cv2.fillConvexPoly(mask, np.round(box).astype(np.int32), 1.0)
    return mask


def _bytes(values: npt.NDArray[np.floating[Any]]) -> Images:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


FAULTS = (
    Fault("no fault", "exact telemetry, the map's own imagery"),
    Fault("height +40 %", "reported 40 % too high", report=_height(1.4)),
    Fault("height -40 %", "reported 40 % too low", report=_height(0.6)),
    Fault("heading 10 deg", "reported 10 degrees off", report=_heading),
    Fault("heading unknown", f"the best of {HEADINGS} headings counts", report=_no_heading),
    Fault("tilt 10 deg", "tilted 10 degrees more than reported", report=_tilt),
    Fault("blur", "smeared or out of focus", change=_blur),
    Fault("night", "a sixth of the light, noise", change=_night),
    Fault("haze", "55 to 70 % scattered light", change=_haze),
    Fault("JPEG", "quality 12", change=_jpeg),
    Fault("shadow", "a third in hard or soft shadow", change=_shadow),
    Fault("20 % changed", "a fifth covered by other ground", change=_changed),
)
