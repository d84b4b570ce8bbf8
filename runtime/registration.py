"""Where a north-up view lies on the pack's own imagery, to a fraction of a pixel, or not at all.

Season, light and sensor change how bright things are, less where their edges run. So directions of
brightness gradients are compared, each counting by how far it stands out of the noise, at every
shift at once (orientation correlation, Fitch et al. 2002, normalised). The view is turned and
scaled a little to undo errors of heading and height. A place is believed on its own evidence alone:
how well the directions agree there, and how much better than anywhere else in reach.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from ..core.geo import LocalFrame
from ..core.ground import GroundSource, GroundWindow
from .correlate import Float32, Grey, about_middle, tent_peak

Floats = npt.NDArray[np.float64]
RGB = npt.NDArray[np.uint8]

# Views are compared at this size.
SIDE_PX = 128
# Search windows: at least so much around the view, at most so much, a side, pixels.
_MIN_REACH_PX, _MAX_REACH_PX = 32, 192
# Ground drawn beyond the window, for the next frames: a side, pixels.
_SPARE_PX = 64
# Scales that differ by less share the drawn ground.
_SAME_SCALE = 5e-3
# Grey levels a pixel at which a gradient counts half, and the blur before it is taken.
_NOISE_GREY, _BLUR_PX = 1.0, 1.0
# Pixels at the border of what is shown whose gradient shows the border.
_EDGE_PX = 9
# Turns that are tried at every shift, then finer ones and scales at the best shift.
_TURNS_DEG = (-3.0, 0.0, 3.0)
_FINE_TURN_DEG, _FINE_SCALE = 1.5, 0.03
# A place is believed from this agreement on, and if it is so much better than any this far apart.
# On the calibration flights 3,794 views expected at wrong places agreed to 0.20 with 99.9 %; none
# was believed, nor one of 570 expected in the right place that was over 2.5 m off.
_MIN_AGREEMENT, _MAX_RIVAL, _APART_PX = 0.25, 0.85, 5
# Standard deviation per axis in pixels, divided by the agreement: there it was 0.3 pixels where
# views agree to 0.8, 0.7 where they agree to 0.35. Most of it is shadows that fall another way.
_SIGMA_PX = 0.3


class Mapped(Protocol):
    """The part of a pack that registration needs (see tilepacks.reader.Pack)."""

    @property
    def frame(self) -> LocalFrame:
        """Where positions are metres."""
        ...

    def imagery(self) -> GroundSource | None:
        """Return the region's imagery, if any."""
        ...


@dataclass(frozen=True)
class Registered:
    """Where a view lies on the map.

    Attributes:
        position_m: (2,) float64 east, north of the view's middle in the pack's frame.
        sigma_m: standard deviation per axis; of the view's place alone, not of the drone's.
        agreement: of the gradients' directions, up to 1.
        rival: the same of the best place elsewhere in reach.
        turn_deg: how far the view had to be turned clockwise: what the reported heading lacks.
        scale: how far it had to be enlarged: by what the reported height falls short.
    """

    position_m: Floats
    sigma_m: float
    agreement: float
    rival: float
    turn_deg: float
    scale: float


@dataclass(frozen=True)
class _Edges:
    """Directions of the gradients of a picture: (H, W) float32 right and down, length up to 1."""

    right: Float32
    down: Float32


@dataclass(frozen=True)
class _Drawn:
    """Ground that was drawn."""

    window: GroundWindow
    edges: _Edges


@dataclass(frozen=True)
class _Peak:
    """The best shift of a view: column and row of its first pixel in the window."""

    agreement: float
    rival: float
    column: float
    row: float


class Registration:
    """Registers the views of a flight; keeps the ground drawn last.

    Args:
        pack: an open pack. The first look at its imagery reads all of it once.

    Raises:
        IntegrityError: the imagery is damaged.
    """

    def __init__(self, pack: Mapped) -> None:
        """Open the imagery."""
        self._frame = pack.frame
        self._imagery = pack.imagery()
        self._drawn: _Drawn | None = None

    @property
    def is_possible(self) -> bool:
        """Whether the pack carries imagery."""
        return self._imagery is not None

    def register(
        self, view: RGB, footprint_m: float, near_m: Floats, reach_m: float
    ) -> Registered | None:
        """Look for a view around a place.

        Args:
            view: (S, S, 3) uint8, tilt undone, north up within 5 degrees, black where the frame
                shows nothing.
            footprint_m: its side on the ground, metres, right to 6 %.
            near_m: (2,) east, north in the pack's frame where its middle is expected.
            reach_m: how far around that it is looked for; 32 to 192 pixels of 1/128 footprint.

        Returns:
            The place; None where none is sure, or the pack carries no imagery.

        Raises:
            IntegrityError: the imagery is damaged there.
        """
        if self._imagery is None:
            return None
        gsd_m = footprint_m / SIDE_PX
        reach_px = min(max(math.ceil(reach_m / gsd_m), _MIN_REACH_PX), _MAX_REACH_PX)
        grey = _grey(view)
        ground, west_m, north_m = self._cut(near_m, reach_px, gsd_m)
        search = _Search(ground)
        turn_deg, found = max(
            ((turn, search.everywhere(_turned(grey, 1.0, turn))) for turn in _TURNS_DEG),
            key=lambda trial: trial[1].agreement,
        )
        turn_deg, scale = _refine(search, grey, turn_deg, found)
        finer = search.everywhere(_turned(grey, scale, turn_deg))
        inside = (
            0 < round(finer.column) < search.shifts - 1 and 0 < round(finer.row) < search.shifts - 1
        )
        if (
            not inside
            or finer.agreement < _MIN_AGREEMENT
            or finer.rival > _MAX_RIVAL * finer.agreement
        ):
            return None
        middle = np.array([finer.column, -finer.row]) + np.array([SIDE_PX, -SIDE_PX]) / 2
        position_m = np.array([west_m, north_m]) + gsd_m * middle
        sigma_m = _SIGMA_PX / finer.agreement * gsd_m
        # Sums of floats end otherwise where memory lies otherwise: a replay must not.
        position_m, sigma_m = np.round(position_m, 3), round(sigma_m, 3)
        return Registered(position_m, sigma_m, finer.agreement, finer.rival, turn_deg, scale)

    def close(self) -> None:
        """Release the imagery."""
        if self._imagery is not None:
            self._imagery.close()
            self._imagery = None

    def _cut(self, near_m: Floats, reach_px: int, gsd_m: float) -> tuple[_Edges, float, float]:
        """Return the ground's edges around a place, and where their window's corner lies."""
        side = _even_size(SIDE_PX + 2 * reach_px)
        found = self._within(near_m, side, gsd_m)
        if found is None:
            self._draw(near_m, side + 2 * _SPARE_PX, gsd_m)
            found = self._within(near_m, side, gsd_m)
        assert self._drawn is not None and found is not None
        column, row = found
        part = np.s_[row : row + side, column : column + side]
        edges, window = self._drawn.edges, self._drawn.window
        return (
            _Edges(edges.right[part], edges.down[part]),
            window.west_m + column * window.gsd_m,
            window.north_m - row * window.gsd_m,
        )

    def _within(self, near_m: Floats, side: int, gsd_m: float) -> tuple[int, int] | None:
        """Return column and row of the window of `side` pixels around a place, if it is drawn."""
        if self._drawn is None or abs(self._drawn.window.gsd_m / gsd_m - 1) > _SAME_SCALE:
            return None
        window = self._drawn.window
        column = round((float(near_m[0]) - window.west_m) / window.gsd_m - side / 2)
        row = round((window.north_m - float(near_m[1])) / window.gsd_m - side / 2)
        last = window.width_px - side
        return (column, row) if 0 <= column <= last and 0 <= row <= last else None

    def _draw(self, near_m: Floats, side: int, gsd_m: float) -> None:
        assert self._imagery is not None
        half_m = side / 2 * gsd_m
        west_m, north_m = float(near_m[0]) - half_m, float(near_m[1]) + half_m
        window = GroundWindow(west_m, north_m, gsd_m, side, side)
        image = self._imagery.read(self._frame, window)
        grey = np.asarray(cv2.cvtColor(image.rgb, cv2.COLOR_RGB2GRAY), np.uint8)
        self._drawn = _Drawn(window, _edges(grey))


class _Search:
    """A window of ground, prepared to be compared with views at every shift.

    Attributes:
        shifts: how many there are along an axis.
    """

    def __init__(self, ground: _Edges) -> None:
        """Take the spectra of the ground, and how much there is to see at each shift."""
        self._ground = ground
        self._side = len(ground.right)
        self.shifts = self._side - SIDE_PX + 1
        self._padded, self._product, self._total = (_aligned(self._side) for _ in range(3))
        self._spectra = []
        for part in (ground.right, ground.down):
            np.copyto(self._padded, part)
            self._spectra.append(_aligned(self._side))
            cv2.dft(self._padded, self._spectra[-1])
        self._padded.fill(0)
        square = ground.right * ground.right + ground.down * ground.down
        sums = cv2.integral(square)
        self._energy = np.asarray(
            sums[SIDE_PX:, SIDE_PX:]
            - sums[:-SIDE_PX, SIDE_PX:]
            - sums[SIDE_PX:, :-SIDE_PX]
            + sums[:-SIDE_PX, :-SIDE_PX],
            np.float32,
        )

    def everywhere(self, view: _Edges) -> _Peak:
        """Compare a view with the ground at every shift."""
        self._total.fill(0)
        own = 0.0
        for part, spectrum in zip((view.right, view.down), self._spectra, strict=True):
            self._padded[:SIDE_PX, :SIDE_PX] = part
            cv2.dft(self._padded, self._product)
            cv2.mulSpectrums(spectrum, self._product, 0, self._product, True)
            self._total += self._product
            own += cv2.norm(part, cv2.NORM_L2SQR)
        cv2.idft(self._total, self._product, cv2.DFT_SCALE)
        surface = self._product[: self.shifts, : self.shifts] / np.sqrt(
            np.maximum(self._energy * np.float32(own), 1.0)
        )
        row, column = divmod(int(surface.argmax()), self.shifts)
        agreement = float(surface[row, column])
        across = _vertex(surface[row], column)
        along = _vertex(surface[:, column], row)
        surface[
            max(0, row - _APART_PX) : row + _APART_PX + 1,
            max(0, column - _APART_PX) : column + _APART_PX + 1,
        ] = 0
        return _Peak(agreement, float(surface.max()), column + across, row + along)

    def at(self, view: _Edges, column: int, row: int) -> float:
        """Return the agreement at one shift."""
        part = np.s_[row : row + SIDE_PX, column : column + SIDE_PX]
        common = own = 0.0
        for mine, ground in ((view.right, self._ground.right), (view.down, self._ground.down)):
            common += float(np.multiply(mine, ground[part], dtype=np.float64).sum())
            own += cv2.norm(mine, cv2.NORM_L2SQR)
        return common / math.sqrt(max(own * float(self._energy[row, column]), 1.0))


def _refine(search: _Search, grey: Grey, turn_deg: float, found: _Peak) -> tuple[float, float]:
    """Return turn and scale at which the view fits best where it was found."""
    column, row = (min(max(round(at), 0), search.shifts - 1) for at in (found.column, found.row))

    def height(turn_deg: float, scale: float) -> float:
        return search.at(_turned(grey, scale, turn_deg), column, row)

    def best(low: float, top: float, high: float) -> float:
        return min(max(tent_peak(low, top, high), -1.0), 1.0)

    top = height(turn_deg, 1.0)
    low, high = (height(turn_deg + side * _FINE_TURN_DEG, 1.0) for side in (-1, 1))
    turn_deg += _FINE_TURN_DEG * best(low, top, high)
    top = height(turn_deg, 1.0)
    low, high = (height(turn_deg, 1.0 + side * _FINE_SCALE) for side in (-1, 1))
    return round(turn_deg, 6), round(1.0 + _FINE_SCALE * best(low, top, high), 8)


def _grey(view: RGB) -> Grey:
    """Return a view (S, S, 3) as grey at the size at which views are compared."""
    if view.shape[0] != SIDE_PX:
        size = (SIDE_PX, SIDE_PX)
        view = np.asarray(cv2.resize(view, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), np.uint8)


def _turned(grey: Grey, scale: float, turn_deg: float) -> _Edges:
    """Return the edges of a view that is scaled and turned clockwise."""
    if scale != 1.0 or turn_deg != 0.0:
        about = about_middle(SIDE_PX, scale, turn_deg)
        grey = np.asarray(cv2.warpAffine(grey, about, (SIDE_PX, SIDE_PX)), np.uint8)
    return _edges(grey)


def _edges(grey: Grey) -> _Edges:
    """Return the directions of the gradients; 0 where the picture is black or ends in black."""
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), _BLUR_PX)
    right, down = (cv2.Sobel(smooth, cv2.CV_32F, *axes, scale=1 / 8) for axes in ((1, 0), (0, 1)))
    length = cv2.magnitude(right, down) + np.float32(_NOISE_GREY)
    shown = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY)[1]
    seen = cv2.erode(shown, np.ones((_EDGE_PX, _EDGE_PX), np.uint8))
    weight = np.asarray(seen / length, np.float32)
    return _Edges(*(np.asarray(part * weight, np.float32) for part in (right, down)))


def _aligned(side: int) -> Float32:
    """Return a square array that begins on a cache line.

    Transforms round otherwise where memory lies otherwise, and a replay must give the same fixes.
    """
    size = 4 * side * side
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(np.float32).reshape(side, side)


def _even_size(least: int) -> int:
    """Return the next even size whose transform is fast."""
    return 2 * cv2.getOptimalDFTSize((least + 1) // 2)


def _vertex(line: Float32, index: int) -> float:
    """Return where between the samples around a highest one a parabola has its top."""
    if not 0 < index < len(line) - 1:
        return 0.0
    low, top, high = (float(v) for v in line[index - 1 : index + 2])
    bend = low - 2 * top + high
    return 0.0 if bend >= 0 else (low - high) / (2 * bend)
