"""A method's answers to a condition."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from calibration import calibration_error, claims, reliability
from condition import Condition, Floats, Gallery, Images, Region, Shot
from methods import Method
from metrics import Found, figures, found, joined

_SEED = 66_000
_LEAST = 2  # queries of each part, for a method with a budget


@dataclass(frozen=True, eq=False)
class Foreign:
    """Queries and frames of one source, for all others' maps.

    Attributes:
        source: see `Gallery`.
        queries: (Q, V, S, S, 3).
        cluster: (Q,).
        shots: whole frames.
    """

    source: str
    queries: Images
    cluster: npt.NDArray[np.int64]
    shots: tuple[Shot, ...] = ()


@dataclass(eq=False)
class Kept:
    """What a method has prepared and will need again: galleries, foreign queries."""

    tiles: dict[str, Any] = field(default_factory=dict)
    foreign: dict[str, Any] = field(default_factory=dict)

    def gallery(self, method: Method, gallery: Gallery) -> Any:
        """Return a gallery's prepared tiles."""
        if gallery.name not in self.tiles:
            self.tiles[gallery.name] = method.prepare(gallery.tiles)
        return self.tiles[gallery.name]


@dataclass(frozen=True, eq=False)
class RegionAnswers:
    """One region's scores.

    Attributes:
        region: the queries that were asked, and their gallery.
        scores: (Q, N).
        foreign: (F, N) of foreign queries.
    """

    region: Region
    scores: Floats
    foreign: Floats
    foreign_cluster: npt.NDArray[np.int64]

    @property
    def distance_m(self) -> Floats:
        """(Q, N) from tiles to truth."""
        tiles = self.region.gallery.center_m
        away_m = np.linalg.norm(self.region.center_m[:, None] - tiles[None], axis=2)
        return np.asarray(away_m, np.float64)


def answer(
    condition: Condition, method: Method, pool: list[Foreign], kept: Kept
) -> list[RegionAnswers]:
    """Search every query of a condition, and foreign ones, in its region's gallery.

    Foreign are the queries of the condition's other regions where their ground is another, else
    those of the pool.
    """
    regions = [_asked(region, method, condition) for region in condition.regions]
    views = regions[0].queries.shape[1]
    prepared = [_prepared(method, region.queries) for region in regions]
    answers = []
    for number, region in enumerate(regions):
        source = region.gallery.source
        tiles = kept.gallery(method, region.gallery)
        others = [
            (prepared[i], other.cluster, i)
            for i, other in enumerate(regions)
            if other.gallery.source != source
        ]
        if not others and views == 1:
            others = [
                (_pooled(method, part, kept), part.cluster, i)
                for i, part in enumerate(pool)
                if part.source != source
            ]
        foreign, cluster = [], []
        for rows, numbers, i in others:
            few = _few(len(numbers), method, views, len(others) * len(regions))
            foreign.append(_best(method, [rows[j] for j in few], tiles, views))
            cluster.append(numbers[few] + 10_000 * i)
        empty = np.zeros((0, len(region.gallery.tiles)))
        answers.append(
            RegionAnswers(
                region,
                _best(method, prepared[number], tiles, views),
                np.concatenate(foreign) if foreign else empty,
                np.concatenate(cluster) if cluster else np.zeros(0, np.int64),
            )
        )
    return answers


def summary(answers: list[RegionAnswers], method: Method) -> dict[str, Any]:
    """Return the figures of a condition, and how calibrated they are where the method says so."""
    parts: list[Found] = [
        found(
            of.scores,
            of.distance_m,
            of.region.gallery.footprint_m,
            of.region.cluster,
            of.foreign,
            of.foreign_cluster,
            *_claimed(of, method),
        )
        for of in answers
    ]
    together = joined(parts)
    result: dict[str, Any] = {
        "queries": len(together.hit),
        "clusters": int(together.cluster.max()) + 1,
        "foreign": len(together.foreign),
        "tiles": sum(len(of.region.gallery.tiles) for of in answers),
        "figures": figures(together),
    }
    if method.spec is not None:
        result["calibration"] = _calibration(together, method.spec.unknown_score)
    return result


def _claimed(of: RegionAnswers, method: Method) -> tuple[Floats, Floats] | tuple[()]:
    """Return what is claimed of known and of foreign ground, nothing if the method claims none."""
    if method.spec is None:
        return ()
    place = (of.region.gallery.center_m, of.region.gallery.footprint_m, method.spec)
    return claims(of.scores, *place), claims(of.foreign, *place)


def _calibration(of: Found, limit: float) -> dict[str, Any]:
    right = of.hit[:, 0]
    # Whatever is claimed of foreign ground is wrong.
    both = np.concatenate([of.claimed, of.foreign_claimed])
    true = np.concatenate([right, np.zeros(len(of.foreign), np.bool_)])
    return {
        "error_known": calibration_error(of.claimed, right),
        "error_with_foreign": calibration_error(both, true),
        "foreign_below_unknown": float((of.foreign < limit).mean()) if len(of.foreign) else None,
        "known_below_unknown": float((of.score < limit).mean()),
        "reliability": reliability(of.claimed, right),
        "reliability_with_foreign": reliability(both, true),
    }


def _asked(region: Region, method: Method, condition: Condition) -> Region:
    """Return the region with as many queries and views as the method can afford."""
    queries = region.queries[:, :1] if method.turns else region.queries
    few = _few(len(queries), method, queries.shape[1], len(condition.regions))
    return Region(region.gallery, queries[few], region.center_m[few], region.cluster[few])


def _few(count: int, method: Method, views: int, parts: int) -> npt.NDArray[np.int64]:
    """Choose which of the queries of one of several parts a method with a budget is asked."""
    if not method.views:
        return np.arange(count)
    wanted = max(_LEAST, method.views // views // parts)
    if wanted >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(_SEED).permutation(count)[:wanted])


def _prepared(method: Method, queries: Images) -> list[Any]:
    """Return what is prepared of each query (Q, V, S, S, 3): Q lists of V."""
    count, views = queries.shape[:2]
    flat = method.prepare(queries.reshape(count * views, *queries.shape[2:]))
    return [flat[i * views : (i + 1) * views] for i in range(count)]


def _pooled(method: Method, part: Foreign, kept: Kept) -> list[Any]:
    if part.source not in kept.foreign:
        kept.foreign[part.source] = _prepared(method, part.queries)
    rows: list[Any] = kept.foreign[part.source]
    return rows


def _best(method: Method, queries: list[Any], tiles: Any, views: int) -> Floats:
    """Return the scores (Q, N) of the best view of each query."""
    if not queries:
        return np.zeros((0, len(tiles)))
    array = isinstance(queries[0], np.ndarray)
    flat = np.concatenate(queries) if array else [view for query in queries for view in query]
    scores = method.compare(flat, tiles)
    best: Floats = scores.reshape(len(queries), views, -1).max(axis=1)
    return best
