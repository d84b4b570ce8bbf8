from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from s4g.core.errors import InputError
from s4g.core.spec import EncoderSpec
from s4g.tilepacks.dims import Gallery, check_dims, choose_dims, make_projection, measure_dims
from s4g.tilepacks.probes import Probes
from s4g.tilepacks.projection import add_moments
from s4g.tilepacks.tiling import Lattice

DIM = 256
LATTICE = Lattice(80.0, 64, 64, 0.0, 0.0, 40, 25)
SPEC = EncoderSpec(
    "00" * 32, "toy", 64, (0.5,) * 3, (0.25,) * 3, DIM, (DIM,), 0.3, 3.0, True, 0.1
)  # fmt: skip


def _rows(rank: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Return unit vectors (1000, 256) that differ in `rank` directions alone."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((LATTICE.count, rank)) @ rng.standard_normal((rank, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _gallery(rows: npt.NDArray[np.float32], noise: float = 0.01) -> Gallery:
    """Return a level of these tiles, looked at by a hundred views of them."""
    cells = np.arange(LATTICE.count, dtype=np.uint32)
    rng = np.random.default_rng(1)
    chosen = rng.choice(cells, 100, replace=False)
    views = rows[chosen] + noise * rng.standard_normal((100, DIM))
    east, north = LATTICE.centers_m(chosen)

    def parts() -> Iterator[npt.NDArray[np.float32]]:
        yield rows[:300]
        yield rows[300:]

    return Gallery(LATTICE, cells, parts, Probes(views.astype(np.float32), east, north))


def _moments(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    moments = np.zeros((DIM, DIM))
    add_moments(moments, rows)
    return moments


@pytest.mark.parametrize(("rank", "wanted"), [(20, 64), (90, 64), (250, 64)])
def test_no_more_dimensions_are_kept_than_find_the_views(rank: int, wanted: int) -> None:
    rows = _rows(rank)
    dims, shares = choose_dims([_gallery(rows)], SPEC, _moments(rows))
    assert dims == wanted
    assert set(shares) == {"full", "64"}
    assert shares["full"] == 1.0 and shares["64"] >= 0.995


def test_more_dimensions_are_kept_where_few_lose_places() -> None:
    # Ten tiles each share a hundred strong directions; what tells them apart is weak.
    weak = np.random.default_rng(2).standard_normal((LATTICE.count, DIM)).astype(np.float32)
    rows = np.tile(_rows(100)[:100], (10, 1)) + 0.005 * weak
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    dims, shares = choose_dims([_gallery(rows, noise=0.012)], SPEC, _moments(rows))
    assert dims > 64
    assert list(shares) == ["full", *(str(d) for d in (64, 96, 128, 192, 256) if d <= dims)]
    assert all(shares[d] < shares["full"] - 0.005 for d in list(shares)[1:-1])
    assert shares[str(dims)] >= shares["full"] - 0.005 or dims == DIM


def test_shares_of_several_levels_count_by_their_views() -> None:
    rows = _rows(20)
    seen, lost = _gallery(rows), _gallery(rows)
    elsewhere = dataclasses.replace(lost.probes, east_m=lost.probes.east_m + 1e5)
    none = Probes(np.empty((0, DIM), np.float32), np.empty(0), np.empty(0))
    projection = make_projection(SPEC, _moments(rows), 64)
    galleries = [seen, dataclasses.replace(lost, probes=elsewhere)]
    assert measure_dims(galleries, projection) == {"full": 0.5, "64": 0.5}
    galleries = [seen, dataclasses.replace(lost, probes=none)]
    assert measure_dims(galleries, projection) == {"full": 1.0, "64": 1.0}
    assert measure_dims(galleries[1:], projection) == {"full": 1.0, "64": 1.0}


def test_an_encoder_that_nests_keeps_its_leading_dimensions() -> None:
    nested = dataclasses.replace(SPEC, nested_dims=(16, 64, DIM))
    assert make_projection(nested, _moments(_rows(20)), 64).matrix is None
    assert make_projection(nested, _moments(_rows(20)), 65).matrix is not None
    rows = np.zeros((LATTICE.count, DIM), np.float32)
    rows[:, :16] = _rows(250)[:, :16]  # all that there is lies in front
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    dims, shares = choose_dims([_gallery(rows, noise=1e-3)], nested, _moments(rows))
    assert dims == 16
    assert set(shares) == {"full", "16"}


def test_all_dimensions_need_no_projection() -> None:
    assert make_projection(SPEC, _moments(_rows(20)), DIM).matrix is None


@pytest.mark.parametrize("dims", [8, 64, 100])
def test_a_projection_has_as_many_columns_as_dimensions(dims: int) -> None:
    matrix = make_projection(SPEC, _moments(_rows(200)), dims).matrix
    assert matrix is not None and matrix.shape == (DIM, dims)


@pytest.mark.parametrize("dims", [None, 8, DIM])
def test_possible_dimensions_are_taken(dims: int | None) -> None:
    check_dims(dims, SPEC)


@pytest.mark.parametrize("dims", [-1, 0, 7, DIM + 1])
def test_impossible_dimensions_are_refused(dims: int) -> None:
    with pytest.raises(InputError) as error:
        check_dims(dims, SPEC)
    assert str(error.value) == (
        f"--dims {dims}: this encoder's embeddings have 256; choose 8 to 256"
    )
