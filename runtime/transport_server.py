"""A TCP server that tells all its clients the same, and waits for none of them."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from .sink import tell_user
from .transport import CHUNK_BYTES

CLIENTS = 16
# What a client has not read yet; over a minute of fixes.
CLIENT_BYTES = 256 * 1024
_SYSTEM_BYTES = 32 * 1024  # that the system holds besides
_QUIET_S = 60.0
_GONE = "has gone"


class _Client:
    def __init__(self, connection: socket.socket, name: str) -> None:
        self.connection = connection
        self.name = name
        self.waiting = bytearray()
        self.has_said_all = False  # it has closed its side, and may still read


class TcpServer:
    """Listens, and sends to whoever is connected.

    A client that reads too little is let go, as is one that has gone: it misses whole messages
    rather than parts of them, and may come again.

    Attributes:
        port: where it listens.
        let_go: clients that were too slow or gone before they had read everything.
    """

    def __init__(self, host: str, port: int, name: str) -> None:
        """Listen.

        Args:
            host: name or number of one of this machine's addresses.
            port: 0 for any that is free.
            name: of the output, for messages.

        Raises:
            OSError: another program listens there, or it is not this machine's.
        """
        self._name = name
        self.let_go = 0
        self._clients: list[_Client] = []
        self._told_s = -_QUIET_S
        family, kind, _, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self._socket = socket.socket(family, kind)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Clients inherit it. Left to itself the system takes megabytes from us for one that
            # does not read: an hour of positions, all of which it would get when it reads again.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SYSTEM_BYTES)
            self._socket.bind(place)
            self._socket.listen(CLIENTS)
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise
        self.port = int(self._socket.getsockname()[1])

    def send(self, data: bytes) -> None:
        """Send to all who are connected."""
        self._let_in()
        for client in list(self._clients):
            client.waiting += data
            self._push(client)

    def receive(self) -> bytes:
        """Return what clients sent, one after the other; lets in new ones."""
        self._let_in()
        received = []
        for client in list(self._clients):
            self._push(client)
            if client.has_said_all:
                continue
            try:
                data = client.connection.recv(CHUNK_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                self._drop(client, _GONE)
                continue
            received.append(data)
            client.has_said_all = not data
        return b"".join(received)

    def close(self) -> None:
        """Send what can be sent at once, and end."""
        for client in list(self._clients):
            self._push(client)
        for client in self._clients:
            client.connection.close()
        self._clients.clear()
        self._socket.close()

    def _let_in(self) -> None:
        while True:
            try:
                connection, place = self._socket.accept()
            except OSError:  # nobody there, or gone again, or too many open files
                return
            if len(self._clients) >= CLIENTS:
                connection.close()
                continue
            connection.setblocking(False)
            with suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._clients.append(_Client(connection, f"{place[0]}:{place[1]}"))

    def _push(self, client: _Client) -> None:
        try:
            while client.waiting:
                del client.waiting[: client.connection.send(client.waiting)]
        except BlockingIOError:
            if len(client.waiting) > CLIENT_BYTES:
                self._drop(client, "does not read")
        except OSError:
            self._drop(client, _GONE)

    def _drop(self, client: _Client, why: str) -> None:
        if client not in self._clients:
            return
        self._clients.remove(client)
        client.connection.close()
        if client.has_said_all and why == _GONE:
            return  # it left in order
        self.let_go += 1
        if time.monotonic() - self._told_s >= _QUIET_S:
            self._told_s = time.monotonic()
            tell_user(f"output {self._name}: client {client.name} {why}; it was let go")
