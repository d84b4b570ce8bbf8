"""`--to mcap:FILE`: a log that Foxglove, Lichtblick and the `mcap` tools open.

Topics: `/s4g/location` (only where there is a position), `/s4g/fix` (every fix, NO_FIX too), with
`frames=jpeg` `/s4g/frame`, and with `log=yes` `/s4g/log`. Chunks are small and put on the disk each
second, so that a file that was cut off loses no more than that.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, cast

from ..core.errors import InputError
from .fix import State
from .foxglove import (
    COMPRESSED_IMAGE,
    FIX,
    LOCATION_FIX,
    LOG,
    SCHEMAS,
    compressed_image,
    fix_message,
    location_fix,
    log_line,
)
from .sink import Moment, SinkUrl
from .sink_file import SYNC_S, SafeFile, create_for, log_time_ns

if TYPE_CHECKING:
    from .cli_part import Running

_CHUNK_BYTES = 32 * 1024
# While the disk is full so much is kept; what comes then is lost.
_HELD_BYTES = 4 << 20
_FRAME_RATE_HZ = 2.0
_TOPICS = {
    "/s4g/fix": FIX,
    "/s4g/location": LOCATION_FIX,
    "/s4g/frame": COMPRESSED_IMAGE,
    "/s4g/log": LOG,
}


class McapSink:
    """Writes fixes, and frames if wanted."""

    wants_all = True
    default_rate_hz = None

    def __init__(
        self, name: str, file: SafeFile, frame_period_s: float | None, with_log: bool
    ) -> None:
        """Begin the log.

        Args:
            name: the URL without settings.
            file: just created; closed with the sink.
            frame_period_s: frames are kept at most this often; None for none.
            with_log: write changes of state as log lines too.

        Raises:
            OSError: the disk is full.
        """
        self.name = name
        self.wants_frames = frame_period_s is not None
        self.frame_period_s = frame_period_s or 0.0
        self._file = file
        self._topics = ["/s4g/fix", "/s4g/location"]
        self._topics += ["/s4g/frame"] * self.wants_frames + ["/s4g/log"] * with_log
        self._state: State | None = None
        self._is_used = False
        self._begin()

    def send(self, moment: Moment) -> None:
        """Write a fix.

        Raises:
            OSError: the disk is full, or the file is gone.
        """
        self._is_used = True
        if self._file.is_gone:
            self._file.begin_anew()
            self._begin()
        if self._held.count > _HELD_BYTES:
            self._held.put()
        fix, time_ns = moment.fix, log_time_ns(moment)
        self._write("/s4g/fix", time_ns, fix_message(moment))
        self._write("/s4g/location", time_ns, location_fix(moment, time_ns))
        if moment.jpeg is not None:
            self._write("/s4g/frame", time_ns, compressed_image(moment.jpeg, time_ns))
        self._write("/s4g/log", time_ns, log_line(fix, self._state, time_ns))
        self._state = fix.state
        self._put_each_second()

    def idle(self) -> None:
        """Bring what came to the disk, each second.

        Raises:
            OSError: the disk or the file is gone.
        """
        if not self._file.is_gone:
            self._put_each_second()

    def close(self) -> None:
        """End the log with its index; where no fix was ever sent, nothing is left.

        Raises:
            OSError: it cannot be written; what lies on the disk can be read.
        """
        if not self._is_used:
            self._file.discard()
            return
        try:
            if not self._file.is_gone:
                self._writer.finish()
                self._held.put()
        finally:
            self._file.close()

    def _begin(self) -> None:
        from mcap.well_known import MessageEncoding, SchemaEncoding
        from mcap.writer import Writer

        self._held = _Held(self._file)
        # Its methods carry no types.
        writer: Any = Writer(cast(Any, self._held), chunk_size=_CHUNK_BYTES)
        writer.start(library="s4g-run")
        self._channels = {}
        for topic in self._topics:
            name = _TOPICS[topic]
            text = json.dumps(SCHEMAS[name] | {"title": name}).encode()
            schema = writer.register_schema(name, SchemaEncoding.JSONSchema, text)
            self._channels[topic] = writer.register_channel(topic, MessageEncoding.JSON, schema)
        self._writer = writer
        self._state = None
        self._put_s = time.monotonic()
        self._held.put()

    def _write(self, topic: str, time_ns: int, data: bytes | None) -> None:
        if data is not None and topic in self._channels:
            self._writer.add_message(self._channels[topic], time_ns, data, time_ns)

    def _put_each_second(self) -> None:
        now_s = time.monotonic()
        if now_s - self._put_s < SYNC_S:
            return
        self._put_s = now_s
        self._writer.flush()
        self._held.put()
        self._file.sync()


class _Held:
    """What the writer has made, until it is in the file: all of it or none.

    The writer remembers where its chunks lie, so what it has made may come late but not be lost.
    """

    def __init__(self, file: SafeFile) -> None:
        self._file = file
        self._data = bytearray()

    @property
    def count(self) -> int:
        return len(self._data)

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def tell(self) -> int:
        return self._file.size + len(self._data)

    def flush(self) -> None:
        pass

    def put(self) -> None:
        """Append it to the file; raises OSError where nothing was."""
        if self._data:
            self._file.replace_end(self._file.size, bytes(self._data))
            self._data.clear()


def open_sink(url: SinkUrl, running: Running) -> McapSink:
    """Begin an MCAP file; settings `frames=none|jpeg`, `frame_rate=2`, `log=no|yes`.

    Raises:
        InputError: the library is missing, a setting is wrong, or the file cannot be written.
    """
    url.refuse_others(("frames", "frame_rate", "log"))
    frames = url.choice("frames", "none", ("none", "jpeg"))
    with_log = url.choice("log", "no", ("no", "yes")) == "yes"
    frame_rate_hz = url.number("frame_rate", _FRAME_RATE_HZ, 0.01, 200.0)
    if frames == "none" and "frame_rate" in url.settings:
        raise InputError(f"--to {url.url}: frame_rate without frames; add frames=jpeg")
    try:
        import mcap.writer  # noqa: F401
    except ImportError:
        raise InputError(f"--to {url.url}: needs mcap; pip install 's4g[outputs]'") from None
    frame_period_s = None if frames == "none" else 1 / frame_rate_hz
    return create_for(
        url,
        "flight.mcap",
        running,
        lambda file: McapSink(url.name, file, frame_period_s, with_log),
    )
