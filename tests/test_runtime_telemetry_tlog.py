import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s4g.core.errors import InputError, IntegrityError
from s4g.runtime.frames import Frame
from s4g.runtime.telemetry_sample import Sample
from s4g.runtime.telemetry_tlog import is_tlog, read_tlog
from s4g.runtime.telemetry_vehicle import LogTelemetry

HERE = Path(__file__)
mavlink = SimpleNamespace(**runpy.run_path(str(HERE.with_name("toy_mavlink.py"))))
toy = SimpleNamespace(**runpy.run_path(str(HERE.with_name("toy_logs.py"))))
PILOT = mavlink.Autopilot()


def read(folder: Path, data: bytes, **more: float) -> LogTelemetry:
    path = folder / "a.tlog"
    path.write_bytes(data)
    return read_tlog(path, **more)


def sample(telemetry: LogTelemetry, t: float) -> Sample:
    found = telemetry.at(Frame(0, t, None, "clip.mp4 frame 0", 64, 48, 0.0))
    assert isinstance(found, Sample)
    return found


def flight() -> list[tuple[float, bytes]]:
    return [
        (0.0, PILOT.heartbeat()),
        *((0.5 + i / 10, PILOT.attitude(100 + i / 10, i / 100)) for i in range(20)),
        (2.45, PILOT.global_position(101.95, 80.0, 5.0, -3.0)),
    ]


def test_time_counts_from_the_first_record(tmp_path: Path) -> None:
    telemetry = read(tmp_path, toy.tlog(flight()), offset_s=40.0)
    found = sample(telemetry, 41.25)
    assert found.attitude.yaw_deg == pytest.approx(4.297, abs=0.001)  # 0.075 rad
    assert (found.agl_known, found.age_s) == (False, pytest.approx(0.05, abs=1e-6))
    found = sample(telemetry, 42.45)
    assert (found.attitude.agl_m, found.vel_n_mps, found.vel_e_mps) == (80.0, 5.0, -3.0)


def test_messages_of_mavlink_1_and_signed_ones_are_read(tmp_path: Path) -> None:
    common = mavlink.common
    signer = common.MAVLink(None, 1, 1)
    signer.signing.secret_key, signer.signing.sign_outgoing = bytes(32), True
    first = common.MAVLink_attitude_message(1000, 0, 0, 0.1, 0, 0, 0)
    second = common.MAVLink_attitude_message(1500, 0, 0, 0.25, 0, 0, 0)
    third = common.MAVLink_attitude_message(2000, 0, 0, 0.3, 0, 0, 0)
    plain = common.MAVLink(None, 1, 1)
    records = [
        (0.0, bytes(first.pack(plain, force_mavlink1=True))),
        (0.5, bytes(second.pack(signer))),
        (1.0, bytes(third.pack(plain))),
    ]
    telemetry = read(tmp_path, toy.tlog(records))
    yaws = [sample(telemetry, t).attitude.yaw_deg for t in (0.0, 0.5, 1.0)]
    assert yaws == pytest.approx([5.730, 14.324, 17.189], abs=0.001)


def test_damaged_records_cost_themselves_alone(tmp_path: Path) -> None:
    records = flight()
    damaged = bytearray(records[5][1])
    damaged[12] ^= 0xFF
    records[5] = (records[5][0], bytes(damaged))
    records.insert(9, (1.25, b"noise \xfd and \xfe"))
    telemetry = read(tmp_path, toy.tlog(records)[:-5])
    assert len(telemetry.tracks.body) == 19
    assert len(telemetry.tracks.relative_m) == 0  # cut short


def test_a_clock_that_jumps_back_is_refused_with_its_place(tmp_path: Path) -> None:
    records = [(t, PILOT.attitude(100 + i, 0)) for i, t in enumerate((0.0, 60.0, 5.0))]
    with pytest.raises(IntegrityError) as error:
        read(tmp_path, toy.tlog(records))
    at = sum(8 + len(data) for _, data in records[:2])
    assert str(error.value) == (
        f"{tmp_path}/a.tlog: byte {at}: the clock goes backwards by 55.0 s; split the log there"
    )


def test_a_restart_of_the_autopilot_keeps_what_was_before(tmp_path: Path) -> None:
    records = [(0.0, PILOT.attitude(500.0, 1.0)), (5.0, PILOT.attitude(1.0, 2.0))]
    telemetry = read(tmp_path, toy.tlog(records))
    assert [sample(telemetry, t).attitude.yaw_deg for t in (0.0, 5.0)] == pytest.approx(
        [57.296, 114.592], abs=0.001
    )


def test_a_log_of_a_ground_station_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a.tlog: tells neither attitude nor height"):
        read(tmp_path, toy.tlog([(0.0, mavlink.Autopilot(255, 190).heartbeat())] * 3))


@pytest.mark.parametrize("head", [b"", b"t,yaw_deg,pitch_deg,roll_deg,agl_m\n", bytes(64)])
def test_other_files_are_no_telemetry_log(head: bytes) -> None:
    assert not is_tlog(head)
    assert is_tlog(toy.tlog(flight()))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_raises_anything_but_an_error_of_ours(
    tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(toy.tlog(flight()))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(tmp_path, bytes(content[: data.draw(st.integers(20, len(content)))]))
    except InputError as error:
        assert str(error).startswith(f"{tmp_path}/a.tlog: ")
