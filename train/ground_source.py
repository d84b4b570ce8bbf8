"""Training on imagery: pairs are cut from grounds on the device that trains, as they are needed."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
import numpy.typing as npt
import torch

from .device_imagery import DeviceImagery
from .device_stream import ahead
from .distributed import World
from .drone_views import Matrices, local_from_tile
from .evaluate import GroundValidation, ValidationRegion, validate, validation_regions
from .grounds import Ground
from .lookalikes import lookalike_lists
from .model import MEAN, STD, normalise
from .pairs import (
    Ints,
    PairPlan,
    PairSampler,
    Places,
    footprint_range_m,
    pixel_maps,
    prefetch,
)
from .photometric import photometric
from .recipe import Recipe
from .source import Batch, Embed

_EMBED_BATCH = 64
# Places among which look-alikes are looked for, and how many of them each may meet.
_POOL = 8192
_LISTED = 24
_POOL_SEED = 1


class GroundSource:
    """Batches from grounds; an epoch is what lies between two validations.

    Attributes:
        imagery: on the device.
    """

    north_up = True

    def __init__(
        self,
        grounds: list[Ground],
        recipe: Recipe,
        device: torch.device,
        workers: int,
        world: World | None = None,
        regions: list[ValidationRegion] | None = None,
        imagery: DeviceImagery | None = None,
    ) -> None:
        """Cut the validation regions and move the imagery that trains to the device.

        Args:
            grounds: the imagery.
            recipe: the training.
            device: that trains.
            workers: threads that plan batches.
            world: the processes of this training; None: this one alone.
            regions: to validate on; None: those of the recipe.
            imagery: of the grounds that train, where the device holds it already.

        Raises:
            InputError: no ground can hold a footprint of the recipe, or the imagery is too large.
        """
        self._sampler = PairSampler(grounds, recipe, world or World())
        self._regions = validation_regions(grounds, recipe) if regions is None else regions
        self.imagery = imagery or DeviceImagery(self._sampler.grounds, device)
        self._recipe, self._device, self._workers = recipe, device, workers
        self._steps = recipe.optim.steps
        self.steps_per_epoch = min(recipe.optim.validate_every, self._steps)
        self.epochs = -(-self._steps // self.steps_per_epoch)
        low, high = _trained_footprints(grounds, recipe)
        self.gsd_range_m = low / recipe.model.input_px, high / recipe.model.input_px
        self.credits = sorted({g.credit for g in recipe.grounds if g.credit})
        self._epoch = 0
        self._lists: Ints | None = None
        self._mined_for = -1  # the epoch

    def prepare(self, epoch: int, embed: Embed) -> dict[str, float]:
        """Look for look-alikes where the recipe wants them, but for the first epoch.

        At its start the network takes everything for everything.
        """
        self._epoch = epoch
        if not self._recipe.optim.lookalikes or epoch == 0:
            return {}
        pool = self._pool(epoch)
        # A training that goes on within an epoch keeps the lists that the epoch began with.
        if self._mined_for != epoch:
            embeddings = np.concatenate(
                [
                    embed(self._tiles(pool.take(slice(s, s + _EMBED_BATCH))), "reference")
                    for s in range(0, len(pool), _EMBED_BATCH)
                ]
            )
            found = torch.from_numpy(embeddings).to(self._device)
            self._lists = lookalike_lists(found, pool, _LISTED)
            self._mined_for = epoch
        assert self._lists is not None
        self._sampler.mine(pool, self._lists)
        return {"lookalikes": float((self._lists >= 0).sum(axis=1).mean())}

    def _pool(self, epoch: int) -> Places:
        rng = np.random.default_rng((self._recipe.seed, epoch, _POOL_SEED))
        return self._sampler.draw(_POOL, rng)

    def _tiles(self, places: Places) -> npt.NDArray[np.uint8]:
        size = self._recipe.model.input_px
        first = np.zeros(len(places), np.int64)
        tiles = self._cut(places, first, local_from_tile(places.footprint_m, size))
        return tiles.round().to(torch.uint8).cpu().numpy()

    def batches(self, first: int) -> Iterator[Batch]:
        """Yield the batches of the epoch from number `first` on."""
        return ahead(self._batches(first), self._device)

    def _batches(self, first: int) -> Generator[Batch]:
        start = self._epoch * self.steps_per_epoch
        steps = range(start + first, min(start + self.steps_per_epoch, self._steps))
        for plan in prefetch(self._sampler, steps, self._workers):
            tiles, drones = self.views(plan)
            yield Batch(normalise(drones, MEAN, STD), normalise(tiles, MEAN, STD))

    @torch.no_grad()
    def views(self, plan: PairPlan) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the tiles and drone views of a plan, (B, S, S, 3) float32 in [0, 255] each."""
        maps = plan.local_from_tile, plan.local_from_drone
        both = [self._cut(plan.places, plan.dates[:, i], maps[i]) for i in (0, 1)]
        strength = torch.from_numpy(plan.strength.T.reshape(-1))
        changed = photometric(torch.cat(both), strength, plan.seed)
        tiles, drones = changed.chunk(2)
        return tiles, drones

    def _cut(self, places: Places, dates: Ints, local_from_patch: Matrices) -> torch.Tensor:
        size = self._recipe.model.input_px
        maps, gsd_m = pixel_maps(places, self._sampler.grounds)
        ratios = places.footprint_m / size / gsd_m
        images, to_level = self.imagery.rows(places.ground, dates, ratios)
        return self.imagery.cut(images, to_level @ maps @ local_from_patch, size)

    def validate(self, embed: Embed) -> GroundValidation | None:
        """Search held-out views in the tiles of their own region."""
        if not self._regions:
            return None

        def embed_all(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            starts = range(0, len(images), _EMBED_BATCH)
            return np.concatenate([embed(images[s : s + _EMBED_BATCH], "query") for s in starts])

        return validate(self._regions, embed_all)

    def state(self) -> dict[str, torch.Tensor]:
        """Return the lists mined last; all else follows from the seed and the step."""
        if self._lists is None:
            return {}
        return {
            "lookalikes": torch.from_numpy(self._lists),
            "lookalikes_epoch": torch.tensor(self._mined_for),
        }

    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take the lists mined last."""
        if "lookalikes" in tensors:
            self._lists = tensors["lookalikes"].numpy()
            self._mined_for = int(tensors["lookalikes_epoch"])

    def close(self) -> None:
        """Do nothing: threads end with each epoch."""


def _trained_footprints(grounds: list[Ground], recipe: Recipe) -> tuple[float, float]:
    spans = [footprint_range_m(g, recipe) for g in grounds if not g.validates]
    known = [span for span in spans if span is not None]
    return min(low for low, _ in known), max(high for _, high in known)
