"""How a large level is searched: what is fast enough and misses nothing, by trial.

Queries are put to the level as a scan of all its tiles would answer them, and then in faster ways,
the fastest first; the first that finds enough is kept. Nothing is timed: the same level gives the
same answer on every machine.

What few queries show is partly luck, and who stops at the first way that passes picks the luckiest.
A way therefore passes only if what it lost is too little for a way that loses more than is allowed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .quantise import Floats32, dequantise
from .search import Ids, LevelSearch

_WIDTHS = (48, 96, 192, 384)
# With trial views a search is judged by the places it finds: the share that the scan finds and it
# does not (fewer dimensions have their own share of what may be lost), and so many of the best
# vectors, since a fix weighs several candidates.
_MAX_LOSS, _VIEWS_AT_1 = 0.005, 0.9
# Without any it is judged by the vectors it finds.
_MAX_LOSS_AT_1, _WANTED_AT_10 = 0.01, 0.95
# A way that loses more than is allowed passes once in so many trials.
_FALSE_PASS = 0.05
_QUERIES = 1024
_LEAST_VIEWS = 600  # of fewer not one may be lost, and that would still show too little
_SEED = 5
# Length of the random part added to a unit vector: the query's cosine with it is then 0.8, about
# what a frame taken in another season reaches with its own tile.
_NOISE = 0.75


@dataclass(frozen=True)
class SearchPlan:
    """How a level is searched, and what that finds of what the exact scan finds.

    Attributes:
        method: `exact`, a scan of all vectors; `sample`, a scan of a sample and then of what lies
            around the best of it; `graph`, the same with a graph over the sample.
        step: the sample holds every so many rows and columns; 1 for all of them.
        sampled: how many vectors it holds.
        dims: leading dimensions that the graph knows, 0 without one.
        ef: search width of the graph, 0 without one.
        recall_at_1: share of queries whose best vector is found.
        recall_at_10: share of the ten best vectors that is found.
    """

    method: str
    step: int = 1
    sampled: int = 0
    dims: int = 0
    ef: int = 0
    recall_at_1: float = 1.0
    recall_at_10: float = 1.0


EXACT = SearchPlan("exact")


class Trial:
    """Queries of a level, what the exact scan finds for them, and what must be found of it."""

    def __init__(
        self,
        level: LevelSearch,
        views: Floats32 | None = None,
        share: Callable[[Ids], float] | None = None,
    ) -> None:
        """Scan the level.

        Args:
            level: with no sample and no graph.
            views: (P, D) float32, vectors of trial views, which lie farther from any tile than
                tiles from each other; where there are too few, the level's own vectors, chosen
                and disturbed by a seeded generator, stand in.
            share: what share of the views lies near the tiles (P,) that were found for them.
        """
        judged = views is not None and len(views) >= _LEAST_VIEWS
        self._share = share if judged else None
        self._queries = views if judged and views is not None else _queries(level)
        self._k = min(10, len(level.codes))
        self._truth = level.scan(self._queries, self._k)[0]
        self._wanted = 0.0
        if self._share is not None:
            # Half a view more, since shares are rounded.
            lost = (tolerated(len(self._queries), _MAX_LOSS) + 0.5) / len(self._queries)
            self._wanted = self._share(level.first_tiles(self._truth[:, 0])) - lost

    def graph(self, level: LevelSearch, step: int) -> SearchPlan | None:
        """Return the narrowest search of a level's graph that finds enough, if there is one."""
        for ef in _WIDTHS:
            tried = dataclasses.replace(level, ef=ef)
            if plan := self._enough(tried, SearchPlan("graph", step, 0, int(level.graph.dim), ef)):
                return plan
        return None

    def sample(self, level: LevelSearch, step: int) -> SearchPlan | None:
        """Return the plan of a level's sample if a scan of it finds enough."""
        return self._enough(level, SearchPlan("sample", step))

    def _enough(self, level: LevelSearch, plan: SearchPlan) -> SearchPlan | None:
        found = level.search_vectors(self._queries, self._k)[0]
        missed = int((found[:, 0] != self._truth[:, 0]).sum())
        at_1 = 1 - missed / len(found)
        at_10 = float((found[:, :, None] == self._truth[:, None, :]).any(axis=2).mean())
        if self._share is None:
            enough = missed <= tolerated(len(found), _MAX_LOSS_AT_1) and at_10 >= _WANTED_AT_10
        else:
            enough = self._share(level.first_tiles(found[:, 0])) >= self._wanted
            enough = enough and at_1 >= _VIEWS_AT_1
        if not enough:
            return None
        size = len(level.codes if level.sample is None else level.sample)
        return dataclasses.replace(
            plan, sampled=size, recall_at_1=round(at_1, 4), recall_at_10=round(at_10, 4)
        )


def tolerated(count: int, loss: float) -> int:
    """Return how many of some queries may be lost, so that hardly ever more are than `loss` of all.

    Args:
        count: how many queries are tried.
        loss: share that may be lost, above 0.

    Returns:
        The largest number of which a way that loses just `loss` loses no more in one of twenty
        trials; -1 where there are too few queries to tell.
    """
    chance = (1 - loss) ** count  # of losing none, then of losing one more
    total, lost = chance, 0
    while total <= _FALSE_PASS:
        chance *= (count - lost) / (lost + 1) * loss / (1 - loss)
        total, lost = total + chance, lost + 1
    return lost - 1


def _queries(level: LevelSearch) -> Floats32:
    rng = np.random.default_rng(_SEED)
    count, dim = level.codes.shape
    chosen = rng.integers(0, count, _QUERIES)  # of a small level one more than once
    noise = rng.standard_normal((len(chosen), dim))
    noise *= _NOISE / np.linalg.norm(noise, axis=1, keepdims=True)
    queries = dequantise(level.codes[chosen]) + noise
    unit: Floats32 = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    return unit
