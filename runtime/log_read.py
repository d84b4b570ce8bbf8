"""Reading a flight log: every byte is foreign until its checksum and its values are verified.

Nothing is made room for that the file does not hold: a record's length is compared with what is
left of it, chunks are compressed by nobody, pictures have the size that their step tells.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, McapRecord, Message
from mcap.stream_reader import breakup_chunk
from mcap.writer import MCAP0_MAGIC

from ..core.errors import InputError, IntegrityError
from .log_folder import SegmentFile, flights_of, segments_of
from .log_format import (
    FLIGHT,
    NOTES,
    PICTURES,
    RESIDUALS,
    STEPS,
    Flight,
    Malformed,
    Step,
    read_flight,
    read_step,
)
from .log_segment import IMAGE_HEAD_BYTES, image_message

MAX_RECORD_BYTES = 256 << 20
MAX_NOTES = 100_000
_HEAD = struct.Struct("<BQ")
_BROKEN = (McapError, struct.error, ValueError, OverflowError, MemoryError)
_CUT = "it ends there, as after a power cut"


@dataclass(frozen=True)
class LoggedStep:
    """A step with what belongs to it.

    Attributes:
        step: frame, telemetry and fix.
        jpeg: its picture, None where none was kept.
        residual: what makes that exact, None for photos and lossy pictures.
        log_time_ns: when it was noted.
    """

    step: Step
    jpeg: bytes | None
    residual: bytes | None
    log_time_ns: int


@dataclass
class LogReader:
    """A flight's segments, read one after the other.

    Attributes:
        path: as the user named it.
        flight: what the first segment says of the flight.
        segments: its files, the oldest first.
        faults: what was found damaged so far, one line each.
        notes: lines that were said, so far, with their time.
    """

    path: Path
    flight: Flight
    segments: list[SegmentFile]
    faults: list[str] = field(default_factory=list)
    notes: list[tuple[int, bytes]] = field(default_factory=list)

    def steps(self) -> Iterator[LoggedStep]:
        """Yield the steps in order; what is damaged is left out and told in `faults`.

        Raises:
            InputError: a segment cannot be read, or belongs to another flight.
        """
        self.faults.clear()
        self.notes.clear()
        last = -1
        for segment in self.segments:
            for one in self._steps_of(segment):
                if one.step.number <= last:
                    self._fault(segment.path, f"step {one.step.number} comes after {last}")
                    break
                last = one.step.number
                yield one

    def _steps_of(self, segment: SegmentFile) -> Iterator[LoggedStep]:
        pictures: dict[str, tuple[int, bytes]] = {}
        try:
            for topic, message in _messages(segment.path):
                number = message.sequence
                if topic in (PICTURES, RESIDUALS):
                    pictures[topic] = number, message.data
                elif topic == NOTES and len(self.notes) < MAX_NOTES:
                    self.notes.append((message.log_time, message.data))
                elif topic == FLIGHT:
                    self._check_flight(segment.path, read_flight(message.data))
                elif topic == STEPS:
                    step = read_step(message.data)
                    own = {t: data for t, (n, data) in pictures.items() if n == number}
                    pictures.clear()
                    jpeg = own.get(PICTURES)
                    yield LoggedStep(
                        step,
                        None if jpeg is None else _jpeg(jpeg),
                        own.get(RESIDUALS),
                        message.log_time,
                    )
        except Malformed as error:
            self._fault(segment.path, str(error))

    def _check_flight(self, path: Path, flight: Flight) -> None:
        mine = self.flight
        if (flight.flight, flight.started_utc_s) != (mine.flight, mine.started_utc_s):
            raise InputError(f"{path}: belongs to another flight than {mine.flight}; take it out")

    def _fault(self, path: Path, what: str) -> None:
        self.faults.append(f"{path}: {what}")


def open_log(path: Path) -> LogReader:
    """Open the record of one flight: its folder, one of its segments, or a folder of one flight.

    Raises:
        InputError: there is no such record, or there are several.
        IntegrityError: no segment tells what flight it is of.
    """
    segments = _find(path)
    fault = "tells nothing of a flight"
    for segment in segments:
        try:
            for topic, message in _messages(segment.path):
                if topic == FLIGHT:
                    return LogReader(path, read_flight(message.data), segments)
        except Malformed as error:
            fault = str(error)
    raise IntegrityError(f"{segments[-1].path}: {fault}; expected the record of s4g-run --log-dir")


def _find(path: Path) -> list[SegmentFile]:
    try:
        if path.is_file():
            return [SegmentFile(0, 1, path, path.stat().st_size)]
        if not path.is_dir():
            raise InputError(f"{path}: no such log; give the folder of a flight")
        flights = flights_of(path)
        if len(flights) > 1:
            last = list(flights.values())[-1]
            raise InputError(f"{path}: holds {len(flights)} flights; name one, such as {last}")
        folder = next(iter(flights.values()), path)
        segments = segments_of(0, folder)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not segments:
        raise InputError(f"{path}: holds no log; give the folder of a flight")
    return segments


def _messages(path: Path) -> Iterator[tuple[str, Message]]:
    """Yield topic and message in the order of the file, up to its end or its first damage.

    Raises:
        InputError: it cannot be read.
        Malformed: it is no MCAP, or it is damaged or cut short from here on.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if file.read(len(MCAP0_MAGIC)) != MCAP0_MAGIC:
                raise Malformed("it is no MCAP file")
            topics: dict[int, str] = {}
            while (chunk := _next_chunk(file, size)) is not None:
                yield from _of_chunk(chunk, topics)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _next_chunk(file: IO[bytes], size: int) -> Chunk | None:
    """Return the next chunk, None at the end of the data."""
    while True:
        at = file.tell()
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise Malformed(f"byte {at}: {_CUT}")
        opcode, length = _HEAD.unpack(head)
        if length > size - file.tell():
            raise Malformed(f"byte {at}: {_CUT}")
        if length > MAX_RECORD_BYTES:
            raise Malformed(f"byte {at}: a record of {length} bytes, more than {MAX_RECORD_BYTES}")
        data = file.read(length)
        if opcode == Opcode.DATA_END and length == 4:
            return None
        if opcode != Opcode.CHUNK:
            if not _is_passed_over(opcode, data, at):
                raise Malformed(f"byte {at}: a record that s4g-run does not write")
            continue
        try:
            chunk: Chunk = Chunk.read(ReadDataStream(io.BytesIO(data)))
        except _BROKEN:
            raise Malformed(f"byte {at}: a chunk is damaged") from None
        if chunk.compression:
            raise Malformed(f"byte {at}: a chunk is compressed, which s4g-run does not do")
        if zlib.crc32(chunk.data) != chunk.uncompressed_crc:
            raise Malformed(f"byte {at}: a chunk does not match its checksum")
        return chunk


def _is_passed_over(opcode: int, data: bytes, at: int) -> bool:
    """Tell whether a record is the file's header, or an index of the chunk before it.

    Neither is needed, nor has it a checksum; but a chunk must not pass for one by a flipped bit.
    """
    if opcode == Opcode.HEADER:
        return at == len(MCAP0_MAGIC)
    return (
        opcode == Opcode.MESSAGE_INDEX
        and len(data) >= 6
        and struct.unpack_from("<I", data, 2) == (len(data) - 6,)
    )


def _of_chunk(chunk: Chunk, topics: dict[int, str]) -> Iterator[tuple[str, Message]]:
    try:
        records: list[McapRecord] = breakup_chunk(chunk)
    except _BROKEN:
        raise Malformed("what a chunk holds is damaged") from None
    for record in records:
        if isinstance(record, Channel):
            topics[record.id] = record.topic
        elif isinstance(record, Message) and record.channel_id in topics:
            yield topics[record.channel_id], record


def _jpeg(message: bytes) -> bytes:
    """Return the JPEG in what `image_message` made."""
    jpeg = message[IMAGE_HEAD_BYTES:]
    head, made = message[:IMAGE_HEAD_BYTES], image_message(b"", 0)
    # All but the time and the JPEG's length is the same in each.
    if (
        head[12:-4] != made[12:-4]
        or head[:4] != made[:4]
        or head[-4:] != struct.pack("<I", len(jpeg))
    ):
        raise Malformed("a picture is not of this format")
    return jpeg
