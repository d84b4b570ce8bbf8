"""What a batch is made of: pairs, or several views of one reference; and which must stay apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from .relations import Indices, Relations, Weights

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Counts = npt.NDArray[np.int64]  # also for unit numbers


class PairArrays(Protocol):
    """What is needed of a `PairSet`."""

    @property
    def pair_query(self) -> Indices:
        """(P,) int32."""
        ...

    @property
    def pair_reference(self) -> Indices:
        """(P,) int32."""
        ...

    @property
    def pair_weight(self) -> Weights:
        """(P,) float32."""
        ...

    @property
    def relations(self) -> Relations:
        """Queries over references."""
        ...


@dataclass(frozen=True)
class Units:
    """Units of an epoch.

    Attributes:
        pairs: (U, v) int32 pairs of each, all of one reference.
        reference: (U,) int32.
        references: R, how many references there are.
        related: (U, R) sparse, 1 where a reference shows the place of one of the unit's
            queries, or nearly; its own reference too.
    """

    pairs: Indices
    reference: Indices
    references: int
    related: csr_matrix

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.reference)

    def take(self, rows: npt.NDArray[np.integer]) -> Units:
        """Return some of the units."""
        return replace(
            self,
            pairs=self.pairs[rows],
            reference=self.reference[rows],
            related=self.related[rows],
        )


def build_units(pairs: PairArrays, views: int, rng: np.random.Generator) -> Units:
    """Put `views` random pairs of one reference together; pairs that are left over have no unit.

    Units come in random order.
    """
    reference = np.asarray(pairs.pair_reference)
    order = rng.permutation(len(reference))
    order = order[np.argsort(reference[order], kind="stable")]
    place = rank_within(reference[order])
    count = np.bincount(reference)[reference[order]]
    together = order[place < count - count % views].reshape(-1, views)
    chosen = np.asarray(together[rng.permutation(len(together))], np.int32)
    relations = pairs.relations
    references = 1 + max(int(reference.max(initial=-1)), int(relations.references.max(initial=-1)))
    query = np.asarray(pairs.pair_query)[chosen.ravel()]
    edge, row = ranges(relations.start[query], relations.start[query + 1])
    return Units(
        chosen,
        reference[chosen[:, 0]],
        references,
        pattern(row // views, relations.references[edge], (len(chosen), references)),
    )


def conflicts_of(units: Units) -> csr_matrix:
    """Return which units may not share a batch: (U, U) sparse int32, symmetric, 1 where so."""
    one_each = pattern(units.reference, np.arange(len(units)), (units.references, len(units)))
    reached = (units.related @ one_each).tocoo()
    first = np.concatenate([reached.row, reached.col])
    second = np.concatenate([reached.col, reached.row])
    apart = first != second
    return pattern(first[apart], second[apart], reached.shape)


def batch_limit(units: Units, pairs: PairArrays, size: int) -> int:
    """Return how many whole batches of `size` units the set allows at most.

    In `n` batches a reference serves at most n times, and so does a query.
    """
    by_reference = np.bincount(units.reference)
    by_query = np.bincount(np.asarray(pairs.pair_query)[units.pairs.ravel()])
    low, high = 0, len(units) // size
    while low < high:
        middle = (low + high + 1) // 2
        # Minimum over n is concave and 0 at 0: what n batches allow, fewer allow.
        allowed = min(
            int(np.minimum(by_reference, middle).sum()),
            int(np.minimum(by_query, middle).sum()) // units.pairs.shape[1],
        )
        low, high = (middle, high) if allowed >= middle * size else (low, middle - 1)
    return low


def ranges(start: Counts, stop: Counts) -> tuple[Counts, Counts]:
    """Return all numbers of the ranges [start, stop), and the number of each one's range."""
    length = stop - start
    row = np.repeat(np.arange(len(length)), length)
    first = np.cumsum(length) - length
    return np.arange(len(row)) - first[row] + start[row], row


def rank_within(values: npt.NDArray[np.integer]) -> Counts:
    """Return how many equal values stand before each: (N,) int64."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.searchsorted(ordered, ordered, side="left")
    rank = np.empty(len(values), np.int64)
    rank[order] = np.arange(len(values)) - first
    return rank


def pattern(
    rows: npt.NDArray[np.integer], columns: npt.NDArray[np.integer], shape: tuple[int, int]
) -> csr_matrix:
    """Return a sparse int32 matrix that is 1 at the given places."""
    from scipy.sparse import csr_matrix

    matrix = csr_matrix((np.ones(len(rows), np.int32), (rows, columns)), shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix
