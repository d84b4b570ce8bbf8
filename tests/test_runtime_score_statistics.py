import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.runtime.score_statistics import (
    R95_PER_SIGMA,
    honest_nees,
    radius_per_sigma,
    share_interval,
)


def test_the_conventions_are_those_of_circular_gaussians() -> None:
    factors = [radius_per_sigma(0.5), R95_PER_SIGMA]
    assert factors == pytest.approx([1.177, 2.448], abs=5e-4)
    assert radius_per_sigma(0.9) == pytest.approx(2.146, abs=5e-4)
    assert radius_per_sigma(1 - math.exp(-1)) == pytest.approx(math.sqrt(2))  # DRMS
    assert radius_per_sigma(0.999) == pytest.approx(3.717, abs=5e-4)


@given(st.floats(1e-6, 1 - 1e-6))
def test_a_radius_holds_its_share(share: float) -> None:
    assert 1 - math.exp(-(radius_per_sigma(share) ** 2) / 2) == pytest.approx(share)


# chi-square with 2 n degrees of freedom, divided by n (tables).
@pytest.mark.parametrize(
    ("count", "low", "high"),
    [
        (1, -2 * math.log(0.975), -2 * math.log(0.025)),
        (5, 3.2470 / 5, 20.4832 / 5),
        (10, 9.5908 / 10, 34.1696 / 10),
        (50, 74.2219 / 50, 129.5612 / 50),
        (600, 1.84315, 2.16316),
        (18_000, 1.970888, 2.029323),
    ],
)
def test_the_interval_of_honest_sigmas_is_that_of_chi_square(
    count: int, low: float, high: float
) -> None:
    assert honest_nees(count) == pytest.approx((low, high), abs=2e-5)


# Binomial proportions by Clopper and Pearson (beta quantiles).
@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        (0, 1, 0.0, 0.975),
        (1, 1, 0.025, 1.0),
        (0, 600, 0.0, 0.00612927),
        (1, 600, 4.219546e-5, 0.00925077),
        (5, 10, 0.1870860, 0.8129140),
        (7, 18_000, 1.563673e-4, 8.010945e-4),
    ],
)
def test_the_interval_of_a_share_is_clopper_and_pearsons(
    count: int, total: int, low: float, high: float
) -> None:
    assert share_interval(count, total) == pytest.approx((low, high), rel=1e-5)


@given(st.integers(1, 300), st.data())
def test_an_interval_of_a_share_holds_it_and_mirrors(total: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, total))
    low, high = share_interval(count, total)
    assert 0 <= low <= count / total <= high <= 1
    assert share_interval(total - count, total) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@pytest.mark.parametrize("count", [20, 400])
def test_the_interval_of_honest_sigmas_holds_19_of_20_simulated_flights(count: int) -> None:
    rng = np.random.default_rng(7)
    nees = (rng.standard_normal((4000, count, 2)) ** 2).sum(axis=2).mean(axis=1)
    low, high = honest_nees(count)
    assert ((nees >= low) & (nees <= high)).mean() == pytest.approx(0.95, abs=0.015)
