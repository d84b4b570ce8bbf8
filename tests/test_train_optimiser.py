"""Which weights decay, how the rate runs, and how weights are averaged."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from s4g.train.loss import LossConfig, SymmetricInfoNCE
from s4g.train.model import Encoder, ModelConfig
from s4g.train.optimiser import (
    average_weights,
    learning_rate,
    load_state_tensors,
    make_optimizer,
    state_tensors,
)
from s4g.train.recipe import OptimConfig


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(ModelConfig("test_convnext", 32, 0, head="pool"))


def decayed_names(encoder: Encoder, config: OptimConfig) -> set[str]:
    loss = SymmetricInfoNCE(LossConfig())
    optimizer = make_optimizer(encoder, loss, config)
    names = {id(p): n for n, p in encoder.named_parameters()} | {id(loss.log_scale): "log_scale"}
    groups = [g for g in optimizer.param_groups if g["weight_decay"] > 0]
    every = [p for g in optimizer.param_groups for p in g["params"]]
    assert sorted(names[id(p)] for p in every) == sorted(names.values())
    return {names[id(p)] for g in groups for p in g["params"]}


def test_norms_biases_layer_scale_and_the_temperature_do_not_decay(encoder: Encoder) -> None:
    decayed = decayed_names(encoder, OptimConfig())
    assert decayed == {n for n, p in encoder.named_parameters() if p.ndim > 1}
    assert all(n.endswith("weight") for n in decayed)


def test_everything_decays_where_the_original_is_reproduced(encoder: Encoder) -> None:
    decayed = decayed_names(encoder, OptimConfig(decay_everything=True))
    assert decayed == {n for n, _ in encoder.named_parameters()} | {"log_scale"}


def test_the_rate_rises_to_its_peak_and_falls_along_a_cosine_to_zero() -> None:
    config = OptimConfig(learning_rate=1.0)
    rates = [learning_rate(step, 100, 10, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)


def test_the_polynomial_ends_at_a_tenth() -> None:
    config = OptimConfig(learning_rate=1.0, schedule="polynomial")
    assert learning_rate(100, 100, 0, config) == pytest.approx(0.1)
    assert learning_rate(50, 100, 0, config) == pytest.approx(0.1 + 0.9 * 0.5**1.5)


@given(st.sampled_from(["cosine", "polynomial", "constant"]), st.integers(0, 300))
def test_no_rate_exceeds_the_peak(schedule: str, step: int) -> None:
    config = OptimConfig(learning_rate=0.3, schedule=schedule)
    assert 0 <= learning_rate(step, 200, 20, config) <= 0.3 * (1 + 1e-12)


def test_an_average_follows_quickly_at_first_and_slowly_later() -> None:
    mean, current = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    for module, value in ((mean, 0.0), (current, 1.0)):
        torch.nn.init.constant_(module.weight, value)
    average_weights(mean, current, 0.999, 0)
    assert mean.weight.item() == pytest.approx(0.9)
    before = mean.weight.item()
    average_weights(mean, current, 0.999, 100_000)
    assert mean.weight.item() == pytest.approx(before + 0.001 * (1 - before))


def test_a_restored_optimiser_takes_the_same_next_step(encoder: Encoder) -> None:
    def step(optimizer: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        for parameter in encoder.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()

    def weights() -> dict[str, torch.Tensor]:
        return {n: p.detach().clone() for n, p in encoder.named_parameters()}

    first = make_optimizer(encoder, SymmetricInfoNCE(LossConfig()), OptimConfig())
    step(first, 1)
    saved = {name: value.clone() for name, value in state_tensors(first).items()}
    between = weights()
    step(first, 2)
    uninterrupted = weights()

    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            parameter.copy_(between[name])
    second = make_optimizer(encoder, SymmetricInfoNCE(LossConfig()), OptimConfig())
    load_state_tensors(second, saved)
    step(second, 2)
    for name, weight in weights().items():
        assert torch.equal(weight, uninterrupted[name]), name
