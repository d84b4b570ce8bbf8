"""Nearest tiles of a level: by its graph over all of it, exactly where a radius or a few are asked.

Tiles that look the same to the encoder (water, a car park of one colour) share one vector: repeated
vectors would break the graph, and every one of their tiles is an equal answer.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .quantise import Codes, Floats32, dequantise
from .scan import pack_codes, scan, scan_packed

Ids = npt.NDArray[np.int64]

# A scan of fewer bytes than these is about as fast as the graph, and it is exact.
_SCAN_BYTES = 4 << 20
# The graph knows the leading dimensions; this many times the wanted vectors are compared in all.
_CANDIDATES = 4
_MIN_CANDIDATES = 48
# Compared at once: the cosines of a query take 256 kB, the integer products of all of them 8 MB.
_BLOCK_VECTORS, _BLOCK_QUERIES = 65536, 16
_GROUP = 64


def least_linked(dims: int) -> int:
    """Return how many vectors of a length a level must have for a graph to be worth its bytes."""
    return -(-_SCAN_BYTES // dims)


@dataclass(frozen=True)
class LevelSearch:
    """The vectors of one level and how to search them; several threads may search at once.

    Attributes:
        codes: (V, D) int8, distinct vectors.
        inverse: (V,) float32, 1 / |codes|.
        vector_of_tile: (N,) the vector of each tile, or None where every tile has its own.
        graph: an `hnswlib.Index` over the leading dimensions, or None for the exact scan.
        ef: the graph's search width; the recall it gives is measured when the pack is built.
    """

    codes: Codes
    inverse: Floats32
    vector_of_tile: npt.NDArray[np.uint32] | None = None
    graph: Any = None
    ef: int = 0
    # hnswlib keeps the width in the index: two threads with different k must not meet there.
    _graph_lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return len(self.codes if self.vector_of_tile is None else self.vector_of_tile)

    def search(self, queries: Floats32, k: int) -> tuple[Ids, Floats32]:
        """Return the best tiles of each query, best first.

        Args:
            queries: (B, D) float32, L2-normalised.
            k: tiles per query, at least 1; clipped to the number of tiles.

        Returns:
            Tile numbers (B, k) int64, from 0 within the level, and cosines (B, k) float32.
        """
        k = min(k, self.tiles)
        vectors, scores = self.search_vectors(queries, min(k, len(self.codes)))
        if self.vector_of_tile is None:
            return vectors, scores
        return self._tiles_of(vectors, scores, k)

    def search_vectors(self, queries: Floats32, k: int) -> tuple[Ids, Floats32]:
        """Return the best distinct vectors (B, k) and their cosines; k at most V."""
        candidates = max(_CANDIDATES * k, _MIN_CANDIDATES)
        if self.graph is None or candidates > len(self.codes) // 4:
            return self.scan(queries, k)
        dims = int(self.graph.dim)
        try:
            with self._graph_lock:
                self.graph.set_ef(max(self.ef, candidates))
                ids, _ = self.graph.knn_query(queries[:, :dims], k=candidates, num_threads=1)
        except RuntimeError:
            # The graph reached fewer nodes than that from here; the scan reaches all of them.
            return self.scan(queries, k)
        found = ids.astype(np.int64)
        scores = np.empty(found.shape, np.float32)
        for row, query in enumerate(queries):
            scores[row] = self.codes[found[row]].astype(np.float32) @ query
            scores[row] *= self.inverse[found[row]]
        best, cosines = _best(scores, k)
        return np.take_along_axis(found, best, axis=1), cosines

    def scan(self, queries: Floats32, k: int) -> tuple[Ids, Floats32]:
        """Return the best distinct vectors (B, k) by comparing with all of them; k at most V."""
        parts = [
            self._scan_some(queries[start : start + _BLOCK_QUERIES], k)
            for start in range(0, len(queries), _BLOCK_QUERIES)
        ]
        ids, cosines = zip(*parts, strict=True)
        return np.concatenate(ids), np.concatenate(cosines)

    def _scan_some(self, queries: Floats32, k: int) -> tuple[Ids, Floats32]:
        ids = np.empty((len(queries), 0), np.int64)
        cosines = np.empty((len(queries), 0), np.float32)
        for number, packed in enumerate(self.packed):
            start = number * _BLOCK_VECTORS
            scores = scan_packed(queries, packed, self.inverse[start : start + _BLOCK_VECTORS])
            found, own = _best_of_many(scores, min(k, scores.shape[1]))
            ids = np.concatenate([ids, found + start], axis=1)
            cosines = np.concatenate([cosines, own], axis=1)
        if len(self.packed) == 1:
            return ids, cosines
        kept, cosines = _best(cosines, min(k, cosines.shape[1]))
        return np.take_along_axis(ids, kept, axis=1), cosines

    @cached_property
    def packed(self) -> tuple[Any, ...]:
        """All vectors as the scan wants them, block after block; made when it is first needed."""
        starts = range(0, len(self.codes), _BLOCK_VECTORS)
        return tuple(pack_codes(self.codes[start : start + _BLOCK_VECTORS]) for start in starts)

    def vectors_of(self, tiles: Ids) -> Floats32:
        """Return the vectors (T, D) float32 of tiles (T,)."""
        return dequantise(self.codes[self._rows(tiles)])

    def first_tiles(self, vectors: Ids) -> Ids:
        """Return a tile (P,) of each vector (P,)."""
        if self.vector_of_tile is None:
            return vectors
        order, starts, _ = self._tiles_by_vector
        return order[starts[vectors]]

    def scores(self, queries: Floats32, tiles: Ids) -> Floats32:
        """Return the cosines (B, T) float32 of queries (B, D) and some tiles (T,), exactly."""
        vectors = self._rows(tiles)
        return scan(queries, self.codes[vectors], self.inverse[vectors])

    def _rows(self, tiles: Ids) -> npt.NDArray[np.integer[Any]]:
        return tiles if self.vector_of_tile is None else self.vector_of_tile[tiles]

    @cached_property
    def _tiles_by_vector(self) -> tuple[Ids, Ids, Ids]:
        """Tiles sorted by vector (N,), where each vector's begin (V,), how many there are (V,)."""
        assert self.vector_of_tile is not None
        order = np.argsort(self.vector_of_tile, kind="stable")
        counts = np.bincount(self.vector_of_tile, minlength=len(self.codes))
        return order, np.cumsum(counts) - counts, counts

    def _tiles_of(self, vectors: Ids, scores: Floats32, k: int) -> tuple[Ids, Floats32]:
        """Replace vectors (B, v) by all the tiles that share them, the first k."""
        order, starts, counts = self._tiles_by_vector
        ids = np.empty((len(vectors), k), np.int64)
        cosines = np.empty((len(vectors), k), np.float32)
        for row, found in enumerate(vectors):
            lengths = counts[found]
            first = np.cumsum(lengths) - lengths
            within = np.arange(int(lengths.sum())) - np.repeat(first, lengths)
            ids[row] = order[np.repeat(starts[found], lengths) + within][:k]
            cosines[row] = np.repeat(scores[row], lengths)[:k]
        return ids, cosines


def _best_of_many(scores: Floats32, k: int) -> tuple[Ids, Floats32]:
    """Return what `_best` returns, faster: most of the scores are only looked at once.

    The k largest scores lie in the k groups whose largest members are the largest.
    """
    groups = scores.shape[1] // _GROUP
    if groups <= 2 * k:
        return _best(scores, k)
    grouped = groups * _GROUP
    largest = scores[:, :grouped].reshape(len(scores), _GROUP, groups).max(axis=1)
    chosen = np.argpartition(-largest, k - 1, axis=1)[:, :k]
    members = (chosen[:, None, :] + groups * np.arange(_GROUP)[:, None]).reshape(len(scores), -1)
    rest = np.broadcast_to(
        np.arange(grouped, scores.shape[1]), (len(scores), scores.shape[1] - grouped)
    )
    ids = np.sort(np.concatenate([members, rest], axis=1), axis=1)
    best, cosines = _best(np.take_along_axis(scores, ids, axis=1), k)
    return np.take_along_axis(ids, best, axis=1), cosines


def _best(scores: Floats32, k: int) -> tuple[Ids, Floats32]:
    """Return the k largest scores of each row, best first; equal scores in order of place."""
    if k < scores.shape[1]:
        ids = np.sort(np.argpartition(-scores, k - 1, axis=1)[:, :k], axis=1)
    else:
        ids = np.broadcast_to(np.arange(k), scores.shape)
    found = np.take_along_axis(scores, ids, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    best = np.take_along_axis(ids, order, axis=1).astype(np.int64)
    return best, np.take_along_axis(found, order, axis=1)
