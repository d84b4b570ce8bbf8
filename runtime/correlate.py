"""Phase correlation of pictures of the ground that overlap in part and may be black in places.

Pictures are reduced to local detail first: what differs from its surroundings, in units of how much
things differ there. Neither light, season nor a dark half of the picture then outweighs the rest.
The peak of the phase correlation (Kuglin and Hines 1975) only proposes a shift; whether it is
believed depends on how well the details agree where both pictures show the same ground.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

# Detail is what differs from the mean of a square of this many pixels.
_NEAR_PX = 7
# Grey levels: the noise of a camera is no detail.
_NOISE_GREY = 2.0
# Black corners of a view are cut off with the pixels that were mixed with them.
_EDGE_PX = 5
# The share of the sides over which pictures fade out (Tukey's window). A window that fades over
# all of a picture (Hann) hides what pictures with a third of overlap have in common.
_FADE = 0.2
# The peak is drawn as a Gaussian of this many pixels, so that its place can be read between them.
_PEAK_PX = 0.7
# Peaks that are looked at, and how far they must be apart.
_PEAKS, _APART_PX = 3, 4


@dataclass
class Detail:
    """A picture's local detail, and its whitened spectrum; buffers that are used again.

    Attributes:
        grey: (S, S) float32, the detail; 0 where the picture is black.
        seen: (S, S) float32, 1 where the picture shows ground, else 0.
        spectrum: (S, S) float32, packed as `cv2.dft` does, all magnitudes 1 but for the roll-off.
        strength: mean square of the detail, 0 to about 1: water has little but noise.
        repeats: correlation of the detail with itself elsewhere: rows of trees have much of it.
    """

    grey: Float32
    seen: Float32
    spectrum: Float32
    strength: float = 0.0
    repeats: float = 0.0


@dataclass(frozen=True)
class Match:
    """How one picture lies on another.

    Attributes:
        right_px: column in the other picture, from its middle, of this one's middle.
        down_px: row, likewise.
        agreement: correlation of the details where both show ground, -1 to 1.
        score: agreement times the root of the number of pixels compared.
        rival: the same of the best shift elsewhere: rows of trees agree at many.
    """

    right_px: float
    down_px: float
    agreement: float
    score: float
    rival: float


class Correlator:
    """Compares square pictures of one size; keeps all buffers.

    Args:
        side_px: even side of the pictures.
        reach: longest shift along an axis, as a share of the side.
    """

    def __init__(self, side_px: int, reach: float) -> None:
        """Prepare windows and buffers."""
        self.side_px = side_px
        self._reach_px = reach * side_px
        fade = _tukey(side_px)
        self._window = fade[:, None] * fade
        self._rolloff = _rolloff(side_px)
        self._shown = np.empty((side_px, side_px), np.uint8)
        self._level, self._spread, self._share, self._surface = (self._buffer() for _ in range(4))
        self._inner = np.ones((_EDGE_PX, _EDGE_PX), np.uint8)

    def _buffer(self) -> Float32:
        return np.empty((self.side_px, self.side_px), np.float32)

    def new(self) -> Detail:
        """Return a buffer for a picture."""
        return Detail(self._buffer(), self._buffer(), self._buffer())

    def load(self, picture: Grey, out: Detail) -> None:
        """Take in a picture (S, S) uint8; 0 is what it does not show."""
        cv2.threshold(picture, 0, 1, cv2.THRESH_BINARY, self._shown)
        cv2.erode(self._shown, self._inner, self._shown)
        out.seen[:] = self._shown
        np.multiply(picture, out.seen, out=out.grey)
        side = (_NEAR_PX, _NEAR_PX)
        cv2.blur(out.seen, side, self._share)
        np.maximum(self._share, 1e-3, out=self._share)
        cv2.blur(out.grey, side, self._level)
        self._level /= self._share
        out.grey -= self._level
        out.grey *= out.seen
        # The spread is that of a wider square: it must not flatten the detail itself.
        np.multiply(out.grey, out.grey, out=self._spread)
        cv2.blur(self._spread, side, self._level)
        cv2.blur(self._level, side, self._spread)
        self._spread /= self._share
        self._spread += _NOISE_GREY**2
        np.sqrt(self._spread, out=self._spread)
        out.grey /= self._spread
        shown = cv2.countNonZero(self._shown)
        out.strength = cv2.norm(out.grey, cv2.NORM_L2SQR) / max(shown, 1)
        self._transform(out)
        cv2.mulSpectrums(out.spectrum, out.spectrum, 0, self._surface, True)
        cv2.idft(self._surface, self._surface, cv2.DFT_SCALE)
        out.repeats = _second_peak(self._surface)
        self._whiten(out)

    def load_detail(self, grey: Float32, out: Detail) -> None:
        """Take in what is detail already; `seen`, `strength` and `repeats` stay as they are."""
        out.grey[:] = grey
        self._transform(out)
        self._whiten(out)

    def _transform(self, detail: Detail) -> None:
        np.multiply(detail.grey, self._window, out=self._surface)
        cv2.dft(self._surface, detail.spectrum)

    def _whiten(self, detail: Detail) -> None:
        _whiten(detail.spectrum, self._surface)
        detail.spectrum *= self._rolloff

    def height(self, picture: Detail, other: Detail) -> float:
        """Return how high the phase correlation's peak is; 1 for the same picture."""
        return float(self._correlate(picture, other).max())

    def match(self, picture: Detail, other: Detail) -> Match:
        """Return how `picture` lies on `other`: their best shift, right or not."""
        side, surface = self.side_px, self._correlate(picture, other)
        found: list[tuple[float, float, float, float]] = []
        for _ in range(_PEAKS):
            row, column = divmod(int(surface.argmax()), side)
            found.append(self._judge(picture, other, row, column))
            near = np.arange(-_APART_PX, _APART_PX + 1)
            surface[np.ix_((row + near) % side, (column + near) % side)] = -1.0
        found.sort(reverse=True)
        score, agreement, right_px, down_px = found[0]
        return Match(right_px, down_px, agreement, score, found[1][0])

    def _correlate(self, picture: Detail, other: Detail) -> Float32:
        cv2.mulSpectrums(other.spectrum, picture.spectrum, 0, self._surface, True)
        return np.asarray(cv2.idft(self._surface, self._surface, cv2.DFT_SCALE), np.float32)

    def _judge(
        self, picture: Detail, other: Detail, row: int, column: int
    ) -> tuple[float, float, float, float]:
        """Return score, agreement and shift of a peak of the surface."""
        side, surface = self.side_px, self._surface
        best = (0.0, 0.0, 0, 0)
        # A shift shows modulo the side; the overlap tells which of the shifts it is.
        for down in (row, row - side):
            for right in (column, column - side):
                if max(abs(down), abs(right)) <= self._reach_px:
                    agreement, pixels = agree(picture, other, right, down)
                    best = max(best, (agreement * math.sqrt(pixels), agreement, right, down))
        score, agreement, right, down = best
        lines = surface[row], surface[:, column]
        across, along = (
            _vertex(line[at - 1], line[at], line[(at + 1) % side])
            for line, at in zip(lines, (column, row), strict=True)
        )
        return score, agreement, right + across, down + along


def agree(picture: Detail, other: Detail, right_px: int, down_px: int) -> tuple[float, float]:
    """Return the correlation of two pictures' details at a shift, and of how many pixels.

    Args:
        picture: the one that lies on the other.
        other: the other.
        right_px: whole pixels that it lies to the right.
        down_px: whole pixels that it lies further down.
    """
    rows, columns = picture.grey.shape
    here = np.s_[
        max(0, -down_px) : rows - max(0, down_px), max(0, -right_px) : columns - max(0, right_px)
    ]
    there = np.s_[
        max(0, down_px) : rows + min(0, down_px), max(0, right_px) : columns + min(0, right_px)
    ]
    both = _product_sum(picture.seen[here], other.seen[there])[0]
    common, own = _product_sum(picture.grey[here], other.grey[there])
    return (common / own, both) if both >= 1 and own > 0 else (0.0, 0.0)


def _product_sum(first: Float32, second: Float32) -> tuple[float, float]:
    """Return the sum of the products, and the most that it could be; 5 times faster than numpy."""
    a, b = (cv2.norm(v, cv2.NORM_L2SQR) for v in (first, second))
    return (a + b - cv2.norm(first, second, cv2.NORM_L2SQR)) / 2, math.sqrt(a * b)


def _tukey(side: int) -> Float32:
    place = (np.arange(side) + 0.5) / side
    edge = np.minimum(np.minimum(place, 1 - place) / (_FADE / 2), 1.0)
    return (0.5 - 0.5 * np.cos(np.pi * edge)).astype(np.float32)


def _rolloff(side: int) -> Float32:
    """Return the packed roll-off of one picture: two make the spectrum of the peak's Gaussian."""
    packed = (np.arange(side) + 1) // 2  # real and imaginary parts follow each other
    signed = np.minimum(np.arange(side), side - np.arange(side))
    rows = np.repeat(signed[:, None], side, axis=1)
    rows[:, [0, -1]] = packed[:, None]
    square = (rows**2 + packed**2) / side**2
    return np.exp(-((np.pi * _PEAK_PX) ** 2) * square).astype(np.float32)


def _whiten(spectrum: Float32, power: Float32) -> None:
    """Give all entries of a packed spectrum the magnitude 1, in place; `power` is a buffer.

    Real and imaginary parts lie side by side, but above each other in the first and last column,
    whose ends are real.
    """
    np.multiply(spectrum, spectrum, out=power)
    inner = power[:, 1:-1:2]
    inner += power[:, 2:-1:2]
    power[:, 2:-1:2] = inner
    for column in (0, -1):
        inner = power[1:-1:2, column]
        inner += power[2:-1:2, column]
        power[2:-1:2, column] = inner
    np.sqrt(power, out=power)
    np.maximum(power, 1e-9, out=power)
    spectrum /= power


def _second_peak(surface: Float32) -> float:
    """Return the highest value away from no shift, as a share of the one there; wipes that out."""
    whole = float(surface[0, 0])
    near, end = _APART_PX + 1, -_APART_PX
    for rows in (np.s_[:near], np.s_[end:]):
        for columns in (np.s_[:near], np.s_[end:]):
            surface[rows, columns] = 0
    return float(surface.max()) / max(whole, 1e-9)


def about_middle(side_px: int, scale: float, turn_deg: float) -> npt.NDArray[np.float64]:
    """Return the map (2, 3) that scales a picture and turns it clockwise about its middle."""
    middle = (side_px - 1) / 2
    return np.asarray(cv2.getRotationMatrix2D((middle, middle), -turn_deg, scale), np.float64)


def tent_peak(low: float, top: float, high: float) -> float:
    """Return where between three heights a tent has its top, in steps from the middle one."""
    return (high - low) / max(2 * (top - min(low, high)), 1e-9)


def _vertex(before: float, peak: float, after: float) -> float:
    """Return where between three samples a Gaussian has its peak, -0.5 to 0.5 from the middle."""
    low, middle, high = (math.log(max(float(v), 1e-12)) for v in (before, peak, after))
    bend = low - 2 * middle + high
    return 0.0 if bend >= 0 else min(0.5, max(-0.5, (low - high) / (2 * bend)))
