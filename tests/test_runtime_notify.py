"""The datagrams that systemd gets, on a socket that stands for it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from s4g.core.errors import InputError
from s4g.runtime import notify
from s4g.runtime.fix import Fix, Reason, State
from s4g.runtime.notify import Notifier, Watchdog, open_notifier, status
from s4g.runtime.observe import Observation

FRAME: Any = SimpleNamespace()  # a frame is only looked for
TRACK = Observation(Fix(0, 1.0, State.TRACK, sigma_m=3.94, anchor_age_s=0.04), {}, FRAME)
SILENT = Observation(Fix(0, 1.0, State.NO_FIX, reason=Reason.NO_FRAMES, latency_ms=None), {})


class Manager:
    """The service manager's side."""

    def __init__(self, address: str | bytes) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(5)

    def next(self) -> list[str]:
        return self.socket.recv(4096).decode().splitlines()

    def all(self) -> list[list[str]]:
        """Return what has come so far."""
        self.socket.setblocking(False)
        told = []
        try:
            while True:
                told.append(self.next())
        except BlockingIOError:
            return told


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.socket.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The watchdog's clock, turned by hand."""
    clock = SimpleNamespace(now_s=100.0)
    monkeypatch.setattr(notify, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    return clock


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(tmp_path / "notify"), **more}


def opened(tmp_path: Path, **more: str) -> Notifier:
    notifier = open_notifier(environment(tmp_path, **more))
    assert notifier is not None
    return notifier


def test_without_a_service_manager_there_is_nobody_to_tell() -> None:
    assert open_notifier({}) is None
    assert open_notifier({"NOTIFY_SOCKET": ""}) is None


def test_lines_leave_in_one_datagram(manager: Manager, tmp_path: Path) -> None:
    notifier = opened(tmp_path)
    assert notifier.send("READY=1", "STATUS=TRACK, σ 3 m")
    assert manager.next() == ["READY=1", "STATUS=TRACK, σ 3 m"]
    notifier.close()


def test_an_abstract_socket_serves_too() -> None:
    name = f"s4g-test-{os.getpid()}"
    manager = Manager(b"\0" + name.encode())
    notifier = Notifier("@" + name)
    assert notifier.send("READY=1")
    assert manager.next() == ["READY=1"]
    notifier.close()
    manager.socket.close()


@pytest.mark.skipif(shutil.which("socat") is None, reason="socat is not installed")
def test_socat_gets_what_was_sent(tmp_path: Path) -> None:
    path, out = tmp_path / "notify", tmp_path / "out"
    with (
        out.open("wb") as file,
        subprocess.Popen(["socat", "-u", f"UNIX-RECV:{path}", "STDOUT"], stdout=file) as socat,
    ):
        notifier = Notifier(str(path))
        for _ in range(500):
            if notifier.send("READY=1\n"):
                break
            time.sleep(0.01)
        for _ in range(500):
            if out.read_bytes():
                break
            time.sleep(0.01)
        socat.terminate()
    notifier.close()
    assert out.read_bytes() == b"READY=1\n"


def test_a_manager_that_is_gone_or_full_holds_nobody_up(manager: Manager, tmp_path: Path) -> None:
    notifier = opened(tmp_path)
    sent = [notifier.send("WATCHDOG=1") for _ in range(5000)]
    assert sent[0] and not sent[-1]  # nobody has read: its queue is full
    manager.socket.close()
    assert not notifier.send("WATCHDOG=1")
    (tmp_path / "notify").unlink()
    assert not notifier.send("WATCHDOG=1")
    notifier.close()


def test_the_first_frame_makes_it_ready(manager: Manager, tmp_path: Path, clock: Any) -> None:
    watchdog = Watchdog(opened(tmp_path, WATCHDOG_USEC="4000000"))
    assert manager.all() == []
    watchdog.observe(TRACK)
    assert manager.all() == [["READY=1", "STATUS=TRACK, sigma 3.9 m, last match 0.0 s ago"]]
    watchdog.close()


def test_a_start_without_frames_is_prolonged_and_not_ready(
    manager: Manager, tmp_path: Path, clock: Any
) -> None:
    watchdog = Watchdog(opened(tmp_path, WATCHDOG_USEC="4000000"))
    watchdog.observe(SILENT)
    clock.now_s += 0.5
    watchdog.observe(SILENT)
    assert manager.all() == [
        ["EXTEND_TIMEOUT_USEC=30000000", "STATUS=NO_FIX (no_frames)"],
        ["EXTEND_TIMEOUT_USEC=30000000"],
    ]
    watchdog.observe(TRACK)
    assert manager.all() == [["READY=1"]]
    watchdog.close()


def test_frames_feed_the_watchdog_four_times_within_its_limit(
    manager: Manager, tmp_path: Path, clock: Any
) -> None:
    watchdog = Watchdog(opened(tmp_path, WATCHDOG_USEC="4000000"))
    watchdog.observe(TRACK)
    manager.all()
    for _ in range(100):
        clock.now_s += 0.04
        watchdog.observe(TRACK)
    feeds = [told for told in manager.all() if "WATCHDOG=1" in told]
    assert len(feeds) == 4
    watchdog.close()


def test_silence_of_the_camera_feeds_it_and_silence_of_the_run_does_not(
    manager: Manager, tmp_path: Path, clock: Any
) -> None:
    watchdog = Watchdog(opened(tmp_path, WATCHDOG_USEC="2000000"))
    watchdog.observe(TRACK)
    manager.all()
    clock.now_s += 0.5
    watchdog.observe(SILENT)
    assert manager.all() == [["WATCHDOG=1"]]
    clock.now_s += 60.0  # the thread that matches frames hangs
    assert manager.all() == []
    watchdog.close()


def test_the_state_is_told_once_a_second_with_the_rate(
    manager: Manager, tmp_path: Path, clock: Any
) -> None:
    watchdog = Watchdog(opened(tmp_path))
    for _ in range(17):
        watchdog.observe(TRACK)
        clock.now_s += 0.125
    assert [told[-1] for told in manager.all()] == [
        "STATUS=TRACK, sigma 3.9 m, last match 0.0 s ago",
        "STATUS=TRACK, 8.0 frames/s, sigma 3.9 m, last match 0.0 s ago",
        "STATUS=TRACK, 8.0 frames/s, sigma 3.9 m, last match 0.0 s ago",
    ]
    watchdog.close()


def test_the_status_has_no_position() -> None:
    fix = Fix(0, 1.0, State.TRACK, lat=46.9512345, lon=9.0012345, sigma_m=3.0)
    assert status(Observation(fix, {}, FRAME), 9.96) == "TRACK, 10.0 frames/s, sigma 3.0 m"


def test_the_end_is_told(manager: Manager, tmp_path: Path) -> None:
    watchdog = Watchdog(opened(tmp_path))
    watchdog.close()
    assert manager.next() == ["STOPPING=1", "STATUS=ending"]


def test_a_watchdog_of_another_process_is_not_fed(tmp_path: Path) -> None:
    other = opened(tmp_path, WATCHDOG_USEC="4000000", WATCHDOG_PID=str(os.getpid() + 1))
    mine = opened(tmp_path, WATCHDOG_USEC="4000000", WATCHDOG_PID=str(os.getpid()))
    assert (other.watchdog_s, mine.watchdog_s) == (None, 4.0)
    other.close()
    mine.close()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "NOTIFY_SOCKET",
            "vsock:2:1234",
            "NOTIFY_SOCKET=vsock:2:1234: expected a path or @NAME; unset it to run without",
        ),
        (
            "WATCHDOG_USEC",
            "4s",
            "WATCHDOG_USEC=4s: expected microseconds above 0; unset it",
        ),
        ("WATCHDOG_USEC", "0", "WATCHDOG_USEC=0: expected microseconds above 0; unset it"),
    ],
)
def test_an_environment_that_means_nothing_is_refused(
    tmp_path: Path, name: str, value: str, message: str
) -> None:
    with pytest.raises(InputError) as refused:
        open_notifier(environment(tmp_path) | {name: value})
    assert str(refused.value) == message
