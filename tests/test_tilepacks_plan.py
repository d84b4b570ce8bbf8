from __future__ import annotations

import re

import numpy as np
import pytest

from s4g.core.errors import InputError
from s4g.core.geo import BBox, LocalFrame
from s4g.core.ground import ArrayGround
from s4g.core.spec import EncoderSpec
from s4g.tilepacks.plan import check_levels, plan_pack

FRAME = LocalFrame(47.0, 8.0)


def _ground(width_m: float, height_m: float, gsd_m: float = 0.5) -> ArrayGround:
    shape = round(height_m / gsd_m), round(width_m / gsd_m)
    rgb = np.zeros((*shape, 3), np.uint8)
    west, north = -width_m / 2, height_m / 2
    return ArrayGround(rgb, np.ones(shape, bool), FRAME, west, north, gsd_m, "field.tif")


def _spec(gsd_min_m: float = 0.3, gsd_max_m: float = 3.0) -> EncoderSpec:
    return EncoderSpec(
        "00" * 32, "toy", 64, (0.5,) * 3, (0.25,) * 3, 8, (8,), gsd_min_m, gsd_max_m, True, 0.1
    )  # fmt: skip


def test_without_bbox_the_whole_source_is_packed_and_said() -> None:
    ground = _ground(400, 300)
    plan = plan_pack(ground, _spec())
    assert plan.region == ground.bounds
    assert plan.notes[0] == f"no --bbox: packing all of field.tif, {ground.bounds}"


def test_bbox_inside_the_source_is_taken_as_it_is() -> None:
    box = FRAME.wgs84_bounds(-100, -100, 100, 100)
    plan = plan_pack(_ground(400, 300), _spec(), box, (80.0,))
    assert (plan.region, plan.notes) == (box, ())
    assert plan.frame == LocalFrame(*box.center)


def test_bbox_that_reaches_beyond_the_source_is_clipped_and_said() -> None:
    ground = _ground(400, 300)
    box = FRAME.wgs84_bounds(-100, -100, 900, 100)
    plan = plan_pack(ground, _spec(), box, (80.0,))
    assert plan.region == box.intersection(ground.bounds)
    assert plan.notes == (f"--bbox {box} reaches beyond field.tif: clipped to {plan.region}",)


def test_bbox_that_misses_the_source_is_refused_with_both_boxes() -> None:
    ground = _ground(400, 300)
    with pytest.raises(InputError) as error:
        plan_pack(ground, _spec(), BBox(10.0, 50.0, 10.1, 50.1))
    assert str(error.value) == (
        "--bbox 10,50,10.1,50.1: has nothing in common with field.tif, which covers "
        f"{ground.bounds}; give a box inside it"
    )


@pytest.mark.parametrize(
    ("width_m", "height_m", "gsd_m", "spec", "levels"),
    [
        (400, 300, 0.5, _spec(), (80.0, 160.0)),
        (400, 120, 0.5, _spec(), (80.0,)),
        (400, 70, 0.5, _spec(), (40.0,)),
        (3000, 3000, 10.0, _spec(0.3, 30.0), (640.0, 1280.0)),
        (400, 300, 0.5, _spec(0.4, 0.5), (28.8,)),
    ],
    ids=["both", "low region", "tiny region", "coarse source", "narrow encoder"],
)
def test_levels_are_chosen_from_encoder_source_and_region(
    width_m: float,
    height_m: float,
    gsd_m: float,
    spec: EncoderSpec,
    levels: tuple[float, ...],
) -> None:
    plan = plan_pack(_ground(width_m, height_m, gsd_m), spec)
    assert tuple(lattice.footprint_m for lattice in plan.lattices) == levels
    assert plan.notes[1] == "levels chosen: " + ", ".join(f"{level:g} m" for level in levels)


def test_region_too_small_for_any_level_is_refused() -> None:
    with pytest.raises(InputError) as error:
        plan_pack(_ground(15, 12), _spec())
    assert str(error.value) == (
        "field.tif: no level suits it: a region of 15 x 12 m at 0.5 m/px, an encoder for 0.3 to "
        "3 m/px at 64 px; choose a larger --bbox, finer imagery, or force --levels"
    )


@pytest.mark.parametrize("level_m", [19.0, 193.0])
def test_level_beyond_the_encoder_is_refused_with_both_numbers(level_m: float) -> None:
    message = (
        f"--levels {level_m:g}: {level_m / 64:.3g} m/px at the encoder's 64 px, which was trained "
        "for 0.3 to 3 m/px; choose footprints of 19.2 to 192 m"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        plan_pack(_ground(400, 300), _spec(), None, (level_m,))


def test_limits_of_the_encoder_are_allowed() -> None:
    plan = plan_pack(_ground(400, 300), _spec(), None, (19.2, 192.0))
    assert [lattice.footprint_m for lattice in plan.lattices] == [19.2, 192.0]


def test_level_larger_than_the_region_is_refused() -> None:
    message = (
        "--levels 160: the region is only 400 x 120 m; choose a smaller footprint or a larger "
        "--bbox"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        plan_pack(_ground(400, 120), _spec(), None, (160.0,))


def test_level_finer_than_the_imagery_is_noted() -> None:
    plan = plan_pack(_ground(400, 300, gsd_m=2.0), _spec(), None, (40.0,))
    assert plan.notes[-1] == (
        "level 40: tiles of 0.625 m/px are enlarged from imagery of 2 m/px; a coarser level would "
        "match better"
    )


def test_more_tiles_than_a_pack_can_number_are_refused() -> None:
    class Continent(ArrayGround):
        def __post_init__(self) -> None:
            self.bounds = BBox(10.0, 48.0, 14.0, 50.0)

    ground = Continent(np.zeros((1, 1, 3), np.uint8), np.ones((1, 1), bool), FRAME, 0, 0, 0.5)
    with pytest.raises(InputError, match=r"^--levels 20: \d+ tiles, a pack holds at most "):
        plan_pack(ground, _spec(), None, (20.0,), stride=0.05)


@pytest.mark.parametrize(
    ("levels_m", "message"),
    [
        ((80.0, -1.0), "--levels 80,-1: footprints are metres and must be positive"),
        ((80.0, 80.0), "--levels 80,80: a footprint is given twice"),
        ((), "--levels : expected 1 to 16 footprints in metres"),
    ],
    ids=["negative", "twice", "none"],
)
def test_wrong_levels_are_refused(levels_m: tuple[float, ...], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        check_levels(levels_m, "--levels")


def test_levels_are_sorted_finest_first() -> None:
    assert check_levels((160.0, 80.0), "--levels") == (80.0, 160.0)
