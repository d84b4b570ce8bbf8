"""A level's embedded blocks become its sections: codes along a Hilbert curve, and their graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .columns import deflate, encode_column
from .dims import GRAPH_DIMS
from .distinct import distinct
from .embed import Bytes
from .format import Buffer, Container
from .graph import assemble, build_graph
from .links import encode_graph
from .manifest import LevelRecord
from .nearby import Nearby
from .probes import Probes, share_found
from .projection import Projection
from .quantise import Codes, Floats32, dequantise, inverse_lengths, quantise
from .search import Ids, LevelSearch
from .tiling import Cells, Lattice, hilbert_order
from .tuning import EXACT, SearchPlan, Trial

# A sample holds at most every third row and column, and its tiles overlap by a quarter.
_MAX_STEP, _SAMPLE_SPACING = 3, 0.75


class LevelTiles:
    """All embedded tiles of a level, block after block, read from where the build keeps them.

    One block at a time is held, however many there are.

    Attributes:
        lattice: the level's.
    """

    def __init__(
        self, lattice: Lattice, blocks: Callable[[], Iterator[Container]], dim: int
    ) -> None:
        """Take what yields the verified blocks, again and again, and the embeddings' length."""
        self.lattice = lattice
        self._blocks, self._dim = blocks, dim

    @cached_property
    def cells(self) -> Cells:
        """The cell of each tile, (N,)."""
        parts = [np.array(np.frombuffer(b.section("cells"), "<u4")) for b in self._blocks()]
        return np.concatenate([np.empty(0, np.uint32), *parts]).astype(np.uint32)

    def bytes(self, name: str) -> Bytes:
        """Return the column `variants` or `detail`, (N,) uint8."""
        # Copied: what is kept of a block keeps all of it in memory.
        parts = [np.array(np.frombuffer(b.section(name), np.uint8)) for b in self._blocks()]
        return np.concatenate([np.empty(0, np.uint8), *parts])

    def parts(self) -> Iterator[Floats32]:
        """Yield the embeddings (n, D) of one block after the other."""
        for block in self._blocks():
            values = np.frombuffer(block.section("embeddings"), "<f2").reshape(-1, self._dim)
            if len(values):
                yield values.astype(np.float32)


@dataclass(frozen=True)
class PackedTiles:
    """The tiles of a level as a pack holds them, along the Hilbert curve (`hilbert_order`).

    Attributes:
        lattice: the level's.
        cells: (N,) uint32, the cell of each tile.
        variants: (N,) uint8, which of the pack's variants each is.
        detail: (N,) uint8, how much there is to see in each.
        codes: (N, dims) int8, their vectors.
    """

    lattice: Lattice
    cells: Cells
    variants: Bytes
    detail: Bytes
    codes: Codes


@dataclass(frozen=True)
class PackedLevel:
    """A level, ready to be written.

    Attributes:
        values: what the manifest says of it (`level_record`); `found` is None.
        sections: its content.
        search: its vectors and its graph.
    """

    values: dict[str, Any]
    sections: dict[str, Buffer]
    search: LevelSearch


def finish_level(
    tiles: LevelTiles,
    projection: Projection,
    probes: Probes,
    folder: Path,
    variants: int,
    links: int,
    graph_min_vectors: int,
    advance: Callable[[int], None],
) -> tuple[dict[str, Any], dict[str, Buffer]]:
    """Return what the manifest says of a level, and its sections.

    Args:
        tiles: everything embedded.
        projection: of embeddings to vectors.
        probes: to measure what the finished level finds.
        folder: for large temporary files.
        variants: how many the pack has.
        links: wanted per node of a sample's graph; half as many where all tiles are linked.
        graph_min_vectors: with fewer distinct vectors there is no graph.
        advance: told how many vectors are linked.

    Raises:
        S4GError: the disk is full or hnswlib failed.
    """
    order = hilbert_order(tiles.lattice, tiles.cells)
    packed = PackedTiles(
        tiles.lattice,
        tiles.cells[order],
        tiles.bytes("variants")[order],
        tiles.bytes("detail")[order],
        _codes(tiles, projection, order),
    )
    views = projection.apply(probes.embeddings)

    def share(ids: Ids) -> float:
        east, north = tiles.lattice.centers_m(packed.cells[ids])
        return share_found(probes, east, north, tiles.lattice.footprint_m)

    made = pack_level(packed, folder, variants, links, graph_min_vectors, advance, views, share)
    found = round(share(made.search.search(views, 1)[0][:, 0]), 4) if len(views) else None
    return {**made.values, "found": found}, made.sections


def pack_level(
    tiles: PackedTiles,
    folder: Path,
    variants: int,
    links: int,
    graph_min_vectors: int,
    advance: Callable[[int], None],
    views: Floats32 | None = None,
    share: Callable[[Ids], float] | None = None,
) -> PackedLevel:
    """Link the tiles of a level, choose how it is searched, and make its sections.

    Args:
        tiles: all of them.
        folder: for large temporary files.
        variants: how many the pack has.
        links: wanted per node of a sample's graph; half as many where all tiles are linked.
        graph_min_vectors: with fewer distinct vectors there is no graph.
        advance: told how many vectors are linked.
        views: (P, D) float32, vectors of trial views to choose the search by, and
        share: what share of them the tiles (P,) found for them are right for; where there are
            none, disturbed tiles stand in.

    Raises:
        S4GError: the disk is full or hnswlib failed.
    """
    first, vector_of_tile = distinct(tiles.codes)
    codes = tiles.codes[first] if len(first) < len(tiles.codes) else tiles.codes
    shared = None if len(first) == len(tiles.cells) else vector_of_tile.astype(np.uint32)
    search, plan, links_of = LevelSearch(codes, inverse_lengths(codes), shared), EXACT, None
    linked = 0

    def count(steps: int) -> None:
        nonlocal linked
        linked += steps
        advance(steps)

    if len(codes) >= graph_min_vectors:
        kinds = tiles.variants if variants > 1 else None
        nearby = Nearby(tiles.lattice, tiles.cells, kinds, variants)
        trial = Trial(search, views, share)
        search, plan, links_of = _thin(
            search, nearby, trial, folder, links, graph_min_vectors, count
        )
    advance(len(tiles.cells) - linked)
    sections: dict[str, Buffer] = {
        "cells": encode_column(tiles.cells),
        "detail": deflate(tiles.detail.tobytes()),
        "codes": np.ascontiguousarray(codes).data.cast("B"),
    }
    if variants > 1:
        sections["variants"] = deflate(tiles.variants.tobytes())
    if shared is not None:
        sections["vectors"] = encode_column(shared)
    if search.sample is not None:
        sections["sample"] = encode_column(search.sample.astype(np.uint32))
    if links_of is not None:
        sections["graph"] = links_of
    values = {
        "count": len(tiles.cells),
        "vectors": len(codes),
        "search": asdict(plan),
        "found": None,
    }
    return PackedLevel(values, sections, search)


def level_record(lattice: Lattice, values: Mapping[str, Any]) -> LevelRecord:
    """Return what `finish_level` told, as the manifest holds it."""
    return LevelRecord(
        lattice, values["count"], values["vectors"], SearchPlan(**values["search"]), values["found"]
    )


def _codes(tiles: LevelTiles, projection: Projection, order: np.ndarray[Any, Any]) -> Codes:
    """Return the codes of all tiles, (N, dims) int8, in an order (N,)."""
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    codes = np.empty((len(order), projection.dims), np.int8)
    start = 0
    for part in tiles.parts():
        codes[place[start : start + len(part)]] = quantise(projection.apply(part))
        start += len(part)
    return codes


def _thin(
    search: LevelSearch,
    nearby: Nearby,
    trial: Trial,
    folder: Path,
    links: int,
    graph_min_vectors: int,
    advance: Callable[[int], None],
) -> tuple[LevelSearch, SearchPlan, bytes | None]:
    """Return a faster search that finds enough, its plan, and the section of its graph, if any."""
    lattice = nearby.lattice
    widest = min(_MAX_STEP, int(_SAMPLE_SPACING * lattice.footprint_m / lattice.stride_m + 1e-9))
    for step in range(widest, 1, -1):
        chosen = nearby.sample(step)
        if search.vector_of_tile is not None:
            chosen = search.vector_of_tile[chosen].astype(np.int64)
        sample = np.unique(chosen)
        thin = _sampled(search, nearby, sample, step)
        if found := trial.sample(thin, step):
            if len(sample) >= graph_min_vectors:
                linked, section = _link(thin, folder, links, advance)
                if plan := trial.graph(linked, step):
                    return dataclasses.replace(linked, ef=plan.ef), plan, section
            return thin, found, None
    linked, section = _link(search, folder, links, advance)
    if plan := trial.graph(linked, 1):
        return dataclasses.replace(linked, ef=plan.ef), plan, section
    return search, EXACT, None


def _sampled(search: LevelSearch, nearby: Nearby, sample: Ids, step: int) -> LevelSearch:
    return dataclasses.replace(search, sample=sample, nearby=nearby, reach=step - 1)


def _link(
    search: LevelSearch, folder: Path, links: int, advance: Callable[[int], None]
) -> tuple[LevelSearch, bytes]:
    """Return the search with a graph over its sample, and the graph's section."""
    codes, m = search.codes, max(2, links // 2)  # many nodes: each link is paid for by all tiles
    if search.sample is not None:
        codes, m = codes[search.sample], links
    dims = min(GRAPH_DIMS, codes.shape[1])
    graph = build_graph(
        lambda start, stop: dequantise(codes[start:stop], dims), len(codes), folder, m, advance
    )
    section = encode_graph(graph)
    return dataclasses.replace(search, graph=assemble(graph, codes, dims, folder)), section
