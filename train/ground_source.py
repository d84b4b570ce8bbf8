"""Training on imagery: pairs are cut from grounds as they are needed (pairs.py, views.py)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from .distributed import World
from .evaluate import GroundValidation, ValidationRegion, validate, validation_regions
from .grounds import Ground
from .model import MEAN, STD, normalise
from .pairs import PairSampler, footprint_range_m, prefetch
from .recipe import Recipe
from .source import Batch, Embed

_EMBED_BATCH = 64


class GroundSource:
    """Batches from grounds; an epoch is what lies between two validations."""

    north_up = True

    def __init__(
        self,
        grounds: list[Ground],
        recipe: Recipe,
        device: torch.device,
        workers: int,
        world: World | None = None,
    ) -> None:
        """Cut the validation regions and keep the grounds that train.

        Raises:
            InputError: no ground can hold a footprint of the recipe.
        """
        self._sampler = PairSampler(grounds, recipe, world or World())
        self._regions: list[ValidationRegion] = validation_regions(grounds, recipe)
        self._device, self._workers = device, workers
        self._steps = recipe.optim.steps
        self.steps_per_epoch = min(recipe.optim.validate_every, self._steps)
        self.epochs = -(-self._steps // self.steps_per_epoch)
        low, high = _trained_footprints(grounds, recipe)
        self.gsd_range_m = low / recipe.model.input_px, high / recipe.model.input_px
        self.credits = sorted({g.credit for g in recipe.grounds if g.credit})
        self._epoch = 0

    def prepare(self, epoch: int, embed: Embed) -> dict[str, float]:
        """Remember the epoch: neighbourhoods are drawn, not mined."""
        self._epoch = epoch
        return {}

    def batches(self, first: int) -> Iterator[Batch]:
        """Yield the batches of the epoch from number `first` on."""
        start = self._epoch * self.steps_per_epoch
        steps = range(start + first, min(start + self.steps_per_epoch, self._steps))
        for tiles, drones in prefetch(self._sampler, steps, self._workers):
            yield Batch(self._input(drones), self._input(tiles))

    def _input(self, images: npt.NDArray[np.uint8]) -> torch.Tensor:
        moved = torch.from_numpy(images).to(self._device, non_blocking=True)
        return normalise(moved, MEAN, STD).contiguous(memory_format=torch.channels_last)

    def validate(self, embed: Embed) -> GroundValidation | None:
        """Search held-out views in the tiles of their own region."""
        if not self._regions:
            return None

        def embed_all(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            starts = range(0, len(images), _EMBED_BATCH)
            return np.concatenate([embed(images[s : s + _EMBED_BATCH], "query") for s in starts])

        return validate(self._regions, embed_all)

    def state(self) -> dict[str, torch.Tensor]:
        """Return nothing: batches follow from the seed and the step."""
        return {}

    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take nothing."""

    def close(self) -> None:
        """Do nothing: threads end with each epoch."""


def _trained_footprints(grounds: list[Ground], recipe: Recipe) -> tuple[float, float]:
    spans = [footprint_range_m(g, recipe) for g in grounds if not g.validates]
    known = [span for span in spans if span is not None]
    return min(low for low, _ in known), max(high for _, high in known)
