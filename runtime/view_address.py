"""Where the map is served, and the token that whoever is not on this machine has to show."""

from __future__ import annotations

import errno
import ipaddress
import re
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import InputError
from ..core.files import read_bytes

LOOPBACK = "127.0.0.1"
_BACKLOG = 64
_TOKEN_BYTES = 24
# A token of a file: what passes unchanged through URLs and cookies, long enough not to be guessed.
_TOKEN = re.compile(r"[A-Za-z0-9_~.-]{16,256}")
_REASONS = {
    errno.EADDRINUSE: "the port is in use; choose another, or 0 for any that is free",
    errno.EACCES: "not allowed to listen there; choose a port from 1024 on",
    errno.EADDRNOTAVAIL: "this machine has no such address; give one of its own, or 0.0.0.0",
}


@dataclass(frozen=True)
class Address:
    """Where to listen.

    Attributes:
        told: option and value, for errors.
        host: name or address.
        port: 0 for any that is free.
    """

    told: str
    host: str
    port: int


def parse_address(text: str, option: str) -> Address:
    """Read `PORT`, `HOST:PORT` or `[IPV6]:PORT`; without a host it is this machine alone.

    Raises:
        InputError: it is none of them.
    """
    match = re.fullmatch(
        r"(?:(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):)?(?P<port>\d{1,5})", text
    )
    if match is None or int(match["port"]) > 65535:
        raise InputError(
            f"{option} {text}: expected [HOST:]PORT, such as 8765 or 0.0.0.0:8765, ports to 65535"
        )
    host = match["v6"] or match["host"] or LOOPBACK
    return Address(f"{option} {text}", host, int(match["port"]))


def listen(address: Address) -> socket.socket:
    """Return a socket that listens.

    Raises:
        InputError: the port is in use, or the host is none of this machine's addresses.
    """
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise InputError(f"{address.told}: no such host ({error.strerror})") from None
    family, _, _, _, place = found[0]
    try:
        return socket.create_server(place[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, f"cannot listen there ({error.strerror})")
        raise InputError(f"{address.told}: {reason}") from None


def is_loopback(listening: socket.socket) -> bool:
    """Tell whether a socket can be reached from this machine alone."""
    return ipaddress.ip_address(listening.getsockname()[0].split("%")[0]).is_loopback


def url_of(listening: socket.socket, token: str | None = None) -> str:
    """Return the URL to open; a socket on all addresses is named by the machine's name."""
    host, port = listening.getsockname()[:2]
    if ipaddress.ip_address(host.split("%")[0]).is_unspecified:
        host = socket.gethostname()
    if ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{port}/" + ("" if token is None else f"?token={token}")


def new_token() -> str:
    """Return a random token of 192 bits."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def read_token(path: Path) -> str:
    """Return the token that a file holds on its only line.

    Raises:
        InputError: the file cannot be read, or holds no token.
    """
    text = read_bytes(path).decode("ascii", "replace").strip()
    if not _TOKEN.fullmatch(text):  # what it holds is not shown: it may be a secret
        raise InputError(
            f"--view-token {path}: expected 16 to 256 letters, digits or -_~. on one line; make "
            "one with: openssl rand -hex 24"
        )
    return text
