"""Baselines that compare a query with each tile by itself."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from condition import Floats, Images
from methods import BASELINE_PX, Method, grey
from scipy import fft

# Query views that each is asked in a condition: they take a second for one.
VIEWS, QUICK_VIEWS = 56, 14
_FEATURES = 200
_RATIO = 0.85
_CHECKED = 40  # tiles with the most matches, which RANSAC looks at
_REACH_PX = 3.0
_SMALL_PX = 64  # pictures that are correlated
_TEMPLATE = 0.625  # middle of the query, of its side, that is sought in tiles


def pairwise_methods(quick: bool) -> list[Method]:
    """Return phase correlation, normalised cross-correlation and, unless quick, SIFT + RANSAC."""
    views = QUICK_VIEWS if quick else VIEWS
    sift = Method(
        "SIFT + RANSAC",
        BASELINE_PX,
        _sift,
        _inliers,
        views,
        turns=True,
        about=f"inliers of a similarity in the {_CHECKED} tiles with most matches, matches in "
        f"the others; about {views} queries a condition, one heading",
    )
    return [
        *([] if quick else [sift]),
        Method(
            "phase correlation",
            BASELINE_PX,
            _spectra,
            _phase_peaks,
            views,
            about=f"peak, Hann window, {_SMALL_PX} px; about {views} queries a condition",
        ),
        Method(
            "NCC",
            BASELINE_PX,
            _small,
            _best_shift,
            views,
            about=f"best shift of the query's middle, {_SMALL_PX} px; about {views} queries",
        ),
    ]


@dataclass(frozen=True, eq=False)
class _Keys:
    points: Floats  # (n, 2)
    descriptors: Images  # (n, 128) float32, root-normalised


def _sift(images: Images) -> list[_Keys]:
    detector = cv2.SIFT.create(_FEATURES, contrastThreshold=0.01)
    found = []
    for image in images:
        keys, descriptors = detector.detectAndCompute(grey(image), None)
        points = np.array([key.pt for key in keys], np.float64).reshape(-1, 2)
        values = np.zeros((0, 128), np.float32) if descriptors is None else descriptors
        total = np.maximum(values.sum(axis=1, keepdims=True), 1e-6)
        found.append(_Keys(points, np.sqrt(values / total)))  # RootSIFT: products are cosines
    return found


def _inliers(queries: list[_Keys], tiles: list[_Keys]) -> Floats:
    """Return for each query and tile how many matches one similarity explains.

    Where no RANSAC was tried the score is the number of matches, in thousandths.
    """
    scores = np.zeros((len(queries), len(tiles)))
    for row, query in enumerate(queries):
        pairs = [_matches(query, tile) for tile in tiles]
        scores[row] = [len(source) / 1000 for source, _ in pairs]
        for column in np.argsort(-scores[row], kind="stable")[:_CHECKED]:
            scores[row, column] += _agreeing(*pairs[column])
    return scores


def _matches(query: _Keys, tile: _Keys) -> tuple[Floats, Floats]:
    """Return the points (k, 2) of both that match by the ratio test, each used once.

    Without the latter a tile of three features would take all of a query's and win every time.
    """
    if min(len(query.points), len(tile.points)) < 2:
        return query.points[:0], tile.points[:0]
    cosine = query.descriptors @ tile.descriptors.T
    best = cosine.argmax(axis=1)
    rows = np.arange(len(best))
    mutual = cosine.argmax(axis=0)[best] == rows
    first = cosine[rows, best]
    cosine[rows, best] = -1
    away, next_away = (np.sqrt(np.maximum(2 - 2 * v, 0)) for v in (first, cosine.max(axis=1)))
    good = (away < _RATIO * next_away) & mutual
    return query.points[good], tile.points[best[good]]


def _agreeing(source: Floats, target: Floats) -> int:
    if len(source) < 3:  # two points always agree
        return 0
    cv2.setRNGSeed(0)
    matrix, inliers = cv2.estimateAffinePartial2D(
        source, target, ransacReprojThreshold=_REACH_PX, maxIters=500
    )
    return 0 if matrix is None else int(inliers.sum())


def _spectra(images: Images) -> Floats:
    """Return the whitened spectra (M, S, S / 2 + 1) complex64 of small windowed pictures."""
    side = _SMALL_PX
    window = np.outer(np.hanning(side), np.hanning(side)).astype(np.float32)
    out = np.empty((len(images), side, side // 2 + 1), np.complex64)
    for number, image in enumerate(_small(images)):
        picture = image.astype(np.float32)
        spectrum = fft.rfft2((picture - picture.mean()) * window)
        out[number] = spectrum / np.maximum(np.abs(spectrum), 1e-3)
    return out  # type: ignore[return-value]


def _phase_peaks(queries: Floats, tiles: Floats) -> Floats:
    scores = np.empty((len(queries), len(tiles)))
    for row, query in enumerate(queries):
        for start in range(0, len(tiles), 64):
            part = fft.irfft2(tiles[start : start + 64] * np.conj(query))
            scores[row, start : start + 64] = part.max(axis=(1, 2))
    return scores


def _small(images: Images) -> Images:
    size = (_SMALL_PX, _SMALL_PX)
    small = [cv2.resize(grey(image), size, interpolation=cv2.INTER_AREA) for image in images]
    return np.stack(small).astype(np.uint8) if small else np.zeros((0, *size), np.uint8)


def _best_shift(queries: Images, tiles: Images) -> Floats:
    edge = round(_SMALL_PX * (1 - _TEMPLATE) / 2)
    scores = np.empty((len(queries), len(tiles)))
    for row, query in enumerate(queries):
        middle = np.ascontiguousarray(query[edge:-edge, edge:-edge])
        for column, tile in enumerate(tiles):
            found = cv2.matchTemplate(tile, middle, cv2.TM_CCOEFF_NORMED)
            scores[row, column] = found.max()
    return np.nan_to_num(scores, nan=-1.0, posinf=-1.0)
