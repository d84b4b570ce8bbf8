"""How wide a level's graph must be searched, measured on the level's own vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .quantise import Floats32, dequantise
from .search import Ids, LevelSearch

_WIDTHS = (48, 96, 192, 384, 768)
# With trial views a graph is judged by the places it finds: so many fewer than the scan, and so
# many of the best vectors, since a fix weighs several candidates.
_MAX_LOSS, _VIEWS_AT_1 = 0.005, 0.9
# Without any it is judged by the vectors it finds.
_WANTED_AT_1, _WANTED_AT_10 = 0.99, 0.95
# A graph that loses more than this is not used: the exact scan costs milliseconds, not a wrong fix.
_LEAST_AT_1 = 0.95
_QUERIES = 256
_LEAST_VIEWS = 100
_SEED = 5
# Length of the random part added to a unit vector: the query's cosine with it is then 0.8, about
# what a frame taken in another season reaches with its own tile.
_NOISE = 0.75


@dataclass(frozen=True)
class SearchPlan:
    """How a level is searched, and what that finds of what the exact scan finds.

    Attributes:
        method: `graph` or `exact`.
        dims: leading dimensions that the graph knows, 0 for the exact scan.
        ef: search width of the graph, 0 for the exact scan.
        recall_at_1: share of queries whose best vector is found.
        recall_at_10: share of the ten best vectors that is found.
    """

    method: str
    dims: int = 0
    ef: int = 0
    recall_at_1: float = 1.0
    recall_at_10: float = 1.0


EXACT = SearchPlan("exact")


def choose_search(
    level: LevelSearch,
    views: Floats32 | None = None,
    share: Callable[[Ids], float] | None = None,
) -> SearchPlan:
    """Return the narrowest search of a level's graph that finds enough of what the scan finds.

    Where the widest search misses too much, the answer is `EXACT`.

    Args:
        level: with its graph.
        views: (P, D) float32, vectors of trial views, which lie farther from any tile than tiles
            from each other; where there are too few, the level's own vectors, chosen and disturbed
            by a seeded generator, stand in.
        share: what share of the views lies near the tiles (P,) that were found for them.
    """
    judged = views is not None and len(views) >= _LEAST_VIEWS and share is not None
    queries = views if judged and views is not None else _queries(level)
    k = min(10, len(level.codes))
    truth = level.scan(queries, k)[0]
    wanted = share(level.first_tiles(truth[:, 0])) - _MAX_LOSS if judged and share else 0.0
    plan = EXACT
    for ef in _WIDTHS:
        found = dataclasses.replace(level, ef=ef).search_vectors(queries, k)[0]
        at_1 = float((found[:, 0] == truth[:, 0]).mean())
        at_10 = float((found[:, :, None] == truth[:, None, :]).any(axis=2).mean())
        plan = SearchPlan("graph", int(level.graph.dim), ef, round(at_1, 4), round(at_10, 4))
        if judged and share:
            if at_1 >= _VIEWS_AT_1 and share(level.first_tiles(found[:, 0])) >= wanted:
                return plan
        elif at_1 >= _WANTED_AT_1 and at_10 >= _WANTED_AT_10:
            return plan
    return plan if not judged and plan.recall_at_1 >= _LEAST_AT_1 else EXACT


def _queries(level: LevelSearch) -> Floats32:
    rng = np.random.default_rng(_SEED)
    count, dim = level.codes.shape
    chosen = rng.choice(count, min(_QUERIES, count), replace=False)
    noise = rng.standard_normal((len(chosen), dim))
    noise *= _NOISE / np.linalg.norm(noise, axis=1, keepdims=True)
    queries = dequantise(level.codes[chosen]) + noise
    unit: Floats32 = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    return unit
