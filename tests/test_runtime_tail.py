"""The Kalman filter behind the fixes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from s4g.runtime.tail import GATE, REPORTED, UNKNOWN, Tail


def test_it_moves_with_the_reported_velocity() -> None:
    tail = Tail(10.0, 20.0, 3.0, REPORTED)
    tail.predict(np.array([4.0, -2.0]), 5.0, REPORTED)
    assert tail.position_m == pytest.approx([30, 10])


def test_without_a_fix_it_knows_ever_less() -> None:
    tail = Tail(0.0, 0.0, 3.0, REPORTED)
    sigmas = [tail.sigma_m]
    for _ in range(20):
        tail.predict(np.array([15.0, 0.0]), 1.0, REPORTED)
        sigmas.append(tail.sigma_m)
    assert all(np.diff(sigmas) > 0)


def test_two_short_steps_are_as_uncertain_as_a_long_one() -> None:
    """But for the jitter, which is drawn anew at each step."""
    long, short = (Tail(0.0, 0.0, 3.0, UNKNOWN) for _ in range(2))
    long.predict(np.zeros(2), 0.4, UNKNOWN)
    for _ in range(2):
        short.predict(np.zeros(2), 0.2, UNKNOWN)
    assert short.sigma_m == pytest.approx(long.sigma_m, rel=0.02)


def test_a_fix_makes_it_surer_and_draws_it_by_what_both_weigh() -> None:
    tail = Tail(0.0, 0.0, 3.0, REPORTED)
    tail.correct(np.array([9.0, 0.0]), 6.0)
    assert tail.position_m == pytest.approx([9 * 9 / (9 + 36), 0])
    assert tail.sigma_m == pytest.approx(1 / math.sqrt(1 / 9 + 1 / 36))


def test_a_lasting_error_of_the_velocity_is_learnt() -> None:
    tail = Tail(0.0, 0.0, 3.0, REPORTED)
    true, reported = np.array([16.0, 1.0]), np.array([15.0, 0.0])
    for second in range(1, 61):
        tail.predict(reported, 1.0, REPORTED)
        tail.correct(true * second, 3.0)
    assert tail.state[2:] == pytest.approx(true - reported, abs=0.35)


def test_without_any_velocity_the_fixes_tell_it() -> None:
    tail = Tail(0.0, 0.0, 3.0, UNKNOWN)
    for step in range(1, 41):
        tail.predict(np.zeros(2), 0.5, UNKNOWN)
        tail.correct(np.array([6.0, 8.0]) * step, 3.0)
    assert tail.state[2:] == pytest.approx([12, 16], abs=2)


def test_a_hundredth_of_honest_fixes_lie_beyond_the_gate() -> None:
    rng = np.random.default_rng(3)
    tail = Tail(0.0, 0.0, 4.0, REPORTED)
    truths = rng.normal(0, 4.0, (20_000, 2))
    fixes = truths + rng.normal(0, 3.0, (20_000, 2))
    beyond = np.mean([tail.distance2(fix, 3.0) > GATE for fix in fixes])
    assert beyond == pytest.approx(0.01, abs=0.003)


def test_what_it_says_of_itself_is_true_on_average() -> None:
    """Normalised squared error of simulated flights: two a fix, for two dimensions."""
    rng = np.random.default_rng(4)
    squares = []
    for _ in range(60):
        position, error = np.zeros(2), rng.normal(0, REPORTED.sigma_mps, 2)
        tail = Tail(*rng.normal(0, 3.0, 2), 3.0, REPORTED)
        keep = math.exp(-1 / REPORTED.correlation_s)
        for step in range(40):
            error = keep * error + rng.normal(0, REPORTED.sigma_mps * math.sqrt(1 - keep**2), 2)
            position = position + error + rng.normal(0, REPORTED.jitter_mps, 2)
            tail.predict(np.zeros(2), 1.0, REPORTED)
            if step % 4 == 0:
                tail.correct(position + rng.normal(0, 5.0, 2), 5.0)
        off = position - tail.position_m
        squares.append(off @ np.linalg.solve(tail.covariance[:2, :2], off))
    assert np.mean(squares) == pytest.approx(2, abs=0.6)
