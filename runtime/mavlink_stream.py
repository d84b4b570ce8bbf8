"""A MAVLink link while it runs: a thread reads it for whoever listens, any thread may send.

Telemetry and outputs share one where they name the same serial port.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Protocol

from ..core.console import say
from .mavlink_signing import Signer
from .telemetry_link import Address, open_first, open_link

RETRY_S = 1.0
_CLOSE_S = 5.0


class Listener(Protocol):
    """Takes what comes, in the stream's thread."""

    def take(self, heard: Sequence[Any], damaged: int, now_s: float) -> None:
        """Take messages of pymavlink's; called without any after a while of silence, too.

        Args:
            heard: `BAD_DATA` among them where bytes were no message.
            damaged: how often pymavlink failed at what came.
            now_s: monotonic.
        """
        ...

    def reopened(self) -> None:
        """Take note that the link was lost and is back."""
        ...


class MavlinkStream:
    """A link, its thread, and who listens.

    Args:
        name: for messages.
        address: of the link.
        dialect: pymavlink's module.
        tells: whether it says so when the link is lost; whoever sends learns it from `post`.

    Raises:
        InputError: it cannot be opened.
    """

    def __init__(
        self, name: str, address: Address, dialect: ModuleType, tells: bool = True
    ) -> None:
        """Open the link; nothing is read before `start`."""
        self.name = name
        self.address = address
        self.dialect: Any = dialect
        self.refused = 0
        self._signer: Signer | None = None
        self._listeners: list[Listener] = []
        self._sending = threading.Lock()
        self._sequences: dict[tuple[int, int], int] = {}
        self._is_loss_told = not tells
        self._stop = threading.Event()
        self.link = open_first(address)
        self._parser = self._new_parser()
        self._packer = self.dialect.MAVLink(None)
        self.thread = threading.Thread(target=self._run, name="s4g-mavlink", daemon=True)

    def start(self, listener: Listener) -> None:
        """Begin to read."""
        self._listeners.append(listener)
        self.thread.start()

    def share(self, listener: Listener) -> None:
        """Hand what comes to one more listener."""
        self._listeners.append(listener)

    def sign(self, signer: Signer) -> None:
        """Sign what is sent, and refuse what is not signed with the same key."""
        self._packer.signing.secret_key = signer.key
        self._packer.signing.sign_outgoing = True
        self._signer = signer

    def post(self, message: Any, system: int, component: int) -> None:
        """Send a message in the name of a system and component.

        Raises:
            OSError: the link is lost; it is opened again as soon as that works.
        """
        with self._sending:
            packer = self._packer
            packer.srcSystem, packer.srcComponent = system, component
            packer.seq = self._sequences.get((system, component), 0)
            self._sequences[system, component] = (packer.seq + 1) % 256
            if self._signer is not None:
                packer.signing.timestamp = self._signer.next_stamp()
            self.link.send(bytes(message.pack(packer)))

    def close(self) -> None:
        """Stop the thread and release the link."""
        self._stop.set()
        if self.thread.ident is None:
            self.link.close()
        else:
            self.thread.join(timeout=_CLOSE_S)

    def _new_parser(self) -> Any:
        parser = self.dialect.MAVLink(None)
        parser.robust_parsing = True
        return parser

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    data = self.link.receive()
                    messages, damaged = self._parsed(data)
                    now_s = time.monotonic()
                    for listener in tuple(self._listeners):
                        listener.take(messages, damaged, now_s)
                except OSError as error:
                    self._reopen(error)
        finally:
            self.link.close()

    def _parsed(self, data: bytes) -> tuple[list[Any], int]:
        if not data:
            return [], 0
        if self.link.whole_messages:  # half a message must not swallow the next datagram
            self._parser = self._new_parser()
        try:
            messages = list(self._parser.parse_buffer(data) or ())
        except Exception:  # pymavlink checks little: whatever bytes do to it, the next may be good
            self._parser = self._new_parser()
            return [], 1
        return [m for m in messages if self._is_welcome(m)], 0

    def _is_welcome(self, message: Any) -> bool:
        if self._signer is None or message.get_type() == "BAD_DATA":
            return True
        if self._signer.believes(message):
            return True
        self.refused += 1
        return False

    def _reopen(self, error: OSError) -> None:
        if not self._is_loss_told:
            self._is_loss_told = True
            say(f"{self.name}: lost ({error.strerror or error}); trying again")
        self.link.close()
        self._parser = self._new_parser()
        while not self._stop.wait(RETRY_S):
            try:
                self.link = open_link(self.address)
            except OSError:
                continue
            for listener in tuple(self._listeners):
                listener.reopened()
            return
