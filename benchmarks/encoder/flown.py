"""Whole frames through the runtime's own localiser, with a condition's tiles as its pack."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from condition import STRIDE, Condition, Gallery, Images, Region, Shot
from evaluate import Foreign, Kept
from methods import Method
from metrics import Flown, frame_figures, joined_flown

from s4g.core.engine import Embeddings, Engine
from s4g.core.spec import EncoderSpec
from s4g.runtime.frames import Frame
from s4g.runtime.intrinsics import Lens
from s4g.runtime.pipeline import Finding, Localiser, StageClock
from s4g.runtime.telemetry import Sample
from s4g.tilepacks.reader import Level, Pack


class _Tiles:
    """What the localiser asks of a pack: one level, searched exactly."""

    path = Path("tiles")

    def __init__(self, gallery: Gallery, embedded: Embeddings) -> None:
        """Take the tiles and their embeddings (N, D) float32."""
        side_m, self._embedded = gallery.footprint_m, embedded
        self.levels = (Level(side_m, STRIDE * side_m, 0, len(embedded)),)
        self.east_m, self.north_m = gallery.center_m.T

    def search(
        self, queries: Embeddings, level: int, k: int
    ) -> tuple[npt.NDArray[np.int64], Embeddings]:
        """Return numbers and cosines (B, k), best first."""
        scores = queries @ self._embedded.T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return best, np.take_along_axis(scores, best, axis=1)


class _Encoder:
    """A method as the engine that the localiser asks."""

    backend = "benchmark cpu"

    def __init__(self, method: Method, spec: EncoderSpec) -> None:
        """Take an encoder and its spec."""
        self.name, self.spec, self._prepare = method.name, spec, method.prepare

    def embed(self, images: Images) -> Embeddings:
        """Embed (B, S, S, 3)."""
        return cast(Embeddings, self._prepare(images))

    def close(self) -> None:
        """Hold on to everything: the method goes on."""


def fly(
    condition: Condition, method: Method, pool: list[Foreign], kept: Kept, count: int
) -> dict[str, Any] | None:
    """Return the figures of a condition's frames; `None` where there are none to fly.

    Each map is also shown as many frames of foreign ground, by the rule of `evaluate.answer`.

    Args:
        condition: whose frames fly.
        method: a baseline, which gives no probability, flies none.
        pool: of foreign frames.
        kept: what the method has prepared.
        count: about how many frames.
    """
    if method.spec is None or not any(region.shots for region in condition.regions):
        return None
    engine = _Encoder(method, method.spec)
    least = -(-count // len(condition.regions))
    parts = []
    for region in condition.regions:
        tiles = _Tiles(region.gallery, kept.gallery(method, region.gallery))
        own = _spread([(shot, shot.cluster) for shot in region.shots], least)
        foreign = _spread(_foreign(condition, region, pool), len(own))
        parts.append(_flown(tiles, engine, own, foreign))
    together = joined_flown(parts)
    return {
        "count": len(together.off),
        "clusters": int(together.cluster.max()) + 1,
        "foreign": len(together.foreign_issued),
        "figures": frame_figures(together),
    }


Numbered = list[tuple[Shot, int]]  # frames and their clusters


def _foreign(condition: Condition, region: Region, pool: list[Foreign]) -> Numbered:
    source = region.gallery.source
    others = [of.shots for of in condition.regions if of.gallery.source != source]
    others = others or [of.shots for of in pool if of.source != source]
    return [
        (shot, shot.cluster + 10_000 * number)
        for number, shots in enumerate(others)
        for shot in shots
    ]


def _spread(shots: Numbered, count: int) -> Numbered:
    """Return as many as wanted, evenly from first to last."""
    if len(shots) <= count:
        return shots
    return [shots[row] for row in np.linspace(0, len(shots) - 1, count).round().astype(int)]


def _flown(tiles: _Tiles, engine: Engine, own: Numbered, foreign: Numbered) -> Flown:
    found = [located(tiles, engine, shot) for shot, _ in own]
    return Flown(
        np.array([_off(of, shot) for of, (shot, _) in zip(found, own, strict=True)]),
        np.array([0.0 if of.estimate is None else of.estimate.mass for of in found]),
        np.array([of.reason is None for of in found], np.bool_),
        np.array([cluster for _, cluster in own], np.int64),
        np.array([located(tiles, engine, shot).reason is None for shot, _ in foreign], np.bool_),
        np.array([cluster for _, cluster in foreign], np.int64),
    )


def located(tiles: _Tiles, engine: Engine, shot: Shot) -> Finding:
    """Return what the runtime finds, flying as high as the tiles ask for."""
    scale = tiles.levels[0].footprint_m / shot.footprint_m
    attitude = dataclasses.replace(shot.reported, agl_m=scale * shot.reported.agl_m)
    localiser = Localiser(cast(Pack, tiles), engine, Lens(camera=shot.camera))
    height, width = shot.image.shape[:2]
    frame = Frame(0, None, None, "frame", width, height, 0.0, decoded=shot.image)
    return localiser.find(frame, Sample(attitude), StageClock())


def _off(finding: Finding, shot: Shot) -> float:
    """Return how many footprints the ground in the middle is taken for another place."""
    if finding.estimate is None or finding.plan is None:
        return float("inf")
    east_m, north_m = finding.plan.centers_m[0]
    place = (finding.estimate.east_m + east_m, finding.estimate.north_m + north_m)
    return float(np.hypot(*(place - shot.center_m))) / shot.footprint_m
