"""Look-alikes are the most similar places of other ground."""

from __future__ import annotations

import numpy as np
import torch

from s4g.train.lookalikes import lookalike_lists
from s4g.train.pairs import Places


def places(ground: list[int], x_m: list[float]) -> Places:
    count = len(ground)
    same = np.zeros(count)
    return Places(np.array(ground), np.array(x_m), same, same + 10.0, same, np.zeros(count, bool))


def vectors(angles_deg: list[float]) -> torch.Tensor:
    angles = torch.deg2rad(torch.tensor(angles_deg))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_the_most_similar_come_first() -> None:
    lists = lookalike_lists(vectors([0, 40, 10, 90]), places([0, 1, 2, 3], [0.0] * 4), 3)
    assert lists.tolist() == [[2, 1, 3], [2, 0, 3], [0, 1, 3], [1, 2, 0]]


def test_a_place_of_the_same_ground_is_no_lookalike() -> None:
    lists = lookalike_lists(vectors([0, 1, 2]), places([0, 0, 0], [0.0, 8.0, 30.0]), 2)
    assert lists.tolist() == [[2, -1], [2, -1], [1, 0]]


def test_one_place_has_none() -> None:
    assert lookalike_lists(vectors([5]), places([0], [0.0]), 4).tolist() == [[-1]]
