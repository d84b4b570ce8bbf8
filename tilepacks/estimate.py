"""What a build will take and cover, tried out before it begins (`s4g-pack --dry-run`)."""

from __future__ import annotations

import math
import statistics
import time

import numpy as np

from ..core.engine import Engine
from ..core.ground import GroundSource, GroundWindow
from .embed import BATCH
from .plan import Plan

_SIDE_PX = 512  # of the look at the region: cheap, and fine enough for a share
_TRIES = 3


def tiles_per_second(engine: Engine) -> float:
    """Return how many tiles the encoder takes in a second here and now, in full batches."""
    side = engine.spec.input_px
    images = np.random.default_rng(0).integers(0, 256, (BATCH, side, side, 3), dtype=np.uint8)
    engine.embed(images)  # the first call prepares what later ones use
    seconds = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        engine.embed(images)
        seconds.append(time.perf_counter() - start)
    return BATCH / statistics.median(seconds)


def covered_km2(source: GroundSource, plan: Plan) -> float:
    """Return how much of the region has imagery, square kilometres, from a coarse look at it.

    Raises:
        S4GError: the source is damaged.
    """
    west, south, east, north = plan.extent_m
    gsd = max(source.gsd_m, max(east - west, north - south) / _SIDE_PX)
    width, height = (max(1, math.ceil(side / gsd)) for side in (east - west, north - south))
    image = source.read(plan.frame, GroundWindow(west, north, gsd, width, height))
    return float(image.valid.mean()) * (east - west) * (north - south) / 1e6
