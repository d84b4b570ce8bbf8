"""Which ground calibrates and which is held out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.core.geo import BBox
from s4g.core.spec import EncoderSpec
from s4g.export import regions
from s4g.export.regions import Ground, Region, split_by_place

SPEC = EncoderSpec("0" * 64, "toy", 32, (0.5,) * 3, (0.25,) * 3, 8, (8,), 0.5, 4.0, True, 0.1)
# Of a degree of longitude and latitude at 47 N, so that boxes can be thought of in metres.
LON_DEG_PER_M, LAT_DEG_PER_M = 1 / 76_055, 1 / 111_170


def ground(x_m: float, y_m: float, width_m: float, height_m: float, gsd_m: float = 0.5) -> Ground:
    west, south = 9 + x_m * LON_DEG_PER_M, 47 + y_m * LAT_DEG_PER_M
    box = BBox(west, south, west + width_m * LON_DEG_PER_M, south + height_m * LAT_DEG_PER_M)
    return Ground(f"{x_m:g},{y_m:g}", box, gsd_m)


boxes = st.builds(
    lambda west, south, width, height: BBox(west, south, west + width, south + height),
    st.floats(-179, 170),
    st.floats(-80, 80),
    st.floats(1e-4, 1),
    st.floats(1e-4, 1),
)


@given(boxes)
def test_the_two_parts_of_a_box_fill_it_and_do_not_overlap(box: BBox) -> None:
    first, last = regions._cut_box(box)
    assert first.intersection(last) is None
    assert (first.west, first.south) == (box.west, box.south)
    assert (last.east, last.north) == (box.east, box.north)


@given(
    st.lists(
        st.builds(
            ground,
            st.floats(0, 3000),
            st.floats(0, 3000),
            st.floats(60, 800),
            st.floats(60, 800),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_calibration_and_held_out_regions_never_share_ground(grounds: list[Ground]) -> None:
    try:
        calibration, held_out = split_by_place("source", grounds, SPEC)
    except InputError:
        return
    assert calibration and held_out
    for region in calibration:
        for other in held_out:
            assert region.box.intersection(other.box) is None


def test_grounds_that_overlap_through_others_are_one_piece() -> None:
    chain = [ground(0, 0, 100, 100), ground(180, 0, 100, 100), ground(90, 0, 100, 100)]
    apart = ground(5000, 0, 100, 100)
    pieces = regions._pieces([*chain, apart])
    assert [{g.name for g in piece} for piece in pieces] == [
        {g.name for g in chain},
        {apart.name},
    ]


def test_scales_lie_between_the_imagerys_and_what_fits() -> None:
    wide = Region(ground(0, 0, 1000, 500), ground(0, 0, 1000, 500).bounds)
    assert wide.gsd_range_m(SPEC, 1.0) == (0.5, 4.0)
    small = ground(0, 0, 100, 50, gsd_m=1.2)
    finest, coarsest = Region(small, small.bounds).gsd_range_m(SPEC, 1.0) or (0, 0)
    assert finest == pytest.approx(0.8)  # enlarged 1.5 times
    assert coarsest == pytest.approx(0.98 * 50 / 32, rel=0.01)
    assert Region(small, small.bounds).gsd_range_m(SPEC, 2.0) is None
