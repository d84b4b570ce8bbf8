"""Files of lines that grow: rotated, capped, written to again once a full disk has room."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from ..core.errors import InputError
from .sink import SinkUrl
from .transport import Carrier, refusal

_MB = 1_000_000
_DEFAULT_ROTATE_MB = 64
_DEFAULT_KEEP = 8
_SYNC_S = 1.0


class CappedFile:
    """A file that is moved to `NAME.1` when it is full, that to `NAME.2`, and so on.

    It is appended to; a last line that a power cut left unfinished is ended first. Once a second
    what was written is put on the disk.
    """

    let_go = 0

    def __init__(self, path: Path, rotate_bytes: int, keep: int) -> None:
        """Open it.

        Args:
            path: of the newest part.
            rotate_bytes: no part is larger, unless one message is; 0 for no end.
            keep: how many older parts there may be; the oldest is deleted.

        Raises:
            OSError: it cannot be written.
        """
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._keep = keep
        self._handle = -1
        self._bytes = 0
        self._synced_s = time.monotonic()
        self._is_regular = True
        self._is_torn = False  # the last line has no end
        self._open()

    def send(self, data: bytes) -> None:
        """Append, all of it or nothing.

        Raises:
            OSError: the disk is full, or gone.
        """
        if self._handle < 0:
            self._open()
        if self._rotate_bytes and self._bytes and self._bytes + len(data) > self._rotate_bytes:
            self._rotate()
        if self._is_torn:
            data = b"\n" + data
        written = 0
        try:
            while written < len(data):
                written += os.write(self._handle, data[written:])
        except OSError:
            if written and self._is_regular:
                with suppress(OSError):
                    os.ftruncate(self._handle, self._bytes)
            raise
        self._bytes += written
        self._is_torn = False

    def receive(self) -> bytes:
        """Put on the disk what was written, once a second."""
        now_s = time.monotonic()
        if self._is_regular and self._handle >= 0 and now_s - self._synced_s >= _SYNC_S:
            self._synced_s = now_s
            os.fdatasync(self._handle)
        return b""

    def close(self) -> None:
        """End the file."""
        if self._handle >= 0:
            if self._is_regular:
                with suppress(OSError):
                    os.fdatasync(self._handle)
            os.close(self._handle)
            self._handle = -1

    def _open(self) -> None:
        self._handle = os.open(
            self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644
        )
        self._is_regular = self._path.is_file()
        if not self._is_regular:
            self._rotate_bytes = 0
            if self._path.is_fifo():
                os.set_blocking(self._handle, False)  # whoever should read it may not
            return
        self._bytes = os.fstat(self._handle).st_size
        self._is_torn = bool(self._bytes) and (os.pread(self._handle, 1, self._bytes - 1) != b"\n")

    def _rotate(self) -> None:
        self.close()
        for number in range(self._keep, 0, -1):
            older = self._part(number - 1)
            with suppress(FileNotFoundError):
                older.replace(self._part(number))
        if self._keep == 0:
            self._path.unlink()
        self._open()

    def _part(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path


class Stdout:
    """Standard output, for whole lines."""

    let_go = 0

    def send(self, data: bytes) -> None:
        """Write.

        Raises:
            OSError: its reader is gone, or the disk full.
        """
        sent = 0
        while sent < len(data):
            sent += os.write(1, data[sent:])

    def receive(self) -> bytes:
        """Return nothing."""
        return b""

    def close(self) -> None:
        """Nothing to release."""


def open_file(url: SinkUrl) -> Carrier:
    """Open the file that an output's URL names; `rotate_mb` and `keep` are its settings.

    Raises:
        InputError: it cannot be written.
    """
    if url.rest == "-":
        return Stdout()
    rotate_mb = url.number("rotate_mb", _DEFAULT_ROTATE_MB, 0.001, 1e6)
    keep = int(url.number("keep", _DEFAULT_KEEP, 0, 10_000))
    path = Path(url.rest)
    if not url.rest:
        raise InputError(f"--to {url.url}: no file; give its name after {url.kind}:")
    if path.is_dir():
        raise InputError(f"--to {url.url}: a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise InputError(f"--to {url.url}: no folder {path.parent}; make it first")
    try:
        return CappedFile(path, int(rotate_mb * _MB), keep)
    except OSError as error:
        raise refusal(url, error, "check its rights and the disk") from None
