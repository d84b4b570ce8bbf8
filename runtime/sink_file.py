"""Files that outputs write while the drone flies: never half a record, on the disk every second.

A write that fails, because the disk is full, is taken back, so that what was there before stays
readable. A file that was moved or deleted in flight is begun anew where its folder is back.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..core.errors import InputError
from ..core.files import check_output, why_not_written
from .sink import Moment, SinkUrl

if TYPE_CHECKING:
    from .cli_part import Running

_S = TypeVar("_S")

_NUMBER = "{n}"
SYNC_S = 1.0  # at a power cut this much is lost


def create_for(url: SinkUrl, example: str, running: Running, begin: Callable[[SafeFile], _S]) -> _S:
    """Create the file that a URL names and begin an output with it.

    Args:
        url: `KIND:FILE`.
        example: name of a file, for the error.
        running: tells whether files that exist may be replaced.
        begin: writes what the file begins with.

    Raises:
        InputError: the URL names no file, one that exists, or one that cannot be written. Nothing
            is left behind.
    """
    path = file_of(url, example)
    file = SafeFile(path, may_overwrite(running))
    try:
        return begin(file)
    except OSError as error:
        file.discard()
        raise InputError(f"{path}: {error.strerror or error}") from None


def may_overwrite(running: Running) -> bool:
    """Tell whether files that exist may be replaced (`--overwrite`)."""
    return bool(running.options.get("overwrite", False))


def file_of(url: SinkUrl, example: str) -> Path:
    """Return the file that a URL names; `{n}` in its name becomes one more than there is.

    So a run that is started again, by hand or after a crash, neither fails nor takes away what the
    one before has written. A number, as the clock of a drone that has just booted may be wrong.

    Raises:
        InputError: it names a host, or nothing.
    """
    if url.via is not None or not url.rest:
        raise InputError(f"--to {url.url}: expected {url.kind}:FILE, such as {url.kind}:{example}")
    path = Path(url.rest)
    if _NUMBER not in path.name:
        return path
    pattern = re.escape(path.name).replace(re.escape(_NUMBER), "([0-9]{1,9})", 1)
    numbers = [0]
    with contextlib.suppress(OSError):  # a folder that is not there is told later
        found = (re.fullmatch(pattern, other.name) for other in path.parent.iterdir())
        numbers += [int(match[1]) for match in found if match]
    return path.with_name(path.name.replace(_NUMBER, f"{max(numbers) + 1:03d}", 1))


def log_time_ns(moment: Moment) -> int:
    """Return the time that a log has for a moment, nanoseconds.

    UTC where it is known, else the frames' clock; of photos, that have neither, when it is.
    """
    if moment.utc_s is not None:
        return round(moment.utc_s * 1e6) * 1000
    if moment.fix.t is not None:
        return max(round(moment.fix.t * 1e6) * 1000, 0)
    return time.time_ns()


class SafeFile:
    """A file of which only the end is written.

    Attributes:
        path: its name.
        size: bytes that are in it.
    """

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        """Create the file.

        Raises:
            InputError: it exists and `overwrite` is false, or it cannot be written.
        """
        self.path = path
        try:
            check_output(path, overwrite)
            if path.is_dir():
                raise InputError(f"{path}: is a folder; give the name of a file")
            self._descriptor: int | None = _create(path, overwrite)
        except OSError as error:
            raise InputError(f"{path}: cannot write {why_not_written(error)}") from None
        self.size = 0
        self._synced_s = time.monotonic()

    @property
    def is_gone(self) -> bool:
        """Whether it was found missing; see `begin_anew`."""
        return self._descriptor is None

    def replace_end(self, start: int, data: bytes, old_end: bytes = b"") -> None:
        """Write `data` from byte `start` on; the file ends with it.

        Args:
            start: at most `size`.
            data: no shorter than what it replaces.
            old_end: what lies from `start` on; put back where the write fails.

        Raises:
            OSError: nothing was changed: the disk is full, the file is gone.
        """
        if self._descriptor is None:
            raise FileNotFoundError(f"{self.path} was moved or deleted")
        before = self.size
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._descriptor, data[written:], start + written)
        except OSError as error:
            # The old end had room, so it needs none now.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, before)
                os.pwrite(self._descriptor, old_end, start)
            raise OSError(error.errno, f"cannot write {why_not_written(error)}") from None
        self.size = start + len(data)

    def sync(self, at_once: bool = False) -> None:
        """Bring it to the disk, if that is a second ago; see whether it is still there.

        Raises:
            OSError: the disk is gone, or the file was moved or deleted.
        """
        if self._descriptor is None:
            raise FileNotFoundError(f"{self.path} was moved or deleted")
        now_s = time.monotonic()
        if not at_once and now_s - self._synced_s < SYNC_S:
            return
        self._synced_s = now_s
        os.fsync(self._descriptor)
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self._descriptor), self.path.stat()):
                return
        self._close()
        raise FileNotFoundError(f"{self.path} was moved or deleted")

    def begin_anew(self) -> None:
        """Create it again after it was found missing; once a second at most.

        Raises:
            OSError: its folder is missing too, or another file has its name.
        """
        now_s = time.monotonic()
        if now_s - self._synced_s < SYNC_S:
            raise FileNotFoundError(f"{self.path} was moved or deleted")
        self._synced_s = now_s
        self._descriptor = _create(self.path, False)
        self.size = 0

    def close(self) -> None:
        """Bring it to the disk and close it.

        Raises:
            OSError: it cannot be brought there.
        """
        if self._descriptor is not None:
            try:
                self.sync(at_once=True)
            finally:
                self._close()

    def discard(self) -> None:
        """Close and delete it."""
        is_there, descriptor = False, self._descriptor
        if descriptor is not None:
            with contextlib.suppress(OSError):
                is_there = os.path.samestat(os.fstat(descriptor), self.path.stat())
            self._close()
        if is_there:
            self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _create(path: Path, overwrite: bool) -> int:
    how = os.O_TRUNC if overwrite else os.O_EXCL
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | how, 0o644)
