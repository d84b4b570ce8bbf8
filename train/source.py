"""What the loop trains on: batches, lists of hard negatives, validation, behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from .loss import Targets

Floats = npt.NDArray[np.float32]
View = Literal["query", "reference"]
# Pictures (B, H, W, 3) uint8 of one view to embeddings (B, D) float32.
Embed = Callable[[npt.NDArray[np.uint8], View], Floats]


@dataclass(frozen=True)
class Batch:
    """This process's share of a batch.

    Attributes:
        queries: (b, 3, h, w) float32, normalised, on the training device.
        references: (b, 3, H, W) float32.
        targets: what belongs together in the whole batch, of all processes; None: row i and row i.
    """

    queries: torch.Tensor
    references: torch.Tensor
    targets: Targets | None = None


class Validation(Protocol):
    """Figures of a validation on places that are not trained on."""

    @property
    def recall(self) -> dict[int, float]:
        """Recall at 1, 5 and 10."""
        ...

    @property
    def temperature(self) -> float:
        """Softmax temperature under which the scores are most likely."""
        ...

    @property
    def unknown_score(self) -> float:
        """Score of the rival for ground that is in no tile; 0 where not calibrated."""
        ...

    def as_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        ...


class BatchSource(Protocol):
    """Training material.

    Attributes:
        steps_per_epoch: batches of an epoch.
        epochs: how many epochs a training has.
        gsd_range_m: finest and coarsest metres per pixel of the tiles at the model's input.
        north_up: whether the views are turned north-up.
        credits: whom to name in the model card.
    """

    steps_per_epoch: int
    epochs: int
    gsd_range_m: tuple[float, float]
    north_up: bool
    credits: list[str]

    def prepare(self, epoch: int, embed: Embed) -> dict[str, float]:
        """Plan an epoch, mining anew where that is due; return figures worth logging."""
        ...

    def batches(self, first: int) -> Iterator[Batch]:
        """Yield the batches of the epoch planned last, from number `first` on."""
        ...

    def validate(self, embed: Embed) -> Validation | None:
        """Validate on held-out places; None where none are held out."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """Return what cannot be computed again, such as mined lists."""
        ...

    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Restore what `state` returned."""
        ...

    def close(self) -> None:
        """Let workers go."""
        ...
