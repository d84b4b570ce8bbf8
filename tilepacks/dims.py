"""How many dimensions a pack keeps: as few as lose nothing, judged by places, not by vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import InputError
from ..core.spec import EncoderSpec
from .probes import Probes, share_found
from .projection import Projection, principal
from .quantise import Floats32, dequantise, quantise
from .tiling import Cells, Lattice

# What is tried: 64 a tile is compact, more than 256 was of no use anywhere (facts of the field).
CANDIDATES = (64, 96, 128, 192, 256)
COMPACT_DIMS = 64
# Leading dimensions that the graph is built and searched on; hits are compared in all of them.
GRAPH_DIMS = 64
# A pack may lose so much of the share of probes that find their place.
MAX_LOSS = 0.005


@dataclass(frozen=True)
class Gallery:
    """Tiles of one level to find probes among.

    Attributes:
        lattice: the level's.
        cells: (N,) uint32.
        parts: returns the embeddings again and again, (n, D) at a time, in the order of cells.
        probes: of this level.
    """

    lattice: Lattice
    cells: Cells
    parts: Callable[[], Iterable[Floats32]]
    probes: Probes


def check_dims(dims: int | None, spec: EncoderSpec) -> None:
    """Refuse a number of dimensions that an encoder cannot give.

    Raises:
        InputError: fewer than 8 or more than the embedding has.
    """
    if dims is not None and not 8 <= dims <= spec.embedding_dim:
        raise InputError(
            f"--dims {dims}: this encoder's embeddings have {spec.embedding_dim}; choose 8 to "
            f"{spec.embedding_dim}"
        )


def make_projection(
    spec: EncoderSpec, moments: np.ndarray[tuple[int, int], np.dtype[np.float64]], dims: int
) -> Projection:
    """Return how embeddings become vectors of `dims`: the leading ones where the encoder nests."""
    if dims == spec.embedding_dim or dims in spec.nested_dims:
        return Projection(dims)
    first = min(GRAPH_DIMS, dims)
    groups = (first, dims - first) if dims > first else (first,)
    return Projection(dims, principal(moments, groups))


def choose_dims(
    galleries: Sequence[Gallery],
    spec: EncoderSpec,
    moments: np.ndarray[tuple[int, int], np.dtype[np.float64]],
) -> tuple[int, dict[str, float]]:
    """Return the fewest dimensions that find probes as often as all of them do.

    Returns:
        The dimensions, and the share of probes found by each number tried, `full` in float.
    """
    candidates = sorted({d for d in (*CANDIDATES, *spec.nested_dims) if d < spec.embedding_dim})
    shares = {"full": _share(galleries, None)}
    for dims in (*candidates, spec.embedding_dim):
        shares[str(dims)] = _share(galleries, make_projection(spec, moments, dims))
        if shares[str(dims)] >= shares["full"] - MAX_LOSS:
            return dims, shares
    return spec.embedding_dim, shares


def measure_dims(galleries: Sequence[Gallery], projection: Projection) -> dict[str, float]:
    """Return the share of probes found in float and with a projection."""
    return {
        "full": _share(galleries, None),
        str(projection.dims): _share(galleries, projection),
    }


def _share(galleries: Sequence[Gallery], projection: Projection | None) -> float:
    """Return the share of all galleries' probes that find their place; None: float, all of it."""
    shares = [_found(gallery, projection) for gallery in galleries]
    weights = [len(gallery.probes.east_m) for gallery in galleries]
    return float(np.average(shares, weights=weights)) if sum(weights) else 1.0


def _found(gallery: Gallery, projection: Projection | None) -> float:
    probes = gallery.probes
    queries = probes.embeddings if projection is None else projection.apply(probes.embeddings)
    best = np.full(len(queries), -np.inf)
    index = np.zeros(len(queries), np.int64)
    start = 0
    for part in gallery.parts():
        vectors = part if projection is None else dequantise(quantise(projection.apply(part)))
        scores = vectors @ queries.T
        own = scores.argmax(axis=0)
        value = scores[own, np.arange(len(queries))]
        better = value > best
        best[better], index[better] = value[better], own[better] + start
        start += len(part)
    east, north = gallery.lattice.centers_m(gallery.cells[index])
    return share_found(probes, east, north, gallery.lattice.footprint_m)
