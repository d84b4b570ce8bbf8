"""The search graph (HNSW) of a level: built by hnswlib, kept as links only, put together at open.

hnswlib's own file holds every vector as 32-bit floats and is not safe to load when damaged: a
wrong link or header crashes the process. A pack therefore stores the links alone (about 30 bytes
per vector instead of several hundred), and every number in them is checked before hnswlib sees a
file image that was made from them here (Malkov and Yashunin, HNSW, 2018).
"""

from __future__ import annotations

import math
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..core.errors import S4GError
from .memory_file import memory_file
from .quantise import Codes, Floats32, dequantise

M = 16  # links per node; only a sample of a level's tiles has any
# Vectors are linked along a curve over the ground: what a new one meets are mostly its neighbours.
# With hnswlib's 200 too few links lead elsewhere, and searches end in a wrong region.
EF_CONSTRUCTION = 400
_SEED = 100
_BATCH = 2000
_ROWS = 65536  # nodes of hnswlib's file that are read or written at once
MAX_LINKS = 100  # per node
MAX_LEVEL = 31  # the highest of 2**31 nodes is 10 for M = 8

# Head of hnswlib 0.8's file: offset_level0, max_elements, count, element bytes, label offset, data
# offset, top level, entry node, max M, max M at level 0, M, level multiplier, ef_construction.
_HEAD = struct.Struct("<6QiI3QdQ")

Words = npt.NDArray[np.uint32]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Graph:
    """Links of a graph; lists come node by node, each node's bottom level first.

    Attributes:
        m: links wanted per node; a list holds at most 2 m at the bottom level, m above.
        entry: node where a search starts, one of the top level.
        levels: (N,) uint8, the top level of every node.
        degrees: (L,) uint8, length of every list; L is the sum of levels + 1.
        links: (sum of degrees,) uint32, neighbours, ascending within a list.
    """

    m: int
    entry: int
    levels: npt.NDArray[np.uint8]
    degrees: npt.NDArray[np.uint8]
    links: Words

    @property
    def list_nodes(self) -> npt.NDArray[np.int64]:
        """The node that each list belongs to, (L,)."""
        return np.repeat(np.arange(len(self.levels)), self.levels.astype(np.int64) + 1)

    @property
    def list_levels(self) -> npt.NDArray[np.int64]:
        """The level of each list, (L,)."""
        first = np.concatenate([[0], np.cumsum(self.levels.astype(np.int64) + 1)[:-1]])
        levels: npt.NDArray[np.int64] = np.arange(len(self.degrees)) - first[self.list_nodes]
        return levels

    def check(self) -> None:
        """Check every number that hnswlib would follow as an address.

        Raises:
            ValueError: the graph is impossible; the message says how.
        """
        count = len(self.levels)
        if count == 0 or not 2 <= self.m <= MAX_LINKS:
            raise ValueError("its graph is empty or has an impossible number of links per node")
        if int(self.levels.max()) > MAX_LEVEL:
            raise ValueError("its graph has a node of an impossible level")
        if self.entry >= count or self.levels[self.entry] != self.levels.max():
            raise ValueError("its graph starts at a node that is not at the top")
        if len(self.degrees) != int(self.levels.astype(np.int64).sum()) + count:
            raise ValueError("its graph has lists for other nodes than it has")
        list_levels = self.list_levels
        if (self.degrees > np.where(list_levels == 0, 2 * self.m, self.m)).any():
            raise ValueError("its graph has a node with too many links")
        if len(self.links) != int(self.degrees.sum(dtype=np.int64)):
            raise ValueError("its graph has more or fewer links than its lists hold")
        if len(self.links) and int(self.links.max()) >= count:
            raise ValueError("its graph links to a node that does not exist")
        levels = np.repeat(list_levels.astype(np.uint8), self.degrees)  # at most MAX_LEVEL
        if (self.levels[self.links] < levels).any():
            raise ValueError("its graph links to a node that is absent from that level")


def build_graph(
    rows: Callable[[int, int], Floats32],
    count: int,
    folder: Path,
    m: int = M,
    advance: Callable[[int], None] = lambda steps: None,
) -> Graph:
    """Build the graph of distinct unit vectors, on one thread, so that same in is same out.

    Args:
        rows: returns the vectors `start` to `stop`, (stop - start, D) float32.
        count: how many vectors there are.
        folder: where hnswlib's file may lie for a moment; it is as large as the vectors.
        m: links wanted per node.
        advance: told how many vectors are linked.

    Raises:
        S4GError: the disk is full, or hnswlib wrote a file of an unknown layout.
    """
    import hnswlib

    dim = rows(0, 1).shape[1]
    index = hnswlib.Index(space="ip", dim=dim)
    index.init_index(max_elements=count, M=m, ef_construction=EF_CONSTRUCTION, random_seed=_SEED)
    for start in range(0, count, _BATCH):
        stop = min(start + _BATCH, count)
        index.add_items(rows(start, stop), np.arange(start, stop), num_threads=1)
        advance(stop - start)
    with tempfile.TemporaryDirectory(prefix=".graph.", dir=folder) as scratch:
        path = Path(scratch) / "index"
        index.save_index(str(path))  # reports no error: the checks below do
        wanted = index.index_file_size()
        del index  # its vectors and the file's are not held at once
        if path.stat().st_size != wanted:
            raise S4GError(f"{folder}: cannot write the graph; free some space and go on")
        try:
            with path.open("rb") as file:
                return _read_image(file, m, count, dim)
        except (ValueError, struct.error, IndexError) as error:
            raise S4GError(f"hnswlib wrote an index of an unknown layout ({error})") from error


def assemble(graph: Graph, codes: Codes, dims: int, folder: Path | None = None) -> Any:
    """Return an `hnswlib.Index` (inner product) of a graph and its vectors.

    The only door to hnswlib's loader: the graph is checked here, whoever made it.

    Args:
        graph: of any origin.
        codes: (N, D) int8.
        dims: how many leading dimensions the graph is to know; they are scaled to length one.
        folder: where hnswlib's file may lie for a moment; None: in memory.

    Raises:
        ValueError: the graph is impossible, or of another number of vectors.
        S4GError: hnswlib refuses the image.
    """
    import hnswlib

    graph.check()
    if len(graph.levels) != len(codes):
        raise ValueError("its graph is of another number of vectors")
    index = hnswlib.Index(space="ip", dim=dims)
    try:
        with memory_file(folder) as path:
            _write_image(path, graph, codes, dims)
            index.load_index(str(path), max_elements=len(codes))
    except RuntimeError as error:
        raise S4GError(f"hnswlib cannot load the graph ({error})") from error
    index.set_num_threads(1)
    return index


def _head(graph_m: int, entry: int, top: int, count: int, dim: int) -> bytes:
    links_bytes = 4 + 4 * 2 * graph_m
    vector_bytes = 4 * dim
    return _HEAD.pack(
        0,
        count,
        count,
        links_bytes + vector_bytes + 8,
        links_bytes + vector_bytes,
        links_bytes,
        top,
        entry,
        graph_m,
        2 * graph_m,
        graph_m,
        1 / math.log(graph_m),
        EF_CONSTRUCTION,
    )


def _read_image(file: BinaryIO, m: int, count: int, dim: int) -> Graph:
    """Read the links out of hnswlib's file; labels must be the order of insertion.

    The vectors among them are most of it: it is read in pieces, not mapped.
    """
    head = file.read(_HEAD.size)
    fields = _HEAD.unpack(head)
    top, entry = fields[6], fields[7]
    if head != _head(m, entry, top, count, dim):
        raise ValueError("unexpected header")
    width = 1 + 2 * m + dim + 2
    bottom_degrees, rows = np.empty(count, np.uint8), []
    for start in range(0, count, _ROWS):
        nodes = min(_ROWS, count - start)
        piece = np.fromfile(file, "<u4", nodes * width).reshape(nodes, width)
        if (piece[:, -2] != np.arange(start, start + nodes)).any():
            raise ValueError("unexpected labels")
        if int(piece[:, 0].max()) > 2 * m:
            raise ValueError("unexpected number of links")
        bottom_degrees[start : start + nodes] = piece[:, 0]
        rows.append(_ascending(piece[:, 1 : 1 + 2 * m], piece[:, 0]))
    upper = np.fromfile(file, "<u4")
    nodes_above, places = _upper_lists(upper, m, count)
    levels = np.bincount(nodes_above, minlength=count)
    # Every node's lists in turn, the bottom one first.
    first = np.arange(count) + np.cumsum(levels) - levels
    rank = np.arange(len(nodes_above)) - (np.cumsum(levels) - levels)[nodes_above]
    own = first[nodes_above] + 1 + rank
    degrees = np.empty(count + len(nodes_above), np.uint8)
    degrees[first] = bottom_degrees
    degrees[own] = upper[places]
    links = np.empty(int(degrees.sum(dtype=np.int64)), np.uint32)
    is_upper = np.zeros(len(degrees), np.bool_)
    is_upper[own] = True
    is_upper = np.repeat(is_upper, degrees)
    links[is_upper] = _ascending(upper[places[:, None] + 1 + np.arange(m)], degrees[own])
    at = 0
    places_below = np.flatnonzero(~is_upper)
    for part in rows:
        links[places_below[at : at + len(part)]] = part
        at += len(part)
    return Graph(m, entry, levels.astype(np.uint8), degrees, links)


def _upper_lists(upper: Words, m: int, count: int) -> tuple[Indices, Indices]:
    """Return the node of each list above the bottom level, and where the list begins."""
    nodes: list[int] = []
    places: list[int] = []
    written = np.flatnonzero(upper)  # nodes of the bottom level alone are one zero word each
    node = at = 0
    while (index := int(np.searchsorted(written, at))) < len(written):
        found = int(written[index])
        node += found - at
        size = int(upper[found]) // 4
        if size % (1 + m):
            raise ValueError("unexpected length of a list")
        nodes += [node] * (size // (1 + m))
        places += range(found + 1, found + 1 + size, 1 + m)
        node, at = node + 1, found + 1 + size
    if node + len(upper) - at != count:
        raise ValueError("unexpected length")
    return np.array(nodes, np.int64), np.array(places, np.int64)


def _ascending(rows: Words, degrees: npt.NDArray[np.integer[Any]]) -> Words:
    """Return the first `degrees` of each row, ascending, one row after the other."""
    filled = np.arange(rows.shape[1]) < degrees[:, None]
    return np.sort(np.where(filled, rows, np.uint32(0xFFFFFFFF)), axis=1)[filled]


def _write_image(path: Path, graph: Graph, codes: Codes, dim: int) -> None:
    """Write the file that hnswlib would have written for these links and vectors, in pieces."""
    count, m = len(codes), graph.m
    levels = graph.levels.astype(np.int64)
    first = np.arange(count) + np.cumsum(levels) - levels  # each node's bottom list
    ends = np.cumsum(graph.degrees, dtype=np.int64)
    with path.open("wb") as file:
        file.write(_head(m, graph.entry, int(levels.max()), count, dim))
        for start in range(0, count, _ROWS):
            part = first[start : start + _ROWS]
            piece = np.zeros((len(part), 1 + 2 * m + dim + 2), "<u4")
            piece[:, 0] = graph.degrees[part]
            _spread(piece[:, 1 : 1 + 2 * m], graph, part, ends)
            piece[:, 1 + 2 * m : -2] = dequantise(codes[start : start + _ROWS], dim).view("<u4")
            piece[:, -2] = np.arange(start, start + len(part))
            file.write(piece.data)
        file.write(_upper_words(graph, ends).data)


def _upper_words(graph: Graph, ends: Indices) -> Words:
    """Return what hnswlib's file holds of the lists above the bottom, after its vectors."""
    levels, width = graph.levels.astype(np.int64), 1 + graph.m
    sizes = 1 + levels * width
    starts = np.cumsum(sizes) - sizes
    words = np.zeros(int(sizes.sum()), "<u4")
    words[starts] = 4 * levels * width
    upper = np.flatnonzero(graph.list_levels)
    rows = np.zeros((len(upper), width), "<u4")
    rows[:, 0] = graph.degrees[upper]
    _spread(rows[:, 1:], graph, upper, ends)
    at = starts[graph.list_nodes[upper]] + 1 + (graph.list_levels[upper] - 1) * width
    words[at[:, None] + np.arange(width)] = rows
    return words


def _spread(rows: Words, graph: Graph, lists: Indices, ends: Indices) -> None:
    """Write the links of some lists (n,) into rows (n, at least as many as the longest has)."""
    degrees = graph.degrees[lists].astype(np.int64)
    filled = np.arange(rows.shape[1]) < degrees[:, None]
    within = np.arange(int(degrees.sum())) - np.repeat(np.cumsum(degrees) - degrees, degrees)
    rows[filled] = graph.links[np.repeat(ends[lists] - degrees, degrees) + within]
