from __future__ import annotations

import dataclasses
import os
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hnswlib
import numpy as np
import pytest

from s4g.core.errors import S4GError
from s4g.tilepacks import graph as graph_module
from s4g.tilepacks.graph import EF_CONSTRUCTION, Graph, M, assemble
from s4g.tilepacks.quantise import Codes, dequantise

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_vectors.py"))))


@pytest.fixture(scope="module")
def codes() -> Codes:
    return toy.codes_of(3000)


@pytest.fixture(scope="module")
def graph(codes: Codes) -> Graph:
    return toy.graph_of(codes)


def built(codes: Codes, m: int = M) -> hnswlib.Index:
    own = hnswlib.Index(space="ip", dim=codes.shape[1])
    own.init_index(len(codes), M=m, ef_construction=EF_CONSTRUCTION, random_seed=100)
    own.add_items(dequantise(codes), np.arange(len(codes)), num_threads=1)
    return own


def test_same_vectors_give_the_same_graph(codes: Codes, graph: Graph) -> None:
    again = toy.graph_of(codes)
    assert again.entry == graph.entry
    for name in ("levels", "degrees", "links"):
        assert (getattr(again, name) == getattr(graph, name)).all()


def test_assembled_index_is_byte_for_byte_what_hnswlib_writes_but_for_the_order_of_links(
    tmp_path: Path, codes: Codes, graph: Graph
) -> None:
    own = built(codes)
    own.save_index(str(tmp_path / "own"))
    assemble(graph, codes, 16).save_index(str(tmp_path / "ours"))
    theirs, ours = (tmp_path / "own").read_bytes(), (tmp_path / "ours").read_bytes()
    assert len(ours) == len(theirs)
    assert ours[:96] == theirs[:96]
    assert toy.graph_of(codes).links.tobytes() == graph.links.tobytes()


def test_assembled_index_answers_like_the_one_that_was_built(codes: Codes, graph: Graph) -> None:
    own = built(codes)
    ours = assemble(graph, codes, 16)
    queries = toy.unit(50, 16, seed=1)
    for index in (own, ours):
        index.set_ef(50)
    theirs = own.knn_query(queries, k=5, num_threads=1)
    assert (ours.knn_query(queries, k=5, num_threads=1)[0] == theirs[0]).all()


@pytest.mark.parametrize("count", [1, 2, 30])
def test_tiny_graphs_work(count: int) -> None:
    codes = toy.codes_of(count, 8)
    index = assemble(toy.graph_of(codes), codes, 8)
    assert index.knn_query(dequantise(codes), k=1)[0][:, 0].tolist() == list(range(count))


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
    monkeypatch: pytest.MonkeyPatch, codes: Codes
) -> None:
    class Broken(hnswlib.Index):
        def save_index(self, path: str) -> None:  # silent, and wrong
            Path(path).write_bytes(b"\0" * self.index_file_size())

    monkeypatch.setattr(hnswlib, "Index", Broken)
    with pytest.raises(
        S4GError, match=r"^hnswlib wrote an index of an unknown layout \(unexpected header\)$"
    ):
        toy.graph_of(codes[:50])


def test_a_full_disk_is_an_error_not_a_graph(monkeypatch: pytest.MonkeyPatch, codes: Codes) -> None:
    class Full(hnswlib.Index):
        def save_index(self, path: str) -> None:  # hnswlib says nothing of it
            Path(path).write_bytes(b"")

    monkeypatch.setattr(hnswlib, "Index", Full)
    with pytest.raises(S4GError, match="cannot write the graph; free some space and go on$"):
        toy.graph_of(codes[:50])


@pytest.mark.parametrize("m", [4, 8, 16])
def test_links_are_those_of_hnswlib(tmp_path: Path, m: int) -> None:
    codes = toy.codes_of(700, 8, seed=3)
    built(codes, m).save_index(str(tmp_path / "own"))
    words = np.fromfile(tmp_path / "own", "<u4", offset=96)
    width = 1 + 2 * m + 8 + 2
    found, start = toy.graph_of(codes, m), 0
    lists = zip(found.list_nodes, found.list_levels, found.degrees.tolist(), strict=True)
    for node, level, degree in lists:
        if level == 0:
            row = words[node * width : (node + 1) * width]
            assert sorted(row[1 : 1 + row[0]]) == found.links[start : start + degree].tolist()
        start += degree


def test_a_graph_of_leading_dimensions_knows_no_others(codes: Codes) -> None:
    index = assemble(toy.graph_of(codes[:200, :8]), codes[:200], 8)
    assert index.dim == 8
    assert index.knn_query(dequantise(codes[:50], 8), k=1)[0][:, 0].tolist() == list(range(50))


def test_a_node_of_an_impossible_level_is_refused(graph: Graph) -> None:
    with pytest.raises(ValueError, match="^its graph has a node of an impossible level$"):
        _with(graph, "levels", 3, 32).check()


def test_a_graph_of_another_number_of_vectors_is_refused(graph: Graph, codes: Codes) -> None:
    with pytest.raises(ValueError, match="^its graph is of another number of vectors$"):
        assemble(graph, codes[:-1], 16)


def test_image_that_hnswlib_refuses_is_an_error(
    monkeypatch: pytest.MonkeyPatch, codes: Codes, graph: Graph
) -> None:
    whole = graph_module._write_image

    def cut(path: Path, *parts: Any) -> None:
        whole(path, *parts)
        os.truncate(path, path.stat().st_size - 4)

    monkeypatch.setattr(graph_module, "_write_image", cut)
    with pytest.raises(S4GError, match="^hnswlib cannot load the graph "):
        assemble(graph, codes, 16)
