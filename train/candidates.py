"""Lists of hard references, one for each pair: from mining, or from a map."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .relations import Indices, Relations
from .units import PairArrays, ranges

if TYPE_CHECKING:
    from .mining import Mined

# Rows worked on at a time, so that wide temporary arrays stay small.
_ROWS = 4096


def merge_lists(mined: Mined, pairs: PairArrays) -> Indices:
    """Combine both directions of mining into one list for each pair.

    A list belongs to a pair, not to its reference: two panoramas of one tile have lists of their
    own. A query that a reference is taken for stands for its own reference, the one of the
    largest pair weight. Both directions alternate, hardest first; what is related to the pair's
    query is left out.

    Returns:
        (P, k) int32 references, -1 where there are fewer.
    """
    k = mined.references.shape[1]
    out = np.empty((len(pairs.pair_query), k), np.int32)
    reference_of = _reference_of_queries(pairs)
    for rows in _slices(len(out)):
        query = pairs.pair_query[rows]
        lists = mined.references[query]
        if mined.queries is not None:
            asked = mined.queries[pairs.pair_reference[rows]]
            back = np.where(asked >= 0, reference_of[asked], -1)
            lists = np.stack([lists, back], axis=2).reshape(len(lists), -1)
        out[rows] = _cleaned(lists, query, pairs.relations, k)
    return out


def lists_from_references(neighbours: Indices, pairs: PairArrays) -> Indices:
    """Turn lists of references, such as geographic neighbours, into lists of pairs.

    Args:
        neighbours: (R, k) int32 references, -1 where there are fewer.
        pairs: a `PairSet`; what is related to a pair's query is left out.

    Returns:
        (P, k) int32 references, -1 where there are fewer.
    """
    out = np.empty((len(pairs.pair_query), neighbours.shape[1]), np.int32)
    for rows in _slices(len(out)):
        lists = neighbours[pairs.pair_reference[rows]]
        out[rows] = _cleaned(lists, pairs.pair_query[rows], pairs.relations, out.shape[1])
    return out


def thin_lists(lists: Indices, select: int, rng: np.random.Generator) -> Indices:
    """Return `select` of each list: the first half of them, the others drawn from the rest.

    Args:
        lists: (P, k) int32.
        select: how many; k or more keeps all.
        rng: decides.
    """
    if select >= lists.shape[1]:
        return lists
    nearest = (select + 1) // 2
    out = np.empty((len(lists), select), np.int32)
    out[:, :nearest] = lists[:, :nearest]
    for rows in _slices(len(lists)):
        rest = lists[rows, nearest:]
        order = np.argsort(rng.random(rest.shape), axis=1, kind="stable")
        out[rows, nearest:] = np.take_along_axis(rest, order[:, : select - nearest], axis=1)
    return out


def _slices(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _ROWS, count)) for start in range(0, count, _ROWS))


def _reference_of_queries(pairs: PairArrays) -> Indices:
    """Return the reference of each query's heaviest pair, -1 where it has none: (Q,) int32."""
    out = np.full(len(pairs.relations), -1, np.int32)
    # Assigned in this order the last one stays: the heaviest, of equal ones the first.
    order = np.lexsort((-np.arange(len(pairs.pair_query)), pairs.pair_weight))
    out[pairs.pair_query[order]] = pairs.pair_reference[order]
    return out


def _cleaned(lists: Indices, queries: Indices, relations: Relations, k: int) -> Indices:
    """Return lists without what is related or named before, cut or filled up with -1 to k."""
    lists = lists.copy()
    lists[_related(lists, queries, relations)] = -1
    order = np.argsort(lists, axis=1, kind="stable")
    ordered = np.take_along_axis(lists, order, axis=1)
    again = np.zeros(lists.shape, bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    np.put_along_axis(lists, order, np.where(again, -1, ordered), axis=1)
    order = np.argsort(lists < 0, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(lists, order, axis=1)


def _related(lists: Indices, queries: Indices, relations: Relations) -> npt.NDArray[np.bool_]:
    edges, row = ranges(relations.start[queries], relations.start[queries + 1])
    if not len(edges):
        return np.zeros(lists.shape, bool)
    width = 1 + max(int(lists.max()), int(relations.references[edges].max()))
    related = row * width + relations.references[edges]  # ascending
    wanted = np.arange(len(lists))[:, None] * width + lists
    place = np.minimum(np.searchsorted(related, wanted), len(related) - 1)
    return np.asarray((related[place] == wanted) & (lists >= 0))
