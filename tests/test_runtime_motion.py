"""How the drone moved: who tells it, how far it is off, and what a clock does meanwhile."""

from __future__ import annotations

import math

import numpy as np
import pytest

from s4g.core.camera import Attitude
from s4g.runtime.motion import NOT_KNOWN, FrameClock, Passed, motion, reported_mps
from s4g.runtime.odometry import WAY_SHARE, Step
from s4g.runtime.tail import REPORTED, UNKNOWN
from s4g.runtime.telemetry import Sample

LEVEL = Attitude(0.0, 0.0, 0.0, 100.0)
STEP = Step(0.5, np.array([4.0, 3.0]), 0.5, 0.0)


def flying(east_mps: float | None, north_mps: float | None) -> Sample:
    return Sample(LEVEL, vel_e_mps=east_mps, vel_n_mps=north_mps)


def test_what_telemetry_reports_comes_before_what_frames_show() -> None:
    first = motion(NOT_KNOWN, flying(10.0, 0.0), STEP)
    assert first.now_mps == pytest.approx([10, 0])
    assert (first.model, first.turned_mps) == (REPORTED, 0.0)
    second = motion(first, flying(10.0, 4.0), STEP)
    assert second.mean_mps == pytest.approx([10, 2])
    assert second.now_mps == pytest.approx([10, 4])
    assert second.turned_mps == pytest.approx(4)


def test_what_frames_show_comes_before_nothing() -> None:
    seen = motion(motion(NOT_KNOWN, flying(10.0, 0.0), None), flying(None, None), STEP)
    assert seen.mean_mps == pytest.approx([8, 6])
    assert seen.turned_mps == 0.0
    # Its lasting share of the way is the model's, the rest is new in each step.
    whole_m = math.hypot(seen.model.share * 5.0, seen.model.jitter_mps * 0.5)
    assert (seen.model.share, whole_m) == (WAY_SHARE, pytest.approx(0.5))
    assert motion(seen, flying(None, 3.0), None) is NOT_KNOWN
    assert motion(seen, None, None) is NOT_KNOWN
    assert (NOT_KNOWN.model, NOT_KNOWN.now_mps) == (UNKNOWN, None)


def test_a_step_surer_than_what_lasts_of_it_has_no_rest() -> None:
    sure = Step(0.5, np.array([40.0, 30.0]), 0.5, 0.0)
    assert motion(NOT_KNOWN, flying(None, None), sure).model.jitter_mps == 0.0


@pytest.mark.parametrize("east_mps", [None, math.nan, math.inf])
def test_a_velocity_that_is_no_number_is_none(east_mps: float | None) -> None:
    assert reported_mps(flying(east_mps, 1.0)) is None


def test_time_passes_as_the_clock_tells_it() -> None:
    clock = FrameClock()
    assert [clock.tick(t).seconds for t in (100.0, 100.5, 100.5, 102.5)] == [0, 0.5, 0, 2]


def test_a_clock_that_is_set_back_has_gone_on_as_before() -> None:
    clock = FrameClock()
    clock.tick(100.0)
    clock.tick(100.5)
    # The frame of 100.5 s was at 49.5 s by the new clock.
    assert clock.tick(50.0) == Passed(0.5, -51.0)
    assert clock.tick(50.25) == Passed(0.25)


def test_after_a_long_gap_nobody_knows() -> None:
    clock = FrameClock()
    clock.tick(100.0)
    assert clock.tick(160.0) == Passed(60.0)
    assert clock.tick(220.5) == Passed(0.0, is_gap=True)
    assert clock.tick(221.0) == Passed(0.5)
