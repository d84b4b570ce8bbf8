"""Two views of the same ground: a tile, and what a drone's camera makes of it.

The geometry is the runtime's: a frame is turned north-up with the *reported* attitude while the
camera had the *true* one; what remains of heading, tilt and height error is in the patch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from ..core.camera import (
    Attitude,
    Camera,
    Matrix,
    ground_from_patch,
    ground_from_pixel,
    look_point_m,
    pixel_from_ground,
)
from .grounds import Ground
from .recipe import ViewConfig

Image = npt.NDArray[np.uint8]

# Cameras seen in training: a consumer drone's and a mapping camera's field of view.
_HFOV_DEG = (50.0, 85.0)
_FRAME_PX = (640, 480)
# A patch covers this share of the frame's short side.
_PATCH_SHARE = (0.55, 0.95)


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
        turn = math.radians(turn_deg)
        flip = -1.0 if mirror else 1.0
        gsd = ground.gsd_m
        cos, sin = math.cos(turn), math.sin(turn)
        # From east, north metres around the centre to pixels of the finest level.
        self.pixel_from_local: Matrix = np.array(
            [
                [flip * cos / gsd, -sin / gsd, x_m / gsd - 0.5],
                [-flip * sin / gsd, -cos / gsd, y_m / gsd - 0.5],
                [0, 0, 1],
            ]
        )


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
    width, height = _FRAME_PX
    camera = Camera.from_hfov(width, height, rng.uniform(*_HFOV_DEG))
    short_side_m = place.footprint_m / rng.uniform(*_PATCH_SHARE)
    agl_m = short_side_m * camera.fy_px / height
    yaw = rng.uniform(0, 360)
    pitch, roll = np.clip(rng.normal(0, views.tilt_deg, 2), -25, 25)
    reported = Attitude(yaw, pitch, roll, agl_m)
    true = Attitude(
        yaw + rng.normal(0, views.yaw_error_deg),
        pitch + rng.normal(0, views.tilt_error_deg),
        roll + rng.normal(0, views.tilt_error_deg),
        agl_m * math.exp(rng.normal(0, views.height_error)),
    )
    look = look_point_m(camera, reported)
    true_from_patch = (
        ground_from_pixel(camera, true)
        @ pixel_from_ground(camera, reported)
        @ ground_from_patch(*look, place.footprint_m, size_px)
    )
    share = rng.uniform(-views.center_offset, views.center_offset, 2)
    true_look = look_point_m(camera, true)
    offset = share * place.footprint_m - np.asarray(true_look)
    shift = np.array([[1, 0, offset[0]], [0, 1, offset[1]], [0, 0, 1]])
    matrix: Matrix = shift @ true_from_patch
    return matrix, (float(share[0]), float(share[1]))


def photometric(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Return an image as another sensor, light, season or year might show it.

    Args:
        image: (H, W, 3) uint8.
        strength: 0 leaves the image alone; 1 is what a year and another camera do.
        rng: source of all randomness.
    """
    if strength <= 0:
        return image
    for step, probability in _STEPS:
        if rng.random() < probability:
            image = step(image, strength, rng)
    return image


def _colour(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Mix channels: white balance, saturation (to grey at times), another spectral response."""
    grey = np.full((3, 3), 1 / 3)
    saturation = 1 - rng.uniform(0, 1.0) * strength if rng.random() < 0.7 else 1 + 0.5 * strength
    mix = saturation * np.eye(3) + (1 - saturation) * grey
    mix = mix @ np.diag(np.exp(rng.normal(0, 0.12 * strength, 3)))
    mix += rng.normal(0, 0.10 * strength, (3, 3))
    if rng.random() < 0.08 * strength:
        mix = mix[rng.permutation(3)]
    mean = np.asarray(cv2.mean(image)[:3])
    # Keep the mean brightness: the tone curve below is what changes it.
    shift = mean.mean() - mix @ mean
    affine = np.column_stack([mix, shift * rng.uniform(0.5, 1.0)])
    return np.asarray(cv2.transform(image, affine), np.uint8)


def _tone(image: Image, strength: float, rng: np.random.Generator) -> Image:
    levels = np.linspace(0, 1, 256)
    curve = levels ** math.exp(rng.normal(0, 0.35 * strength))
    contrast = math.exp(rng.normal(0, 0.30 * strength))
    middle = float(image.mean()) / 255
    curve = (curve - middle) * contrast + middle + rng.normal(0, 0.08 * strength)
    table = np.clip(curve * 255, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table), np.uint8)


def _smooth_field(size: int, cells: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    coarse = rng.random((cells, cells), np.float32)
    field = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(field, np.float32)


def _shade(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Cloud shadow, vignetting, uneven exposure: a smooth gain over the image."""
    size = image.shape[0]
    field = _smooth_field(size, int(rng.integers(2, 5)), rng)
    if rng.random() < 0.3:  # a shadow with an edge
        field = np.clip((field - 0.5) * rng.uniform(4, 12) + 0.5, 0, 1)
    low = 1 - rng.uniform(0.2, 0.6) * strength
    gain = low + (1.15 - low) * field
    return np.asarray(np.clip(image * gain[..., None], 0, 255), np.uint8)


def _regrow(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Repaint ground by brightness band, as crops and seasons do: edges stay, values change."""
    size = image.shape[0]
    blurred = cv2.GaussianBlur(image, (0, 0), rng.uniform(1.5, 4.0))
    grey = cv2.cvtColor(blurred, cv2.COLOR_RGB2GRAY)
    center, width = rng.uniform(40, 215), rng.uniform(12, 35)
    band = np.exp(-(((grey - center) / width) ** 2)).astype(np.float32)
    if rng.random() < 0.5:
        band *= _smooth_field(size, int(rng.integers(2, 6)), rng) > 0.5
    colour = rng.normal(0, 45 * strength, 3).astype(np.float32)
    return np.asarray(np.clip(image + band[..., None] * colour, 0, 255), np.uint8)


def _blur(image: Image, strength: float, rng: np.random.Generator) -> Image:
    if rng.random() < 0.5:
        sigma = rng.uniform(0.3, 1.6) * strength
        return np.asarray(cv2.GaussianBlur(image, (0, 0), max(sigma, 0.1)), np.uint8)
    length = int(rng.integers(2, 7))
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, math.pi)
    middle = (length - 1) / 2
    for t in np.linspace(-middle, middle, 4 * length):
        kernel[round(middle + t * math.sin(angle)), round(middle + t * math.cos(angle))] += 1
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)


def _sharpen(image: Image, strength: float, rng: np.random.Generator) -> Image:
    soft = cv2.GaussianBlur(image, (0, 0), 1.2)
    amount = rng.uniform(0.3, 1.2) * strength
    return np.asarray(cv2.addWeighted(image, 1 + amount, soft, -amount, 0), np.uint8)


def _noise(image: Image, strength: float, rng: np.random.Generator) -> Image:
    sigma = rng.uniform(2, 12) * strength
    noise = rng.standard_normal(image.shape, np.float32) * np.float32(sigma)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def _jpeg(image: Image, strength: float, rng: np.random.Generator) -> Image:
    quality = int(95 - rng.uniform(0, 60) * strength)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def _change(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Cover some ground: what was built, cut or parked between the dates."""
    size = image.shape[0]
    image = image.copy()
    for _ in range(int(rng.integers(1, 5))):
        middle = rng.uniform(0, size, 2)
        half = rng.uniform(0.03, 0.17, 2) * size * max(strength, 0.3)
        box = cv2.boxPoints((tuple(middle), tuple(2 * half), float(rng.uniform(0, 180))))
        if rng.random() < 0.5:
            colour = rng.uniform(20, 235, 3)
        else:  # ground from elsewhere in the picture
            y, x = rng.integers(0, size, 2)
            colour = image[y, x].astype(np.float64)
        cv2.fillConvexPoly(image, np.round(box).astype(np.int32), tuple(map(float, colour)))
    return image


_Step = Callable[[Image, float, np.random.Generator], Image]
_STEPS: tuple[tuple[_Step, float], ...] = (
    (_regrow, 0.35),
    (_change, 0.30),
    (_colour, 0.75),
    (_shade, 0.35),
    (_tone, 0.75),
    (_blur, 0.30),
    (_sharpen, 0.15),
    (_noise, 0.30),
    (_jpeg, 0.30),
)
