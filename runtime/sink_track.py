"""Tracks that can be read at any moment, GPX and GeoJSON alike.

What closes the file is there from the start, and each point is written over it with the closing
behind it, in one write. So a program that dies leaves a whole file; a power cut may take what was
written in the last second, the closing with it.
"""

from __future__ import annotations

from typing import Protocol

from .sink import Moment
from .sink_file import SafeFile


class TrackText(Protocol):
    """What has been written so far; never changes."""

    @property
    def ends(self) -> bytes:
        """What closes the file now."""
        ...

    def after(self, moment: Moment, is_apart: bool) -> tuple[bytes, TrackText]:
        """Return the text of a fix and the track with it."""
        ...


class TrackSink:
    """Writes fixes that have a position; those without end a segment."""

    wants_all = True
    wants_frames = False
    frame_period_s = 0.0
    default_rate_hz = None

    def __init__(self, name: str, file: SafeFile, begins: bytes, empty: TrackText) -> None:
        """Write an empty track.

        Args:
            name: the URL without settings.
            file: just created; closed with the sink.
            begins: what comes before the first point.
            empty: the track without a point.

        Raises:
            OSError: the disk is full.
        """
        self.name = name
        self._file = file
        self._begins = begins
        self._empty = empty
        self._track = empty
        self._end = 0  # of the last point
        self._is_apart = True
        self._is_used = False
        self._resets = 0
        self._begin()

    def send(self, moment: Moment) -> None:
        """Write a fix.

        Raises:
            OSError: the disk is full, or the file is gone.
        """
        self._is_used = True
        if moment.fix.lat is None or moment.resets != self._resets:
            # A line from the place believed before to the one taken up instead was never flown.
            self._is_apart = True
            self._resets = moment.resets
        if moment.fix.lat is None:
            return
        if self._file.is_gone:
            self._file.begin_anew()
            self._begin()
        text, track = self._track.after(moment, self._is_apart)
        self._file.replace_end(self._end, text + track.ends, self._track.ends)
        self._end += len(text)
        self._track = track
        self._is_apart = False

    def idle(self) -> None:
        """Bring what is written to the disk, each second.

        Raises:
            OSError: the disk or the file is gone.
        """
        if not self._file.is_gone:
            self._file.sync()

    def close(self) -> None:
        """Close the file; where no fix was ever sent, the run did not begin and nothing is left.

        Raises:
            OSError: the disk or the file is gone.
        """
        if self._is_used:
            self._file.close()
        else:
            self._file.discard()

    def _begin(self) -> None:
        self._track = self._empty
        self._is_apart = True
        self._file.replace_end(0, self._begins + self._track.ends)
        self._end = len(self._begins)
