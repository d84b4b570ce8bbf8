"""The flight recorder: looks on while frames are matched, and writes in a thread of its own.

The thread that matches frames copies a camera's pixels (a photo's bytes it only refers to) and
puts a note into a queue. A disk that is slow fills the queue, and what no longer fits is left out
and counted; one that is full or gone is told once and tried again. Fixes never wait.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from dataclasses import asdict, dataclass, replace

import numpy as np

from ..core.console import say
from ..core.errors import S4GError
from .board import Board, Reading
from .fix import Fix
from .frame_buffers import FrameBuffers, Pixels
from .log_disk import LogDisk, RecorderOptions
from .log_format import (
    BOARD,
    EXACT,
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
    step_json,
)
from .log_pixels import pack_pixels, without_metadata
from .log_segment import image_message, line_message, place_message
from .observe import Observation
from .telemetry_sample import Sample

# What may wait for the disk: two seconds of 10 Hz at 1280 x 720 px, and hours of notes.
MAX_WAITING_BYTES = 64 << 20
MAX_WAITING = 10_000
# Buffers of pixels that are used again: as many as may wait, or a slow disk costs page faults.
_POOLED = 64
_SYNC_S = 1.0
_CLOSE_S = 10.0
_LATE = 1e-6  # of a period: frames' times are rounded
_LINES_BYTES = 1024  # position and state of a step
_INFO, _WARNING = 2, 3  # foxglove.Log


@dataclass(frozen=True)
class _Noted:
    """A step on its way to the disk."""

    number: int
    time_ns: int
    fix: Fix
    frame: FrameNote | None
    sample: Sample | None
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
    """

    def __init__(self, options: RecorderOptions, flight: Flight) -> None:
        """Write the first segment's head and start the thread.

        Raises:
            OSError: the folder cannot be written.
        """
        self.lost_steps = self.lost_pictures = 0
        self._options = options
        self._buffers = FrameBuffers(_POOLED)
        self._queue: queue.SimpleQueue[_Noted | _Said | None] = queue.SimpleQueue()
        self._steps = 0
        self._period: int | None = None
        self._put_bytes = self._done_bytes = 0  # each counted by one thread alone
        self._is_over = False
        self._begun_ns = time.time_ns() - time.monotonic_ns()
        self._sync_s = 0.0
        self._said_state = ""
        self._told_losses = False
        self._board: Reading | None = None
        self._disk = LogDisk(options, flight, self._now_ns())
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
        # The frame itself is let go of: its source waits for its pixels.
        frame = None if seen.frame is None else FrameNote.of(seen.frame, picture)
        self._put_bytes += _size(pixels)
        self._queue.put(_Noted(number, self._now_ns(), seen.fix, frame, seen.sample, pixels))

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
        # Periods of the clock, so that a frame that comes late makes no other late.
        period = math.floor(t * hz + _LATE)
        is_new, self._period = period != self._period, period
        return is_new

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
            return
        lost = self.lost_steps + self._disk.unwritten
        if lost or self.lost_pictures:
            say(
                f"flight log: {lost} frames and {self.lost_pictures} more pictures are missing in "
                "it; the disk was too slow, full or gone"
            )

    # ---- called by the recorder's own thread -----------------------------------------------------

    def _run(self) -> None:
        try:
            while (item := self._next()) is not None:
                self._keep(item)
            self._end()
        except Exception as error:
            self._is_over = True
            self._disk.abandon()
            say(
                f"flight log: unexpected {type(error).__name__}: {error}; nothing more of this "
                "flight is recorded, fixes go on"
            )

    def _next(self) -> _Noted | _Said | None:
        """Return what is to be written, having seen to it that what was outlasts a power cut."""
        while True:
            now_s = time.monotonic()
            if now_s >= self._sync_s:
                self._disk.attempt(self._sync)
                self._sync_s = now_s + _SYNC_S
            try:
                return self._queue.get(timeout=self._sync_s - now_s)
            except queue.Empty:
                continue

    def _sync(self) -> None:
        """Write what the machine's sensors said last, where somebody reads them; then sync."""
        if (self.lost_steps or self.lost_pictures) and not self._told_losses:
            self._told_losses = True
            say(
                f"flight log: {self._options.folder}: more frames come than the disk takes; some "
                "are recorded without their picture"
            )
        reading = Board.latest
        if reading is not None and reading is not self._board:
            data, time_ns = dump(asdict(reading)), self._now_ns()
            self._disk.room(self._steps, len(data), time_ns).add(BOARD, 0, data, time_ns)
            self._board = reading
        self._disk.sync()

    def _keep(self, item: _Noted | _Said) -> None:
        if isinstance(item, _Said):
            self._disk.attempt(lambda: self._write_line(item))
            return
        if not self._disk.attempt(lambda: self._write_step(item)):
            self._disk.unwritten += 1
        self._done_bytes += _size(item.pixels)

    def _write_step(self, noted: _Noted) -> None:
        number, time_ns, frame = noted.number, noted.time_ns, noted.frame
        jpeg = residual = None
        if frame is not None and noted.pixels is not None:
            try:
                jpeg, residual = _packed(noted.pixels, frame.picture)
            except S4GError as error:
                frame = replace(frame, picture=LOST)
                self.lost_pictures += 1
                self.note(str(error), level=_WARNING)
        step = step_json(number, noted.fix, frame, noted.sample)
        needed_bytes = len(step) + len(jpeg or b"") + len(residual or b"") + _LINES_BYTES
        segment = self._disk.room(number, needed_bytes, time_ns)
        if jpeg is not None:
            segment.add(PICTURES, number, image_message(jpeg, time_ns), time_ns)
        if residual is not None:
            segment.add(RESIDUALS, number, residual, time_ns)
        # After its picture: a step that can be read is complete.
        segment.add(STEPS, number, step, time_ns)
        self._disk.count_step()
        fix = noted.fix
        if fix.lat is not None and fix.lon is not None and fix.sigma_m is not None:
            place = place_message(fix.lat, fix.lon, fix.sigma_m, time_ns)
            segment.add(PLACES, 0, place, time_ns)
        said = fix.state.value + (f" ({fix.reason.value})" if fix.reason else "")
        if said != self._said_state:
            level = _INFO if fix.lat is not None else _WARNING
            segment.add(NOTES, 0, line_message(said, "state", level, time_ns), time_ns)
            self._said_state = said

    def _write_line(self, said: _Said) -> None:
        data = line_message(said.text, said.name, said.level, said.time_ns)
        segment = self._disk.room(self._steps, len(data), said.time_ns)
        segment.add(NOTES, 0, data, said.time_ns)

    def _end(self) -> None:
        self._is_over = True
        text = (
            f"{self._steps} steps, {self.lost_steps + self._disk.unwritten} lost, "
            f"{self.lost_pictures} pictures left out"
        )
        said = _Said(self._now_ns(), _INFO, "end", text)
        self._disk.attempt(lambda: self._write_line(said))
        self._disk.attempt(self._disk.close)


def _packed(pixels: Pixels | bytes, fate: str) -> tuple[bytes, bytes | None]:
    """Return a frame's JPEG and, where it is to be exact, what that leaves out."""
    if isinstance(pixels, bytes):
        return without_metadata(pixels), None
    return pack_pixels(pixels, fate == EXACT)


def _size(pixels: Pixels | bytes | None) -> int:
    return 0 if pixels is None else len(pixels) if isinstance(pixels, bytes) else pixels.nbytes
