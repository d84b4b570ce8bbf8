"""An orthophoto of photos whose place is known: each pixel from the photo that is most above it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from flight_block import Photo

from s4g.core.camera import apply_homography, ground_from_pixel, look_point_m
from s4g.core.geo import LocalFrame
from s4g.core.ground import ArrayGround
from s4g.core.warp import north_up_patch

Floats = npt.NDArray[np.float64]


def mosaic_of(photos: Sequence[Photo], frame: LocalFrame, gsd_m: float, name: str) -> ArrayGround:
    """Return a north-up picture of all ground that the photos show, taken for flat.

    Args:
        photos: in their places.
        frame: whose metres they lie in.
        gsd_m: of the picture.
        name: for messages.
    """
    corners = [_corners_m(photo) for photo in photos]
    low, high = np.min([c.min(axis=0) for c in corners], axis=0), np.max(corners, axis=(0, 1))
    width, height = (math.ceil(v) for v in (high - low) / gsd_m)
    rgb = np.zeros((height, width, 3), np.uint8)
    away_m = np.full((height, width), np.inf, np.float32)
    for photo, corner in zip(photos, corners, strict=True):
        side_px = math.ceil(float(np.ptp(corner, axis=0).max()) / gsd_m)
        # On whole pixels of the picture.
        west, north = (
            math.floor((corner[:, 0].min() - low[0]) / gsd_m),
            math.floor((high[1] - corner[:, 1].max()) / gsd_m),
        )
        half_m = side_px * gsd_m / 2
        center_m = (
            low[0] + west * gsd_m + half_m - photo.foot_m[0],
            high[1] - north * gsd_m - half_m - photo.foot_m[1],
        )
        seen = north_up_patch(
            photo.image, photo.camera, photo.true, center_m, side_px * gsd_m, side_px
        )[0]
        _lay(seen, _distances_m(photo, center_m, side_px, gsd_m), (north, west), rgb, away_m)
    return ArrayGround(
        rgb, np.isfinite(away_m), frame, float(low[0]), float(high[1]), gsd_m, name=name
    )


def _corners_m(photo: Photo) -> Floats:
    """Return east, north (4, 2) of the ground in a photo's corners."""
    right, bottom = photo.camera.width_px - 1, photo.camera.height_px - 1
    ends = np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]], np.float64)
    ground = apply_homography(ground_from_pixel(photo.camera, photo.true), ends)
    return np.asarray(ground + photo.foot_m, np.float64)


def _distances_m(
    photo: Photo, center_m: tuple[float, float], side_px: int, gsd_m: float
) -> npt.NDArray[np.float32]:
    """Return how far each pixel (S, S) of a square lies from the middle of the photo."""
    middle = look_point_m(photo.camera, photo.true)
    steps = (np.arange(side_px) - (side_px - 1) / 2) * gsd_m
    east, north = center_m[0] + steps - middle[0], center_m[1] - steps - middle[1]
    return np.hypot(east[None, :], north[:, None]).astype(np.float32)


def _lay(
    seen: npt.NDArray[np.uint8],
    distance_m: npt.NDArray[np.float32],
    at: tuple[int, int],
    rgb: npt.NDArray[np.uint8],
    away_m: npt.NDArray[np.float32],
) -> None:
    """Put a square where it is nearer to its photo's middle than what lies there, in place."""
    top, left = at
    rows, columns = slice(top, top + len(seen)), slice(left, left + len(seen))
    here, so_far = rgb[rows, columns], away_m[rows, columns]
    inside = np.s_[: so_far.shape[0], : so_far.shape[1]]
    seen, distance_m = seen[inside], distance_m[inside]
    better = seen.any(axis=2) & (distance_m < so_far)
    here[better], so_far[better] = seen[better], distance_m[better]
