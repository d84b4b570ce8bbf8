from __future__ import annotations

import dataclasses
from pathlib import Path

import hnswlib
import numpy as np
import pytest

from s4g.core.errors import S4GError
from s4g.tilepacks import graph as graph_module
from s4g.tilepacks.graph import EF_CONSTRUCTION, Graph, M, assemble, build_graph


def unit_vectors(count: int, dim: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return unit_vectors(3000, 16)


@pytest.fixture(scope="module")
def graph(vectors: np.ndarray) -> Graph:
    return build_graph(vectors)


def test_same_vectors_give_the_same_graph(vectors: np.ndarray, graph: Graph) -> None:
    again = build_graph(vectors)
    assert again.entry == graph.entry
    for name in ("levels", "degrees", "links"):
        assert (getattr(again, name) == getattr(graph, name)).all()


def test_assembled_index_is_byte_for_byte_what_hnswlib_writes_but_for_the_order_of_links(
    tmp_path: Path, vectors: np.ndarray, graph: Graph
) -> None:
    own = hnswlib.Index(space="ip", dim=16)
    own.init_index(len(vectors), M=M, ef_construction=EF_CONSTRUCTION, random_seed=100)
    own.add_items(vectors, np.arange(len(vectors)), num_threads=1)
    own.save_index(str(tmp_path / "own"))
    assemble(graph, vectors).save_index(str(tmp_path / "ours"))
    theirs, ours = (tmp_path / "own").read_bytes(), (tmp_path / "ours").read_bytes()
    assert len(ours) == len(theirs)
    assert ours[:96] == theirs[:96]
    assert build_graph(vectors).links.tobytes() == graph.links.tobytes()


def test_assembled_index_answers_like_the_one_that_was_built(
    vectors: np.ndarray, graph: Graph
) -> None:
    own = hnswlib.Index(space="ip", dim=16)
    own.init_index(len(vectors), M=M, ef_construction=EF_CONSTRUCTION, random_seed=100)
    own.add_items(vectors, np.arange(len(vectors)), num_threads=1)
    ours = assemble(graph, vectors)
    queries = unit_vectors(50, 16, seed=1)
    for index in (own, ours):
        index.set_ef(50)
    theirs = own.knn_query(queries, k=5, num_threads=1)
    assert (ours.knn_query(queries, k=5, num_threads=1)[0] == theirs[0]).all()


@pytest.mark.parametrize("count", [1, 2, 30])
def test_tiny_graphs_work(count: int) -> None:
    vectors = unit_vectors(count, 8)
    index = assemble(build_graph(vectors), vectors)
    assert index.knn_query(vectors, k=1)[0][:, 0].tolist() == list(range(count))


def test_links_ascend_within_a_list(graph: Graph) -> None:
    start = 0
    for degree in graph.degrees.tolist():
        neighbours = graph.links[start : start + degree].astype(int)
        assert (np.diff(neighbours) > 0).all()
        start += degree


def _with(graph: Graph, name: str, index: int, value: int) -> Graph:
    array = getattr(graph, name).copy()
    array[index] = value
    return dataclasses.replace(graph, **{name: array})


def test_link_to_a_node_that_does_not_exist_is_refused(graph: Graph) -> None:
    with pytest.raises(ValueError, match="^its graph links to a node that does not exist$"):
        _with(graph, "links", 5, 3000).check()


def test_link_to_a_node_below_its_level_is_refused(graph: Graph) -> None:
    upper = int(np.flatnonzero((graph.list_levels > 0) & (graph.degrees > 0))[0])
    low = int(np.flatnonzero(graph.levels == 0)[0])
    at = int(graph.degrees[:upper].sum(dtype=int))
    with pytest.raises(
        ValueError, match="^its graph links to a node that is absent from that level$"
    ):
        _with(graph, "links", at, low).check()


def test_list_that_is_too_long_is_refused(graph: Graph) -> None:
    with pytest.raises(ValueError, match="^its graph has a node with too many links$"):
        _with(graph, "degrees", 0, 2 * M + 1).check()


def test_links_that_do_not_fill_their_lists_are_refused(graph: Graph) -> None:
    with pytest.raises(ValueError, match="^its graph has more or fewer links than its lists hold$"):
        dataclasses.replace(graph, links=graph.links[:-1]).check()


def test_entry_below_the_top_is_refused(graph: Graph) -> None:
    low = int(np.flatnonzero(graph.levels == 0)[0])
    for entry in (low, 3000):
        with pytest.raises(ValueError, match="^its graph starts at a node that is not at the top$"):
            dataclasses.replace(graph, entry=entry).check()


def test_levels_that_do_not_fit_the_lists_are_refused(graph: Graph) -> None:
    low = int(np.flatnonzero(graph.levels == 0)[0])
    with pytest.raises(ValueError, match="^its graph has lists for other nodes than it has$"):
        _with(graph, "levels", low, 1).check()


@pytest.mark.parametrize("m", [0, 1, 101])
def test_impossible_number_of_links_per_node_is_refused(graph: Graph, m: int) -> None:
    with pytest.raises(ValueError, match="impossible number of links per node$"):
        dataclasses.replace(graph, m=m).check()


def test_file_that_hnswlib_wrote_badly_is_an_error_not_a_graph(
    monkeypatch: pytest.MonkeyPatch, vectors: np.ndarray
) -> None:
    class Broken(hnswlib.Index):
        def save_index(self, path: str) -> None:  # as on a full disk: silent, and short
            Path(path).write_bytes(b"\0" * 1000)

    monkeypatch.setattr(hnswlib, "Index", Broken)
    with pytest.raises(
        S4GError, match=r"^hnswlib wrote an index of an unknown layout \(unexpected header\)$"
    ):
        build_graph(vectors[:50])


def test_image_that_hnswlib_refuses_is_an_error(
    monkeypatch: pytest.MonkeyPatch, vectors: np.ndarray, graph: Graph
) -> None:
    whole = graph_module._image_from_graph
    monkeypatch.setattr(graph_module, "_image_from_graph", lambda *args: whole(*args)[:-4])
    with pytest.raises(S4GError, match="^hnswlib cannot load the graph "):
        assemble(graph, vectors)
