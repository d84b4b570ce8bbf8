"""The objective: symmetric InfoNCE, with several positives, graded ones, and nested dimensions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..core.errors import InputError
from .relations import Indices, Relations


@dataclass(frozen=True)
class LossConfig:
    """The `[loss]` table of a recipe.

    Attributes:
        label_smoothing: share of the target spread over the whole batch.
        overlap_sharpness: k of Game4Loc's weighted InfoNCE: a pair whose views overlap by w gets
            the smoothing 1 - 1 / (1 + exp(-k w)) instead; 0 leaves the weights out.
        nested_dims: prefix lengths of the embedding that are trained to work as well.
        start_temperature: at the first step; CLIP's (Radford et al., ICML 2021, section 2.5).
        max_scale: bound of 1 / temperature, CLIP's again: without it the scale may run away and
            overflow in half precision. 0: unbounded, as Sample4Geo has it.
    """

    label_smoothing: float = 0.1
    overlap_sharpness: float = 0.0
    nested_dims: tuple[int, ...] = ()
    start_temperature: float = 0.07
    max_scale: float = 100.0

    def check(self, origin: str, embedding_dim: int = 0) -> None:
        """Refuse values out of range; `origin` names the recipe.

        Raises:
            InputError: a value is out of range, or a nested dimension is no prefix.
        """
        if not 0 <= self.label_smoothing < 1:
            raise InputError(
                f"{origin}: label_smoothing = {self.label_smoothing} must lie in [0, 1)"
            )
        if self.start_temperature <= 0:
            raise InputError(
                f"{origin}: start_temperature = {self.start_temperature} must be above 0"
            )
        for dim in self.nested_dims:
            if type(dim) is not int or dim < 1 or (embedding_dim and dim > embedding_dim):
                raise InputError(
                    f"{origin}: nested_dims holds {dim!r}; give lengths from 1 to embedding_dim"
                    + (f", which is {embedding_dim}" if embedding_dim else "")
                )


@dataclass(frozen=True)
class Targets:
    """What belongs together in a batch of B pairs, where that is more than row i with row i.

    Attributes:
        weights: (B, B) float32, query by reference: above 0 for a positive, else 0.
        counted: (B, B) bool: False where an entry takes no part, neither as positive nor as
            negative: semi-positives, and all of a pair whose picture could not be read.
    """

    weights: torch.Tensor
    counted: torch.Tensor

    def to(self, device: torch.device) -> Targets:
        """Return the same on a device."""
        return Targets(self.weights.to(device), self.counted.to(device))


def batch_targets(
    relations: Relations, queries: Indices, references: Indices, valid: np.ndarray | None = None
) -> Targets:
    """Return what the relations say about a batch.

    Args:
        relations: of the whole data set.
        queries: (B,) query of each pair.
        references: (B,) reference of each pair.
        valid: (B,) bool, False for a pair that takes no part; None: all do.
    """
    related = relations.block(queries, references)
    weights = torch.from_numpy(np.nan_to_num(related))
    counted = torch.from_numpy(np.isnan(related) | (related > 0))
    if valid is not None:
        present = torch.from_numpy(np.asarray(valid, bool))
        counted &= present[:, None] & present[None, :]
    return Targets(weights * counted, counted)


class SymmetricInfoNCE(nn.Module):
    """Cross-entropy over the similarities of a batch, in both directions (Sample4Geo, eq. 1).

    A row with several positives shares its target among them by weight (the "out" form of
    supervised contrastive learning: Khosla et al., NeurIPS 2020, eq. 2). Nested dimensions average
    the loss over prefixes, each normalised again (Kusupati et al., NeurIPS 2022).
    """

    def __init__(self, config: LossConfig) -> None:
        """Start at the config's temperature."""
        super().__init__()
        self.config = config
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / config.start_temperature)))

    @property
    def scale(self) -> torch.Tensor:
        """The factor on cosine similarities, 1 / temperature."""
        if self.config.max_scale <= 0:
            return self.log_scale.exp()
        return self.log_scale.clamp(max=math.log(self.config.max_scale)).exp()

    def forward(
        self,
        queries: torch.Tensor,
        references: torch.Tensor,
        targets: Targets | None = None,
        rows: slice | None = None,
    ) -> torch.Tensor:
        """Return the loss of embeddings (B, D) and (B, D), L2-normalised.

        Args:
            queries: of the whole batch.
            references: of the whole batch.
            targets: what belongs together; None: row i to row i and nothing else.
            rows: only the terms of these queries and references, as a mean over the batch's pairs
                that take part, times B / len(rows): averaged over processes that hold equal parts
                it is the loss of the whole batch.
        """
        dims = (*[d for d in self.config.nested_dims if d < queries.shape[1]], queries.shape[1])
        total = queries.new_zeros(())
        for dim in dims:
            q, r = queries, references
            if dim < queries.shape[1]:
                q = nn.functional.normalize(queries[:, :dim], dim=1)
                r = nn.functional.normalize(references[:, :dim], dim=1)
            part = rows or slice(0, len(q))
            forth = self._direction(q, r, targets, part)
            back = self._direction(r, q, _swapped(targets), part)
            total = total + (forth + back) / 2
        return total / len(dims)

    def _direction(
        self, anchors: torch.Tensor, others: torch.Tensor, targets: Targets | None, rows: slice
    ) -> torch.Tensor:
        logits = self.scale * anchors[rows] @ others.T
        if targets is None:
            own = torch.arange(len(others), device=logits.device)[rows]
            return nn.functional.cross_entropy(
                logits, own, label_smoothing=self.config.label_smoothing
            )
        weights, counted = targets.weights[rows], targets.counted[rows]
        # Not -inf: a row of a picture that could not be read is all masked, and would be NaN.
        log_share = logits.masked_fill(~counted, torch.finfo(logits.dtype).min).log_softmax(dim=1)
        log_share = log_share.masked_fill(~counted, 0.0)
        sums = weights.sum(dim=1, keepdim=True)
        positives = weights / sums.clamp(min=1e-12)
        spread = counted / counted.sum(dim=1, keepdim=True).clamp(min=1)
        smoothing = self._smoothing(targets, rows)[:, None]
        wanted = (1 - smoothing) * positives + smoothing * spread
        taking_part = targets.counted.diagonal().sum().clamp(min=1)
        return -(wanted * log_share).sum() * (len(others) / len(logits)) / taking_part

    def _smoothing(self, targets: Targets, rows: slice) -> torch.Tensor:
        own = targets.weights.diagonal()[rows]
        if self.config.overlap_sharpness > 0:
            return 1 - torch.sigmoid(self.config.overlap_sharpness * own)
        return torch.full_like(own, self.config.label_smoothing)


def _swapped(targets: Targets | None) -> Targets | None:
    return None if targets is None else Targets(targets.weights.T, targets.counted.T)
