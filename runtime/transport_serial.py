"""Serial ports that may be unplugged and plugged in again, and pseudo terminals that stand in."""

from __future__ import annotations

import errno
import os
import select
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..core.console import say
from ..core.errors import InputError
from .sink import SinkUrl
from .transport import CHUNK_BYTES, Reopened, refusal

_WRITE_S = 0.5
_PTYS = "/dev/pts/"
_PORTS = ("ttyUSB*", "ttyACM*", "ttyAMA*", "ttyTHS*", "serial/by-id/*")


def is_terminal(path: str) -> bool:
    """Tell whether a path is a serial port: a terminal, or in /dev and nothing (yet)."""
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return path.startswith("/dev/") and not path.startswith("/dev/shm/")
    if not stat.S_ISCHR(mode):
        return False
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return Path(path).resolve().name.startswith("tty")
    try:
        return os.isatty(handle)
    finally:
        os.close(handle)


class SerialPort:
    """A serial port."""

    def __init__(self, path: str, baud: int) -> None:
        """Open it for this process alone.

        Raises:
            OSError: there is none, or no right to it, or another program holds it.
            ImportError: pyserial is not installed.
            ValueError: a speed there is not.
        """
        import serial

        self._port: Any = serial.Serial(
            path, baud, timeout=0, write_timeout=_WRITE_S, exclusive=True
        )

    def send(self, data: bytes) -> None:
        """Send.

        Raises:
            OSError: it was unplugged, or took too little for half a second.
        """
        _do(self._port.write, data)

    def receive(self) -> bytes:
        """Return what came.

        Raises:
            OSError: it was unplugged.
        """
        return bytes(_do(self._port.read, CHUNK_BYTES))

    def close(self) -> None:
        """Release it at once: what a device that takes nothing has not taken is given up."""
        with suppress(OSError):
            _do(self._port.reset_output_buffer)
        with suppress(OSError):
            _do(self._port.close)


def _do(what: Any, *arguments: Any) -> Any:
    import termios

    try:
        return what(*arguments)
    except termios.error as error:  # not an OSError, but the same
        raise OSError(*error.args) from None


def open_serial(url: SinkUrl, default_baud: int) -> Reopened:
    """Open the serial port that an output's URL names; `baud` is its setting.

    Raises:
        InputError: it cannot be opened.
    """
    path = url.rest
    baud = int(url.number("baud", default_baud, 50, 4_000_000))
    if not Path(path).exists():
        found = sorted(str(p) for name in _PORTS for p in Path("/dev").glob(name))
        raise InputError(
            f"--to {url.url}: no device {path}; found {', '.join(found) or 'no serial ports'}"
        )
    try:
        return Reopened(lambda: SerialPort(path, baud))
    except ImportError:
        raise InputError(
            f"--to {url.url}: serial ports are written with pyserial, which is not installed; "
            "pip install 's4g[telemetry]'"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a speed there is not
        remedy = "another program may use it, or you may not be in the group 'dialout'"
        raise refusal(url, error, remedy) from None


class Pty:
    """A pseudo terminal: a program that reads serial ports opens its other end.

    Attributes:
        path: of the other end.
        let_go: none ever is.
    """

    let_go = 0

    def __init__(self, link: Path | None = None) -> None:
        """Make one that passes bytes on as they are.

        Args:
            link: a name that lasts, for the reader's settings: a symbolic link to the other end;
                one to another pseudo terminal is replaced.

        Raises:
            OSError: there are too many, or the link cannot be made.
        """
        import tty

        if link is not None:
            if link.is_symlink() and str(link.readlink()).startswith(_PTYS):
                link.unlink()
            elif link.is_symlink() or link.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(link))
        self._link = link
        self._end, other = os.openpty()
        self.path = os.ttyname(other)
        tty.setraw(other)
        os.set_blocking(self._end, False)
        # While nobody has the other end open, writing would fill it with what is old when read.
        os.close(other)
        self._rest = b""
        self._poll = select.poll()
        self._poll.register(self._end, 0)
        if link is not None:
            try:
                link.symlink_to(self.path)
            except OSError:
                os.close(self._end)
                raise

    def send(self, data: bytes) -> None:
        """Send to who reads the other end, if anybody does.

        Raises:
            OSError: the reader does not keep up: nothing of this was sent.
        """
        if not self._has_reader():
            self._rest = b""
            return
        # A message that went half is ended before another begins.
        self._rest = self._push(self._rest)
        rest = data if self._rest else self._push(data)
        if rest == data:
            raise BlockingIOError("its reader does not keep up")
        self._rest = rest

    def receive(self) -> bytes:
        """Return what the reader wrote."""
        if not self._has_reader():
            return b""
        self._rest = self._push(self._rest)
        try:
            return os.read(self._end, CHUNK_BYTES)
        except OSError:  # nothing there, or gone just now
            return b""

    def close(self) -> None:
        """Release it; who reads it sees its end."""
        os.close(self._end)
        # Another run may have taken the name meanwhile.
        if self._link is not None and self._link.is_symlink():
            with suppress(OSError):
                if str(self._link.readlink()) == self.path:
                    self._link.unlink()

    def _has_reader(self) -> bool:
        return not any(event & select.POLLHUP for _, event in self._poll.poll(0))

    def _push(self, data: bytes) -> bytes:
        """Write what goes, and return the rest."""
        try:
            while data:
                data = data[os.write(self._end, data) :]
        except OSError:  # full, or the reader is gone just now
            pass
        return data


def open_pty(url: SinkUrl) -> Pty:
    """Make the pseudo terminal that an output's URL asks for, and say its name.

    The setting `link` gives it another that stays the same from run to run.

    Raises:
        InputError: there can be no more of them, or the link cannot be made.
    """
    link = url.settings.get("link")
    try:
        pty = Pty(Path(link) if link else None)
    except OSError as error:
        remedy = "give another link" if link else "close programs that use terminals"
        raise refusal(url, error, remedy) from None
    say(f"output {url.name}: to be read at {link or pty.path}")
    return pty
