"""Where MAVLink bytes come from: UDP, TCP, a serial port."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..core.errors import InputError

SILENCE_S = 0.2  # a link that has nothing to tell returns after this long
_CONNECT_S = 3.0
_DATAGRAM_BYTES = 65535
_CHUNK_BYTES = 4096
_LOOPBACK = "127.0.0.1"
_DEFAULT_BAUD = 115_200  # of autopilots' USB and companion ports; SiK radios have 57600
_URL = re.compile(
    r"(?P<kind>udpin|udpout|udp|tcp):(//)?(\[(?P<host6>[0-9a-fA-F:.]+)\]|(?P<host>[^:/\[\]]*))"
    r":(?P<port>\d{1,5})"
    r"|(serial:(//)?)?(?P<device>/[^:]+)(:(?P<baud>\d{1,8}))?"
)


@dataclass(frozen=True)
class Address:
    """What a stream's URL says.

    Attributes:
        url: as it was given, for errors.
        kind: `udpin` (wait for who sends), `udpout`, `tcp` or `serial`.
        host: name or number, or the serial device.
        port: of the host, or baud of the device.
        option: that the URL was given to, for errors.
    """

    url: str
    kind: str
    host: str
    port: int
    option: str = "--telemetry"


def parse_address(url: str) -> Address:
    """Read the URL of a MAVLink stream.

    Raises:
        InputError: it is none; the message shows the forms there are.
    """
    match = _URL.fullmatch(url)
    if match and (device := match["device"]):
        return Address(url, "serial", device, int(match["baud"] or _DEFAULT_BAUD))
    if not match or not 0 <= int(match["port"]) <= 65535:
        raise InputError(
            f"--telemetry {url}: no address of a MAVLink stream; expected udpin:HOST:PORT, "
            "udpout:HOST:PORT, tcp:HOST:PORT or serial:/dev/DEVICE:BAUD"
        )
    kind = "udpin" if match["kind"] == "udp" else match["kind"]
    # Nobody but this machine is listened to unless the URL says so.
    return Address(url, kind, match["host6"] or match["host"] or _LOOPBACK, int(match["port"]))


class Link(Protocol):
    """Bytes in and, where asked for, out. Its methods raise OSError once the link is lost."""

    whole_messages: bool  # what `receive` returns neither begins nor ends within a message

    def receive(self) -> bytes:
        """Return what came, nothing after `SILENCE_S` of silence."""
        ...

    def send(self, data: bytes) -> None:
        """Send, to whoever sent last where the link waits for senders."""
        ...

    def close(self) -> None:
        """Release socket or port."""
        ...


class _Udp:
    whole_messages = True

    def __init__(self, address: Address) -> None:
        family, _, _, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_DGRAM
        )[0]
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._peer: Any = None
        self._waits = address.kind == "udpin"
        try:
            self._socket.settimeout(SILENCE_S)
            if self._waits:
                self._socket.bind(place)
            else:
                self._socket.connect(place)
        except OSError:
            self._socket.close()
            raise
        self.port = int(self._socket.getsockname()[1])

    def receive(self) -> bytes:
        try:
            data, self._peer = self._socket.recvfrom(_DATAGRAM_BYTES)
        except (TimeoutError, ConnectionRefusedError):  # refused: nobody listens there yet
            return b""
        return data

    def send(self, data: bytes) -> None:
        try:
            if not self._waits:
                self._socket.send(data)
            elif self._peer is not None:
                self._socket.sendto(data, self._peer)
        except (TimeoutError, ConnectionRefusedError):
            pass

    def close(self) -> None:
        self._socket.close()


class _Tcp:
    whole_messages = False

    def __init__(self, address: Address) -> None:
        self._socket = socket.create_connection((address.host, address.port), _CONNECT_S)
        self._socket.settimeout(SILENCE_S)

    def receive(self) -> bytes:
        try:
            data = self._socket.recv(_CHUNK_BYTES)
        except TimeoutError:
            return b""
        if not data:
            raise ConnectionResetError("closed by the other side")
        return data

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def close(self) -> None:
        self._socket.close()


class _Serial:
    whole_messages = False

    def __init__(self, address: Address) -> None:
        import serial

        self._port = serial.Serial(
            address.host, address.port, timeout=SILENCE_S, write_timeout=SILENCE_S
        )

    def receive(self) -> bytes:
        return bytes(self._port.read(max(1, min(self._port.in_waiting, _CHUNK_BYTES))))

    def send(self, data: bytes) -> None:
        self._port.write(data)

    def close(self) -> None:
        self._port.close()


def open_link(address: Address) -> Link:
    """Open a stream.

    Raises:
        OSError: it cannot be opened (pyserial's errors are such, too).
        ImportError: a serial port, and pyserial is not installed.
    """
    if address.kind == "serial":
        return _Serial(address)
    return _Tcp(address) if address.kind == "tcp" else _Udp(address)


def open_first(address: Address) -> Link:
    """Open a stream for the first time, when what is wrong may still be put right.

    Raises:
        InputError: it cannot be opened; the message says what to check.
    """
    name = f"{address.option} {address.url}"
    if address.kind == "serial" and not Path(address.host).exists():
        found = sorted(str(p) for p in Path("/dev").glob("tty[AU][CSM][MB]*"))
        raise InputError(f"{name}: no device {address.host}; found {', '.join(found) or 'none'}")
    try:
        return open_link(address)
    except ImportError:
        raise InputError(
            f"{name}: serial ports are read with pyserial, which is not installed; "
            "pip install 's4g[telemetry]'"
        ) from None
    except (OSError, ValueError) as error:  # pyserial has ValueError for a speed there is not
        remedy = {
            "udpin": "another program may listen there; give another port, or stop it",
            "udpout": "check host and network",
            "tcp": "check host and port, and that the other side listens",
            "serial": "another program may use it, or you may not be in the group 'dialout'",
        }[address.kind]
        raise InputError(
            f"{name}: cannot be opened ({getattr(error, 'strerror', None) or error}); {remedy}"
        ) from None
