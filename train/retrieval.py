"""Scores of a retrieval task: recall, AP, hit rate, metres, with intervals, in bounded memory.

One pass over blocks of similarities. For each positive only the number of negatives ahead of it is
kept, for each query only its best few; no matrix of queries by gallery exists at any time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from ..core.errors import InputError, S4GError
from .dataset import RetrievalTask
from .figures import (
    SDM_AT,
    Counts,
    Doubles,
    average_precision,
    distance_figures,
    intervals,
)
from .relations import Indices, Relations
from .similarity import TopK, edges_of_block, similarity_blocks

Floats = npt.NDArray[np.float32]

RECALL_AT = (1, 5, 10)
CURVE_LENGTH = 50
# A negative that comes this close to a positive counts as ahead of it: products of unit vectors
# in float32 are no more exact, and an encoder that maps all images to one point must score 0.
TIE = 1e-6
_EDGE_BYTES = 32 << 20  # of rows gathered at a time


@dataclass(frozen=True)
class RetrievalResult:
    """What scoring one task gave. Rows are pictures of the task's `queries` and `gallery`.

    Attributes:
        task: the direction.
        protocol: which gallery and rules.
        dim: length of the (prefix of the) embeddings.
        gallery_size: how many pictures competed.
        places: how many places the queries show: queries of one best positive are one place.
        one_percent_k: k of "R@1%".
        metrics: figure by name; shares between 0 and 1, distances in metres.
        intervals: 95 % confidence intervals by name of the figure.
        curve: (50,) recall at k = 1, 2, …
        query_rows: (q,) int32, what was asked.
        place: (q,) int32, best positive of each query.
        ranks: (q,) int64, how many negatives are ahead of the best positive.
        top_rows: (q, top) int32, best first; -1 where the gallery is smaller.
        top_scores: (q, top) float32 cosines.
    """

    task: str
    protocol: str
    dim: int
    gallery_size: int
    places: int
    one_percent_k: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    curve: Doubles = field(repr=False)
    query_rows: Indices = field(repr=False)
    place: Indices = field(repr=False)
    ranks: Counts = field(repr=False)
    top_rows: Indices = field(repr=False)
    top_scores: Floats = field(repr=False)

    @property
    def query_count(self) -> int:
        """How many queries were asked."""
        return len(self.query_rows)


def score(
    task: RetrievalTask,
    query_embeddings: Floats,
    gallery_embeddings: Floats,
    device: str = "cpu",
    top: int = 10,
    dim: int | None = None,
    budget_bytes: int | None = None,
) -> RetrievalResult:
    """Search every query of a task in its gallery.

    Args:
        task: what is asked and what counts as found.
        query_embeddings: (len(task.queries), D) float32, L2-normalised: one row a picture, also
            of those that `query_rows` leaves out, so that protocols share one array. May be
            memory-mapped.
        gallery_embeddings: (len(task.gallery), D) float32, L2-normalised, likewise.
        device: where to multiply.
        top: how many results of each query to keep, at least 5.
        dim: use this prefix of the embeddings, normalised again; None: all of it.
        budget_bytes: memory of one block of similarities.

    Raises:
        InputError: a query has no positive in the gallery, or a position is not finite.
        S4GError: the embeddings are not those of the task's pictures.
    """
    for side, embeddings, images in (
        ("query", query_embeddings, task.queries),
        ("gallery", gallery_embeddings, task.gallery),
    ):
        if len(embeddings) != len(images):
            raise S4GError(
                f"{task.name}, {task.protocol}: {len(embeddings)} embeddings for {len(images)} "
                f"{side} images; embed all of them, in order"
            )
    query_rows = _rows(task.query_rows, len(task.queries))
    gallery_rows = _rows(task.gallery_rows, len(task.gallery))
    queries = _chosen(query_embeddings, task.query_rows, dim)
    gallery = _chosen(gallery_embeddings, task.gallery_rows, dim)
    positives = _local(task.positives.positives(), query_rows, gallery_rows, len(task.gallery))
    _check_findable(task, query_rows, positives)
    semi = None
    if task.semi_positives is not None and "hit_rate" in task.metrics:
        semi = _local(task.semi_positives, query_rows, gallery_rows, len(task.gallery))
    ranking = _rank(queries, gallery, positives, semi, device, max(top, max(SDM_AT)), budget_bytes)

    places = gallery_rows[_best_positive(positives)]
    first = ranking.ahead[positives.start[:-1]]
    per_query: dict[str, Doubles] = {}
    metrics: dict[str, float] = {}
    if "recall" in task.metrics:
        for k in RECALL_AT:
            metrics[f"recall_at_{k}"] = float((first < k).mean())
        metrics["recall_at_1_percent"] = float((first < task.one_percent_k).mean())
        per_query["recall_at_1"] = (first < 1).astype(np.float64)
    if "ap" in task.metrics:
        per_query["ap"] = average_precision(ranking.ahead, positives.start)
        metrics["ap"] = float(per_query["ap"].mean())
    if semi is not None:
        per_query["hit_rate"] = (first == ranking.semi_ahead).astype(np.float64)
        metrics["hit_rate"] = float(per_query["hit_rate"].mean())
    found = np.where(ranking.top >= 0, gallery_rows[ranking.top], np.int32(-1))
    if "sdm" in task.metrics:
        metrics |= distance_figures(task, query_rows, found[:, : min(max(SDM_AT), len(gallery))])
    return RetrievalResult(
        task=task.name,
        protocol=task.protocol,
        dim=queries.shape[1],
        gallery_size=len(gallery),
        places=len(np.unique(places)),
        one_percent_k=task.one_percent_k,
        metrics=metrics,
        intervals=intervals(per_query, places),
        curve=np.array([(first < k).mean() for k in range(1, CURVE_LENGTH + 1)]),
        query_rows=query_rows,
        place=places,
        ranks=first,
        top_rows=found[:, :top],
        top_scores=ranking.top_scores[:, :top],
    )


@dataclass(frozen=True)
class _Ranking:
    ahead: Counts  # (E,) negatives ahead of each positive, ascending within a query
    semi_ahead: Counts  # (q,) semi-positives among those ahead of the best positive
    top: Indices  # (q, top) gallery columns, best first
    top_scores: Floats


def _rank(
    queries: Floats,
    gallery: Floats,
    positives: Relations,
    semi: Relations | None,
    device: str,
    top: int,
    budget_bytes: int | None,
) -> _Ranking:
    scores = _edge_scores(queries, gallery, positives)
    # Best first within each query; where a query's positives begin stays the same.
    limits = torch.from_numpy(scores[np.lexsort((-scores, positives.rows))] - TIE).to(device)
    start = torch.from_numpy(positives.start).to(device)
    ahead = torch.zeros(len(limits), dtype=torch.int64, device=device)
    semi_ahead = torch.zeros(len(queries), dtype=torch.int64, device=device)
    best = TopK(len(queries), top, device)
    for asked, seen, block in similarity_blocks(queries, gallery, device, budget_bytes):
        best.update(block, asked, seen.start)
        row, column, _ = edges_of_block(positives, asked, seen)
        block[_index(row, device), _index(column, device)] = -torch.inf
        begin = start[asked.start : asked.stop + 1]
        if semi is not None:
            row, column, _ = edges_of_block(semi, asked, seen)
            rows = _index(row, device)
            passes = block[rows, _index(column, device)] >= limits[begin[rows]]
            semi_ahead[asked] += torch.bincount(rows[passes], minlength=len(block))
        counts = begin.diff()
        for i in range(int(counts.max())):
            deep = (counts > i).nonzero()[:, 0]
            rivals = block if len(deep) == len(block) else block[deep]
            edges = begin[deep] + i
            ahead[edges] += (rivals >= limits[edges, None]).sum(1)
    return _Ranking(ahead.cpu().numpy(), semi_ahead.cpu().numpy(), *best.result())


def _index(values: Indices, device: str) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int64)).to(device)


def _edge_scores(queries: Floats, gallery: Floats, positives: Relations) -> Floats:
    """Return the cosine of each positive, summed in float64 so that only blocks have noise."""
    rows, out = positives.rows, np.empty(len(positives.references), np.float32)
    step = max(1, _EDGE_BYTES // (8 * queries.shape[1]))
    for begin in range(0, len(out), step):
        part = slice(begin, begin + step)
        left = np.asarray(queries[rows[part]], np.float64)
        out[part] = np.einsum("ij,ij->i", left, gallery[positives.references[part]])
    return out


def _rows(rows: Indices | None, count: int) -> Indices:
    return np.arange(count, dtype=np.int32) if rows is None else rows


def _chosen(embeddings: Floats, rows: Indices | None, dim: int | None) -> Floats:
    """Return the rows that take part, their prefix normalised; the array itself where it is all."""
    if dim is not None and dim < embeddings.shape[1]:
        embeddings = embeddings[:, :dim]
    else:
        dim = None
    if rows is not None:
        embeddings = embeddings[rows]
    if dim is None:
        return embeddings
    prefix = np.array(embeddings, np.float32)
    prefix /= np.maximum(np.linalg.norm(prefix, axis=1, keepdims=True), np.float32(1e-12))
    return prefix


def _local(
    relations: Relations, query_rows: Indices, gallery_rows: Indices, gallery_count: int
) -> Relations:
    """Return the relations of the rows that take part, numbered as they are in them."""
    column = np.full(gallery_count, -1, np.int32)
    column[gallery_rows] = np.arange(len(gallery_rows), dtype=np.int32)
    counts = np.diff(relations.start)[query_rows]
    rows = np.repeat(np.arange(len(query_rows), dtype=np.int32), counts)
    skipped = relations.start[query_rows] - (np.cumsum(counts) - counts)
    edges = np.arange(len(rows)) + np.repeat(skipped, counts)
    columns, weights = column[relations.references[edges]], relations.weights[edges]
    keep = columns >= 0
    return Relations.from_edges(rows[keep], columns[keep], len(query_rows), weights[keep])


def _check_findable(task: RetrievalTask, query_rows: Indices, positives: Relations) -> None:
    lost = np.flatnonzero(np.diff(positives.start) == 0)
    if not len(query_rows):
        raise InputError(f"{task.name}, {task.protocol}: asks no query; check the test split")
    if len(lost):
        name = task.queries.name(int(query_rows[lost[0]]))
        raise InputError(
            f"{task.name}, {task.protocol}: {len(lost)} of {len(query_rows)} queries have no "
            f"positive in the gallery, such as {name}; complete the gallery or leave them out"
        )


def _best_positive(positives: Relations) -> Indices:
    """Return the column of each query's heaviest positive, the lowest where several are."""
    order = np.lexsort((positives.references, -positives.weights, positives.rows))
    return positives.references[order[positives.start[:-1]]]
