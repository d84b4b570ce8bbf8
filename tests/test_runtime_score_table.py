import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.runtime.score_figures import score_flight
from s4g.runtime.score_flight import match_flight
from s4g.runtime.score_table import percent, score_table, stage_table
from s4g.runtime.score_truth import read_truth

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_fixes.py"))))


def test_the_table_says_what_the_score_holds(tmp_path: Path) -> None:
    fixes = toy.flown(None, 1, 2, 3, None, 61)
    fixes[3] = toy.fix(3, 3, state="DEGRADED", anchor_age_s=1.0)
    fixes[4] = toy.fix(4, None, reason="dark")
    fixes.append(toy.fix(6, 1))
    truth = read_truth(toy.truth_csv(tmp_path, 6, {1: "kidnap", 4: "blackout"}))
    table = score_table(score_flight(match_flight(fixes, truth, 50.0)))
    assert table.splitlines() == [
        "fixes           4 of 6 frames (66.7 %)",
        "without         1 ambiguous, 1 dark",
        "available       66.7 % of the frames (hpl within 50 m)",
        "median (CEP50)  2.5 m",
        "R95             52.3 m",
        "RMSE            30.6 m",
        "max             61.0 m",
        "false fixes     1 (25.0 %), farther off than 50 m",
        "error > hpl     1 (25.0 %; 95 % interval 0.6 % to 80.6 %)",
        "hazardous       1 (25.0 %), error > 50 m >= hpl",
        "NEES            233.44 (2 is honest, by chance 0.54 to 4.38)",
        "in 95 % circle  75.0 % (within 2.448 sigma)",
        "first fix       1.0 s",
        "after event     kidnap at 1.0 s: found after 0.0 s",
        "after event     blackout at 4.0 s: not found",
        "longest outage  1.0 s, from 4.0 s on",
        "frame to fix    p50 12.5 ms, p95 14.8 ms",
        "",
        "                fixes  CEP50 m    R95 m    max m    false    > hpl     NEES",
        "TRACK               3      2.0     55.1     61.0        1        1   310.50",
        "DEGRADED            1      3.0      3.0      3.0        0        0     2.25",
        "age 0 s             3      2.0     55.1     61.0        1        1   310.50",
        "age 0–1 s           1      3.0      3.0      3.0        0        0     2.25",
        "note: the truth covers 6 of 7 frames; the others are not scored",
    ]


def test_without_any_fix_the_table_tells_of_the_frames(tmp_path: Path) -> None:
    truth = read_truth(toy.truth_csv(tmp_path, 2))
    table = score_table(score_flight(match_flight(toy.flown(None, None), truth)))
    assert table.splitlines() == [
        "fixes           0 of 2 frames (0 %)",
        "without         2 ambiguous",
        "first fix       none that is right",
        "longest outage  2.0 s, from 0.0 s on",
        "frame to fix    p50 10.5 ms, p95 10.9 ms",
    ]


def test_where_there_are_no_sigmas_nothing_is_said_of_them(tmp_path: Path) -> None:
    truth = read_truth(toy.truth_csv(tmp_path, 2))
    fixes = [toy.fix(i, 1, sigma_m=None, hpl_m=None, latency_ms=None) for i in range(2)]
    table = score_table(score_flight(match_flight(fixes, truth)))
    assert [line[:14].rstrip() for line in table.splitlines()] == [
        "fixes", "median (CEP50)", "R95", "RMSE", "max", "false fixes", "first fix",
        "longest outage", "", "", "TRACK", "age 0 s",
    ]  # fmt: skip
    assert table.endswith("–")


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.25, "25.0 %"),
        (1 / 18_000, "0.006 %"),
        (0.0005, "0.05 %"),
        (17_999 / 18_000, "99.994 %"),
        (0.99949, "99.95 %"),
        (1e-9, "0.000000 %"),
    ],
)
def test_a_share_keeps_apart_from_none_and_all(share: float, text: str) -> None:
    assert percent(share) == text


@given(st.integers(1, 1_000_000), st.data())
def test_a_share_of_frames_is_never_rounded_to_none_or_all(total: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, total))
    value = float(percent(count / total).removesuffix(" %"))
    assert (value == 0) == (count == 0)
    assert (value == 100) == (count == total)


def test_the_stage_table_tells_p50_and_p95() -> None:
    lines = stage_table([{"decode": float(i)} for i in range(101)] + [{"embed": 7.0}])
    assert lines.splitlines() == [
        "stage        p50 ms   p95 ms",
        "decode         50.0     95.0",
        "embed           7.0      7.0",
    ]
