"""The same ground as another sensor, light, season or year might show it: whole batches at once.

Everything is drawn on the CPU from the batch's seed, so that any device makes the same pictures,
but for sensor noise and the ground that is swapped in, too many numbers to move.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional

from .device_stream import uploaded
from .jpeg_loss import jpeg_loss

# Knots of the random curves by which seasons repaint ground.
_KNOTS = 10
_RECTANGLES = 6
_KERNEL_PX = 9


def photometric(images: torch.Tensor, strength: torch.Tensor, seed: int) -> torch.Tensor:
    """Change light, colours, sharpness and a part of the ground of each picture.

    Args:
        images: (N, S, S, 3) float32 in [0, 255]; overwritten.
        strength: (N,) float32 on the CPU: 0 leaves a picture alone, 1 is what a year and another
            camera do.
        seed: of all draws.

    Returns:
        (N, S, S, 3) float32 in [0, 255].
    """
    draws = Draws(seed, images.device)
    for step, probability in _STEPS:
        chosen = (draws.cpu(len(images)) < probability) & (strength > 0)
        rows = torch.nonzero(chosen).flatten()
        if len(rows):
            here = draws.there(rows)
            changed = step(images[here], draws.there(strength[rows]), draws)
            images[here] = changed.clamp_(0, 255)
    return images


class Draws:
    """Random numbers of one batch, made on the CPU, used on the device."""

    def __init__(self, seed: int, device: torch.device) -> None:
        """Seed both; `device` is where `uniform` and `normal` put their numbers."""
        self._host = torch.Generator().manual_seed(seed)
        self._there = torch.Generator(device).manual_seed(seed)
        self.device = device

    def cpu(self, *shape: int) -> torch.Tensor:
        """Draw evenly from [0, 1), on the CPU."""
        return torch.rand(shape, generator=self._host)

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        """Draw evenly from [low, high)."""
        return self.there(low + (high - low) * self.cpu(*shape))

    def normal(self, *shape: int) -> torch.Tensor:
        """Draw from the standard normal distribution."""
        return self.there(torch.randn(shape, generator=self._host))

    def order(self, count: int) -> torch.Tensor:
        """Draw an order of `count` things."""
        return self.there(torch.randperm(count, generator=self._host))

    def there(self, values: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the CPU on the device."""
        return uploaded(values, self.device)

    def noise(self, like: torch.Tensor) -> torch.Tensor:
        """Draw as much standard normal noise as `like` has numbers, on the device itself."""
        return torch.randn(like.shape, generator=self._there, device=self.device)


def _lift(values: torch.Tensor) -> torch.Tensor:
    """(n,) or (n, k) to (n, 1, 1, 1) or (n, 1, 1, k)."""
    return values.view(len(values), 1, 1, -1)


def _planes(images: torch.Tensor) -> torch.Tensor:
    return images.permute(0, 3, 1, 2)


def _smooth_field(count: int, size: int, draws: Draws) -> torch.Tensor:
    """Return (n, S, S, 1) in about [0, 1], smooth; half of them with an edge, as a cloud's."""
    cells = int(draws.cpu(1) * 4) + 2
    coarse = draws.uniform(0, 1, count, 1, cells, cells)
    field = functional.interpolate(coarse, size=size, mode="bicubic", align_corners=True)
    steep = _lift(torch.where(draws.cpu(count) < 0.4, 4 + 10 * draws.cpu(count), 1.0))
    field = ((_rows_last(field) - 0.5) * draws.there(steep) + 0.5).clamp(0, 1)
    return field


def _rows_last(planes: torch.Tensor) -> torch.Tensor:
    return planes.permute(0, 2, 3, 1)


def _rectangles(count: int, size: int, largest: float, draws: Draws) -> torch.Tensor:
    """Return (n, K, S, S) masks of 1 to K turned rectangles, half sides up to `largest` of S."""
    shape = (count, _RECTANGLES)
    axis = torch.arange(size, device=draws.device) / size
    middle = draws.uniform(0, 1, 2, *shape)[..., None, None]
    half = draws.uniform(0.02, largest, 2, *shape)[..., None, None]
    angle = draws.uniform(0, math.pi, *shape)[..., None, None]
    east, south = axis - middle[0], axis[:, None] - middle[1]
    along = (east * angle.cos() + south * angle.sin()).abs() < half[0]
    across = (south * angle.cos() - east * angle.sin()).abs() < half[1]
    number = torch.arange(_RECTANGLES)[None] <= (draws.cpu(count, 1) ** 2 * _RECTANGLES)
    return along & across & draws.there(number)[..., None, None]


def _regrow(images: torch.Tensor, strength: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Repaint ground by its brightness, as crops and seasons do: edges stay, values change."""
    count, size = images.shape[:2]
    shrink = (2, 4, 6)[int(draws.cpu(1) * 3)]
    grey = _planes(images.mean(dim=3, keepdim=True))
    grey = functional.interpolate(grey, size=max(2, size // shrink), mode="area")
    grey = functional.interpolate(grey, size=size, mode="bilinear")
    place = (grey.reshape(count, 1, -1) / 255).clamp(0, 1) * (_KNOTS - 1.001)
    knots = draws.normal(count, 3, _KNOTS)
    # What most often differs is how bright a crop stands, less often its colour.
    knots = 0.6 * knots + draws.normal(count, 1, _KNOTS)
    before = place.long().expand(-1, 3, -1)
    share = place - place.floor()
    curve = knots.gather(2, before) * (1 - share) + knots.gather(2, before + 1) * share
    change = _rows_last(curve.view(count, 3, size, size)) * (32 * _lift(strength))
    everywhere = _lift(draws.there((draws.cpu(count) < 0.5).float()))
    return images + change * torch.maximum(everywhere, _smooth_field(count, size, draws))


def _rebuild(images: torch.Tensor, strength: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Cover some ground with other ground or plain colour: built, felled, parked, flooded."""
    count, size = images.shape[:2]
    masks = _rectangles(count, size, 0.2, draws)
    other = images[draws.order(count)].roll(int(draws.cpu(1) * size), dims=1)
    plain = draws.uniform(15, 240, count, _RECTANGLES, 1, 1, 1)
    plain = plain + 25 * draws.normal(count, _RECTANGLES, 1, 1, 3)
    is_plain = draws.there(draws.cpu(count, _RECTANGLES) < 0.5)
    for k in range(_RECTANGLES):
        filling = torch.where(_lift(is_plain[:, k]), plain[:, k], other)
        images = torch.where(masks[:, k, :, :, None], filling, images)
    return images


def _shadows(images: torch.Tensor, strength: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Darken pieces with an edge: what stands beside, and clouds."""
    count, size = images.shape[:2]
    dark = _rectangles(count, size, 0.25, draws).any(dim=1)[..., None]
    gain = 1 - _lift(draws.uniform(0.3, 0.75, count) * strength.clamp(max=1))
    bluer = draws.there(torch.tensor([-0.5, 0.0, 1.0]))
    tint = 1 + draws.uniform(0, 0.12, count)[:, None] * bluer
    return torch.where(dark, images * gain * _lift(tint), images)


def _colours(images: torch.Tensor, strength: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Mix channels: white balance, saturation (to grey at times), another spectral response."""
    count, size = images.shape[:2]
    device = images.device
    eye, grey = torch.eye(3, device=device), torch.full((3, 3), 1 / 3, device=device)
    less = 1 - draws.uniform(0, 1.15, count) * strength
    more = 1 + 0.6 * draws.uniform(0, 1, count) * strength
    keep = torch.where(draws.there(draws.cpu(count) < 0.7), less, more).clamp(min=0)[:, None, None]
    mix = keep * eye + (1 - keep) * grey
    s = strength[:, None, None]
    mix = mix * (draws.normal(count, 1, 3) * 0.14 * s).exp() + draws.normal(count, 3, 3) * 0.11 * s
    orders = draws.there(draws.cpu(count, 3).argsort(dim=1))
    swap = draws.there(draws.cpu(count) < 0.12)[:, None, None]
    mix = torch.where(swap, mix.gather(1, orders[..., None].expand(-1, -1, 3)), mix)
    mean = images.mean(dim=(1, 2))
    # Keep the mean brightness: the tone curve is what changes it.
    shift = mean.mean(dim=1, keepdim=True) - torch.einsum("nij,nj->ni", mix, mean)
    shift = shift * draws.uniform(0.5, 1.0, count, 1)
    mixed = torch.bmm(images.reshape(count, -1, 3), mix.transpose(1, 2))
    return mixed.view(count, size, size, 3) + _lift(shift)


def _tone(images: torch.Tensor, strength: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Exposure, contrast and the camera's curve."""
    count = len(images)
    gamma = (draws.normal(count) * 0.4 * strength).exp()
    contrast = (draws.normal(count) * 0.35 * strength).exp()
    bright = draws.normal(count) * 22 * strength
    images = (images / 255).pow(_lift(gamma)) * 255
    middle = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - middle) * _lift(contrast) + middle + _lift(bright)


def _shade(images: torch.Tensor, strength: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Cloud shadow, vignetting, uneven exposure: a gain that changes over the picture."""
    count, size = images.shape[:2]
    low = 1 - _lift(draws.uniform(0.2, 0.65, count) * strength)
    return images * (low + (1.15 - low) * _smooth_field(count, size, draws))


def _haze(images: torch.Tensor, strength: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Mix with the light that mist scatters into the camera."""
    count, size = images.shape[:2]
    thick = _lift(draws.uniform(0.1, 0.75, count) * strength.clamp(max=1))
    thick = thick * (0.6 + 0.4 * _smooth_field(count, size, draws))
    return images * (1 - thick) + thick * _lift(draws.uniform(150, 250, count, 1).expand(-1, 3))


def _dusk(images: torch.Tensor, strength: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Little light: dark, with the noise of a raised gain."""
    count = len(images)
    gain = 1 - _lift(draws.uniform(0.5, 0.93, count) * strength.clamp(max=1))
    grain = _lift(draws.uniform(2, 7, count) * strength)
    cast = _lift(draws.uniform(0.85, 1.15, count, 3))
    return images * gain * cast + draws.noise(images) * grain


def _coarser(images: torch.Tensor, strength: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Lose resolution, as imagery does that was taken from higher up or resampled."""
    size = images.shape[1]
    parts = []
    for part in images.chunk(4):
        small = max(2, round(size * (0.3 + 0.55 * float(draws.cpu(1)))))
        down = functional.interpolate(_planes(part), size=small, mode="area")
        mode = "nearest" if draws.cpu(1) < 0.25 else "bilinear"
        parts.append(_rows_last(functional.interpolate(down, size=size, mode=mode)))
    return torch.cat(parts)


def _blur(images: torch.Tensor, strength: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Defocus (Gaussian) or motion (a line)."""
    count = len(images)
    axis = torch.arange(_KERNEL_PX, device=draws.device) - _KERNEL_PX // 2
    angle = draws.uniform(0, math.pi, count)[:, None, None]
    along = axis * angle.cos() + axis[:, None] * angle.sin()
    across = axis[:, None] * angle.cos() - axis * angle.sin()
    sigma = (draws.uniform(0.3, 1.9, count) * strength).clamp(min=0.1)[:, None, None]
    half = draws.uniform(1.0, _KERNEL_PX / 2, count)[:, None, None]
    defocus = (-(along**2 + across**2) / (2 * sigma**2)).exp()
    motion = (-(across**2) / 0.5).exp() * (half + 0.5 - along.abs()).clamp(0, 1)
    moves = draws.there(draws.cpu(count) >= 0.5)[:, None, None]
    kernels = torch.where(moves, motion, defocus)
    return _filtered(images, kernels / kernels.sum(dim=(1, 2), keepdim=True))


def _sharpen(images: torch.Tensor, strength: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Raise fine contrast, with the halos of a camera's own sharpening."""
    soft = functional.avg_pool2d(_planes(images), 3, 1, 1, count_include_pad=False)
    amount = draws.uniform(0.3, 1.5, len(images)) * strength
    return images + _lift(amount) * (images - _rows_last(soft))


def _noise(images: torch.Tensor, strength: torch.Tensor, draws: Draws) -> torch.Tensor:
    sigma = draws.uniform(2, 14, len(images)) * strength
    return images + draws.noise(images) * _lift(sigma)


def _jpeg(images: torch.Tensor, strength: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Quantise 8 x 8 blocks as JPEG of quality 95 down to 25 does."""
    quality = 95 - draws.uniform(0, 70, len(images)) * strength.clamp(max=1)
    size = images.shape[1]
    short = -size % 16
    padded = functional.pad(_planes(images), (0, short, 0, short), mode="replicate")
    return jpeg_loss(_rows_last(padded), quality)[:, :size, :size]


def _filtered(images: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Convolve (n, S, S, 3) with a kernel (n, K, K) each."""
    count, size = images.shape[:2]
    pad = _KERNEL_PX // 2
    planes = functional.pad(_planes(images), (pad,) * 4, mode="reflect")
    planes = planes.reshape(1, count * 3, size + 2 * pad, size + 2 * pad)
    weights = kernels[:, None].repeat_interleave(3, dim=0)
    filtered = functional.conv2d(planes, weights, groups=count * 3)
    return _rows_last(filtered.view(count, 3, size, size))


_Step = Callable[[torch.Tensor, torch.Tensor, Draws], torch.Tensor]
_STEPS: tuple[tuple[_Step, float], ...] = (
    (_regrow, 0.45),
    (_rebuild, 0.40),
    (_shadows, 0.25),
    (_colours, 0.80),
    (_shade, 0.35),
    (_tone, 0.75),
    (_haze, 0.12),
    (_dusk, 0.15),
    (_coarser, 0.20),
    (_blur, 0.30),
    (_sharpen, 0.15),
    (_noise, 0.30),
    (_jpeg, 0.25),
)
