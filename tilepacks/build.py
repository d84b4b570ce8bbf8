"""From a plan to a pack's content: embed every level, link it, measure how well it is found."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import __version__
from ..core.engine import Engine
from ..core.errors import InputError
from ..core.ground import GroundSource
from .embed import EmbeddedLevel, embed_level
from .graph import assemble, build_graph
from .links import encode_graph
from .manifest import LevelRecord, Manifest
from .overview import make_overview, overview_record
from .plan import Plan
from .quantise import dequantise
from .search import GRAPH_MIN_VECTORS, LevelSearch
from .tiling import Lattice
from .tuning import EXACT, SearchPlan, choose_search

# Given a description and a total, a context that yields a function to advance a progress bar.
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


def silent(description: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """Show no progress."""
    return nullcontext(lambda steps: None)


@dataclass(frozen=True)
class PackContent:
    """A pack before it is a file: its manifest and the bytes of its sections, in file order."""

    manifest: Manifest
    sections: dict[str, bytes]


def build_pack(
    source: GroundSource,
    engine: Engine,
    plan: Plan,
    min_valid: float = 0.6,
    imagery: bool = True,
    progress: Progress = silent,
    graph_min_vectors: int = GRAPH_MIN_VECTORS,
) -> PackContent:
    """Build the content of a pack.

    Args:
        source: the imagery.
        engine: the encoder, the one the plan was made for.
        plan: region and levels.
        min_valid: least share of a tile that must be imagery.
        imagery: whether to add a picture of the region.
        progress: how to show progress.
        graph_min_vectors: levels with fewer distinct vectors are scanned, not linked.

    Raises:
        InputError: a level has no tile with enough imagery.
        S4GError: the source is damaged, or the encoder or hnswlib failed.
    """
    records: list[LevelRecord] = []
    sections: dict[str, bytes] = {}
    for number, lattice in enumerate(plan.lattices):
        with progress(f"level {lattice.footprint_m:g} m: tiles", lattice.count) as advance:
            embedded = embed_level(
                source, plan.frame, plan.region, lattice, engine, min_valid, advance
            )
        if embedded is None:
            raise InputError(
                f"{source.name}: level {lattice.footprint_m:g}: none of {lattice.count} tiles has "
                f"{min_valid:.0%} imagery; lower --min-valid or choose another --bbox"
            )
        search, graph = _link(embedded, lattice, progress, graph_min_vectors)
        count, vectors = len(embedded.cells), len(embedded.codes)
        records.append(LevelRecord(lattice, count, vectors, search))
        sections |= _level_sections(f"level{number}.", embedded, graph)
    overview = overview_record(plan.extent_m, source.gsd_m) if imagery else None
    if overview is not None:
        sections["overview"] = make_overview(source, plan.frame, overview)
    manifest = Manifest(
        tool=f"s4g {__version__}",
        spec=engine.spec,
        source=_public_name(source.name),
        source_gsd_m=source.gsd_m,
        attribution=source.attribution,
        bounds=plan.region,
        frame=plan.frame,
        min_valid=min_valid,
        levels=tuple(records),
        overview=overview,
    )
    return PackContent(manifest, sections)


def _link(
    embedded: EmbeddedLevel, lattice: Lattice, progress: Progress, graph_min_vectors: int
) -> tuple[SearchPlan, bytes | None]:
    """Return how the level is searched, and its graph's bytes where that is by graph."""
    if len(embedded.codes) < graph_min_vectors:
        return EXACT, None
    vectors = dequantise(embedded.codes, embedded.scales)
    with progress(f"level {lattice.footprint_m:g} m: links", len(vectors)) as advance:
        graph = build_graph(vectors, advance)
    index = assemble(graph, vectors)
    search = choose_search(LevelSearch(embedded.codes, embedded.scales, graph=index))
    return search, encode_graph(graph) if search.method == "graph" else None


def _level_sections(prefix: str, embedded: EmbeddedLevel, graph: bytes | None) -> dict[str, bytes]:
    sections = {
        prefix + "cells": embedded.cells.astype("<u4").tobytes(),
        prefix + "codes": embedded.codes.tobytes(),
        prefix + "scales": embedded.scales.astype("<f4").tobytes(),
    }
    if len(embedded.codes) < len(embedded.cells):
        sections[prefix + "vectors"] = np.asarray(embedded.vector_of_tile, "<u4").tobytes()
    if graph is not None:
        sections[prefix + "graph"] = graph
    return sections


def _public_name(name: str) -> str:
    """Return a source's name without the folders it lies in: they are nobody's business."""
    return Path(name).name if Path(name).exists() else name
