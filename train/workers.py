"""Processes that read whole batches of pictures, started once and ended for certain.

They are spawned, not forked: a fork copies locks that OpenCV's and torch's threads hold and may
wait for them for ever.
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.util
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
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

from ..core.errors import InputError, S4GError
from ..core.images import decode_rgb, encode_rgb
from .dataset import Images, UnreadableImageError
from .relations import Indices

# Quality of the recompression, as in the original's augmentation.
_JPEG_QUALITY = (90, 100)
_PREFETCHED = 2  # batches a worker keeps ready
_SHARED_MEMORY = Path("/dev/shm")  # where batches pass from worker to trainer
_DEATH_S = 1.0  # how long a process that broke its pipe may take to die

_POOLS: WeakSet[Pool] = WeakSet()


class View(NamedTuple):
    """One side of what is read together: item i shows picture `rows[i]`."""

    images: Images
    rows: Indices
    size_px: tuple[int, int]


def whole(images: Images, size_px: tuple[int, int]) -> View:
    """Return all pictures of a collection as a view; item i is picture i."""
    return View(images, np.arange(len(images), dtype=np.int32), size_px)


class Read(NamedTuple):
    """What a worker hands back; errors as values, as torch would wrap them in a traceback.

    Attributes:
        images: (n, H, W, 3) uint8 of each side; black where a picture cannot be read.
        valid: (n,) bool; False where a picture of any side cannot be read.
        failures: name and reason of what could not be read.
        error: what ended the reading early.
    """

    images: tuple[torch.Tensor, ...]
    valid: torch.Tensor
    failures: list[tuple[str, str]]
    error: S4GError | None


class ReadSet(NamedTuple):
    """What can be read: one or two sides, and how often a picture is recompressed."""

    views: tuple[View, ...]
    jpeg: float = 0.0

    def zeros(self, count: int) -> tuple[torch.Tensor, ...]:
        """Return black pictures: (count, H, W, 3) uint8 of each side."""
        return tuple(torch.zeros((count, *v.size_px, 3), dtype=torch.uint8) for v in self.views)


class _Part(NamedTuple):
    """An item of the plan: which of a set are read together."""

    number: int  # of the set
    items: npt.NDArray[np.int64]


class Reader(Dataset[Read]):
    """Reads whole batches of several sets; a copy lives in each worker."""

    def __init__(self, sets: tuple[ReadSet, ...], seed: int) -> None:
        """Keep what can be read; `seed` is of the recompression."""
        self.sets, self._seed = sets, seed

    def __getitem__(self, part: _Part) -> Read:
        """Read one batch."""
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
            return Read(out, valid, failures, error)
        for batch in out:
            batch[~valid] = 0
        return Read(out, valid, failures, None)


class _Plan(Sampler[_Part]):
    """The order of the batches; replaced from epoch to epoch under the same workers."""

    def __init__(self) -> None:
        self.parts: Sequence[_Part] = ()

    def __iter__(self) -> Iterator[_Part]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


class Pool:
    """A reader in this process or in workers of its own."""

    def __init__(self, reader: Reader, workers: int, pin: bool) -> None:
        """Prepare; no process is started yet.

        Args:
            reader: what it can read.
            workers: processes; 0 reads in this one.
            pin: whether batches go to page-locked memory, for a GPU.
        """
        self._reader, self._workers = reader, workers
        self._processes: set[BaseProcess] = set()
        self._owner = os.getpid()
        _POOLS.add(self)
        self._plan = _Plan()
        self._loader: DataLoader[Read] = DataLoader(
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

    def read(self, batches: Sequence[npt.NDArray[np.int64]], number: int = 0) -> Iterator[Read]:
        """Read batches of items of a set, in order.

        Args:
            batches: which items are read together.
            number: of the set.

        Raises:
            InputError: there is too little shared memory.
            S4GError: a process died, or reading failed otherwise.
        """
        self._plan.parts = [_Part(number, items) for items in batches]
        if self._workers and batches and not self._processes:
            self._check_shared_memory(number, max(map(len, batches)))
        stream: Iterator[Read] | None = None
        for _ in batches:
            try:
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

    def _start(self) -> Iterator[Read]:
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
        """End the processes with the last reference."""
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
