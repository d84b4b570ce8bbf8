"""Tells systemd that a run is ready, alive and how it goes: the datagrams of sd_notify(3).

What feeds the watchdog is the thread that matches frames, frame by frame: a run that hangs there
is ended and started again, which a thread of its own that keeps saying "alive" would prevent. A
camera that delivers nothing is no hang: the run tells of it twice a second and reopens the camera.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

from ..core.errors import InputError
from .fix import State
from .observe import Observation

# Watchdogs are fed four times within their limit; sd_watchdog_enabled(3) asks for twice.
_FEEDS = 4
_STATUS_S = 1.0
# While a camera that is not there yet holds up the start, it may take so much longer each time.
_EXTEND_S = 30


class Notifier:
    """The service manager's end of `$NOTIFY_SOCKET`.

    Attributes:
        watchdog_s: the service counts as hung after so many seconds; None where nobody watches.
    """

    def __init__(self, address: str, watchdog_s: float | None = None) -> None:
        """Take the address; `@` stands for the zero byte of an abstract socket.

        Raises:
            InputError: it is neither a path nor abstract.
        """
        if address[:1] not in ("/", "@") or len(address) < 2:
            raise InputError(
                f"NOTIFY_SOCKET={address}: expected a path or @NAME; unset it to run without"
            )
        self.watchdog_s = watchdog_s
        self._address = "\0" + address[1:] if address[0] == "@" else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def send(self, *lines: str) -> bool:
        """Send `KEY=VALUE` lines in one datagram, without waiting; tell whether it left."""
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError:  # its queue is full, or the manager is gone: the next one may arrive
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def open_notifier(environment: Mapping[str, str] = os.environ) -> Notifier | None:
    """Return the service manager's end, None where this is no service.

    Raises:
        InputError: the environment names something impossible.
    """
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return None
    watchdog_s = None
    # Set for one process: not for what inherits its environment.
    if environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
        text = environment.get("WATCHDOG_USEC", "")
        if text and not (text.isascii() and text.isdecimal() and int(text) > 0):
            raise InputError(f"WATCHDOG_USEC={text}: expected microseconds above 0; unset it")
        watchdog_s = int(text) / 1e6 if text else None
    return Notifier(address, watchdog_s)


class Watchdog:
    """Looks on, and tells the service manager: ready at the first frame, alive at each."""

    def __init__(self, notifier: Notifier) -> None:
        """Take the manager's end; it is closed with this."""
        self._notifier = notifier
        self._ready = False
        self._fed_s = 0.0
        self._status_s: float | None = None
        self._counted = 0

    def observe(self, seen: Observation) -> None:
        """Feed the watchdog; without waiting, and no oftener than it needs."""
        now_s = time.monotonic()
        self._counted += seen.frame is not None
        lines = []
        if not self._ready and seen.frame is not None:
            self._ready = True
            self._fed_s = now_s
            lines.append("READY=1")
        elif not self._ready:
            lines.append(f"EXTEND_TIMEOUT_USEC={_EXTEND_S * 1_000_000}")
        limit_s = self._notifier.watchdog_s
        if self._ready and limit_s is not None and now_s - self._fed_s >= limit_s / _FEEDS:
            self._fed_s = now_s
            lines.append("WATCHDOG=1")
        if self._status_s is None or now_s - self._status_s >= _STATUS_S:
            rate_hz = None if self._status_s is None else self._counted / (now_s - self._status_s)
            lines.append(f"STATUS={status(seen, rate_hz)}")
            self._status_s, self._counted = now_s, 0
        if lines:
            self._notifier.send(*lines)

    def close(self) -> None:
        """Tell that the run ends."""
        self._notifier.send("STOPPING=1", "STATUS=ending")
        self._notifier.close()


def status(seen: Observation, rate_hz: float | None) -> str:
    """Return one line for `systemctl status`; without the position, since any user may read it."""
    fix = seen.fix
    words = [fix.state.value if fix.reason is None else f"{fix.state.value} ({fix.reason.value})"]
    if rate_hz is not None:
        words.append(f"{rate_hz:.1f} frames/s")
    if fix.state in (State.TRACK, State.DEGRADED) and fix.sigma_m is not None:
        words.append(f"sigma {fix.sigma_m:.1f} m")
    if fix.anchor_age_s is not None:
        words.append(f"last match {fix.anchor_age_s:.1f} s ago")
    return ", ".join(words)
