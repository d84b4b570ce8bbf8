"""Pictures are changed as the seed says, within the range of pixels, and can be left alone."""

from __future__ import annotations

import pytest
import torch

from s4g.train.photometric import _STEPS, Draws, photometric

CPU = torch.device("cpu")


def pictures(count: int = 6, size: int = 32) -> torch.Tensor:
    """Smooth ground with an edge: what a season or a camera changes can be told."""
    rng = torch.Generator().manual_seed(7)
    coarse = torch.rand((count, 3, 6, 6), generator=rng) * 200 + 20
    images = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")
    images[:, :, size // 2 :] *= 0.6
    return images.permute(0, 2, 3, 1).contiguous()


def test_the_same_seed_makes_the_same_pictures() -> None:
    ones = torch.ones(6)
    first, again = photometric(pictures(), ones, 3), photometric(pictures(), ones, 3)
    assert torch.equal(first, again)
    assert not torch.equal(first, photometric(pictures(), ones, 4))


def test_strength_zero_leaves_a_picture_alone() -> None:
    strength = torch.tensor([0.0, 1, 0, 1, 0, 1])
    before = pictures()
    after = photometric(before.clone(), strength, 5)
    assert torch.equal(after[::2], before[::2])
    assert not torch.equal(after[1::2], before[1::2])


@pytest.mark.parametrize("seed", range(12))
def test_pixels_stay_within_their_range(seed: int) -> None:
    after = photometric(pictures(24), torch.full((24,), 1.5), seed)
    assert after.isfinite().all()
    assert after.min() >= 0
    assert after.max() <= 255


@pytest.mark.parametrize("step", [step for step, _ in _STEPS], ids=lambda step: step.__name__)
def test_each_step_changes_pictures_and_keeps_their_shape(step) -> None:  # type: ignore[no-untyped-def]
    before = pictures(16)
    after = step(before.clone(), torch.ones(16), Draws(1, CPU))
    assert after.shape == before.shape
    assert after.isfinite().all()
    assert float((after - before).abs().mean()) > 0.1


@pytest.mark.parametrize("size", [30, 64])
def test_pictures_need_not_be_multiples_of_a_block(size: int) -> None:
    assert photometric(pictures(8, size), torch.ones(8), 2).shape == (8, size, size, 3)
