"""MAVLink telemetry logs (`.tlog`) of ground stations and companions.

A record is the time of its reception, microseconds since 1970 as eight bytes, most significant
first, and the message as it came.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from types import ModuleType

from ..core.errors import InputError, IntegrityError
from .telemetry_mavlink import WANTED, Collector, load_dialect
from .telemetry_series import MAX_BACKWARDS_S
from .telemetry_vehicle import LogTelemetry, Mount, Tracks

_STAMP_BYTES = 8
_HEADER_BYTES = 10
_LATEST_US = 4_102_444_800_000_000  # the year 2100
_SIGNED = 1
_SIGNATURE_BYTES = 13


def is_tlog(head: bytes) -> bool:
    """Tell from a file's first bytes whether it is a telemetry log."""
    if len(head) < _STAMP_BYTES + _HEADER_BYTES:
        return False
    return _record(head, 0) is not None


def read_tlog(path: Path, offset_s: float = 0.0, mount: Mount | None = None) -> LogTelemetry:
    """Read a telemetry log: of the first system whose autopilot tells its attitude.

    Args:
        path: the file.
        offset_s: what the frames' clock shows at the log's first record.
        mount: of the camera on the body (`telemetry_vehicle.sample_at`).

    Raises:
        InputError: it cannot be read, pymavlink is not installed, or the log tells neither
            attitude nor height.
        IntegrityError: its clock jumps back.
    """
    dialect = load_dialect(str(path))
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            tracks = _read(path, data, dialect)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return LogTelemetry(str(path), tracks, offset_s, mount)


def _read(path: Path, data: mmap.mmap, dialect: ModuleType) -> Tracks:
    wanted = {i for i, kind in dialect.mavlink_map.items() if kind.msgname in WANTED}
    parser = dialect.MAVLink(None)
    collector = Collector(Tracks())
    first_us: int | None = None
    newest_us = 0
    at = 0
    while at + _STAMP_BYTES + _HEADER_BYTES <= len(data):
        record = _record(data, at)
        if record is None:
            at += 1  # damaged: on to what may be the next record
            continue
        stamp_us, number, length = record
        if number in wanted:
            start = at + _STAMP_BYTES
            try:
                message = parser.decode(bytearray(data[start : start + length]))
            except dialect.MAVError:  # the checksum, or cut short
                collector.counts.damaged += 1
                at += 1
                continue
            newest_us = max(newest_us, stamp_us)
            if newest_us - stamp_us > MAX_BACKWARDS_S * 1e6:
                raise IntegrityError(
                    f"{path}: byte {at}: the clock goes backwards by "
                    f"{(newest_us - stamp_us) / 1e6:.1f} s; split the log there"
                )
            first_us = stamp_us if first_us is None else first_us
            collector.add(message, (stamp_us - first_us) / 1e6)
        elif first_us is None and at == 0:
            first_us = stamp_us
        at += _STAMP_BYTES + length
    return collector.tracks


def _record(data: bytes | mmap.mmap, at: int) -> tuple[int, int, int] | None:
    """Return time, message number and message length of the record at a place, None if none is."""
    start = at + _STAMP_BYTES
    magic, payload = data[start], data[start + 1]
    stamp_us = int.from_bytes(data[at:start], "big")
    if stamp_us > _LATEST_US:
        return None
    if magic == 0xFE:
        return stamp_us, data[start + 5], payload + 8
    if magic == 0xFD:
        signature = _SIGNATURE_BYTES if data[start + 2] & _SIGNED else 0
        number = int.from_bytes(data[start + 7 : start + 10], "little")
        return stamp_us, number, payload + 12 + signature
    return None
