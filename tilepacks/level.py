"""A level's embedded blocks become its sections: codes along a Hilbert curve, and their graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .columns import deflate, encode_column
from .dims import GRAPH_DIMS
from .distinct import distinct
from .embed import Bytes
from .format import Buffer, Container
from .graph import Graph, assemble, build_graph
from .links import encode_graph
from .manifest import LevelRecord
from .probes import Probes, share_found
from .projection import Projection
from .quantise import Codes, Floats32, dequantise, inverse_lengths, quantise
from .search import LevelSearch
from .tiling import Cells, Lattice, hilbert_order
from .tuning import EXACT, SearchPlan, choose_search


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
        links: wanted per node of the graph.
        graph_min_vectors: with fewer distinct vectors there is no graph.
        advance: told how many vectors are linked.

    Raises:
        S4GError: the disk is full or hnswlib failed.
    """
    order = hilbert_order(tiles.lattice, tiles.cells)
    codes = _codes(tiles, projection, order)
    first, vector_of_tile = distinct(codes)
    codes = codes[first] if len(first) < len(codes) else codes
    inverse = inverse_lengths(codes)
    cells = tiles.cells[order]
    shared = None if len(first) == len(cells) else vector_of_tile.astype(np.uint32)
    search, graph = LevelSearch(codes, inverse, shared), None
    plan, linked = EXACT, 0
    if len(codes) >= graph_min_vectors:
        views = projection.apply(probes.embeddings)
        search, plan, graph = _link(search, views, folder, links, advance)
        linked = len(codes)
    advance(len(cells) - linked)
    sections: dict[str, Buffer] = {
        "cells": encode_column(cells),
        "detail": deflate(tiles.bytes("detail")[order].tobytes()),
        "codes": np.ascontiguousarray(codes).data.cast("B"),
    }
    if variants > 1:
        sections["variants"] = deflate(tiles.bytes("variants")[order].tobytes())
    if shared is not None:
        sections["vectors"] = encode_column(shared)
    if graph is not None:
        sections["graph"] = encode_graph(graph)
    values = {
        "count": len(cells),
        "vectors": len(codes),
        "search": asdict(plan),
        "found": _found(search, tiles.lattice, cells, projection, probes),
    }
    return values, sections


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


def _link(
    search: LevelSearch, views: Floats32, folder: Path, links: int, advance: Callable[[int], None]
) -> tuple[LevelSearch, SearchPlan, Graph | None]:
    """Return the search, how wide it is for trial views, and its graph if that finds enough."""
    codes = search.codes
    dims = min(GRAPH_DIMS, codes.shape[1])
    graph = build_graph(
        lambda start, stop: dequantise(codes[start:stop], dims), len(codes), folder, links, advance
    )
    with_graph = LevelSearch(
        codes, search.inverse, search.vector_of_tile, assemble(graph, codes, dims)
    )
    plan = choose_search(with_graph, views)
    if plan.method != "graph":
        return search, plan, None
    tuned = LevelSearch(codes, search.inverse, search.vector_of_tile, with_graph.graph, plan.ef)
    return tuned, plan, graph


def _found(
    search: LevelSearch, lattice: Lattice, cells: Cells, projection: Projection, probes: Probes
) -> float:
    if not len(probes.east_m):
        return 1.0
    ids, _ = search.search(projection.apply(probes.embeddings), 1)
    east, north = lattice.centers_m(cells[ids[:, 0]])
    return round(share_found(probes, east, north, lattice.footprint_m), 4)
