"""Batches made ahead of a GPU, and copies to it that nobody waits for."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

import torch

from .source import Batch

T = TypeVar("T")

_DEPTH = 2


def uploaded(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a CPU tensor on a device; a GPU fetches it when it gets there.

    A plain `.to` waits until the GPU has done all that was asked of it before.
    """
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def ahead(batches: Generator[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield `batches`; for a GPU they are made by a thread, on a stream beside the training's."""
    if device.type != "cuda":
        yield from batches
        return
    training = torch.cuda.current_stream(device)
    making = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    making.wait_stream(training)

    def marked() -> Generator[tuple[Batch, torch.cuda.Event]]:
        for batch in batches:
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(making)
            yield batch, done

    for batch, done in made_by_thread(marked(), _DEPTH, torch.cuda.stream(making)):
        training.wait_event(done)
        for images in (batch.queries, batch.references):
            # Their memory must not be given to the next batch while the network still reads it.
            images.record_stream(training)
        yield batch


def made_by_thread(
    items: Generator[T], depth: int, inside: contextlib.AbstractContextManager[object] | None = None
) -> Iterator[T]:
    """Yield `items`, which a thread makes up to `depth` ahead, and what it raises.

    However the iterator is left, the thread ends with the item it is making.

    Args:
        items: is used by the thread alone.
        depth: items that wait.
        inside: what the thread enters first.
    """
    ready: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def make() -> None:
        try:
            with inside or contextlib.nullcontext(), contextlib.closing(items):
                for item in items:
                    ready.put((item,))
                    if stop.is_set():
                        break
            ready.put(None)
        except BaseException as error:
            ready.put(error)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while (found := ready.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found[0]
    finally:
        stop.set()
        while thread.is_alive():  # it may wait for room
            with contextlib.suppress(queue.Empty):
                ready.get(timeout=0.05)
