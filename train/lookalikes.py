"""Mined hard negatives on imagery: places that the encoder, as it stands, takes for each other.

Geographic neighbours are hard because they share fields, roofs and light; look-alikes because the
network cannot tell them apart, wherever they lie (Sample4Geo's dynamic similarity sampling).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from .pairs import Ints, Places

# Rows of the similarities held at a time.
_ROWS = 1024


def lookalike_lists(embeddings: torch.Tensor, places: Places, length: int) -> Ints:
    """Return for each place the most similar others that show other ground.

    Args:
        embeddings: (P, D) float32, L2-normalised, of the places' tiles.
        places: the P places.
        length: k, of each list.

    Returns:
        (P, k) int64 rows, most similar first, -1 where there are no more.
    """
    device = embeddings.device
    x, y, side = (
        torch.from_numpy(v.astype(np.float32)).to(device)
        for v in (places.x_m, places.y_m, places.footprint_m)
    )
    ground = torch.from_numpy(places.ground).to(device)
    length = min(length, len(places))
    lists = []
    for start in range(0, len(places), _ROWS):
        rows = slice(start, start + _ROWS)
        scores = embeddings[rows] @ embeddings.T
        apart = torch.hypot(x[rows, None] - x, y[rows, None] - y)
        # Any shared ground is left out: a far corner of a neighbour is no look-alike.
        shared = (ground[rows, None] == ground) & (apart < (side[rows, None] + side) / 2)
        best = scores.masked_fill_(shared, -torch.inf).topk(length, dim=1)
        lists.append(torch.where(best.values > -torch.inf, best.indices, -1).cpu())
    found: npt.NDArray[np.int64] = torch.cat(lists).numpy()
    return found
