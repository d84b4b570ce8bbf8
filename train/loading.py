"""Batches of pairs and pictures in order, and what could not be read."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ..core.console import say
from ..core.errors import InputError
from .dataset import Image, Images, PairSet, UnreadableImageError
from .relations import Indices
from .workers import Pool, Reader, ReadSet, View, whole

_NAMED = 3  # files named when there are too many to list


@dataclass(frozen=True)
class LoadedBatch:
    """What one rank gets of a batch of B pairs: b = B / ranks of them.

    Attributes:
        queries: (b, Hq, Wq, 3) uint8.
        references: (b, Hr, Wr, 3) uint8.
        valid: (b,) bool. False where a picture of the pair could not be read: its rows are black
            in both views and take no part in the loss. Shapes never change, which compiled
            models and ranks that gather each other's embeddings rely on; and no pair stands in,
            so every other pair keeps the batch that the plan gave it, also after a resume.
        pairs: (b,) int64, the pairs of this rank.
        all_pairs: (B,) int64, the pairs of all ranks in order.
    """

    queries: torch.Tensor
    references: torch.Tensor
    valid: torch.Tensor
    pairs: torch.Tensor
    all_pairs: torch.Tensor


class UnreadableImages:
    """The pictures of a set that could not be read: named once, counted, up to a limit."""

    def __init__(self, origin: str, limit: int) -> None:
        """Start with none; `origin` names the data set in messages."""
        self.origin = origin
        self.limit = limit
        self.names: list[str] = []

    def add(self, name: str, reason: str) -> None:
        """Count a picture, unless it is known.

        Raises:
            InputError: there are now more than the limit.
        """
        if name in self.names:
            return
        self.names.append(name)
        if len(self.names) > self.limit:
            some = ", ".join(self.names[:_NAMED]) + (", …" if len(self.names) > _NAMED else "")
            raise InputError(
                f"{self.origin}: {len(self.names)} unreadable images, unreadable_limit is "
                f"{self.limit}: {some}; restore the files or raise unreadable_limit"
            )
        say(f"left out ({len(self.names)} of at most {self.limit}): {reason}")


class PairLoader:
    """Reads planned batches of pairs; the worker processes are started once.

    Attributes:
        unreadable: what could not be read so far, on this rank.
    """

    def __init__(
        self,
        pairs: PairSet,
        query_px: tuple[int, int],
        reference_px: tuple[int, int],
        workers: int,
        unreadable_limit: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        jpeg: float = 0.0,
        others: Sequence[tuple[Images, tuple[int, int]]] = (),
    ) -> None:
        """Prepare; nothing is read and no process started yet.

        Args:
            pairs: the training set.
            query_px: height and width of the queries.
            reference_px: height and width of the references.
            workers: processes of this rank; 0 reads in this process.
            unreadable_limit: files that may be unreadable before the training stops.
            seed: of the recompression.
            rank: number of this process among `world`.
            world: how many processes share each batch.
            jpeg: probability that a picture is recompressed at quality 90 to 100. Done here, not
                with the other augmentation: libjpeg takes 1 ms where a differentiable codec on
                the CPU takes 90, and the workers have the time.
            others: further pictures that the same processes read, see `images`, and the height
                and width of each collection.
        """
        self.unreadable = UnreadableImages(pairs.name, unreadable_limit)
        self._rank, self._world = rank, world
        views = (
            View(pairs.queries, pairs.pair_query, query_px),
            View(pairs.references, pairs.pair_reference, reference_px),
        )
        sets = [ReadSet(views, jpeg), *(ReadSet((whole(images, size),)) for images, size in others)]
        self._pool = Pool(Reader(tuple(sets), seed), workers, torch.cuda.is_available())

    def epoch(self, batches: Indices, first: int = 0) -> Iterator[LoadedBatch]:
        """Yield this rank's contiguous share of every planned batch, in order.

        Args:
            batches: (n, B) pair numbers.
            first: batches to leave out at the start, when a training is resumed.

        Raises:
            InputError: too many pictures are unreadable, B is no multiple of the ranks, or there
                is too little shared memory.
            S4GError: a worker process died.
        """
        size = batches.shape[1]
        if size % self._world:
            raise InputError(
                f"batches of {size} pairs cannot be shared by {self._world} processes; "
                f"make batch_pairs a multiple of {self._world}"
            )
        share = size // self._world
        planned = np.asarray(batches, np.int64)[first:]
        mine = planned[:, self._rank * share : (self._rank + 1) * share]
        for pairs, everyones, read in zip(mine, planned, self._pool.read(list(mine)), strict=True):
            for name, reason in read.failures:
                self.unreadable.add(name, reason)
            queries, references = read.images
            yield LoadedBatch(
                queries,
                references,
                read.valid,
                torch.from_numpy(pairs.copy()),
                torch.from_numpy(everyones.copy()),
            )

    def images(self, number: int, batch: int, rows: Indices) -> Iterator[Image]:
        """Yield pictures of one of the `others` in order, as (B, H, W, 3) uint8.

        Between epochs, by the processes that read pairs. What cannot be read is counted and
        comes black.

        Args:
            number: which of the others.
            batch: B; the last batch may be short.
            rows: (n,) int32 which pictures.

        Raises:
            InputError: too many pictures are unreadable, or there is too little shared memory.
            S4GError: a worker process died.
        """
        for read in self._pool.read(_split(rows, batch), 1 + number):
            for name, reason in read.failures:
                self.unreadable.add(name, reason)
            yield read.images[0].numpy()

    def close(self) -> None:
        """End the worker processes; the loader is of no use afterwards."""
        self._pool.end()


def iterate_images(
    images: Images,
    height_px: int,
    width_px: int,
    batch: int,
    workers: int,
) -> Generator[Image, None, None]:
    """Yield pictures in order, as (B, height_px, width_px, 3) uint8; the last batch may be short.

    For an evaluation, which is whole or none: the first that cannot be read ends it.

    Args:
        images: the pictures.
        height_px: rows of each.
        width_px: columns of each.
        batch: B.
        workers: processes; 0 reads in this process.

    Raises:
        UnreadableImageError: a picture cannot be read.
        InputError: there is too little shared memory.
        S4GError: a worker process died.
    """
    read_set = ReadSet((whole(images, (height_px, width_px)),))
    pool = Pool(Reader((read_set,), 0), workers, pin=False)
    parts = _split(np.arange(len(images), dtype=np.int32), batch)
    try:
        for read in pool.read(parts):
            for _, reason in read.failures:
                raise UnreadableImageError(reason)
            yield read.images[0].numpy()
    finally:
        pool.end()


def _split(rows: Indices, batch: int) -> list[npt.NDArray[np.int64]]:
    chosen = np.asarray(rows, np.int64)
    return [chosen[start : start + batch] for start in range(0, len(chosen), batch)]
