"""How an output's bytes get there: UDP, TCP, serial port, pseudo terminal, file.

Carriers never wait long: what a receiver does not take is dropped or fails. One thread uses a
carrier. Those that can be lost are opened anew with growing pauses.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from ..core.console import say
from ..core.errors import InputError
from .sink import SinkUrl

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 8.0
CONNECT_S = 3.0
SEND_S = 0.5
CHUNK_BYTES = 4096
_DATAGRAM_BYTES = 65535


class Carrier(Protocol):
    """Takes bytes to where they are read."""

    @property
    def let_go(self) -> int:
        """Clients that were too slow or gone."""
        ...

    def send(self, data: bytes) -> None:
        """Send whole messages: who comes later begins with the next call.

        Raises:
            OSError: they are lost.
        """
        ...

    def receive(self) -> bytes:
        """Return what came, `b""` if nothing did; does not wait. To be called some times a second.

        New clients are let in here, and a lost connection is tried again.

        Raises:
            OSError: the connection is lost.
        """
        ...

    def close(self) -> None:
        """Release it."""
        ...


class Link(Protocol):
    """A carrier that, once lost, has to be opened anew."""

    def send(self, data: bytes) -> None:
        """Send; raises OSError."""
        ...

    def receive(self) -> bytes:
        """Return what came; raises OSError."""
        ...

    def close(self) -> None:
        """Release it."""
        ...


class Reopened:
    """Opens a link again once it is lost, after pauses that grow to eight seconds."""

    let_go = 0

    def __init__(self, opener: Callable[[], Link]) -> None:
        """Open it for the first time.

        Raises:
            OSError: as `opener` does.
        """
        self._opener = opener
        self._link: Link | None = opener()
        self._pause_s = FIRST_PAUSE_S
        self._again_s = 0.0
        self._why = ""

    def send(self, data: bytes) -> None:
        """Send, opening the link first where it is time.

        Raises:
            OSError: it is lost.
        """
        link = self._opened()
        try:
            link.send(data)
        except OSError as error:
            self._lost(error)
            raise
        self._pause_s = FIRST_PAUSE_S

    def receive(self) -> bytes:
        """Return what came; opens the link where it is time.

        Raises:
            OSError: it is lost.
        """
        link = self._opened()
        try:
            return link.receive()
        except OSError as error:
            self._lost(error)
            raise

    def close(self) -> None:
        """Release it."""
        if self._link is not None:
            self._link.close()
            self._link = None
        self._again_s = float("inf")

    def _opened(self) -> Link:
        if self._link is None:
            if time.monotonic() < self._again_s:
                raise ConnectionError(self._why)
            try:
                self._link = self._opener()
            except OSError as error:
                self._lost(error)
                raise
        return self._link

    def _lost(self, error: OSError) -> None:
        if self._link is not None:
            with suppress(OSError):
                self._link.close()
            self._link = None
        self._why = error.strerror or str(error)
        self._again_s = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)


class Udp:
    """Datagrams to one address, which may be a group (multicast) or everybody (broadcast).

    A network that is down may be up for the next datagram: nothing has to be opened anew.
    """

    let_go = 0

    def __init__(self, host: str, port: int, ttl: int = 1) -> None:
        """Find the address.

        Args:
            host: name or number.
            port: there.
            ttl: how many routers a datagram to a group may pass, plus one.

        Raises:
            OSError: there is no such host.
        """
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._place = place
        try:
            self._socket.setblocking(False)
            if family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, ttl)
            else:
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        except OSError:
            self._socket.close()
            raise

    def send(self, data: bytes) -> None:
        """Send one datagram; nobody knows whether anybody listens.

        Raises:
            OSError: the network is down, or does not keep up.
        """
        with suppress(ConnectionRefusedError):
            self._socket.sendto(data, self._place)

    def receive(self) -> bytes:
        """Return a datagram that came back from whoever listens."""
        try:
            return self._socket.recv(_DATAGRAM_BYTES)
        except (BlockingIOError, ConnectionRefusedError):
            return b""

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()


class TcpClient:
    """A connection to who listens."""

    def __init__(self, host: str, port: int) -> None:
        """Connect.

        Raises:
            OSError: nobody answers within three seconds.
        """
        self._socket = socket.create_connection((host, port), CONNECT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        """Send.

        Raises:
            OSError: the other side is gone, or took too little for half a second.
        """
        self._socket.settimeout(SEND_S)
        self._socket.sendall(data)

    def receive(self) -> bytes:
        """Return what came.

        Raises:
            OSError: the other side is gone.
        """
        self._socket.setblocking(False)
        try:
            data = self._socket.recv(CHUNK_BYTES)
        except BlockingIOError:
            return b""
        if not data:
            raise ConnectionResetError("closed by the other side")
        return data

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()


def open_carrier(url: SinkUrl, default_baud: int = 0) -> Carrier:
    """Open what an output's URL names.

    `+udp` sends to HOST:PORT, `+tcp` listens there (on loopback where no host is named), `+tcpout`
    connects to it. Without any of them: `-` is standard output, `pty` a new pseudo terminal, a path
    in /dev a serial port (if `default_baud` is given), any other path a file.

    Settings: `ttl` (UDP), `baud` (serial ports), `link` (pty), `rotate_mb` and `keep` (files).

    Args:
        url: of the output.
        default_baud: of serial ports; 0 where this output has none.

    Raises:
        InputError: it cannot be opened; the message says what to check.
    """
    from .transport_file import open_file
    from .transport_serial import is_terminal, open_pty, open_serial
    from .transport_server import TcpServer

    if url.via is None:
        if default_baud and url.rest == "pty":
            return open_pty(url)
        if default_baud and is_terminal(url.rest):
            return open_serial(url, default_baud)
        return open_file(url)
    if url.via not in (remedies := _REMEDIES):
        raise InputError(f"--to {url.url}: no way {url.via!r}; there are {', '.join(remedies)}")
    host, port = url.host_port()
    ttl = int(url.number("ttl", 1, 0, 255)) if url.via == "udp" else 1
    try:
        if url.via == "tcp":
            server = TcpServer(host, port, url.name)
            if port == 0:
                say(f"output {url.name}: listens on port {server.port}")
            return server
        if url.via == "tcpout":
            return Reopened(lambda: TcpClient(host, port))
        return Udp(host, port, ttl)
    except OSError as error:
        raise refusal(url, error, remedies[url.via]) from None


_REMEDIES = {
    "tcp": "another program may listen there; give another port, or stop it",
    "tcpout": "check host and port, and that the other side listens",
    "udp": "check host and network",
}


def refusal(url: SinkUrl, error: Exception, remedy: str) -> InputError:
    """Return what is said of an output that cannot be opened."""
    number = getattr(error, "errno", None)
    # Libraries put the whole story into their texts; resolvers have numbers of their own, below 0.
    why = os.strerror(number) if number and number > 0 else getattr(error, "strerror", None)
    why = why or str(error)
    return InputError(f"--to {url.url}: cannot be opened ({why}); {remedy}")
