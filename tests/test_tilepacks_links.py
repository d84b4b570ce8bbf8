from __future__ import annotations

import runpy
import struct
import tracemalloc
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4g.tilepacks.graph import Graph, assemble
from s4g.tilepacks.links import decode_graph, encode_graph

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_vectors.py"))))

_SMALL = toy.codes_of(120, 8)
_SMALL_BYTES = encode_graph(toy.graph_of(_SMALL))
_HEAD = struct.Struct("<8I")


@pytest.mark.parametrize("count", [1, 2, 30, 3000])
def test_graph_survives_the_round_trip(count: int) -> None:
    graph = toy.graph_of(toy.codes_of(count, 8))
    again = decode_graph(encode_graph(graph), len(graph.levels))
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
    again = decode_graph(encode_graph(graph), len(graph.levels))
    assert (again.links == graph.links).all()
    assert (again.degrees == graph.degrees).all()


def test_neighbours_take_few_bytes() -> None:
    graph = toy.graph_of(toy.codes_of(3000, 8))
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
        index = assemble(decode_graph(bytes(data), 120), _SMALL, 8)
    except ValueError:
        return
    # What passes the checks must never take the process down with it.
    index.set_ef(20)
    index.knn_query(toy.unit(20, 8), k=1)


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="^its graph "):
        decode_graph(data, 120)


@given(st.integers(0, len(_SMALL_BYTES) - 1))
def test_graph_that_is_cut_short_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="^its graph "):
        decode_graph(_SMALL_BYTES[:length], 120)


def test_a_graph_of_another_number_of_nodes_is_refused() -> None:
    with pytest.raises(ValueError, match="^its graph is of another number of vectors or links$"):
        decode_graph(_SMALL_BYTES, 121)


def _bomb(field: int, stream: int) -> bytes:
    """Return the graph with one count and one stream that hold a thousand times as much."""
    head = list(_HEAD.unpack_from(_SMALL_BYTES))
    starts = np.cumsum([_HEAD.size, *head[5:]])
    parts = [_SMALL_BYTES[a:b] for a, b in zip(starts[:-1], starts[1:], strict=True)]
    parts[stream] = zlib.compress(bytes(10_000_000), 9)
    head[field] = 10_000_000
    head[5 + stream] = len(parts[stream])
    return _HEAD.pack(*head) + b"".join(parts)


@pytest.mark.parametrize(("field", "stream"), [(3, 1), (4, 2)])
def test_a_stream_that_swells_is_refused_before_it_does(field: int, stream: int) -> None:
    data = _bomb(field, stream)
    tracemalloc.start()
    with pytest.raises(ValueError, match="^its graph "):
        decode_graph(data, 120)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def _planes(data: bytes) -> list[int]:
    count = len(data) // 4
    return [int.from_bytes(data[i::count][:4], "little") for i in range(count)]


def _read_as_the_page_says(data: bytes) -> tuple[int, dict[tuple[int, int], list[int]]]:
    """Return entry node and links by node and level, read with nothing but docs/pack-format.md."""
    nodes, _, entry, lists, total, *sizes = _HEAD.unpack_from(data)
    first, second = 32 + sizes[0], 32 + sizes[0] + sizes[1]
    levels = zlib.decompress(data[32:first])
    lengths = zlib.decompress(data[first:second])
    numbers = _planes(zlib.decompress(data[second : second + sizes[2]]))
    assert (len(levels), len(lengths), len(numbers)) == (nodes, lists, total)
    degrees, rest = iter(lengths), iter(numbers)
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
    graph = toy.graph_of(toy.codes_of(3000, 8))
    entry, links = _read_as_the_page_says(encode_graph(graph))
    assert entry == graph.entry
    flat = [link for neighbours in links.values() for link in neighbours]
    assert flat == graph.links.tolist()
    keys = zip(graph.list_nodes.tolist(), graph.list_levels.tolist(), strict=True)
    assert list(links) == list(keys)
