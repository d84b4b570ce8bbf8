"""`--to rosbag:FOLDER`: a ROS 2 bag with NavSatFix, written without ROS (see rosbag.py)."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import InputError
from ..core.files import check_output, why_not_written
from .rosbag import TEXT_TOPIC, Bag, check_is_bag, remove_bag
from .sink import Moment, SinkUrl
from .sink_file import SYNC_S, file_of, log_time_ns, may_overwrite

if TYPE_CHECKING:
    from .cli_part import Running


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
        self._bag: Bag | None = None
        self._begun_s = -SYNC_S
        self._why = ""
        try:
            check_output(path, overwrite)
            if path.exists():
                check_is_bag(path)
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

    def _begin(self) -> Bag:
        now_s = time.monotonic()
        if now_s - self._begun_s < SYNC_S:
            raise OSError(self._why)
        self._begun_s = now_s
        with self._told_apart():
            if not self._path.parent.is_dir():
                raise FileNotFoundError(f"the folder {self._path.parent} is gone")
            if self._overwrite and self._path.exists():
                check_is_bag(self._path)
                remove_bag(self._path)
            self._overwrite = False  # what has that name later may be another bag
            self._bag = Bag(self._path, self._topic, self._frame_id)
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


def open_sink(url: SinkUrl, running: Running) -> RosbagSink:
    """Open a bag to be made; settings `topic=/fix`, `frame_id=drone`.

    Raises:
        InputError: the library is missing, a setting is wrong, or the bag cannot be made.
    """
    url.refuse_others(("topic", "frame_id"))
    path = file_of(url, "flight_bag")
    topic = url.settings.get("topic", "/fix")
    if not _is_topic(topic) or topic == TEXT_TOPIC:
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
