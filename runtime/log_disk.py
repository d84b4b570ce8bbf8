"""The disk side of the flight recorder: segments that follow each other, and a disk that fails.

Everything here runs in the recorder's own thread.
"""

from __future__ import annotations

import contextlib
import errno
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.console import say
from ..core.files import why_not_written
from .log_folder import flight_folder, make_room, segment_path, sync_folder
from .log_format import FLIGHT, Flight, flight_json
from .log_segment import Segment

_RETRY_S = 2.0
_SEGMENTS = 16  # in the cap, so that little is lost when the oldest goes
_LEAST_SEGMENT, _MOST_SEGMENT = 1 << 20, 64 << 20
_INDEX_SHARE = 1.05  # what a segment's index adds to it at most


@dataclass(frozen=True)
class RecorderOptions:
    """How a flight is recorded.

    Attributes:
        folder: of all flights.
        cap_bytes: for all of them together.
        frames_hz: pictures a second on the frames' clock; inf for every one, 0 for none.
        exact: whether a camera's frames are kept to the last bit.
    """

    folder: Path
    cap_bytes: int
    frames_hz: float = math.inf
    exact: bool = True

    @property
    def segment_bytes(self) -> int:
        """Size at which a file ends and the next begins."""
        return min(max(self.cap_bytes // _SEGMENTS, _LEAST_SEGMENT), _MOST_SEGMENT)


class LogDisk:
    """Where a flight's messages go.

    Attributes:
        unwritten: steps that found no room, or were not safe yet when the disk failed.
    """

    def __init__(self, options: RecorderOptions, flight: Flight, time_ns: int) -> None:
        """Write the head of the first segment.

        Raises:
            OSError: the folder cannot be written.
        """
        self.unwritten = 0
        self._options = options
        self._flight = flight
        self._was_on_root = _is_on_root(options.folder)
        self._segment: Segment | None = None
        self._segments = 0
        self._unsynced = 0  # steps that a power cut would take
        self._retry_s = 0.0
        self._trouble = ""
        self._open(0, 0, time_ns)

    @property
    def is_failing(self) -> bool:
        """Whether nothing can be written now."""
        return bool(self._trouble)

    def attempt(self, write: Callable[[], None]) -> bool:
        """Write something; where that fails tell it once, and tell whether it was written."""
        if self._trouble and time.monotonic() < self._retry_s:
            return False
        try:
            write()
        except OSError as error:
            self.abandon()
            self.unwritten += self._unsynced
            self._unsynced = 0
            self._retry_s = time.monotonic() + _RETRY_S
            if not self._trouble:
                self._trouble = why_not_written(error)
                say(
                    f"flight log: {self._options.folder}: cannot write {self._trouble}; fixes go "
                    "on, the log does when it can"
                )
            return False
        return True

    def room(self, number: int, needed_bytes: int, time_ns: int) -> Segment:
        """Return the segment that so much more is to go into, a new one where that is full.

        Raises:
            OSError: the disk is full or gone.
        """
        segment = self._segment
        if segment is not None:
            if segment.size + needed_bytes <= self._options.segment_bytes:
                return segment
            segment.close()
            self._segment, self._unsynced = None, 0
        segment = self._open(number, needed_bytes, time_ns)
        if self._trouble:
            self._trouble = ""
            say(f"flight log: {self._options.folder}: goes on; {self.unwritten} frames are missing")
        return segment

    def count_step(self) -> None:
        """Note that a step was written, but is not safe yet."""
        self._unsynced += 1

    def sync(self) -> None:
        """Have all that was written outlast a power cut.

        Raises:
            OSError: the disk is full or gone.
        """
        if self._segment is not None:
            self._segment.sync()
            self._unsynced = 0

    def close(self) -> None:
        """End the file.

        Raises:
            OSError: the disk is full or gone.
        """
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def abandon(self) -> None:
        """Let go of the file as it is."""
        if self._segment is not None:
            self._segment.abandon()
            self._segment = None

    def _open(self, number: int, needed_bytes: int, time_ns: int) -> Segment:
        folder, flight = self._options.folder, self._flight.flight
        if _is_on_root(folder) and not self._was_on_root:
            # What is left where a disk was mounted that was unplugged.
            raise OSError(errno.ENODEV, "its disk is gone", str(folder))
        most_bytes = max(self._options.segment_bytes, needed_bytes)
        make_room(folder, int(most_bytes * _INDEX_SHARE), self._options.cap_bytes)
        flight_folder(folder, flight).mkdir(exist_ok=True)
        self._segments += 1
        path = segment_path(folder, flight, self._segments)
        segment = Segment(path)
        head = replace(self._flight, segment=self._segments, first_step=number)
        try:
            segment.add(FLIGHT, number, flight_json(head), time_ns)
            segment.sync()
            sync_folder(path.parent)
        except OSError:
            segment.abandon()
            with contextlib.suppress(OSError):
                path.unlink()  # or a full disk fills with empty files
            raise
        self._segment = segment
        return segment


def _is_on_root(folder: Path) -> bool:
    return folder.stat().st_dev == Path("/").stat().st_dev
