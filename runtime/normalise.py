"""From a frame to north-up patches at the scale of a pack level, or a reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..core.camera import (
    Attitude,
    Camera,
    apply_homography,
    ground_from_pixel,
    look_point_m,
    north_up_patch,
    patch_coverages,
    pixel_from_ground,
)
from ..core.errors import InputError
from .fix import Reason
from .frames import REDUCTIONS

RGB = npt.NDArray[np.uint8]

# Beyond this tilt an attitude error of 1 degree moves the look point by over 2 % of the height,
# and buildings lean out of their place.
MAX_TILT_DEG = 25.0
# A level is good where the frame fills its patch to this share, and usable down to the second.
GOOD_COVERAGE = 0.9
MIN_COVERAGE = 0.75
# A patch drawn from fewer frame pixels than this share of its own side shows no detail.
MIN_DETAIL = 0.25
# Distances of side patches from the middle, as shares of the footprint, best first: farther ones
# see other ground, those below the last repeat what the middle one shows.
_SPACINGS = (1.0, 0.85, 0.7, 0.55, 0.4)
# Grey levels of 255: night or a covered lens; overexposure.
MIN_MEAN, MAX_MEAN = 12.0, 245.0
# Standard deviation, grey levels: below it fog, cloud, open water, a lens cap in daylight.
MIN_CONTRAST = 3.0
# Strong edges against the contrast: 90th percentile of the absolute Laplacian, squared, over the
# variance. Of 2,000 tiles of nine orthophotos 99 % lie above 0.2; blurred with a sigma of 4 px
# half of them lie below 0.017.
MIN_SHARPNESS = 0.03


@dataclass(frozen=True)
class PatchPlan:
    """Where to cut patches from a frame.

    Attributes:
        level: index of the pack level.
        footprint_m: side of the patches on the ground, metres.
        centers_m: (P, 2) float64 east, north metres of the patches' centres from the camera's
            foot; the first is where the image's centre looks.
    """

    level: int
    footprint_m: float
    centers_m: npt.NDArray[np.float64]


def plan_patches(
    camera: Camera,
    attitude: Attitude,
    footprints_m: Sequence[float],
    input_px: int,
    max_patches: int,
    fixed_level: int | None = None,
) -> PatchPlan | Reason:
    """Choose the level whose tile the frame covers best, and the patches to cut at it.

    The largest level that the frame covers to 90 % is taken: more ground in one patch is harder
    to mistake. Where none is, the one covered most, down to 75 %.

    Args:
        camera: intrinsics at full size.
        attitude: attitude and height.
        footprints_m: tile sides of the pack's levels.
        input_px: side of a patch in pixels.
        max_patches: most patches to cut, 1 for only the middle one.
        fixed_level: index of the level to use whatever the height, or None.

    Returns:
        The plan, or why the frame cannot be used.
    """
    if not attitude.agl_m > 0:
        return Reason.NO_HEIGHT
    if attitude.tilt_deg > MAX_TILT_DEG:
        return Reason.TILT
    middle = look_point_m(camera, attitude)
    levels = range(len(footprints_m)) if fixed_level is None else [fixed_level]
    squares = [(*middle, footprints_m[i]) for i in levels]
    covered = dict(zip(levels, patch_coverages(camera, attitude, squares), strict=True))
    good = [i for i in levels if covered[i] >= GOOD_COVERAGE]
    level = (
        max(good, key=lambda i: footprints_m[i]) if good else max(levels, key=covered.__getitem__)
    )
    if covered[level] < MIN_COVERAGE:
        return Reason.TOO_LOW
    footprint_m = footprints_m[level]
    if footprint_m / ground_size_m(camera, attitude) < MIN_DETAIL * input_px:
        return Reason.TOO_HIGH
    centers = [middle, *_side_centers(camera, attitude, middle, footprint_m, max_patches)]
    return PatchPlan(level, footprint_m, np.array(centers, np.float64))


def ground_size_m(camera: Camera, attitude: Attitude) -> float:
    """Return the ground size of a full-size pixel straight below, metres."""
    return attitude.agl_m / camera.fx_px


def _side_centers(
    camera: Camera,
    attitude: Attitude,
    middle: tuple[float, float],
    footprint_m: float,
    max_patches: int,
) -> list[tuple[float, float]]:
    """Return centres along the frame's long side, then its short side, as far out as covered."""
    ground = ground_from_pixel(camera, attitude)
    x, y = (camera.width_px - 1) / 2, (camera.height_px - 1) / 2
    right, top = apply_homography(ground, [[camera.width_px - 1, y], [x, 0]]) - middle
    axes = sorted((right, top), key=np.linalg.norm, reverse=True)
    tries = [
        (direction / length, share * footprint_m)
        for axis, length in ((axis, float(np.linalg.norm(axis))) for axis in axes)
        for direction in (axis, -axis)
        for share in _SPACINGS
        if share * footprint_m < length
    ]
    if max_patches <= 1 or not tries:
        return []
    places = np.array([middle + unit * step_m for unit, step_m in tries])
    squares = np.column_stack([places, np.full(len(places), footprint_m)])
    covered = patch_coverages(camera, attitude, squares) >= GOOD_COVERAGE
    centers: dict[tuple[float, ...], tuple[float, float]] = {}
    for (unit, _), place, good in zip(tries, places, covered, strict=True):
        if good:  # the outermost comes first; the others of its direction are not needed
            centers.setdefault(tuple(unit), (float(place[0]), float(place[1])))
    return list(centers.values())[: max_patches - 1]


def max_reduction(camera: Camera, attitude: Attitude, plan: PatchPlan, input_px: int) -> int:
    """Return the strongest JPEG reduction (1, 2, 4, 8) that costs the patches no detail.

    The finest frame detail inside the patch counts, so that a tilted frame keeps its near side.
    """
    half = plan.footprint_m / 2
    east, north = plan.centers_m[0]
    corners = [
        [east - half, north],
        [east + half, north],
        [east, north - half],
        [east, north + half],
    ]
    pixels = apply_homography(pixel_from_ground(camera, attitude), corners)
    across = min(np.linalg.norm(pixels[1] - pixels[0]), np.linalg.norm(pixels[3] - pixels[2]))
    return next((r for r in REDUCTIONS if across / r >= input_px), 1)


def cut_patches(
    rgb: RGB, camera: Camera, attitude: Attitude, plan: PatchPlan, out: RGB
) -> int | Reason:
    """Cut the planned patches into `out` and look at the quality of the first.

    Args:
        rgb: (H, W, 3) uint8 frame of the camera's size.
        camera: intrinsics of this (perhaps reduced) frame.
        attitude: attitude and height.
        plan: of `plan_patches`.
        out: (at least P, S, S, 3) uint8, filled in place.

    Returns:
        The number of patches, or why the picture cannot be used.
    """
    size_px = out.shape[1]
    for i, (east, north) in enumerate(plan.centers_m):
        center = (float(east), float(north))
        out[i], _ = north_up_patch(rgb, camera, attitude, center, plan.footprint_m, size_px)
    return picture_fault(out[0]) or len(plan.centers_m)


def picture_fault(patch: RGB) -> Reason | None:
    """Return what makes a patch (S, S, 3) uint8 useless: dark, bright, uniform or blurred."""
    grey = cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY)
    seen = grey[patch.any(axis=2)]
    if seen.size < grey.size // 2:
        return Reason.DARK
    mean, contrast = float(seen.mean()), float(seen.std())
    if mean < MIN_MEAN:
        return Reason.DARK
    if mean > MAX_MEAN:
        return Reason.BRIGHT
    if contrast < MIN_CONTRAST:
        return Reason.UNIFORM
    edges = np.abs(cv2.Laplacian(grey, cv2.CV_32F))
    if float(np.percentile(edges, 90)) ** 2 < MIN_SHARPNESS * contrast**2:
        return Reason.BLURRED
    return None


def find_level(footprints_m: Sequence[float], wanted_m: float, pack: str) -> int:
    """Return the index of the level whose tiles are `wanted_m` wide, to 1 %.

    Raises:
        InputError: the pack has no such level; the message lists the ones it has.
    """
    for i, footprint_m in enumerate(footprints_m):
        if abs(footprint_m / wanted_m - 1) < 0.01:
            return i
    found = ", ".join(f"{f:g}" for f in footprints_m)
    raise InputError(f"--level {wanted_m:g}: {pack} has levels of {found} m; choose one of them")
