"""What a build is told, and how it tells its progress."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from .graph import M

# Given a description and a total, a context that yields a function to advance a progress bar.
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


def silent(description: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """Show no progress."""
    return nullcontext(lambda steps: None)


@dataclass(frozen=True)
class BuildOptions:
    """What a pack shall be like.

    Attributes:
        min_valid: least share of a tile that must be imagery.
        overview: whether to add a picture of the region.
        dims: length of its vectors; None: the fewest that lose nothing.
        headings: how many headings each tile is embedded at.
        imagery_quality: of the WebP tiles of a pyramid of its imagery, 1 to 100; None: none.
        links: wanted per node of a sample's graph; half as many where all tiles are linked.
        graph_min_vectors: levels with fewer distinct vectors are scanned, not linked; None: as
            many as a scan is fast enough for.
        workers: threads that read imagery; no part of the result.
    """

    min_valid: float = 0.6
    overview: bool = True
    dims: int | None = None
    headings: int = 1
    imagery_quality: int | None = None
    links: int = M
    graph_min_vectors: int | None = None
    workers: int = 2
