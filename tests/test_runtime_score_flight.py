import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from s4g.core.errors import InputError
from s4g.runtime.score_flight import Frames, match_flight
from s4g.runtime.score_times import Relocalisation, Times
from s4g.runtime.score_truth import read_truth

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_fixes.py"))))


def write(folder: Path, text: str) -> Path:
    path = folder / "truth.csv"
    path.write_text(text)
    return path


def test_errors_are_metres_on_the_ground(tmp_path: Path) -> None:
    flight = match_flight(toy.flown(1, None, 50), read_truth(toy.truth_csv(tmp_path, 3)))
    assert flight.frames.error_m == pytest.approx([1, math.nan, 50], abs=1e-3, nan_ok=True)
    assert flight.frames.issued.tolist() == [True, False, True]


def test_a_fix_farther_off_than_the_tile_that_matched_is_false(tmp_path: Path) -> None:
    flight = match_flight(toy.flown(39, 41), read_truth(toy.truth_csv(tmp_path, 2)))
    assert flight.frames.right.tolist() == [True, False]


def test_a_fix_that_is_carried_on_is_held_to_the_match_it_comes_from(tmp_path: Path) -> None:
    fixes = toy.flown(5, 50, 50, 50, level_m=None)
    fixes[0] = toy.fix(0, 5, level_m=80.0)
    fixes[1] = toy.fix(1, 50, state="DEGRADED", level_m=40.0)  # what its own frame looks like
    fixes[2] = toy.fix(2, None, level_m=20.0)  # a guess that was not issued
    limits_m = match_flight(fixes, read_truth(toy.truth_csv(tmp_path, 4))).frames.limit_m
    assert limits_m.tolist() == [80.0] * 4


def test_what_was_not_issued_has_no_sigma(tmp_path: Path) -> None:
    fixes = [toy.fix(0, None, sigma_m=3.0, hpl_m=11.0), toy.fix(1, 1)]
    frames = match_flight(fixes, read_truth(toy.truth_csv(tmp_path, 2))).frames
    assert np.isnan(frames.sigma_m).tolist() == np.isnan(frames.hpl_m).tolist() == [True, False]


def test_a_fix_of_no_tile_has_no_limit_but_the_callers(tmp_path: Path) -> None:
    fixes, truth = toy.flown(5000, level_m=None), read_truth(toy.truth_csv(tmp_path, 1))
    assert match_flight(fixes, truth).frames.right.tolist() == [True]
    assert match_flight(fixes, truth, 100.0).frames.right.tolist() == [False]


def test_the_alert_limit_stands_in_for_the_tile(tmp_path: Path) -> None:
    truth = read_truth(toy.truth_csv(tmp_path, 2))
    flight = match_flight(toy.flown(9, 11), truth, 10.0)
    assert flight.frames.right.tolist() == [True, False]
    assert flight.alert_limit_m == 10.0


def test_only_a_right_fix_in_track_ends_a_search(tmp_path: Path) -> None:
    fixes = toy.flown(500, 3, 3)
    fixes[1] = toy.fix(1, 3, state="DEGRADED")
    flight = match_flight(fixes, read_truth(toy.truth_csv(tmp_path, 3)))
    assert flight.frames.found.tolist() == [False, False, True]
    assert flight.times.first_fix_s == 2.0


def test_where_nothing_says_why_there_is_no_fix_the_state_does(tmp_path: Path) -> None:
    fixes = [
        toy.fix(0, None),
        toy.fix(1, None, state="OUT_OF_PACK", reason=None),
        toy.fix(2, 3, state="DEGRADED", reason="dark"),
    ]
    flight = match_flight(fixes, read_truth(toy.truth_csv(tmp_path, 3)))
    assert flight.frames.reason.tolist() == ["ambiguous", "out_of_pack", ""]


def test_all_times_of_a_flight(tmp_path: Path) -> None:
    fixes = toy.flown(None, None, 3, 3, 900, None, 2, 2)
    truth = read_truth(toy.truth_csv(tmp_path, 8, {4: "kidnap"}))
    assert match_flight(fixes, truth).times == Times(
        duration_s=8.0,
        first_fix_s=2.0,
        longest_outage_s=1.0,
        longest_outage_from_s=5.0,
        relocalisations=(Relocalisation("kidnap", 4.0, 2.0),),
    )


def test_photos_without_times_have_no_times(tmp_path: Path) -> None:
    path = write(tmp_path, "file,lat,lon\n1.jpg,47,8\n0.jpg,47,8\n")
    fixes = [toy.fix(i, 2.0 * i, t=None, file=f"{i}.jpg") for i in range(3)]
    flight = match_flight(fixes, read_truth(path))
    assert [fix.file for fix in flight.fixes] == ["0.jpg", "1.jpg"]
    assert flight.times == Times()


def test_an_event_of_photos_is_at_the_time_of_its_photo(tmp_path: Path) -> None:
    path = write(tmp_path, "file,lat,lon,event\n0.jpg,47,8,\n1.jpg,47,8,kidnap\n2.jpg,47,8,\n")
    fixes = [toy.fix(i, off, file=f"{i}.jpg") for i, off in enumerate((1, None, 1))]
    times = match_flight(fixes, read_truth(path)).times
    assert times.relocalisations == (Relocalisation("kidnap", 1.0, 1.0),)


def test_frames_that_the_truth_does_not_cover_are_not_scored_but_told(tmp_path: Path) -> None:
    flight = match_flight(toy.flown(1, 2, 3, 400), read_truth(toy.truth_csv(tmp_path, 3)))
    assert len(flight.frames) == len(flight.fixes) == len(flight.t_s) == 3
    assert flight.notes == ("the truth covers 3 of 4 frames; the others are not scored",)


def test_an_outage_where_the_truth_is_silent_counts(tmp_path: Path) -> None:
    flight = match_flight(toy.flown(1, 2, None, None, 1), read_truth(toy.truth_csv(tmp_path, 2)))
    assert (flight.times.longest_outage_s, flight.times.longest_outage_from_s) == (2.0, 2.0)


def test_a_frame_is_matched_within_half_a_period_of_the_last_row(tmp_path: Path) -> None:
    truth = read_truth(write(tmp_path, "t,lat,lon\n0,47,8\n1,47,8\n"))
    near = [toy.fix(i, 1, t=t) for i, t in enumerate((0.0, 0.5, 1.0, 1.25, 1.75))]
    assert len(match_flight(near, truth).frames) == 4  # the usual step is half a second


def test_times_that_go_back_are_told_and_left_out_of_the_times(tmp_path: Path) -> None:
    fixes = [toy.fix(i, 1, t=t) for i, t in enumerate((0.0, 1.0, 2.0, 0.0, 1.0, 3.0))]
    flight = match_flight(fixes, read_truth(toy.truth_csv(tmp_path, 4)))
    assert len(flight.frames) == 6
    assert (flight.times.duration_s, flight.times.longest_outage_s) == (4.0, 0.0)
    assert flight.notes == (
        "t goes back at 2 frames, first on line 4; their errors count, their times do not",
    )


def test_a_truth_of_another_flight_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "file,lat,lon\nother.jpg,47,8\n")
    with pytest.raises(InputError) as error:
        match_flight(toy.flown(1, 2), read_truth(path))
    assert str(error.value) == (
        f"{path}: covers none of the 2 frames; its 'file' or 't' column must match the frames"
    )


def test_frames_of_flights_are_joined_in_order(tmp_path: Path) -> None:
    truth = read_truth(toy.truth_csv(tmp_path, 2))
    parts = [match_flight(toy.flown(*offs), truth).frames for offs in ((1, 2), (None, 4))]
    joined = Frames.joined(parts)
    assert joined.state.tolist() == ["TRACK", "TRACK", "NO_FIX", "TRACK"]
    assert joined.where(np.array([False, True, False, True])).error_m == pytest.approx(
        [2, 4], abs=1e-3
    )
