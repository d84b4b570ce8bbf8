from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4g.tilepacks.graph import Graph, assemble, build_graph
from s4g.tilepacks.links import decode_graph, encode_graph


def _vectors(count: int, dim: int = 8) -> np.ndarray:
    vectors = np.random.default_rng(count).standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


_SMALL = _vectors(120)
_SMALL_BYTES = encode_graph(build_graph(_SMALL))


@pytest.mark.parametrize("count", [1, 2, 30, 3000])
def test_graph_survives_the_round_trip(count: int) -> None:
    graph = build_graph(_vectors(count))
    again = decode_graph(encode_graph(graph))
    assert (again.m, again.entry) == (graph.m, graph.entry)
    for name in ("levels", "degrees", "links"):
        assert (getattr(again, name) == getattr(graph, name)).all()


@st.composite
def _graphs(draw: st.DrawFn) -> Graph:
    """Graphs of arbitrary links at the bottom level, far larger numbers than hnswlib makes."""
    count = draw(st.sampled_from([2, 300, 100_000]))
    lists = draw(st.lists(st.sets(st.integers(0, count - 1), max_size=24), min_size=1, max_size=20))
    degrees = np.zeros(count, np.uint8)
    nodes = sorted(draw(st.permutations(range(min(count, 20))))[: len(lists)])
    links: list[int] = []
    for node, neighbours in zip(nodes, lists, strict=False):
        degrees[node] = len(neighbours)
        links += sorted(neighbours)
    return Graph(12, 0, np.zeros(count, np.uint8), degrees, np.array(links, np.uint32))


@given(_graphs())
def test_any_sorted_links_survive_the_round_trip(graph: Graph) -> None:
    again = decode_graph(encode_graph(graph))
    assert (again.links == graph.links).all()
    assert (again.degrees == graph.degrees).all()


def test_neighbours_take_few_bytes() -> None:
    graph = build_graph(_vectors(3000))
    assert len(encode_graph(graph)) < 2.5 * len(graph.links)


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.integers(0, len(_SMALL_BYTES) - 1), st.integers(0, 255)),
        min_size=1,
        max_size=4,
    )
)
def test_altered_graph_is_refused_or_safe_to_search(changes: list[tuple[int, int]]) -> None:
    data = bytearray(_SMALL_BYTES)
    for place, value in changes:
        data[place] = value
    try:
        index = assemble(decode_graph(bytes(data)), _SMALL)
    except ValueError:
        return
    # What passes the checks must never take the process down with it.
    index.set_ef(20)
    index.knn_query(_SMALL[:20], k=1)


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="^its graph "):
        decode_graph(data)


@given(st.integers(0, len(_SMALL_BYTES) - 1))
def test_graph_that_is_cut_short_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="^its graph "):
        decode_graph(_SMALL_BYTES[:length])


def test_number_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="^its graph holds a number that is too large$"):
        decode_graph(_SMALL_BYTES[:-1] + b"\x80" * 5 + b"\x01")


def _read_as_the_page_says(data: bytes) -> tuple[int, dict[tuple[int, int], list[int]]]:
    """Return entry node and links by node and level, read with nothing but docs/pack-format.md."""
    nodes, _, entry, lists = struct.unpack_from("<IIII", data)
    levels = data[16 : 16 + nodes]
    degrees = iter(data[16 + nodes : 16 + nodes + lists])
    numbers, value, shift = [], 0, 0
    for byte in data[16 + nodes + lists :]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value)
            value = shift = 0
    rest = iter(numbers)
    links: dict[tuple[int, int], list[int]] = {}
    for node, top in enumerate(levels):
        for level in range(top + 1):
            found: list[int] = []
            for _ in range(next(degrees)):
                number = next(rest)
                if found:
                    found.append(found[-1] + number + 1)
                else:
                    found.append(node + (number // 2 if number % 2 == 0 else -(number + 1) // 2))
            links[node, level] = found
    assert next(rest, None) is None and next(degrees, None) is None
    return entry, links


def test_reader_written_from_the_specification_finds_the_same_links() -> None:
    graph = build_graph(_vectors(3000))
    entry, links = _read_as_the_page_says(encode_graph(graph))
    assert entry == graph.entry
    flat = [link for neighbours in links.values() for link in neighbours]
    assert flat == graph.links.tolist()
    keys = zip(graph.list_nodes.tolist(), graph.list_levels.tolist(), strict=True)
    assert list(links) == list(keys)
