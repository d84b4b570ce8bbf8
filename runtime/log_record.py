"""The flight recorder: looks on while frames are matched, and writes in a thread of its own.

The thread that matches frames copies a camera's pixels (a photo's bytes it only refers to) and
puts a note into a queue. A disk that is slow fills the queue, and what no longer fits is left out
and counted; one that is full or gone is told once and tried again. Fixes never wait.
"""

from __future__ import annotations

import contextlib
import errno
import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ..core.console import say
from ..core.errors import S4GError
from ..core.files import why_not_written
from .board import Board, Reading
from .fix import Fix
from .frame_buffers import FrameBuffers, Pixels
from .frames import Frame
from .log_folder import flight_folder, make_room, segment_path, sync_folder
from .log_format import (
    BOARD,
    EXACT,
    FLIGHT,
    LOSSY,
    LOST,
    NOT_ASKED,
    NOTES,
    PHOTO,
    PICTURES,
    PLACES,
    RESIDUALS,
    STEPS,
    Flight,
    FrameNote,
    dump,
    flight_json,
    step_json,
)
from .log_pixels import pack_pixels, without_metadata
from .log_segment import Segment, image_message
from .observe import Observation
from .telemetry_sample import Sample

# What may wait for the disk: two seconds of 10 Hz at 1280 x 720 px, and hours of notes.
MAX_WAITING_BYTES = 64 << 20
MAX_WAITING = 10_000
_SYNC_S = 1.0
_RETRY_S = 2.0
_CLOSE_S = 10.0
_SEGMENTS = 16  # in the cap, so that little is lost when the oldest goes
_LEAST_SEGMENT, _MOST_SEGMENT = 1 << 20, 64 << 20
_INDEX_SHARE = 1.05  # what a segment's index adds to it at most
_INFO, _WARNING = 2, 3  # foxglove.Log


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


@dataclass(frozen=True)
class _Noted:
    """A step on its way to the disk."""

    number: int
    time_ns: int
    fix: Fix
    frame: Frame | None
    sample: Sample | None
    picture: str
    pixels: Pixels | bytes | None


@dataclass(frozen=True)
class _Said:
    """A line on its way to the disk."""

    time_ns: int
    level: int
    name: str
    text: str


class Recorder:
    """Records a flight until it is closed.

    Attributes:
        lost_steps: frames and outages of which nothing could be noted.
        lost_pictures: pictures that were left out, their steps noted.
        unwritten: steps that were noted but found no room on the disk.
    """

    def __init__(self, options: RecorderOptions, flight: Flight) -> None:
        """Write the first segment's head and start the thread.

        Raises:
            OSError: the folder cannot be written.
        """
        self.lost_steps = self.lost_pictures = self.unwritten = 0
        self._options = options
        self._flight = flight
        self._was_on_root = _is_on_root(options.folder)
        self._buffers = FrameBuffers()
        self._queue: queue.SimpleQueue[_Noted | _Said | None] = queue.SimpleQueue()
        self._steps = 0
        self._due_t: float | None = None
        self._put_bytes = self._done_bytes = 0  # each counted by one thread alone
        self._is_over = False
        self._begun_ns = time.time_ns() - time.monotonic_ns()
        self._segment: Segment | None = None
        self._segments = 0
        self._retry_s = self._sync_s = 0.0
        self._trouble = ""
        self._said_state = ""
        self._unsynced = 0  # steps that a power cut would take
        self._board: Reading | None = None
        self._open_segment(0, self._now_ns())
        self._thread = threading.Thread(target=self._run, name="s4g-log", daemon=True)
        self._thread.start()

    # ---- called by the thread that matches frames ------------------------------------------------

    def observe(self, seen: Observation) -> None:
        """Note a frame, or that there was none."""
        number = self._steps
        self._steps += 1
        if self._is_over or self._queue.qsize() >= MAX_WAITING:
            self.lost_steps += 1
            return
        picture, pixels = self._picture(seen)
        noted = _Noted(number, self._now_ns(), seen.fix, seen.frame, seen.sample, picture, pixels)
        self._put_bytes += _size(pixels)
        self._queue.put(noted)

    def _picture(self, seen: Observation) -> tuple[str, Pixels | bytes | None]:
        """Return what becomes of a frame's picture, and the picture where it is kept."""
        frame = seen.frame
        if frame is None or not self._is_wanted(seen):
            return NOT_ASKED, None
        if frame.decoded is None:
            assert frame.encoded is not None
            fate, size = PHOTO, len(frame.encoded)
        else:
            fate, size = EXACT if self._options.exact else LOSSY, frame.decoded.nbytes
        waiting = self._put_bytes - self._done_bytes
        if waiting and waiting + size > MAX_WAITING_BYTES:
            self.lost_pictures += 1
            return LOST, None
        if frame.decoded is None:
            return fate, frame.encoded
        try:
            pixels = self._buffers.take(frame.decoded.shape)
        except MemoryError:
            self.lost_pictures += 1
            return LOST, None
        np.copyto(pixels, frame.decoded)
        return fate, pixels

    def _is_wanted(self, seen: Observation) -> bool:
        hz = self._options.frames_hz
        if hz == math.inf or hz == 0:
            return hz > 0
        t = seen.fix.t
        if t is None:
            return True
        if self._due_t is not None and self._due_t - 1 / hz <= t < self._due_t:
            return False
        # Multiples of the period, so that a frame that comes late makes no other late.
        self._due_t = (math.floor(t * hz) + 1) / hz
        return True

    def _now_ns(self) -> int:
        """Return the machine's time at the start plus what has gone by since; it never jumps."""
        return self._begun_ns + time.monotonic_ns()

    # ---- called by any thread --------------------------------------------------------------------

    def note(self, text: str, name: str = "s4g-run", level: int = _INFO) -> None:
        """Note a line."""
        if not self._is_over and self._queue.qsize() < MAX_WAITING:
            self._queue.put(_Said(self._now_ns(), level, name, text))

    def close(self) -> None:
        """Write what waits and end the file; a disk that hangs is not waited for."""
        self._queue.put(None)
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            say(f"flight log: {self._options.folder}: the disk does not answer; its end is lost")
        elif self.lost_steps or self.lost_pictures or self.unwritten:
            say(
                f"flight log: {self.lost_steps + self.unwritten} frames and {self.lost_pictures} "
                "more pictures are missing in it; the disk was too slow, full or gone"
            )

    # ---- called by the recorder's own thread -----------------------------------------------------

    def _run(self) -> None:
        try:
            while (item := self._next()) is not None:
                self._keep(item)
            self._end()
        except Exception as error:
            self._is_over = True
            say(
                f"flight log: unexpected {type(error).__name__}: {error}; nothing more of this "
                "flight is recorded, fixes go on"
            )

    def _next(self) -> _Noted | _Said | None:
        """Return what is to be written, having seen to it that what was outlasts a power cut."""
        while True:
            now_s = time.monotonic()
            if now_s >= self._sync_s:
                self._try(self._sync)
                self._sync_s = now_s + _SYNC_S
            try:
                return self._queue.get(timeout=self._sync_s - now_s)
            except queue.Empty:
                continue

    def _sync(self) -> None:
        if self._segment is not None:
            self._write_board(self._segment)
            self._segment.sync()
            self._unsynced = 0

    def _write_board(self, segment: Segment) -> None:
        """Write what the machine's sensors said last, where somebody reads them."""
        reading = Board.latest
        if reading is not None and reading is not self._board:
            segment.add(BOARD, 0, dump(asdict(reading)), self._now_ns())
            self._board = reading

    def _keep(self, item: _Noted | _Said) -> None:
        number = item.number if isinstance(item, _Noted) else self._steps
        written = self._try(lambda: self._make_segment(number, item.time_ns))
        if isinstance(item, _Said):
            if written and self._segment is not None:
                self._try(lambda: self._write_line(item))
            return
        if not (written and self._try(lambda: self._write_step(item))):
            self.unwritten += 1
        self._done_bytes += _size(item.pixels)

    def _try(self, write: Callable[[], None]) -> bool:
        """Write, or stop writing for a while; tell whether it was written."""
        if self._trouble and time.monotonic() < self._retry_s:
            return False
        try:
            write()
        except OSError as error:
            if self._segment is not None:
                self._segment.abandon()
                self._segment = None
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

    def _make_segment(self, number: int, time_ns: int) -> None:
        """See to it that there is a segment with room."""
        if self._segment is not None:
            if self._segment.size < self._options.segment_bytes:
                return
            self._segment.close()
            self._segment, self._unsynced = None, 0
        self._open_segment(number, time_ns)
        if self._trouble:
            self._trouble = ""
            say(f"flight log: {self._options.folder}: goes on; {self.unwritten} frames are missing")

    def _open_segment(self, number: int, time_ns: int) -> None:
        folder, flight = self._options.folder, self._flight.flight
        if _is_on_root(folder) and not self._was_on_root:
            # What is left where a disk was mounted that was unplugged.
            raise OSError(errno.ENODEV, "its disk is gone", str(folder))
        make_room(folder, int(self._options.segment_bytes * _INDEX_SHARE), self._options.cap_bytes)
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

    def _write_step(self, noted: _Noted) -> None:
        assert self._segment is not None
        number, time_ns, picture = noted.number, noted.time_ns, noted.picture
        try:
            jpeg, residual = _packed(noted)
        except S4GError as error:
            jpeg, residual, picture = None, None, LOST
            self.lost_pictures += 1
            self.note(str(error), level=_WARNING)
        if jpeg is not None:
            self._segment.add(PICTURES, number, image_message(jpeg, time_ns), time_ns)
        if residual is not None:
            self._segment.add(RESIDUALS, number, residual, time_ns)
        frame = None if noted.frame is None else FrameNote.of(noted.frame, picture)
        # After its picture: a step that can be read is complete.
        self._segment.add(STEPS, number, step_json(number, noted.fix, frame, noted.sample), time_ns)
        self._unsynced += 1
        self._write_place(noted.fix, time_ns)
        said = noted.fix.state.value + (f" ({r.value})" if (r := noted.fix.reason) else "")
        if said != self._said_state:
            level = _INFO if noted.fix.lat is not None else _WARNING
            self._write_line(_Said(time_ns, level, "state", said))
            self._said_state = said

    def _write_place(self, fix: Fix, time_ns: int) -> None:
        """Write a fix for maps; one without a position is none."""
        if fix.lat is None or fix.lon is None or fix.sigma_m is None:
            return
        assert self._segment is not None
        variance = fix.sigma_m**2
        value = {
            "timestamp": _stamp(time_ns),
            "frame_id": "wgs84",
            "latitude": fix.lat,
            "longitude": fix.lon,
            "altitude": 0.0,
            "position_covariance": [variance, 0.0, 0.0, 0.0, variance, 0.0, 0.0, 0.0, 0.0],
            "position_covariance_type": 1,  # approximated: nothing is known of the altitude
        }
        self._segment.add(PLACES, 0, dump(value), time_ns)

    def _write_line(self, said: _Said) -> None:
        assert self._segment is not None
        value = {
            "timestamp": _stamp(said.time_ns),
            "level": said.level,
            "message": said.text,
            "name": said.name,
            "file": "",
            "line": 0,
        }
        self._segment.add(NOTES, 0, dump(value), said.time_ns)

    def _end(self) -> None:
        self._is_over = True
        time_ns, segment = self._now_ns(), self._segment
        if segment is None:
            return
        text = (
            f"{self._steps} steps, {self.lost_steps + self.unwritten} lost, "
            f"{self.lost_pictures} pictures left out"
        )
        self._try(lambda: self._write_line(_Said(time_ns, _INFO, "end", text)))
        self._try(segment.close)


def _packed(noted: _Noted) -> tuple[bytes | None, bytes | None]:
    if isinstance(noted.pixels, bytes):
        return without_metadata(noted.pixels), None
    if noted.pixels is None:
        return None, None
    return pack_pixels(noted.pixels, noted.picture == EXACT)


def _size(pixels: Pixels | bytes | None) -> int:
    return 0 if pixels is None else len(pixels) if isinstance(pixels, bytes) else pixels.nbytes


def _stamp(time_ns: int) -> dict[str, int]:
    seconds, nanoseconds = divmod(time_ns, 10**9)
    return {"sec": seconds, "nsec": nanoseconds}


def _is_on_root(folder: Path) -> bool:
    return folder.stat().st_dev == Path("/").stat().st_dev
