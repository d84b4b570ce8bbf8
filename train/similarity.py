"""Similarities of many queries with many references, block by block, and the best k of them.

Scoring and mining share these blocks: neither ever holds a Q x R matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

from ..core.errors import S4GError
from .relations import Indices, Relations

Floats = npt.NDArray[np.float32]

# What one block and the rows it is made of may take. On the CPU larger blocks win nothing.
_CPU_BUDGET_BYTES = 64 << 20
_GPU_BUDGET_BYTES = 1 << 30
# Sides are multiples of this, which matrix multiplication likes, unless the budget is tiny.
_SIDE = 64
# A key of no element: below the key of every score.
_NONE = torch.iinfo(torch.int64).min
_INDEX_BITS = 32
_INDEX_MASK = (1 << _INDEX_BITS) - 1


def default_budget_bytes(device: torch.device | str) -> int:
    """Return the memory one block takes where nothing else is asked for."""
    return _CPU_BUDGET_BYTES if torch.device(device).type == "cpu" else _GPU_BUDGET_BYTES


def block_shape(queries: int, references: int, dim: int, budget_bytes: int) -> tuple[int, int]:
    """Return how many queries and references one block holds.

    Block and rows in fp32 take 4 (q r + (q + r) dim) bytes, which stays within the budget.

    Raises:
        S4GError: not even one query and one reference fit.
    """
    words = budget_bytes // 4
    if words < 1 + 2 * dim:
        raise S4GError(
            f"a memory budget of {budget_bytes} bytes holds no block of {dim}-dimensional "
            f"embeddings; allow at least {4 * (1 + 2 * dim)}"
        )
    side = _rounded(int(math.sqrt(dim * dim + words)) - dim)
    rows, columns = min(side, queries), min(side, references)
    if rows < side:  # few queries: longer blocks
        columns = min(references, _rounded((words - rows * dim) // (rows + dim)))
    elif columns < side:
        rows = min(queries, _rounded((words - columns * dim) // (columns + dim)))
    return max(rows, 1), max(columns, 1)


def _rounded(side: int) -> int:
    return side if side < _SIDE else side - side % _SIDE


def similarity_blocks(
    queries: Floats,
    references: Floats,
    device: torch.device | str = "cpu",
    budget_bytes: int | None = None,
) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """Yield all dot products of queries with references.

    Blocks come query-major: all references, ascending, of the first queries, then of the next.
    A block is (q, r) float32 on the device, multiplied in full fp32 (no TF32, no autocast). It
    may be written to; the next block overwrites it.

    Args:
        queries: (Q, D) float32; memory-mapped and float16 arrays are read block by block.
        references: (R, D) float32, likewise.
        device: where blocks are multiplied.
        budget_bytes: memory of a block with its rows; None: 64 MiB on a CPU, 1 GiB elsewhere.

    Raises:
        S4GError: the budget is too small, or an embedding is not finite.
    """
    device = torch.device(device)
    budget = default_budget_bytes(device) if budget_bytes is None else budget_bytes
    shape = block_shape(len(queries), len(references), queries.shape[1], budget)
    room = torch.empty(shape[0] * shape[1], dtype=torch.float32, device=device)
    for query_part in _slices(len(queries), shape[0]):
        left = _on_device(queries, query_part, device, "query")
        for reference_part in _slices(len(references), shape[1]):
            right = _on_device(references, reference_part, device, "reference")
            block = room[: len(left) * len(right)].view(len(left), len(right))
            with _full_precision(device):
                torch.mm(left, right.T, out=block)
            yield query_part, reference_part, block


def _slices(count: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _on_device(embeddings: Floats, part: slice, device: torch.device, side: str) -> torch.Tensor:
    rows = np.ascontiguousarray(embeddings[part], np.float32)
    if not rows.flags.writeable:
        rows = rows.copy()  # torch warns of read-only memory
    tensor = torch.from_numpy(rows).to(device)
    # A sum is finite only where all is: one pass, no mask.
    if not bool(torch.isfinite(tensor.sum())) and not bool(torch.isfinite(tensor).all()):
        row = part.start + int((~torch.isfinite(tensor)).any(1).nonzero()[0])
        raise S4GError(
            f"the embedding of {side} {row} is not finite; the encoder diverged, go back to an "
            "earlier checkpoint"
        )
    return tensor


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def edges_of_block(
    relations: Relations, query_part: slice, reference_part: slice
) -> tuple[Indices, Indices, npt.NDArray[np.int64]]:
    """Return the relations that fall into a block.

    Returns:
        rows and columns within the block, (e,) int32 each, and the number of each edge in
        `relations.references` and `relations.weights`, (e,) int64.
    """
    start = relations.start[query_part.start : query_part.stop + 1]
    edges = slice(int(start[0]), int(start[-1]))
    rows = np.repeat(np.arange(len(start) - 1, dtype=np.int32), np.diff(start))
    columns = relations.references[edges]
    inside = (columns >= reference_part.start) & (columns < reference_part.stop)
    return (
        rows[inside],
        columns[inside] - np.int32(reference_part.start),
        np.flatnonzero(inside) + edges.start,
    )


class TopK:
    """The k best of each row, gathered from blocks.

    Score and index of an element are packed into one int64, so that a plain comparison orders by
    score, then by the lower index: the result does not depend on the blocks, and ties neither on
    the device. Rows take 8 k bytes.
    """

    def __init__(self, rows: int, k: int, device: torch.device | str = "cpu") -> None:
        """Start with nothing found."""
        self._keys = torch.full((rows, k), _NONE, dtype=torch.int64, device=device)
        self._floor = torch.full((rows,), -torch.inf, device=device)  # score to beat

    def update(
        self, block: torch.Tensor, rows: slice, first_index: int, transposed: bool = False
    ) -> None:
        """Take in a block of scores; -inf is never taken.

        Indices must ascend from call to call for each row.

        Args:
            block: (rows, n) float32 on the device, or (n, rows) where `transposed`.
            rows: which rows it is about.
            first_index: index of the first of the n.
            transposed: rows of this object are columns of the block.
        """
        keys, floor = self._keys[rows], self._floor[rows]
        limit = max(2 * keys.shape[1], 64)
        # Rows with many candidates are searched whole, the others by their candidates alone.
        crowded = floor == -torch.inf
        if not bool(crowded.all()):
            better = block > (floor[None] if transposed else floor[:, None])
            if int(torch.count_nonzero(better)) > limit * len(floor):
                crowded |= better.sum(0 if transposed else 1) > limit
            if bool(crowded.any()):
                better &= ~(crowded[None] if transposed else crowded[:, None])
            row, index = _places(better, transposed)
            counts = torch.bincount(row, minlength=len(floor))
            late = counts > limit
            if bool(late.any()):
                crowded |= late
                kept = ~late[row]
                row, index = row[kept], index[kept]
                counts[late] = 0
            self._take_candidates(keys, block, row, index, counts, first_index, transposed)
        if bool(crowded.any()):
            self._take_whole(keys, block, crowded.nonzero()[:, 0], first_index, transposed)
        floor.copy_(_scores(keys[:, -1]))

    def _take_whole(
        self,
        keys: torch.Tensor,
        block: torch.Tensor,
        which: torch.Tensor,
        first_index: int,
        transposed: bool,
    ) -> None:
        """Merge whole rows."""
        width = block.shape[0] if transposed else block.shape[1]
        index = torch.arange(first_index, first_index + width, device=block.device)
        # Keys are twice as wide as scores: a sixteenth of the block at a time.
        step = max(1, block.numel() // (16 * width))
        for start in range(0, len(which), step):
            part = which[start : start + step]
            scores = block[:, part].T if transposed else block[part]
            found = torch.where(scores > -torch.inf, _keys(scores, index), _NONE)
            keys[part] = _best(keys[part], found)

    def _take_candidates(
        self,
        keys: torch.Tensor,
        block: torch.Tensor,
        row: torch.Tensor,
        index: torch.Tensor,
        counts: torch.Tensor,
        first_index: int,
        transposed: bool,
    ) -> None:
        """Merge single elements, ordered by row."""
        if not len(row):
            return
        scores = block[index, row] if transposed else block[row, index]
        some = (counts > 0).nonzero()[:, 0]
        width = int(counts.max())
        found = torch.full((len(some), width), _NONE, dtype=torch.int64, device=block.device)
        line = (counts > 0).cumsum(0) - 1  # the row of `found` of each row
        before = counts.cumsum(0) - counts
        column = torch.arange(len(row), device=block.device) - before[row]
        found[line[row], column] = _keys(scores, index + first_index)
        keys[some] = _best(keys[some], found)

    def result(self, rows: slice = slice(None)) -> tuple[Indices, Floats]:
        """Return indices (rows, k) int32, best first, -1 where there are fewer, and scores.

        Scores are (rows, k) float32, -inf where there are fewer.
        """
        keys = self._keys[rows]
        empty = keys == _NONE
        index = (_INDEX_MASK - (keys & _INDEX_MASK)).masked_fill_(empty, -1)
        scores = _scores(keys)
        return index.to(torch.int32).cpu().numpy(), scores.cpu().numpy()


def _places(mask: torch.Tensor, transposed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return row and index of what is set, ordered by row; rows are columns if transposed."""
    hits = mask.flatten().nonzero()[:, 0]
    row, index = hits // mask.shape[1], hits % mask.shape[1]
    if not transposed:
        return row, index
    order = index.argsort(stable=True)
    return index[order], row[order]


def _best(keys: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    return torch.cat([keys, found], dim=1).topk(keys.shape[1], dim=1).values


def _keys(scores: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Pack scores and indices so that keys order by score, then by the lower index."""
    bits = (scores + 0.0).view(torch.int32).to(torch.int64)  # + 0.0: no negative zero
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered << _INDEX_BITS) | (_INDEX_MASK - index)


def _scores(keys: torch.Tensor) -> torch.Tensor:
    """Return the scores of keys, -inf of the key of nothing."""
    ordered = (keys >> _INDEX_BITS).to(torch.int32)
    scores = (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)
    return torch.where(keys == _NONE, -torch.inf, scores)
