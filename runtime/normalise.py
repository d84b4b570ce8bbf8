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
    patch_coverages,
    pixel_from_ground,
    sees,
)
from ..core.errors import InputError
from ..core.warp import FrameWarp, cut_all_with_opencv, north_up_warp
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
# Patches that a level should offer: the middle and, as a rule, the corners of the frame. Several
# small patches tell more than one large one, and some lie on the map where the frame leaves it.
WANTED_PATCHES = 5
# Patches are chosen from places this far apart, as a share of the footprint: closer ones show
# much the same ground.
_SPACING = 0.35
_STEPS = 4  # places tried to each side of the middle
_CELLS = 12  # points per side of a place at which its coverage is judged
# Points this far from the middle, as a share of the footprint, must be seen of a place for it to be
# looked at closely: else more is missing than may be.
_PROBED = 0.35
# Grey levels of 255: night or a covered lens; overexposure.
MIN_MEAN, MAX_MEAN = 12.0, 245.0
# Standard deviation, grey levels: below it fog, cloud, open water, a lens cap in daylight.
MIN_CONTRAST = 3.0
# Strong edges against the contrast: 90th percentile of the absolute Laplacian, squared, over the
# variance. Of 2,000 tiles of nine orthophotos 99 % lie above 0.2; blurred with a sigma of 4 px
# half of them lie below 0.017.
MIN_SHARPNESS, SHARP_QUANTILE = 0.03, 0.9


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
    """Choose the level and the patches to cut at it.

    The largest level at which the frame holds five patches is taken; where there is none, the
    largest that the frame covers to 90 %, and at last the one covered most, down to 75 %.

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
    good = sorted(
        (i for i in levels if covered[i] >= GOOD_COVERAGE),
        key=lambda i: footprints_m[i],
        reverse=True,
    )
    if not good:
        level = max(levels, key=covered.__getitem__)
        if covered[level] < MIN_COVERAGE:
            return Reason.TOO_LOW
        return _plan(camera, attitude, level, footprints_m[level], input_px, 1)
    plans = [_plan(camera, attitude, i, footprints_m[i], input_px, max_patches) for i in good]
    usable = [plan for plan in plans if isinstance(plan, PatchPlan)]
    wanted = min(max_patches, WANTED_PATCHES)
    rich = [plan for plan in usable if len(plan.centers_m) >= wanted]
    return (rich or usable or plans)[0]


def _plan(
    camera: Camera,
    attitude: Attitude,
    level: int,
    footprint_m: float,
    input_px: int,
    max_patches: int,
) -> PatchPlan | Reason:
    """Return the patches of one level, the middle first, then each as far off as can be."""
    if footprint_m / ground_size_m(camera, attitude) < MIN_DETAIL * input_px:
        return Reason.TOO_HIGH
    centers = [np.array(look_point_m(camera, attitude))]
    places = np.empty((0, 2))
    if max_patches > 1:
        places = _covered_places(camera, attitude, footprint_m)
    nearest = np.full(len(places), np.inf)  # distance of each from the centres so far
    while len(places) and len(centers) < max_patches:
        nearest = np.minimum(nearest, np.hypot(*(places - centers[-1]).T))
        farthest = int(nearest.argmax())
        if nearest[farthest] < 0.9 * _SPACING * footprint_m:
            break
        centers.append(places[farthest])
    return PatchPlan(level, footprint_m, np.array(centers, np.float64))


def ground_size_m(camera: Camera, attitude: Attitude) -> float:
    """Return the ground size of a full-size pixel straight below, metres."""
    return attitude.agl_m / camera.fx_px


def _covered_places(
    camera: Camera, attitude: Attitude, footprint_m: float
) -> npt.NDArray[np.float64]:
    """Return the places (N, 2) of a lattice along the frame's axes that are well covered."""
    ground = ground_from_pixel(camera, attitude)
    x, y = (camera.width_px - 1) / 2, (camera.height_px - 1) / 2
    middle, right, top = apply_homography(ground, [[x, y], [camera.width_px - 1, y], [x, 0]])
    steps = np.arange(-_STEPS, _STEPS + 1) * _SPACING * footprint_m
    along = (right - middle) / np.linalg.norm(right - middle)
    up = (top - middle) / np.linalg.norm(top - middle)
    places = middle + (steps[:, None, None] * along + steps[:, None] * up).reshape(-1, 2)
    places = places[_may_be_covered(camera, attitude, footprint_m, places)]
    squares = np.column_stack([places, np.full(len(places), footprint_m)])
    chosen = patch_coverages(camera, attitude, squares, _CELLS) >= GOOD_COVERAGE
    result: npt.NDArray[np.float64] = places[chosen]
    return result


def _may_be_covered(
    camera: Camera, attitude: Attitude, footprint_m: float, places: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Tell which places (N, 2) can be well covered, so that few are looked at closely.

    What a frame shows is convex: where a point on a square's axis is not shown, neither is a part
    beyond some line through it, and that is no smaller than the strip beyond a square one.
    """
    reach = _PROBED * footprint_m * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    probes = places[:, None] + reach
    seen = sees(camera, attitude, probes[..., 0], probes[..., 1])
    return np.asarray(seen.all(axis=1), np.bool_)


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


def plan_warps(
    camera: Camera, attitude: Attitude, plan: PatchPlan, size_px: int, first: int, last: int
) -> list[FrameWarp]:
    """Return how the planned patches `first` to `last - 1` are drawn.

    Args:
        camera: intrinsics of the (perhaps reduced) frame they are cut from.
        attitude: attitude and height.
        plan: of `plan_patches`.
        size_px: side of a patch.
        first: number of the first patch to cut.
        last: number after the last.
    """
    return [
        north_up_warp(camera, attitude, (float(east), float(north)), plan.footprint_m, size_px)
        for east, north in plan.centers_m[first:last]
    ]


def cut_patches(rgb: RGB, warps: Sequence[FrameWarp], out: RGB) -> None:
    """Cut patches out of a frame (H, W, 3) uint8 into the first places of `out` (P, S, S, 3)."""
    cut_all_with_opencv(rgb, warps, out)


def picture_fault(patch: RGB) -> Reason | None:
    """Return what makes a patch (S, S, 3) uint8 useless: dark, bright, uniform or blurred."""
    grey = cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY)
    some = patch[..., 0] | patch[..., 1] | patch[..., 2]  # what is black in all lies outside
    if np.count_nonzero(some) < grey.size // 2:
        return Reason.DARK
    mean, contrast = (float(v[0, 0]) for v in cv2.meanStdDev(grey, mask=some))
    if mean < MIN_MEAN:
        return Reason.DARK
    if mean > MAX_MEAN:
        return Reason.BRIGHT
    if contrast < MIN_CONTRAST:
        return Reason.UNIFORM
    edges = np.abs(cv2.Laplacian(grey, cv2.CV_16S)).ravel()
    strong = int(SHARP_QUANTILE * (edges.size - 1))
    if float(np.partition(edges, strong)[strong]) ** 2 < MIN_SHARPNESS * contrast**2:
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
