"""Which pairs share a batch: hard ones, never two of one place, the same under the same seed.

Batches are not grown one after the other, which leaves scattered rests for the last ones. The
whole set is split at once into as many parts as there are batches, swaps improve them, and their
order is shuffled: difficulty does not drift over the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from .candidates import thin_lists
from .partition import join_parts, list_matrix, partition
from .refine import refine
from .relations import Indices
from .repair import repair
from .units import PairArrays, Units, batch_limit, build_units, conflicts_of, rank_within

# Rounds of swaps; each wins about half of what the one before won.
_ROUNDS = 5
DIRECTIONS = ("both", "queries")


@dataclass(frozen=True)
class SamplingConfig:
    """The `[sampling]` table of a recipe.

    Attributes:
        geographic_epochs: so many first epochs take hard negatives from geographic neighbours.
        mined_every: mine anew after so many epochs; 0: never.
        pool: length of the lists of hard negatives.
        select: how many of a list serve in one epoch: the nearest half of them always, the
            others drawn from the rest of the list.
        group: pairs that are chosen for each other; a batch is made of several such groups.
            0: the whole batch is one.
        views_per_reference: pairs of one reference in a batch, for the multi-positive loss.
        directions: `both` views look for hard negatives, or only the `queries`.
    """

    geographic_epochs: int = 0
    mined_every: int = 0
    pool: int = 128
    select: int = 64
    group: int = 0
    views_per_reference: int = 1
    directions: str = "both"

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            InputError: a value is out of its range.
        """
        lowest = {
            "geographic_epochs": 0,
            "mined_every": 0,
            "pool": 1,
            "select": 1,
            "group": 0,
            "views_per_reference": 1,
        }
        for name, low in lowest.items():
            value = getattr(self, name)
            if value < low:
                raise InputError(f"[sampling] {name} = {value}: must be {low} or more")
        if self.select > self.pool:
            raise InputError(
                f"[sampling] select = {self.select}: is more than pool = {self.pool}; lower it"
            )
        if self.directions not in DIRECTIONS:
            raise InputError(
                f"[sampling] directions = {self.directions!r}: must be one of "
                f"{', '.join(DIRECTIONS)}"
            )


@dataclass(frozen=True)
class BatchPlan:
    """The batches of one epoch.

    Attributes:
        batches: (N, B) int32 pairs, in the order of training; views of one reference that
            belong together stand side by side.
        dropped: how many pairs are in no batch of this epoch.
        unavoidable: how many would be if nothing were related: P mod B.
        hardness: (N,) float32, mean number of a member's listed references that its own batch
            holds; zeros without lists.
    """

    batches: Indices
    dropped: int
    unavoidable: int
    hardness: npt.NDArray[np.float32]


def plan_batches(
    pairs: PairArrays,
    lists: Indices | None,
    config: SamplingConfig,
    batch_pairs: int,
    seed: int,
    epoch: int,
) -> BatchPlan:
    """Choose the batches of one epoch.

    No pair serves twice, and no two related pairs share a batch: none of one query or of one
    reference, none where a relation of any weight joins the query of one with the reference of
    the other. Only `views_per_reference` views of one reference stay together where that is
    asked for. Dropped are P mod B pairs, others in each epoch, and more only where relations
    leave no choice, such as a reference of more pairs than there are batches.

    Sums are of whole numbers, ties are broken by order: the plan is the same on every machine.

    Args:
        pairs: a `PairSet`.
        lists: (P, k) int32, hard references of each pair, hardest first, -1 for none; None:
            random batches.
        config: what to choose by.
        batch_pairs: B.
        seed: of the training.
        epoch: from 0.

    Raises:
        InputError: the set has too few places for one batch, or B is no multiple of
            `views_per_reference` and `group`.
        ValueError: lists are those of something else than these pairs.
    """
    if lists is not None and len(lists) != len(pairs.pair_query):
        raise ValueError(f"{len(lists)} lists for {len(pairs.pair_query)} pairs: see candidates.py")
    size, group = _sizes(config, batch_pairs)
    rng = np.random.default_rng((seed, epoch))
    units = build_units(pairs, config.views_per_reference, rng)
    units, count = _chosen_first(units, pairs, size)
    chosen = units.reference[: count * size]
    listed = None
    if lists is not None:
        thin = thin_lists(lists[units.pairs[: len(chosen), 0]], config.select, rng)
        listed = list_matrix(thin, units.references)
    conflicts = conflicts_of(units)
    parts = partition(chosen, listed, len(chosen) // group, group, rng)
    refine(parts, chosen, listed, conflicts[: len(chosen), : len(chosen)], _ROUNDS, rng)
    parts = join_parts(parts, conflicts, size // group, rng)
    parts = repair(parts, conflicts, rng)
    if not len(parts):
        raise _too_few(pairs, batch_pairs)
    parts = rng.permuted(parts, axis=1)[rng.permutation(len(parts))]
    batches = units.pairs[parts].reshape(len(parts), batch_pairs)
    total = len(pairs.pair_query)
    return BatchPlan(
        batches,
        total - batches.size,
        total % batch_pairs,
        batch_hardness(batches, pairs.pair_reference, lists),
    )


def batch_hardness(
    batches: Indices, pair_reference: Indices, lists: Indices | None
) -> npt.NDArray[np.float32]:
    """Return the mean number of a member's listed references that its own batch holds.

    Args:
        batches: (N, B) int32 pairs.
        pair_reference: (P,) int32.
        lists: (P, k) int32 references, -1 for none; None gives zeros.

    Returns:
        (N,) float32.
    """
    hardness = np.zeros(len(batches), np.float32)
    if lists is None or not lists.size:
        return hardness
    # One more than the largest: -1 looks there.
    held = np.zeros(max(int(pair_reference.max()), int(lists.max())) + 2, bool)
    for number, batch in enumerate(batches):
        held[pair_reference[batch]] = True
        hardness[number] = held[lists[batch]].sum() / len(batch)
        held[pair_reference[batch]] = False
    return hardness


def _sizes(config: SamplingConfig, batch_pairs: int) -> tuple[int, int]:
    """Return how many units a batch and a group have."""
    views = config.views_per_reference
    if batch_pairs % views:
        raise InputError(
            f"[sampling] views_per_reference = {views}: a batch of {batch_pairs} pairs is no "
            "multiple of it; change one of them"
        )
    group = config.group or batch_pairs
    if batch_pairs % group or group % views:
        raise InputError(
            f"[sampling] group = {group}: must divide the batch of {batch_pairs} pairs and be a "
            f"multiple of views_per_reference = {views}"
        )
    return batch_pairs // views, group // views


def _chosen_first(units: Units, pairs: PairArrays, size: int) -> tuple[Units, int]:
    """Put units that make up whole batches first; return all units and the number of batches."""
    query = np.asarray(pairs.pair_query)[units.pairs]
    count = batch_limit(units, pairs, size)
    while count:
        fits = rank_within(units.reference) < count
        rank = np.zeros(len(units), np.int64)
        rank[fits] = rank_within(query[fits].ravel()).reshape(-1, query.shape[1]).max(axis=1)
        fits &= rank < count
        if int(fits.sum()) >= count * size:
            first = np.flatnonzero(fits)[: count * size]
            rest = np.setdiff1d(np.arange(len(units)), first)
            return units.take(np.concatenate([first, rest])), count
        count -= 1
    raise _too_few(pairs, size * units.pairs.shape[1])


def _too_few(pairs: PairArrays, batch_pairs: int) -> InputError:
    places = len(np.unique(pairs.pair_reference))
    return InputError(
        f"a batch of {batch_pairs} pairs: the training set has {len(pairs.pair_query)} pairs of "
        f"{places} references, too few that show different places; lower the batch"
    )
