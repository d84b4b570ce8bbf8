"""The sensors of a made Orin, and of machines that have less."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from s4g.runtime import board
from s4g.runtime.board import Board, read_board, read_power_mode

# As Orin's device tree names them; `cv0-thermal` is off and answers nothing.
ZONES = {"cpu-thermal": 49687, "gpu-thermal": 50531, "cv0-thermal": None, "tj-thermal": 50781}
ALERTS = ("cpu-throttle-alert", "gpu-throttle-alert", "hot-surface-alert")
GPU = "sys/devices/platform/bus@0/17000000.gpu/load"


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    thermal = "sys/class/thermal"
    for number, (zone, value) in enumerate(ZONES.items()):
        write(tmp_path, f"{thermal}/thermal_zone{number}/type", zone + "\n")
        write(
            tmp_path, f"{thermal}/thermal_zone{number}/temp", "" if value is None else f"{value}\n"
        )
        write(tmp_path, f"{thermal}/thermal_zone{number}/trip_point_0_type", "critical\n")
        write(tmp_path, f"{thermal}/thermal_zone{number}/trip_point_0_temp", "104500\n")
        write(tmp_path, f"{thermal}/thermal_zone{number}/trip_point_1_type", "passive\n")
        write(tmp_path, f"{thermal}/thermal_zone{number}/trip_point_1_temp", "99000\n")
    write(tmp_path, f"{thermal}/cooling_device0/type", "pwm-fan\n")
    write(tmp_path, f"{thermal}/cooling_device0/cur_state", "3\n")
    write(tmp_path, f"{thermal}/cooling_device1/type", "devfreq-17000000.gpu\n")
    write(tmp_path, f"{thermal}/cooling_device1/cur_state", "2\n")
    for number, alert in enumerate(ALERTS, 2):
        write(tmp_path, f"{thermal}/cooling_device{number}/type", alert + "\n")
        write(tmp_path, f"{thermal}/cooling_device{number}/cur_state", "0\n")
    write(tmp_path, "sys/class/hwmon/hwmon3/name", "soctherm_oc\n")
    for number, count in ((1, 0), (2, 15), (3, 37)):
        write(tmp_path, f"sys/class/hwmon/hwmon3/oc{number}_event_cnt", f"{count}\n")
    write(tmp_path, GPU, "437\n")
    write(tmp_path, "proc/device-tree/model", "NVIDIA Jetson Orin NX Engineering Reference\0")
    return tmp_path


def test_an_orin_is_read(orin: Path) -> None:
    reading = read_board(orin, "25W")
    assert reading.model == "NVIDIA Jetson Orin NX Engineering Reference"
    assert reading.temperatures_c == {
        "cpu-thermal": 49.687,
        "gpu-thermal": 50.531,
        "tj-thermal": 50.781,
    }
    assert reading.hottest == "tj-thermal 50.8 °C"
    assert (reading.gpu_load, reading.power_mode) == (0.437, "25W")
    assert reading.over_current_events == 52
    assert reading.throttled == ()  # a fan that turns and a clock that follows load are no alarm


def test_an_alert_of_the_hardware_is_throttling(orin: Path) -> None:
    write(orin, "sys/class/thermal/cooling_device3/cur_state", "1\n")
    assert read_board(orin).throttled == ("gpu-throttle-alert",)


def test_a_zone_past_its_passive_trip_point_is_throttling(orin: Path) -> None:
    write(orin, "sys/class/thermal/thermal_zone3/temp", "98999\n")
    assert read_board(orin).throttled == ()
    write(orin, "sys/class/thermal/thermal_zone3/temp", "99000\n")
    assert read_board(orin).throttled == ("tj-thermal",)


def test_over_current_is_throttling_only_where_it_is_new(orin: Path) -> None:
    first = read_board(orin)
    write(orin, "sys/class/hwmon/hwmon3/oc1_event_cnt", "1\n")
    second = read_board(orin, before=first)
    assert (second.throttled, second.over_current_events) == (("over-current",), 53)
    assert read_board(orin, before=second).throttled == ()


def test_over_current_is_noticed_where_there_was_none_since_boot(orin: Path) -> None:
    for number in (1, 2, 3):
        write(orin, f"sys/class/hwmon/hwmon3/oc{number}_event_cnt", "0\n")
    first = read_board(orin)
    write(orin, "sys/class/hwmon/hwmon3/oc3_event_cnt", "4\n")
    assert read_board(orin, before=first).throttled == ("over-current",)


@pytest.mark.parametrize("text", ["", "hot\n", "-256000\n", "999999000\n", "\xff\n"])
def test_a_sensor_that_tells_nonsense_is_left_out(orin: Path, text: str) -> None:
    (orin / "sys/class/thermal/thermal_zone0/temp").write_bytes(text.encode("latin-1"))
    assert set(read_board(orin).temperatures_c) == {"gpu-thermal", "tj-thermal"}


def test_a_node_that_would_hold_the_reader_up_is_left_out(orin: Path) -> None:
    path = orin / "sys/class/thermal/thermal_zone0/temp"
    path.unlink()
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)  # as on Orin: open, but EAGAIN
    try:
        assert set(read_board(orin).temperatures_c) == {"gpu-thermal", "tj-thermal"}
    finally:
        os.close(writer)


def test_two_zones_of_one_kind_are_both_told(tmp_path: Path) -> None:
    for number, value in ((0, 40000), (1, 45000), (10, 50000)):
        write(tmp_path, f"sys/class/thermal/thermal_zone{number}/type", "acpitz\n")
        write(tmp_path, f"sys/class/thermal/thermal_zone{number}/temp", f"{value}\n")
    temperatures_c = read_board(tmp_path).temperatures_c
    assert temperatures_c == {"acpitz": 40.0, "acpitz 1": 45.0, "acpitz 10": 50.0}


def test_a_machine_that_tells_nothing_has_an_empty_reading(tmp_path: Path) -> None:
    reading = read_board(tmp_path)
    assert (reading.model, reading.temperatures_c, reading.throttled) == (None, {}, ())
    assert (reading.over_current_events, reading.gpu_load, reading.power_mode) == (None,) * 3
    assert reading.hottest == "no temperatures"


def test_this_machine_can_be_read() -> None:
    assert all(-55 <= value <= 150 for value in read_board().temperatures_c.values())


Program = Callable[[str], str]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Make an nvpmodel of a shell script's body."""

    def make(body: str) -> str:
        path = tmp_path / "bin" / "nvpmodel"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return str(path)

    return make


def test_the_power_mode_is_what_nvpmodel_tells(program: Program) -> None:
    asked = program("[ $# = 1 ] && [ $1 = -q ] && printf 'NV Power Mode: MAXN_SUPER\\n2\\n'")
    assert read_power_mode(asked) == "MAXN_SUPER"


@pytest.mark.parametrize(
    "body", ["exit 1", "echo 'NV Power Mode:'", "echo 'NVPM ERROR: NV Power Mode: none'"]
)
def test_an_nvpmodel_that_tells_nothing_gives_no_mode(program: Program, body: str) -> None:
    assert read_power_mode(program(body)) is None


def test_without_nvpmodel_there_is_no_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_power_mode() is None
    assert read_power_mode(str(tmp_path / "none")) is None


def test_an_nvpmodel_that_hangs_is_ended(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "_PROGRAM_LIMIT_S", 0.05)
    assert read_power_mode(program("exec sleep 60")) is None


class Still(Board):
    """A board whose thread does nothing: a test looks when it wants to."""

    def _run(self) -> None:
        pass


def test_throttling_is_said_once_when_it_begins_and_once_when_it_ends(
    orin: Path,
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(Path(program("echo 'NV Power Mode: 25W'")).parent))
    watched = Still(orin)
    alert = "sys/class/thermal/cooling_device3/cur_state"
    for state in ("0", "1", "1", "0", "0"):
        write(orin, alert, state)
        assert watched.look() is Board.latest
    watched.close()
    assert Board.latest is None
    assert capsys.readouterr().err.splitlines() == [
        "board: NVIDIA Jetson Orin NX Engineering Reference, power mode 25W, tj-thermal 50.8 °C",
        "board: throttling (gpu-throttle-alert), tj-thermal 50.8 °C",
        "board: no longer throttling, tj-thermal 50.8 °C",
    ]


def test_a_machine_without_power_modes_says_nothing_while_it_is_cool(
    orin: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(orin))
    watched = Still(orin)
    watched.look()
    watched.close()
    assert capsys.readouterr().err == ""


def test_another_power_mode_is_said(
    orin: Path,
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(board, "_POWER_MODE_S", 0.0)
    monkeypatch.setenv("PATH", str(Path(program("echo 'NV Power Mode: 25W'")).parent))
    watched = Still(orin)
    watched.look()
    program("echo 'NV Power Mode: 15W'")
    watched.look()
    watched.close()
    assert capsys.readouterr().err.splitlines()[1:] == ["board: power mode 15W, was 25W"]


def test_a_thread_of_its_own_reads(orin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(orin))
    looked = threading.Event()

    class Told(Board):
        def look(self) -> board.Reading:
            reading = super().look()
            looked.set()
            return reading

    watched = Told(orin, period_s=0.01)
    assert looked.wait(10)
    latest = Board.latest
    assert latest is not None and latest.temperatures_c["tj-thermal"] == 50.781
    watched.close()
    assert Board.latest is None
