import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s4g.core.errors import InputError, IntegrityError
from s4g.runtime.exif import attitude_from_gimbal
from s4g.runtime.frames import Frame
from s4g.runtime.telemetry_rotation import quaternions
from s4g.runtime.telemetry_sample import Sample
from s4g.runtime.telemetry_ulog import read_ulog
from s4g.runtime.telemetry_vehicle import LogTelemetry

pytest.importorskip("pyulog", reason="needs pyulog (s4g[telemetry])")
toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_logs.py"))))

ATTITUDE = ("vehicle_attitude", "Q4f", "uint64_t timestamp_sample;float[4] q;")
LOCAL = (
    "vehicle_local_position",
    "fff???ffff?",
    "float x;float y;float z;bool xy_valid;bool z_valid;bool v_xy_valid;"
    "float vx;float vy;float vz;float dist_bottom;bool dist_bottom_valid;",
)
GIMBAL = (
    "gimbal_device_attitude_status",
    "HH4f",
    "uint16_t target;uint16_t device_flags;float[4] q;",
)


def log(*topics: tuple[str, str, str]) -> Any:
    made = toy.ULogFile()
    for topic in topics:
        made.topic(*topic)
    return made


def attitude(made: Any, t: float, *angles: float, late_s: float = 0.0) -> None:
    made.row("vehicle_attitude", t + late_s, toy.us(t), *quaternions([angles])[0])


def local(made: Any, t: float, **values: float) -> None:
    told = {"z": -70.0, "vx": 5.0, "vy": -3.0, "dist": 40.0, "ok": True, "v_ok": True, "near": True}
    v = told | values
    made.row(
        "vehicle_local_position",
        t,
        *(9, 9, v["z"], True, v["ok"], v["v_ok"], v["vx"], v["vy"], 0, v["dist"], v["near"]),
    )


def read(folder: Path, made: Any, **more: float) -> LogTelemetry:
    path = folder / "a.ulg"
    path.write_bytes(made.data)
    return read_ulog(path, **more)


def sample(telemetry: LogTelemetry, t: float) -> Sample:
    found = telemetry.at(Frame(0, t, None, "clip.mp4 frame 0", 64, 48, 0.0))
    assert isinstance(found, Sample)
    return found


def test_attitude_is_interpolated_at_the_time_it_was_true(tmp_path: Path) -> None:
    made = log(ATTITUDE)
    attitude(made, 0.0, 350, 2, -1, late_s=0.4)
    attitude(made, 1.0, 10, 2, -1, late_s=0.4)
    found = sample(read(tmp_path, made, offset_s=100.0), 100.25)
    assert found.attitude.yaw_deg == pytest.approx(355.0, abs=0.01)
    assert found.attitude.pitch_deg == pytest.approx(2.0, abs=0.05)
    assert (found.agl_known, found.age_s) == (False, pytest.approx(0.25))


@pytest.mark.parametrize(
    ("values", "agl_m"), [({}, 40.0), ({"near": False}, 70.0), ({"dist": np.nan}, 70.0)]
)
def test_the_height_is_measured_or_above_the_origin(
    tmp_path: Path, values: dict[str, float], agl_m: float
) -> None:
    made = log(ATTITUDE, LOCAL)
    attitude(made, 0.0, 0, 0, 30)  # PX4's distance is upright already
    local(made, 0.0, **values)
    assert sample(read(tmp_path, made), 0.0).attitude.agl_m == pytest.approx(agl_m)


def test_a_height_that_px4_does_not_believe_is_unknown(tmp_path: Path) -> None:
    made = log(ATTITUDE, LOCAL)
    attitude(made, 0.0, 0, 0, 0)
    local(made, 0.0, near=False, ok=False)
    assert not sample(read(tmp_path, made), 0.0).agl_known


def test_velocity_counts_where_px4_believes_it(tmp_path: Path) -> None:
    made = log(LOCAL)
    local(made, 0.0)
    local(made, 5.0, v_ok=False)
    telemetry = read(tmp_path, made)
    assert (sample(telemetry, 0.0).vel_n_mps, sample(telemetry, 0.0).vel_e_mps) == (5.0, -3.0)
    assert sample(telemetry, 5.0).vel_n_mps is None


@pytest.mark.parametrize(("flags", "yaw_deg"), [(32, 120.0), (64, 30.0)])
def test_a_gimbal_tells_the_cameras_attitude(tmp_path: Path, flags: int, yaw_deg: float) -> None:
    made = log(ATTITUDE, GIMBAL)
    attitude(made, 0.0, 90, 12, 0)
    made.row(GIMBAL[0], 0.0, 0, flags, *quaternions([[30, -80, 0]])[0])
    found = sample(read(tmp_path, made), 0.0).attitude
    expected = attitude_from_gimbal(yaw_deg, -80, 0, 0)
    np.testing.assert_allclose(found.ned_from_camera, expected.ned_from_camera, atol=1e-6)


def test_an_attitude_not_yet_estimated_is_left_out(tmp_path: Path) -> None:
    made = log(ATTITUDE, LOCAL)
    made.row("vehicle_attitude", 0.0, toy.us(0.0), 0, 0, 0, 0)
    local(made, 0.0)
    assert not sample(read(tmp_path, made), 0.0).tilt_known


def test_a_clock_that_jumps_back_is_refused(tmp_path: Path) -> None:
    made = log(ATTITUDE)
    for t in (0.0, 60.0, 2.0):
        attitude(made, t, 0, 0, 0)
    with pytest.raises(IntegrityError) as error:
        read(tmp_path, made)
    assert str(error.value) == (
        f"{tmp_path}/a.ulg: vehicle_attitude: the clock goes backwards, from 60.0 to 2.0 s; split "
        "the log there"
    )


def test_a_log_without_the_topics_is_refused(tmp_path: Path) -> None:
    made = log(("cpuload", "f", "float load;"))
    made.row("cpuload", 0.0, 0.5)
    with pytest.raises(InputError) as error:
        read(tmp_path, made)
    assert str(error.value) == (
        f"{tmp_path}/a.ulg: tells neither attitude nor height; log them (docs/telemetry.md) or "
        "give a CSV"
    )


def test_a_log_cut_short_tells_what_it_holds(tmp_path: Path) -> None:
    made = log(ATTITUDE)
    attitude(made, 0.0, 10, 0, 0)
    attitude(made, 1.0, 20, 0, 0)
    del made.data[-9:]
    assert len(read(tmp_path, made).tracks.body) == 1


def test_damage_is_not_told_on_stdout_where_fixes_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = log(ATTITUDE)
    attitude(made, 0.0, 10, 0, 0)
    made.data += b"\x06\x00D\x63\x00abcd"  # data of a topic that was never announced
    read(tmp_path, made)
    assert capsys.readouterr().out == ""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_raises_anything_but_an_error_of_ours(
    tmp_path: Path, data: st.DataObject
) -> None:
    made = log(ATTITUDE, LOCAL)
    for i in range(5):
        attitude(made, i / 10, 10.0 * i, 0, 0)
        local(made, i / 10)
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(7, len(made.data) - 1))
        made.data[place] = data.draw(st.integers(0, 255))
    try:
        read(tmp_path, made)
    except InputError as error:
        assert str(error).startswith(f"{tmp_path}/a.ulg: ")


def test_without_pyulog_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyulog", None)
    with pytest.raises(InputError) as error:
        read(tmp_path, log(ATTITUDE))
    assert str(error.value) == (
        f"{tmp_path}/a.ulg: PX4 logs are read with pyulog, which is not installed; "
        "pip install 's4g[telemetry]'"
    )
