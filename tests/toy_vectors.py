"""Random vectors, their codes and graphs, for tests of packs."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from s4g.tilepacks.graph import Graph, M, build_graph
from s4g.tilepacks.quantise import Codes, dequantise, inverse_lengths, quantise
from s4g.tilepacks.search import LevelSearch


def unit(count: int, dim: int, seed: int = 0) -> npt.NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def codes_of(count: int, dim: int = 16, seed: int = 0) -> Codes:
    return quantise(unit(count, dim, seed))


def graph_of(codes: Codes, m: int = M) -> Graph:
    vectors = dequantise(codes)
    with TemporaryDirectory() as folder:
        return build_graph(lambda start, stop: vectors[start:stop], len(codes), Path(folder), m)


def level_of(codes: Codes, **parts: object) -> LevelSearch:
    return LevelSearch(codes, inverse_lengths(codes), **parts)  # type: ignore[arg-type]


def smooth(rows: int, columns: int, dim: int = 16, seed: int = 0) -> npt.NDArray[np.float32]:
    """Vectors of a lattice, row by row; neighbours are nearly alike, as those of tiles may be."""
    rng = np.random.default_rng(seed)
    row, column = np.divmod(np.arange(rows * columns), columns)
    places = np.stack([row, column], axis=1)
    waves = np.cos(places @ rng.normal(0, 0.25, (2, 48)) + rng.uniform(0, 6.3, 48))
    vectors = waves @ rng.standard_normal((48, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
