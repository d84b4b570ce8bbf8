from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.geo import LocalFrame
from s4g.tilepacks.tiling import (
    Lattice,
    blocks,
    cells_inside,
    hilbert_order,
    lattice_over,
)

_sides = st.floats(1.0, 5000.0)


def _cells(lattice: Lattice) -> np.ndarray:
    return np.arange(lattice.count, dtype=np.uint32)


@given(_sides, _sides, st.floats(100.0, 500.0), st.floats(0.2, 1.0))
def test_lattice_stays_in_the_region_with_like_margins_and_no_room_for_another_tile(
    width: float, height: float, footprint: float, stride: float
) -> None:
    extent = (-width / 2, -height / 2, width / 2, height / 2)
    lattice = lattice_over(extent, footprint, 64, stride)
    if lattice is None:
        assert min(width, height) < footprint
        return
    east, north = lattice.centers_m(_cells(lattice))
    for centers, side in ((east, width), (north, height)):
        margins = (
            centers.min() - footprint / 2 + side / 2,
            side / 2 - centers.max() - footprint / 2,
        )
        assert margins[0] == pytest.approx(margins[1], abs=1e-6)
        assert -0.01 * footprint <= 2 * margins[0] < lattice.stride_m


def test_cell_zero_lies_in_the_north_west() -> None:
    lattice = Lattice(80.0, 64, 16, -100.0, 200.0, 5, 3)
    east, north = lattice.centers_m(np.array([0, 1, 5], np.uint32))
    assert east.tolist() == [-60.0, -40.0, -60.0]
    assert north.tolist() == [160.0, 160.0, 140.0]


def test_stride_is_a_whole_number_of_pixels() -> None:
    lattice = lattice_over((0, 0, 1000, 1000), 100.0, 64, 0.3)
    assert lattice is not None
    assert (lattice.step_px, lattice.stride_m) == (19, 19 * 100 / 64)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 16, 64]))
def test_blocks_cover_every_cell_once_and_cut_it_where_it_lies(
    columns: int, rows: int, step: int
) -> None:
    lattice = Lattice(80.0, 1024, step * 8, 10.0, 20.0, columns, rows)
    seen = np.zeros((rows, columns), int)
    for block in blocks(lattice):
        window = block.window
        assert max(window.width_px, window.height_px) <= 2048
        for i, row in enumerate(block.rows):
            for j, column in enumerate(block.columns):
                seen[row, column] += 1
                left = window.west_m + j * lattice.step_px * window.gsd_m
                top = window.north_m - i * lattice.step_px * window.gsd_m
                cell = np.array([row * columns + column], np.uint32)
                (east,), (north,) = lattice.centers_m(cell)
                assert (left + 40, top - 40) == pytest.approx((east, north), abs=1e-6)
        assert (len(block.columns) - 1) * lattice.step_px + 1024 == window.width_px
        assert (len(block.rows) - 1) * lattice.step_px + 1024 == window.height_px
    assert (seen == 1).all()


@given(st.integers(1, 40), st.integers(1, 40))
def test_hilbert_order_visits_every_cell_once(columns: int, rows: int) -> None:
    lattice = Lattice(80.0, 64, 16, 0.0, 0.0, columns, rows)
    assert sorted(hilbert_order(lattice, _cells(lattice))) == list(range(lattice.count))


@pytest.mark.parametrize("side", [2, 4, 8, 64])
def test_hilbert_order_of_a_square_steps_from_neighbour_to_neighbour(side: int) -> None:
    lattice = Lattice(80.0, 64, 16, 0.0, 0.0, side, side)
    row, column = np.divmod(hilbert_order(lattice, _cells(lattice)), side)
    assert (np.abs(np.diff(row)) + np.abs(np.diff(column)) == 1).all()


def test_tiles_beyond_the_edge_of_a_box_in_degrees_are_left_out() -> None:
    # 120 km square at 60 N: meridians converge, so the box is narrower in the north.
    frame = LocalFrame(60.0, 10.0)
    region = frame.wgs84_bounds(-60_000, -60_000, 60_000, 60_000)
    lattice = lattice_over(frame.local_bounds(region), 1000.0, 64, 1.0)
    assert lattice is not None
    inside = cells_inside(lattice, frame, region, range(lattice.rows), range(lattice.columns))
    assert inside[inside.shape[0] // 2, inside.shape[1] // 2]
    assert inside[-1].sum() > inside[0].sum() > 0
    east, north = (v.reshape(inside.shape)[inside] for v in lattice.centers_m(_cells(lattice)))
    for right in (-490, 490):
        for up in (-490, 490):
            lat, lon = frame.to_wgs84(east + right, north + up)
            assert (lon >= region.west).all() and (lon <= region.east).all()
            assert (lat >= region.south).all() and (lat <= region.north).all()


def test_tile_that_fills_its_region_counts_as_inside() -> None:
    frame = LocalFrame(47.0, 8.0)
    region = frame.wgs84_bounds(-40, -40, 40, 40)
    lattice = lattice_over(frame.local_bounds(region), 80.0, 64, 0.25)
    assert lattice is not None and lattice.count == 1
    assert cells_inside(lattice, frame, region, range(lattice.rows), range(lattice.columns)).all()
