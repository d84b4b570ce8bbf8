"""Patches and maps cut from photos whose place is known."""

from __future__ import annotations

import numpy as np
from condition import VALID_SHARE, Floats, Gallery, Images, lattice
from flight_block import Photo

from s4g.core.camera import (
    Attitude,
    Camera,
    Matrix,
    apply_homography,
    ground_from_patch,
    ground_from_pixel,
    look_point_m,
    patch_coverages,
    pixel_from_ground,
)
from s4g.core.dusk import brighten
from s4g.core.warp import FrameWarp, cut_with_opencv

# Of the frame, in which the middle of a query may lie.
_INNER = 0.8
_TRIES = 60


def cut(
    image: Images,
    camera: Camera,
    pixel_from_metres: Matrix,
    center_m: Floats,
    footprint_m: float,
    size_px: int,
) -> Images:
    """Draw a north-up square (S, S, 3) of a photo; black outside.

    Args:
        image: (H, W, 3) uint8 of the camera's size.
        camera: its intrinsics.
        pixel_from_metres: from east, north metres below the camera to pixels.
        center_m: of the square, from the camera's foot.
        footprint_m: its side.
        size_px: S.
    """
    east_m, north_m = (float(v) for v in center_m)
    matrix = pixel_from_metres @ ground_from_patch(east_m, north_m, footprint_m, size_px)
    half = size_px / 2
    ends = apply_homography(matrix, [[half, half], [half + 1, half], [half, half + 1]])
    shrink = max(1, int(np.linalg.norm(ends[1:] - ends[0], axis=1).min()))
    patch = cut_with_opencv(image, FrameWarp(camera, matrix, shrink, size_px))
    brighten(patch[None])  # as the runtime does
    return patch


def map_of(
    photos: list[Photo], name: str, source: str, footprint_m: float, size_px: int
) -> Gallery:
    """Return all tiles that a photo shows whole, each from where it is most central."""
    middles = np.array([middle_m(photo) for photo in photos])
    reach_m = max(
        photo.true.agl_m
        * np.hypot(photo.camera.width_px, photo.camera.height_px)
        / 2
        / photo.camera.fx_px
        for photo in photos
    )
    low, high = middles.min(axis=0) - reach_m, middles.max(axis=0) + reach_m
    tiles, centers = [], []
    for place in lattice((low[0], low[1], high[0], high[1]), footprint_m):
        away_m = np.hypot(*(middles - place).T)
        for number in np.argsort(away_m, kind="stable"):
            if away_m[number] > reach_m:
                break
            photo = photos[number]
            center_m = np.subtract(place, photo.foot_m)
            if covered(photo, photo.true, center_m, footprint_m) < VALID_SHARE:
                continue
            matrix = pixel_from_ground(photo.camera, photo.true)
            tiles.append(cut(photo.image, photo.camera, matrix, center_m, footprint_m, size_px))
            centers.append(place)
            break
    return Gallery(
        f"{name} @ {footprint_m:g} m", source, footprint_m, np.stack(tiles), np.array(centers)
    )


def covered(photo: Photo, attitude: Attitude, center_m: Floats, footprint_m: float) -> float:
    """Return the share of a square that a photo shows."""
    return float(patch_coverages(photo.camera, attitude, [[*center_m, footprint_m]])[0])


def draw_pixels(
    photo: Photo, footprint_m: float, count: int, rng: np.random.Generator
) -> list[Floats]:
    """Draw pixels around which a photo shows a whole footprint."""
    size = np.array([photo.camera.width_px, photo.camera.height_px])
    pixels: list[Floats] = []
    for _ in range(_TRIES * count):
        if len(pixels) == count:
            break
        pixel = (0.5 + _INNER * rng.uniform(-0.5, 0.5, 2)) * size
        center_m = metres(photo, photo.true, pixel)
        if covered(photo, photo.true, center_m, footprint_m) >= VALID_SHARE:
            pixels.append(pixel)
    return pixels


def metres(photo: Photo, attitude: Attitude, pixel: Floats) -> Floats:
    """Return east, north (2,) from the camera's foot to the ground at a pixel."""
    ground = apply_homography(ground_from_pixel(photo.camera, attitude), pixel[None])
    return np.asarray(ground[0], np.float64)


def middle_m(photo: Photo) -> Floats:
    """Return east, north (2,) of the ground in the middle of a photo."""
    return np.asarray(photo.foot_m + look_point_m(photo.camera, photo.true), np.float64)
