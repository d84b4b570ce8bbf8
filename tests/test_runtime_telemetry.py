from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.runtime.frames import Frame
from s4g.runtime.telemetry import CsvTelemetry, ExifTelemetry, read_telemetry

HEADER = "t,yaw_deg,pitch_deg,roll_deg,agl_m"


def frame(t: float | None = None, file: str | None = None) -> Frame:
    return Frame(0, t, file, file or "clip.mp4 frame 0", 64, 48, 0.0)


def table(folder: Path, *lines: str) -> Path:
    path = folder / "telemetry.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def by_time(folder: Path) -> CsvTelemetry:
    return read_telemetry(table(folder, HEADER, "0,350,0,0,100", "1,10,4,-2,110"))


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


def test_a_frame_far_outside_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        by_time(tmp_path).at(frame(t=3.5))
    assert str(error.value) == (
        f"{tmp_path}/telemetry.csv: does not cover clip.mp4 frame 0 at t 3.500 s (rows from 0.000 "
        "to 1.000 s, the nearest 2.5 s away); check that both use one clock"
    )


def test_a_hole_in_the_telemetry_is_refused(tmp_path: Path) -> None:
    telemetry = read_telemetry(table(tmp_path, HEADER, "0,0,0,0,100", "9,0,0,0,100"))
    with pytest.raises(InputError, match="does not cover"):
        telemetry.at(frame(t=4.5))


def test_rows_by_file_are_taken_as_they_are(tmp_path: Path) -> None:
    path = table(tmp_path, f"file,{HEADER},vel_n_mps,vel_e_mps", "a.jpg,7,90,1,2,80,5,-3")
    sample = read_telemetry(path).at(frame(file="a.jpg"))
    assert (sample.attitude.yaw_deg, sample.t) == (90.0, 7.0)
    assert (sample.vel_n_mps, sample.vel_e_mps) == (5.0, -3.0)


def test_a_photo_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    telemetry = read_telemetry(
        table(tmp_path, "file,yaw_deg,pitch_deg,roll_deg,agl_m", "a.jpg,0,0,0,80")
    )
    with pytest.raises(InputError) as error:
        telemetry.at(frame(file="b.jpg"))
    assert str(error.value) == (
        f"{tmp_path}/telemetry.csv: has no row for frame b.jpg; add it or remove the frame"
    )


def test_a_video_needs_times(tmp_path: Path) -> None:
    telemetry = read_telemetry(
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


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = table(tmp_path, "t,yaw_deg,pitch_deg,agl_m", "0,0,0,80")
    with pytest.raises(InputError) as error:
        read_telemetry(path)
    assert str(error.value) == (
        f"{path}: lacks the column roll_deg; found t, yaw_deg, pitch_deg, agl_m"
    )


def test_times_must_not_go_backwards(tmp_path: Path) -> None:
    path = table(tmp_path, HEADER, "0,0,0,0,80", "2,0,0,0,80", "1,0,0,0,80")
    with pytest.raises(InputError) as error:
        read_telemetry(path)
    assert str(error.value) == f"{path}: line 4: t goes backwards; sort the rows by time"


def test_positions_in_the_telemetry_are_not_looked_at(tmp_path: Path) -> None:
    plain = by_time(tmp_path).at(frame(t=0.5))
    poisoned = read_telemetry(
        table(tmp_path, HEADER + ",lat,lon", "0,350,0,0,100,oops,nan", "1,10,4,-2,110,99,999")
    )
    assert poisoned.at(frame(t=0.5)) == plain


def test_a_video_has_no_exif() -> None:
    with pytest.raises(InputError) as error:
        ExifTelemetry().at(frame(t=0.0))
    assert str(error.value) == (
        "--telemetry exif: only photos carry EXIF; give a CSV for a video or a live camera"
    )
