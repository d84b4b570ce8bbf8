"""Nearest tiles of a level: exactly, or through a sample of its tiles and what lies around them.

Tiles overlap, and neighbours look nearly the same. A large level is therefore not compared tile by
tile: a sample of every second or third row and column is, and then the tiles around the best of
it. A graph (HNSW) finds the best of a sample that is still large; it is also better at it than at
finding them among all tiles, where its candidates would be many views of few places.

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

from .nearby import Ids as Ids
from .nearby import Nearby
from .quantise import Codes, Floats32, dequantise
from .scan import pack_codes, scan, scan_packed, screen

Marks = npt.NDArray[np.bool_]

# A scan of fewer bytes than these takes a fraction of a millisecond. A graph would take less, but
# the frame waits for neither, and the scan misses nothing.
_SCAN_BYTES = 4 << 20
# So many times the wanted vectors, and at least so many, are taken from the sample.
_CANDIDATES, _MIN_CANDIDATES = 4, 48
# Of tiles that share a vector of the sample, so many have their neighbours compared.
_TWINS = 4
# Compared at once: the cosines of a query take 256 kB, the integer products of all of them 8 MB.
_BLOCK_VECTORS, _BLOCK_QUERIES = 65536, 16
_CACHED_BYTES, _LONG = 8 << 20, 128  # where vectors are packed for the scan, and where they are not
_GROUP, _MANY_GROUPS, _FEW_GROUPS = 64, 8, 2


# Comparing so many bytes of tiles near a place takes a millisecond for five queries at once, and so
# does a search of a whole level through a graph or a sample (benchmarks/gate.py).
_GATE_BYTES = 1 << 19


def least_linked(dims: int) -> int:
    """Return how many vectors of a length a level must have to be searched by less than a scan."""
    return -(-_SCAN_BYTES // dims)


@dataclass(frozen=True)
class LevelSearch:
    """The vectors of one level and how to search them; several threads may search at once.

    Attributes:
        codes: (V, D) int8, distinct vectors.
        inverse: (V,) float32, 1 / |codes|.
        vector_of_tile: (N,) the vector of each tile, or None where every tile has its own.
        sample: (S,) the vectors that are searched first, ascending, or None for all of them.
        nearby: the tiles by where they lie, to find those around a sample's.
        reach: how many rows and columns around a tile of the sample are compared.
        graph: an `hnswlib.Index` over the sample's leading dimensions, or None for a scan of it.
        ef: the graph's search width; what it misses is measured when the pack is built.
    """

    codes: Codes
    inverse: Floats32
    vector_of_tile: npt.NDArray[np.uint32] | None = None
    sample: Ids | None = None
    nearby: Nearby | None = None
    reach: int = 0
    graph: Any = None
    ef: int = 0
    # hnswlib keeps the width in the index: two threads with different k must not meet there.
    _graph_lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return len(self.codes if self.vector_of_tile is None else self.vector_of_tile)

    def is_slower_than(self, tiles: int) -> bool:
        """Tell whether comparing so many tiles, picked by number, is faster than a search of all.

        Packed vectors, as a scan of all has them, are compared three times as fast.
        """
        if self.sample is None and self.graph is None:
            return 3 * tiles <= self.tiles
        return bool(tiles * self.codes.shape[1] <= _GATE_BYTES)

    def best_of(self, queries: Floats32, tiles: Ids, chosen: Marks, k: int) -> tuple[Ids, Floats32]:
        """Return the best of some tiles for each query, compared exactly, best first.

        Args:
            queries: (B, D) float32, L2-normalised.
            tiles: (T,), at least one.
            chosen: (B, T) which of them count for each query.
            k: tiles per query.

        Returns:
            Tile numbers (B, k) and cosines (B, k); where fewer are chosen the rest have cosine -1.
        """
        cosines = np.where(chosen, self.scores(queries, tiles), np.float32(-1))
        ids = np.full((len(queries), k), tiles[0], np.int64)
        scores = np.full((len(queries), k), -1, np.float32)
        found = min(k, len(tiles))
        for row, own in enumerate(cosines):
            best = _best(own, found)
            ids[row, :found], scores[row, :found] = tiles[best], own[best]
        return ids, scores

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
        wanted = max(_CANDIDATES * k, _MIN_CANDIDATES)
        size = len(self.codes if self.sample is None else self.sample)
        if (self.graph is None and self.sample is None) or wanted > size // 4:
            return self.scan(queries, k)
        found = self._of_sample(queries, wanted)
        if found is None:  # the graph reaches too few vectors from here; the scan reaches all
            return self.scan(queries, k)
        parts = [self._best_around(q, own, k) for q, own in zip(queries, found, strict=True)]
        return np.stack([ids for ids, _ in parts]), np.stack([scores for _, scores in parts])

    def _of_sample(self, queries: Floats32, wanted: int) -> Ids | None:
        """Return the vectors (B, wanted) of the sample that are most like each query, if any."""
        if self.graph is None:
            assert self.sample is not None
            found, _ = _scan_blocks(
                queries, self._packed_sample, self.codes, self.sample, self._inverse_sample, wanted
            )
        else:
            dims = int(self.graph.dim)
            try:
                with self._graph_lock:
                    self.graph.set_ef(max(self.ef, wanted))
                    ids, _ = self.graph.knn_query(queries[:, :dims], k=wanted, num_threads=1)
            except RuntimeError:
                return None
            found = ids.astype(np.int64)
        return found if self.sample is None else self.sample[found]

    def _best_around(self, query: Floats32, vectors: Ids, k: int) -> tuple[Ids, Floats32]:
        """Return the best of some vectors (S,) and of those around them, compared exactly."""
        if self.nearby is not None and self.reach:
            tiles = self.nearby.around(self._some_tiles_of(vectors), self.reach)
            shared = self.vector_of_tile is not None
            vectors = np.unique(self._rows(tiles)).astype(np.int64) if shared else tiles
        scores = self.codes[vectors].astype(np.float32) @ query
        scores *= self.inverse[vectors]
        best = _best(scores, min(k, len(scores)))
        return vectors[best], scores[best]

    def _some_tiles_of(self, vectors: Ids) -> Ids:
        """Return tiles (T,) of vectors (S,): all of them, or a few of vectors that many share."""
        if self.vector_of_tile is None:
            return vectors
        order, starts, counts = self._tiles_by_vector
        twins = np.arange(_TWINS)
        chosen = starts[vectors][:, None] + twins
        tiles: Ids = order[chosen[twins < counts[vectors][:, None]]]
        return tiles

    def scan(self, queries: Floats32, k: int) -> tuple[Ids, Floats32]:
        """Return the best distinct vectors (B, k) by comparing with all of them; k at most V."""
        return _scan_blocks(queries, self._packed, self.codes, None, self.inverse, k)

    def prepare(self) -> None:
        """Make what the first search would have to."""
        if self.sample is None and self.graph is None:
            _ = self._packed
        elif self.graph is None:
            _ = self._packed_sample, self._inverse_sample
        if self.nearby is not None:
            self.nearby.prepare()
        if self.vector_of_tile is not None:
            _ = self._tiles_by_vector

    @cached_property
    def _packed(self) -> tuple[Any, ...]:
        return _pack_blocks(self.codes)

    @cached_property
    def _packed_sample(self) -> tuple[Any, ...]:
        return _pack_blocks(self.codes if self.sample is None else self.codes[self.sample])

    @cached_property
    def _inverse_sample(self) -> Floats32:
        return self.inverse if self.sample is None else self.inverse[self.sample]

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
            lengths = np.minimum(counts[found], k)  # more of one vector are never asked for
            first = np.cumsum(lengths) - lengths
            within = np.arange(int(lengths.sum())) - np.repeat(first, lengths)
            ids[row] = order[np.repeat(starts[found], lengths) + within][:k]
            cosines[row] = np.repeat(scores[row], lengths)[:k]
        return ids, cosines


def _pack_blocks(codes: Codes) -> tuple[Any, ...]:
    """Return vectors (N, D) as they are scanned fastest, block after block.

    Packed vectors are read faster only while they stay in the processor's cache.
    """
    starts = range(0, len(codes), _BLOCK_VECTORS)
    parts = (codes[start : start + _BLOCK_VECTORS] for start in starts)
    if codes.nbytes > _CACHED_BYTES and codes.shape[1] >= _LONG:
        return tuple(parts)
    return tuple(pack_codes(part) for part in parts)


def _scan_blocks(
    queries: Floats32,
    blocks: tuple[Any, ...],
    codes: Codes,
    chosen: Ids | None,
    inverse: Floats32,
    k: int,
) -> tuple[Ids, Floats32]:
    """Return the best (B, k) of vectors for queries (B, D), and their cosines.

    Args:
        queries: (B, D) float32, of length one.
        blocks: of `_pack_blocks`, N vectors together.
        codes: the vectors as they were packed, or more of them.
        chosen: (N,) which of `codes` those are; None for all.
        inverse: (N,) of all of them.
        k: at most N.
    """
    ids = np.empty((len(queries), k), np.int64)
    cosines = np.empty((len(queries), k), np.float32)
    for first in range(0, len(queries), _BLOCK_QUERIES):
        some = queries[first : first + _BLOCK_QUERIES]
        found: list[list[tuple[Ids, Floats32]]] = [[] for _ in some]
        for number, block in enumerate(blocks):
            start = number * _BLOCK_VECTORS
            own = inverse[start : start + _BLOCK_VECTORS]
            if len(own) // _GROUP < _FEW_GROUPS * k:
                compare = scan if isinstance(block, np.ndarray) else scan_packed
                for parts, scores in zip(found, compare(some, block, own), strict=True):
                    best = _best(scores, min(k, len(scores)))
                    parts.append((best + start, scores[best]))
                continue
            for row, (likeness, bound) in enumerate(zip(*screen(some, block, own), strict=True)):
                near = _perhaps_best(likeness, k, 2 * float(bound))
                rows = near + start if chosen is None else chosen[near + start]
                scores = scan(some[row : row + 1], codes[rows], own[near])[0]
                best = _best(scores, k)
                found[row].append((near[best] + start, scores[best]))
        for row, parts in enumerate(found, first):
            ids[row], cosines[row] = parts[0] if len(parts) == 1 else _merge(parts, k)
    return ids, cosines


def _perhaps_best(likenesses: Floats32, k: int, margin: float) -> Ids:
    """Return where those of (N,) are that may be the k largest, if each is off by half a margin.

    Ascending; at least k. The k-th largest of the groups' largest is no more than the k-th largest.
    """
    groups = len(likenesses) // _GROUP
    grouped = groups * _GROUP
    largest = likenesses[:grouped].reshape(_GROUP, groups).max(axis=0)
    least = np.partition(largest, groups - k)[groups - k] - margin
    chosen = np.flatnonzero(largest >= least)
    ids = (chosen + groups * np.arange(_GROUP)[:, None]).ravel()  # ascending
    ids = np.concatenate([ids, np.arange(grouped, len(likenesses))])
    found: Ids = ids[likenesses[ids] >= least]
    return found


def _merge(parts: list[tuple[Ids, Floats32]], k: int) -> tuple[Ids, Floats32]:
    ids = np.concatenate([own for own, _ in parts])
    scores = np.concatenate([own for _, own in parts])
    best = _best(scores, k)
    return ids[best], scores[best]


def _best(scores: Floats32, k: int) -> Ids:
    """Return where the k largest of scores (N,) are, best first; equal ones in order of place.

    Most scores are looked at once: the k largest lie in the k groups whose largest are largest.
    """
    groups = len(scores) // _GROUP
    ids = None
    if groups > _MANY_GROUPS * k:
        grouped = groups * _GROUP
        largest = scores[:grouped].reshape(_GROUP, groups).max(axis=0)
        chosen = np.flatnonzero(largest >= np.partition(largest, groups - k)[groups - k])
        ids = (chosen + groups * np.arange(_GROUP)[:, None]).ravel()
        if grouped < len(scores):
            ids = np.concatenate([ids, np.arange(grouped, len(scores))])
        scores = scores[ids]
    if k < len(scores):
        kept = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
        ids = kept if ids is None else ids[kept]
        scores = scores[kept]
    elif ids is None:
        ids = np.arange(len(scores))
    order: Ids = ids[np.lexsort((ids, -scores))][:k]
    return order
