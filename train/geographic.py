"""Geographic neighbours: the references that lie nearest, before anything is learnt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from .dataset import Positions
from .relations import Indices

if TYPE_CHECKING:
    from sklearn.neighbors import BallTree

# Rows asked for at a time: their answers take a few MB.
_ROWS = 4096
# Asked for beyond k, so that a tie at the end of the list is seen whole.
_BEYOND = 8


def geographic_neighbours(positions: Positions, k: int) -> Indices:
    """Return the k nearest other positions of each, nearest first.

    The distance is that of the great circle for `wgs84`, Euclidean for `metres`. Of equally
    distant ones, such as pictures of one point, the lower index comes first.

    Args:
        positions: R positions.
        k: length of the lists.

    Returns:
        (R, k) int32, -1 where there are fewer than k others.

    Raises:
        InputError: a coordinate is not finite, or a latitude beyond 90 degrees.
    """
    from sklearn.neighbors import BallTree

    _check(positions)
    count = len(positions)
    out = np.full((count, k), -1, np.int32)
    if count < 2 or k < 1:
        return out
    if positions.kind == "wgs84":
        # The haversine formula takes radians, latitude first; degrees would give other lists.
        points, metric = np.radians(positions.coordinates), "haversine"
    else:
        points, metric = np.asarray(positions.coordinates, np.float64), "euclidean"
    tree = BallTree(points, metric=metric)
    asked = min(count, k + 1 + _BEYOND)
    for start in range(0, count, _ROWS):
        rows = np.arange(start, min(start + _ROWS, count))
        distance, index = tree.query(points[rows], k=asked)
        distance[index == rows[:, None]] = -1.0  # itself goes first, wherever it stands
        order = np.lexsort((index, distance), axis=1)
        found = np.take_along_axis(index, order, axis=1)
        itself = found[:, 0] == rows
        found = np.where(itself[:, None], np.roll(found, -1, axis=1), found)
        width = min(k, count - 1)
        out[rows, :width] = found[:, :width]
        if asked < count:
            last = np.take_along_axis(distance, order, axis=1)
            # The k-th other stands at k where the row holds itself, else at k - 1.
            kth = last[np.arange(len(rows)), np.where(itself, k, k - 1)]
            for row in np.flatnonzero(kth == last[:, -1]):
                out[rows[row]] = _with_ties(tree, points, int(rows[row]), float(kth[row]), k)
    return out


def _with_ties(
    tree: BallTree, points: npt.NDArray[np.float64], row: int, radius: float, k: int
) -> npt.NDArray[Any]:
    """Return the k nearest of one row, whose k-th distance many others share."""
    reach = np.nextafter(radius * (1 + 1e-12), np.inf)
    found, distances = tree.query_radius(points[row : row + 1], reach, return_distance=True)
    index, distance = found[0], distances[0]
    index, distance = index[index != row], distance[index != row]
    return np.asarray(index[np.lexsort((index, distance))][:k])


def _check(positions: Positions) -> None:
    finite = np.isfinite(positions.coordinates).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise InputError(
            f"positions: row {row} is {_spelt(positions, row)}; every reference needs two finite "
            "coordinates"
        )
    if positions.kind == "wgs84":
        beyond = np.abs(positions.coordinates[:, 0]) > 90
        if beyond.any():
            row = int(np.flatnonzero(beyond)[0])
            raise InputError(
                f"positions: row {row} is {_spelt(positions, row)}; a latitude lies between -90 "
                "and 90 degrees and comes first; are the columns swapped, or is this metres?"
            )


def _spelt(positions: Positions, row: int) -> str:
    return ", ".join(f"{value:.9g}" for value in positions.coordinates[row])
