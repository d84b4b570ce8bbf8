"""MAVLink 2 signatures: the key, timestamps that only ever grow, and whom to believe.

The key is made as MAVProxy and Mission Planner make it. Source: the MAVLink guide, "Message
signing": 48 bits of the SHA-256 of key and message; timestamps in units of 10 µs since 2015.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import time
from pathlib import Path
from typing import Any

from ..core.console import say
from ..core.errors import InputError
from ..core.files import read_bytes

KEY_BYTES = 32
_EPOCH_S = 1_420_070_400  # 2015-01-01T00:00:00Z
_TICKS_PER_S = 100_000
_SIGNATURE_BYTES = 6
_BLOCK_BYTES = 13  # link, timestamp, signature
# Of the timestamp so much is taken ahead at a time, so that the file is seldom written.
_AHEAD = 60 * _TICKS_PER_S
# A sender that was not heard before is believed if its clock lags by no more (the guide's minute).
_LAG = 60 * _TICKS_PER_S
_MOST = (1 << 48) - 1


def read_key(path: Path, name: str) -> bytes:
    """Return the key in a file: 32 bytes as they are, or the SHA-256 of a line of text.

    Args:
        path: of the file.
        name: of the output, for errors.

    Raises:
        InputError: it cannot be read, or holds neither.
    """
    data = read_bytes(path)
    try:
        text: str | None = data.decode()
    except UnicodeDecodeError:
        text = None
    if text is not None and text.strip().isprintable():
        if passphrase := text.rstrip("\r\n"):
            return hashlib.sha256(passphrase.encode()).digest()
    elif len(data) == KEY_BYTES:
        return data
    raise InputError(
        f"{name}: sign={path}: {len(data)} bytes that are no key; expected {KEY_BYTES} bytes, or a "
        "passphrase in one line"
    )


class Signer:
    """Signs what is sent, and tells whether to believe what is received.

    A receiver refuses timestamps that do not grow. A drone's clock may stand at 1970 after each
    start, so the newest timestamp is kept in a file beside the key.

    Args:
        key_path: of the key; the newest timestamp is kept in `KEY_PATH.timestamp`.
        name: of the output, for errors.

    Raises:
        InputError: the key is none, or the other file cannot be written.
    """

    def __init__(self, key_path: Path, name: str) -> None:
        """Read the key and the newest timestamp."""
        self.key = read_key(key_path, name)
        self._name = name
        self._path = key_path.with_name(key_path.name + ".timestamp")
        self._is_told = False
        self._newest: dict[tuple[int, int, int], int] = {}
        self._stamp = self._kept = self._read()
        try:
            self._keep()
        except OSError as error:
            raise InputError(
                f"{name}: sign={key_path}: {self._path} cannot be written ({error.strerror}); "
                "timestamps of signatures must grow from run to run, so put the key into a folder "
                "that can be written"
            ) from None

    def next_stamp(self) -> int:
        """Return the timestamp for the message to be sent now."""
        now = int((time.time() - _EPOCH_S) * _TICKS_PER_S)
        self._stamp = min(max(self._stamp + 1, now), _MOST)
        if self._stamp >= self._kept:
            try:
                self._keep()
            except OSError as error:  # a full disk does not stop fixes
                self._kept = self._stamp + _AHEAD
                if not self._is_told:
                    self._is_told = True
                    say(f"{self._name}: {self._path}: cannot be written ({error.strerror})")
        return self._stamp

    def believes(self, message: Any) -> bool:
        """Tell whether a message of pymavlink's carries a good signature newer than the last."""
        data = bytes(message.get_msgbuf())
        if not message.get_header().incompat_flags & 1 or len(data) < _BLOCK_BYTES:
            return False
        expected = hashlib.sha256(self.key + data[:-_SIGNATURE_BYTES]).digest()[:_SIGNATURE_BYTES]
        if not hmac.compare_digest(expected, data[-_SIGNATURE_BYTES:]):
            return False
        block = data[-_BLOCK_BYTES:]
        stamp = int.from_bytes(block[1:7], "little")
        sender = (message.get_srcSystem(), message.get_srcComponent(), block[0])
        newest = self._newest.get(sender)
        if stamp <= newest if newest is not None else stamp + _LAG < self._stamp:
            return False  # heard before: somebody plays a recording
        self._newest[sender] = stamp
        self._stamp = max(self._stamp, stamp)
        return True

    def _read(self) -> int:
        try:
            text = self._path.read_text()
        except OSError:
            return 0
        except UnicodeDecodeError:
            text = ""
        if not (text.strip().isdecimal() and text.isascii() and int(text) <= _MOST):
            raise InputError(
                f"{self._name}: {self._path}: holds no timestamp; remove it if the clock is right"
            )
        return int(text)

    def _keep(self) -> None:
        """Write down a timestamp that none of this run has reached yet."""
        kept = min(max(self._stamp, int((time.time() - _EPOCH_S) * _TICKS_PER_S)) + _AHEAD, _MOST)
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("w") as file:
                file.write(f"{kept}\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        self._kept = kept
