"""Near-infrared frames brought into register with the colour photos of the same moment."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import cv2
import numpy as np
import rasterio
import rasterio.errors
from condition import Floats, Images
from flight_block import Photo
from registration import Features, candidates, features

from s4g.core.camera import Camera
from s4g.core.errors import InputError

_STRETCH = (0.5, 99.5)  # percentiles of a band that become black and white
# Both cameras sit on one rig, so all pairs share one map; the wide lens of the band bends its
# edges by up to so many pixels of the colour photo, four metres on the ground.
_BEND_PX = 40.0
_LEAST = 100


def infrared(folder: Path, photos: list[Photo]) -> dict[str, Photo]:
    """Return the bands as photos in the place of their colour photo, by that one's name.

    Raises:
        InputError: bands and photos do not match.
    """
    named = {photo.name: photo for photo in photos}
    pairs = []
    for file in sorted(folder.glob("*_NIR.TIF")):
        colour = named.get(file.name.replace("_NIR.TIF", "_RGB.JPG"))
        if colour is not None:
            pairs.append((colour, read_band(file)))
    scale, shift = _rig(pairs, folder)
    return {colour.name: _in_place(colour, band, scale, shift) for colour, band in pairs}


def read_band(path: Path) -> Images:
    """Return a 16-bit band as a grey picture (H, W, 3) uint8."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            band = file.read(1)
    low, high = np.percentile(band, _STRETCH)
    grey = np.clip((band.astype(np.float32) - low) / max(high - low, 1), 0, 1) * 255
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def _rig(pairs: list[tuple[Photo, Images]], folder: Path) -> tuple[float, Floats]:
    """Return scale and shift from pixels of a band to pixels of a colour photo."""
    source, target = [], []
    for colour, band in pairs:
        of_band = features(band)
        for channel in range(3):  # matches differ from channel to channel
            grey = np.repeat(colour.image[..., channel : channel + 1], 3, axis=2)
            p, q = candidates(of_band, _finer(grey), 0.85)
            source.append(p)
            target.append(q)
    cv2.setRNGSeed(0)
    matrix, inliers = cv2.estimateAffinePartial2D(
        np.concatenate(source),
        np.concatenate(target),
        ransacReprojThreshold=_BEND_PX,
        maxIters=20_000,
    )
    if matrix is None or int(inliers.sum()) < _LEAST:
        raise InputError(f"{folder}: bands do not match the colour photos")
    return float(np.hypot(matrix[0, 0], matrix[1, 0])), np.asarray(matrix[:, 2], np.float64)


def _finer(image: Images) -> Features:
    return features(image, 960)


def _in_place(colour: Photo, band: Images, scale: float, shift: Floats) -> Photo:
    """Return the band as a photo: its camera is the colour photo's, seen through the rig."""
    camera, (height, width) = colour.camera, band.shape[:2]
    of_band = Camera(
        width,
        height,
        camera.fx_px / scale,
        camera.fy_px / scale,
        (camera.cx_px - float(shift[0])) / scale,
        (camera.cy_px - float(shift[1])) / scale,
    )
    return dataclasses.replace(colour, image=band, camera=of_band)
