"""`s4g-run` under a service manager: the unit, readiness, SIGTERM, metrics of a run."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from s4g.core.console import run_command
from s4g.core.images import decode_rgb
from s4g.runtime.cli import cli
from s4g.runtime.frames import Frame, Outage
from s4g.runtime.systemd_unit import is_in_home, unit
from s4g.runtime.termination import ended_by_sigterm

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
PROGRAM = Path(sys.executable).with_name("s4g-run")


class Live:
    """A live camera that shows a flight's photos over and over; `at` is done before a frame."""

    name, count, dropped = "/dev/video9", None, 0

    def __init__(self, flight: Any, at: dict[int, Any]) -> None:
        self.photos = [decode_rgb(p.read_bytes(), p.name) for p in sorted(flight.photos.iterdir())]
        self.at = at

    def frames(self) -> Iterator[Frame | Outage]:
        for index in range(1000):
            self.at.get(index, lambda: None)()
            rgb = self.photos[index % len(self.photos)]
            height, width = rgb.shape[:2]
            t, arrived_s = 0.1 * index, time.monotonic()
            yield Frame(index, t, None, f"frame {index}", width, height, arrived_s, decoded=rgb)

    def close(self) -> None:
        pass


@pytest.fixture
def words(toy_flight: Any, toy_pack: Path, toy_encoder: Path) -> list[str]:
    options = {
        "--camera": toy_flight.photos,
        "--pack": toy_pack,
        "--encoder": toy_encoder,
        "--device": "cpu",
        "--telemetry": toy_flight.telemetry,
        "--hfov": toy_flight.hfov_deg,
        "--level": 48,
        "--threads": 1,
    }
    return [str(word) for pair in options.items() for word in pair]


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        run_command(cli, list(words))
    return int(stop.value.code or 0)


# ---- ready and alive -----------------------------------------------------------------------------


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield manager


def received(manager: socket.socket) -> list[str]:
    manager.setblocking(False)
    lines: list[str] = []
    try:
        while True:
            lines += manager.recv(4096).decode().splitlines()
    except BlockingIOError:
        return lines


def test_a_run_is_ready_at_its_first_frame_alive_at_the_others_and_tells_its_end(
    words: list[str], manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1")  # each frame feeds
    assert run(*words) == 0
    lines = [line for line in received(manager) if not line.startswith("STATUS=")]
    assert lines == ["READY=1", *["WATCHDOG=1"] * 5, "STOPPING=1"]


def test_a_run_that_cannot_begin_is_never_ready(
    words: list[str], manager: socket.socket, tmp_path: Path
) -> None:
    assert run(*words, "--pack", str(tmp_path / "none.s4gpack")) == 2
    assert received(manager) == []


def test_a_service_manager_that_cannot_be_is_refused(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "notify")
    assert run(*words) == 2
    assert capsys.readouterr().err == (
        "error: NOTIFY_SOCKET=notify: expected a path or @NAME; unset it to run without\n"
    )


# ---- SIGTERM -------------------------------------------------------------------------------------


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("rate", [(), ("--rate", "1000")])
def test_sigterm_ends_a_live_run_in_order(
    words: list[str],
    toy_flight: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rate: tuple[str, ...],
) -> None:
    live = Live(toy_flight, {5: terminate})
    monkeypatch.setattr("s4g.runtime.frames.open_frames", lambda *_: live)
    before = signal.getsignal(signal.SIGTERM)
    out = tmp_path / "fixes.jsonl"
    assert run(*words, "--camera", "/dev/video9", "--out", str(out), *rate) == 0
    printed, said = capsys.readouterr()
    assert "interrupted" in said.splitlines()
    assert out.read_text() == printed
    assert len(printed.splitlines()) >= 5
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_ends_a_replay_as_ctrl_c_does_and_leaves_no_half_file(
    words: list[str], toy_flight: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Live(toy_flight, {3: terminate})
    monkeypatch.setattr("s4g.runtime.frames.open_frames", lambda *_: live)
    assert run(*words, "--out", str(tmp_path / "fixes.jsonl")) == 130
    assert list(tmp_path.iterdir()) == []


def test_a_second_sigterm_does_what_it_did_before() -> None:
    taken = []
    before = signal.signal(signal.SIGTERM, lambda *_: taken.append("before"))
    try:
        with ended_by_sigterm():
            with pytest.raises(KeyboardInterrupt):
                terminate()
            assert taken == []
            terminate()
            assert taken == ["before"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_signals_are_left_alone() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def inside() -> None:
        with ended_by_sigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]


# ---- metrics -------------------------------------------------------------------------------------


def test_metrics_are_served_while_it_flies_and_not_after(
    words: list[str],
    toy_flight: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("prometheus_client", reason="needs the metrics extra")
    seen = SimpleNamespace(url="", text="")

    def scrape() -> None:
        seen.url = re.findall(r"^metrics: (http://127.0.0.1:\d+/metrics)$", said(), re.M)[0]
        with urllib.request.urlopen(seen.url, timeout=10) as answer:
            seen.text = answer.read().decode()

    def said() -> str:
        return capsys.readouterr().err

    live = Live(toy_flight, {4: scrape, 5: terminate})
    monkeypatch.setattr("s4g.runtime.frames.open_frames", lambda *_: live)
    assert run(*words, "--camera", "/dev/video9", "--quiet", "--metrics", "0") == 0
    assert "\ns4g_frames_total 4.0\n" in seen.text
    assert "\ns4g_resets_total 0.0\n" in seen.text
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(seen.url, timeout=10)


def test_metrics_without_their_library_say_what_to_install(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert run(*words, "--metrics", "9464") == 2
    assert capsys.readouterr().err == (
        "error: --metrics 9464: needs prometheus-client; pip install 's4g[metrics]'\n"
    )


def test_a_metrics_port_in_use_ends_the_run_before_its_first_frame(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("prometheus_client", reason="needs the metrics extra")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(*words, "--metrics", str(port)) == 2
    printed, said = capsys.readouterr()
    assert (printed, said) == (
        "",
        f"error: --metrics 127.0.0.1:{port}: cannot listen there (Address already in use); choose "
        "another port, or an address of this machine\n",
    )


# ---- the unit ------------------------------------------------------------------------------------


@pytest.fixture
def unit_file(tmp_path: Path) -> Path:
    path = tmp_path / "s4g.service"
    path.write_text(unit(sys.executable))
    return path


def analyze(*words: object) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run([ANALYZE, *map(str, words)], capture_output=True, text=True, timeout=60)


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_unit(unit_file: Path) -> None:
    verdict = analyze("verify", unit_file)
    assert (verdict.returncode, verdict.stderr) == (0, "")


@needs_systemd
def test_systemd_would_find_a_setting_that_does_not_exist(unit_file: Path) -> None:
    unit_file.write_text(unit_file.read_text().replace("WatchdogSec=", "WatchdogSecs="))
    assert "WatchdogSecs" in analyze("verify", unit_file).stderr


@needs_systemd
def test_the_unit_is_well_closed_off(unit_file: Path) -> None:
    if "--offline" not in analyze("--help").stdout:
        pytest.skip("this systemd-analyze cannot rate files (needs systemd 250)")
    verdict = analyze("security", "--offline=true", "--threshold=30", "--no-pager", unit_file)
    assert verdict.returncode == 0, verdict.stdout


@pytest.mark.skipif(not PROGRAM.exists(), reason=f"s4g-run is not installed: no {PROGRAM}")
def test_the_unit_starts_the_program_that_printed_it() -> None:
    printed = subprocess.run([PROGRAM, "--print-unit"], capture_output=True, text=True, check=True)
    assert printed.stdout == unit(str(PROGRAM))
    assert (printed.stderr == "") != is_in_home(str(PROGRAM))


def test_odd_places_are_spelt_so_that_systemd_reads_them() -> None:
    line = next(s for s in unit('/opt/my "s4g" 5%/s4g-run').splitlines() if "ExecStart" in s)
    assert line == r'ExecStart="/opt/my \"s4g\" 5%%/s4g-run" --config /etc/s4g/flight.toml'


def test_a_program_in_a_home_folder_is_not_hidden_from_itself() -> None:
    assert "\nProtectHome=read-only\n" in unit("/home/pilot/env/bin/s4g-run")
    assert "\nProtectHome=yes\n" in unit("/opt/s4g/bin/s4g-run")


def test_the_documented_unit_is_the_one_that_is_printed() -> None:
    page = Path(__file__).resolve().parents[1] / "docs" / "service.md"
    block = re.findall(r"```ini\n(# s4g-run as a service.*?)```", page.read_text("utf-8"), re.S)
    assert block == [unit("/opt/s4g/bin/s4g-run")]
