"""Seeds that follow from what they are for, so that a resumed training draws the same."""

from __future__ import annotations

import numpy as np


def mixed_seed(*numbers: int) -> int:
    """Return one seed below 2^63 for several numbers, such as seed, epoch, step and process."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
