"""Which references show a query's place: a sparse matrix, rows are queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int32]
Weights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Relations:
    """Related (query, reference) pairs in compressed rows.

    A weight above 0 makes the reference a positive of the query (1: the same place; below 1: an
    overlap, such as an IoU). Weight 0 means related, but neither positive nor negative: VIGOR's
    semi-positives. Everything that is not listed is a negative.

    Attributes:
        start: (Q + 1,) int64; row q is the slice `start[q]:start[q + 1]`.
        references: (E,) int32, ascending within a row.
        weights: (E,) float32.
    """

    start: npt.NDArray[np.int64]
    references: Indices
    weights: Weights

    @classmethod
    def from_edges(
        cls,
        queries: npt.ArrayLike,
        references: npt.ArrayLike,
        query_count: int,
        weights: npt.ArrayLike = 1.0,
    ) -> Relations:
        """Sort edges into rows; of an edge given twice the larger weight counts.

        Args:
            queries: (E,) query of each edge.
            references: (E,) reference of each edge.
            query_count: number of rows; rows may be empty.
            weights: (E,) or one for all.
        """
        rows = np.asarray(queries, np.int64)
        columns = np.asarray(references, np.int64)
        values = np.broadcast_to(np.asarray(weights, np.float32), rows.shape)
        order = np.lexsort((-values, columns, rows))
        rows, columns, values = rows[order], columns[order], values[order]
        first = np.ones(len(rows), bool)
        first[1:] = (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])
        rows, columns, values = rows[first], columns[first], values[first]
        start = np.zeros(query_count + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=query_count), out=start[1:])
        return cls(start, columns.astype(np.int32), np.ascontiguousarray(values, np.float32))

    def __len__(self) -> int:
        """Return the number of rows (queries)."""
        return len(self.start) - 1

    @property
    def rows(self) -> Indices:
        """(E,) int32: the query of each edge."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.start))

    def of(self, query: int) -> tuple[Indices, Weights]:
        """Return the references of one query, ascending, and their weights."""
        part = slice(int(self.start[query]), int(self.start[query + 1]))
        return self.references[part], self.weights[part]

    def transposed(self, reference_count: int) -> Relations:
        """Return the same relations with references as rows."""
        return Relations.from_edges(self.references, self.rows, reference_count, self.weights)

    def positives(self) -> Relations:
        """Return only the edges of weight above 0."""
        keep = self.weights > 0
        return Relations.from_edges(
            self.rows[keep], self.references[keep], len(self), self.weights[keep]
        )

    def block(self, queries: Indices, references: Indices) -> Weights:
        """Return the dense (len(queries), len(references)) float32 weights; NaN: not related.

        `references` may hold a reference several times.
        """
        out = np.full((len(queries), len(references)), np.nan, np.float32)
        order = np.argsort(references, kind="stable")
        ascending = np.asarray(references)[order]
        for row, query in enumerate(queries):
            related, weights = self.of(int(query))
            low = np.searchsorted(ascending, related, "left")
            high = np.searchsorted(ascending, related, "right")
            for first, last, weight in zip(low, high, weights, strict=True):
                out[row, order[first:last]] = weight
        return out
