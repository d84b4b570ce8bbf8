"""Who embeds the blocks of a build: here this process, with threads that read ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..core.engine import Engine
from ..core.geo import LocalFrame
from ..core.ground import GroundImage, GroundSource
from .embed import EmbeddedBlock, embed_block, read_block
from .tiling import Block, Lattice
from .variants import Variant, margin_px


@dataclass(frozen=True)
class BlockTask:
    """A block that is not embedded yet.

    Attributes:
        shard: number of the pack it belongs to, where several are built at once.
        level: number of its level.
        index: its number within the level.
        lattice: the level's.
        block: where it lies.
        wanted: (rows, columns) bool of the block: which of its tiles to consider.
    """

    shard: int
    level: int
    index: int
    lattice: Lattice
    block: Block
    wanted: npt.NDArray[np.bool_]


class BlockEmbedder(Protocol):
    """Embeds blocks; in what order, and where, is its own business, the result is not."""

    def embed(self, tasks: Iterator[BlockTask]) -> Iterator[tuple[BlockTask, EmbeddedBlock]]:
        """Yield every task with what came of it.

        Raises:
            S4GError: a source is damaged, or the encoder failed.
        """
        ...


class LocalEmbedder:
    """This process: the encoder works while threads read the imagery of the next blocks."""

    def __init__(
        self,
        layers: Sequence[GroundSource],
        engine: Engine,
        frame: LocalFrame,
        variants: Sequence[Variant],
        min_valid: float,
        workers: int,
    ) -> None:
        """Take what every block is embedded with; `workers` threads read."""
        self._layers, self._engine, self._frame = layers, engine, frame
        self._variants, self._min_valid, self._workers = variants, min_valid, workers

    def embed(self, tasks: Iterator[BlockTask]) -> Iterator[tuple[BlockTask, EmbeddedBlock]]:
        """Yield the tasks in order, each with its block."""
        for task, future in self._read_ahead(tasks):
            found = embed_block(
                future.result(),
                task.block,
                task.lattice,
                task.wanted,
                self._variants,
                self._engine,
                self._min_valid,
                margin_px(task.lattice.input_px, self._variants),
            )
            yield task, found

    def _read_ahead(
        self, tasks: Iterator[BlockTask]
    ) -> Iterator[tuple[BlockTask, Future[list[GroundImage]]]]:
        waiting: deque[tuple[BlockTask, Future[list[GroundImage]]]] = deque()
        with ThreadPoolExecutor(self._workers, "s4g-read") as pool:
            try:
                for task in tasks:
                    margin = margin_px(task.lattice.input_px, self._variants)
                    future = pool.submit(read_block, self._layers, self._frame, task.block, margin)
                    waiting.append((task, future))
                    if len(waiting) > self._workers:
                        yield waiting.popleft()
                while waiting:
                    yield waiting.popleft()
            finally:
                for _, future in waiting:
                    future.cancel()
