"""One file of a flight log, as it is written: MCAP in small chunks that outlast a power cut."""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path
from typing import Any

from mcap.writer import CompressionType, Writer

from .log_format import BOARD, FLIGHT, NOTES, PICTURES, PLACES, RESIDUALS, STEPS, dump

# A picture completes a chunk at once; without pictures `sync` does.
_CHUNK_BYTES = 64 << 10
_JSON = '{"type":"object"}'
_TIME = '{"type":"object","properties":{"sec":{"type":"integer"},"nsec":{"type":"integer"}}}'
# foxglove.Log and foxglove.LocationFix as JSON schemas (docs.foxglove.dev, message schemas).
_LOG = (
    f'{{"title":"foxglove.Log","type":"object","properties":{{"timestamp":{_TIME},'
    '"level":{"type":"integer"},"message":{"type":"string"},"name":{"type":"string"},'
    '"file":{"type":"string"},"line":{"type":"integer"}}}'
)
_LOCATION = (
    f'{{"title":"foxglove.LocationFix","type":"object","properties":{{"timestamp":{_TIME},'
    '"frame_id":{"type":"string"},"latitude":{"type":"number"},"longitude":{"type":"number"},'
    '"altitude":{"type":"number"},"position_covariance":{"type":"array","items":'
    '{"type":"number"},"minItems":9,"maxItems":9},'
    '"position_covariance_type":{"type":"integer"}}}'
)
# sensor_msgs/msg/CompressedImage of ROS 2: pictures as bytes, where JSON would take a third more.
_IMAGE = """std_msgs/Header header
string format
uint8[] data
================================================================================
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
"""
_TOPICS = {
    FLIGHT: ("s4g.Flight", "jsonschema", _JSON, "json"),
    STEPS: ("s4g.Step", "jsonschema", _JSON, "json"),
    BOARD: ("s4g.Board", "jsonschema", _JSON, "json"),
    NOTES: ("foxglove.Log", "jsonschema", _LOG, "json"),
    PLACES: ("foxglove.LocationFix", "jsonschema", _LOCATION, "json"),
    PICTURES: ("sensor_msgs/msg/CompressedImage", "ros2msg", _IMAGE, "cdr"),
    RESIDUALS: ("", "", "", "zstd"),
}


class Segment:
    """A segment that is being written.

    Attributes:
        size: bytes written and waiting so far, about.
    """

    def __init__(self, path: Path) -> None:
        """Create the file.

        Raises:
            OSError: it exists, or cannot be written.
        """
        self._file = path.open("xb")
        try:
            # Pictures are compressed already. Its own methods are not typed.
            self._writer: Any = Writer(
                self._file, chunk_size=_CHUNK_BYTES, compression=CompressionType.NONE
            )
            self._writer.start(library="s4g-run")
            self._channels = {}
            for topic, (name, encoding, schema, message) in _TOPICS.items():
                number = 0
                if name:
                    number = self._writer.register_schema(name, encoding, schema.encode())
                self._channels[topic] = self._writer.register_channel(topic, message, number)
        except OSError:
            self.abandon()
            raise
        self.size = 0

    def add(self, topic: str, number: int, data: bytes, time_ns: int) -> None:
        """Append a message; `number` is its step's.

        Raises:
            OSError: the disk is full or gone.
        """
        self._writer.add_message(
            self._channels[topic], time_ns, data, time_ns, sequence=number & 0xFFFFFFFF
        )
        self.size += len(data)

    def sync(self) -> None:
        """Have everything so far outlast a power cut.

        Raises:
            OSError: the disk is full or gone.
        """
        self._writer.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write the index and end the file.

        Raises:
            OSError: the disk is full or gone.
        """
        try:
            self._writer.finish()
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of the file as it is."""
        with contextlib.suppress(OSError):  # whoever abandons it knows what is lost
            self._file.close()


def image_message(jpeg: bytes, time_ns: int) -> bytes:
    """Return a JPEG as a sensor_msgs/msg/CompressedImage, little-endian CDR (OMG DDSI-RTPS 10.2).

    Strings are counted with their final zero; every number lies on a multiple of its size.
    """
    frame_id, kind = b"camera\x00", b"jpeg\x00"
    seconds, nanoseconds = divmod(time_ns, 10**9)
    parts = [
        struct.pack("<iI", min(seconds, 2**31 - 1), nanoseconds),
        struct.pack("<I", len(frame_id)) + frame_id + b"\x00",
        struct.pack("<I", len(kind)) + kind + b"\x00" * 3,
        struct.pack("<I", len(jpeg)),
    ]
    return b"".join([b"\x00\x01\x00\x00", *parts, jpeg])


# Where the JPEG begins in it: all that comes before has a fixed length.
IMAGE_HEAD_BYTES = len(image_message(b"", 0))


def place_message(lat: float, lon: float, sigma_m: float, time_ns: int) -> bytes:
    """Return a position as a foxglove.LocationFix."""
    variance = sigma_m**2
    value = {
        "timestamp": _stamp(time_ns),
        "frame_id": "wgs84",
        "latitude": lat,
        "longitude": lon,
        "altitude": 0.0,
        "position_covariance": [variance, 0.0, 0.0, 0.0, variance, 0.0, 0.0, 0.0, 0.0],
        "position_covariance_type": 1,  # approximated: nothing is known of the altitude
    }
    return dump(value)


def line_message(text: str, name: str, level: int, time_ns: int) -> bytes:
    """Return a line as a foxglove.Log."""
    value = {
        "timestamp": _stamp(time_ns),
        "level": level,
        "message": text,
        "name": name,
        "file": "",
        "line": 0,
    }
    return dump(value)


def _stamp(time_ns: int) -> dict[str, int]:
    seconds, nanoseconds = divmod(time_ns, 10**9)
    return {"sec": seconds, "nsec": nanoseconds}
