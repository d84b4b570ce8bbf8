"""Symmetric InfoNCE with a learnable temperature."""

from __future__ import annotations

import math

import torch
from torch import nn

# CLIP's starting temperature and its bound on the scale (Radford et al., ICML 2021, section 2.5):
# without the bound the scale may run away and overflow in half precision.
_START_TEMPERATURE = 0.07
_MAX_SCALE = 100.0


class SymmetricInfoNCE(nn.Module):
    """Cross-entropy over the similarities of a batch, in both directions (Sample4Geo, eq. 1)."""

    def __init__(self, label_smoothing: float) -> None:
        """Start at temperature 0.07."""
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / _START_TEMPERATURE)))
        self._label_smoothing = label_smoothing

    def forward(self, tiles: torch.Tensor, drones: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of embeddings (B, D) and (B, D), L2-normalised; row i fits row i."""
        logits = self.scale * tiles @ drones.T
        target = torch.arange(len(tiles), device=tiles.device)
        smoothing = self._label_smoothing
        loss = nn.functional.cross_entropy
        forth = loss(logits, target, label_smoothing=smoothing)
        back = loss(logits.T, target, label_smoothing=smoothing)
        return (forth + back) / 2

    @property
    def scale(self) -> torch.Tensor:
        """The factor on cosine similarities, 1 / temperature."""
        return self.log_scale.clamp(max=math.log(_MAX_SCALE)).exp()
