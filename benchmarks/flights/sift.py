"""SIFT and RANSAC against the whole map: what a localiser without training would do.

The pack's imagery is searched for keypoints once. A frame is turned north-up and upright by the
same telemetry that the product gets, at the imagery's scale; its keypoints are looked for among
all of the map's (approximate nearest neighbours, Lowe's ratio test), and RANSAC looks for a
similarity on which they agree. There is a position where enough of them do, by the thresholds of
ngps_flight: 20 inliers and 22 % of the matches.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from kept import code_of, key_of

from s4g.core.camera import Attitude, Camera, look_point_m
from s4g.core.errors import InputError
from s4g.core.files import atomic_file, sha256_bytes
from s4g.core.ground import GroundSource, GroundWindow
from s4g.core.warp import cut_with_opencv, north_up_warp
from s4g.runtime.fix import Fix, Reason, State
from s4g.runtime.frames import Frame, FrameSource, Outage
from s4g.runtime.simulate import footprint_m
from s4g.runtime.telemetry_sample import Telemetry
from s4g.tilepacks.reader import Pack

RATIO = 0.8
MIN_INLIERS, MIN_INLIER_SHARE = 20, 0.22
REACH_PX = 5.0
_BLOCK_PX, _MARGIN_PX = 1024, 48
_PER_BLOCK = 12_000  # keypoints; the strongest stay
_PER_FRAME = 2_000
_MOST_PX = 1024  # side of a frame turned north-up
_TREES, _CHECKS = 4, 96
_FLANN_KDTREE = 1
_EDGE_PX = 6  # keypoints so near to where the frame ends are of its edge

Floats = npt.NDArray[np.float64]
RGB = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, eq=False)
class SiftMap:
    """The keypoints of a pack's imagery.

    Attributes:
        gsd_m: metres per pixel of the imagery they were found in.
        points_m: (N, 2) east, north in the pack's frame.
        matcher: finds nearest neighbours among their descriptors.
    """

    gsd_m: float
    points_m: Floats
    matcher: Any


def sift_fixes(
    source: FrameSource, telemetry: Telemetry, camera: Camera, pack: Pack
) -> Iterator[tuple[Fix, dict[str, float]]]:
    """Yield a fix and the stages' milliseconds for every frame of a source.

    Raises:
        InputError: the pack carries no imagery.
    """
    known = _sift_map(pack)
    with closing(source):
        for frame in source.frames():
            assert not isinstance(frame, Outage)
            sample = telemetry.at(frame)
            empty = Fix(frame.index, frame.t, State.NO_FIX, frame.file)
            if isinstance(sample, Reason):
                yield dataclasses.replace(empty, reason=sample), {}
                continue
            if not sample.agl_known:
                yield dataclasses.replace(empty, reason=Reason.NO_HEIGHT), {}
                continue
            place_m = locate(frame, sample.attitude, camera, known)
            total_ms = (time.monotonic() - frame.arrived_s) * 1e3
            fix = dataclasses.replace(empty, reason=Reason.AMBIGUOUS, latency_ms=total_ms)
            if place_m is not None:
                lat, lon = (float(v) for v in pack.frame.to_wgs84(*place_m))
                fix = dataclasses.replace(
                    fix, state=State.TRACK, reason=None, lat=lat, lon=lon,
                    source="visual", anchor_age_s=0.0,
                )  # fmt: skip
            yield fix, {"total": total_ms}


def locate(frame: Frame, attitude: Attitude, camera: Camera, known: SiftMap) -> Floats | None:
    """Return east, north of the drone, None where too few keypoints agree."""
    rgb, _ = frame.rgb()
    view, center_m, gsd_m = _north_up(rgb, attitude, camera, known.gsd_m)
    points_px, descriptors = _keypoints(view, _PER_FRAME)
    if len(points_px) < MIN_INLIERS:
        return None
    pairs = known.matcher.knnMatch(descriptors, k=2)
    good = [m for m, n in pairs if m.distance < RATIO * n.distance]
    if len(good) < MIN_INLIERS:
        return None
    source = points_px[[m.queryIdx for m in good]]
    target = known.points_m[[m.trainIdx for m in good]]
    cv2.setRNGSeed(0)
    middle = target.mean(axis=0)
    matrix, inliers = cv2.estimateAffinePartial2D(
        source, target - middle, method=cv2.RANSAC, ransacReprojThreshold=REACH_PX * known.gsd_m,
        maxIters=5000, confidence=0.999,
    )  # fmt: skip
    if matrix is None or int(inliers.sum()) < max(MIN_INLIERS, MIN_INLIER_SHARE * len(good)):
        return None
    side_px = view.shape[0]
    # Columns and rows, the latter counted northwards, as a similarity mirrors nothing.
    foot_px = (side_px - 1) / 2 - np.array(center_m) / gsd_m
    return np.asarray(matrix @ [*foot_px, 1.0] + middle, np.float64)


def _north_up(
    rgb: RGB, attitude: Attitude, camera: Camera, gsd_m: float
) -> tuple[RGB, tuple[float, float], float]:
    """Return all of a frame, north up, the offset of its middle from the drone, and its scale."""
    center_m = look_point_m(camera, attitude)
    side_m = math.hypot(*footprint_m(camera, attitude.agl_m))
    side_px = min(_MOST_PX, math.ceil(side_m / gsd_m))
    warp = north_up_warp(camera, attitude, center_m, side_m, side_px)
    return cut_with_opencv(rgb, warp), center_m, side_m / side_px


def _keypoints(rgb: RGB, most: int) -> tuple[Floats, npt.NDArray[np.float32]]:
    """Return columns and rows counted northwards (n, 2), and descriptors (n, 128), of a picture."""
    edge = np.ones((2 * _EDGE_PX + 1, 2 * _EDGE_PX + 1), np.uint8)
    seen = cv2.erode(np.asarray(rgb.any(axis=2), np.uint8), edge, borderValue=0)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    keys, descriptors = cv2.SIFT.create(most).detectAndCompute(grey, seen)
    points = np.array([key.pt for key in keys], np.float64).reshape(-1, 2)
    points[:, 1] = rgb.shape[0] - 1 - points[:, 1]
    found = np.zeros((0, 128), np.float32) if descriptors is None else descriptors
    return points, np.asarray(found, np.float32)


@functools.lru_cache(maxsize=1)
def _sift_map(pack: Pack) -> SiftMap:
    """Return the keypoints of a pack's imagery, kept beside it."""
    path = pack.path.with_name(f"{key_of(imagery_key(pack), sift_code())}.sift.npz")
    if not path.exists():
        _write_map(pack, path)
    with np.load(path, allow_pickle=False) as held:
        gsd_m, points_m, descriptors = float(held["gsd_m"]), held["points_m"], held["descriptors"]
    cv2.setRNGSeed(0)
    matcher = cv2.FlannBasedMatcher(
        {"algorithm": _FLANN_KDTREE, "trees": _TREES}, {"checks": _CHECKS}
    )
    matcher.add([descriptors.astype(np.float32)])
    matcher.train()
    return SiftMap(gsd_m, points_m, matcher)


def imagery_key(pack: Pack) -> str:
    """Return a hash of a pack's imagery: other tiles of it are nothing to SIFT.

    Raises:
        InputError: the pack carries none.
    """
    if pack.manifest.imagery is None:
        raise InputError(f"{pack.path}: carries no imagery to match with")
    return sha256_bytes(pack.container.section("imagery"))


def sift_code() -> str:
    """Return a hash of the code that what SIFT finds depends on."""
    ours = "benchmarks/flights/sift.py", "core/camera.py", "core/warp.py", "core/images.py"
    return code_of(*ours, follow=False)


def _write_map(pack: Pack, path: Path) -> None:
    imagery = pack.imagery()
    assert imagery is not None
    with closing(imagery):
        blocks = [_block(pack, imagery, *corner) for corner in _corners(pack, imagery.gsd_m)]
        gsd_m = imagery.gsd_m
    points_m = np.concatenate([points for points, _ in blocks])
    descriptors = np.concatenate([found for _, found in blocks]).astype(np.uint8)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, gsd_m=gsd_m, points_m=points_m, descriptors=descriptors)


def _corners(pack: Pack, gsd_m: float) -> list[tuple[float, float]]:
    """Return the western and northern edges of the blocks that the region is cut into."""
    west_m, south_m, east_m, north_m = pack.frame.local_bounds(pack.bounds)
    step_m = _BLOCK_PX * gsd_m
    return [
        (float(x), float(y))
        for y in np.arange(north_m, south_m, -step_m)
        for x in np.arange(west_m, east_m, step_m)
    ]


def _block(
    pack: Pack, imagery: GroundSource, west_m: float, north_m: float
) -> tuple[Floats, npt.NDArray[np.float32]]:
    """Return the keypoints of a block, in metres; those of its margin are its neighbours'."""
    gsd_m, side_px = imagery.gsd_m, _BLOCK_PX + 2 * _MARGIN_PX
    margin_m = _MARGIN_PX * gsd_m
    window = GroundWindow(west_m - margin_m, north_m + margin_m, gsd_m, side_px, side_px)
    points_px, descriptors = _keypoints(imagery.read(pack.frame, window).rgb, _PER_BLOCK)
    last = side_px - 1 - _MARGIN_PX + 0.5
    inside = ((points_px >= _MARGIN_PX - 0.5) & (points_px < last)).all(axis=1)
    south_m = window.north_m - side_px * gsd_m
    points_m = (points_px[inside] + 0.5) * gsd_m + [window.west_m, south_m]
    return points_m, descriptors[inside]
