"""Batches of pairs: which places, which dates, in which order.

A batch is a function of the recipe's seed and the step alone: any worker makes the same batch,
and a resumed training goes on with the very pairs it would have seen.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..core.errors import InputError, S4GError
from .distributed import World
from .grounds import Ground
from .recipe import Recipe
from .views import Place, cut_patch, drone_geometry, photometric, tile_geometry

Images: TypeAlias = npt.NDArray[np.uint8]

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
_TRIES = 40


class PairSampler:
    """Draws batches; usable as a map-style dataset of steps."""

    def __init__(self, grounds: list[Ground], recipe: Recipe, world: World | None = None) -> None:
        """Keep the training grounds on which the recipe's footprints fit."""
        self._recipe = recipe
        self._world = world or World()
        share = self._world.share(recipe.optim.batch_pairs)
        self._pairs = share.stop - share.start
        self._grounds = [
            g for g in grounds if not g.validates and footprint_range_m(g, recipe) is not None
        ]
        if not self._grounds:
            views = recipe.views
            raise InputError(
                f"recipe {recipe.name}: no training ground can hold a footprint between "
                f"{views.footprint_min_m:g} and {views.footprint_max_m:g} m at "
                f"{recipe.model.input_px} px; add imagery or widen the footprints"
            )
        self._weights = _ground_weights(self._grounds)

    def __len__(self) -> int:
        """Return the number of steps."""
        return self._recipe.optim.steps

    def __getitem__(self, step: int) -> tuple[Images, Images]:
        """Return this process's tiles and drone views of a step, each (b, S, S, 3) uint8."""
        rank = (self._world.rank,) if self._world.size > 1 else ()
        rng = np.random.default_rng((self._recipe.seed, step, *rank))
        places = self._places(rng)
        tiles, drones = zip(*(self._pair(place, rng) for place in places), strict=True)
        return np.stack(tiles), np.stack(drones)

    def _places(self, rng: np.random.Generator) -> list[Place]:
        optim = self._recipe.optim
        places: list[Place] = []
        for _ in range(_TRIES * self._pairs):
            if len(places) == self._pairs:
                return places
            ground = self._grounds[int(rng.choice(len(self._grounds), p=self._weights))]
            wanted = min(optim.neighbours, self._pairs - len(places))
            places += draw_neighbourhood(ground, self._recipe, wanted, rng)
        raise S4GError(
            f"found {len(places)} of {self._pairs} places with valid imagery; "
            "the grounds are nearly empty: check nodata, footprint_min_m and footprint_max_m"
        )

    def _pair(self, place: Place, rng: np.random.Generator) -> tuple[Images, Images]:
        recipe = self._recipe
        size = recipe.model.input_px
        count = len(place.ground.dates)
        tile_date = int(rng.integers(count))
        drone_date = int(rng.integers(count))
        tile = cut_patch(place, tile_date, tile_geometry(place, size), size)
        geometry, _ = drone_geometry(place, size, recipe.views, rng)
        drone = cut_patch(place, drone_date, geometry, size)
        # Real dates differ by themselves; a single date needs the whole difference made.
        strength = recipe.views.photometric * (1.0 if tile_date == drone_date else 0.7)
        return photometric(tile, 0.6 * strength, rng), photometric(drone, strength, rng)


def prefetch(sampler: PairSampler, steps: range, threads: int) -> Iterator[tuple[Images, Images]]:
    """Yield the batches of `steps` in order, made ahead by threads.

    Threads, not processes: the imagery stays in memory once, and OpenCV and numpy let go of the
    interpreter while they work.
    """
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        waiting: deque[Future[tuple[Images, Images]]] = deque()
        try:
            for step in steps:
                waiting.append(pool.submit(sampler.__getitem__, step))
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
    ground: Ground, recipe: Recipe, wanted: int, rng: np.random.Generator
) -> list[Place]:
    """Draw up to `wanted` places of one footprint near each other, none showing another's ground.

    All are seen under one turn: a batch then compares like with like.
    """
    span = footprint_range_m(ground, recipe)
    assert span is not None, "the sampler keeps only grounds that serve a footprint"
    footprint = math.exp(rng.uniform(math.log(span[0]), math.log(span[1])))
    turn_deg, mirror = rng.uniform(0, 360), bool(rng.random() < 0.5)
    width, height = ground.size_m
    margin = footprint / 2
    places: list[Place] = []
    for _ in range(_TRIES * wanted):
        if len(places) == wanted:
            break
        if places:
            reach = _NEIGHBOURHOOD * footprint
            x = rng.uniform(
                max(margin, places[0].x_m - reach), min(width - margin, places[0].x_m + reach)
            )
            y = rng.uniform(
                max(margin, places[0].y_m - reach), min(height - margin, places[0].y_m + reach)
            )
        else:
            x, y = rng.uniform(margin, width - margin), rng.uniform(margin, height - margin)
        near = any(math.hypot(p.x_m - x, p.y_m - y) < _APART * footprint for p in places)
        if near or ground.valid_share(x, y, footprint) < _VALID_SHARE:
            continue
        places.append(Place(ground, x, y, footprint, turn_deg, mirror))
    return places


def _ground_weights(grounds: list[Ground]) -> npt.NDArray[np.float64]:
    """Share each source's weight among its grounds by the square root of their area."""
    areas = np.array([math.sqrt(g.size_m[0] * g.size_m[1]) for g in grounds])
    sources = np.array([g.source for g in grounds])
    weights = np.array([g.weight for g in grounds]) * areas
    for source in np.unique(sources):
        weights[sources == source] /= areas[sources == source].sum()
    return np.asarray(weights / weights.sum(), np.float64)
