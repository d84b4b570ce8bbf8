"""Graphs as bytes: sorted neighbours as differences, in byte planes, through zlib."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from .columns import deflate, from_planes, inflate, to_planes, unzigzag, zigzag
from .graph import MAX_LEVEL, MAX_LINKS, Graph

# Nodes, links per node (m), entry node, lists, links; then the lengths of the three streams.
_HEAD = struct.Struct("<IIIIIIII")
# Links take about a byte; zeros would swell a thousandfold.
_LINKS_PER_BYTE = 32
_FREE_LISTS = 128  # of a graph of few nodes, one of which may be high up


def encode_graph(graph: Graph) -> bytes:
    """Return a graph as bytes; the layout is in docs/pack-format.md."""
    starts, _ = _starts(graph.degrees)
    links = graph.links.astype(np.int64)
    values = np.diff(links, prepend=0) - 1
    nodes = np.repeat(graph.list_nodes, graph.degrees)
    first = (links[starts] - nodes[starts]).astype(np.int32)
    values[starts] = zigzag(first)
    streams = [
        deflate(graph.levels.tobytes()),
        deflate(graph.degrees.tobytes()),
        deflate(to_planes(values.astype(np.uint32))),
    ]
    head = _HEAD.pack(
        len(graph.levels),
        graph.m,
        graph.entry,
        len(graph.degrees),
        len(graph.links),
        *(len(stream) for stream in streams),
    )
    return b"".join([head, *streams])


def decode_graph(data: bytes | memoryview, nodes: int) -> Graph:
    """Read a graph; whether its links can be followed is for `Graph.check` to say.

    Args:
        data: of `encode_graph`.
        nodes: how many there must be; bounds what is allocated.

    Raises:
        ValueError: the bytes are no graph that can be; the message says how.
    """
    if len(data) < _HEAD.size:
        raise ValueError("its graph is cut short")
    count, m, entry, lists, total, *sizes = _HEAD.unpack_from(data)
    if count != nodes or not 2 <= m <= MAX_LINKS:
        raise ValueError("its graph is of another number of vectors or links")
    if len(data) != _HEAD.size + sum(sizes):
        raise ValueError("its graph is cut short")
    ends = np.cumsum([_HEAD.size, *sizes]).tolist()
    parts = [data[start:stop] for start, stop in zip(ends[:-1], ends[1:], strict=True)]
    try:
        levels = np.frombuffer(inflate(parts[0], count), np.uint8)
        if count and int(levels.max()) > MAX_LEVEL:
            raise ValueError("has a node of an impossible level")
        if total > _LINKS_PER_BYTE * len(data):
            raise ValueError("has more links than its bytes can hold")
        # Twice the nodes is what graphs have; without a bound a few kB would ask for gigabytes.
        if lists > 4 * count + _FREE_LISTS:
            raise ValueError("has more lists than a graph of its nodes can have")
        if lists != int(levels.sum(dtype=np.int64)) + count:
            raise ValueError("has lists for other nodes than it has")
        degrees = np.frombuffer(inflate(parts[1], lists), np.uint8)
        if total != int(degrees.sum(dtype=np.int64)) or (degrees > 2 * m).any():
            raise ValueError("has more or fewer links than its lists hold")
        values = from_planes(inflate(parts[2], 4 * total)).astype(np.int64)
    except ValueError as error:
        raise ValueError(f"its graph {error}") from None
    starts, lengths = _starts(degrees)
    skeleton = Graph(m, entry, levels, degrees, np.empty(0, np.uint32))
    owners = np.repeat(skeleton.list_nodes, degrees)
    steps = values + 1
    steps[starts] = owners[starts] + unzigzag(values[starts].astype(np.uint32))
    sums = np.cumsum(steps)
    before = sums[starts] - steps[starts]
    links = sums - np.repeat(before, lengths)
    if len(links) and (links.min() < 0 or links.max() >= count):
        raise ValueError("its graph links to a node that does not exist")
    return Graph(m, entry, levels, degrees, links.astype(np.uint32))


def _starts(
    degrees: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where each list that is not empty starts among the links, and its length."""
    lengths = degrees.astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return starts[lengths > 0], lengths[lengths > 0]
