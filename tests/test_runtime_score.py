"""Scoring as commands and benchmarks use it: files in, figures out."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from s4g.runtime.fix import Candidate, Fix, Reason, State
from s4g.runtime.score import (
    match_flight,
    pool_flights,
    read_fixes,
    read_truth,
    score_fixes,
    score_flight,
)

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_fixes.py"))))


def write_fixes(folder: Path, *offs_m: float | None) -> Path:
    """Write fixes as `s4g-run` does, one a second."""
    path = folder / "fixes.jsonl"
    with path.open("w") as file:
        for number, off_m in enumerate(offs_m):
            fix = Fix(number, float(number), State.NO_FIX, reason=Reason.AMBIGUOUS)
            if off_m is not None:
                lat, lon = toy.place(off_m)
                top = (Candidate(lat, lon, 40.0, 0.8),)
                fix = Fix(
                    number, float(number), State.TRACK, lat=lat, lon=lon, sigma_m=2.0, hpl_m=7.44,
                    anchor_age_s=0.0, top=top,
                )  # fmt: skip
            file.write(fix.to_json() + "\n")
    return path


def test_what_a_run_writes_is_scored(tmp_path: Path) -> None:
    fixes = read_fixes(write_fixes(tmp_path, 1, None, 3, 100))
    truth = read_truth(toy.truth_csv(tmp_path, 4))
    score = score_fixes(fixes, truth)
    assert (score.frames, score.fixes, score.false_fixes) == (4, 3, 1)
    assert score.median_m == pytest.approx(3.0, abs=0.02)  # the file holds centimetres
    assert score.max_m == pytest.approx(100.0, abs=0.02)
    assert score_fixes(fixes, truth, 2.0).false_fixes == 2


def test_the_score_of_fixes_is_that_of_their_flight_and_of_a_pool_of_one(tmp_path: Path) -> None:
    fixes = read_fixes(write_fixes(tmp_path, 1, None, 3, 100))
    truth = read_truth(toy.truth_csv(tmp_path, 4))
    flight = match_flight(fixes, truth, 5.0)
    score = score_fixes(fixes, truth, 5.0)
    assert score == score_flight(flight)
    pooled = vars(pool_flights([flight]).score)
    pooled["longest_outage_from_s"] = score.longest_outage_from_s
    assert pooled == vars(score)
