import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s4g.core.errors import InputError, IntegrityError
from s4g.runtime.frames import Frame
from s4g.runtime.telemetry_dataflash import read_dataflash
from s4g.runtime.telemetry_sample import Sample
from s4g.runtime.telemetry_vehicle import LogTelemetry

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_logs.py"))))
us = toy.us

ATT = ("ATT", "QccccCCCCB", "TimeUS,DesRoll,Roll,DesPitch,Pitch,DesYaw,Yaw,ErrRP,ErrYaw,AEKF")
POS = ("POS", "QLLfff", "TimeUS,Lat,Lng,Alt,RelHomeAlt,RelOriginAlt")
CTUN = ("CTUN", "Qffffffefffhh", "TimeUS,ThI,ABst,ThO,ThH,DAlt,Alt,BAlt,DSAlt,SAlt,TAlt,DCRt,CRt")
RFND = ("RFND", "QBCBB", "TimeUS,Instance,Dist,Stat,Orient")
TERR = ("TERR", "QBLLHffHHf", "TimeUS,Status,Lat,Lng,Spacing,TerrH,CHeight,Pending,Loaded,ROfs")
XKF1 = ("XKF1", "QBccCfffffffccce", "TimeUS,C,Roll,Pitch,Yaw,VN,VE,VD,dPD,PN,PE,PD,GX,GY,GZ,OH")
NKF1 = ("NKF1", "QccCfffffffccc", "TimeUS,Roll,Pitch,Yaw,VN,VE,VD,dPD,PN,PE,PD,GX,GY,GZ")
MNT = ("MNT", "QBffffffff", "TimeUS,I,DesRoll,Roll,DesPitch,Pitch,DesYawB,YawB,DesYawE,YawE")
GPS = ("GPS", "QBIHBcLLeffffB", "TimeUS,Status,GMS,GWk,NSats,HDop,Lat,Lng,Alt,Spd,GCrs,VZ,Yaw,U")
# Of firmware of 2013 and 2014, and rangefinders of the years until messages had an instance.
OLD_ATT = ("ATT", "IccccCCCC", "TimeMS,DesRoll,Roll,DesPitch,Pitch,DesYaw,Yaw,ErrRP,ErrYaw")
OLD_CTUN = ("CTUN", "Ihhhffecchh", "TimeMS,ThrIn,AngBst,ThrOut,DAlt,Alt,BarAlt,DSAlt,SAlt,DCRt,CRt")
EKF1 = ("EKF1", "IccCffffffccc", "TimeMS,Roll,Pitch,Yaw,VN,VE,VD,PN,PE,PD,GX,GY,GZ")
OLD_PARM = ("PARM", "Nf", "Name,Value")
RFND_PLAIN = ("RFND", "QCC", "TimeUS,Dist1,Dist2")
RFND_ORIENTED = ("RFND", "QCBCB", "TimeUS,Dist1,Orient1,Dist2,Orient2")
RFND_PAIR = ("RFND", "QCBBCBB", "TimeUS,Dist1,Stat1,Orient1,Dist2,Stat2,Orient2")
PARM = ("PARM", "QNf", "TimeUS,Name,Value")
NAN = float("nan")


def log(*kinds: tuple[str, str, str]) -> Any:
    made = toy.DataFlash()
    for kind in kinds:
        made.describe(*kind)
    return made


def attitude(made: Any, t: float, yaw: float, pitch: float = 0, roll: float = 0) -> None:
    made.row("ATT", us(t), 77, roll, 77, pitch, 77, yaw, 77, 77, 3)


def read(folder: Path, made: Any, **more: float) -> LogTelemetry:
    path = folder / "a.bin"
    path.write_bytes(made.data)
    return read_dataflash(path, **more)


def sample(telemetry: LogTelemetry, t: float) -> Sample:
    found = telemetry.at(Frame(0, t, None, "clip.mp4 frame 0", 64, 48, 0.0))
    assert isinstance(found, Sample)
    return found


def test_attitude_is_interpolated_between_messages_the_short_way(tmp_path: Path) -> None:
    made = log(ATT)
    attitude(made, 0.0, 350.0, 2.0, -1.0)
    attitude(made, 1.0, 10.0, 2.0, -1.0)
    found = sample(read(tmp_path, made), 0.25)
    assert found.attitude.yaw_deg == pytest.approx(355.0, abs=0.01)
    assert found.attitude.pitch_deg == pytest.approx(2.0, abs=0.05)
    assert found.attitude.roll_deg == pytest.approx(-1.0, abs=0.05)
    assert (found.agl_known, found.age_s) == (False, pytest.approx(0.25))


def test_time_counts_from_the_first_record_of_any_kind(tmp_path: Path) -> None:
    made = log(ATT, GPS)
    made.row("GPS", us(0), 3, 0, 0, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0)
    attitude(made, 30.0, 90.0)
    assert sample(read(tmp_path, made), 30.0).attitude.yaw_deg == pytest.approx(90.0)
    assert sample(read(tmp_path, made, offset_s=5.0), 35.0).age_s == 0.0


def test_the_height_is_that_of_the_rangefinder_that_looks_down(tmp_path: Path) -> None:
    made = log(ATT, RFND, POS)
    attitude(made, 0.0, 0.0)
    made.row("RFND", us(0), 0, 33.0, 4, 0)  # looks ahead
    made.row("RFND", us(0), 1, 41.5, 4, 25)
    made.row("RFND", us(0.1), 1, 99.0, 3, 25)  # out of range
    made.row("POS", us(0), 1, 1, 500, 60, 61)
    assert sample(read(tmp_path, made), 0.1).attitude.agl_m == pytest.approx(41.5)


def test_of_a_pair_of_rangefinders_the_first_that_sees_the_ground_tells_the_height(
    tmp_path: Path,
) -> None:
    made = log(RFND_PAIR, POS)
    made.row("POS", us(0), 1, 1, 500, 60, 61)
    made.row("RFND", us(0), 41.5, 4, 25, 42.5, 4, 25)
    made.row("RFND", us(0.5), 41.5, 4, 0, 43.5, 4, 25)  # the first looks ahead
    made.row("RFND", us(1), 41.5, 3, 25, 44.5, 4, 25)  # ... and sees nothing
    made.row("RFND", us(1.5), 41.5, 1, 25, 44.5, 2, 25)  # neither does
    telemetry = read(tmp_path, made)
    assert telemetry.tracks.range_m.last_s == 1.0
    heights = [sample(telemetry, t).attitude.agl_m for t in (0, 0.5, 1, 1.5)]
    assert heights == pytest.approx([41.5, 43.5, 44.5, 44.5])


def limits(made: Any, *parameters: tuple[str, float]) -> None:
    for name, value in parameters:
        made.row("PARM", us(0), name.encode(), value)


FIRST = (("RNGFND_MIN_CM", 50.0), ("RNGFND_MAX_CM", 4000.0))
SECOND = (("RNGFND2_MIN_CM", 50.0), ("RNGFND2_MAX_CM", 9000.0))


def test_without_a_status_a_distance_counts_within_the_parameters_bounds(tmp_path: Path) -> None:
    made = log(PARM, RFND_ORIENTED, POS)
    limits(made, *FIRST, *SECOND, ("RNGFND_MAX_CM", 3000.0), ("RTL_ALT", 2000.0))
    made.row("POS", us(0), 1, 1, 500, 60, 61)
    made.row("RFND", us(0), 29.9, 25, 0, 0)
    made.row("RFND", us(0.5), 30.1, 25, 85, 25)  # too far for the first, by its last bound
    made.row("RFND", us(1), 0.4, 25, 85, 0)  # too near, and the second looks ahead
    telemetry = read(tmp_path, made)
    assert telemetry.tracks.range_m.last_s == 0.5
    heights = [sample(telemetry, t).attitude.agl_m for t in (0, 0.5)]
    assert heights == pytest.approx([29.9, 85.0])


def test_without_an_orientation_the_first_rangefinder_looks_down(tmp_path: Path) -> None:
    made = log(PARM, RFND_PLAIN)
    limits(made, *FIRST, *SECOND)
    made.row("RFND", us(0), 20.5, 70)
    made.row("RFND", us(1), 0, 70)
    telemetry = read(tmp_path, made)
    assert len(telemetry.tracks.range_m) == 1
    assert sample(telemetry, 0).attitude.agl_m == pytest.approx(20.5)


@pytest.mark.parametrize("kind", [RFND_PLAIN, RFND_ORIENTED])
def test_without_status_and_bounds_no_distance_counts(
    tmp_path: Path, kind: tuple[str, str, str]
) -> None:
    made = log(kind, POS)
    made.row("POS", us(0), 1, 1, 500, 60, 61)
    made.row("RFND", us(0), *[20.5, 25, 20.5, 25][:: 2 if kind == RFND_PLAIN else 1])
    assert sample(read(tmp_path, made), 0).attitude.agl_m == 60.0


def ms(t: float) -> int:
    return us(t) // 1000


def test_an_old_log_counts_milliseconds(tmp_path: Path) -> None:
    made = log(OLD_PARM, OLD_ATT, OLD_CTUN, EKF1)
    made.row("PARM", b"RTL_ALT", 2000)
    for t in (0, 1):
        made.row("ATT", ms(t), 77, -1, 77, 2, 77, 350 * (1 - t) + 10 * t, 77, 77)
    made.row("CTUN", ms(0.5), 1, 1, 1, 70, 71, 72, 1, 1, 1, 1)
    made.row("EKF1", ms(0.5), 0, 0, 0, 3, -4, 0, 9, 9, 9, 0, 0, 0)
    found = sample(read(tmp_path, made), 0.25)
    assert found.attitude.yaw_deg == pytest.approx(355.0, abs=0.01)
    assert found.attitude.pitch_deg == pytest.approx(2.0, abs=0.05)
    assert found.attitude.agl_m == 71.0
    assert (found.vel_n_mps, found.vel_e_mps) == (3.0, -4.0)


def test_milliseconds_of_a_sensors_own_clock_are_no_time_of_the_log(tmp_path: Path) -> None:
    made = log(("ACC1", "IIfff", "TimeMS,TimeUS,AccX,AccY,AccZ"), OLD_ATT)
    made.row("ACC1", 7, 7000, 0, 0, 9)
    made.row("ATT", ms(0), 77, 0, 77, 0, 77, 90, 77, 77)
    assert sample(read(tmp_path, made), 0.0).age_s == 0.0


@pytest.mark.parametrize(("form", "name", "value"), [("Qff", 1.0, 2.0), ("QNN", b"x", b"y")])
def test_columns_of_the_wrong_kind_are_not_read(
    tmp_path: Path, form: str, name: Any, value: Any
) -> None:
    made = log(POS, ("ATT", "QNff", "TimeUS,Yaw,Roll,Pitch"), ("NKF1", "NBff", "TimeUS,C,VN,VE"))
    made.describe("PARM", form, "TimeUS,Name,Value")
    made.row("POS", us(0), 1, 1, 500, 60, 61)
    made.row("ATT", us(0), b"ninety", 0, 0)
    made.row("NKF1", b"now", 0, 1, 1)
    made.row("PARM", us(0), name, value)
    found = sample(read(tmp_path, made), 0.0)
    assert (found.tilt_known, found.vel_n_mps) == (False, None)


def test_without_a_rangefinder_the_terrain_model_tells_the_height(tmp_path: Path) -> None:
    made = log(ATT, TERR, POS)
    made.row("TERR", us(0), 1, 1, 1, 100, 400, 999, 0, 0, 0)  # unhealthy
    made.row("TERR", us(0), 2, 1, 1, 100, 400, 55.5, 0, 0, 0)
    made.row("POS", us(0), 1, 1, 500, 60, 61)
    assert sample(read(tmp_path, made), 0.0).attitude.agl_m == 55.5


def test_without_both_it_is_the_height_above_home(tmp_path: Path) -> None:
    made = log(POS, CTUN)
    made.row("CTUN", us(0), 0, 0, 0, 0, 70, 71, 72, 0, 0, 0, 0, 0)
    assert sample(read(tmp_path, made), 0.0).attitude.agl_m == 71.0
    made.row("POS", us(0), 1, 1, 500, 60, 61)
    assert sample(read(tmp_path, made), 0.0).attitude.agl_m == 60.0


def test_velocity_is_that_of_the_first_core(tmp_path: Path) -> None:
    made = log(POS, XKF1, NKF1)
    made.row("POS", us(0), 1, 1, 500, 60, 61)
    made.row("NKF1", us(0), 0, 0, 0, 1, 2, 0, 0, 9, 9, 9, 0, 0, 0)
    found = sample(read(tmp_path, made), 0.0)
    assert (found.vel_n_mps, found.vel_e_mps) == (1.0, 2.0)
    made.row("XKF1", us(0), 0, 0, 0, 0, 5, -3, 0, 0, 9, 9, 9, 0, 0, 0, 0)
    made.row("XKF1", us(0.1), 1, 0, 0, 0, 8, 8, 0, 0, 9, 9, 9, 0, 0, 0, 0)
    found = sample(read(tmp_path, made), 0.1)
    assert (found.vel_n_mps, found.vel_e_mps) == (5.0, -3.0)


@pytest.mark.parametrize(("yaw_b", "yaw_e"), [(30.0, NAN), (NAN, 120.0), (30.0, 120.0)])
def test_the_first_mount_tells_the_cameras_attitude(
    tmp_path: Path, yaw_b: float, yaw_e: float
) -> None:
    made = log(ATT, MNT)
    attitude(made, 0.0, 90.0, 12.0)
    made.row("MNT", us(0), 0, NAN, 0.0, NAN, -80.0, NAN, yaw_b, NAN, yaw_e)
    made.row("MNT", us(0), 1, NAN, 0.0, NAN, -20.0, NAN, 0.0, NAN, 0.0)
    found = sample(read(tmp_path, made), 0.0).attitude
    assert found.yaw_deg == pytest.approx(120.0, abs=0.01)
    assert found.pitch_deg == pytest.approx(10.0, abs=0.01)


def test_messages_of_unknown_kinds_are_stepped_over(tmp_path: Path) -> None:
    made = log(ATT, ("ZZZ", "QBf", "TimeUS,A,B"))
    made.row("ZZZ", us(0), 1, 2)
    attitude(made, 1.0, 45.0)
    assert sample(read(tmp_path, made), 1.0).attitude.yaw_deg == pytest.approx(45.0)


def test_damaged_bytes_cost_their_messages_alone(tmp_path: Path) -> None:
    made = log(ATT)
    attitude(made, 0.0, 10.0)
    made.data += b"\xa3\x95\xfe garbage \xa3"
    attitude(made, 1.0, 20.0)
    made.data += made.data[-20:-8]  # cut short
    telemetry = read(tmp_path, made)
    assert len(telemetry.tracks.body) == 2
    assert sample(telemetry, 1.0).attitude.yaw_deg == pytest.approx(20.0)


def test_attitude_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    made = log(("ATT", "Qfff", "TimeUS,Roll,Pitch,Yaw"), POS)
    made.row("POS", us(0), 1, 1, 500, 60, 61)
    made.row("ATT", us(0), NAN, 0, 0)
    assert not sample(read(tmp_path, made), 0.0).tilt_known


def test_a_description_that_does_not_add_up_is_not_used(tmp_path: Path) -> None:
    made = log(POS)
    made.describe("ATT", "Qff", "TimeUS,Roll,Pitch,Yaw")
    made.row("POS", us(0), 1, 1, 500, 60, 61)
    made.row("ATT", us(0), 1, 2)
    assert not sample(read(tmp_path, made), 0.0).tilt_known


def test_a_clock_that_jumps_back_is_refused(tmp_path: Path) -> None:
    made = log(ATT)
    for t in (0.0, 60.0, 2.0):
        attitude(made, t, 0.0)
    with pytest.raises(IntegrityError) as error:
        read(tmp_path, made)
    assert str(error.value) == (
        f"{tmp_path}/a.bin: ATT: the clock goes backwards, from 60.0 to 2.0 s; split the log there"
    )


def test_a_log_without_messages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError) as error:
        read(tmp_path, log(ATT))
    assert str(error.value) == (
        f"{tmp_path}/a.bin: holds no message with a time; it is damaged or cut short"
    )


def test_a_log_of_positions_alone_is_refused(tmp_path: Path) -> None:
    made = log(GPS)
    made.row("GPS", us(0), 3, 0, 0, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0)
    with pytest.raises(InputError, match="tells neither attitude nor height"):
        read(tmp_path, made)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_raises_anything_but_an_error_of_ours(
    tmp_path: Path, data: st.DataObject
) -> None:
    made = log(ATT, POS, PARM, RFND_ORIENTED)
    limits(made, *FIRST, *SECOND)
    for i in range(5):
        attitude(made, i / 10, 10.0 * i)
        made.row("RFND", us(i / 10), 20, 25, 20, 25)
        made.row("POS", us(i / 10), 1, 1, 500, 60, 61)
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(3, len(made.data) - 1))
        made.data[place] = data.draw(st.integers(0, 255))
    del made.data[data.draw(st.integers(100, len(made.data))) :]
    try:
        read(tmp_path, made)
    except InputError as error:
        assert str(error).startswith(f"{tmp_path}/a.bin: ")


def test_of_an_old_log_it_reads_what_pymavlink_reads(tmp_path: Path) -> None:
    reader = pytest.importorskip("pymavlink.DFReader", reason="needs pymavlink (s4g[telemetry])")
    made = log(OLD_ATT)
    for t in range(5):
        made.row("ATT", ms(t / 4), 77, t, 77, -t, 77, 60 + t, 77, 77)
    telemetry = read(tmp_path, made)
    theirs = reader.DFReader_binary(str(tmp_path / "a.bin"), zero_time_base=True)
    try:
        rows = list(iter(lambda: theirs.recv_match(type="ATT"), None))
    finally:
        theirs.close()
    assert len(rows) == 5
    for row in rows:
        found = sample(telemetry, row._timestamp - rows[0]._timestamp).attitude
        assert (found.yaw_deg, found.pitch_deg, found.roll_deg) == pytest.approx(
            (row.Yaw, row.Pitch, row.Roll), abs=1e-6
        )


def test_it_reads_what_pymavlink_reads(tmp_path: Path) -> None:
    reader = pytest.importorskip("pymavlink.DFReader", reason="needs pymavlink (s4g[telemetry])")
    made = log(ATT, RFND)
    rng = np.random.default_rng(7)
    for t in np.arange(0, 3, 0.1):
        attitude(made, t, *rng.uniform([0, -40, -40], [359, 40, 40]))
        made.row("RFND", us(t), 0, rng.uniform(1, 300), 4, 25)
    telemetry = read(tmp_path, made)
    theirs = reader.DFReader_binary(str(tmp_path / "a.bin"), zero_time_base=True)
    try:
        rows = list(iter(lambda: theirs.recv_match(type=["ATT", "RFND"]), None))
    finally:
        theirs.close()
    assert len(rows) == 60
    for attitudes, ranges in zip(rows[::2], rows[1::2], strict=True):
        found = sample(telemetry, attitudes.TimeUS / 1e6 - 5.0).attitude
        angles = (attitudes.Yaw, attitudes.Pitch, attitudes.Roll)
        assert (found.yaw_deg, found.pitch_deg, found.roll_deg) == pytest.approx(angles, abs=1e-6)
        upright = np.cos(np.radians(attitudes.Pitch)) * np.cos(np.radians(attitudes.Roll))
        assert found.agl_m == pytest.approx(ranges.Dist * upright)
