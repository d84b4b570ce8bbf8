from __future__ import annotations

import dataclasses
import runpy
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from s4g.tilepacks import level as level_module
from s4g.tilepacks.columns import decode_column, inflate
from s4g.tilepacks.format import Container, encode_container, open_container
from s4g.tilepacks.level import LevelTiles, finish_level, level_record
from s4g.tilepacks.links import decode_graph
from s4g.tilepacks.probes import Probes
from s4g.tilepacks.projection import Projection
from s4g.tilepacks.quantise import dequantise
from s4g.tilepacks.tiling import Lattice, hilbert_order
from s4g.tilepacks.tuning import EXACT, Trial

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_vectors.py"))))

DIM = 16
LATTICE = Lattice(80.0, 64, 16, 0.0, 0.0, 20, 15)
LARGE = Lattice(80.0, 64, 16, 0.0, 0.0, 60, 50)
NO_PROBES = Probes(np.empty((0, DIM), np.float32), np.empty(0), np.empty(0))


def _block(
    path: Path, cells: npt.NDArray[np.uint32], vectors: npt.NDArray[np.float32]
) -> Container:
    sections = {
        "cells": cells.astype("<u4").tobytes(),
        "variants": (cells % 2).astype(np.uint8).tobytes(),
        "detail": (cells % 251).astype(np.uint8).tobytes(),
        "embeddings": vectors.astype("<f2").tobytes(),
    }
    path.write_bytes(b"".join(encode_container({}, sections)))
    return open_container(path)


def _tiles(
    folder: Path, vectors: npt.NDArray[np.float32], lattice: Lattice = LATTICE
) -> LevelTiles:
    """Return a level of all tiles of a lattice in three blocks, the second of which is empty."""
    cells = np.arange(lattice.count, dtype=np.uint32)
    parts = [cells[:170], cells[:0], cells[170:]]
    blocks = [_block(folder / str(i), part, vectors[part]) for i, part in enumerate(parts)]
    return LevelTiles(lattice, lambda: iter(blocks), DIM)


def _finish(
    folder: Path, vectors: npt.NDArray[np.float32], **given: Any
) -> tuple[dict[str, Any], Mapping[str, Any]]:
    options: dict[str, Any] = {
        "projection": Projection(DIM),
        "probes": NO_PROBES,
        "variants": 1,
        "links": 8,
        "graph_min_vectors": 10_000,
        "advance": lambda steps: None,
    }
    tiles = _tiles(folder, vectors, given.pop("lattice", LATTICE))
    return finish_level(tiles, folder=folder, **{**options, **given})


def test_tiles_of_all_blocks_are_read_in_turn(tmp_path: Path) -> None:
    vectors = toy.unit(300, DIM)
    tiles = _tiles(tmp_path, vectors)
    assert tiles.cells.tolist() == list(range(300))
    assert tiles.bytes("detail").tolist() == [cell % 251 for cell in range(300)]
    assert [len(part) for part in tiles.parts()] == [170, 130]
    np.testing.assert_allclose(np.concatenate(list(tiles.parts())), vectors, atol=1e-3)
    assert len(list(tiles.parts())) == 2  # again and again


def test_everything_follows_the_curve(tmp_path: Path) -> None:
    vectors = toy.unit(300, DIM)
    values, sections = _finish(tmp_path, vectors, variants=2)
    order = hilbert_order(LATTICE, np.arange(300, dtype=np.uint32))
    assert set(sections) == {"cells", "detail", "codes", "variants"}
    assert decode_column(sections["cells"], 300).tolist() == order.tolist()
    assert list(inflate(sections["detail"], 300)) == (order % 251).tolist()
    assert list(inflate(sections["variants"], 300)) == (order % 2).tolist()
    codes = np.frombuffer(sections["codes"], np.int8).reshape(300, DIM)
    assert ((dequantise(codes) * vectors[order]).sum(axis=1) > 0.999).all()
    assert values == {
        "count": 300,
        "vectors": 300,
        "search": asdict(EXACT),
        "found": None,
    }
    assert level_record(LATTICE, values).search == EXACT


def test_tiles_alike_share_a_vector(tmp_path: Path) -> None:
    vectors = toy.unit(300, DIM)
    vectors[100:200] = vectors[7]
    values, sections = _finish(tmp_path, vectors)
    assert (values["count"], values["vectors"]) == (300, 200)
    order = hilbert_order(LATTICE, np.arange(300, dtype=np.uint32))
    shared = decode_column(sections["vectors"], 300)
    codes = np.frombuffer(sections["codes"], np.int8).reshape(200, DIM)
    assert ((dequantise(codes)[shared] * vectors[order]).sum(axis=1) > 0.999).all()
    assert len({row.tobytes() for row in codes}) == 200


def test_a_large_level_is_searched_by_a_graph_of_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(level_module, "GRAPH_DIMS", 14)
    vectors = toy.smooth(50, 60, DIM)
    values, sections = _finish(tmp_path, vectors, lattice=LARGE, graph_min_vectors=300)
    plan = values["search"]
    assert (plan["method"], plan["step"], plan["sampled"], plan["dims"]) == ("graph", 3, 340, 14)
    assert plan["recall_at_1"] >= 0.99
    sample = decode_column(sections["sample"], 340)
    assert (np.diff(sample.astype(int)) > 0).all() and sample.max() < 3000
    decode_graph(sections["graph"], 340).check()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_sample_too_small_for_a_graph_is_scanned(tmp_path: Path) -> None:
    vectors = toy.smooth(50, 60, DIM)
    values, sections = _finish(tmp_path, vectors, lattice=LARGE, graph_min_vectors=341)
    assert (values["search"]["method"], values["search"]["ef"]) == ("sample", 0)
    assert "sample" in sections and "graph" not in sections


@pytest.mark.parametrize("step_px", [16, 32], ids=["unlike their neighbours", "too far apart"])
def test_tiles_that_no_sample_stands_for_are_linked_all(tmp_path: Path, step_px: int) -> None:
    vectors = toy.unit(3000, DIM) if step_px == 16 else toy.smooth(50, 60, DIM)
    lattice = dataclasses.replace(LARGE, step_px=step_px)
    values, sections = _finish(tmp_path, vectors, lattice=lattice, graph_min_vectors=300)
    plan = values["search"]
    assert (plan["method"], plan["step"], plan["sampled"]) == ("graph", 1, 3000)
    assert "sample" not in sections


@pytest.mark.parametrize("least", [300, 301])
def test_progress_ends_at_the_number_of_tiles(tmp_path: Path, least: int) -> None:
    done: list[int] = []
    _finish(tmp_path, toy.unit(300, DIM), graph_min_vectors=least, advance=done.append)
    assert sum(done) == 300


def test_a_level_that_nothing_faster_finds_enough_of_is_scanned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for way in ("graph", "sample"):
        monkeypatch.setattr(Trial, way, lambda *level: None)
    done: list[int] = []
    vectors = toy.unit(3000, DIM)
    values, sections = _finish(
        tmp_path, vectors, lattice=LARGE, graph_min_vectors=341, advance=done.append
    )
    assert not {"graph", "sample"} & set(sections)
    assert values["search"] == asdict(EXACT)
    assert sum(done) == 3000


def test_the_share_of_views_that_find_their_place_is_told(tmp_path: Path) -> None:
    vectors = toy.unit(300, DIM)
    east, north = LATTICE.centers_m(np.arange(4, dtype=np.uint32))
    probes = Probes(vectors[:4], east + np.array([0, 0, 0, 200.0]), north)
    assert _finish(tmp_path, vectors, probes=probes)[0]["found"] == 0.75


def test_same_blocks_give_the_same_bytes(tmp_path: Path) -> None:
    vectors = toy.unit(300, DIM)
    first, second = (_finish(tmp_path, vectors, graph_min_vectors=10) for _ in range(2))
    assert first[0] == second[0]
    assert {k: bytes(v) for k, v in first[1].items()} == {k: bytes(v) for k, v in second[1].items()}
