from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.runtime.fix import Reason
from s4g.runtime.frames import Frame
from s4g.runtime.telemetry_csv import CsvTelemetry, read_csv_telemetry

HEADER = "t,yaw_deg,pitch_deg,roll_deg,agl_m"


def frame(t: float | None = None, file: str | None = None) -> Frame:
    return Frame(0, t, file, file or "clip.mp4 frame 0", 64, 48, 0.0)


def table(folder: Path, *lines: str) -> Path:
    path = folder / "telemetry.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def by_time(folder: Path) -> CsvTelemetry:
    return read_csv_telemetry(table(folder, HEADER, "0,350,0,0,100", "1,10,4,-2,110"))


def test_values_between_rows_are_interpolated(tmp_path: Path) -> None:
    sample = by_time(tmp_path).at(frame(t=0.25))
    assert sample.t == 0.25
    assert sample.attitude.pitch_deg == pytest.approx(1.0)
    assert sample.attitude.roll_deg == pytest.approx(-0.5)
    assert sample.attitude.agl_m == pytest.approx(102.5)


def test_yaw_turns_the_short_way_through_north(tmp_path: Path) -> None:
    assert by_time(tmp_path).at(frame(t=0.5)).attitude.yaw_deg % 360 == pytest.approx(0.0)


@given(
    first=st.floats(-720, 720, width=32),
    turn=st.floats(-179, 179, width=32),
    share=st.floats(0, 1),
)
def test_yaw_between_rows_stays_inside_the_turn(first: float, turn: float, share: float) -> None:
    import numpy as np

    columns = {
        "t": np.array([0.0, 1.0]),
        "yaw_deg": np.array([first, first + turn]) % 360.0,
        "pitch_deg": np.zeros(2),
        "roll_deg": np.zeros(2),
        "agl_m": np.full(2, 100.0),
    }
    yaw_deg = CsvTelemetry("t.csv", columns, {}).at(frame(t=share)).attitude.yaw_deg
    off = (yaw_deg - (first + share * turn) + 180.0) % 360.0 - 180.0
    assert off == pytest.approx(0.0, abs=1e-6)


def test_a_frame_just_outside_takes_the_nearest_row(tmp_path: Path) -> None:
    assert by_time(tmp_path).at(frame(t=1.9)).attitude.agl_m == 110.0


def test_a_frame_far_outside_has_no_telemetry(tmp_path: Path) -> None:
    assert by_time(tmp_path).at(frame(t=3.5)) is Reason.NO_TELEMETRY


def test_a_frame_in_a_hole_has_no_telemetry(tmp_path: Path) -> None:
    telemetry = read_csv_telemetry(table(tmp_path, HEADER, "0,0,0,0,100", "9,0,0,0,100"))
    assert telemetry.at(frame(t=4.5)) is Reason.NO_TELEMETRY


def test_a_sample_says_how_far_the_nearest_row_is(tmp_path: Path) -> None:
    telemetry = by_time(tmp_path)
    assert telemetry.at(frame(t=0.75)).age_s == pytest.approx(0.25)
    assert telemetry.at(frame(t=1.5)).age_s == pytest.approx(0.5)


def test_an_offset_is_what_the_frames_clock_shows_when_t_is_0(tmp_path: Path) -> None:
    telemetry = read_csv_telemetry(table(tmp_path, HEADER, "0,0,0,0,100", "1,0,0,0,110"), 40.0)
    sample = telemetry.at(frame(t=40.5))
    assert (sample.attitude.agl_m, sample.t) == (pytest.approx(105.0), 40.5)


def test_a_table_that_covers_no_frame_names_both_clocks(tmp_path: Path) -> None:
    telemetry = by_time(tmp_path)
    assert telemetry.complaint() is None
    for t in (100.0, 107.5, 103.0):
        telemetry.at(frame(t=t))
    assert telemetry.complaint() == (
        f"{tmp_path}/telemetry.csv: covers no frame: its rows run from 0.000 to 1.000 s, the "
        "frames from 100.000 to 107.500 s; check that both use one clock, or pass "
        "--telemetry-offset"
    )


def test_a_table_that_covers_one_frame_has_nothing_to_complain_about(tmp_path: Path) -> None:
    telemetry = by_time(tmp_path)
    for t in (100.0, 0.5, 103.0):
        telemetry.at(frame(t=t))
    assert telemetry.complaint() is None


def test_rows_by_file_are_taken_as_they_are(tmp_path: Path) -> None:
    path = table(tmp_path, f"file,{HEADER},vel_n_mps,vel_e_mps", "a.jpg,7,90,1,2,80,5,-3")
    sample = read_csv_telemetry(path).at(frame(file="a.jpg"))
    assert (sample.attitude.yaw_deg, sample.t) == (90.0, 7.0)
    assert (sample.vel_n_mps, sample.vel_e_mps) == (5.0, -3.0)


def test_a_photo_that_is_not_listed_has_no_telemetry(tmp_path: Path) -> None:
    telemetry = read_csv_telemetry(
        table(tmp_path, "file,yaw_deg,pitch_deg,roll_deg,agl_m", "a.jpg,0,0,0,80", "c.jpg,0,0,0,80")
    )
    assert telemetry.at(frame(file="b.jpg")) is Reason.NO_TELEMETRY
    assert telemetry.complaint() == (
        f"{tmp_path}/telemetry.csv: covers no frame: of the 2 files it lists, a.jpg first, "
        "none is a frame with attitude or height; check the 'file' column"
    )


def test_a_video_needs_times(tmp_path: Path) -> None:
    telemetry = read_csv_telemetry(
        table(tmp_path, "file,yaw_deg,pitch_deg,roll_deg,agl_m", "a.jpg,0,0,0,80")
    )
    with pytest.raises(InputError) as error:
        telemetry.at(frame(t=0.0))
    assert str(error.value) == (
        f"{tmp_path}/telemetry.csv: has a 'file' column but no 't', and frame 0 of a video or "
        "camera has no file name; add a 't' column in seconds"
    )


def test_photos_need_file_names(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        by_time(tmp_path).at(frame(file="a.jpg"))
    assert str(error.value) == (
        f"{tmp_path}/telemetry.csv: has a 't' column but no 'file', and a.jpg has no time; "
        "add a 'file' column"
    )


KNOWN = ("yaw_known", "tilt_known", "agl_known")


@pytest.mark.parametrize(
    ("columns", "row", "known"),
    [
        ("yaw_deg,pitch_deg,roll_deg", "90,1,2", (True, True, False)),
        ("yaw_deg,agl_m", "90,80", (True, False, True)),
        ("pitch_deg,roll_deg,agl_m", "1,2,80", (False, True, True)),
        ("agl_m", "80", (False, False, True)),
    ],
)
def test_a_column_that_is_missing_is_unknown_and_0(
    tmp_path: Path, columns: str, row: str, known: tuple[bool, bool, bool]
) -> None:
    telemetry = read_csv_telemetry(table(tmp_path, f"t,{columns}", f"0,{row}", f"1,{row}"))
    sample = telemetry.at(frame(t=0.5))
    assert tuple(getattr(sample, name) for name in KNOWN) == known
    a = sample.attitude
    assert (a.yaw_deg, a.pitch_deg, a.roll_deg, a.agl_m) == (
        90.0 if known[0] else 0.0,
        1.0 if known[1] else 0.0,
        2.0 if known[1] else 0.0,
        80.0 if known[2] else 0.0,
    )


def test_a_cell_that_is_empty_is_unknown_there_alone(tmp_path: Path) -> None:
    telemetry = read_csv_telemetry(
        table(tmp_path, HEADER, "0,10,0,0,100", "1,,0,0,100", "2,30,0,0,100", "3,40,0,0,100")
    )
    known = [telemetry.at(frame(t=t)).yaw_known for t in (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)]
    assert known == [True, False, False, False, True, True, True]
    assert telemetry.at(frame(t=2.0)).attitude.yaw_deg == 30.0


def test_a_speed_that_is_empty_is_unknown(tmp_path: Path) -> None:
    path = table(tmp_path, f"{HEADER},vel_n_mps,vel_e_mps", "0,0,0,0,80,5,", "1,0,0,0,80,,")
    assert read_csv_telemetry(path).at(frame(t=0.0)).vel_n_mps == 5.0
    assert read_csv_telemetry(path).at(frame(t=0.0)).vel_e_mps is None
    assert read_csv_telemetry(path).at(frame(t=1.0)).vel_n_mps is None


def test_a_row_with_neither_attitude_nor_height_is_no_telemetry(tmp_path: Path) -> None:
    path = table(tmp_path, f"file,{HEADER},vel_n_mps", "a.jpg,0,,,,,5", "b.jpg,1,0,0,0,80,5")
    telemetry = read_csv_telemetry(path)
    assert telemetry.at(frame(file="a.jpg")) is Reason.NO_TELEMETRY
    assert telemetry.at(frame(file="b.jpg")) is not Reason.NO_TELEMETRY


def test_pitch_without_roll_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "t,yaw_deg,pitch_deg,agl_m", "0,0,0,80")
    with pytest.raises(InputError) as error:
        read_csv_telemetry(path)
    assert str(error.value) == (
        f"{path}: has pitch_deg but no roll_deg; give both of them or neither"
    )


def test_roll_without_pitch_in_one_row_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path, HEADER, "0,0,0,0,80", "1,0,,0,80")
    with pytest.raises(InputError) as error:
        read_csv_telemetry(path)
    assert str(error.value) == (
        f"{path}: line 3: one of pitch_deg and roll_deg is empty; give both of them or neither"
    )


def test_a_table_of_nothing_but_times_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "t,vel_n_mps", "0,0")
    with pytest.raises(InputError) as error:
        read_csv_telemetry(path)
    assert str(error.value) == (
        f"{path}: has none of the columns yaw_deg, pitch_deg, roll_deg, agl_m; found t, vel_n_mps"
    )


def test_a_table_needs_times_or_files(tmp_path: Path) -> None:
    path = table(tmp_path, "yaw_deg", "0")
    with pytest.raises(InputError) as error:
        read_csv_telemetry(path)
    assert str(error.value) == f"{path}: lacks the column 't' or 'file'; found yaw_deg"


@pytest.mark.parametrize(("column", "cell"), [("yaw_deg", "nan"), ("agl_m", "inf"), ("t", "")])
def test_a_number_that_is_none_is_refused_with_its_line(
    tmp_path: Path, column: str, cell: str
) -> None:
    cells = dict(zip(HEADER.split(","), ("1", "2", "3", "4", "5"), strict=True)) | {column: cell}
    path = table(tmp_path, HEADER, "0,0,0,0,80", ",".join(cells.values()))
    with pytest.raises(InputError) as error:
        read_csv_telemetry(path)
    assert str(error.value) == (f"{path}: line 3, column {column}: {cell!r} is not a finite number")


def test_times_must_not_go_backwards(tmp_path: Path) -> None:
    path = table(tmp_path, HEADER, "0,0,0,0,80", "2,0,0,0,80", "1,0,0,0,80")
    with pytest.raises(InputError) as error:
        read_csv_telemetry(path)
    assert str(error.value) == f"{path}: line 4: t goes backwards; sort the rows by time"


def test_positions_in_the_telemetry_are_not_looked_at(tmp_path: Path) -> None:
    plain = by_time(tmp_path).at(frame(t=0.5))
    poisoned = read_csv_telemetry(
        table(tmp_path, HEADER + ",lat,lon", "0,350,0,0,100,oops,nan", "1,10,4,-2,110,99,999")
    )
    assert poisoned.at(frame(t=0.5)) == plain
