"""Serves metrics over HTTP: GET /metrics and nothing else, to a few at a time."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from ..core.errors import InputError

_LOOPBACK = "127.0.0.1"
_AT_ONCE = 4
_REQUEST_LIMIT_S = 5.0
_CLOSE_S = 2.0
_POLL_S = 0.1  # how soon the end is noticed

# Takes the Accept header; returns content type and body.
Exposition = Callable[[str], tuple[str, bytes]]


def parse_listen(text: str, option: str) -> tuple[str, int]:
    """Return host and port of `[HOST:]PORT`; the host is loopback unless one is named.

    Raises:
        InputError: it is neither; the message names the option.
    """
    host, _, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    is_v6 = ":" in bare
    if (
        not (port.isascii() and port.isdecimal() and int(port) <= 65535)
        or (is_v6 and host != f"[{bare}]")
        or (":" in text and not bare)
    ):
        raise InputError(f"{option} {text}: expected PORT or HOST:PORT, such as 9464")
    return bare or _LOOPBACK, int(port)


class MetricsServer:
    """Listens from construction on; answers in threads of its own.

    Attributes:
        address: host and port that it listens at.
    """

    def __init__(self, host: str, port: int, exposition: Exposition, option: str) -> None:
        """Listen.

        Raises:
            InputError: the port is taken, or the host is not this machine's.
        """
        try:
            family, _, _, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self._server = _Server(family, address, exposition)
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise InputError(
                f"{option} {host}:{port}: cannot listen there ({why}); choose another port, or an "
                "address of this machine"
            ) from error
        bound_host, bound_port = self._server.server_address[:2]
        self.address = (str(bound_host), int(bound_port))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="s4g-metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening; answers under way are left to end."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_CLOSE_S)


class _Server(ThreadingMixIn, TCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 16

    def __init__(self, family: int, address: Any, exposition: Exposition) -> None:
        self.address_family = family
        self.exposition = exposition
        self.free = threading.BoundedSemaphore(_AT_ONCE)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hand a connection to a thread, if not too many are busy already."""
        if not self.free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room for the next."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _REQUEST_LIMIT_S
    server_version = "s4g"
    sys_version = ""
    server: _Server

    def do_GET(self) -> None:
        """Answer with the metrics as they are now."""
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, "Not found; see /metrics")
            return
        kind, body = self.server.exposition(self.headers.get("Accept", ""))
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep requests out of the log."""
