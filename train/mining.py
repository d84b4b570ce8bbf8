"""Hard negatives: what the encoder at hand takes for each other, exact and in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .relations import Indices, Relations
from .similarity import Floats, TopK, edges_of_block, similarity_blocks

# Result rows that are unpacked at a time.
_ROWS = 8192


@dataclass(frozen=True)
class Mined:
    """The most similar ones that do not show the same place.

    Attributes:
        references: (Q, k) int32, references most similar to each query, best first; -1 where
            there are fewer.
        reference_scores: (Q, k) float32, their dot products; -inf where there are fewer.
        queries: (R, k) int32, queries most similar to each reference, likewise; None where only
            one direction was asked for.
        query_scores: (R, k) float32 or None.
        recall_at_1: share of the queries with a positive whose best positive scores higher than
            everything unrelated; a tie is a miss. NaN where no query has a positive.
    """

    references: Indices
    reference_scores: Floats
    queries: Indices | None
    query_scores: Floats | None
    recall_at_1: float


def mine(
    queries: Floats,
    references: Floats,
    k: int,
    exclude: Relations,
    device: torch.device | str = "cpu",
    directions: str = "both",
    budget_bytes: int | None = None,
) -> Mined:
    """Find the k hardest negatives of all queries and references in one pass.

    The result is exact: that of sorting the whole matrix of fp32 dot products, equal scores by
    the lower index. In memory are, besides the embeddings and the result, one block within the
    budget, about half as much again for the search in it, and 8 k bytes a reference.

    Args:
        queries: (Q, D) float32, may be memory-mapped.
        references: (R, D) float32, likewise.
        k: length of the lists.
        exclude: Q rows over references: what is no negative, semi-positives too.
        device: where blocks are multiplied and searched.
        directions: `both`, or `queries` for the lists of queries alone.
        budget_bytes: see `similarity_blocks`.

    Raises:
        S4GError: an embedding is not finite, or the budget is too small.
    """
    found = np.empty((len(queries), k), np.int32)
    found_scores = np.empty((len(queries), k), np.float32)
    best_positive = np.full(len(queries), -np.inf, np.float32)
    of_references = TopK(len(references), k, device) if directions == "both" else None
    of_queries = TopK(0, k, device)
    for query_part, reference_part, block in similarity_blocks(
        queries, references, device, budget_bytes
    ):
        if reference_part.start == 0:
            of_queries = TopK(query_part.stop - query_part.start, k, device)
        _take_related(block, query_part, reference_part, exclude, best_positive)
        of_queries.update(block, slice(None), reference_part.start)
        if of_references is not None:
            of_references.update(block, reference_part, query_part.start, transposed=True)
        if reference_part.stop == len(references):
            found[query_part], found_scores[query_part] = of_queries.result()
    del of_queries
    recall = _recall_at_1(best_positive, found_scores[:, 0], exclude)
    if of_references is None:
        return Mined(found, found_scores, None, None, recall)
    return Mined(found, found_scores, *_unpacked(of_references, len(references), k), recall)


def _take_related(
    block: torch.Tensor,
    query_part: slice,
    reference_part: slice,
    exclude: Relations,
    best_positive: Floats,
) -> None:
    """Note the score of the best positives, then take all that is related out of the block."""
    rows, columns, edges = edges_of_block(exclude, query_part, reference_part)
    if not len(rows):
        return
    place = (torch.from_numpy(rows).to(block.device), torch.from_numpy(columns).to(block.device))
    positive = exclude.weights[edges] > 0
    scores = block[place].cpu().numpy()[positive]
    np.maximum.at(best_positive[query_part], rows[positive], scores)
    block[place] = -torch.inf


def _recall_at_1(best_positive: Floats, best_negative: Floats, exclude: Relations) -> float:
    asked = np.zeros(len(best_positive), bool)
    asked[exclude.rows[exclude.weights > 0]] = True
    if not asked.any():
        return float("nan")
    return float((best_positive[asked] > best_negative[asked]).mean())


def _unpacked(top: TopK, rows: int, k: int) -> tuple[Indices, Floats]:
    index = np.empty((rows, k), np.int32)
    scores = np.empty((rows, k), np.float32)
    for start in range(0, rows, _ROWS):
        part = slice(start, start + _ROWS)
        index[part], scores[part] = top.result(part)
    return index, scores
