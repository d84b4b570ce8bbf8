"""Sun, haze and cameras of a procedural landscape."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .landscape_noise import Float32, rng_for

# Middle of the day in temperate latitudes: lowest and highest sun, degrees.
_ELEVATION_DEG = {"spring": (35, 55), "summer": (42, 66), "autumn": (30, 46), "winter": (20, 33)}


@dataclass(frozen=True)
class Light:
    """Light of one moment.

    Attributes:
        azimuth_rad: direction of the sun, clockwise from north.
        elevation_rad: height of the sun.
        direct: share of the light that comes from the sun; little under cloud.
        rgb: colour of the light, about 1.
        haze: share of the picture lost to haze.
    """

    azimuth_rad: float
    elevation_rad: float
    direct: float
    rgb: tuple[float, float, float]
    haze: float


def draw_light(light_seed: int, season: str) -> Light:
    """Return the light of a moment in a season."""
    rng = rng_for(light_seed, "light", season)
    elevation = rng.uniform(*_ELEVATION_DEG[season])
    overcast = rng.random() < 0.15
    warm = rng.normal(0, 0.025)
    return Light(
        azimuth_rad=math.radians(rng.uniform(100, 260)),
        elevation_rad=math.radians(elevation),
        direct=float(rng.uniform(0.1, 0.2) if overcast else rng.uniform(0.5, 0.68)),
        rgb=(1 + warm, 1.0, 1 - warm + rng.normal(0, 0.015)),
        haze=0.05 + float(abs(rng.normal(0, 0.04))),
    )


@dataclass(frozen=True)
class Sensor:
    """A camera and its processing chain.

    Attributes:
        saturation: 0 grey, 1 as seen.
        rgb: gain per channel.
        gamma: exponent on values in 0..1.
        contrast: slope around middle grey.
        brightness: offset, 8-bit steps.
        blur_px: standard deviation of the point spread, pixels.
        sharpen: strength of unsharp masking.
        noise: standard deviation of noise, 8-bit steps.
    """

    saturation: float = 1.0
    rgb: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    contrast: float = 1.0
    brightness: float = 0.0
    blur_px: float = 0.6
    sharpen: float = 0.0
    noise: float = 2.0


SENSORS: dict[str, Sensor] = {
    "a": Sensor(0.75, (1.0, 1.0, 1.03), 0.95, 1.08),
    "b": Sensor(1.0, (1.05, 1.0, 0.92), 0.92, 1.15, 0, 0.5, 0.6, 3.0),
    "c": Sensor(0.7, (0.95, 1.0, 1.08), 0.9, 0.85, 10, 0.9, 0.0, 2.0),
    "d": Sensor(0.12, (1.0, 1.0, 1.0), 1.05, 1.1, 0, 0.7, 0.3, 4.0),
    "e": Sensor(0.95, (0.94, 1.02, 1.0), 1.15, 1.2, -8, 0.5, 1.0, 2.0),
    "f": Sensor(0.85, (1.08, 1.0, 0.95), 0.8, 0.9, 6, 1.2, 0.5, 5.0),
    "g": Sensor(0.9, (0.9, 1.02, 1.1), 1.0, 1.16, -4, 0.8, 0.2, 3.0),
    "h": Sensor(1.15, (1.0, 1.04, 0.96), 1.1, 1.0, 4, 0.6, 0.8, 6.0),
}


def expose(
    scene: Float32, sensor: Sensor, haze: float, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Return what a sensor delivers of a scene (H, W, 3) float32, which is overwritten."""
    if haze > 0:
        scene *= np.float32(1 - haze)
        scene += np.array([178, 186, 196], np.float32) * np.float32(haze)
    if sensor.blur_px > 0:
        cv2.GaussianBlur(scene, (0, 0), sensor.blur_px, dst=scene)
    if sensor.sharpen > 0:
        soft = cv2.GaussianBlur(scene, (0, 0), 1.2)
        cv2.addWeighted(scene, 1 + sensor.sharpen, soft, -sensor.sharpen, 0, dst=scene)
    cv2.transform(scene, _colour_matrix(sensor), dst=scene)
    height, width = scene.shape[:2]
    noise = rng.standard_normal((height, width), np.float32)
    noise *= np.float32(sensor.noise)
    for channel in range(3):
        scene[..., channel] += noise
    picture = cv2.convertScaleAbs(np.maximum(scene, 0, out=scene))
    return np.asarray(cv2.LUT(picture, _tone_curve(sensor)), np.uint8)


def _colour_matrix(sensor: Sensor) -> npt.NDArray[np.float32]:
    grey = np.tile([0.299, 0.587, 0.114], (3, 1))
    mixed = grey + sensor.saturation * (np.eye(3) - grey)
    return np.asarray(np.diag(sensor.rgb) @ mixed, np.float32)


def _tone_curve(sensor: Sensor) -> npt.NDArray[np.uint8]:
    level = (np.arange(256) / 255) ** sensor.gamma * 255
    level = (level - 118) * sensor.contrast + 118 + sensor.brightness
    return np.clip(np.round(level), 0, 255).astype(np.uint8)
