"""What JPEG takes away, on batches that lie on any device: ITU-T T.81 without the entropy coder.

kornia's `jpeg_codec_differentiable` does the same with a soft rounding that lets gradients
through, which nothing here needs, and takes several times as long.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from .device_stream import uploaded

_BLOCK = 8
# T.81, tables K.1 and K.2.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# JFIF: Y, Cb, Cr from R, G, B, without the offset of 128 of the latter two.
_YCC_FROM_RGB = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)


def jpeg_loss(images: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """Return pictures as they come back from a JPEG file with halved chroma.

    Args:
        images: (N, S, S, 3) float32 in [0, 255]; S a multiple of 16.
        quality: (N,) from 1 to 100, as libjpeg counts it.

    Returns:
        (N, S, S, 3) float32; not clipped.
    """
    device = images.device
    ycc_from_rgb = uploaded(torch.tensor(_YCC_FROM_RGB), device)
    ycc = (images @ ycc_from_rgb.T).permute(3, 0, 1, 2)
    luma, chroma = ycc[:1], ycc[1:]
    # libjpeg: a percentage of the tables.
    percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None]
    tables = [
        ((uploaded(torch.tensor(t), device) * percent + 50) / 100).floor().clamp(1, 255)
        for t in (_LUMA, _CHROMA)
    ]
    luma = _quantised(luma - 128, tables[0]) + 128
    chroma = _quantised(functional.avg_pool2d(chroma, 2), tables[1])
    chroma = functional.interpolate(chroma, scale_factor=2, mode="bilinear")
    ycc = torch.cat([luma, chroma]).permute(1, 2, 3, 0)
    back: torch.Tensor = ycc @ torch.linalg.inv(ycc_from_rgb).T
    return back


def _quantised(planes: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    """Round the cosine coefficients of planes (C, N, H, W) to multiples of the tables (N, 8, 8)."""
    channels, count, height, width = planes.shape
    shape = (channels, count, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    blocks = planes.reshape(shape).transpose(3, 4)
    cosine = _cosine_transform(planes.device)
    steps = tables[:, None, None]
    coefficients = ((cosine @ blocks @ cosine.T) / steps).round() * steps
    return (cosine.T @ coefficients @ cosine).transpose(3, 4).reshape(planes.shape)


def _cosine_transform(device: torch.device) -> torch.Tensor:
    """Return the orthonormal 8-point cosine transform (8, 8): T.81, A.3.3."""
    place = torch.arange(_BLOCK, dtype=torch.float64)
    matrix = torch.cos((2 * place + 1) * place[:, None] * math.pi / (2 * _BLOCK)) / 2
    matrix[0] /= math.sqrt(2)
    return uploaded(matrix.float(), device)
