from __future__ import annotations

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.tilepacks.nearby import MAX_METRES, Nearby
from s4g.tilepacks.tiling import Lattice


@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 200),
    st.floats(-300, 300),
    st.floats(-300, 300),
    st.one_of(st.floats(0, 500), st.sampled_from([0.0, 20.0, 40.0])),
    st.integers(0, 1000),
)
def test_tiles_within_a_radius_are_those_that_brute_force_finds(
    columns: int, rows: int, count: int, east_m: float, north_m: float, radius_m: float, seed: int
) -> None:
    lattice = Lattice(80.0, 64, 16, -100.0, 90.0, columns, rows)
    # In any order, with cells that hold several tiles and cells that hold none.
    cells = np.random.default_rng(seed).integers(0, lattice.count, count).astype(np.uint32)
    found = Nearby(lattice, cells).within(east_m, north_m, radius_m)
    east, north = lattice.centers_m(cells)
    away = np.hypot(east - east_m, north - north_m)
    assert found.dtype == np.int64
    assert (np.diff(found) > 0).all()
    assert set(np.flatnonzero(away < radius_m - 1e-6)) <= set(found)
    assert set(found) <= set(np.flatnonzero(away <= radius_m + 1e-6))


def test_a_radius_of_nothing_finds_the_tile_that_is_there() -> None:
    lattice = Lattice(80.0, 64, 16, 0.0, 0.0, 5, 5)
    nearby = Nearby(lattice, np.array([7, 3, 7], np.uint32))
    (east,), (north,) = lattice.centers_m(np.array([7], np.uint32))
    assert nearby.within(east, north, 0.0).tolist() == [0, 2]


@pytest.mark.parametrize("east_m", [-MAX_METRES / 2, 0.0, MAX_METRES / 2])
@pytest.mark.parametrize("radius_m", [10.0, MAX_METRES])
def test_points_far_away_are_no_trouble(east_m: float, radius_m: float) -> None:
    # The finest lattice that a manifest may have: columns are counted in 1e-8 m.
    lattice = Lattice(1e-3, 1 << 16, 1, 0.0, 0.0, 5, 5)
    found = Nearby(lattice, np.arange(25, dtype=np.uint32)).within(east_m, 0.0, radius_m)
    assert found.tolist() == (list(range(25)) if abs(east_m) < radius_m else [])


def test_a_lattice_of_endless_rows_takes_no_memory() -> None:
    lattice = Lattice(1e-3, 1 << 16, 1, 0.0, 0.0, 1, 2**32 - 1)
    nearby = Nearby(lattice, np.array([0, 2**32 - 2], np.uint32))
    tracemalloc.start()
    assert nearby.within(0.0, 0.0, 1e6).tolist() == [0, 1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


Level = tuple[Nearby, Lattice, npt.NDArray[np.uint32], npt.NDArray[np.uint8]]


@st.composite
def _levels(draw: st.DrawFn) -> Level:
    """Tiles of up to three variants in some cells of a lattice, in any order."""
    columns, rows, kinds = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 3))
    lattice = Lattice(80.0, 64, 16, -100.0, 90.0, columns, rows)
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    places = rng.permutation(lattice.count * kinds)
    places = places[: draw(st.integers(1, len(places)))]
    cells, variants = (places // kinds).astype(np.uint32), (places % kinds).astype(np.uint8)
    return Nearby(lattice, cells, variants, kinds), lattice, cells, variants


def _apart(lattice: Lattice, cells: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """Return how many rows or columns, whichever is more, cells (N,) lie apart, (N, N)."""
    rows, columns = np.divmod(cells.astype(int), lattice.columns)
    return np.maximum(abs(rows[:, None] - rows), abs(columns[:, None] - columns))


@given(_levels(), st.integers(0, 3), st.integers(0, 99))
def test_tiles_around_some_are_those_that_brute_force_finds(
    level: Level, reach: int, seed: int
) -> None:
    nearby, lattice, cells, variants = level
    some = np.random.default_rng(seed).integers(0, len(cells), 3)
    near = (_apart(lattice, cells) <= reach) & (variants[:, None] == variants)
    found = nearby.around(some, reach)
    assert found.dtype == np.int64
    assert found.tolist() == np.flatnonzero(near[some].any(axis=0)).tolist()


def test_tiles_around_some_of_a_corridor_take_no_table_of_its_lattice() -> None:
    lattice = Lattice(80.0, 64, 16, 0.0, 0.0, 30_000, 30_000)
    places = np.arange(30_000, dtype=np.uint32)
    nearby = Nearby(lattice, places * 30_001)  # the diagonal
    tracemalloc.start()
    nearby.prepare()
    assert nearby.around(np.array([0, 500]), 1).tolist() == [0, 1, 499, 500, 501]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


@given(_levels(), st.integers(2, 4))
def test_every_tile_has_one_of_the_sample_near_it(level: Level, step: int) -> None:
    nearby, lattice, cells, variants = level
    sample = nearby.sample(step)
    near = (_apart(lattice, cells) < step) & (variants[:, None] == variants)
    assert (np.diff(sample) > 0).all()
    assert near[:, sample].any(axis=1).all()


def test_a_sample_of_a_full_lattice_is_every_third_row_and_column() -> None:
    lattice = Lattice(80.0, 64, 16, 0.0, 0.0, 7, 5)
    nearby = Nearby(lattice, np.arange(35, dtype=np.uint32))
    # The last row and the last column lie within two of those before them.
    assert nearby.sample(3).tolist() == [0, 3, 6, 21, 24, 27]
