"""The search graph (HNSW) of a level: built by hnswlib, kept as links only, put together at open.

hnswlib's own file holds every vector as 32-bit floats and is not safe to load when damaged: a
wrong link or header crashes the process. A pack therefore stores the links alone (about 30 bytes
per vector instead of several hundred), and every number in them is checked before hnswlib sees a
file image that was made from them here (Malkov and Yashunin, HNSW, 2018).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import S4GError
from .memory_file import memory_file
from .quantise import Floats32

M = 12  # links per node: compact, and with EF_CONSTRUCTION 200 as good as M 16
EF_CONSTRUCTION = 200
_SEED = 100
_BATCH = 2000

# Head of hnswlib 0.8's file: offset_level0, max_elements, count, element bytes, label offset, data
# offset, top level, entry node, max M, max M at level 0, M, level multiplier, ef_construction.
_HEAD = struct.Struct("<6QiI3QdQ")

Words = npt.NDArray[np.uint32]


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
        if count == 0 or not 2 <= self.m <= 100:
            raise ValueError("its graph is empty or has an impossible number of links per node")
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
        if (self.levels[self.links] < np.repeat(list_levels, self.degrees)).any():
            raise ValueError("its graph links to a node that is absent from that level")


def build_graph(vectors: Floats32, advance: Callable[[int], None] = lambda steps: None) -> Graph:
    """Build the graph of distinct unit vectors (N, D) float32, one thread, so same in, same out.

    Raises:
        S4GError: hnswlib failed, or wrote a file of an unknown layout.
    """
    import hnswlib

    count, dim = vectors.shape
    index = hnswlib.Index(space="ip", dim=dim)
    index.init_index(max_elements=count, M=M, ef_construction=EF_CONSTRUCTION, random_seed=_SEED)
    for start in range(0, count, _BATCH):
        stop = min(start + _BATCH, count)
        index.add_items(vectors[start:stop], np.arange(start, stop), num_threads=1)
        advance(stop - start)
    with memory_file(b"") as path:
        index.save_index(str(path))  # reports no error: the layout check below does
        image = path.read_bytes()
    try:
        graph = _graph_from_image(image, count, dim)
    except (ValueError, struct.error, IndexError) as error:
        raise S4GError(f"hnswlib wrote an index of an unknown layout ({error})") from error
    return graph


def assemble(graph: Graph, vectors: Floats32) -> Any:
    """Return an `hnswlib.Index` (inner product) of a graph and its vectors (N, D) float32.

    The only door to hnswlib's loader: the graph is checked here, whoever made it.

    Raises:
        ValueError: the graph is impossible, or of another number of vectors.
        S4GError: hnswlib refuses the image.
    """
    import hnswlib

    graph.check()
    if len(graph.levels) != len(vectors):
        raise ValueError("its graph is of another number of vectors")
    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    try:
        with memory_file(_image_from_graph(graph, vectors)) as path:
            index.load_index(str(path), max_elements=len(vectors))
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


def _graph_from_image(image: bytes, count: int, dim: int) -> Graph:
    """Read the links out of hnswlib's file; labels must be the order of insertion."""
    fields = _HEAD.unpack_from(image)
    top, entry = fields[6], fields[7]
    if image[: _HEAD.size] != _head(M, entry, top, count, dim):
        raise ValueError("unexpected header")
    words = np.frombuffer(image, "<u4", offset=_HEAD.size)
    width = 1 + 2 * M + dim + 2
    bottom = words[: count * width].reshape(count, width)
    if (bottom[:, -2] != np.arange(count)).any():
        raise ValueError("unexpected labels")
    upper = words[count * width :].tolist()
    levels: list[int] = []
    degrees: list[int] = []
    links: list[npt.NDArray[np.uint32]] = []
    at = 0
    for node in range(count):
        size = upper[at] // 4
        at += 1
        lists = [bottom[node, : 1 + 2 * M].tolist()]
        lists += [upper[at + i : at + i + 1 + M] for i in range(0, size, 1 + M)]
        at += size
        levels.append(len(lists) - 1)
        for degree, *neighbours in lists:
            degrees.append(degree)
            links.append(np.sort(np.array(neighbours[:degree], np.uint32)))
    if at != len(upper):
        raise ValueError("unexpected length")
    return Graph(
        M,
        entry,
        np.array(levels, np.uint8),
        np.array(degrees, np.uint8),
        np.concatenate(links).astype(np.uint32),
    )


def _image_from_graph(graph: Graph, vectors: Floats32) -> bytes:
    """Return the file that hnswlib would have written for these links and vectors."""
    count, dim = vectors.shape
    width = 1 + 2 * graph.m + dim + 2
    upper_width = 1 + graph.m
    levels = graph.levels.astype(np.int64)
    node_words = 1 + levels * upper_width
    upper_start = count * width + np.concatenate([[0], np.cumsum(node_words)[:-1]])
    words = np.zeros(count * width + int(node_words.sum()), "<u4")
    bottom = words[: count * width].reshape(count, width)
    bottom[:, 1 + 2 * graph.m : -2] = np.ascontiguousarray(vectors, "<f4").view("<u4")
    bottom[:, -2] = np.arange(count)
    words[upper_start] = levels * upper_width * 4
    nodes, list_levels = graph.list_nodes, graph.list_levels
    starts = np.where(
        list_levels == 0,
        nodes * width,
        upper_start[nodes] + 1 + (list_levels - 1) * upper_width,
    )
    words[starts] = graph.degrees
    degrees = graph.degrees.astype(np.int64)
    first = np.concatenate([[0], np.cumsum(degrees)[:-1]])
    within = np.arange(len(graph.links)) - np.repeat(first, degrees)
    words[np.repeat(starts + 1, degrees) + within] = graph.links
    head = _head(graph.m, graph.entry, int(levels.max()), count, dim)
    return head + words.tobytes()
