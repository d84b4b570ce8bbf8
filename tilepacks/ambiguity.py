"""Where a region will be hard: for each tile, how like it the most similar place elsewhere is.

A drone over a tile is told from all others by the difference between its own tile's score and the
best of any other place. Tiles that overlap show the same ground and are no rivals: those within a
footprint are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..core.geo import Floats
from .quantise import Floats32
from .reader import Pack

_NEIGHBOURS = 1.0  # footprints around a tile that show its own ground
_ROWS = 64  # tiles compared at once
_BLOCK = 65536
# Tiles of a level that are compared with all others; more are sampled evenly along the curve.
MAX_TILES = 20_000


@dataclass(frozen=True)
class Ambiguity:
    """What a level's tiles are mistaken for.

    Attributes:
        tiles: (T,) int64, numbers of the tiles that were compared, ascending.
        east_m: (T,) their centres, metres in the pack's frame.
        north_m: the same.
        cosine: (T,) float32, of the most similar place at least a footprint away.
        rival: (T,) int64, the number of that tile; -1 where there is none.
        away_m: (T,) float64, how far it lies.
    """

    tiles: np.ndarray[tuple[int], np.dtype[np.int64]]
    east_m: Floats
    north_m: Floats
    cosine: Floats32
    rival: np.ndarray[tuple[int], np.dtype[np.int64]]
    away_m: Floats


def find_ambiguity(
    pack: Pack,
    level: int,
    max_tiles: int = MAX_TILES,
    advance: Callable[[int], None] = lambda steps: None,
) -> Ambiguity:
    """Compare tiles of a level with all others of it, exactly.

    Args:
        pack: an open pack.
        level: number of the level.
        max_tiles: compare at most so many, evenly spread.
        advance: told how many tiles are done.

    Raises:
        IntegrityError: a section is damaged or altered.
    """
    search, record = pack.vectors(level), pack.levels[level]
    own = np.unique(np.linspace(0, record.count - 1, min(max_tiles, record.count)).astype(np.int64))
    east = pack.east_m[record.first : record.first + record.count]
    north = pack.north_m[record.first : record.first + record.count]
    cosine = np.full(len(own), -1.0, np.float32)
    rival = np.full(len(own), -1, np.int64)
    reach = _NEIGHBOURS * record.footprint_m
    for start in range(0, len(own), _ROWS):
        rows = own[start : start + _ROWS]
        queries = search.vectors_of(rows)
        for at in range(0, record.count, _BLOCK):
            others = np.arange(at, min(at + _BLOCK, record.count))
            scores = search.scores(queries, others)
            near = np.hypot(
                east[rows][:, None] - east[others], north[rows][:, None] - north[others]
            )
            scores[near < reach] = -1.0
            best = scores.argmax(axis=1)
            found = scores[np.arange(len(rows)), best]
            better = found > cosine[start : start + len(rows)]
            cosine[start : start + len(rows)][better] = found[better]
            rival[start : start + len(rows)][better] = others[best[better]]
        advance(len(rows))
    away = np.where(
        rival >= 0, np.hypot(east[own] - east[rival], north[own] - north[rival]), np.inf
    )
    return Ambiguity(
        own + record.first,
        east[own],
        north[own],
        cosine,
        np.where(rival >= 0, rival + record.first, -1),
        away,
    )
