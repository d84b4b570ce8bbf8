"""Where flight logs lie: `DIR/flight-0007/0001.mcap`, numbered, for a drone's clock may be wrong.

The folder keeps within a cap: the oldest segments go first, those of the oldest flight before any
of a newer one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import InputError

_FLIGHT = re.compile(r"flight-(\d{4,9})")
_SEGMENT = re.compile(r"(\d{4,9})\.mcap")
_LOCK = ".lock"


@dataclass(frozen=True)
class SegmentFile:
    """A segment on disk; segments sort by age, the oldest first."""

    flight: int
    number: int
    path: Path
    size: int


def flight_folder(folder: Path, flight: int) -> Path:
    """Return where the segments of a flight lie."""
    return folder / f"flight-{flight:04d}"


def segment_path(folder: Path, flight: int, segment: int) -> Path:
    """Return where a segment lies."""
    return flight_folder(folder, flight) / f"{segment:04d}.mcap"


def flights_of(folder: Path) -> dict[int, Path]:
    """Return the folders of the flights by number, the oldest first.

    Raises:
        OSError: the folder cannot be read.
    """
    found = {}
    for path in folder.iterdir():
        match = _FLIGHT.fullmatch(path.name)
        if match is not None and path.is_dir() and not path.is_symlink():
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def segments_of(flight: int, path: Path) -> list[SegmentFile]:
    """Return the segments of a flight, the oldest first.

    Raises:
        OSError: the folder cannot be read.
    """
    found = []
    for file in path.iterdir():
        match = _SEGMENT.fullmatch(file.name)
        if match is not None and file.is_file() and not file.is_symlink():
            found.append(SegmentFile(flight, int(match[1]), file, file.stat().st_size))
    return sorted(found, key=lambda one: one.number)


def make_room(folder: Path, needed_bytes: int, cap_bytes: int) -> int:
    """Remove the oldest segments until so many bytes more fit under the cap; return how many.

    Raises:
        OSError: one cannot be removed, so that the cap cannot be kept.
    """
    flights = flights_of(folder)
    segments = [one for number, path in flights.items() for one in segments_of(number, path)]
    used = sum(one.size for one in segments)
    removed = 0
    for one in segments:
        if used + needed_bytes <= cap_bytes:
            break
        one.path.unlink()
        used -= one.size
        removed += 1
        # Folders of flights of which nothing is left; this flight's is about to be written to.
        if one.flight != max(flights):
            with contextlib.suppress(OSError):
                one.path.parent.rmdir()
    return removed


def new_flight(folder: Path) -> int:
    """Make the folder of the next flight and return its number.

    Raises:
        OSError: it cannot be made.
    """
    number = max(flights_of(folder), default=0) + 1
    flight_folder(folder, number).mkdir()
    return number


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second recorder out of a folder, whose cap would be broken by it.

    Raises:
        InputError: there is one.
        OSError: the folder cannot be written.
    """
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise InputError(
                f"--log-dir {folder}: another s4g-run records there; give each its own folder"
            ) from None
        yield
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Have the names of new files outlast a power cut.

    Raises:
        OSError: the disk refuses.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
