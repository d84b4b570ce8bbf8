"""Batches of pairs: which places, which dates, in which order; no pixels yet.

A batch is a function of the recipe's seed and the step alone (and, where look-alikes are mined, of
the lists mined last): a resumed training goes on with the very pairs it would have seen.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError, S4GError
from .distributed import World
from .drone_views import Matrices, local_from_drone, local_from_tile, pixel_from_local
from .grounds import Ground
from .recipe import Recipe

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]

# A patch may be cut at most this much finer than the imagery.
_FINEST_RATIO = 0.7
# A place needs this share of valid pixels around it.
_VALID_SHARE = 0.97
# A footprint is at most this share of a ground's short side, so that neighbours exist.
_LARGEST_SHARE = 0.6
# Neighbours of one batch keep this many footprints apart: nearer ones show the same ground.
_APART = 0.55
# ... and lie within this many footprints of the first.
_NEIGHBOURHOOD = 3.0
# Candidates looked at for the first of a neighbourhood, and for each of the others.
_TRIES = 24
_EMPTY_DRAWS = 40
# Real dates differ by themselves; a single date needs the whole difference made.
_OTHER_DATE = 0.7
_TILE_STRENGTH = 0.6


@dataclass(frozen=True)
class Places:
    """N square pieces of ground, and the turns under which both of their views are seen.

    Turning and mirroring both views alike costs nothing and makes one ground many: only shadows
    tell the difference.

    Attributes:
        ground: (N,) index of the ground.
        x_m: (N,) metres of the centre from the ground's western edge.
        y_m: (N,) the same from its northern edge.
        footprint_m: (N,) side of the square.
        turn_deg: (N,) turn.
        mirror: (N,) whether it is seen mirrored.
    """

    ground: Ints
    x_m: Floats
    y_m: Floats
    footprint_m: Floats
    turn_deg: Floats
    mirror: Bools

    def __len__(self) -> int:
        """Return N."""
        return len(self.ground)

    def take(self, rows: Ints | slice) -> Places:
        """Return some of them."""
        return Places(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))

    def overlaps(self, one: int, others: Ints) -> Bools:
        """Return which of the others show ground of place number `one`."""
        apart = np.hypot(self.x_m[others] - self.x_m[one], self.y_m[others] - self.y_m[one])
        mean = (self.footprint_m[others] + self.footprint_m[one]) / 2
        same: Bools = (self.ground[others] == self.ground[one]) & (apart < _APART * mean)
        return same


def join(parts: Sequence[Places]) -> Places:
    """Return the places of several in one."""
    fields = [f.name for f in dataclasses.fields(Places)]
    return Places(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))


@dataclass(frozen=True)
class PairPlan:
    """What the two views of each of B places are cut from, and how much they are changed.

    Attributes:
        places: the B places.
        dates: (B, 2) date of the tile and of the drone view.
        local_from_tile: (B, 3, 3) from pixels of the tile to east, north metres.
        local_from_drone: (B, 3, 3) the same of the drone view.
        strength: (B, 2) float32, how much each view's light and ground is changed.
        seed: of those changes.
    """

    places: Places
    dates: Ints
    local_from_tile: Matrices
    local_from_drone: Matrices
    strength: npt.NDArray[np.float32]
    seed: int


class PairSampler:
    """Draws batches.

    Attributes:
        grounds: those that train and hold a footprint of the recipe.
    """

    def __init__(self, grounds: Sequence[Ground], recipe: Recipe, world: World | None = None):
        """Keep the training grounds on which the recipe's footprints fit.

        Raises:
            InputError: there is none.
        """
        self._recipe = recipe
        self._world = world or World()
        share = self._world.share(recipe.optim.batch_pairs)
        self._pairs = share.stop - share.start
        spans = {id(g): footprint_range_m(g, recipe) for g in grounds if not g.validates}
        self.grounds = [g for g in grounds if spans.get(id(g)) is not None]
        if not self.grounds:
            views = recipe.views
            raise InputError(
                f"recipe {recipe.name}: no training ground can hold a footprint between "
                f"{views.footprint_min_m:g} and {views.footprint_max_m:g} m at "
                f"{recipe.model.input_px} px; add imagery or widen the footprints"
            )
        self._shares = _ground_weights(self.grounds).cumsum()
        self._shares /= self._shares[-1]
        self._lookalikes: tuple[Places, Ints] | None = None

    def mine(self, pool: Places, lists: Ints) -> None:
        """Draw a share of the batches from here on among places that look alike.

        Args:
            pool: P places.
            lists: (P, k) for each the rows of those it is most like, -1 for none.
        """
        self._lookalikes = pool, lists

    def plan(self, step: int) -> PairPlan:
        """Return this process's part of a batch."""
        rank = (self._world.rank,) if self._world.size > 1 else ()
        rng = np.random.default_rng((self._recipe.seed, step, *rank))
        return self._views_of(self._places(rng), rng)

    def draw(self, count: int, rng: np.random.Generator) -> Places:
        """Draw `count` places, each for itself."""
        return self._fill(count, 1, rng)

    def _places(self, rng: np.random.Generator) -> Places:
        optim = self._recipe.optim
        alike: list[Places] = []
        wanted = round(optim.lookalikes * self._pairs) if self._lookalikes is not None else 0
        while (taken := sum(map(len, alike))) < wanted:
            alike.append(self._alike(min(optim.neighbours, wanted - taken), rng))
        return join([*alike, self._fill(self._pairs - wanted, optim.neighbours, rng)])

    def _fill(self, count: int, together: int, rng: np.random.Generator) -> Places:
        parts: list[Places] = []
        found = empty = 0
        while found < count:
            number = int(self._shares.searchsorted(rng.random(), side="right"))
            wanted = min(together, count - found)
            part = draw_neighbourhood(self.grounds[number], number, self._recipe, wanted, rng)
            parts.append(part)
            found += len(part)
            empty = 0 if len(part) else empty + 1
            if empty > _EMPTY_DRAWS:
                raise S4GError(
                    f"found {found} of {count} places with valid imagery; the grounds are nearly "
                    "empty: check nodata, footprint_min_m and footprint_max_m"
                )
        return join(parts) if parts else _no_places()

    def _alike(self, wanted: int, rng: np.random.Generator) -> Places:
        """Draw a place and some that it is taken for."""
        assert self._lookalikes is not None
        pool, lists = self._lookalikes
        chosen = [int(rng.integers(len(pool)))]
        for other in rng.permutation(lists[chosen[0]][lists[chosen[0]] >= 0]):
            if len(chosen) == wanted:
                break
            if not pool.overlaps(int(other), np.array(chosen)).any():
                chosen.append(int(other))
        return pool.take(np.array(chosen))

    def _views_of(self, places: Places, rng: np.random.Generator) -> PairPlan:
        recipe = self._recipe
        size = recipe.model.input_px
        dates = np.array([len(g.dates) for g in self.grounds])[places.ground]
        drawn = (rng.random((2, len(places))) * dates).astype(np.int64).T
        drone, _ = local_from_drone(places.footprint_m, size, recipe.views, rng)
        strength = recipe.views.photometric * np.where(drawn[:, 0] == drawn[:, 1], 1.0, _OTHER_DATE)
        return PairPlan(
            places,
            drawn,
            local_from_tile(places.footprint_m, size),
            drone,
            np.stack([_TILE_STRENGTH * strength, strength], axis=1).astype(np.float32),
            int(rng.integers(1 << 62)),
        )


def pixel_maps(places: Places, grounds: Sequence[Ground]) -> tuple[Matrices, Floats]:
    """Return the maps (N, 3, 3) from local metres to pixels of the finest level, and its GSD."""
    gsd_m = np.array([g.gsd_m for g in grounds])[places.ground]
    return pixel_from_local(gsd_m, places.x_m, places.y_m, places.turn_deg, places.mirror), gsd_m


def prefetch(sampler: PairSampler, steps: range, threads: int) -> Iterator[PairPlan]:
    """Yield the plans of `steps` in order, made ahead by threads."""
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        waiting: deque[Future[PairPlan]] = deque()
        try:
            for step in steps:
                waiting.append(pool.submit(sampler.plan, step))
                if len(waiting) > 2 * max(1, threads):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def footprint_range_m(ground: Ground, recipe: Recipe) -> tuple[float, float] | None:
    """Return the smallest and largest footprint a ground serves, or None if it serves none."""
    low = max(recipe.views.footprint_min_m, _FINEST_RATIO * ground.gsd_m * recipe.model.input_px)
    high = min(recipe.views.footprint_max_m, _LARGEST_SHARE * min(ground.size_m))
    return (low, high) if low <= high else None


def draw_neighbourhood(
    ground: Ground, number: int, recipe: Recipe, wanted: int, rng: np.random.Generator
) -> Places:
    """Draw up to `wanted` places of one footprint near each other, none showing another's ground.

    All are seen under one turn: a batch then compares like with like.
    """
    span = footprint_range_m(ground, recipe)
    assert span is not None, "the sampler keeps only grounds that serve a footprint"
    footprint = math.exp(rng.uniform(math.log(span[0]), math.log(span[1])))
    turn_deg, mirror = rng.uniform(0, 360), bool(rng.random() < 0.5)
    # Plain numbers: a batch draws some hundreds of times, and arrays of two cost more than they do.
    (width_m, height_m), half = ground.size_m, footprint / 2
    low, high = (half, half), (width_m - half, height_m - half)
    chosen: list[tuple[float, float]] = []

    def holds(centre: tuple[float, float]) -> bool:
        return ground.all_valid or ground.valid_share(*centre, footprint) >= _VALID_SHARE

    for centre in _centres(low, high, _TRIES, rng):
        if holds(centre):
            chosen.append(centre)
            break
    if chosen and wanted > 1:
        reach, apart = _NEIGHBOURHOOD * footprint, _APART * footprint
        x, y = chosen[0]
        low = max(low[0], x - reach), max(low[1], y - reach)
        high = min(high[0], x + reach), min(high[1], y + reach)
        for centre in _centres(low, high, _TRIES * wanted, rng):
            if all(math.dist(centre, other) >= apart for other in chosen) and holds(centre):
                chosen.append(centre)
                if len(chosen) == wanted:
                    break
    count = len(chosen)
    x_m, y_m = np.array(chosen).reshape(count, 2).T
    return Places(
        np.full(count, number),
        x_m,
        y_m,
        np.full(count, footprint),
        np.full(count, turn_deg),
        np.full(count, mirror),
    )


def _centres(
    low: tuple[float, float], high: tuple[float, float], count: int, rng: np.random.Generator
) -> list[tuple[float, float]]:
    return [(x, y) for x, y in rng.uniform(low, high, (count, 2)).tolist()]


def _no_places() -> Places:
    none = np.zeros(0)
    return Places(none.astype(np.int64), none, none, none, none, none.astype(bool))


def _ground_weights(grounds: Sequence[Ground]) -> Floats:
    """Share each source's weight among its grounds by the square root of their area."""
    areas = np.array([math.sqrt(g.size_m[0] * g.size_m[1]) for g in grounds])
    sources = np.array([g.source for g in grounds])
    weights = np.array([g.weight for g in grounds]) * areas
    for source in np.unique(sources):
        weights[sources == source] /= areas[sources == source].sum()
    return np.asarray(weights / weights.sum(), np.float64)
