"""Lattices of one endless grid, against numbering their tiles one by one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from s4g.tilepacks.grid import centres_in, cut, moved_cells, offset, over, union
from s4g.tilepacks.tiling import EDGE_TOLERANCE, MAX_CELLS, Lattice, lattice_over

Place = tuple[int, int]


@st.composite
def grids(draw: st.DrawFn) -> Lattice:
    """Row 0 and column 0 of an endless grid."""
    footprint_m = draw(st.sampled_from([32.0, 80.0, 100.0 / 3, 1000.0]))
    input_px = draw(st.sampled_from([64, 256, 448]))
    step_px = draw(st.integers(input_px // 8, input_px))
    west, north = draw(st.floats(-2e4, 2e4)), draw(st.floats(-2e4, 2e4))
    return Lattice(footprint_m, input_px, step_px, west, north, 1, 1)


starts = st.integers(-60, 60)


@st.composite
def parts(draw: st.DrawFn) -> tuple[range, range]:
    """Rows and columns of an endless grid."""
    row, column = draw(starts), draw(starts)
    return (
        range(row, row + draw(st.integers(1, 9))),
        range(column, column + draw(st.integers(1, 9))),
    )


def part_of(grid: Lattice, part: tuple[range, range]) -> Lattice:
    """The part as a build would lay it down: its corner in metres, computed on its own."""
    return dataclasses.replace(
        grid,
        west_m=grid.west_m + part[1].start * grid.step_px * grid.footprint_m / grid.input_px,
        north_m=grid.north_m - part[0].start * grid.step_px * grid.footprint_m / grid.input_px,
        rows=len(part[0]),
        columns=len(part[1]),
    )


def places(grid: Lattice, lattice: Lattice) -> list[Place]:
    """Row and column in an endless grid of each cell of a lattice, in the order of cells."""
    east, north = lattice.centers_m(np.arange(lattice.count, dtype=np.uint32))
    columns = (east - grid.footprint_m / 2 - grid.west_m) / grid.stride_m
    rows = (grid.north_m - grid.footprint_m / 2 - north) / grid.stride_m
    assert np.abs(columns - np.rint(columns)).max() < 1e-6
    assert np.abs(rows - np.rint(rows)).max() < 1e-6
    return list(zip(np.rint(rows).astype(int), np.rint(columns).astype(int), strict=True))


def corners(lattice: Lattice, row: int, column: int) -> tuple[float, float, float, float]:
    west = lattice.west_m + column * lattice.stride_m
    north = lattice.north_m - row * lattice.stride_m
    return west, north - lattice.footprint_m, west + lattice.footprint_m, north


@given(grids(), parts(), parts())
def test_parts_of_a_grid_know_how_they_lie_to_each_other(
    grid: Lattice, a: tuple[range, range], b: tuple[range, range]
) -> None:
    one, other = part_of(grid, a), part_of(grid, b)
    wanted = b[0].start - a[0].start, b[1].start - a[1].start
    assert offset(one, other) == wanted
    assert offset(other, one) == (-wanted[0], -wanted[1])


@given(grids(), parts(), st.floats(0.002, 0.998), st.booleans(), st.booleans())
def test_a_grid_that_is_a_part_of_a_pixel_off_is_another(
    grid: Lattice, part: tuple[range, range], off: float, east: bool, north: bool
) -> None:
    assume(east or north)
    moved = dataclasses.replace(
        part_of(grid, part),
        west_m=part_of(grid, part).west_m + east * off * grid.gsd_m,
        north_m=part_of(grid, part).north_m + north * off * grid.gsd_m,
    )
    # Where tiles are one pixel apart the next ones may meet again: not with steps like these.
    assert grid.step_px > 1
    assert offset(grid, moved) is None


@pytest.mark.parametrize(
    "other", [{"footprint_m": 81.0}, {"input_px": 65}, {"step_px": 15}], ids=lambda d: next(iter(d))
)
def test_tiles_of_another_size_or_step_are_of_another_grid(other: dict[str, float]) -> None:
    lattice = Lattice(80.0, 64, 16, 0.0, 0.0, 3, 3)
    assert offset(lattice, lattice) == (0, 0)
    assert offset(lattice, dataclasses.replace(lattice, **other)) is None  # type: ignore[arg-type]


@given(grids(), parts(), parts())
def test_a_cut_has_the_rows_and_columns_that_were_asked_for(
    grid: Lattice, a: tuple[range, range], b: tuple[range, range]
) -> None:
    lattice = part_of(grid, a)
    found = cut(lattice, *b)
    wanted = [(a[0].start + row, a[1].start + column) for row in b[0] for column in b[1]]
    assert places(grid, found) == wanted
    assert (found.footprint_m, found.input_px, found.step_px) == (
        grid.footprint_m,
        grid.input_px,
        grid.step_px,
    )


@given(grids(), st.lists(parts(), min_size=1, max_size=5))
def test_a_union_is_the_smallest_lattice_that_holds_all(
    grid: Lattice, several: list[tuple[range, range]]
) -> None:
    rows = range(min(r.start for r, _ in several), max(r.stop for r, _ in several))
    columns = range(min(c.start for _, c in several), max(c.stop for _, c in several))
    found = union([part_of(grid, part) for part in several])
    assert places(grid, found) == [(row, column) for row in rows for column in columns]


def test_a_union_of_several_grids_is_refused() -> None:
    lattice = Lattice(80.0, 64, 16, 0.0, 0.0, 3, 3)
    with pytest.raises(ValueError, match="^the lattices are of several grids$"):
        union([lattice, lattice, dataclasses.replace(lattice, west_m=1.0)])


def test_a_union_of_more_cells_than_numbers_is_refused() -> None:
    lattice = Lattice(80.0, 64, 16, 0.0, 0.0, 1, 1)
    most = cut(lattice, range(65535), range(65537))
    assert most.count == MAX_CELLS
    assert union([lattice, cut(lattice, range(65534, 65535), range(65536, 65537))]) == most
    with pytest.raises(ValueError) as error:
        union([lattice, cut(lattice, range(65535, 65536), range(65535, 65536))])
    assert str(error.value) == f"65536 x 65536 cells, at most {MAX_CELLS}"


@given(grids(), parts(), parts())
def test_moved_cells_are_the_same_places(
    grid: Lattice, a: tuple[range, range], b: tuple[range, range]
) -> None:
    lattice = part_of(grid, a)
    whole = union([lattice, part_of(grid, b)])
    cells = np.arange(lattice.count, dtype=np.uint32)
    found = moved_cells(cells, lattice, whole)
    everywhere = places(grid, whole)
    assert found.dtype == np.uint32
    assert [everywhere[cell] for cell in found] == places(grid, lattice)
    assert (moved_cells(found, whole, lattice) == cells).all()


@given(grids(), parts(), parts())
def test_a_cell_outside_the_other_lattice_is_refused(
    grid: Lattice, a: tuple[range, range], b: tuple[range, range]
) -> None:
    one, other = part_of(grid, a), part_of(grid, b)
    held = set(places(grid, other))
    for cell, place in enumerate(places(grid, one)):
        cells = np.array([cell], np.uint32)
        if place in held:
            assert places(grid, other)[int(moved_cells(cells, one, other)[0])] == place
        else:
            with pytest.raises(ValueError, match="^a cell lies outside the other lattice$"):
                moved_cells(cells, one, other)


def test_cells_of_another_grid_are_not_moved() -> None:
    lattice = Lattice(80.0, 64, 16, 0.0, 0.0, 3, 3)
    with pytest.raises(ValueError, match="^the lattices are of several grids$"):
        moved_cells(np.zeros(1, np.uint32), lattice, dataclasses.replace(lattice, north_m=3.0))


@st.composite
def extents(draw: st.DrawFn, grid: Lattice) -> tuple[float, float, float, float]:
    """West, south, east, north within some steps of the grid's corner."""
    at = st.floats(-6, 6)
    x, y = sorted([draw(at), draw(at)]), sorted([draw(at), draw(at)])
    west, east = (grid.west_m + grid.stride_m * v for v in x)
    south, north = (grid.north_m + grid.stride_m * v for v in y)
    return west, south, east, north


@given(st.data())
def test_a_lattice_over_a_region_has_the_tiles_that_lie_in_it(data: st.DataObject) -> None:
    grid = data.draw(grids())
    west, south, east, north = data.draw(extents(grid))
    slack = EDGE_TOLERANCE * grid.footprint_m
    wanted = []
    for row in range(-20, 21):
        for column in range(-20, 21):
            left, low, right, high = corners(grid, row, column)
            out = max(west - left, right - east, south - low, high - north)
            assume(abs(out - slack) > 2e-3 * grid.gsd_m)  # on the edge it may be either
            if out <= slack:
                wanted.append((row, column))
    found = over(grid, (west, south, east, north))
    assert (places(grid, found) if found is not None else []) == wanted


@given(grids(), st.integers(1, 9), st.integers(1, 9))
def test_a_lattice_laid_over_its_own_region_is_itself(
    grid: Lattice, rows: int, columns: int
) -> None:
    lattice = dataclasses.replace(grid, rows=rows, columns=columns)
    west, _, _, north = corners(lattice, 0, 0)
    _, south, east, _ = corners(lattice, rows - 1, columns - 1)
    found = over(lattice, (west, south, east, north))
    assert found is not None
    assert (offset(lattice, found), found.rows, found.columns) == ((0, 0), rows, columns)
    # As a build lays it: a region a hair too small for the last row still has it.
    slack = 0.9 * EDGE_TOLERANCE * lattice.footprint_m
    region = west, south + slack, east - slack, north
    stride = lattice.step_px / lattice.input_px
    laid = lattice_over(region, lattice.footprint_m, lattice.input_px, stride)
    found = over(lattice, region)
    assert laid is not None and found is not None
    assert (found.rows, found.columns) == (laid.rows, laid.columns) == (rows, columns)


def test_a_region_smaller_than_a_tile_has_none() -> None:
    lattice = Lattice(80.0, 64, 16, 0.0, 0.0, 3, 3)
    assert over(lattice, (0.0, -78.0, 80.0, 0.0)) is None
    assert over(lattice, (0.0, -80.0, 78.0, 0.0)) is None
    assert over(lattice, (0.0, -79.3, 79.3, 0.0)) == dataclasses.replace(lattice, rows=1, columns=1)


@given(st.data())
def test_tiles_with_their_centres_in_an_extent_are_chosen(data: st.DataObject) -> None:
    grid = dataclasses.replace(
        data.draw(grids()),
        rows=data.draw(st.integers(1, 8)),
        columns=data.draw(st.integers(1, 8)),
    )
    west, south, east, north = data.draw(extents(grid))
    wanted = []
    for place in places(grid, grid):
        left, low, right, high = corners(grid, *place)
        x, y = (left + right) / 2, (low + high) / 2
        assume(min(abs(x - west), abs(x - east), abs(y - south), abs(y - north)) > 1e-6)
        if west <= x < east and south < y <= north:
            wanted.append(place)
    found = centres_in(grid, (west, south, east, north))
    assert (places(grid, found) if found is not None else []) == wanted


def test_a_centre_on_the_edge_belongs_to_the_part_in_the_east_and_in_the_south() -> None:
    lattice = Lattice(80.0, 64, 16, -40.0, 40.0, 3, 3)  # centres at 0, 20 and 40 m
    found = centres_in(lattice, (0.0, -20.0, 20.0, 0.0))
    assert found is not None
    assert places(lattice, found) == [(0, 0)]
    assert centres_in(lattice, (50.0, -20.0, 60.0, 0.0)) is None
    assert centres_in(lattice, (0.0, -60.0, 20.0, -50.0)) is None


@given(
    grids(),
    st.integers(1, 12),
    st.integers(1, 12),
    st.lists(st.floats(0, 1), max_size=4),
    st.lists(st.integers(0, 12), max_size=4),
)
def test_parts_side_by_side_share_no_tile_and_miss_none(
    grid: Lattice, rows: int, columns: int, cuts: list[float], through: list[int]
) -> None:
    lattice = dataclasses.replace(grid, rows=rows, columns=columns)
    west, _, _, north = corners(lattice, 0, 0)
    _, south, east, _ = corners(lattice, rows - 1, columns - 1)
    half = lattice.footprint_m / 2
    # Cuts anywhere, and cuts through the centres of tiles.
    xs = sorted(
        [west, east]
        + [west + share * (east - west) for share in cuts]
        + [min(east, west + half + n * lattice.stride_m) for n in through]
    )
    ys = sorted(
        [south, north]
        + [south + share * (north - south) for share in cuts]
        + [max(south, north - half - n * lattice.stride_m) for n in through]
    )
    found: list[Place] = []
    for left, right in zip(xs, xs[1:], strict=False):
        for low, high in zip(ys, ys[1:], strict=False):
            part = centres_in(lattice, (left, low, right, high))
            found += places(lattice, part) if part is not None else []
    assert sorted(found) == places(lattice, lattice)
