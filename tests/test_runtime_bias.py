"""What is wrong with reported headings and heights is learnt, and forgotten again."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.camera import Attitude
from s4g.runtime.bias import Correction, PoseBias
from s4g.runtime.telemetry import Sample


def told(**more: bool) -> Sample:
    return Sample(Attitude(350.0, 1.0, 2.0, 130.0), **more)


def learnt(turn_deg: float, height: float, frames: int) -> PoseBias:
    """Return what frames teach of a true error."""
    bias = PoseBias()
    for _ in range(frames):
        bias.learn_turn(math.radians(turn_deg), 0.07)
        bias.learn_height(height, 0.07)
        bias.passed(0.5)
    return bias


@given(turn_deg=st.floats(-15, 15), height=st.floats(0.7, 1.35))
def test_a_lasting_error_is_learnt_within_some_frames(turn_deg: float, height: float) -> None:
    correction = learnt(turn_deg, height, 20).correction
    assert correction.turn_deg == pytest.approx(turn_deg, abs=1.0)
    assert correction.height_factor == pytest.approx(height, rel=0.02)


def test_nothing_is_corrected_before_anything_was_learnt() -> None:
    assert PoseBias().correction.of(told()) == told()


def test_a_correction_turns_clockwise_past_north_and_scales_the_height() -> None:
    attitude = Correction(15.0, 0.5).of(told()).attitude
    assert attitude == Attitude(5.0, 1.0, 2.0, 65.0)


def test_what_telemetry_does_not_tell_is_not_corrected() -> None:
    sample = told(yaw_known=False, agl_known=False)
    assert Correction(15.0, 0.5).of(sample) == sample


def test_a_frame_that_was_matched_wrongly_teaches_nothing() -> None:
    bias = learnt(0.0, 1.0, 20)
    bias.learn_turn(math.radians(60), 0.07)
    bias.learn_height(1.4, 0.07)
    assert bias.correction.turn_deg == pytest.approx(0.0, abs=1e-9)
    assert bias.correction.height_factor == pytest.approx(1.0, abs=1e-9)


def test_what_was_learnt_long_ago_is_forgotten() -> None:
    bias = learnt(8.0, 1.3, 50)
    bias.passed(10 * 3600.0)
    assert bias.correction.turn_deg == pytest.approx(0.0, abs=1e-6)
    assert bias.correction.height_factor == pytest.approx(1.0, abs=1e-6)
    bias.learn_turn(math.radians(-8.0), 0.001)
    bias.learn_height(1 / 1.3, 0.001)
    assert bias.correction.turn_deg == pytest.approx(-8.0, abs=0.1)
    assert bias.correction.height_factor == pytest.approx(1 / 1.3, abs=0.01)


def test_a_surer_sight_counts_more() -> None:
    sure, unsure = PoseBias(), PoseBias()
    sure.learn_height(1.2, 0.01)
    unsure.learn_height(1.2, 0.3)
    assert 1.0 < unsure.correction.height_factor < sure.correction.height_factor < 1.2
