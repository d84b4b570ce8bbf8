"""Validation on held-out places: does a drone's view find its tile among all of a region?"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from .grounds import Ground
from .model import Encoder, normalise
from .pairs import footprint_range_m
from .photometric import photometric
from .recipe import Recipe
from .views import Place, cut_patch, drone_geometry, tile_geometry

Floats = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]

_STRIDE = 0.25  # of the footprint, as packs are built
_QUERIES = 40  # per ground
_MAX_TILES = 400  # per ground: larger lattices get a larger footprint
_MAX_GROUNDS = 8  # per source of the recipe
_VALID_SHARE = 0.97
_SEED = 20230
_THREADS = 16  # patches are cut outside Python's lock
_BATCH = 64
# A retrieved tile is right when its centre lies within this many footprints of the true place ...
HIT_FOOTPRINTS = 0.5
# ... and carries the probability that calibrates the temperature within this many.
_CALIBRATION_FOOTPRINTS = 0.35
_TEMPERATURES = np.geomspace(0.01, 0.2, 40)
_UNKNOWN_SCORES = np.linspace(0.0, 0.95, 39)


@dataclass(frozen=True)
class ValidationRegion:
    """A gallery of tiles and the drone views to be found in it; places in footprints.

    Attributes:
        name: the ground's name.
        source: index of the recipe's [[ground]] entry.
        footprint_m: side of the tiles.
        tiles: (N, S, S, 3) uint8.
        tile_xy: (N, 2) centres of the tiles.
        queries: (Q, S, S, 3) uint8.
        query_xy: (Q, 2) true centres of the queries.
    """

    name: str
    source: int
    footprint_m: float
    tiles: Images
    tile_xy: Floats
    queries: Images
    query_xy: Floats


@dataclass(frozen=True)
class GroundValidation:
    """Figures of a validation.

    Attributes:
        recall: recall at 1, 5 and 10: a right tile among the first k.
        median_error: median distance of the best tile from the true place, footprints.
        temperature: softmax temperature under which scores are most likely ...
        unknown_score: ... together with this rival for views of ground that is in no tile.
        unknown_recognised: share of such views for which the rival beats every tile.
        by_region: recall at 1 for each region.
    """

    recall: dict[int, float]
    median_error: float
    temperature: float
    unknown_score: float
    unknown_recognised: float
    by_region: dict[str, float]

    def as_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            **{f"recall_at_{k}": round(v, 4) for k, v in self.recall.items()},
            "median_error_footprints": round(self.median_error, 4),
            "temperature": round(self.temperature, 5),
            "unknown_score": round(self.unknown_score, 4),
            "unknown_recognised": round(self.unknown_recognised, 4),
            "recall_at_1_by_region": {k: round(v, 4) for k, v in self.by_region.items()},
        }


def validation_regions(
    grounds: list[Ground], recipe: Recipe, queries: int = _QUERIES
) -> list[ValidationRegion]:
    """Cut the galleries and so many queries of each held-out ground; alike for the same recipe."""
    chosen: list[_Lattice] = []
    counts: dict[int, int] = {}
    for ground in grounds:
        if not ground.validates or counts.get(ground.source, 0) >= _MAX_GROUNDS:
            continue
        lattice = _lattice(ground, recipe)
        if lattice is not None:
            counts[ground.source] = counts.get(ground.source, 0) + 1
            chosen.append(lattice)

    def cut(numbered: tuple[int, _Lattice]) -> ValidationRegion:
        rng = np.random.default_rng((_SEED, numbered[0]))
        return _region(numbered[1], recipe, queries, rng)

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(cut, enumerate(chosen)))


@dataclass(frozen=True)
class _Lattice:
    ground: Ground
    footprint_m: float
    centers: list[tuple[float, float]]


def _lattice(ground: Ground, recipe: Recipe) -> _Lattice | None:
    span = footprint_range_m(ground, recipe)
    if span is None:
        return None
    width, height = ground.size_m
    # The smallest footprint whose lattice has not more than _MAX_TILES.
    footprint = max(span[0], math.sqrt(width * height / _MAX_TILES) / _STRIDE)
    footprint = min(footprint, span[1])
    axis_x = np.arange(footprint / 2, width - footprint / 2 + 1e-6, _STRIDE * footprint)
    axis_y = np.arange(footprint / 2, height - footprint / 2 + 1e-6, _STRIDE * footprint)
    centers = [
        (float(x), float(y))
        for y in axis_y
        for x in axis_x
        if ground.valid_share(float(x), float(y), footprint) >= _VALID_SHARE
    ]
    return None if len(centers) < 4 else _Lattice(ground, footprint, centers)


def _region(
    lattice: _Lattice, recipe: Recipe, count: int, rng: np.random.Generator
) -> ValidationRegion:
    ground, footprint, centers = lattice.ground, lattice.footprint_m, lattice.centers
    size = recipe.model.input_px
    places = [Place(ground, x, y, footprint, 0.0, False) for x, y in centers]
    tiles = np.stack([cut_patch(p, 0, tile_geometry(p, size), size) for p in places])
    queries, truths = [], []
    for _ in range(count):
        place = places[int(rng.integers(len(places)))]
        geometry, (east, north) = drone_geometry(place, size, recipe.views, rng)
        queries.append(cut_patch(place, len(ground.dates) - 1, geometry, size))
        truths.append((place.x_m + east * footprint, place.y_m - north * footprint))
    strength = recipe.views.photometric * (0.4 if len(ground.dates) > 1 else 0.8)
    changed = photometric(
        torch.from_numpy(np.stack(queries)).float(),
        torch.full((len(queries),), strength),
        int(rng.integers(1 << 62)),
    )
    return ValidationRegion(
        ground.name,
        ground.source,
        footprint,
        tiles,
        np.asarray(centers, np.float32) / np.float32(footprint),
        changed.round().to(torch.uint8).numpy(),
        np.asarray(truths, np.float32) / np.float32(footprint),
    )


def embed(
    encoder: Encoder, images: Images, mean: tuple[float, ...], std: tuple[float, ...]
) -> Floats:
    """Embed images (N, S, S, 3) uint8 in batches; return (N, D) float32."""
    device = next(encoder.parameters()).device
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            batch = torch.from_numpy(images[start : start + _BATCH]).to(device)
            parts.append(encoder(normalise(batch, mean, std)).cpu().numpy())
    return np.concatenate(parts)


def validate(
    regions: list[ValidationRegion], embed_images: Callable[[Images], Floats]
) -> GroundValidation:
    """Search every query in its own region's gallery.

    Args:
        regions: from `validation_regions`.
        embed_images: (N, S, S, 3) uint8 to (N, D) float32, L2-normalised.
    """
    hits: dict[int, list[npt.NDArray[np.bool_]]] = {1: [], 5: [], 10: []}
    errors: list[Floats] = []
    by_region = {}
    known, foreign = [], []
    tiles = [embed_images(region.tiles) for region in regions]
    queries = [embed_images(region.queries) for region in regions]
    for i, region in enumerate(regions):
        scores = queries[i] @ tiles[i].T
        distance = np.linalg.norm(region.query_xy[:, None] - region.tile_xy[None], axis=2)
        order = np.argsort(-scores, axis=1)
        ranked = np.take_along_axis(distance, order, axis=1)
        for k, found in hits.items():
            found.append(np.asarray((ranked[:, :k] <= HIT_FOOTPRINTS).any(axis=1)))
        errors.append(ranked[:, 0])
        by_region[f"{region.name} @ {region.footprint_m:.0f} m"] = float(hits[1][-1].mean())
        known.append((scores, distance <= _CALIBRATION_FOOTPRINTS))
        other = next((j for j in _others(i, len(regions)) if _unlike(regions[j], region)), None)
        if other is not None:
            foreign.append(queries[other] @ tiles[i].T)
    temperature, unknown_score = calibrate(known, foreign)
    best = np.concatenate([scores.max(axis=1) for scores in foreign]) if foreign else np.zeros(0)
    return GroundValidation(
        {k: float(np.concatenate(found).mean()) for k, found in hits.items()},
        float(np.median(np.concatenate(errors))),
        temperature,
        unknown_score,
        float((best < unknown_score).mean()) if len(best) else 0.0,
        by_region,
    )


def _others(index: int, count: int) -> list[int]:
    return [(index + step) % count for step in range(1, count)]


def _unlike(first: ValidationRegion, second: ValidationRegion) -> bool:
    """Whether two regions surely share no ground: photos of one flight may."""
    return first.source != second.source or first.name.startswith("landscape")


def calibrate(
    known: list[tuple[Floats, npt.NDArray[np.bool_]]], foreign: list[Floats]
) -> tuple[float, float]:
    """Return the temperature and the rival's score that make what was seen most likely.

    A view of known ground should give its probability to the tiles near the truth, a view of
    foreign ground to the rival. Without foreign views the rival scores 0.
    """
    rivals = _UNKNOWN_SCORES if foreign else np.zeros(1)
    best = (-np.inf, 0.0, 0.0)
    for temperature in _TEMPERATURES:
        near = np.concatenate([_log_sum(s, temperature, mask) for s, mask in known])
        total = np.concatenate([_log_sum(s, temperature) for s, _ in known])
        outside = [_log_sum(s, temperature) for s in foreign]
        total_outside = np.concatenate(outside) if outside else np.zeros(0)
        seen = np.isfinite(near)
        for rival in rivals:
            weight = rival / temperature
            likelihood = (near[seen] - np.logaddexp(total[seen], weight)).mean()
            if len(total_outside):
                likelihood += (weight - np.logaddexp(total_outside, weight)).mean()
            best = max(best, (float(likelihood), float(temperature), float(rival)))
    return best[1], best[2]


def _log_sum(
    scores: Floats, temperature: float, mask: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.float64]:
    """Return log(sum(exp(score / temperature))) of each row, over the masked tiles."""
    logits = scores.astype(np.float64) / temperature
    if mask is not None:
        logits = np.where(mask, logits, -np.inf)
    return np.asarray(np.logaddexp.reduce(logits, axis=1), np.float64)
