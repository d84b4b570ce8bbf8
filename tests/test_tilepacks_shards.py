from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.core.geo import LocalFrame
from s4g.tilepacks.plan import Plan
from s4g.tilepacks.shards import cut_plan
from s4g.tilepacks.tiling import Lattice, lattice_over

FRAME = LocalFrame(47.0, 8.0)


def _plan(width_m: float, height_m: float, *footprints_m: float) -> Plan:
    extent = (-width_m / 2, -height_m / 2, width_m / 2, height_m / 2)
    lattices = tuple(lattice_over(extent, side, 64, 0.25) for side in footprints_m)
    assert all(lattices)
    return Plan(FRAME.wgs84_bounds(*extent), FRAME, extent, lattices, ())  # type: ignore[arg-type]


def _centres(lattice: Lattice) -> npt.NDArray[np.float64]:
    return np.stack(lattice.centers_m(np.arange(lattice.count, dtype=np.uint32)), axis=1)


@given(st.floats(200, 2000), st.floats(200, 2000), st.floats(160, 3000))
def test_every_tile_lies_in_exactly_one_pack(
    width_m: float, height_m: float, side_m: float
) -> None:
    plan = _plan(width_m, height_m, 80.0, 160.0)
    found = [shard.plan.lattices for shard in cut_plan(plan, side_m)]
    for whole in plan.lattices:
        own = [_centres(v) for part in found for v in part if v.footprint_m == whole.footprint_m]
        together = np.concatenate(own)
        wanted = _centres(whole)
        assert len(together) == len(wanted)
        order = [np.lexsort(np.rint(100 * v).T) for v in (together, wanted)]
        np.testing.assert_allclose(together[order[0]], wanted[order[1]], atol=1e-6)


def test_packs_are_named_by_row_and_column_and_cover_their_place() -> None:
    shards = cut_plan(_plan(1000.0, 500.0, 80.0), 480.0)
    assert [shard.name for shard in shards] == ["r000c000", "r000c001"]
    for shard, (west, east) in zip(shards, [(-500.0, 0.0), (0.0, 500.0)], strict=True):
        assert shard.plan.extent_m == (west, -250.0, east, 250.0)
        found = shard.plan.frame.local_bounds(shard.plan.covers)
        np.testing.assert_allclose(found, (west, -250.0, east, 250.0), atol=0.1)
        assert shard.plan.region == _plan(1000.0, 500.0, 80.0).region


def test_too_many_packs_are_refused() -> None:
    with pytest.raises(InputError) as error:
        cut_plan(_plan(2000.0, 2000.0, 8.0), 10.0)
    assert str(error.value) == (
        "--shard 10 m: 200 x 200 packs, a set holds at most 10000; choose larger ones"
    )


def test_packs_smaller_than_a_tile_are_refused() -> None:
    with pytest.raises(InputError) as error:
        cut_plan(_plan(2000.0, 2000.0, 80.0, 160.0), 70.0)
    assert str(error.value) == ("--shard 70 m: smaller than a tile of 80 m; choose far more")
