"""Training on a data set: lists of hard negatives, planned batches, pictures, validation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ..core.errors import InputError
from .augment import Augment
from .batches import BatchPlan, plan_batches
from .candidates import lists_from_references, merge_lists
from .dataset import Images, RetrievalTask
from .datasets import open_dataset
from .distributed import World, gather, share_from_first
from .evaluate import calibrate
from .geographic import geographic_neighbours
from .holdout import hold_out
from .loading import PairLoader
from .loss import Targets, batch_targets
from .mining import mine
from .model import MEAN, STD
from .recipe import Recipe
from .relations import Indices
from .retrieval import score
from .seeds import mixed_seed
from .source import Batch, Embed, Floats, View

# Ground size of a pixel, metres, where a data set does not say: any.
UNKNOWN_GSD_M = (0.01, 100.0)
_EMBED_BATCH = 64
# The temperature is fitted on so many queries and tiles at most: a dense matrix.
_CALIBRATION_QUERIES, _CALIBRATION_TILES = 1024, 4096


@dataclass(frozen=True)
class RetrievalValidation:
    """Figures of the held-out places.

    Attributes:
        recall: recall at 1, 5 and 10.
        temperature: softmax temperature under which the scores are most likely.
        unknown_score: 0: no foreign ground is at hand to calibrate it by.
        protocol: what was asked.
        queries: how many queries.
        gallery: how many tiles competed.
        interval: 95 % confidence interval of recall at 1; None where one place is held out.
    """

    recall: dict[int, float]
    temperature: float
    unknown_score: float
    protocol: str
    queries: int
    gallery: int
    interval: tuple[float, float] | None

    def as_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            **{f"recall_at_{k}": round(v, 4) for k, v in self.recall.items()},
            "recall_at_1_interval": self.interval and [round(v, 4) for v in self.interval],
            "temperature": round(self.temperature, 5),
            "unknown_score": round(self.unknown_score, 4),
            "protocol": self.protocol,
            "queries": self.queries,
            "gallery": self.gallery,
        }


class DataSource:
    """Batches from a data set on disk."""

    def __init__(
        self,
        recipe: Recipe,
        root: Path,
        device: torch.device,
        workers: int,
        world: World | None = None,
    ) -> None:
        """Open the data set and hold out places to validate on; no picture is read yet.

        Raises:
            InputError: the layout is wrong, the set is too small for one batch, or it has no
                positions for the geographic lists that the recipe asks for.
        """
        assert recipe.data is not None, "a recipe with a [data] table"
        self._recipe, self._device = recipe, device
        self._world = world or World()
        self._world.share(recipe.optim.batch_pairs)
        whole = open_dataset(recipe.data, root).training()
        self.pairs, self.task = hold_out(whole, recipe.data.val_share, recipe.seed)
        if recipe.sampling.geographic_epochs and self.pairs.reference_positions is None:
            raise InputError(
                f"{self.pairs.name}: gives no positions of its references, which "
                "[sampling] geographic_epochs needs; add coordinates.csv, or set it to 0"
            )
        if len(self.pairs) < recipe.optim.batch_pairs:
            raise InputError(
                f"{self.pairs.name}: batch_pairs = {recipe.optim.batch_pairs}, but only "
                f"{len(self.pairs)} pairs are left to train on; lower batch_pairs"
            )
        self.epochs = recipe.optim.epochs
        self.steps_per_epoch = len(self.pairs) // recipe.optim.batch_pairs
        self.gsd_range_m = _gsd_range_m(recipe)
        self.north_up = recipe.data.north_up
        self.credits = [recipe.data.credit or self.pairs.name]
        side = (recipe.model.input_px,) * 2
        self._sizes: dict[View, tuple[int, int]] = {
            "query": recipe.model.query_size_px,
            "reference": side,
        }
        self._loader = PairLoader(
            self.pairs,
            recipe.model.query_size_px,
            side,
            workers,
            recipe.loading.unreadable_limit,
            recipe.seed,
            self._world.rank,
            self._world.size,
            jpeg=recipe.augment.jpeg,
            others=[(images, self._sizes[view]) for images, view in self._embedded()],
        )
        self._augment = Augment(recipe.augment, self.pairs.geometry, MEAN, STD)
        self._lists: Indices | None = None
        self._lists_epoch = -1  # the epoch that they were made for
        self._plan: BatchPlan | None = None
        self._epoch = 0
        # A batch holds no two related pairs, so that row i belongs to row i and to nothing else,
        # unless several views of one reference or partial overlaps are asked for.
        self._plain = bool((self.pairs.pair_weight == 1).all()) and (
            recipe.sampling.views_per_reference == 1
        )

    def prepare(self, epoch: int, embed: Embed) -> dict[str, float]:
        """Plan an epoch: new lists where they are due, then batches.

        Returns:
            Figures of the lists and the plan: `hardness`, `dropped`, `train_recall_at_1`, …
        """
        sampling = self._recipe.sampling
        figures: dict[str, float] = {}
        if self._lists_epoch < epoch:
            if epoch < sampling.geographic_epochs:
                if self._lists is None:
                    self._lists = self._geographic()
            elif sampling.mined_every and self._mining_is_due(epoch):
                figures |= self._mine(embed)
            self._lists_epoch = epoch
        started = time.monotonic()
        self._plan = plan_batches(
            self.pairs,
            self._lists,
            sampling,
            self._recipe.optim.batch_pairs,
            self._recipe.seed,
            epoch,
        )
        self._epoch = epoch
        if self._lists is not None:
            figures["hardness"] = float(self._plan.hardness.mean())
        return {
            **figures,
            "dropped": float(self._plan.dropped),
            "plan_s": round(time.monotonic() - started, 2),
        }

    def _mining_is_due(self, epoch: int) -> bool:
        """Mine as soon as the geographic epochs are over, then every `mined_every` epochs.

        Where training starts without geographic lists the first epoch is random: an untrained
        encoder has nothing to say. A pretrained one has.
        """
        sampling, model = self._recipe.sampling, self._recipe.model
        starts = sampling.geographic_epochs
        if not starts and not (model.pretrained or model.pretrained_file):
            starts = 1
        return epoch >= starts and (epoch - starts) % sampling.mined_every == 0

    def _geographic(self) -> Indices:
        assert self.pairs.reference_positions is not None
        pool = self._recipe.sampling.pool
        return lists_from_references(
            geographic_neighbours(self.pairs.reference_positions, pool), self.pairs
        )

    def _mine(self, embed: Embed) -> dict[str, float]:
        started = time.monotonic()
        queries = self._embed_all(self.pairs.queries, "query", embed)
        references = self._embed_all(self.pairs.references, "reference", embed)
        sampling = self._recipe.sampling
        lists = torch.empty((len(self.pairs), sampling.pool), dtype=torch.int32)
        recall = torch.zeros(1)
        if self._world.is_first:
            mined = mine(
                queries,
                references,
                sampling.pool,
                self.pairs.relations,
                self._device,
                sampling.directions,
            )
            lists.copy_(torch.from_numpy(merge_lists(mined, self.pairs)))
            recall.fill_(mined.recall_at_1)
        self._lists = self._from_first(lists).numpy()
        return {
            "train_recall_at_1": float(self._from_first(recall)),
            "mining_s": round(time.monotonic() - started, 1),
        }

    def _embedded(self) -> list[tuple[Images, View]]:
        """Return the collections that are embedded whole: to mine and to validate."""
        known: list[tuple[Images, View]] = [
            (self.pairs.queries, "query"),
            (self.pairs.references, "reference"),
        ]
        if self.task is not None:
            known += [
                (self.task.queries, self.task.query_view),
                (self.task.gallery, self.task.gallery_view),
            ]
        return known

    def _from_first(self, tensor: torch.Tensor) -> torch.Tensor:
        shared = tensor.to(self._device)
        share_from_first(shared, self._world)
        return shared.cpu()

    def _embed_all(self, images: Images, view: View, embed: Embed) -> Floats:
        """Embed all pictures, each process a part of them; black where one cannot be read."""
        size, rank = self._world.size, self._world.rank
        part = -(-len(images) // size)
        # Equal parts, for gathering: the last ones wrap around.
        rows = (np.arange(rank * part, (rank + 1) * part) % len(images)).astype(np.int32)
        number = [id(known) for known, _ in self._embedded()].index(id(images))
        batches = self._loader.images(number, _EMBED_BATCH, rows)
        found = np.concatenate([embed(batch, view) for batch in batches])
        if size == 1:
            return found
        whole = gather(torch.from_numpy(found).to(self._device), self._world)
        return np.asarray(whole.cpu().numpy()[: len(images)], np.float32)

    def batches(self, first: int) -> Iterator[Batch]:
        """Yield the batches of the epoch planned last, from number `first` on."""
        assert self._plan is not None, "prepare comes first"
        for number, loaded in enumerate(self._loader.epoch(self._plan.batches, first), first):
            seed = mixed_seed(self._recipe.seed, self._epoch, number, self._world.rank)
            queries = loaded.queries.to(self._device, non_blocking=True)
            references = loaded.references.to(self._device, non_blocking=True)
            yield Batch(
                *self._augment(queries, references, seed),
                self._targets(loaded.all_pairs.numpy(), loaded.valid),
            )

    def _targets(self, pairs: npt.NDArray[np.int64], valid: torch.Tensor) -> Targets | None:
        flags = valid
        if self._world.size > 1:
            flags = gather(valid.to(self._device, torch.float32), self._world).cpu() > 0
        if self._plain and bool(flags.all()):
            return None
        targets = batch_targets(
            self.pairs.relations,
            self.pairs.pair_query[pairs],
            self.pairs.pair_reference[pairs],
            flags.numpy(),
        )
        return targets.to(self._device)

    def validate(self, embed: Embed) -> RetrievalValidation | None:
        """Search the held-out queries among the held-out tiles."""
        task = self.task
        if task is None:
            return None
        queries = self._embed_all(task.queries, task.query_view, embed)
        gallery = self._embed_all(task.gallery, task.gallery_view, embed)
        result = score(task, queries, gallery, str(self._device))
        return RetrievalValidation(
            recall={k: result.metrics[f"recall_at_{k}"] for k in (1, 5, 10)},
            temperature=_temperature(task, queries, gallery),
            unknown_score=0.0,
            protocol=task.protocol,
            queries=result.query_count,
            gallery=result.gallery_size,
            interval=result.intervals.get("recall_at_1"),
        )

    def state(self) -> dict[str, torch.Tensor]:
        """Return the lists in use: they come from weights that are gone."""
        lists = {} if self._lists is None else {"lists": torch.from_numpy(self._lists)}
        return {"lists_epoch": torch.tensor(self._lists_epoch), **lists}

    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Restore what `state` returned."""
        self._lists_epoch = int(tensors["lists_epoch"])
        self._lists = tensors["lists"].numpy() if "lists" in tensors else None
        if self._lists is not None and len(self._lists) != len(self.pairs):
            raise ValueError("lists of another data set")

    def close(self) -> None:
        """Let the processes go that read pictures."""
        self._loader.close()


def _gsd_range_m(recipe: Recipe) -> tuple[float, float]:
    """Return metres per pixel of the tiles at the model's input, finest and coarsest."""
    data = recipe.data
    assert data is not None, "a recipe with a [data] table"
    if data.gsd_max_m > 0:
        return data.gsd_min_m, data.gsd_max_m
    if data.footprint_m > 0:
        return (data.footprint_m / recipe.model.input_px,) * 2
    return UNKNOWN_GSD_M


def _temperature(task: RetrievalTask, queries: Floats, gallery: Floats) -> float:
    """Fit the temperature that makes the positives most likely, on a part if there are many."""
    asked = np.linspace(0, len(queries) - 1, min(len(queries), _CALIBRATION_QUERIES)).astype(int)
    tiles = np.unique(
        np.concatenate(
            [
                np.linspace(0, len(gallery) - 1, min(len(gallery), _CALIBRATION_TILES)).astype(int),
                *(task.positives.of(int(row))[0] for row in asked),
            ]
        )
    )
    near = ~np.isnan(task.positives.block(asked.astype(np.int32), tiles.astype(np.int32)))
    return calibrate([(queries[asked] @ gallery[tiles].T, near)], [])[0]
