"""Where the drone may be: a point-mass belief over the whole pack, on a grid that flies along.

The grid moves with the drone, by whole cells when it has gone a few, so that motion blurs nothing;
only what is uncertain about it does. A frame multiplies the cells around the positions that its
tiles imply and scales all others by one number (a point-mass filter, Bucy and Senne 1971; on map
tiles: Kinnari et al., LSVL, 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Cells = npt.NDArray[np.float32]

# A grid has at most this many cells for each heading: 4 MB, and blurs in a few milliseconds.
MAX_CELLS = 1_000_000
# The kernel around an implied position is at least this wide, or cells between two would be missed.
_LEAST_KERNEL_CELLS = 0.6
_KERNEL_REACH = 3.0
# Tiles less likely than this say nothing that the floor would not drown.
_LEAST_OWN = 1e-3
# A circular Gaussian keeps 95 % within 2.448 standard deviations.
_SIGMA_OF_R95 = 1 / 2.448
# The grid is put back over the pack when it has flown this many cells away from it.
_MOST_DRIFT_CELLS = 4.0
# Motion that is uncertain by less than this share of a cell is blurred with what follows.
_LEAST_BLUR_CELLS = 0.5


@dataclass(frozen=True)
class Implied:
    """Positions that the tiles of one frame imply under one heading.

    Attributes:
        positions_m: (P, k, 2) float64 east, north of the drone.
        own: (P, k) float64 probability of each, by its own patch; a row sums to at most 1.
    """

    positions_m: Floats
    own: Floats


@dataclass(frozen=True)
class Mode:
    """The likeliest place.

    Attributes:
        east_m: mean of the mode.
        north_m: mean of the mode.
        mass: probability that the drone is in it, all headings together.
        spread_m: standard deviation per axis inside it.
        heading: index of its likeliest heading.
    """

    east_m: float
    north_m: float
    mass: float
    spread_m: float
    heading: int


class Belief:
    """A probability for every cell, and one for being beyond the grid.

    Attributes:
        cell_m: side of a cell.
        elsewhere: probability that the drone is beyond the grid, or over ground unlike the map.
    """

    def __init__(
        self,
        bounds_m: tuple[float, float, float, float],
        cell_m: float,
        headings: int = 1,
        elsewhere: float = 0.01,
    ) -> None:
        """Believe nothing: every cell is as likely.

        Args:
            bounds_m: west, south, east, north of the grid, metres.
            cell_m: wanted side of a cell; widened where there would be over `MAX_CELLS`.
            headings: how many are told apart.
            elsewhere: probability of being beyond the grid.
        """
        west, south, east, north = bounds_m
        area = (east - west) * (north - south)
        self.cell_m = max(cell_m, math.sqrt(area / MAX_CELLS))
        shape = (
            headings,
            max(1, math.ceil((north - south) / self.cell_m)),
            max(1, math.ceil((east - west) / self.cell_m)),
        )
        self.elsewhere = elsewhere
        self._mass: Cells = np.full(shape, (1 - elsewhere) / math.prod(shape), np.float32)
        self._last_at = np.empty(math.prod(shape[1:]), np.int32)  # scratch of `_distinct`
        self._home_m = np.array([west + self.cell_m / 2, south + self.cell_m / 2])
        self._origin_m = np.tile(self._home_m, (headings, 1))
        self._leaked_elsewhere = elsewhere
        self._variance_m2 = 0.0

    def start(self, east_m: float, north_m: float, radius_m: float) -> None:
        """Believe that the drone is near a place: within a radius with 95 %."""
        sigma_m = max(_SIGMA_OF_R95 * radius_m, self.cell_m / 2)
        for heading, mass in enumerate(self._mass):
            x, y = self._axes(heading)
            column = np.exp(-0.5 * ((y - north_m) / sigma_m) ** 2)
            row = np.exp(-0.5 * ((x - east_m) / sigma_m) ** 2)
            np.multiply(column[:, None], row[None], out=mass, casting="same_kind")
        self._renew()

    def settle(self, east_m: float, north_m: float, sigma_m: float, mass: float) -> None:
        """Believe with a probability `mass` that the drone is at a place, known to `sigma_m`."""
        before, elsewhere = self._mass.copy(), (1 - mass) * self.elsewhere
        self.start(east_m, north_m, sigma_m / _SIGMA_OF_R95)
        self._mass *= mass / self._sum()
        self._mass += (1 - mass) * before
        self.elsewhere = elsewhere
        self._renew()

    @property
    def headings(self) -> int:
        """How many are told apart."""
        return len(self._mass)

    def part(self, headings: int) -> None:
        """Tell so many headings apart from now on, each as likely; or only one, all together.

        Headings must have moved alike so far.
        """
        together = self._mass.sum(axis=0, keepdims=True)
        self._mass = np.repeat(together / headings, headings, axis=0)
        self._origin_m = np.repeat(self._origin_m[:1], headings, axis=0)

    def turn(self, sigma: float) -> None:
        """Turn with a drone of which nobody knows how it turns.

        Args:
            sigma: standard deviation, in steps between headings.
        """
        share = min(sigma**2 / 2, 1 / 3)  # to either side
        sides = np.roll(self._mass, 1, axis=0) + np.roll(self._mass, -1, axis=0)
        self._mass *= 1 - 2 * share
        self._mass += share * sides

    def predict(self, moved_m: Floats, sigma_m: float, leak: float) -> None:
        """Move with the drone.

        Args:
            moved_m: (2,) east, north, or (headings, 2) where it depends on the heading.
            sigma_m: standard deviation per axis of what is uncertain about it.
            leak: probability that all of this is wrong, spread over everything: a drone that was
                carried away is found again.
        """
        self._origin_m += moved_m
        for heading in range(len(self._mass)):
            self._put_back(heading)
        self._variance_m2 += sigma_m**2
        sigma_cells = math.sqrt(self._variance_m2) / self.cell_m
        if sigma_cells >= _LEAST_BLUR_CELLS:
            for mass in self._mass:
                cv2.GaussianBlur(
                    mass, (0, 0), sigma_cells, dst=mass, borderType=cv2.BORDER_CONSTANT
                )
            self._variance_m2 = 0.0
        if leak > 0:
            self._mass *= 1 - leak
            self._mass += leak * (1 - self._leaked_elsewhere) / self._mass.size
        # What has left the grid, flown or blurred, is elsewhere.
        self.elsewhere = max(1.0 - self._sum(), 0.0)

    def _put_back(self, heading: int) -> None:
        """Shift a heading's cells by whole ones, so that they cover the pack again."""
        drift = np.rint((self._origin_m[heading] - self._home_m) / self.cell_m).astype(int)
        if abs(drift).max() < _MOST_DRIFT_CELLS:
            return
        mass = self._mass[heading]
        shifted = np.zeros_like(mass)
        (to_row, from_row), (to_column, from_column) = (
            (slice(max(d, 0), n + min(d, 0)), slice(max(-d, 0), n - max(d, 0)))
            for d, n in zip(drift[::-1], mass.shape, strict=True)
        )
        if abs(drift[1]) < mass.shape[0] and abs(drift[0]) < mass.shape[1]:
            shifted[to_row, to_column] = mass[from_row, from_column]
        self._mass[heading] = shifted
        self._origin_m[heading] -= drift * self.cell_m

    def update(
        self,
        implied: Sequence[Implied | None],
        kernel_m: float,
        floor: float,
        weight: float,
        within: tuple[float, float, float] | None = None,
        held: float = 0.0,
    ) -> None:
        """Take in what a frame says.

        Each patch of it multiplies a place by `floor` plus the rest times the density that its
        tiles put there; `weight` is the power to which the product is raised.

        Args:
            implied: for each heading, None where it was not tried.
            kernel_m: standard deviation of the kernel around a position.
            floor: the least that a patch can say against a place.
            weight: how much of the frame is news: 1 for ground not seen before.
            within: east, north, radius of the circle in which alone was looked: how likely the
                drone is in it stays as it is.
            held: or becomes this, where motion has blurred some of it out.
        """
        before = 0.0 if within is None else max(self.mass_within(*within), held)
        kernel_m = max(kernel_m, _LEAST_KERNEL_CELLS * self.cell_m)
        # All is relative to a place that no tile speaks for, so that those cells stay as they are.
        for heading, what in enumerate(implied):
            if what is None:
                continue
            cells, gain = self._gains(heading, what, kernel_m, floor)
            if len(cells):
                flat = self._mass[heading].reshape(-1)
                flat[cells] *= np.exp(np.minimum(weight * gain, 60.0)).astype(np.float32)
        if within is not None:
            after = self.mass_within(*within)
            rest = self._sum() + self.elsewhere - after
            share = before / max(1 - before, 1e-6) * rest / max(after, 1e-30)
            for heading in range(len(self._mass)):
                window, squares, _, _ = self._window(heading, *within)
                window[squares <= within[2] ** 2] *= share
        self._renew()

    def _gains(
        self, heading: int, what: Implied, kernel_m: float, floor: float
    ) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return cells (C,) and by how much the logarithm of each rises."""
        height, width = self._mass.shape[1:]
        patch, tile = np.nonzero(what.own >= _LEAST_OWN)
        own = what.own[patch, tile]
        place = (what.positions_m[patch, tile] - self._origin_m[heading]) / self.cell_m
        nearest = np.rint(place).astype(np.int64)
        reach = math.ceil(_KERNEL_REACH * kernel_m / self.cell_m)
        steps = np.arange(-reach, reach + 1)
        # A Gaussian is the product of one in each direction.
        apart = nearest[..., None] + steps - place[..., None]
        along = np.exp(-0.5 * (self.cell_m / kernel_m) ** 2 * apart**2)
        density = (own[:, None] * along[:, 1])[:, :, None] * along[:, 0][:, None, :]
        columns, rows = (nearest[:, axis, None] + steps for axis in (0, 1))
        inside = ((rows >= 0) & (rows < height))[:, :, None]
        inside = inside & ((columns >= 0) & (columns < width))[:, None, :]
        cells = (rows[:, :, None] * width + columns[:, None, :])[inside]
        touched, number = self._distinct(cells)
        patch = np.broadcast_to(patch[:, None, None], inside.shape)[inside]
        count = len(what.own)
        sums = np.bincount(patch * len(touched) + number, density[inside], count * len(touched))
        ratio = (1 - floor) / floor
        return touched, np.log1p(ratio * sums.reshape(count, -1)).sum(axis=0)

    def _distinct(
        self, cells: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the distinct ones among cells (n,), and (n,) the number of each; sorts nothing."""
        order = np.arange(len(cells), dtype=np.int32)
        self._last_at[cells] = order  # of several the last
        last = self._last_at[cells]
        is_last = last == order
        return cells[is_last], (np.cumsum(is_last) - 1)[last]

    def mode(self, reach_m: float) -> Mode:
        """Return what lies around the likeliest cell.

        Args:
            reach_m: radius of the mode.
        """
        heading, row, column = np.unravel_index(int(self._mass.argmax()), self._mass.shape)
        east_m, north_m = self._origin_m[heading] + self.cell_m * np.array([column, row])
        total, first, second = 0.0, np.zeros(2), 0.0
        for number in range(len(self._mass)):
            part = self._around(number, float(east_m), float(north_m), reach_m)
            total, first, second = total + part[0], first + part[1], second + part[2]
        middle = first / max(total, 1e-30)
        variance = max(second / max(total, 1e-30) - float(middle @ middle), 0.0) / 2
        variance += self._variance_m2 + self.cell_m**2 / 12
        return Mode(
            float(east_m + middle[0]),
            float(north_m + middle[1]),
            total,
            variance**0.5,
            int(heading),
        )

    def mass_within(self, east_m: float, north_m: float, reach_m: float) -> float:
        """Return the probability of being this near a place."""
        return sum(
            self._around(number, east_m, north_m, reach_m)[0] for number in range(len(self._mass))
        )

    def _around(
        self, heading: int, east_m: float, north_m: float, reach_m: float
    ) -> tuple[float, Floats, float]:
        """Return the mass near a place, its first moment (2,) about it, and its second."""
        window, squares, x, y = self._window(heading, east_m, north_m, reach_m)
        near = np.where(squares <= reach_m**2, window, 0.0)
        first = np.array([near.sum(axis=0) @ x, near.sum(axis=1) @ y])
        return float(near.sum()), first, float((near * squares).sum())

    def _window(
        self, heading: int, east_m: float, north_m: float, reach_m: float
    ) -> tuple[Cells, Floats, Floats, Floats]:
        """Return a view of the cells near a place, their squared distances, and their axes."""
        x, y = self._axes(heading)
        x, y = x - east_m, y - north_m
        columns, rows = np.flatnonzero(abs(x) <= reach_m), np.flatnonzero(abs(y) <= reach_m)
        x, y = x[columns], y[rows]
        top, left = (int(found[0]) if len(found) else 0 for found in (rows, columns))
        window = self._mass[heading][top : top + len(rows), left : left + len(columns)]
        return window, y[:, None] ** 2 + x**2, x, y

    def _axes(self, heading: int) -> tuple[Floats, Floats]:
        height, width = self._mass.shape[1:]
        x, y = self._origin_m[heading]
        return x + self.cell_m * np.arange(width), y + self.cell_m * np.arange(height)

    def _sum(self) -> float:
        # OpenCV sums floats in doubles, a dozen times as fast as numpy does.
        return sum(float(cv2.sumElems(mass)[0]) for mass in self._mass)

    def _renew(self) -> None:
        total = self._sum() + self.elsewhere
        self._mass /= total
        self.elsewhere /= total
