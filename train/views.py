"""Two views of one place: a tile, and what a drone's camera makes of it; for validation."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from ..core.camera import Matrix, ground_from_patch
from .drone_views import local_from_drone, pixel_from_local
from .grounds import Ground
from .recipe import ViewConfig

Image = npt.NDArray[np.uint8]


class Place:
    """A square piece of ground, and the turn under which both views see it.

    Turning and mirroring both views alike costs nothing and makes one ground many: only shadows
    tell the difference.
    """

    def __init__(
        self,
        ground: Ground,
        x_m: float,
        y_m: float,
        footprint_m: float,
        turn_deg: float,
        mirror: bool,
    ) -> None:
        """Take a centre in metres from the ground's north-west corner."""
        self.ground = ground
        self.x_m = x_m
        self.y_m = y_m
        self.footprint_m = footprint_m
        # From east, north metres around the centre to pixels of the finest level.
        self.pixel_from_local: Matrix = pixel_from_local(
            [ground.gsd_m], [x_m], [y_m], [turn_deg], [mirror]
        )[0]


def cut_patch(place: Place, date: int, local_from_patch: Matrix, size_px: int) -> Image:
    """Resample one date of a place through a homography from patch pixels to local metres."""
    pyramid = place.ground.dates[date]
    ratio = place.footprint_m / size_px / place.ground.gsd_m
    level = min(max(0, int(math.log2(max(ratio, 1.0)))), len(pyramid) - 1)
    shrink = 2.0**-level
    to_level = np.array([[shrink, 0, shrink / 2 - 0.5], [0, shrink, shrink / 2 - 0.5], [0, 0, 1]])
    patch = cv2.warpPerspective(
        pyramid[level],
        to_level @ place.pixel_from_local @ local_from_patch,
        (size_px, size_px),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return np.asarray(patch, np.uint8)


def tile_geometry(place: Place, size_px: int) -> Matrix:
    """Return the map from pixels of the place's tile to local metres."""
    return ground_from_patch(0.0, 0.0, place.footprint_m, size_px)


def drone_geometry(
    place: Place, size_px: int, views: ViewConfig, rng: np.random.Generator
) -> tuple[Matrix, tuple[float, float]]:
    """Draw a drone's view of a place.

    Returns:
        The homography from pixels of the north-up patch to local metres, and how far the patch's
        centre lies from the tile's, as east, north shares of the footprint.
    """
    maps, shares = local_from_drone([place.footprint_m], size_px, views, rng)
    return maps[0], (float(shares[0, 0]), float(shares[0, 1]))
