"""`--to rosbag:FOLDER`: a ROS 2 bag with NavSatFix, written without ROS.

The folder holds an SQLite file, which is put on the disk each second, and `metadata.yaml`, written
anew with it, so that a bag can be read after a crash too. Metadata are of version 8: ROS 2 Humble
and older cannot read 9, newer ones read both.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..core.errors import InputError
from ..core.files import check_output, why_not_written
from .navsatfix import nav_sat_fix
from .sink import Moment, SinkUrl
from .sink_file import SYNC_S, file_of, log_time_ns, may_overwrite

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

    from .cli_part import Running

_VERSION: Final = 8
_NAV_SAT_FIX, _STRING = "sensor_msgs/msg/NavSatFix", "std_msgs/msg/String"
_TEXT_TOPIC = "/s4g/fix"


class RosbagSink:
    """Writes fixes into a bag; it is made with the first, by the thread that sends."""

    wants_all = True
    wants_frames = False
    frame_period_s = 0.0
    default_rate_hz = None

    def __init__(self, name: str, path: Path, overwrite: bool, topic: str, frame_id: str) -> None:
        """See that the bag can be made.

        Args:
            name: the URL without settings.
            path: of the folder.
            overwrite: replace a bag that lies there.
            topic: of the NavSatFix.
            frame_id: of its header.

        Raises:
            InputError: the folder exists, or cannot be made.
        """
        self.name = name
        self._path = path
        self._overwrite = overwrite
        self._topic = topic
        self._frame_id = frame_id
        self._bag: _Bag | None = None
        self._begun_s = -SYNC_S
        self._why = ""
        try:
            check_output(path, overwrite)
            if path.exists():
                _check_is_bag(path)
            Path(tempfile.mkdtemp(prefix=".s4g.", dir=path.parent)).rmdir()
        except OSError as error:
            raise InputError(f"{path}: cannot write {why_not_written(error)}") from None

    def send(self, moment: Moment) -> None:
        """Write a fix.

        Raises:
            OSError: the disk is full, or the bag is gone.
        """
        bag = self._bag or self._begin()
        time_ns = log_time_ns(moment)
        with self._told_apart():
            bag.write(time_ns, moment)
            bag.put()

    def idle(self) -> None:
        """Bring what came to the disk, each second.

        Raises:
            OSError: the disk is full, or the bag is gone.
        """
        if self._bag is not None:
            with self._told_apart():
                self._bag.put()

    def close(self) -> None:
        """End the bag.

        Raises:
            OSError: the disk is full, or the bag is gone; what lies on the disk can be read.
        """
        bag, self._bag = self._bag, None
        if bag is not None:
            with self._told_apart():
                bag.close()

    def _begin(self) -> _Bag:
        now_s = time.monotonic()
        if now_s - self._begun_s < SYNC_S:
            raise OSError(self._why)
        self._begun_s = now_s
        with self._told_apart():
            if not self._path.parent.is_dir():
                raise FileNotFoundError(f"the folder {self._path.parent} is gone")
            if self._overwrite and self._path.exists():
                _check_is_bag(self._path)
                _remove_bag(self._path)
            self._overwrite = False  # what has that name later may be another bag
            self._bag = _Bag(self._path, self._topic, self._frame_id)
            return self._bag

    @contextlib.contextmanager
    def _told_apart(self) -> Iterator[None]:
        """Turn errors of SQLite into those of files; forget a bag that is gone."""
        try:
            yield
        except sqlite3.Error as error:
            self._why = f"cannot write ({error}); free some space or choose another place"
            raise OSError(self._why) from None
        except OSError as error:
            self._why = error.strerror or str(error)
            if isinstance(error, FileNotFoundError):
                self._bag = None
            raise


class _Bag:
    """A bag that is open; used by one thread."""

    def __init__(self, path: Path, topic: str, frame_id: str) -> None:
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
            self._texts = self._add(_TEXT_TOPIC, _STRING)
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
                _remove_bag(path)
            raise

    def _add(self, topic: str, kind: str) -> Connection:
        return self._writer.add_connection(topic, kind, typestore=self._types)

    def write(self, time_ns: int, moment: Moment) -> None:
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
        """Bring it to the disk, if that is a second ago; see whether it is still there."""
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


def _check_is_bag(path: Path) -> None:
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


def _remove_bag(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


def open_sink(url: SinkUrl, running: Running) -> RosbagSink:
    """Open a bag to be made; settings `topic=/fix`, `frame_id=drone`.

    Raises:
        InputError: the library is missing, a setting is wrong, or the bag cannot be made.
    """
    url.refuse_others(("topic", "frame_id"))
    path = file_of(url, "flight_bag")
    topic = url.settings.get("topic", "/fix")
    if not _is_topic(topic) or topic == _TEXT_TOPIC:
        raise InputError(
            f"--to {url.url}: topic={topic} is no name of a topic that is free; expected one like "
            "/fix"
        )
    try:
        import rosbags.rosbag2  # noqa: F401
    except ImportError:
        raise InputError(f"--to {url.url}: needs rosbags; pip install 's4g[outputs]'") from None
    frame_id = url.settings.get("frame_id", "drone")
    return RosbagSink(url.name, path, may_overwrite(running), topic, frame_id)


def _is_topic(name: str) -> bool:
    """Tell whether a name is one of ROS 2's: parts of letters, digits and underscores."""
    parts = name.split("/")
    return parts[0] == "" and all(
        part.isascii() and part.isidentifier() and "__" not in part for part in parts[1:]
    )
