"""An open file whose bytes are read, not mapped, so that whatever becomes of it ends no process.

To touch a mapped page that was cut off raises SIGBUS, which nothing catches. What is read here is
either what the file held when it was opened, as far as its size and time tell, or an error.
"""

from __future__ import annotations

import errno
import io
import mmap
import os
import stat
import threading
from pathlib import Path

from .errors import InputError, IntegrityError


class OpenFile:
    """A file open for reading until nothing refers to it any more; several threads may read.

    Attributes:
        path: the file.
        size: its bytes when it was opened.
    """

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            InputError: it cannot be read.
        """
        self.path = path
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            self._opened = os.fstat(self._descriptor)
            if stat.S_ISDIR(self._opened.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        self.size = self._opened.st_size
        self._raw = io.FileIO(self._descriptor, closefd=False)
        self._lock = threading.Lock()

    def __del__(self) -> None:
        """Close it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read_into(self, start: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes from `start` on.

        Raises:
            IntegrityError: the file is not what was opened any more.
        """
        done = 0
        with self._lock:
            try:
                self._raw.seek(start)
                while done < len(buffer) and (count := self._raw.readinto(buffer[done:])):
                    done += count
            except OSError as error:  # the disk, or the server it lies on, is gone
                raise self._lost(f"cannot be read any more ({error.strerror})") from None
        # After reading, so that a change meanwhile is seen as well.
        why = self._changed() or ("ends too early" if done < len(buffer) else None)
        if why is not None:
            raise self._lost(why)

    def map(self) -> mmap.mmap:
        """Map all of it, which must not be empty: for those who need not outlive a change of it."""
        return mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)

    def fate(self) -> str | None:
        """Return what became of the file since it was opened, None while it is as it was."""
        if (why := self._changed()) is not None:
            return why
        try:
            there = self.path.stat()
        except OSError:
            return "is gone"
        same = (there.st_dev, there.st_ino) == (self._opened.st_dev, self._opened.st_ino)
        return None if same else "was replaced"

    def _changed(self) -> str | None:
        now, opened = os.fstat(self._descriptor), self._opened
        if now.st_size < opened.st_size:
            return "was cut short while it was open"
        if (now.st_size, now.st_mtime_ns) != (opened.st_size, opened.st_mtime_ns):
            return "was written over while it was open"
        return None

    def _lost(self, why: str) -> IntegrityError:
        return IntegrityError(f"{self.path}: {why}; a file in use is replaced by rename (mv)")


class FilePart:
    """A run of an open file's bytes, with as much of a memoryview's manners as its readers need."""

    def __init__(self, file: OpenFile, start: int, length: int) -> None:
        """See `OpenFile`; nothing is read yet."""
        self._file: OpenFile | None = file
        self._start, self._length = start, length

    def __len__(self) -> int:
        """Return how many bytes it has."""
        return self._length

    def __getitem__(self, places: slice) -> FilePart:
        """Return a part of it, not read either."""
        start, stop, step = places.indices(self._length)
        if step != 1:
            raise ValueError("only runs of bytes are read")
        return FilePart(self._open, self._start + start, max(0, stop - start))

    def __bytes__(self) -> bytes:
        """Read it.

        Raises:
            IntegrityError: the file is not what was opened any more.
        """
        data = bytearray(self._length)
        self.read_into(memoryview(data))
        return bytes(data)

    def read_into(self, buffer: memoryview) -> None:
        """Fill a buffer of its length.

        Raises:
            IntegrityError: the file is not what was opened any more.
        """
        self._open.read_into(self._start, buffer)

    def release(self) -> None:
        """Let go of the file."""
        self._file = None

    @property
    def _open(self) -> OpenFile:
        if self._file is None:
            raise ValueError("a part of a file was read after it was released")
        return self._file


# What archives are read from: memory, mapped or not, or a part of a file.
Archive = memoryview | FilePart
