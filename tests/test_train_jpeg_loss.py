"""What the batched codec loses is what libjpeg loses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from s4g.core.images import decode_rgb, encode_rgb
from s4g.train.jpeg_loss import jpeg_loss


def scene() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(30, 220, (8, 8, 3))
    scene = np.kron(coarse, np.ones((8, 8, 1))) + rng.normal(0, 6, (64, 64, 3))
    return scene.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("quality", [90, 60, 30])
def test_it_agrees_with_libjpeg(quality: int) -> None:
    image = scene()
    file = decode_rgb(encode_rgb(image, ".jpg", quality), "test").astype(float)
    ours = jpeg_loss(torch.from_numpy(image)[None].float(), torch.tensor([float(quality)]))
    lost = np.abs(file - image).mean()
    assert np.abs(ours[0].clamp(0, 255).numpy() - file).mean() < 0.5 * lost


def test_each_picture_has_its_own_quality() -> None:
    image = torch.from_numpy(scene())[None].float()
    both = jpeg_loss(image.expand(2, -1, -1, -1), torch.tensor([95.0, 10.0]))
    good, bad = ((both[i] - image[0]).abs().mean() for i in (0, 1))
    assert bad > 2 * good


def test_grey_ground_stays_as_it_is() -> None:
    grey = torch.full((1, 32, 32, 3), 128.0)
    assert torch.allclose(jpeg_loss(grey, torch.tensor([50.0])), grey, atol=1e-3)
