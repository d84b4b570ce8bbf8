"""Augmentation of whole batches on the device that trains, with kornia.

Kornia because it is kept and Apache-2.0, and because it works on batches where the GPU is idle
anyway: albumentations, which the original uses on the loader's CPUs, is archived, its successor
AGPL. All draws come from a generator of their own, so the model's random numbers (dropout,
stochastic depth) do not depend on the augmentation, and are made on the CPU, so every device sees
the same ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ..core.camera import Attitude, Camera, ground_from_pixel, look_point_m, pixel_from_ground
from ..core.errors import InputError
from .model import normalise

Geometry = Literal["nadir", "panorama"]
ROTATIONS = ("none", "joint", "reference", "both")

_COLOUR_SHARE = 0.5  # of the pictures whose colours are jittered
# Sigma of the blur in pixels, each direction for itself, and strength of the sharpening: the
# ranges of albumentations' AdvancedBlur and Sharpen, which the original leaves at their defaults.
_BLUR_PX = (0.2, 1.0)
_SHARPEN = (0.2, 0.5)
_KERNEL_PX = 7
# Share of a grid cell's side that is dropped; a panorama's ground view loses more.
_GRID_RATIO = {"nadir": 0.4, "panorama": 0.5}
_GRID_CELLS = 10  # across the width
_HOLES = (10, 25)
_HOLE_SIDE = (0.1, 0.2)  # of the height
# A drone's field of view, for what a tilt does to the picture.
_HFOV_DEG = 60.0
_MAX_TILT_DEG = 25.0


@dataclass(frozen=True)
class AugmentConfig:
    """The `[augment]` table of a recipe; the defaults are the original's. 0 switches off.

    Attributes:
        flip: probability that both views are mirrored.
        rotate: quarter turns, four of equal probability. `joint`: the reference turns and the
            panorama is rolled by as much; `both`: two views that look down turn alike;
            `reference`: the reference alone; `none`.
        jpeg: probability of recompression at quality 90 to 100; done by `PairLoader`.
        colour: range of brightness, contrast, saturation (factors) and hue (share of the circle)
            around no change; every second picture on average.
        blur_or_sharpen: probability of one of the two.
        dropout: probability of dropping a grid of squares, or 10 to 25 larger holes.
        heading_deg: standard deviation of the query's heading.
        scale: standard deviation of the logarithm of the query's scale.
        tilt_deg: standard deviation of pitch and roll under which the query is seen.
    """

    flip: float = 0.5
    rotate: str = "none"
    jpeg: float = 0.5
    colour: float = 0.15
    blur_or_sharpen: float = 0.3
    dropout: float = 0.3
    heading_deg: float = 0.0
    scale: float = 0.0
    tilt_deg: float = 0.0

    def check(self, origin: str, geometry: Geometry) -> None:
        """Refuse values out of range or at odds with the views; `origin` names the recipe.

        Raises:
            InputError: a value is out of range, or does not suit the views' geometry.
        """
        for name in ("flip", "jpeg", "blur_or_sharpen", "dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{origin}: {name} = {getattr(self, name)} must lie in [0, 1]")
        for name, limit in (("colour", 0.5), ("heading_deg", 180), ("scale", 1), ("tilt_deg", 20)):
            if not 0 <= getattr(self, name) <= limit:
                raise InputError(
                    f"{origin}: {name} = {getattr(self, name)} must lie in [0, {limit}]"
                )
        if self.rotate not in ROTATIONS:
            raise InputError(
                f"{origin}: rotate = {self.rotate!r} must be one of {', '.join(ROTATIONS)}"
            )
        if geometry == "nadir" and self.rotate == "joint":
            raise InputError(
                f"{origin}: rotate = 'joint' rolls a panorama, but the queries look down; "
                "use 'both', or 'reference' where their heading is unknown"
            )
        if geometry == "panorama" and (self.rotate == "both" or self.scale or self.tilt_deg):
            name = "rotate = 'both'" if self.rotate == "both" else "scale or tilt_deg"
            raise InputError(
                f"{origin}: {name} needs queries that look down, these are panoramas; "
                "use rotate = 'joint' and heading_deg"
            )


class Augment:
    """Turns batches of pairs into what the model is trained on."""

    def __init__(
        self,
        config: AugmentConfig,
        geometry: Geometry,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        """Keep the settings.

        Raises:
            InputError: they do not suit the geometry.
        """
        config.check("[augment]", geometry)
        self._config, self._geometry = config, geometry
        self._mean, self._std = mean, std

    @torch.no_grad()
    def __call__(
        self, queries: torch.Tensor, references: torch.Tensor, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment a batch; the same arguments give the same result.

        In this order: mirrored together; the query's heading, scale and tilt; each view's
        colours, blur or sharpness, dropout; normalised; turned.

        Args:
            queries: (B, Hq, Wq, 3) uint8; not changed.
            references: (B, Hr, Wr, 3) uint8 on the same device; not changed.
            seed: of all draws.

        Returns:
            Queries (B, 3, Hq, Wq) and references (B, 3, Hr, Wr), normalised float32 in
            channels-last memory.

        Raises:
            InputError: pictures that are to be turned are not square.
        """
        config = self._config
        rng = torch.Generator().manual_seed(seed)
        mirrored = torch.rand(len(queries), generator=rng) < config.flip
        query = _noisy(_unit(queries, mirrored), config, self._geometry, rng)
        reference = _unit(references, mirrored)
        query = self._photometric(query, _GRID_RATIO[self._geometry], rng)
        reference = self._photometric(reference, _GRID_RATIO["nadir"], rng)
        if config.rotate != "none":
            quarters = torch.randint(4, (len(queries),), generator=rng)
            _turn(reference, quarters, "reference")
            if config.rotate == "both":
                _turn(query, quarters, "query")
            elif config.rotate == "joint":
                _roll(query, -quarters * query.shape[3] / 4)
        return query, reference

    def _photometric(
        self, images: torch.Tensor, grid_ratio: float, rng: torch.Generator
    ) -> torch.Tensor:
        config = self._config
        if config.colour:
            _jitter(images, config.colour, rng)
        if config.blur_or_sharpen:
            _blur_or_sharpen(images, config.blur_or_sharpen, rng)
        if config.dropout:
            _drop(images, config.dropout, grid_ratio, rng)
        return normalise(images.mul_(255).permute(0, 2, 3, 1), self._mean, self._std)


def _unit(images: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in [0, 1], channels-last, some mirrored."""
    which = mirrored.to(images.device)[:, None, None, None]
    return (torch.where(which, images.flip(2), images).float() / 255).permute(0, 3, 1, 2)


def _some(count: int, share: float, rng: torch.Generator) -> torch.Tensor:
    """Draw which of `count` pictures are changed; (k,) int64, on the CPU."""
    return torch.nonzero(torch.rand(count, generator=rng) < share).flatten()


def _uniform(
    low_high: tuple[float, float], shape: tuple[int, ...], rng: torch.Generator
) -> torch.Tensor:
    low, high = low_high
    return low + (high - low) * torch.rand(shape, generator=rng)


def _noisy(
    images: torch.Tensor, config: AugmentConfig, geometry: Geometry, rng: torch.Generator
) -> torch.Tensor:
    """See the queries from another heading, height and tilt; the middle stays where it is."""
    if not (config.heading_deg or config.scale or config.tilt_deg):
        return images
    count, _, height, width = images.shape
    draws = torch.randn((count, 4), generator=rng, dtype=torch.float64)
    if geometry == "panorama":
        _roll(images, draws[:, 0] * config.heading_deg / 360 * width)
        return images
    from kornia.geometry.transform import warp_perspective

    camera = Camera.from_hfov(width, height, _HFOV_DEG)
    ground_m = ground_from_pixel(camera, Attitude(0.0, 0.0, 0.0, 1.0))
    moved = []
    for yaw, scale, pitch, roll in draws.numpy():
        tilts = np.clip(np.array([pitch, roll]) * config.tilt_deg, -_MAX_TILT_DEG, _MAX_TILT_DEG)
        height_m = math.exp(scale * config.scale)
        seen = Attitude(yaw * config.heading_deg, tilts[0], tilts[1], height_m)
        look = look_point_m(camera, seen)
        centred = np.array([[1, 0, look[0]], [0, 1, look[1]], [0, 0, 1]])
        moved.append(pixel_from_ground(camera, seen) @ centred @ ground_m)
    matrices = torch.from_numpy(np.stack(moved)).to(images.device, torch.float32)
    warped = warp_perspective(images, matrices, (height, width), padding_mode="reflection")
    return warped.contiguous(memory_format=torch.channels_last)


def _jitter(images: torch.Tensor, strength: float, rng: torch.Generator) -> None:
    """Change brightness, contrast, saturation and hue, in an order drawn for the batch."""
    from kornia import enhance

    rows = _some(len(images), _COLOUR_SHARE, rng)
    factors = _uniform((1 - strength, 1 + strength), (4, len(rows)), rng).to(images.device)
    order = torch.randperm(4, generator=rng).tolist()
    if not len(rows):
        return
    rows = rows.to(images.device)
    part = images[rows]
    for step in order:
        if step == 0:
            part = enhance.adjust_brightness_accumulative(part, factors[0])
        elif step == 1:
            part = enhance.adjust_contrast_with_mean_subtraction(part, factors[1])
        elif step == 2:
            part = enhance.adjust_saturation_with_gray_subtraction(part, factors[2])
        else:
            part = enhance.adjust_hue(part, (factors[3] - 1) * 2 * math.pi)
    images[rows] = part


def _blur_or_sharpen(images: torch.Tensor, share: float, rng: torch.Generator) -> None:
    """Filter some pictures: half by a Gaussian, half by identity + strength * Laplacian."""
    from kornia.filters import filter2d, get_gaussian_kernel2d

    rows = _some(len(images), share, rng)
    count = len(rows)
    blurred = torch.rand(count, generator=rng) < 0.5
    sigmas_px = _uniform(_BLUR_PX, (count, 2), rng)
    strengths = _uniform(_SHARPEN, (count, 1, 1), rng)
    if not count:
        return
    middle = _KERNEL_PX // 2
    identity = torch.zeros(1, _KERNEL_PX, _KERNEL_PX)
    identity[0, middle, middle] = 1
    laplacian = 9 * identity
    laplacian[0, middle - 1 : middle + 2, middle - 1 : middle + 2] -= 1
    kernels = torch.where(
        blurred[:, None, None],
        get_gaussian_kernel2d(_KERNEL_PX, sigmas_px),
        identity + strengths * laplacian,
    )
    rows = rows.to(images.device)
    images[rows] = filter2d(images[rows], kernels.to(images.device)).clamp(0, 1)


def _drop(images: torch.Tensor, share: float, grid_ratio: float, rng: torch.Generator) -> None:
    """Black out a grid of squares or some larger holes, half of the time each."""
    height, width = images.shape[2:]
    rows = _some(len(images), share, rng)
    as_grid = torch.rand(len(rows), generator=rng) < 0.5
    grid = _grid(len(rows), height, width, grid_ratio, rng)
    holes = _holes(len(rows), height, width, rng)
    if not len(rows):
        return
    dropped = torch.where(as_grid[:, None, None], grid, holes)[:, None].to(images.device)
    rows = rows.to(images.device)
    images[rows] = images[rows].masked_fill(dropped, 0)


def _grid(count: int, height: int, width: int, ratio: float, rng: torch.Generator) -> torch.Tensor:
    """(count, H, W) bool: squares of `ratio` of a cell's side, the grid shifted at random."""
    cell_px = max(2, width // _GRID_CELLS)
    shifts = torch.randint(cell_px, (2, count, 1), generator=rng)
    hole_px = round(cell_px * ratio)
    in_rows = (torch.arange(height) + shifts[0]) % cell_px < hole_px
    in_columns = (torch.arange(width) + shifts[1]) % cell_px < hole_px
    return in_rows[:, :, None] & in_columns[:, None, :]


def _holes(count: int, height: int, width: int, rng: torch.Generator) -> torch.Tensor:
    """(count, H, W) bool: 10 to 25 rectangles of sides 0.1 to 0.2 of the height."""
    most = _HOLES[1]
    number = torch.randint(_HOLES[0], most + 1, (count, 1, 1), generator=rng)
    sides = (_uniform(_HOLE_SIDE, (2, count, most, 1), rng) * height).round()
    corners = torch.rand((2, count, most, 1), generator=rng)
    inside = []
    for axis, length in enumerate((height, width)):
        first = (corners[axis] * (length - sides[axis] + 1)).floor()
        pixels = torch.arange(length)
        inside.append((pixels >= first) & (pixels < first + sides[axis]))
    in_rows = inside[0] & (torch.arange(most)[:, None] < number)
    # A pixel is dropped where any hole has both its row and its column.
    return torch.bmm(in_rows.float().transpose(1, 2), inside[1].float()) > 0


def _turn(images: torch.Tensor, quarters: torch.Tensor, view: str) -> None:
    """Turn (B, 3, S, S) in place, counter-clockwise, by quarter turns (B,)."""
    height, width = images.shape[2:]
    if height != width:
        raise InputError(
            f"[augment]: rotate turns the {view} images by quarters, but they are {height} x "
            f"{width} px; make them square or set rotate = 'none'"
        )
    for turns in (1, 2, 3):
        rows = torch.nonzero(quarters == turns).flatten().to(images.device)
        if len(rows):
            images[rows] = torch.rot90(images[rows], turns, (2, 3))


def _roll(images: torch.Tensor, columns: torch.Tensor) -> None:
    """Roll each panorama (B, 3, H, W) in place by its number of columns (B,), to the right."""
    for image, shift in zip(images, columns.round().long().tolist(), strict=True):
        if shift:
            image.copy_(image.roll(shift, 2))
