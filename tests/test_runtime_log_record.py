"""The flight recorder: what it keeps, what it leaves out, and what a bad disk does to it."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("mcap", reason="flight logs need mcap (outputs extra)")
from s4g.core.camera import Attitude
from s4g.core.console import overheard, say
from s4g.runtime import log_disk, log_record
from s4g.runtime.board import Board, Reading
from s4g.runtime.fix import Fix, Reason, State
from s4g.runtime.frames import Frame
from s4g.runtime.intrinsics import Lens
from s4g.runtime.log_disk import RecorderOptions
from s4g.runtime.log_folder import flights_of, make_room, new_flight, segments_of
from s4g.runtime.log_format import LOST, NOT_ASKED, Flight
from s4g.runtime.log_read import LoggedStep, open_log
from s4g.runtime.log_record import Recorder
from s4g.runtime.log_replay import Recorded
from s4g.runtime.log_segment import Segment
from s4g.runtime.observe import Observation
from s4g.runtime.telemetry_sample import Sample

FLOWN = Flight(
    flight=1,
    segment=1,
    first_step=0,
    lens=Lens(62.5),
    live=True,
    pack_path="/data/region.s4gpack",
    pack_sha256="ab" * 32,
    encoder_path="/data/encoder.onnx",
    encoder_sha256=None,
    model_id="70" * 32,
    backend="onnxruntime cpu",
    options={},
    versions={},
    started_utc_s=1.5e9,
)
SAMPLE = Sample(Attitude(10.0, 0.0, 0.0, 100.0), 1.0)
MB = 1_000_000


def noise(seed: int, height: int = 240, width: int = 320) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def seen(number: int, rgb: np.ndarray | None, t: float | None = None) -> Observation:
    t = number / 10 if t is None else t
    fix = Fix(number, t, State.TRACK, lat=46.9, lon=9.0, sigma_m=5.0)
    if rgb is None:
        fix = replace(fix, state=State.NO_FIX, lat=None, lon=None, reason=Reason.NO_FRAMES)
        return Observation(fix, {})
    height, width = rgb.shape[:2]
    frame = Frame(number, t, None, f"frame {number}", width, height, 0.0, decoded=rgb)
    return Observation(fix, {}, frame, SAMPLE)


@contextmanager
def recording(folder: Path, cap_mb: float = 100, **options: Any) -> Iterator[Recorder]:
    folder.mkdir(exist_ok=True)
    flight = replace(FLOWN, flight=new_flight(folder))
    recorder = Recorder(RecorderOptions(folder, int(cap_mb * MB), **options), flight)
    try:
        with overheard(recorder.note):
            yield recorder
    finally:
        recorder.close()


def read(folder: Path, flight: int = 1) -> list[LoggedStep]:
    log = open_log(folder / f"flight-{flight:04d}")
    return list(log.steps())


def wait_for(what: Callable[[], bool]) -> None:
    """Wait for the recorder's thread; a test that waits in vain fails."""
    deadline_s = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline_s, "nothing came"
        time.sleep(0.005)


def size_of(folder: Path) -> int:
    return sum(one.size for n, path in flights_of(folder).items() for one in segments_of(n, path))


# ---- what is kept -------------------------------------------------------------------------------


def test_pixels_are_kept_as_they_were_though_written_over_at_once(tmp_path: Path) -> None:
    pixels = np.zeros((240, 320, 3), np.uint8)
    with recording(tmp_path / "logs") as recorder:
        for number in range(12):
            pixels[:] = noise(number)
            recorder.observe(seen(number, pixels))
            pixels[:] = 0
    source = Recorded(open_log(tmp_path / "logs"))
    for number, frame in enumerate(source.frames()):
        assert isinstance(frame, Frame)
        assert np.array_equal(frame.rgb()[0], noise(number))
    assert source.step is not None
    assert (source.step.step.number, source.inexact) == (11, None)


def test_frames_that_change_their_size_are_kept(tmp_path: Path) -> None:
    sizes = [(24, 32), (48, 64), (24, 32), (1, 1)]
    with recording(tmp_path / "logs") as recorder:
        for number, size in enumerate(sizes):
            recorder.observe(seen(number, noise(number, *size)))
    frames = Recorded(open_log(tmp_path / "logs")).frames()
    assert [one.rgb()[0].shape[:2] for one in frames if isinstance(one, Frame)] == sizes


@given(
    hz=st.sampled_from([0.5, 1.0, 2.0, 3.0, 7.0]),
    steps=st.lists(st.floats(0.001, 2.0), min_size=1, max_size=60),
)
def test_pictures_at_a_rate_are_about_that_many(hz: float, steps: list[float]) -> None:
    """At most one each period, and never a period of frames without one."""
    recorder = Recorder.__new__(Recorder)
    recorder._options = RecorderOptions(Path("x"), MB, hz)
    recorder._period = None
    times = np.cumsum(steps)
    kept = [t for t in times if recorder._is_wanted(seen(0, None, float(t)))]
    periods = np.floor(np.array(kept) * hz + 1e-6)
    assert kept[0] == times[0]
    assert len(set(periods)) == len(kept)
    assert set(periods) == set(np.floor(times * hz + 1e-6))


def test_a_clock_that_goes_back_does_not_end_the_pictures(tmp_path: Path) -> None:
    with recording(tmp_path / "logs", frames_hz=1.0) as recorder:
        for number, t in enumerate([100.0, 100.5, 101.0, 3.0, 3.5, 4.0]):
            recorder.observe(seen(number, noise(0, 8, 8), t))
    kept = [one.step.frame.picture for one in read(tmp_path / "logs") if one.step.frame]
    assert kept == ["exact", NOT_ASKED, "exact", "exact", NOT_ASKED, "exact"]


def test_what_the_boards_sensors_say_is_kept_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mcap.reader import make_reader

    monkeypatch.setattr(log_record, "_SYNC_S", 0.01)
    reading = Reading(
        5.0, "Jetson", {"tj-thermal": 71.5}, ("gpu-throttle-alert",), power_mode="25W"
    )
    monkeypatch.setattr(Board, "latest", reading)
    with recording(tmp_path / "logs") as recorder:
        wait_for(lambda: recorder._board is reading)
        for number in range(3):
            recorder.observe(seen(number, None))
        time.sleep(0.05)
    with (tmp_path / "logs" / "flight-0001" / "0001.mcap").open("rb") as file:
        (message,) = (m.data for _, _, m in make_reader(file).iter_messages(topics=["/board"]))
    assert b'"temperatures_c":{"tj-thermal":71.5},"throttled":["gpu-throttle-alert"]' in message


# ---- segments and the cap ------------------------------------------------------------------------


def test_segments_follow_each_other_without_a_gap(tmp_path: Path) -> None:
    with recording(tmp_path / "logs", cap_mb=32) as recorder:
        for number in range(40):
            recorder.observe(seen(number, noise(number)))
    segments = segments_of(1, tmp_path / "logs" / "flight-0001")
    assert len(segments) >= 4
    assert all(one.size < 2.4 * MB for one in segments)
    assert [one.step.number for one in read(tmp_path / "logs")] == list(range(40))
    # Each stands by itself.
    assert open_log(segments[2].path).flight.segment == 3


def test_the_cap_holds_and_the_newest_frames_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    most = 0
    with recording(folder, cap_mb=6) as recorder:
        for number in range(60):
            recorder.observe(seen(number, noise(number)))
            wait_for(lambda n=number: recorder._done_bytes > n * 240 * 320 * 3)
            most = max(most, size_of(folder))
    assert most <= 6 * MB
    kept = [one.step.number for one in read(folder)]
    assert kept[-1] == 59
    assert kept == list(range(kept[0], 60))
    assert kept[0] > 0
    source = Recorded(open_log(folder))
    list(source.frames())
    assert source.inexact == f"{kept[0]} steps before frame {kept[0]} are missing in the log"


def test_older_flights_go_first(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    for _ in range(3):
        with recording(folder, cap_mb=8) as recorder:
            for number in range(10):
                recorder.observe(seen(number, noise(number)))
    flights = list(flights_of(folder))
    assert flights == [1, 2, 3]
    assert size_of(folder) <= 8 * MB
    assert len(read(folder, 3)) == 10
    left = [one.step.number for one in read(folder, 1)]
    assert 0 < len(left) < 10
    assert left == list(range(10 - len(left), 10))


def test_nothing_but_segments_is_ever_removed(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    (folder / "flight-0001").mkdir(parents=True)
    (folder / "flight-0001" / "0001.mcap").write_bytes(bytes(1000))
    (folder / "flight-0001" / "notes.txt").write_bytes(bytes(1000))
    (folder / "flight-x").mkdir()
    (folder / "flight-x" / "0001.mcap").write_bytes(bytes(1000))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "0001.mcap").write_bytes(bytes(1000))
    (folder / "flight-0002").symlink_to(tmp_path / "elsewhere")
    (folder / "flight-0003").mkdir()
    (folder / "flight-0003" / "0001.mcap").symlink_to(tmp_path / "elsewhere" / "0001.mcap")
    assert make_room(folder, 1, 1) == 1
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert left == [
        "elsewhere/0001.mcap",
        "logs/flight-0001/notes.txt",
        "logs/flight-0003/0001.mcap",
        "logs/flight-x/0001.mcap",
    ]


def test_flights_are_numbered_by_the_folder_not_by_a_clock(tmp_path: Path) -> None:
    (tmp_path / "flight-0041").mkdir()
    (tmp_path / "flight-99").mkdir()
    assert new_flight(tmp_path) == 42
    assert new_flight(tmp_path) == 43


# ---- disks that are slow, full or gone -----------------------------------------------------------


def test_a_slow_disk_costs_pictures_first_and_both_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    go, add = threading.Event(), Segment.add
    picture = 240 * 320 * 3
    monkeypatch.setattr(log_record, "MAX_WAITING_BYTES", 4 * picture)
    monkeypatch.setattr(log_record, "MAX_WAITING", 8)
    monkeypatch.setattr(log_record, "_SYNC_S", 0.05)

    def slow(self: Segment, *arguments: Any) -> None:
        if threading.current_thread().name == "s4g-log":
            assert go.wait(20)
        add(self, *arguments)

    monkeypatch.setattr(Segment, "add", slow)
    with recording(tmp_path / "logs") as recorder:
        recorder.observe(seen(0, noise(0)))
        wait_for(lambda: recorder._queue.qsize() == 0)  # one at the disk, the others wait
        for number in range(1, 12):
            recorder.observe(seen(number, noise(number)))
        assert recorder.lost_pictures == 5
        assert recorder.lost_steps == 3
        go.set()
        wait_for(lambda: recorder._told_losses and recorder._queue.qsize() == 0)
        recorder.observe(seen(12, noise(12)))
    steps = read(tmp_path / "logs")
    assert [one.step.number for one in steps] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 12]
    fates = [one.step.frame.picture for one in steps if one.step.frame]
    assert fates == ["exact"] * 4 + [LOST] * 5 + ["exact"]
    assert capsys.readouterr().err == (
        f"flight log: {tmp_path / 'logs'}: more frames come than the disk takes; some are recorded "
        "without their picture\n"
        "flight log: 3 frames and 5 more pictures are missing in it; the disk was too slow, full "
        "or gone\n"
    )
    source = Recorded(open_log(tmp_path / "logs"))
    replayed = [one.index for one in source.frames() if isinstance(one, Frame)]
    assert replayed == [0, 1, 2, 3, 12]
    assert (source.left_out, source.inexact) == (5, "the picture of frame 4 is missing in the log")


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_once_and_the_log_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log_disk, "_RETRY_S", 0.05)
    folder = tmp_path / "logs"
    with recording(folder) as recorder:
        recorder.observe(seen(0, noise(0)))
        wait_for(lambda: recorder._done_bytes > 0)
        with no_file_larger_than(1000):
            for number in range(1, 20):
                recorder.observe(seen(number, noise(number)))
                time.sleep(0.02)
            wait_for(lambda: recorder._queue.qsize() == 0)
            assert recorder._disk.is_failing
        for number in range(20, 40):
            recorder.observe(seen(number, noise(number)))
            time.sleep(0.02)
        say("a line of the flight")
    kept = [one.step.number for one in read(folder)]
    assert kept[-10:] == list(range(30, 40))
    assert 10 not in kept
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        f"flight log: {folder}: cannot write (File too large); free some space or choose another "
        "place; fixes go on, the log does when it can"
    )
    assert lines[1].startswith(f"flight log: {folder}: goes on; ")
    assert lines[2] == "a line of the flight"
    assert len(lines) == 4
    log = open_log(folder)
    list(log.steps())
    said = b"".join(data for _, data in log.notes)
    assert b"goes on; " in said
    assert b"a line of the flight" in said
    # Nothing is left of the attempts.
    assert len(list((folder / "flight-0001").iterdir())) == 2


def test_a_full_file_system_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real one of 4 MB, filled by somebody else and by the log."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting needs root")
    monkeypatch.setattr(log_disk, "_RETRY_S", 0.05)
    try:
        (disk / "other").write_bytes(bytes(2 * MB))
        with recording(disk / "logs") as recorder:
            for number in range(20):
                recorder.observe(seen(number, noise(number)))
            wait_for(lambda: recorder._disk.is_failing and recorder._queue.qsize() == 0)
            (disk / "other").unlink()
            for number in range(20, 24):
                recorder.observe(seen(number, noise(number)))
                time.sleep(0.06)
        kept = [one.step.number for one in read(disk / "logs")]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    assert kept[:3] == [0, 1, 2]
    assert kept[-1] == 23
    assert len(kept) < 24
    assert "cannot write (No space left on device); free some space" in capsys.readouterr().err


def test_a_disk_that_is_gone_is_waited_for_not_replaced_by_the_one_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log_disk, "_RETRY_S", 0.0)
    on_root = False
    monkeypatch.setattr(log_disk, "_is_on_root", lambda folder: on_root)
    folder = tmp_path / "logs"
    with recording(folder, cap_mb=16) as recorder:
        recorder.observe(seen(0, noise(0)))
        wait_for(lambda: recorder._done_bytes > 0)
        on_root = True  # what the folder lies on once its own disk is unplugged
        for number in range(1, 9):
            recorder.observe(seen(number, noise(number)))
        wait_for(lambda: recorder._disk.is_failing and recorder._queue.qsize() == 0)
        count = len(list((folder / "flight-0001").iterdir()))
        assert count == 1
        on_root = False
        recorder.observe(seen(9, noise(9)))
    assert [one.step.number for one in read(folder)][-1] == 9
    assert "cannot write (its disk is gone); choose another place; fixes go on" in (
        capsys.readouterr().err
    )


def test_a_folder_that_was_removed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log_disk, "_RETRY_S", 0.0)
    folder = tmp_path / "logs"
    with recording(folder, cap_mb=16) as recorder:
        shutil.rmtree(folder)
        for number in range(8):
            recorder.observe(seen(number, noise(number)))
        wait_for(lambda: recorder._disk.is_failing and recorder._queue.qsize() == 0)
        folder.mkdir()
        recorder.observe(seen(8, noise(8)))
    assert [one.step.number for one in read(folder)] == [8]
    assert f"flight log: {folder}: cannot write (No such file or directory)" in (
        capsys.readouterr().err
    )


def test_a_disk_that_hangs_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    go, add = threading.Event(), Segment.add
    monkeypatch.setattr(log_record, "_CLOSE_S", 0.1)

    def hanging(self: Segment, *arguments: Any) -> None:
        if threading.current_thread().name == "s4g-log":
            go.wait(20)
        add(self, *arguments)

    monkeypatch.setattr(Segment, "add", hanging)
    with recording(tmp_path / "logs") as recorder:
        recorder.observe(seen(0, None))
    go.set()
    recorder._thread.join(20)
    assert capsys.readouterr().err == (
        f"flight log: {tmp_path / 'logs'}: the disk does not answer; its end is lost\n"
    )


def test_a_fault_of_the_recorder_is_told_and_ends_only_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> bytes:
        raise RuntimeError("a bug")

    monkeypatch.setattr(log_record, "step_json", broken)
    with recording(tmp_path / "logs") as recorder:
        recorder.observe(seen(0, None))
        recorder._thread.join(20)
        recorder.observe(seen(1, None))
        assert recorder.lost_steps == 1
    assert capsys.readouterr().err.splitlines()[0] == (
        "flight log: unexpected RuntimeError: a bug; nothing more of this flight is recorded, "
        "fixes go on"
    )


# ---- power cuts ---------------------------------------------------------------------------------

KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_runtime_log_record import *
folder = Path(sys.argv[1])
folder.mkdir()
recorder = Recorder(RecorderOptions(folder, 100 * MB), replace(FLOWN, flight=new_flight(folder)))
number = 0
while True:
    recorder.observe(seen(number, noise(number, 24, 32)))
    number += 1
    print(number, flush=True)
    time.sleep(0.005)
"""


def test_a_killed_run_leaves_all_but_the_last_second(tmp_path: Path) -> None:
    """What a kill leaves is what was written; that a sync precedes it is the other test's."""
    folder = tmp_path / "logs"
    words = [sys.executable, "-c", KILLED, str(folder), str(Path(__file__).parent)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if int(line) >= 300 and size_of(folder) > 100_000:
                break
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
    log = open_log(folder)
    kept = [one.step.number for one in log.steps()]
    assert len(kept) > 10
    assert kept == list(range(len(kept)))
    (fault,) = log.faults
    assert fault.endswith("it ends there, as after a power cut")


def test_everything_is_on_the_disk_within_a_period(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps without pictures fill no chunk: the sync has to end it."""
    synced: list[int] = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr("s4g.runtime.log_segment.os.fsync", spy)
    monkeypatch.setattr(log_record, "_SYNC_S", 0.02)
    folder = tmp_path / "logs"
    with recording(folder) as recorder:
        for number in range(3):
            recorder.observe(seen(number, None))
        path = folder / "flight-0001" / "0001.mcap"
        wait_for(lambda: b'"step":2,' in path.read_bytes())
        size = path.stat().st_size
        wait_for(lambda: size in synced)
        shutil.copy(path, tmp_path / "0001.mcap")
    assert [one.step.number for one in open_log(tmp_path / "0001.mcap").steps()] == [0, 1, 2]
