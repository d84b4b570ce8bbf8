"""The optimiser: which weights decay, how the learning rate runs, averaged weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from .loss import SymmetricInfoNCE
from .model import Encoder
from .recipe import OptimConfig

# Sample4Geo's alternative schedule ends here and falls with this power.
_POLYNOMIAL_END = 0.1
_POLYNOMIAL_POWER = 1.5


def make_optimizer(
    encoder: Encoder, loss: SymmetricInfoNCE, optim: OptimConfig
) -> torch.optim.AdamW:
    """Return AdamW whose weight decay is for matrices: norms, biases and the scale have none.

    With `decay_everything` all weights decay, as in Sample4Geo.
    """
    everything = [*encoder.parameters(), loss.log_scale]
    decayed = [p for p in everything if p.ndim > 1 or optim.decay_everything]
    others = [p for p in everything if not (p.ndim > 1 or optim.decay_everything)]
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": optim.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=optim.learning_rate,
    )


def learning_rate(step: int, steps: int, warmup_steps: int, optim: OptimConfig) -> float:
    """Return the rate of a step: linear warm-up, then the schedule."""
    peak = optim.learning_rate
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if optim.schedule == "constant":
        return peak
    done = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
    if optim.schedule == "polynomial":
        end = _POLYNOMIAL_END * peak
        return end + (peak - end) * float((1 - done) ** _POLYNOMIAL_POWER)
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of weights the rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


@torch.no_grad()
def average_weights(mean: nn.Module, current: nn.Module, decay: float, step: int) -> None:
    """Move `mean` towards `current`: an exponential moving average of weights and statistics.

    Early on it follows faster than `decay` asks, or it would keep the random start for long.
    """
    decay = min(decay, (1 + step) / (10 + step))
    pairs = zip(mean.state_dict().values(), current.state_dict().values(), strict=True)
    for old, new in pairs:
        if old.dtype.is_floating_point:
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)


def state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the optimiser's state under flat names."""
    return {
        f"{index}.{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def load_state_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Restore what `state_tensors` returned."""
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
