import json
from pathlib import Path

import numpy as np
import pytest

from s4g.core.errors import InputError
from s4g.core.geo import LocalFrame
from s4g.runtime.fix import Candidate, Fix, Reason, State
from s4g.runtime.score import (
    ScoredFix,
    parse_fix,
    read_fixes,
    read_truth,
    score_fixes,
    score_table,
    stage_table,
)

HOME = LocalFrame(47.0, 8.0)


def fix_line(number: int, off_m: float | None, file: str | None = None) -> str:
    """A fix 2 s after the last, `off_m` metres east of the drone's home, or a refusal."""
    if off_m is None:
        fix = Fix(number, 2.0 * number, State.NO_FIX, file, Reason.AMBIGUOUS, latency_ms=5.0)
        return fix.to_json()
    lat, lon = (float(v) for v in HOME.to_wgs84(off_m, 0.0))
    return Fix(
        number,
        2.0 * number,
        State.TRACK,
        file,
        lat=lat,
        lon=lon,
        sigma_m=2.0,
        hpl_m=7.4,
        latency_ms=10.0 + number,
        top=(Candidate(lat, lon, 40.0, 0.8),),
    ).to_json()


def fixes(*offs: float | None, files: bool = False) -> list[ScoredFix]:
    return [
        parse_fix(fix_line(i, off, f"{i}.jpg" if files else None), "fix")
        for i, off in enumerate(offs)
    ]


def write(folder: Path, text: str) -> Path:
    path = folder / "truth.csv"
    path.write_text(text)
    return path


def test_errors_are_metres_on_the_ground(tmp_path: Path) -> None:
    score = score_fixes(fixes(1, 2, 3, 4, 50), read_truth(by_time(tmp_path, 5)))
    assert score.median_m == pytest.approx(3.0, abs=0.02)
    assert score.max_m == pytest.approx(50.0, abs=0.02)
    assert score.rmse_m == pytest.approx(np.sqrt((1 + 4 + 9 + 16 + 2500) / 5), abs=0.02)
    assert score.r95_m == pytest.approx(np.percentile([1, 2, 3, 4, 50], 95), abs=0.02)


def by_time(folder: Path, count: int) -> Path:
    rows = "".join(f"{2 * i},47,8\n" for i in range(count))
    return write(folder, "t,lat,lon\n" + rows)


def test_a_fix_farther_off_than_a_tile_is_false(tmp_path: Path) -> None:
    assert score_fixes(fixes(1, 39, 41), read_truth(by_time(tmp_path, 3))).false_fixes == 1


def test_the_share_within_the_bound_and_the_honesty_of_sigma_are_told(tmp_path: Path) -> None:
    score = score_fixes(fixes(1, 5, 8, 9), read_truth(by_time(tmp_path, 4)))
    assert score.within_hpl == 0.5
    assert score.sigma_ratio == pytest.approx(np.sqrt((1 + 25 + 64 + 81) / 4) / 2, abs=0.01)


def test_refusals_count_as_frames_and_not_as_fixes(tmp_path: Path) -> None:
    score = score_fixes(fixes(1, None, 3, None), read_truth(by_time(tmp_path, 4)))
    assert (score.frames, score.fixes) == (4, 2)
    assert score.states == {"NO_FIX": 2, "TRACK": 2}
    assert score.reasons == {"ambiguous": 2}


def test_without_any_fix_there_is_a_score_without_errors(tmp_path: Path) -> None:
    score = score_fixes(fixes(None, None), read_truth(by_time(tmp_path, 2)))
    assert (score.fixes, score.median_m, score.within_hpl) == (0, None, None)
    assert "fixes" in score_table(score)


def test_photos_are_matched_by_name(tmp_path: Path) -> None:
    truth = read_truth(write(tmp_path, "file,lat,lon\nx/1.jpg,47,8\n0.jpg,47,8\n"))
    score = score_fixes(fixes(2, 4, 100, files=True), truth)
    assert (score.frames, score.max_m) == (2, pytest.approx(4.0, abs=0.02))


def test_the_truth_between_rows_is_interpolated(tmp_path: Path) -> None:
    east = float(HOME.to_wgs84(8.0, 0.0)[1])
    truth = read_truth(write(tmp_path, f"t,lat,lon\n3,47,8\n5,47,{east:.9f}\n"))
    score = score_fixes(fixes(0, 0, 0)[2:], truth)
    assert score.median_m == pytest.approx(4.0, abs=0.02)


def test_a_truth_of_another_flight_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "file,lat,lon\nother.jpg,47,8\n")
    with pytest.raises(InputError) as error:
        score_fixes(fixes(1, 2), read_truth(path))
    assert str(error.value) == (
        f"{path}: covers none of the 2 frames; its 'file' or 't' column must match the frames"
    )


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


def test_a_fixes_file_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "fixes.jsonl"
    path.write_text(fix_line(0, 3.0) + "\n" + fix_line(1, None) + "\n")
    assert [fix.state for fix in read_fixes(path)] == ["TRACK", "NO_FIX"]


@pytest.mark.parametrize("line", ["{}", "[1]", "nonsense", '{"v":1}', fix_line(1, 2.0)[:-9]])
def test_a_line_that_is_no_fix_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "fixes.jsonl"
    path.write_text(fix_line(0, 3.0) + "\n" + line + "\n")
    with pytest.raises(InputError) as error:
        read_fixes(path)
    assert str(error.value) == (
        f"{path}: line 2: not a fix of s4g-run; expected a line of fixes.jsonl"
    )


def test_a_newer_format_is_refused() -> None:
    newer = json.dumps(json.loads(fix_line(0, 1.0)) | {"v": 2})
    with pytest.raises(InputError) as error:
        parse_fix(newer, "fixes.jsonl: line 1")
    assert str(error.value) == "fixes.jsonl: line 1: fix version 2, expected 1; update s4g"


def test_an_unknown_state_is_refused() -> None:
    other = json.dumps(json.loads(fix_line(0, 1.0)) | {"state": "LOST"})
    with pytest.raises(InputError) as error:
        parse_fix(other, "x")
    assert str(error.value) == (
        "x: state 'LOST', expected one of INIT, ACQUIRING, TRACK, DEGRADED, NO_FIX, OUT_OF_PACK"
    )


def test_an_empty_fixes_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fixes.jsonl"
    path.write_text("")
    with pytest.raises(InputError, match="holds no fixes"):
        read_fixes(path)


def test_the_table_says_what_the_score_holds(tmp_path: Path) -> None:
    score = score_fixes(fixes(1, 2, 3, None), read_truth(by_time(tmp_path, 4)))
    assert score_table(score).splitlines() == [
        "fixes           3 of 4 frames (75 %)",
        "without         1 ambiguous",
        "median (CEP50)  2.0 m",
        "R95             2.9 m",
        "RMSE            2.2 m",
        "max             3.0 m",
        "false fixes     0 (farther off than a tile)",
        "within hpl      100.0 %",
        "error / sigma   1.08 rms (1.41 is honest)",
        "frame to fix    p50 10.5 ms, p95 11.8 ms",
    ]


def test_the_stage_table_tells_p50_and_p95() -> None:
    lines = stage_table([{"decode": float(i)} for i in range(101)] + [{"embed": 7.0}])
    assert lines.splitlines() == [
        "stage        p50 ms   p95 ms",
        "decode         50.0     95.0",
        "embed           7.0      7.0",
    ]
