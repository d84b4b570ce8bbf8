import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import IntegrityError
from s4g.runtime.telemetry_rotation import matrix_of, quaternions, rotation
from s4g.runtime.telemetry_series import Place, Track, in_order, place_of


def numbers(*rows: tuple[float, float]) -> Track:
    track = Track(1)
    for t, value in rows:
        track.append(t, value)
    return track


@given(st.lists(st.floats(0, 20), min_size=1, max_size=20), st.floats(-3, 23))
def test_a_place_is_between_its_neighbours_or_at_the_nearest_row(
    times: list[float], t: float
) -> None:
    ordered = np.array(sorted(times))
    place = place_of(ordered, t)
    nearest_s = np.abs(ordered - t).min()
    if nearest_s > 1.0:
        assert place is None
        return
    assert place is not None
    assert place.age_s == pytest.approx(nearest_s)
    assert 0.0 <= place.share <= 1.0
    at = ordered[place.before] + place.share * (ordered[place.after] - ordered[place.before])
    held = place.before == place.after
    assert at == pytest.approx(ordered[place.before] if held else t)


def test_no_rows_have_no_place() -> None:
    assert place_of(np.empty(0), 1.0) is None


def test_a_time_that_is_no_number_has_no_place() -> None:
    assert place_of(np.array([0.0, 1.0]), np.nan) is None


def test_across_a_hole_the_nearest_row_is_held() -> None:
    times = np.array([0.0, 9.0])
    assert place_of(times, 0.5) == Place(0, 0, 0.0, 0.5)
    assert place_of(times, 8.5) == Place(1, 1, 0.0, 0.5)
    assert place_of(times, 4.5) is None


def test_rows_two_seconds_apart_leave_no_hole() -> None:
    assert numbers((0.0, 10.0), (2.0, 20.0)).at(1.0) == (pytest.approx([15.0]), 1.0)


def test_numbers_are_interpolated_and_say_how_old_they_are() -> None:
    row, age_s = numbers((0.0, 10.0), (1.0, 20.0)).at(0.75)  # type: ignore[misc]
    assert row == pytest.approx([17.5])
    assert age_s == pytest.approx(0.25)


def test_rotations_are_interpolated_as_such() -> None:
    track = Track(4, rotation=True)
    for t, angles in ((0.0, [350, 0, 0]), (1.0, [10, 0, 0])):
        track.append(t, *quaternions([angles])[0])
    row, _ = track.at(0.25)  # type: ignore[misc]
    np.testing.assert_allclose(matrix_of(row), rotation(355, 0, 0), atol=1e-9)


def test_a_row_that_is_not_later_counts_at_the_last_ones_time() -> None:
    track = numbers((5.0, 1.0), (4.9, 2.0))
    assert track.last_s == 5.0
    assert track.last_step_s == 0.0


def test_a_track_without_limit_keeps_everything() -> None:
    track = numbers(*((i / 10, i) for i in range(3000)))
    assert len(track) == 3000
    assert track.at(0.05) == (pytest.approx([0.5]), pytest.approx(0.05))


def test_a_limited_track_keeps_the_newest_and_never_more_than_its_limit() -> None:
    track = Track(1, limit=512)
    for i in range(5000):
        track.append(i / 10, i)
        assert len(track) <= 512
    assert track.last_s == 499.9
    assert track.at(490.05) == (pytest.approx([4900.5]), pytest.approx(0.05))
    assert track.at(1.0) is None


def test_a_cleared_track_is_empty_and_takes_older_rows() -> None:
    track = numbers((50.0, 1.0))
    track.clear()
    assert (track.first_s, track.last_s, track.last_step_s, track.at(50.0)) == (None,) * 4
    track.append(3.0, 7.0)
    assert track.at(3.0) == ([7.0], 0.0)


def test_rows_a_little_out_of_order_and_rows_of_damaged_bytes_are_left_out() -> None:
    t = np.array([0.0, 1.0, 0.9, 1e13, 2.0, -1e9])
    assert in_order(t, "a.bin: ATT").tolist() == [True, True, False, False, True, False]


def test_a_clock_that_jumps_back_is_refused() -> None:
    with pytest.raises(IntegrityError) as error:
        in_order(np.array([0.0, 60.0, 1.0]), "a.bin: ATT")
    assert str(error.value) == (
        "a.bin: ATT: the clock goes backwards, from 60.0 to 1.0 s; split the log there"
    )
