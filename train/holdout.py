"""Training places kept apart, to choose the checkpoint by: never the test split's business."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from .dataset import PairSet, Positions, RetrievalTask
from .layout import Subset, take_relations, top_percent

# With so many cells or more, and so many in the share, the share can be met and the held-out places
# come from all over.
_MIN_CELLS, _MIN_HELD_CELLS = 20, 4
_METRES_PER_DEGREE = 111_195.0  # on a sphere of 6,371 km: only neighbourhood matters here

_Groups = npt.NDArray[np.int64]


def hold_out(pairs: PairSet, share: float, seed: int) -> tuple[PairSet, RetrievalTask | None]:
    """Split pairs by place into pairs to train on and a task to choose the checkpoint by.

    With positions whole cells of a coarse grid are held out, so that what is asked lies away from
    what was trained on; without them whole groups of references that share queries (a building).
    A query with any relation to a held-out reference, a semi-positive included, is no longer
    trained on. References without a pair are left out of both.

    Args:
        pairs: of the training split.
        share: of its references to hold out, 0 or more and less than 1.
        seed: of the choice; the same seed makes the same choice.

    Returns:
        The pairs that are left, and the task; the pairs as they were and None where `share` is 0
        or there is only one place.

    Raises:
        InputError: the share is out of range, or no pair would be left.
    """
    if not 0 <= share < 1:
        raise InputError(f"val_share = {share:g}: must be 0 or more and less than 1")
    used = np.unique(pairs.pair_reference).astype(np.int64)
    groups = _groups(pairs, used, share)
    if share == 0 or groups.max(initial=0) == 0:
        return pairs, None
    held = used[_choose(groups, share, np.random.default_rng(seed))]
    is_held = np.zeros(len(pairs.references), bool)
    is_held[held] = True
    touched = np.zeros(len(pairs.queries), bool)
    touched[pairs.relations.rows[is_held[pairs.relations.references]]] = True
    left = ~touched[pairs.pair_query]
    if not left.any():
        raise InputError(
            f"val_share = {share:g}: every one of {len(pairs)} pairs touches a held-out place; "
            "lower the share, or add places"
        )
    return _remaining(pairs, left), _task(pairs, held)


def _remaining(pairs: PairSet, left: npt.NDArray[np.bool_]) -> PairSet:
    queries, pair_query = np.unique(pairs.pair_query[left], return_inverse=True)
    references, pair_reference = np.unique(pairs.pair_reference[left], return_inverse=True)
    positions = pairs.reference_positions
    return dataclasses.replace(
        pairs,
        queries=Subset(pairs.queries, queries),
        references=Subset(pairs.references, references),
        pair_query=pair_query.astype(np.int32),
        pair_reference=pair_reference.astype(np.int32),
        pair_weight=pairs.pair_weight[left],
        relations=take_relations(pairs.relations, queries, references),
        reference_positions=None if positions is None else positions.take(references),
    )


def _task(pairs: PairSet, held: npt.NDArray[np.int64]) -> RetrievalTask:
    positives = pairs.relations.positives()
    asked = np.unique(positives.rows[np.isin(positives.references, held)])
    positions = pairs.reference_positions
    places = len(held)
    if positions is not None:
        places = len(np.unique(positions.coordinates[held], axis=0))
    return RetrievalTask(
        name=f"{'panorama' if pairs.geometry == 'panorama' else 'drone'}→satellite",
        protocol=f"validation: {places:,} held-out places of the training split",
        queries=Subset(pairs.queries, asked),
        gallery=Subset(pairs.references, held),
        positives=take_relations(positives, asked, held),
        one_percent_k=top_percent(len(held)),
        gallery_positions=None if positions is None else positions.take(held),
    )


def _groups(pairs: PairSet, used: npt.NDArray[np.int64], share: float) -> _Groups:
    """Return which group (n,) each used reference belongs to; a group is held out as a whole."""
    if pairs.reference_positions is not None:
        wanted = max(_MIN_CELLS, math.ceil(_MIN_HELD_CELLS / share) if share else 0)
        cells = _cells(_plane_m(pairs.reference_positions.take(used)), wanted)
        if cells.max(initial=0) > 0:
            return cells
    linked = _linked(pairs, used)
    if np.bincount(linked).max(initial=0) > len(used) / 2:  # queries chain everything together
        return np.arange(len(used), dtype=np.int64)
    return linked


def _plane_m(positions: Positions) -> npt.NDArray[np.float64]:
    """Return x, y (n, 2) in metres; of degrees the sinusoidal projection, true in area."""
    if positions.kind == "metres":
        return positions.coordinates
    lat, lon = positions.coordinates.T
    return np.column_stack([lon * np.cos(np.radians(lat)), lat]) * _METRES_PER_DEGREE


def _cells(places_m: npt.NDArray[np.float64], wanted: int) -> _Groups:
    """Return which cell (n,) of a square grid each place lies in: the coarsest of `wanted` cells.

    Fewer where there are fewer places.
    """
    low = places_m.min(axis=0)
    side_m = float(np.ptp(places_m, axis=0).max())
    wanted = min(wanted, len(np.unique(places_m, axis=0)))
    groups = np.zeros(len(places_m), np.int64)
    while side_m > 0 and groups.max() + 1 < wanted:
        side_m /= math.sqrt(2)
        cells = np.floor((places_m - low) / side_m).astype(np.int64)
        groups = np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1)
    return groups


def _linked(pairs: PairSet, used: npt.NDArray[np.int64]) -> _Groups:
    """Return the connected component (n,) of each used reference in the graph of relations."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    queries, references = pairs.relations.rows, pairs.relations.references
    nodes = len(pairs.queries) + len(pairs.references)
    edges = (queries.astype(np.int64), references.astype(np.int64) + len(pairs.queries))
    graph = coo_array((np.ones(len(queries), bool), edges), shape=(nodes, nodes))
    labels = connected_components(graph, directed=False)[1]
    groups = np.unique(labels[len(pairs.queries) + used], return_inverse=True)[1]
    return groups.astype(np.int64)


def _choose(groups: _Groups, share: float, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Return which references (n,) to hold out: whole groups, near `share` in sum.

    Groups in random order are taken as far as they fit; one more where that comes closer.
    """
    sizes = np.bincount(groups)
    target = share * len(groups)
    held: list[int] = []
    rest: list[int] = []
    total = 0
    for group in rng.permutation(len(sizes)):
        fits = total + sizes[group] <= target
        (held if fits else rest).append(int(group))
        total += int(sizes[group]) if fits else 0
    off = [abs(total + sizes[group] - target) for group in rest]
    if len(rest) > 1 and (not held or min(off) < target - total):
        held.append(rest[int(np.argmin(off))])
    return np.isin(groups, held)
