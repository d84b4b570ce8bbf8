"""Seeded random numbers and multi-scale noise, the same ground at any resolution."""

from __future__ import annotations

import zlib

import cv2
import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

_GRID_M = 16.0  # cell of a `SmoothField`; its wavelengths are far longer


def rng_for(seed: int, *tags: str | int) -> np.random.Generator:
    """Return the generator of one purpose, so that drawing more of one thing moves nothing else."""
    words = [zlib.crc32(str(tag).encode()) for tag in tags]
    return np.random.default_rng([seed, *words])


def fractal(
    seed: int,
    tag: str,
    size_m: tuple[float, float],
    gsd_m: float,
    wavelength_m: float,
    octaves: int,
    gain: float = 0.6,
) -> Float32:
    """Return noise of about zero mean and unit variance, (H, W) float32.

    Lattices of random numbers, one per octave, each half the wavelength of the one before, are
    laid over the ground in metres and interpolated. Octaves finer than a pixel are left out, so
    a coarse grid shows the same ground as a fine one.

    Args:
        seed: the world's seed.
        tag: what the noise is for; another tag gives other noise.
        size_m: height and width of the ground, metres.
        gsd_m: pixel size, metres.
        wavelength_m: lattice spacing of the first octave, metres.
        octaves: number of octaves.
        gain: amplitude of an octave over that of the one before.
    """
    height, width = (max(1, round(side / gsd_m)) for side in size_m)
    total = np.zeros((height, width), np.float32)
    power = 0.0
    for octave in range(octaves):
        step_m = wavelength_m / 2**octave
        if step_m < gsd_m and octave > 0:
            break
        amplitude = gain**octave
        power += amplitude**2
        rows, columns = (int(side / step_m) + 5 for side in size_m)
        lattice = rng_for(seed, tag, octave).standard_normal((rows, columns), np.float32)
        lattice *= np.float32(amplitude)
        scale = gsd_m / step_m
        offset = 1.5 + scale / 2
        to_lattice = np.array([[scale, 0, offset], [0, scale, offset]], np.float64)
        total += cv2.warpAffine(
            lattice,
            to_lattice,
            (width, height),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        )
    # Cubic interpolation between lattice points lowers the variance to about 0.64.
    total *= np.float32(1.25 / power**0.5)
    return total


class SmoothField:
    """Slowly varying noise over a square centred on the origin, sampled at any point."""

    def __init__(self, seed: int, tag: str, half_m: float, wavelength_m: float) -> None:
        """Lay the noise over [-half_m, half_m] squared."""
        side = 2 * half_m
        self._half_m = half_m
        self._grid = fractal(seed, tag, (side, side), _GRID_M, wavelength_m, 2, 0.4)

    def at(self, points: npt.ArrayLike) -> Floats:
        """Return the value at points (N, 2) in metres, bilinear, clamped at the border."""
        points = np.asarray(points, np.float64)
        last = len(self._grid) - 1.001
        cells = np.clip((points + self._half_m) / _GRID_M - 0.5, 0, last)
        low = cells.astype(int)
        fx, fy = (cells - low).T
        x, y = low.T
        grid = self._grid
        top = grid[y, x] * (1 - fx) + grid[y, x + 1] * fx
        bottom = grid[y + 1, x] * (1 - fx) + grid[y + 1, x + 1] * fx
        value: Floats = top * (1 - fy) + bottom * fy
        return value


def to_byte(noise: Float32, spread: float = 42.0) -> npt.NDArray[np.uint8]:
    """Return noise as bytes around 128; `spread` is one standard deviation."""
    scaled = cv2.convertScaleAbs(np.maximum(noise, -128 / spread), alpha=spread, beta=128)
    return np.asarray(scaled, np.uint8)
