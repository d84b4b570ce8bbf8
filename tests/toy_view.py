"""Runs and logs made up for the tests of the map, and a client that says no more than it is told.

Frames are made without a camera or an encoder; the server, its sockets and its packs are real.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from s4g.core.images import encode_rgb
from s4g.runtime.fix import Candidate, Fix, Reason, State
from s4g.runtime.frames import Frame
from s4g.runtime.observe import Observation
from s4g.runtime.view_address import Address
from s4g.runtime.view_live import LiveView, Pace
from s4g.runtime.view_page import serve_live, serve_log
from s4g.runtime.view_replay import Log
from s4g.tilepacks.reader import Pack

LOOPBACK = Address("--view 0", "127.0.0.1", 0)
PERIOD_S = 0.02
PATIENCE_S = 20.0  # far above what anything here takes


def fix(pack: Pack, number: int, state: State = State.TRACK, **changes: Any) -> Fix:
    """A fix of frame `number`, five metres further east each; without a place where none is due."""
    placed = state in (State.TRACK, State.DEGRADED)
    lat, lon = (float(v) for v in pack.frame.to_wgs84(5.0 * number - 60.0, 10.0))
    made = Fix(
        frame=number,
        t=100.0 + number / 10,
        state=state,
        reason=None if placed else Reason.AMBIGUOUS,
        lat=lat if placed else None,
        lon=lon if placed else None,
        sigma_m=4.0 if placed else None,
        hpl_m=14.88 if placed else None,
        ve_mps=50.0,
        vn_mps=0.0,
        heading_deg=90.0,
        agl_m=120.0,
        source="visual" if placed else None,
        anchor_age_s=0.0,
        score=0.91,
        latency_ms=20.0 + number % 10,
        top=(Candidate(lat, lon, 48.0, 0.91), Candidate(lat, lon + 4e-4, 48.0, 0.52)),
    )
    return dataclasses.replace(made, **changes)


def frame(number: int, width_px: int = 64, height_px: int = 48, jpeg: bool = False) -> Frame:
    """A frame of one grey, lighter with its number."""
    rgb = np.full((height_px, width_px, 3), 40 + 3 * (number % 60), np.uint8)
    encoded = encode_rgb(rgb, ".jpg") if jpeg else None
    now_s = time.monotonic()
    return Frame(
        number, now_s, None, "toy", width_px, height_px, now_s, 0.0, encoded, None if jpeg else rgb
    )


def seen(made: Fix, **parts: Any) -> Observation:
    """What observers are told of a fix, with a frame unless told otherwise."""
    return Observation(made, {"total": 20.0}, **({"frame": frame(made.frame)} | parts))


@dataclasses.dataclass
class Answer:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks one server, with nothing added to what is told."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self.host, self.port, self.query = parts.hostname, parts.port, parts.query

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Send one request; a header `host` replaces the usual one."""
        return self.ask(method, path, {k.replace("_", "-"): v for k, v in headers.items()})

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_S)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in ({"host": f"{self.host}:{self.port}"} | dict(headers)).items():
                connection.putheader(name, value)
            if body:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        """Send bytes as they are; return all that comes back."""
        with self.connect() as wire:
            wire.sendall(data)
            wire.settimeout(PATIENCE_S)
            got = b""
            while part := wire.recv(65536):
                got += part
            return got

    def connect(self, receive_bytes: int | None = None) -> socket.socket:
        """Return a connection; one with a small buffer is full soon when nobody reads."""
        wire = socket.socket()
        if receive_bytes is not None:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        wire.connect((self.host, self.port))
        return wire

    def events(self, **headers: str) -> Events:
        """Begin to listen to the news."""
        return Events(self, headers)


class Events:
    """Server-sent events of one viewer, as the specification has them parsed."""

    def __init__(self, client: Client, headers: Mapping[str, str]) -> None:
        self._wire = client.connect()
        self._wire.settimeout(PATIENCE_S)
        lines = [f"Host: {client.host}:{client.port}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._wire.sendall(
            ("GET /live/events HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode()
        )
        self._file = self._wire.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        while self._file.readline() not in (b"\r\n", b""):
            pass
        self._text = self._chunks()
        self._left = b""

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._file.readline() or b"0", 16):
            yield self._file.read(size)
            self._file.readline()

    def next(self) -> SimpleNamespace:
        """Return the next event: `name`, `id`, `data`; EOFError where there is none any more."""
        while b"\n\n" not in self._left:
            part = next(self._text, None)
            if part is None:
                raise EOFError
            self._left += part
        block, self._left = self._left.split(b"\n\n", 1)
        fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
        if "data" not in fields:
            return self.next()
        return SimpleNamespace(
            name=fields["event"], id=fields.get("id"), data=json.loads(fields["data"])
        )

    def until(self, wanted: Any) -> SimpleNamespace:
        """Return the first event of which `wanted(event)` is true."""
        while True:
            event = self.next()
            if wanted(event):
                return event

    def close(self) -> None:
        self._file.close()
        self._wire.close()

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclasses.dataclass
class Served:
    """A map that is served, and who asks for it."""

    url: str
    view: LiveView
    client: Client


def live(
    stack: ExitStack,
    pack: Pack,
    token: str | None = None,
    address: Address = LOOPBACK,
    pace: Pace = Pace.NONE,
    counters: Any = dict,
) -> Served:
    """Serve the map of a run that has not begun."""
    view = LiveView(pack, pace, counters)
    url = serve_live(stack, address, token, pack, view, PERIOD_S)
    return Served(url, view, Client(url))


def replay(stack: ExitStack, pack: Pack, log: Log) -> Client:
    """Serve a finished log."""
    return Client(serve_log(stack, LOOPBACK, None, pack, log))


def write_log(path: Path, fixes: list[Fix]) -> Path:
    """Write a fixes.jsonl."""
    path.write_text("".join(one.to_json() + "\n" for one in fixes))
    return path


def wait_until(done: Any) -> None:
    """Wait for something that another thread does."""
    end_s = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end_s, "it did not happen"
        time.sleep(0.01)
