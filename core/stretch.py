"""Imagery of 16 bits or of fractions brought to 8 bits: one stretch for the whole of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import InputError

Quantiles = npt.NDArray[np.float64]

# These shares of the valid pixels become black and white.
DARK, BRIGHT = 0.02, 0.98
_STEPS = 501  # of a quantile curve; 0.02 and 0.98 are two of them
_SIDE_PX = 1024
# Without overviews a decimated read decodes every pixel; above this size, windows are read.
_MAX_DECODED_PX = 64_000_000
_GRID, _WINDOW_PX = 16, 64


@dataclass(frozen=True)
class Stretch:
    """What becomes black and white, one value per band, or one for all."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def apply(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Return (B, H, W) pixels as uint8; what is no number becomes 0."""
        low = np.array(self.low, np.float32)[:, None, None]
        high = np.array(self.high, np.float32)[:, None, None]
        scaled = (pixels.astype(np.float32) - low) * (255 / (high - low))
        whole = np.rint(np.clip(np.nan_to_num(scaled, copy=False), 0, 255))
        return np.asarray(whole, np.uint8)

    def __str__(self) -> str:
        """Return `low..high` of each band."""
        return ", ".join(f"{a:.6g}..{b:.6g}" for a, b in zip(self.low, self.high, strict=True))


def given_stretch(low_high: tuple[float, float]) -> Stretch:
    """Take the values a user wants black and white.

    Raises:
        InputError: they are no numbers, or not in order.
    """
    low, high = low_high
    if not (np.isfinite([low, high]).all() and low < high):
        raise InputError(f"--stretch {low:g},{high:g}: give two numbers, the lower one first")
    return Stretch((low,), (high,))


def check_stretch(
    low_high: tuple[float, float], name: str, ranges: Iterable[tuple[float, float]]
) -> None:
    """Refuse a stretch that leaves nothing to see.

    Args:
        low_high: the values that become black and white.
        name: of the imagery.
        ranges: least and greatest value of its rasters; no more are asked for than it takes.

    Raises:
        InputError: every value becomes black or white.
    """
    (low, high), seen = low_high, []
    for least, most in ranges:
        if least < high and most > low:
            return
        seen.append((least, most))
    if seen:
        least, most = min(v for v, _ in seen), max(v for _, v in seen)
        raise InputError(
            f"--stretch {low:g},{high:g}: leaves {name} all black or all white; its values lie "
            f"between {least:g} and {most:g}"
        )


def common_stretch(curves: Sequence[Quantiles]) -> Stretch:
    """Return the stretch of rasters together, each counting the same, from their quantiles."""
    together = np.concatenate(curves, axis=1)
    low, high = np.quantile(together, (DARK, BRIGHT), axis=1)
    high = np.where(high > low, high, low + 1)  # one value everywhere: it becomes black
    return Stretch(tuple(low.tolist()), tuple(high.tolist()))


def quantiles(dataset: Any, bands: list[int], alpha: int | None) -> Quantiles | None:
    """Return (B, 501) quantiles of the valid pixels, or None where there is none.

    Args:
        dataset: open with rasterio.
        bands: their numbers.
        alpha: the number of the alpha band, if any.
    """
    parts = [_valid_pixels(dataset, bands, alpha, *part) for part in _parts(dataset, bands)]
    pixels = np.concatenate(parts, axis=1)
    if not pixels.shape[1]:
        return None
    return np.asarray(np.quantile(pixels, np.linspace(0, 1, _STEPS), axis=1).T, np.float64)


def _parts(dataset: Any, bands: list[int]) -> list[tuple[Any, tuple[int, int]]]:
    """Return windows ((row, row), (column, column)) and the shape each is read at."""
    height, width = dataset.shape
    if dataset.overviews(bands[0]) or height * width <= _MAX_DECODED_PX:
        scale = max(1.0, max(height, width) / _SIDE_PX)
        shape = (max(1, int(height / scale)), max(1, int(width / scale)))
        return [(((0, height), (0, width)), shape)]
    tall, wide = min(_WINDOW_PX, height), min(_WINDOW_PX, width)
    rows = np.unique(np.linspace(0, height - tall, _GRID).astype(int)).tolist()
    columns = np.unique(np.linspace(0, width - wide, _GRID).astype(int)).tolist()
    return [(((r, r + tall), (c, c + wide)), (tall, wide)) for r in rows for c in columns]


def _valid_pixels(
    dataset: Any, bands: list[int], alpha: int | None, window: Any, shape: tuple[int, int]
) -> npt.NDArray[np.float32]:
    pixels = dataset.read(bands, window=window, out_shape=(len(bands), *shape)).astype(np.float32)
    valid = dataset.read_masks(bands, window=window, out_shape=pixels.shape).any(axis=0)
    if alpha is not None:
        valid &= dataset.read(alpha, window=window, out_shape=shape) > 0
    valid &= np.isfinite(pixels).all(axis=0)
    return np.asarray(pixels[:, valid], np.float32)
