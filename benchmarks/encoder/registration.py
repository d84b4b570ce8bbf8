"""Pictures of the same ground brought into register by SIFT and RANSAC."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

FEATURES, WIDTH_PX = 1500, 800
MIN_INLIERS = 40

Homography = npt.NDArray[np.float64]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Features:
    """What SIFT finds in a picture.

    Attributes:
        points: (n, 2) pixels of the picture.
        descriptors: (n, 128) float32.
    """

    points: Points
    descriptors: npt.NDArray[np.float32]


def features(image: npt.NDArray[np.uint8], width_px: int = WIDTH_PX) -> Features:
    """Return the features of (H, W, 3) uint8, looked for at `width_px` columns."""
    scale = width_px / image.shape[1]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    keys, descriptors = cv2.SIFT.create(FEATURES, contrastThreshold=0.015).detectAndCompute(
        small, None
    )
    points = np.array([key.pt for key in keys], np.float64).reshape(-1, 2)
    found = np.zeros((0, 128), np.float32) if descriptors is None else descriptors
    return Features((points + 0.5) / scale - 0.5, np.asarray(found, np.float32))


def matches(
    first: Features, second: Features, least: int = MIN_INLIERS, reach_px: float = 6.0
) -> tuple[Homography, Points, Points] | None:
    """Return the homography from one picture to another and the points (k, 2) that agree in each.

    None where fewer than `least` do.
    """
    source, target = candidates(first, second)
    if len(source) < least:
        return None
    cv2.setRNGSeed(0)
    matrix, inliers = cv2.findHomography(source, target, cv2.RANSAC, reach_px, maxIters=2000)
    if matrix is None or int(inliers.sum()) < least:
        return None
    rows = inliers.ravel().astype(bool)
    return np.asarray(matrix, np.float64), source[rows], target[rows]


def candidates(first: Features, second: Features, ratio: float = 0.8) -> tuple[Points, Points]:
    """Return points (k, 2) of each picture whose descriptors are nearest by the ratio test."""
    if min(len(first.points), len(second.points)) < 2:
        return np.zeros((0, 2)), np.zeros((0, 2))
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(first.descriptors, second.descriptors, k=2)
    good = [m for m, n in pairs if m.distance < ratio * n.distance]
    return first.points[[m.queryIdx for m in good]], second.points[[m.trainIdx for m in good]]


def register(first: Features, second: Features) -> Homography | None:
    """Return the homography between two pictures; None with too few inliers."""
    found = matches(first, second)
    return None if found is None else found[0]


def project(matrix: Homography, points: Points) -> Points:
    """Map points (N, 2) through a 3x3 homography."""
    out = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return np.asarray(out[:, :2] / out[:, 2:], np.float64)
