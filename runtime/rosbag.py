"""A ROS 2 bag that grows: an SQLite file on the disk each second, metadata beside it.

`rosbags` writes `metadata.yaml` at the end alone, and without it no reader opens the folder; here
it is written each second, so that a bag can be read after a crash. It is of version 8: ROS 2 Humble
and older cannot read 9, newer ones read both.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..core.errors import InputError
from .navsatfix import nav_sat_fix
from .sink import Moment
from .sink_file import SYNC_S

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

TEXT_TOPIC = "/s4g/fix"
_VERSION: Final = 8
_NAV_SAT_FIX, _STRING = "sensor_msgs/msg/NavSatFix", "std_msgs/msg/String"


class Bag:
    """A bag that is open; used by one thread."""

    def __init__(self, path: Path, topic: str, frame_id: str) -> None:
        """Make the folder and an empty bag in it.

        Args:
            path: of the folder.
            topic: of the NavSatFix.
            frame_id: of its header.

        Raises:
            OSError: there is something of that name, or no room.
            sqlite3.Error: no room; nothing is left.
        """
        from rosbags.rosbag2 import Writer
        from rosbags.rosbag2.errors import WriterError
        from rosbags.typesys import Stores, get_typestore

        self._path = path
        self._frame_id = frame_id
        self._types = get_typestore(Stores.ROS2_HUMBLE)
        self._is_damaged = False
        try:
            self._writer = Writer(path, version=_VERSION)
            self._writer.open()
            self._fixes = self._add(topic, _NAV_SAT_FIX)
            self._texts = self._add(TEXT_TOPIC, _STRING)
            storage: Any = self._writer.storage
            self._database: sqlite3.Connection = storage.conn
            self._file: Path = storage.path
            self._stat = self._file.stat()
            self._put_s = time.monotonic() - SYNC_S
            self.put()
        except WriterError:
            raise FileExistsError(f"{path} already exists") from None
        except (OSError, sqlite3.Error):
            self._abort()
            with contextlib.suppress(OSError):
                remove_bag(path)
            raise

    def _add(self, topic: str, kind: str) -> Connection:
        return self._writer.add_connection(topic, kind, typestore=self._types)

    def write(self, time_ns: int, moment: Moment) -> None:
        """Add a fix, as NavSatFix and as a line of JSON.

        Raises:
            sqlite3.Error: no room.
        """
        types = self._types.types
        values = nav_sat_fix(moment)
        header = types["std_msgs/msg/Header"](
            stamp=types["builtin_interfaces/msg/Time"](
                sec=time_ns // 10**9, nanosec=time_ns % 10**9
            ),
            frame_id=self._frame_id,
        )
        message = types[_NAV_SAT_FIX](
            header=header,
            status=types["sensor_msgs/msg/NavSatStatus"](
                status=values.status, service=values.service
            ),
            latitude=values.latitude,
            longitude=values.longitude,
            altitude=values.altitude,
            position_covariance=np.array(values.position_covariance),
            position_covariance_type=values.position_covariance_type,
        )
        text = types[_STRING](data=moment.fix.to_json())
        for connection, content in ((self._fixes, message), (self._texts, text)):
            data = self._types.serialize_cdr(content, connection.msgtype)
            self._writer.write(connection, time_ns, data)

    def put(self) -> None:
        """Bring it to the disk, if that is a second ago; see whether it is still there.

        Raises:
            FileNotFoundError: it is not; this bag is of no more use.
            OSError: no room for the metadata.
            sqlite3.Error: no room; what was added in the last second is lost.
        """
        now_s = time.monotonic()
        if now_s - self._put_s < SYNC_S:
            return
        self._put_s = now_s
        try:
            is_there = os.path.samestat(self._stat, self._file.stat())
        except OSError:
            is_there = False
        if not is_there:
            self._abort()
            raise FileNotFoundError(f"{self._path} was moved or deleted")
        try:
            self._database.commit()
        except sqlite3.Error:
            self._is_damaged = True  # it took back what came in the last second
            raise
        self._put_metadata()

    def close(self) -> None:
        """End the bag.

        Raises:
            OSError: no room; what lies on the disk can be read.
            sqlite3.Error: the same.
        """
        try:
            if self._is_damaged:
                rows = self._database.execute(
                    "SELECT topic_id, count(*) FROM messages GROUP BY topic_id"
                )
                self._writer.counts = dict.fromkeys(self._writer.counts, 0) | dict(rows)
            self._writer.close()
        except Exception:
            self._abort()
            raise

    def _abort(self) -> None:
        with contextlib.suppress(Exception):
            self._writer.abort()

    def _put_metadata(self) -> None:
        """Write `metadata.yaml` as it is now. JSON is YAML too."""
        text = json.dumps({"rosbag2_bagfile_information": self._metadata()}, indent=1)
        temporary = self._path / "metadata.yaml.tmp"
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path / "metadata.yaml")

    def _metadata(self) -> dict[str, Any]:
        writer = self._writer
        count = sum(writer.counts.values())
        span = {
            "starting_time": {"nanoseconds_since_epoch": writer.min_timestamp},
            "duration": {"nanoseconds": max(0, writer.max_timestamp - writer.min_timestamp)},
            "message_count": count,
        }
        return {
            "version": _VERSION,
            "storage_identifier": "sqlite3",
            "relative_file_paths": [self._file.name],
            **span,
            "topics_with_message_count": [
                {
                    "topic_metadata": {
                        "name": connection.topic,
                        "type": connection.msgtype,
                        "serialization_format": "cdr",
                        "offered_qos_profiles": "",
                        "type_description_hash": connection.digest,
                    },
                    "message_count": writer.counts[connection.id],
                }
                for connection in writer.connections
            ],
            "compression_format": "",
            "compression_mode": "",
            "files": [{"path": self._file.name, **span}],
            "custom_data": None,
            "ros_distro": "rosbags",
        }


def check_is_bag(path: Path) -> None:
    """Refuse to replace what is no bag.

    Raises:
        InputError: it is a file, or a folder with other files in it.
    """
    if not path.is_dir():
        raise InputError(f"{path}: is a file, expected the folder of a bag; choose another place")
    for file in path.iterdir():
        name = file.name.removesuffix(".tmp").removesuffix("-journal")
        if file.is_dir() or not (name == "metadata.yaml" or name.endswith(".db3")):
            raise InputError(f"{path}: holds {file.name}, so is no bag alone; choose another place")


def remove_bag(path: Path) -> None:
    """Delete a folder that `check_is_bag` took for one."""
    for file in path.iterdir():
        file.unlink()
    path.rmdir()
