"""Views of the region as a camera would have them, to measure how well a pack is found.

A probe is a place that no tile's centre was chosen for, seen with the errors of telemetry and in
other light (core/views.py), and embedded: what it finds is known to be right or wrong by where it
was taken. Only the build knows that; the drone has frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.engine import Engine
from ..core.geo import Floats, LocalFrame
from ..core.ground import GroundSource, GroundWindow
from ..core.views import PLACE_FACTOR, camera_view
from .embed import BATCH, checked_embed
from .quantise import Floats32
from .tiling import Cells, Lattice

# Where a graph may be used more are needed: a few in a thousand are not told from nothing by fewer.
COUNT, COUNT_LINKED = 256, 1024
_SEED = 3
_MIN_VALID = 0.9


@dataclass(frozen=True)
class Probes:
    """Embedded views and where they were taken.

    Attributes:
        embeddings: (P, D) float32.
        east_m: (P,) metres in the pack's frame.
        north_m: the same.
    """

    embeddings: Floats32
    east_m: Floats
    north_m: Floats


def make_probes(
    layers: Sequence[GroundSource],
    frame: LocalFrame,
    lattice: Lattice,
    cells: Cells,
    engine: Engine,
    count: int = COUNT,
) -> Probes:
    """Look at places around tiles (N,) of a level, anywhere within half a stride of a centre."""
    rng = np.random.default_rng(_SEED)
    chosen = rng.choice(cells, min(count, len(cells)), replace=False)
    east, north = lattice.centers_m(chosen)
    east = east + rng.uniform(-0.5, 0.5, len(chosen)) * lattice.stride_m
    north = north + rng.uniform(-0.5, 0.5, len(chosen)) * lattice.stride_m
    side_px = round(PLACE_FACTOR * lattice.input_px)
    half_m = side_px * lattice.gsd_m / 2
    views, kept = [], []
    for number in range(len(chosen)):
        window = GroundWindow(
            east[number] - half_m, north[number] + half_m, lattice.gsd_m, side_px, side_px
        )
        image = layers[number % len(layers)].read(frame, window)
        if image.valid.mean() >= _MIN_VALID:
            views.append(camera_view(image.rgb, lattice.input_px, rng))
            kept.append(number)
    dim = engine.spec.embedding_dim
    batches = (np.stack(views[i : i + BATCH]) for i in range(0, len(views), BATCH))
    parts = [checked_embed(engine, batch) for batch in batches]
    return Probes(np.concatenate([np.empty((0, dim), np.float32), *parts]), east[kept], north[kept])


def share_found(probes: Probes, east_m: Floats, north_m: Floats, footprint_m: float) -> float:
    """Return the share of probes whose best tile lies within a footprint of where they were taken.

    Args:
        probes: P of them.
        east_m: (P,) centres of the tiles found, metres.
        north_m: the same.
        footprint_m: side of the level's tiles.
    """
    away = np.hypot(east_m - probes.east_m, north_m - probes.north_m)
    return float((away <= footprint_m).mean()) if len(away) else 1.0
