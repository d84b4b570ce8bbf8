"""Fixes as JSON lines: to a file, standard output, UDP, or clients of a TCP server.

Each line is what `s4g-run` prints (docs/fixes.md), and one key more, `utc`: the fix's time as ISO
8601 to the millisecond, null where nobody knows it. One datagram holds one line.
"""

from __future__ import annotations

from ..core.errors import InputError
from .cli_part import Running
from .sink import Moment, SinkUrl
from .transport import Carrier, open_carrier
from .utc import iso_utc


def format_line(moment: Moment) -> str:
    """Return a fix as one line of JSON, without its end."""
    utc = "null" if moment.utc_s is None else f'"{iso_utc(moment.utc_s)}"'
    return f'{moment.fix.to_json()[:-1]},"utc":{utc}}}'


class JsonLines:
    """Writes each fix as a line."""

    wants_frames = False
    frame_period_s = 0.0
    default_rate_hz = None

    def __init__(self, name: str, carrier: Carrier, wants_all: bool) -> None:
        """Write to a carrier.

        Args:
            name: for messages.
            carrier: takes the lines.
            wants_all: every fix counts, as in a file; otherwise the newest.
        """
        self.name = name
        self.wants_all = wants_all
        self._carrier = carrier

    @property
    def let_go(self) -> int:
        """Clients that were too slow or gone."""
        return self._carrier.let_go

    def send(self, moment: Moment) -> None:
        """Write a line; raises OSError where it is lost."""
        self._carrier.send(f"{format_line(moment)}\n".encode())

    def idle(self) -> None:
        """Let clients in; what they say is not listened to."""
        self._carrier.receive()

    def close(self) -> None:
        """End file or connection."""
        self._carrier.close()


def open_sink(url: SinkUrl, running: Running) -> JsonLines:
    """Open `jsonl:FILE`, `jsonl:-`, `jsonl+udp://`, `jsonl+tcp://` or `jsonl+tcpout://`.

    Raises:
        InputError: it cannot be opened.
    """
    settings = {None: ("rotate_mb", "keep"), "udp": ("ttl",)}.get(url.via, ())
    url.refuse_others(settings)
    if url.rest == "pty":
        raise InputError(f"--to {url.url}: a pseudo terminal is for nmea; give a file")
    return JsonLines(url.name, open_carrier(url), wants_all=url.via != "udp")
