"""Whether a back end embeds as the graph spells out: directions, lengths, and every way to run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..core.engine import Embeddings, Images

# FP16 and TF32 rounding and other kernels move a cosine in its fourth digit; a wrong kernel or a
# graph read wrongly is off by far more. The same holds of the length and the last division.
MIN_COSINE = 0.99
_LENGTH_TOLERANCE = 1e-2
# A TensorRT engine runs a batch size plainly, then records it as a CUDA graph, then replays that:
# the way it will go from then on.
_RUNS = 3


@dataclass(frozen=True)
class Agreement:
    """How alike embeddings are to those of the graph.

    Attributes:
        cosine: the lowest, not a number where one of them is not.
        length: the one farthest from 1, not a number where one of them is not.
    """

    cosine: float
    length: float

    @property
    def fault(self) -> str:
        """What is wrong; empty where they agree."""
        if not self.cosine >= MIN_COSINE:
            return f"cosine {self.cosine:.4f}, at least {MIN_COSINE:g} is asked for"
        if not abs(self.length - 1) <= _LENGTH_TOLERANCE:
            return f"length {self.length:.4f}, expected 1"
        return ""


def embed_every_way(embed: Callable[[Images], Embeddings], images: Images) -> Embeddings:
    """Embed images together and the first alone, each as often as an engine has ways to run.

    Kernels may differ with the batch. Returns rows for `repeated`.
    """
    batches = (images, images[:1])
    return np.concatenate([embed(batch) for batch in batches for _ in range(_RUNS)])


def repeated(expected: Embeddings) -> Embeddings:
    """Return the expected embeddings of images, in the rows of `embed_every_way`."""
    return np.concatenate([np.tile(rows, (_RUNS, 1)) for rows in (expected, expected[:1])])


def agreement(found: Embeddings, expected: Embeddings) -> Agreement:
    """Compare embeddings (N, D), row by row."""
    lengths = np.linalg.norm(found.astype(np.float64), axis=1)
    dots = np.einsum("nd,nd->n", found, expected, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = dots / (lengths * np.linalg.norm(expected.astype(np.float64), axis=1))
    worst = int(np.abs(lengths - 1).argmax())  # of a value that is no number, where there is one
    return Agreement(float(cosines.min()), float(lengths[worst]))
