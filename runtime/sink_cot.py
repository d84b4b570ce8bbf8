"""`--to cot+udp://239.2.3.1:6969`: the drone on the maps of ATAK, WinTAK and TAK servers."""

from __future__ import annotations

import hashlib
import socket
import uuid

from ..core.errors import InputError
from .cli_part import Running
from .cot import DEFAULT_KIND, CotIdentity, cot_event
from .sink import Moment, SinkUrl
from .transport import Carrier, open_carrier

_RATE_HZ = 1.0
_STALE_S = 5.0
_DRAINED = 64  # reads at once of what a server tells of others


class CotSink:
    """Sends the newest fix as an event; without one nothing, so that the track goes stale."""

    wants_all = False
    wants_frames = False
    frame_period_s = 0.0
    default_rate_hz = _RATE_HZ

    def __init__(self, name: str, carrier: Carrier, identity: CotIdentity, stale_s: float) -> None:
        """Send through a carrier.

        Args:
            name: for messages.
            carrier: takes an event at a time; closed with the sink.
            identity: of the vehicle.
            stale_s: see `cot_event`.
        """
        self.name = name
        self._carrier = carrier
        self._identity = identity
        self._stale_s = stale_s

    @property
    def let_go(self) -> int:
        """Clients that were too slow or gone."""
        return self._carrier.let_go

    def send(self, moment: Moment) -> None:
        """Send a fix.

        Raises:
            OSError: it is lost, or its UTC is not known.
        """
        if moment.fix.lat is None:
            return
        event = cot_event(moment, self._identity, self._stale_s)
        if event is None:
            raise OSError("an event needs the time in UTC, and it is not known; add --epoch")
        self._carrier.send(event)

    def idle(self) -> None:
        """Connect, let clients in, and throw away what a server tells of others.

        Raises:
            OSError: the connection is lost.
        """
        for _ in range(_DRAINED):
            if not self._carrier.receive():
                return

    def close(self) -> None:
        """End the connection."""
        self._carrier.close()


def open_sink(url: SinkUrl, running: Running) -> CotSink:
    """Open `cot+udp://`, `cot+tcpout://` (a TAK server) or `cot+tcp://` (clients come here).

    Settings: `uid`, `callsign`, `type`, `stale` in seconds, and `ttl` for UDP.

    Raises:
        InputError: a setting is wrong, or it cannot be opened.
    """
    if url.via is None:
        raise InputError(
            f"--to {url.url}: expected cot+udp://HOST:PORT, such as cot+udp://239.2.3.1:6969"
        )
    url.refuse_others(("uid", "callsign", "type", "stale", *(("ttl",) if url.via == "udp" else ())))
    stale_s = url.number("stale", _STALE_S, 1, 86400)
    try:
        identity = CotIdentity(
            url.settings.get("uid", f"s4g-{_machine()}"),
            url.settings.get("callsign", "S4G"),
            url.settings.get("type", DEFAULT_KIND),
        )
    except ValueError as error:
        raise InputError(f"--to {url.url}: {error}") from None
    return CotSink(url.name, open_carrier(url), identity, stale_s)


def _machine() -> str:
    """Return what tells this machine from others, without telling its name or address."""
    text = f"{socket.gethostname()} {uuid.getnode():012x}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
