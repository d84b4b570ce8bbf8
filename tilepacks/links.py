"""Graphs as bytes: sorted neighbours as differences, in as few bytes as each needs."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from .graph import Graph

# Nodes, links per node (m), entry node, lists.
_HEAD = struct.Struct("<IIII")
_MAX_BYTES = 5  # 35 bits hold any difference of two 32-bit numbers and its sign


def encode_graph(graph: Graph) -> bytes:
    """Return a graph as bytes; the layout is in docs/pack-format.md."""
    head = _HEAD.pack(len(graph.levels), graph.m, graph.entry, len(graph.degrees))
    starts, _ = _starts(graph.degrees)
    links = graph.links.astype(np.int64)
    values = np.diff(links, prepend=0) - 1
    nodes = np.repeat(graph.list_nodes, graph.degrees)
    offset = links[starts] - nodes[starts]
    values[starts] = (offset << 1) ^ (offset >> 63)  # zigzag: sign in the lowest bit
    return b"".join([head, graph.levels.tobytes(), graph.degrees.tobytes(), _to_varints(values)])


def decode_graph(data: bytes) -> Graph:
    """Read a graph; whether its links can be followed is for `Graph.check` to say.

    Raises:
        ValueError: the bytes are no graph that can be; the message says how.
    """
    if len(data) < _HEAD.size:
        raise ValueError("its graph is cut short")
    count, m, entry, lists = _HEAD.unpack_from(data)
    if len(data) < _HEAD.size + count + lists:
        raise ValueError("its graph is cut short")
    if count == 0:
        raise ValueError("its graph is empty")
    levels = np.frombuffer(data, np.uint8, count, _HEAD.size)
    degrees = np.frombuffer(data, np.uint8, lists, _HEAD.size + count)
    if lists != int(levels.astype(np.int64).sum()) + count:
        raise ValueError("its graph has lists for other nodes than it has")
    values = _from_varints(np.frombuffer(data, np.uint8, offset=_HEAD.size + count + lists))
    if len(values) != int(degrees.sum(dtype=np.int64)):
        raise ValueError("its graph has more or fewer links than its lists hold")
    starts, lengths = _starts(degrees)
    skeleton = Graph(m, entry, levels, degrees, np.empty(0, np.uint32))
    nodes = np.repeat(skeleton.list_nodes, degrees)
    steps = values + 1
    zigzag = values[starts]
    steps[starts] = nodes[starts] + ((zigzag >> 1) ^ -(zigzag & 1))
    total = np.cumsum(steps)
    before = total[starts] - steps[starts]
    links = total - np.repeat(before, lengths)
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


def _to_varints(values: npt.NDArray[np.int64]) -> bytes:
    """Encode non-negative numbers as LEB128: 7 bits per byte, lowest first, high bit = more."""
    sizes = np.ones(len(values), np.int64)
    for i in range(1, _MAX_BYTES):
        sizes += values >= 1 << (7 * i)
    ends = np.cumsum(sizes)
    out = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    for i in range(_MAX_BYTES):
        more = sizes > i
        low = (values[more] >> (7 * i)) & 0x7F
        out[ends[more] - sizes[more] + i] = low | np.where(sizes[more] > i + 1, 0x80, 0)
    return out.tobytes()


def _from_varints(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    if len(data) == 0:
        return np.empty(0, np.int64)
    ends = np.flatnonzero(data < 0x80)
    if len(ends) == 0 or ends[-1] != len(data) - 1:
        raise ValueError("its graph is cut short")
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1
    if sizes.max() > _MAX_BYTES:
        raise ValueError("its graph holds a number that is too large")
    place = np.arange(len(data)) - np.repeat(starts, sizes)
    parts = (data & 0x7F).astype(np.int64) << (7 * place)
    return np.add.reduceat(parts, starts)
