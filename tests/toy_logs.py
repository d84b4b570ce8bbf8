"""Small autopilot logs for tests, byte by byte as autopilots and ground stations write them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

_STRUCT = dict(zip("bBMhHiIqQfdLcCeE", "bBBhHiIqQfdihHiI", strict=True)) | {"N": "16s"}
_HUNDREDTHS = "cCeE"


class DataFlash:
    """An ArduPilot `.bin`: FMT messages, then rows."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._kinds: dict[str, tuple[int, str]] = {}
        self.describe("FMT", "BBnNZ", "Type,Length,Name,Format,Columns", number=128, length=89)

    def describe(
        self, name: str, form: str, columns: str, number: int | None = None, length: int = 0
    ) -> None:
        number = number or 129 + len(self._kinds)
        length = length or 3 + struct.calcsize("<" + "".join(_STRUCT[c] for c in form))
        self._kinds[name] = (number, form)
        texts = (name.encode(), form.encode(), columns.encode())
        self.data += b"\xa3\x95\x80" + struct.pack("<BB4s16s64s", number, length, *texts)

    def row(self, name: str, *values: Any) -> None:
        number, form = self._kinds[name]
        counts = [
            round(v * 100) if c in _HUNDREDTHS else v for c, v in zip(form, values, strict=True)
        ]
        self.data += b"\xa3\x95" + bytes([number])
        self.data += struct.pack("<" + "".join(_STRUCT[c] for c in form), *counts)


def us(t: float) -> int:
    """Return seconds as microseconds of a clock that began before the log."""
    return 5_000_000 + round(t * 1e6)


class ULogFile:
    """A PX4 `.ulg`: header, formats, subscriptions, data."""

    def __init__(self, start_us: int = 5_000_000) -> None:
        self.data = bytearray(b"ULog\x01\x12\x35\x01" + struct.pack("<Q", start_us))
        self._message(b"B", bytes(40))
        self._topics: dict[str, tuple[int, str]] = {}
        self._subscribed = False

    def _message(self, kind: bytes, payload: bytes) -> None:
        self.data += struct.pack("<H", len(payload)) + kind + payload

    def topic(self, name: str, form: str, fields: str) -> None:
        """`form` is struct's, the time included; `fields` are ULog's `type name;` after it."""
        self._message(b"F", f"{name}:uint64_t timestamp;{fields}".encode())
        self._topics[name] = (len(self._topics), "<Q" + form)

    def row(self, name: str, t: float, *values: Any) -> None:
        if not self._subscribed:
            self._subscribed = True
            for topic, (number, _) in self._topics.items():
                self._message(b"A", struct.pack("<BH", 0, number) + topic.encode())
        number, form = self._topics[name]
        self._message(b"D", struct.pack("<H", number) + struct.pack(form, us(t), *values))


def tlog(records: Sequence[tuple[float, bytes]], start_us: int = 1_700_000_000_000_000) -> bytes:
    """Return a `.tlog` of messages with the times at which they were received."""
    return b"".join(struct.pack(">Q", start_us + round(t * 1e6)) + m for t, m in records)
