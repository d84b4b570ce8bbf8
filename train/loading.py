"""Batches from picture files, made ahead by worker processes that live as long as the training.

Processes are spawned, not forked: a fork copies locks that OpenCV's and torch's threads hold and
may wait for them for ever.
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.util
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakSet

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..core.console import say
from ..core.errors import InputError, S4GError
from ..core.images import decode_rgb, encode_rgb
from .dataset import Image, Images, PairSet, UnreadableImageError
from .relations import Indices

# Quality of the recompression, as in the original's augmentation.
_JPEG_QUALITY = (90, 100)
_PREFETCHED = 2  # batches a worker keeps ready
_SHARED_MEMORY = Path("/dev/shm")  # where batches pass from worker to trainer
_NAMED = 3  # files named when there are too many to list
_DEATH_S = 1.0  # how long a process that broke its pipe may take to die

_POOLS: WeakSet[_Pool] = WeakSet()


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


class LoaderRate(NamedTuple):
    """How the loading went over some time.

    Attributes:
        images_per_s: images delivered over wall time.
        wait_share: share of the wall time spent waiting for a batch. On a GPU that still works
            on earlier steps this is an upper bound of what the loading costs.
    """

    images_per_s: float
    wait_share: float


class LoaderClock:
    """Measures a `LoaderRate` from one `take` to the next."""

    def __init__(self) -> None:
        """Start now."""
        self.restart()

    def restart(self) -> None:
        """Forget the past; for after a validation, which is no training time."""
        self._since_s = time.perf_counter()
        self._waited_s = 0.0
        self._images = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting."""
        start_s = time.perf_counter()
        try:
            yield
        finally:
            self._waited_s += time.perf_counter() - start_s

    def count(self, images: int) -> None:
        """Count delivered images."""
        self._images += images

    def take(self) -> LoaderRate:
        """Return the rate since the last `take` or `restart`, and start anew."""
        passed_s = max(time.perf_counter() - self._since_s, 1e-9)
        rate = LoaderRate(self._images / passed_s, min(1.0, self._waited_s / passed_s))
        self.restart()
        return rate


class PairLoader:
    """Reads planned batches of pairs; the worker processes are started once.

    Attributes:
        unreadable: what could not be read so far, on this rank.
        clock: rate and waiting share.
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
        self.clock = LoaderClock()
        self._rank, self._world = rank, world
        views = (
            _View(pairs.queries, pairs.pair_query, query_px),
            _View(pairs.references, pairs.pair_reference, reference_px),
        )
        sets = [_Set(views, jpeg), *(_Set((_whole(images, size),)) for images, size in others)]
        self._pool = _Pool(_Reader(tuple(sets), seed), workers, torch.cuda.is_available())

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
        for pairs, everyones, read in zip(
            mine, planned, self._pool.read(list(mine), self.clock), strict=True
        ):
            for name, reason in read.failures:
                self.unreadable.add(name, reason)
            self.clock.count(2 * share)
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
        for read in self._pool.read(_split(rows, batch), LoaderClock(), 1 + number):
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
) -> Iterator[Image]:
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
    whole = _Set((_whole(images, (height_px, width_px)),))
    pool = _Pool(_Reader((whole,), 0), workers, pin=False)
    parts = _split(whole.views[0].rows, batch)
    try:
        for read in pool.read(parts, LoaderClock()):
            for _, reason in read.failures:
                raise UnreadableImageError(reason)
            yield read.images[0].numpy()
    finally:
        pool.end()


class _View(NamedTuple):
    """One side of what is read together: item i shows picture `rows[i]`."""

    images: Images
    rows: Indices
    size_px: tuple[int, int]


def _whole(images: Images, size_px: tuple[int, int]) -> _View:
    return _View(images, np.arange(len(images), dtype=np.int32), size_px)


def _split(rows: Indices, batch: int) -> list[npt.NDArray[np.int64]]:
    chosen = np.asarray(rows, np.int64)
    return [chosen[start : start + batch] for start in range(0, len(chosen), batch)]


class _Read(NamedTuple):
    """What a worker hands back.

    Errors come as values: torch would wrap an exception in the worker's traceback.
    """

    images: tuple[torch.Tensor, ...]
    valid: torch.Tensor
    failures: list[tuple[str, str]]
    error: S4GError | None


class _Set(NamedTuple):
    """What can be read: one or two sides, and how often a picture is recompressed."""

    views: tuple[_View, ...]
    jpeg: float = 0.0

    def zeros(self, count: int) -> tuple[torch.Tensor, ...]:
        """Return black pictures: (count, H, W, 3) uint8 of each side."""
        return tuple(torch.zeros((count, *v.size_px, 3), dtype=torch.uint8) for v in self.views)


class _Part(NamedTuple):
    """An item of the plan: which of a set are read together."""

    number: int  # of the set
    items: npt.NDArray[np.int64]


class _Reader(Dataset[_Read]):
    """Reads whole batches of several sets; a copy lives in each worker."""

    def __init__(self, sets: tuple[_Set, ...], seed: int) -> None:
        self.sets, self._seed = sets, seed

    def __getitem__(self, part: _Part) -> _Read:
        views, jpeg = self.sets[part.number]
        items = part.items
        count = len(items)
        out = self.sets[part.number].zeros(count)
        valid = torch.ones(count, dtype=torch.bool)
        failures: list[tuple[str, str]] = []
        # Drawn from what is read, so that no worker and no resume makes a difference.
        rng = np.random.default_rng((self._seed, *items.tolist()))
        draws = rng.random((count, len(views)))
        qualities = rng.integers(_JPEG_QUALITY[0], _JPEG_QUALITY[1] + 1, draws.shape)
        try:
            for at, item in enumerate(items):
                for view, batch, draw, quality in zip(
                    views, out, draws[at], qualities[at], strict=True
                ):
                    picture = int(view.rows[item])
                    try:
                        image = view.images.read(picture, *view.size_px)
                    except UnreadableImageError as error:
                        failures.append((view.images.name(picture), str(error)))
                        valid[at] = False
                        continue
                    if draw < jpeg:
                        image = decode_rgb(encode_rgb(image, ".jpg", int(quality)), "recompressed")
                    batch[at].numpy()[...] = image
        except S4GError as error:
            return _Read(out, valid, failures, error)
        for batch in out:
            batch[~valid] = 0
        return _Read(out, valid, failures, None)


class _Plan(Sampler[_Part]):
    """The order of the batches; replaced from epoch to epoch under the same workers."""

    def __init__(self) -> None:
        self.parts: Sequence[_Part] = ()

    def __iter__(self) -> Iterator[_Part]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


class _Pool:
    """A reader in this process or in workers of its own."""

    def __init__(self, reader: _Reader, workers: int, pin: bool) -> None:
        self._reader, self._workers = reader, workers
        self._processes: set[BaseProcess] = set()
        self._owner = os.getpid()
        _POOLS.add(self)
        self._plan = _Plan()
        self._loader: DataLoader[_Read] = DataLoader(
            reader,
            batch_size=None,  # an item of the plan is a batch
            sampler=self._plan,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=pin,
            multiprocessing_context="spawn" if workers else None,
            worker_init_fn=_start_worker,
            persistent_workers=workers > 0,
            prefetch_factor=_PREFETCHED if workers else None,
            # Its own: without it every epoch would draw from the model's random numbers.
            generator=torch.Generator(),
        )

    def read(
        self, batches: Sequence[npt.NDArray[np.int64]], clock: LoaderClock, number: int = 0
    ) -> Iterator[_Read]:
        """Read batches of items of a set in order, measuring how long each is waited for."""
        self._plan.parts = [_Part(number, items) for items in batches]
        if self._workers and batches and not self._processes:
            self._check_shared_memory(number, max(map(len, batches)))
        stream: Iterator[_Read] | None = None
        for _ in batches:
            try:
                with clock.waiting():
                    stream = self._start() if stream is None else stream
                    read = next(stream)
            except Exception:
                # It may show as a broken pipe, a lost batch or torch's own complaint; and the
                # pipe may break before the system reports the death.
                ends = {process.sentinel: process for process in self._processes}
                died = connection.wait(list(ends), timeout=_DEATH_S) if ends else []
                if not died:
                    raise
                process = ends[died[0]]  # type: ignore[index]
                process.join(_DEATH_S)
                raise S4GError(
                    f"a process that reads images died (exit code {process.exitcode}); "
                    "if memory ran out, lower --workers"
                ) from None
            if read.error is not None:
                raise read.error
            yield read

    def _start(self) -> Iterator[_Read]:
        """Start on the plan; the first time, start the processes.

        Torch sets a handler that raises, wherever the trainer happens to be, when a child ends:
        in the middle of a save, say, or holding a lock that it then keeps. Without it a death is
        noticed while waiting for a batch, within five seconds.
        """
        others = set(multiprocessing.active_children())
        settable = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGCHLD)
        try:
            stream = iter(self._loader)
        finally:
            if settable:
                signal.signal(signal.SIGCHLD, handler)
        self._processes |= set(multiprocessing.active_children()) - others
        return stream

    def end(self) -> None:
        """End the processes.

        By force: they have nothing to lose, torch's own way may wait ten seconds for a process
        that did not hear, and they ignore the signal by which Python asks.
        """
        if os.getpid() != self._owner:  # a fork of the trainer has a copy of this object
            return
        for process in self._processes:
            if process.is_alive():
                process.kill()

    def __del__(self) -> None:
        self.end()

    def _check_shared_memory(self, number: int, pictures: int) -> None:
        """Refuse what would end as a bus error in a worker."""
        if not _SHARED_MEMORY.is_dir():
            return
        views = self._reader.sets[number].views
        batch_bytes = sum(3 * pictures * v.size_px[0] * v.size_px[1] for v in views)
        needed = self._workers * _PREFETCHED * batch_bytes
        free = shutil.disk_usage(_SHARED_MEMORY).free
        if needed > free:
            raise InputError(
                f"--workers {self._workers}: batches made ahead need {needed >> 20} MiB of shared "
                f"memory, {_SHARED_MEMORY} has {free >> 20} MiB free; lower --workers or give the "
                "container more (docker: --shm-size)"
            )


def _as_it_is(read: Any) -> Any:
    return read


def _start_worker(number: int) -> None:
    # Ctrl-C and a job scheduler signal the whole process group; the trainer saves and then ends
    # its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(0)


@atexit.register
def _end_pools() -> None:
    """End the processes that an error left running; Python would wait for them for ever.

    It does so after this: functions are called in reverse order of registration, and
    multiprocessing, imported above, registered its own first.
    """
    for pool in list(_POOLS):
        pool.end()
