"""What chance allows: circular Gaussians, the mean NEES of honest sigmas, shares of few frames.

Exact sums where the dimension (2) or the counts allow them: a drone installs no SciPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_TAIL = 0.025  # on either side of a 95 % interval
_HALVINGS = 100  # of an interval: more than a double has bits


def radius_per_sigma(share: float) -> float:
    """Return the radius that holds a share of a circular Gaussian, in sigmas per axis.

    CEP50 is 1.177, R95 2.448, CE90 2.146; the root mean square (DRMS) is 1.414 sigma.
    """
    return math.sqrt(-2 * math.log1p(-share))


R95_PER_SIGMA = radius_per_sigma(0.95)


def honest_nees(count: int) -> tuple[float, float]:
    """Return the 95 % interval of the mean NEES of `count` independent fixes with honest sigmas.

    NEES (normalised estimation error squared) is (error / sigma)^2, of two degrees of freedom here:
    its mean is 2, and the sum over the fixes is chi-square with twice as many degrees of freedom.
    """
    # Half a chi-square of 2 n degrees is a sum of n exponentials: it exceeds x where a Poisson
    # count of mean x stays below n.
    log_factorial = _log_factorials(count - 1)
    k = np.arange(count)

    def above(x: float) -> float:
        return float(np.exp(k * math.log(x) - x - log_factorial).sum())

    most = count + 20 * math.sqrt(count) + 20
    low = _where(lambda x: above(x) > 1 - _TAIL, 1e-300, most)
    high = _where(lambda x: above(x) > _TAIL, 1e-300, most)
    return 2 * low / count, 2 * high / count


def share_interval(count: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval (Clopper and Pearson) of a share seen `count` times in `total`."""
    log_factorial = _log_factorials(total)
    log_choose = log_factorial[total] - log_factorial - log_factorial[::-1]
    k = np.arange(total + 1)

    def at_most(count: int, share: float) -> float:
        log_terms = log_choose + k * math.log(share) + (total - k) * math.log1p(-share)
        return float(np.exp(log_terms[: count + 1]).sum())

    least, most = 1e-300, 1 - 1e-16
    low = 0.0
    if count > 0:
        low = _where(lambda share: 1 - at_most(count - 1, share) < _TAIL, least, most)
    high = 1.0
    if count < total:
        high = _where(lambda share: at_most(count, share) > _TAIL, least, most)
    return low, high


def _where(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return where a condition that holds at `low` ceases to hold on the way to `high`."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _log_factorials(most: int) -> Floats:
    """Return log(k!) of k = 0 … `most`, (most + 1,) float64."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1, dtype=np.float64)))])
