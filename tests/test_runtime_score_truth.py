from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.runtime.score_truth import Event, Truth, carried_off, read_truth


def write(folder: Path, text: str) -> Path:
    path = folder / "truth.csv"
    path.write_text(text)
    return path


def by_time(*rows: tuple[float, float, float], events: tuple[Event, ...] = ()) -> Truth:
    t, lat, lon = np.array(rows, np.float64).T
    return Truth("truth.csv", lat, lon, t, {}, events)


def test_photos_go_by_name_and_folders_are_dropped(tmp_path: Path) -> None:
    truth = read_truth(write(tmp_path, "file,lat,lon\nx/1.jpg,47,8\n0.jpg,46,7\n"))
    assert truth.at("1.jpg", None) == (47.0, 8.0)
    assert truth.at("0.jpg", 1.0) == (46.0, 7.0)
    assert truth.at("2.jpg", 1.0) is None


def test_the_truth_between_rows_is_interpolated() -> None:
    truth = by_time((3, 47, 8), (5, 48, 12))
    assert truth.at(None, 4.0) == (47.5, 10.0)
    assert truth.at(None, 3.5) == pytest.approx((47.25, 9.0))
    assert truth.at(None, 5.0) == (48.0, 12.0)


def test_before_the_first_row_and_after_the_last_it_holds_for_half_a_frame_period() -> None:
    truth = by_time((3, 47, 8), (4, 48, 8))
    assert truth.at(None, 2.95, hold_s=0.05) == (47.0, 8.0)
    assert truth.at(None, 4.05, hold_s=0.06) == (48.0, 8.0)
    assert truth.at(None, 2.92, hold_s=0.05) is None
    assert truth.at(None, 4.2, hold_s=0.05) is None


def test_over_a_gap_of_more_than_two_seconds_nothing_is_made_up() -> None:
    truth = by_time((0, 47, 8), (2.5, 48, 8))
    assert truth.at(None, 1.25) is None
    assert truth.at(None, 0.04) == (47.0, 8.0)
    assert truth.at(None, 2.46) == (48.0, 8.0)


def test_a_drone_that_is_carried_off_is_nowhere_in_between() -> None:
    truth = by_time((0, 47, 8), (1, 47, 9), (2, 47, 9), events=(Event("kidnap", 1),))
    assert truth.at(None, 0.5) is None
    assert truth.at(None, 0.99) == (47.0, 9.0)
    assert truth.at(None, 1.5) == (47.0, 9.0)


def test_the_later_of_two_rows_of_one_time_counts() -> None:
    assert by_time((0, 47, 8), (1, 47, 8), (1, 48, 8), (2, 48, 8)).at(None, 1.0) == (48.0, 8.0)


def test_longitudes_are_interpolated_the_short_way_round() -> None:
    lat, lon = by_time((0, 0, 179), (1, 0, -177)).at(None, 0.75) or (0, 0)
    assert (lat, lon) == pytest.approx((0.0, -178.0))


@given(st.floats(0, 10), st.lists(st.floats(-1e-3, 1e-3), min_size=11, max_size=11))
def test_a_place_between_rows_lies_between_them(t: float, offs: list[float]) -> None:
    truth = by_time(*((i, 47 + off, 8 - off) for i, off in enumerate(offs)))
    lat, lon = truth.at(None, t) or (0, 0)
    low, high = sorted((offs[int(t)], offs[min(int(t) + 1, 10)]))
    assert 47 + low - 1e-9 <= lat <= 47 + high + 1e-9
    assert 8 - high - 1e-9 <= lon <= 8 - low + 1e-9


def test_events_are_read_in_the_words_of_the_file(tmp_path: Path) -> None:
    text = "t,lat,lon,event\n0,47,8,\n1,47,8,kidnap\n2,47,8, \n3,47,8,black\x1b[2Jout\n"
    assert read_truth(write(tmp_path, text)).events == (Event("kidnap", 1), Event("black[2Jout", 3))


def test_a_truth_without_longitude_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "t,lat\n0,47\n")
    with pytest.raises(InputError) as error:
        read_truth(path)
    assert str(error.value) == f"{path}: lacks the column lon; found t, lat"


def test_a_truth_that_is_no_place_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "t,lat,lon\n0,47,8\n1,468426,8\n")
    with pytest.raises(InputError) as error:
        read_truth(path)
    assert str(error.value) == (
        f"{path}: line 3: lat 468426, lon 8 is no place on Earth; expected degrees"
    )


def test_a_truth_that_goes_back_in_time_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "t,lat,lon\n0,47,8\n2,47,8\n1,47,8\n")
    with pytest.raises(InputError) as error:
        read_truth(path)
    assert str(error.value) == f"{path}: line 4: t goes backwards; sort the rows by time"


def test_a_truth_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "t,lat,lon\n0,47,8\n1,nan,8\n")
    with pytest.raises(InputError) as error:
        read_truth(path)
    assert str(error.value) == f"{path}: line 3, column lat: 'nan' is not a finite number"


def test_a_step_far_beyond_the_usual_one_was_not_flown() -> None:
    places_m = np.array([[0, 0], [8, 0], [16, 6], [500, 6], [508, 6], [508, 6], [400, 6]], float)
    assert carried_off(places_m).tolist() == [3, 6]


def test_a_long_step_among_long_ones_and_a_short_one_among_short_ones_were_flown() -> None:
    slow, fast = np.zeros((6, 2)), np.zeros((6, 2))
    slow[:, 0], fast[:, 0] = [0, 1, 2, 3, 30, 31], [0, 60, 120, 500, 560, 620]
    assert carried_off(slow).tolist() == carried_off(fast).tolist() == []


def test_where_there_is_no_truth_nothing_is_told_of_a_step() -> None:
    places_m = np.array([[0, 0], [1, 0], [np.nan, np.nan], [900, 0], [901, 0]])
    assert carried_off(places_m).tolist() == []
    assert carried_off(places_m[:1]).tolist() == carried_off(places_m[:0]).tolist() == []
