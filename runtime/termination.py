"""SIGTERM, with which systemd and `kill` end a run, ends it in order, as Ctrl-C does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Raise KeyboardInterrupt in the main thread at the first SIGTERM; a second one ends at once.

    A live run then closes its files with what it found and exits with 0; one that reads files ends
    as after Ctrl-C. In another thread than the main one, where Python takes no signals, this does
    nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def take(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, before)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, take)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
