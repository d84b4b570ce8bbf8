"""The figures of a retrieval task: average precision, metres, confidence intervals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError
from ..core.geo import distance_m
from .dataset import RetrievalTask
from .relations import Indices

Doubles = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

SDM_AT = (1, 3, 5)
WITHIN_M = (10, 25, 50, 100)
_SDM_PER_M = 0.001  # s of SDM@K
_RESAMPLES = 1000
_SEED = 2023


def average_precision(ahead: Counts, start: Counts) -> Doubles:
    """Return the average precision of each query, as University-1652's evaluator defines it.

    AP = 1/P sum_i (before_i + at_i) / 2 over the P positives i = 0, 1, … at 0-based rank r_i, with
    before_i = i / r_i (1 where r_i = 0) and at_i = (i + 1) / (r_i + 1): the trapezoid under the
    curve of precision over recall.

    Args:
        ahead: (E,) negatives ahead of each positive, ascending within a query.
        start: (q + 1,) where each query's positives begin; none is empty.
    """
    counts = np.diff(start)
    i = np.arange(len(ahead)) - np.repeat(start[:-1], counts)
    rank = i + ahead
    before = np.where(rank == 0, 1.0, i / np.maximum(rank, 1))
    return np.add.reduceat((before + (i + 1) / (rank + 1)) / 2, start[:-1]) / counts


def similarity_distance(distances_m: Doubles) -> dict[str, float]:
    """Return SDM@k and mean metres at k of the best results (GTA-UAV's Dis@k).

    SDM@K = sum_i (K - i) exp(-s d_i) / sum_i (K - i) over the results i = 0 … K - 1 of a query,
    with s = 0.001 per metre; the mean over queries. A k beyond the gallery is left out.

    Args:
        distances_m: (q, n) metres from the query to its results, best first.
    """
    figures = {}
    kept = [k for k in SDM_AT if k <= distances_m.shape[1]]
    for k in kept:
        weights = np.arange(k, 0, -1) / (k * (k + 1) / 2)
        near = np.exp(-_SDM_PER_M * distances_m[:, :k])
        figures[f"sdm_at_{k}"] = float((near @ weights).mean())
    for k in kept:
        figures[f"mean_m_at_{k}"] = float(distances_m[:, :k].mean())
    return figures


def intervals(per_query: dict[str, Doubles], places: Indices) -> dict[str, tuple[float, float]]:
    """Return 95 % bootstrap intervals (percentile method) of means over queries.

    Places are drawn, not queries: 54 views of one building fail together, and drawing them one by
    one would make the interval several times too narrow. No interval for fewer than two places.

    Args:
        per_query: (q,) values by name.
        places: (q,) the place each query shows.
    """
    _, member, sizes = np.unique(places, return_inverse=True, return_counts=True)
    count = len(sizes)
    if count < 2 or not per_query:
        return {}
    sums = np.stack([np.bincount(member, values, count) for values in per_query.values()])
    rng = np.random.default_rng(_SEED)
    means = np.empty((_RESAMPLES, len(sums)))
    for i in range(_RESAMPLES):
        times = np.bincount(rng.integers(0, count, count), minlength=count)
        means[i] = sums @ times / (sizes @ times)
    low, high = np.percentile(means, (2.5, 97.5), axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(per_query, low, high, strict=True)}


def distances_m(task: RetrievalTask, queries: Indices, found: Indices) -> Doubles | None:
    """Return the distance of each query from each of its results, metres; None: not known.

    Args:
        task: whose pictures and positions.
        queries: (q,) pictures of `task.queries`.
        found: (q, n) pictures of `task.gallery`.

    Raises:
        InputError: a position is not finite, or the sides use different coordinates.
    """
    if task.query_positions is None or task.gallery_positions is None:
        return None
    if task.query_positions.kind != task.gallery_positions.kind:
        raise InputError(
            f"{task.name}: queries have positions in {task.query_positions.kind}, the gallery in "
            f"{task.gallery_positions.kind}; give both the same"
        )
    here = task.query_positions.coordinates[queries][:, None]
    there = task.gallery_positions.coordinates[found]
    if task.query_positions.kind == "metres":
        apart = np.linalg.norm(here - there, axis=2)
    else:
        apart = distance_m(here[..., 0], here[..., 1], there[..., 0], there[..., 1])
    if not np.isfinite(apart).all():
        row = int(np.flatnonzero(~np.isfinite(apart).all(axis=1))[0])
        raise InputError(
            f"{task.name}: the position of {task.queries.name(int(queries[row]))} or of one of "
            "its results is not a finite number; correct the list of positions"
        )
    return np.asarray(apart, np.float64)


def distance_figures(task: RetrievalTask, queries: Indices, found: Indices) -> dict[str, float]:
    """Return SDM@k, mean metres at k, and how far the best results lie; empty: not known.

    Args:
        task: whose pictures and positions.
        queries: (q,) pictures of `task.queries`.
        found: (q, n) pictures of `task.gallery`, best first.

    Raises:
        InputError: see `distances_m`.
    """
    apart = distances_m(task, queries, found)
    if apart is None:
        return {}
    return {
        **similarity_distance(apart),
        "median_m": float(np.median(apart[:, 0])),
        **{f"within_{m}_m": float((apart[:, 0] <= m).mean()) for m in WITHIN_M},
    }
