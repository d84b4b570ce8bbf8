"""What an output is: something that takes fixes in a thread of its own.

Outputs are named by URL (`--to nmea+tcp://127.0.0.1:10110?rate=5`): what is written, how it gets
there, and settings. Each has its own rate and its own queue, so that one that is slow, full or gone
holds up neither the fixes nor the others.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qsl, unquote

from ..core.console import say
from ..core.errors import InputError
from .fix import Fix

if TYPE_CHECKING:
    from .observe import Observation

_URL = re.compile(r"(?P<kind>[a-z][a-z0-9]*)(\+(?P<via>[a-z]+))?:(?P<rest>[^?]*)(\?(?P<query>.*))?")


@dataclass(frozen=True)
class Moment:
    """What an output is told.

    Attributes:
        fix: what is said of the time `fix.t`; it has a position only in TRACK and DEGRADED.
        utc_s: that time in Unix seconds, None where nobody knows.
        delay_s: from that time to when the moment was handed over; 0 of files, unless they are
            played back at their pace.
        resets: how often another place was taken up than the one believed before.
        seen: the frame behind it, without its pixels and without `finding`, as it may wait for
            long; None between frames.
        jpeg: that frame as a JPEG, where the output asked for frames and this one's turn has come.
    """

    fix: Fix
    utc_s: float | None
    delay_s: float = 0.0
    resets: int = 0
    seen: Observation | None = None
    jpeg: bytes | None = None


class Sink(Protocol):
    """An output. All its methods are called by one thread of its own, but for the constructor.

    Attributes:
        name: its URL without secrets, for messages.
        wants_all: whether it gets every fix of every frame in order, as a log does; otherwise the
            newest one, and what was overtaken is counted.
        wants_frames: whether it asks for the frames' pixels. Its rate then thins frames out;
            without pixels it gives positions at that rate, carried on between frames.
        frame_period_s: pixels are handed over at most this often; 0 for as often as they are taken.
        default_rate_hz: its rate where the URL names none; None for every frame.
    """

    name: str
    wants_all: bool
    wants_frames: bool
    frame_period_s: float
    default_rate_hz: float | None

    def send(self, moment: Moment) -> None:
        """Write one fix.

        Raises:
            OSError: the receiver is gone, the disk is full. It is counted and told once; the next
                moment is sent again, and the sink reconnects when its time has come.
        """
        ...

    def idle(self) -> None:
        """Do what has to be done between fixes: a heartbeat, a flush, a new connection.

        Called about ten times a second.

        Raises:
            OSError: as `send`.
        """
        ...

    def close(self) -> None:
        """End the file or the connection."""
        ...


@dataclass(frozen=True)
class SinkUrl:
    """An output's URL, taken apart: `KIND[+VIA]:REST[?KEY=VALUE&…]`.

    Attributes:
        url: as it was given.
        kind: what is written: `jsonl`, `nmea`, `mavlink` …
        via: how it gets there: `tcp`, `udp`; None for a file or device.
        rest: what follows the colon, percent signs undone; `//` before a host is left out.
        settings: of the query.
    """

    url: str
    kind: str
    via: str | None
    rest: str
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The URL without its settings, which may hold a secret."""
        return self.url.partition("?")[0]

    def refuse_others(self, known: Collection[str]) -> None:
        """Refuse settings that mean nothing here; `rate` goes everywhere.

        Raises:
            InputError: there is one.
        """
        for key in self.settings:
            if key not in known and key != "rate":
                names = ", ".join(sorted({*known, "rate"}))
                raise InputError(f"--to {self.url}: no setting {key!r} here; there are {names}")

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """Return a setting that is a number.

        Raises:
            InputError: it is none, or out of bounds.
        """
        text = self.settings.get(key)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise InputError(f"--to {self.url}: {key}={text} is no number from {low:g} to {high:g}")
        return value

    def choice(self, key: str, default: str, choices: Collection[str]) -> str:
        """Return a setting that is one of some words.

        Raises:
            InputError: it is none of them.
        """
        text = self.settings.get(key, default)
        if text not in choices:
            raise InputError(f"--to {self.url}: {key}={text} is none of {', '.join(choices)}")
        return text

    def host_port(self, default_host: str = "127.0.0.1") -> tuple[str, int]:
        """Return host and port of a URL that names them: `HOST:PORT`, `[::1]:PORT`, `:PORT`.

        Raises:
            InputError: it does not.
        """
        match = re.fullmatch(
            r"(\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^:/\[\]]*)):(\d{1,5})", self.rest
        )
        if match is None or not 0 <= (port := int(match[4])) <= 65535:
            raise InputError(f"--to {self.url}: expected HOST:PORT after {self.kind}+{self.via}://")
        return match["v6"] or match["host"] or default_host, port


def tell_user(message: str) -> None:
    """Say something, from an output's thread; one that cannot be said must not end the output."""
    with suppress(OSError, ValueError):  # stderr on a full disk, or closed
        say(message)


def parse_sink_url(url: str) -> SinkUrl:
    """Take an output's URL apart.

    Raises:
        InputError: it is none.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise InputError(
            f"--to {url}: no output; expected KIND:FILE or KIND+tcp://HOST:PORT, such as "
            "nmea+udp://127.0.0.1:10110"
        )
    pairs = parse_qsl(match["query"] or "", keep_blank_values=True, strict_parsing=False)
    if len({key for key, _ in pairs}) < len(pairs):
        raise InputError(f"--to {url}: a setting is given twice; leave one out")
    rest = unquote(match["rest"])
    return SinkUrl(url, match["kind"], match["via"], rest.removeprefix("//"), dict(pairs))
