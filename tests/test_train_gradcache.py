"""Gradient caching gives the gradients of the whole batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from s4g.train.gradcache import TwoViews, backward
from s4g.train.loss import LossConfig, SymmetricInfoNCE
from s4g.train.model import Encoder, ModelConfig


def images(count: int, height: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, height, width, generator=generator)


def gradients(
    encoder: nn.Module, chunk: int, query_px: tuple[int, int] = (64, 64)
) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss and all gradients of one batch of 6 pairs embedded `chunk` at a time."""
    loss = SymmetricInfoNCE(LossConfig(nested_dims=(8,)))
    encoder.zero_grad()
    torch.manual_seed(3)
    value = backward(TwoViews(encoder), images(6, *query_px, 1), images(6, 64, 64, 2), loss, chunk)
    found = {n: p.grad.clone() for n, p in encoder.named_parameters() if p.grad is not None}
    assert loss.log_scale.grad is not None
    return float(value), {**found, "scale": loss.log_scale.grad}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    """A network with layer norms: an embedding does not depend on the rest of the batch."""
    torch.manual_seed(0)
    return Encoder(ModelConfig("test_convnext", 64, 0, head="pool"))


@pytest.mark.parametrize("chunk", [1, 2, 4, 5])
@pytest.mark.parametrize("query_px", [(64, 64), (32, 128)])
def test_gradients_equal_those_of_the_whole_batch(
    encoder: Encoder, chunk: int, query_px: tuple[int, int]
) -> None:
    whole_loss, whole = gradients(encoder, 0, query_px)
    loss, cached = gradients(encoder, chunk, query_px)
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    assert cached.keys() == whole.keys()
    for name, gradient in whole.items():
        assert torch.allclose(cached[name], gradient, rtol=1e-5, atol=1e-5), name


def test_a_chunk_meets_the_same_dropout_both_times() -> None:
    """With other dropout the second time the cached gradient would belong to other embeddings."""

    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(3 * 64 * 64, 16, bias=False)
            self.seen: list[torch.Tensor] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = nn.functional.dropout(self.project(x.flatten(1)), 0.5, self.training)
            self.seen.append(out.detach())
            return nn.functional.normalize(out, dim=1)

    torch.manual_seed(1)
    network = Dropped()
    gradients(network, 2)
    first, second = network.seen[:3], network.seen[3:]
    assert len(second) == 3
    for once, again in zip(first, second, strict=True):
        assert torch.equal(once, again)
    assert not torch.equal(first[0] == 0, first[1] == 0)


def test_running_statistics_count_every_picture_once() -> None:
    torch.manual_seed(0)
    encoder = Encoder(ModelConfig("resnet10t", 64, 16))
    before = {n: m.running_mean.clone() for n, m in norms(encoder)}
    gradients(encoder, 3)
    once = {n: m.running_mean.clone() for n, m in norms(encoder)}
    torch.manual_seed(0)
    other = Encoder(ModelConfig("resnet10t", 64, 16))
    with torch.no_grad():
        for start in (0, 3):
            pair = images(6, 64, 64, 1)[start : start + 3], images(6, 64, 64, 2)[start : start + 3]
            TwoViews(other)(*pair)
    for name, module in norms(other):
        assert module.momentum == 0.1
        assert torch.allclose(once[name], module.running_mean, atol=1e-6)
        assert not torch.equal(once[name], before[name])


def norms(encoder: nn.Module) -> list[tuple[str, nn.BatchNorm2d]]:
    return [(n, m) for n, m in encoder.named_modules() if isinstance(m, nn.BatchNorm2d)]
