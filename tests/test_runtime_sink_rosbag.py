"""ROS 2 bags: NavSatFix by its own conventions, read by the rosbags library, whole or cut off."""

from __future__ import annotations

import importlib.util
import json
import math
import resource
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given

from s4g.core.errors import InputError
from s4g.runtime import rosbag, sink_rosbag
from s4g.runtime.navsatfix import NavSatFix, nav_sat_fix
from s4g.runtime.sink import Moment

t = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("sink_moments.py"))))
needs_rosbags = pytest.mark.skipif(
    importlib.util.find_spec("rosbags") is None, reason="the library rosbags is not installed"
)


def open_bag(path: Path, settings: str = "", overwrite: bool = False) -> Any:
    return sink_rosbag.open_sink(t.url(f"rosbag:{path}{settings}"), t.running(overwrite))


def read_bag(path: Path, topic: str = "/fix") -> list[tuple[int, Any]]:
    """(time in ns, message) of a topic, as a consumer without ROS reads them."""
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
        chosen = [c for c in reader.connections if c.topic == topic]
        return [
            (time_ns, reader.deserialize(data, connection.msgtype))
            for connection, time_ns, data in reader.messages(connections=chosen)
        ]


def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bring all to the disk at once, and try again at once."""
    for module in (rosbag, sink_rosbag):
        monkeypatch.setattr(module, "SYNC_S", 0.0)


def metadata_of(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML

    value: dict[str, Any] = YAML(typ="safe").load((path / "metadata.yaml").read_text())
    return value


@contextmanager
def full_disk(free_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_fix_has_degrees_and_a_covariance_in_square_metres_that_is_known() -> None:
    assert nav_sat_fix(t.seen_at(-47.25, 11.5, sigma_m=3.0)) == NavSatFix(
        status=0,
        service=0,
        latitude=-47.25,
        longitude=11.5,
        altitude=math.nan,
        position_covariance=(9.0, 0, 0, 0, 9.0, 0, 0, 0, 1e8),
        position_covariance_type=3,
    )


@given(moment=t.moments())
def test_without_a_position_there_is_no_fix_and_no_number_to_take_for_one(moment: Moment) -> None:
    message = nav_sat_fix(moment)
    assert math.isnan(message.altitude)
    if moment.fix.lat is None:
        assert (message.status, message.position_covariance_type) == (-1, 0)
        assert math.isnan(message.latitude) and math.isnan(message.longitude)
        assert message.position_covariance == (0.0,) * 9
    else:
        assert (message.status, message.position_covariance_type) == (0, 3)
        assert (message.latitude, message.longitude) == (moment.fix.lat, moment.fix.lon)


@needs_rosbags
def test_a_bag_is_read_back_by_anyreader(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    t.write_all(open_bag(path, "?frame_id=uav"), t.flight())
    said = read_bag(path)
    assert [message.status.status for _, message in said] == [0] * 8 + [-1] * 4 + [0] * 8
    time_ns, message = said[12]
    assert time_ns == 1777887002_525_000_000
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1777887002, 525_000_000)
    assert message.header.frame_id == "uav"
    assert math.isclose(message.latitude, 47.0012, abs_tol=1e-12)
    assert math.isclose(message.longitude, 11.0024, abs_tol=1e-12)
    assert list(message.position_covariance) == [6.25, 0, 0, 0, 6.25, 0, 0, 0, 1e8]
    assert message.position_covariance_type == 3
    lost = said[8][1]
    assert math.isnan(lost.latitude) and math.isnan(lost.longitude) and math.isnan(lost.altitude)
    texts = [json.loads(message.data) for _, message in read_bag(path, "/s4g/fix")]
    assert texts[8]["state"] == "NO_FIX"
    assert texts[8]["reason"] == "dark"
    assert len(texts) == 20


@needs_rosbags
def test_metadata_are_of_a_version_that_humble_reads(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    t.write_all(open_bag(path), t.flight())
    bag = metadata_of(path)["rosbag2_bagfile_information"]
    assert bag["version"] == 8
    assert bag["storage_identifier"] == "sqlite3"
    assert bag["message_count"] == 40
    assert bag["starting_time"]["nanoseconds_since_epoch"] == 1777887000_125_000_000
    assert bag["duration"]["nanoseconds"] == 3_800_000_000
    assert all(
        x["topic_metadata"]["offered_qos_profiles"] == "" for x in bag["topics_with_message_count"]
    )


@needs_rosbags
def test_metadata_written_in_flight_are_those_of_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_wait(monkeypatch)
    path = tmp_path / "bag"
    sink = open_bag(path)
    for moment in t.flight():
        sink.send(moment)
    in_flight = metadata_of(path)
    sink.close()
    assert in_flight == metadata_of(path)


@needs_rosbags
def test_a_program_that_is_killed_leaves_what_was_put_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    code = f"""
import runpy, signal
from s4g.runtime import rosbag, sink_rosbag
t = runpy.run_path({str(Path(__file__).with_name("sink_moments.py"))!r})
sink = sink_rosbag.open_sink(t["url"]({f"rosbag:{path}"!r}), t["running"]())
rosbag.SYNC_S = 0.0
for number in range(30):
    if number == 20:
        rosbag.SYNC_S = 1000.0  # what comes now waits
    sink.send(t["seen_at"](47 + number * 1e-6, 11.0, number))
print("go", flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert [m.latitude for _, m in read_bag(path)] == [47 + number * 1e-6 for number in range(20)]


@needs_rosbags
def test_what_was_put_on_the_disk_stays_readable_without_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_wait(monkeypatch)
    path = tmp_path / "bag"
    sink = open_bag(path)
    for moment in t.flight(7, range(0)):
        sink.send(moment)
    shutil.copytree(path, tmp_path / "copy" / "bag")
    assert len(read_bag(tmp_path / "copy" / "bag")) == 7
    sink.close()


@needs_rosbags
def test_nothing_is_made_before_the_first_fix(tmp_path: Path) -> None:
    sink = open_bag(tmp_path / "bag")
    sink.idle()
    sink.close()
    assert list(tmp_path.iterdir()) == []


@needs_rosbags
def test_an_existing_bag_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    t.write_all(open_bag(path), t.flight(3, range(0)))
    with pytest.raises(InputError) as error:
        open_bag(path)
    assert str(error.value) == f"{path}: already exists; pass --overwrite to replace it"
    t.write_all(open_bag(path, overwrite=True), t.flight(5, range(0)))
    assert len(read_bag(path)) == 5


@needs_rosbags
def test_a_folder_with_anything_else_in_it_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    t.write_all(open_bag(path), t.flight(3, range(0)))
    (path / "notes.txt").write_text("mine")
    with pytest.raises(InputError) as error:
        open_bag(path, overwrite=True)
    assert str(error.value) == (
        f"{path}: holds notes.txt, so is no bag alone; choose another place"
    )
    assert len(read_bag(path)) == 3


@needs_rosbags
def test_a_file_is_no_folder_of_a_bag(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    path.write_text("mine")
    with pytest.raises(InputError) as error:
        open_bag(path, overwrite=True)
    assert str(error.value) == (
        f"{path}: is a file, expected the folder of a bag; choose another place"
    )


@needs_rosbags
def test_a_folder_that_is_missing_or_takes_no_folders_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "bag"
    with pytest.raises(InputError) as error:
        open_bag(path)
    assert str(error.value) == (f"{path}: the folder {path.parent} does not exist; create it first")
    with pytest.raises(InputError) as error:
        open_bag(Path("/proc/s4g_bag"))
    assert str(error.value) == (
        "/proc/s4g_bag: cannot write (No such file or directory); choose another place"
    )


@needs_rosbags
def test_a_full_disk_in_flight_costs_fixes_but_not_the_bag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_wait(monkeypatch)
    path = tmp_path / "bag"
    sink = open_bag(path)
    said = t.flight(300, range(0))
    failed = 0
    for number, moment in enumerate(said):
        with full_disk(90_000 if number < 280 else resource.RLIM_INFINITY):
            try:
                sink.send(moment)
            except OSError as error:
                assert str(error).startswith("cannot write (")
                assert str(error).endswith("); free some space or choose another place")
                failed += 1
    sink.close()
    assert 0 < failed < 280
    times = [time_ns for time_ns, _ in read_bag(path)]
    assert len(times) >= 300 - failed
    assert times == sorted(set(times))
    information = metadata_of(path)["rosbag2_bagfile_information"]
    assert information["topics_with_message_count"][0]["message_count"] == len(times)


@needs_rosbags
def test_a_full_disk_at_the_first_fix_leaves_nothing_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_wait(monkeypatch)
    path = tmp_path / "bag"
    sink = open_bag(path)
    with full_disk(5000), pytest.raises(OSError, match=r"^cannot write \("):
        sink.send(t.seen_at(47.0, 11.0, 0))
    assert list(tmp_path.iterdir()) == []
    sink.send(t.seen_at(47.0, 11.0, 1))
    sink.close()
    assert len(read_bag(path)) == 1


@needs_rosbags
def test_a_bag_that_was_moved_is_told_and_begun_anew_where_its_folder_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_wait(monkeypatch)
    folder = tmp_path / "stick"
    folder.mkdir()
    path = folder / "bag"
    sink = open_bag(path)
    sink.send(t.seen_at(47.0, 11.0, 0))
    folder.rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError) as error:
        sink.idle()
    assert str(error.value) == f"{path} was moved or deleted"
    with pytest.raises(FileNotFoundError) as error:
        sink.send(t.seen_at(47.1, 11.0, 1))
    assert str(error.value) == f"the folder {folder} is gone"
    folder.mkdir()
    sink.send(t.seen_at(47.2, 11.0, 2))
    sink.close()
    assert [message.latitude for _, message in read_bag(path)] == [47.2]
    assert [message.latitude for _, message in read_bag(tmp_path / "away" / "bag")] == [47.0]


@pytest.mark.parametrize("topic", ["fix", "/", "/a//b", "/1st", "/a-b", "/ä", "/a__b", "/s4g/fix"])
def test_a_topic_that_ros_would_not_take_is_refused(topic: str, tmp_path: Path) -> None:
    url = f"rosbag:{tmp_path}/bag?topic={topic}"
    with pytest.raises(InputError) as error:
        sink_rosbag.open_sink(t.url(url), t.running())
    assert str(error.value) == (
        f"--to {url}: topic={topic} is no name of a topic that is free; expected one like /fix"
    )


def test_a_missing_library_is_told_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rosbags.rosbag2", None)
    url = f"rosbag:{tmp_path}/bag"
    with pytest.raises(InputError) as error:
        sink_rosbag.open_sink(t.url(url), t.running())
    assert str(error.value) == (f"--to {url}: needs rosbags; pip install 's4g[outputs]'")
