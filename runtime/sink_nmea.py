"""Fixes as NMEA 0183: for gpsd, ground stations and devices that expect a GNSS receiver.

A serial port, a pseudo terminal that stands in for one, UDP, TCP or a file; each fix is a GGA, an
RMC, a GST and a GLL. Without a position they are sent too, and say that there is none.
"""

from __future__ import annotations

from ..core.errors import InputError
from .cli_part import Running
from .nmea import LONGEST_BYTES, SENTENCES, sentences
from .sink import Moment, SinkUrl, tell_user
from .sink_open import rate_hz
from .transport import Carrier, open_carrier
from .transport_serial import is_terminal

_RATE_HZ = 5.0
_BAUD = 4800  # of the standard
_BITS_PER_BYTE = 10
_SLOW_RATES_HZ = (2.0, 1.0, 0.5, 0.2, 0.1)


class Nmea:
    """Writes each fix as four sentences."""

    wants_frames = False
    frame_period_s = 0.0

    def __init__(
        self, name: str, carrier: Carrier, wants_all: bool, default_rate_hz: float | None
    ) -> None:
        """Write to a carrier.

        Args:
            name: for messages.
            carrier: takes the sentences.
            wants_all: every fix counts, as in a file; otherwise the newest.
            default_rate_hz: where the user asks for none; None for every frame.
        """
        self.name = name
        self.wants_all = wants_all
        self.default_rate_hz = default_rate_hz
        self._carrier = carrier
        self._is_time_missed = False

    @property
    def let_go(self) -> int:
        """Clients that were too slow or gone."""
        return self._carrier.let_go

    def send(self, moment: Moment) -> None:
        """Write the sentences together; raises OSError where they are lost."""
        if moment.utc_s is None and not self._is_time_missed:
            self._is_time_missed = True
            tell_user(
                f"output {self.name}: nobody knows the time of these frames, and many readers need "
                "one; tell it with --epoch"
            )
        self._carrier.send(sentences(moment.fix, moment.utc_s).encode("ascii"))

    def idle(self) -> None:
        """Let clients in; what receivers are told by those who read them is not listened to."""
        self._carrier.receive()

    def close(self) -> None:
        """End file or connection."""
        self._carrier.close()


def open_sink(url: SinkUrl, running: Running) -> Nmea:
    """Open `nmea:DEVICE`, `nmea:pty`, `nmea:FILE`, `nmea+udp://`, `nmea+tcp://`, `nmea+tcpout://`.

    Raises:
        InputError: it cannot be opened, or the serial port is too slow for the rate.
    """
    default_hz: float | None = _RATE_HZ
    is_file = False
    if url.via is not None:
        url.refuse_others(("ttl",) if url.via == "udp" else ())
    elif url.rest == "pty":
        url.refuse_others(("link",))
    elif is_terminal(url.rest):
        url.refuse_others(("baud",))
        default_hz = _serial_rate_hz(url)
    else:
        url.refuse_others(("rotate_mb", "keep"))
        is_file, default_hz = True, None
    return Nmea(url.name, open_carrier(url, _BAUD), is_file, default_hz)


def _serial_rate_hz(url: SinkUrl) -> float:
    """Return the rate of a serial port where the user names none; refuse one that it cannot take.

    What does not go through in time would pile up in the port and arrive late, or cut short.
    """
    baud = url.number("baud", _BAUD, 50, 4_000_000)
    most_hz = baud / (_BITS_PER_BYTE * SENTENCES * LONGEST_BYTES)
    asked_hz = rate_hz(url)
    if asked_hz is not None and asked_hz > most_hz:
        raise InputError(
            f"--to {url.url}: {baud:g} baud carry at most {most_hz:.1f} fixes a second; lower rate "
            "or raise baud on both sides"
        )
    return next((r for r in (_RATE_HZ, *_SLOW_RATES_HZ) if r <= most_hz), most_hz)
