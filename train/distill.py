"""Distillation: a small encoder learns what a larger one of ours finds alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..core.errors import InputError
from ..core.spec import EncoderSpec
from .checkpoint import load_checkpoint
from .model import Encoder

KINDS = ("similarity", "embedding")


@dataclass(frozen=True)
class DistillConfig:
    """The `[distill]` table of a recipe.

    Attributes:
        teacher: a checkpoint of s4g-train; empty: no distillation.
        kind: `similarity`: match the teacher's distribution over the batch, whatever the length of
            its embedding; `embedding`: match its embedding itself, of the same length.
        weight: of this loss beside the contrastive one.
        temperature: of both distributions (`similarity`).
    """

    teacher: str = ""
    kind: str = "similarity"
    weight: float = 1.0
    temperature: float = 0.05

    def check(self, origin: str) -> None:
        """Refuse values out of range; `origin` names the recipe.

        Raises:
            InputError: the kind is unknown, or weight or temperature out of range.
        """
        if self.kind not in KINDS:
            raise InputError(f"{origin}: kind = {self.kind!r} must be one of {', '.join(KINDS)}")
        if self.weight < 0 or self.temperature <= 0:
            raise InputError(
                f"{origin}: weight = {self.weight} must not be below 0 and temperature = "
                f"{self.temperature} above it"
            )


class Teacher:
    """A trained encoder that embeds the student's pictures and says how far the student is off."""

    def __init__(self, config: DistillConfig, student_dim: int, device: torch.device) -> None:
        """Load the checkpoint.

        Raises:
            InputError: no such checkpoint, or one whose embedding cannot be matched.
        """
        self.config = config
        encoder, self._spec = load_checkpoint(Path(config.teacher))
        if config.kind == "embedding" and self._spec.embedding_dim != student_dim:
            raise InputError(
                f"{config.teacher}: the teacher embeds in {self._spec.embedding_dim} dimensions, "
                f"this recipe in {student_dim}; set [distill] kind = 'similarity', or "
                f"embedding_dim = {self._spec.embedding_dim}"
            )
        self._encoder: Encoder = encoder.to(device).requires_grad_(False)

    def embed(
        self,
        queries: torch.Tensor,
        references: torch.Tensor,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        chunk: int = 0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed (B, 3, h, w) and (B, 3, H, W), normalised by `mean` and `std`, at its own size."""
        side = self._spec.input_px
        return (
            self._embed(queries, self._spec.query_px or (side, side), mean, std, chunk),
            self._embed(references, (side, side), mean, std, chunk),
        )

    @torch.no_grad()
    def _embed(
        self,
        images: torch.Tensor,
        size: tuple[int, ...],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        chunk: int,
    ) -> torch.Tensor:
        step = chunk or len(images)
        parts = []
        for start in range(0, len(images), step):
            part = _renormalised(images[start : start + step], mean, std, self._spec)
            if part.shape[2:] != tuple(size):
                part = nn.functional.interpolate(part, size, mode="bilinear", antialias=True)
            parts.append(self._encoder(part))
        return torch.cat(parts)

    def loss(
        self,
        student: tuple[torch.Tensor, torch.Tensor],
        teacher: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """Return the weighted loss of (queries, references) embeddings, each (B, D).

        `similarity` is the cross-entropy from the teacher's to the student's softmax over the
        batch, less the teacher's own entropy (Hinton et al., 2015, on relations); `embedding` is
        one minus the cosine.
        """
        if self.config.kind == "embedding":
            cosines = [(s * t).sum(dim=1).mean() for s, t in zip(student, teacher, strict=True)]
            return self.config.weight * (1 - (cosines[0] + cosines[1]) / 2)
        wanted = teacher[0] @ teacher[1].T / self.config.temperature
        seen = student[0] @ student[1].T / self.config.temperature
        forth = _divergence(seen, wanted)
        back = _divergence(seen.T, wanted.T)
        return self.config.weight * (forth + back) / 2


def _divergence(seen: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return nn.functional.kl_div(
        seen.log_softmax(dim=1), wanted.log_softmax(dim=1), reduction="batchmean", log_target=True
    )


def _renormalised(
    images: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...], spec: EncoderSpec
) -> torch.Tensor:
    if mean == spec.mean and std == spec.std:
        return images
    shape = (1, 3, 1, 1)
    ours = [torch.tensor(v, device=images.device).view(shape) for v in (mean, std)]
    theirs = [torch.tensor(v, device=images.device).view(shape) for v in (spec.mean, spec.std)]
    return (images * ours[1] + ours[0] - theirs[0]) / theirs[1]
