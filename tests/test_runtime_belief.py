"""The belief: probabilities stay probabilities, motion blurs nothing, evidence has bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.runtime.belief import MAX_CELLS, Belief, Implied

BOUNDS_M = (-1000.0, -500.0, 1000.0, 500.0)
FLOOR = 0.05


def implied(*patches: tuple[tuple[float, float, float], ...]) -> Implied:
    """Patches of as many (east, north, probability)."""
    values = np.array(patches, float)
    return Implied(values[:, :, :2], values[:, :, 2])


def total(belief: Belief) -> float:
    return belief.mass_within(0.0, 0.0, 1e6) + belief.elsewhere


def test_nothing_is_believed_at_first() -> None:
    belief = Belief(BOUNDS_M, 10.0, elsewhere=0.1)
    assert belief.elsewhere == 0.1
    assert belief.mass_within(0, 0, 1e6) == pytest.approx(0.9, abs=1e-4)
    quarter = math.pi * 200**2 / (2000 * 1000)
    assert belief.mass_within(300, 100, 200) == pytest.approx(0.9 * quarter, rel=0.01)


def test_a_start_holds_95_percent_within_its_radius() -> None:
    belief = Belief(BOUNDS_M, 10.0)
    belief.start(100.0, -50.0, 150.0)
    assert belief.mass_within(100, -50, 150) == pytest.approx(0.95, abs=0.012)


def test_a_grid_has_at_most_a_million_cells() -> None:
    belief = Belief((0, 0, 100_000, 100_000), 10.0)
    assert belief.cell_m == pytest.approx(100_000 / math.sqrt(MAX_CELLS))


@given(
    st.lists(st.tuples(st.floats(-40, 40), st.floats(-40, 40)), max_size=12),
    st.floats(-300, 300),
    st.floats(-200, 200),
)
def test_known_motion_moves_the_mode_and_widens_nothing(
    steps: list[tuple[float, float]], east_m: float, north_m: float
) -> None:
    belief = Belief(BOUNDS_M, 10.0)
    belief.start(east_m, north_m, 60.0)
    before = belief.mode(150.0)
    for step in steps:
        belief.predict(np.array(step), 0.0, 0.0)
    after = belief.mode(150.0)
    moved = np.sum(steps, axis=0) if steps else np.zeros(2)
    if abs(east_m + moved[0]) < 800 and abs(north_m + moved[1]) < 300:
        assert after.east_m - before.east_m == pytest.approx(moved[0], abs=0.5)
        assert after.north_m - before.north_m == pytest.approx(moved[1], abs=0.5)
        assert after.spread_m == pytest.approx(before.spread_m, rel=0.02)
    assert total(belief) == pytest.approx(1, abs=1e-3)


def test_uncertain_motion_widens_by_as_much_as_it_is_uncertain() -> None:
    belief = Belief(BOUNDS_M, 10.0)
    belief.start(0.0, 0.0, 60.0)
    before = belief.mode(400.0).spread_m
    for _ in range(9):
        belief.predict(np.zeros(2), 10.0, 0.0)
    assert belief.mode(400.0).spread_m == pytest.approx(math.hypot(before, 30.0), rel=0.03)


def test_what_flies_off_the_grid_is_elsewhere_and_does_not_come_back_by_itself() -> None:
    belief = Belief(BOUNDS_M, 10.0, elsewhere=0.0)
    belief.start(900.0, 0.0, 20.0)
    belief.predict(np.array([200.0, 0.0]), 0.0, 0.0)
    assert belief.elsewhere == pytest.approx(1, abs=1e-3)
    belief.predict(np.array([-200.0, 0.0]), 0.0, 0.0)
    assert belief.elsewhere == pytest.approx(1, abs=1e-3)


def test_a_leak_spreads_over_all_cells() -> None:
    belief = Belief(BOUNDS_M, 10.0, elsewhere=0.01)
    belief.start(0.0, 0.0, 20.0)
    belief.predict(np.zeros(2), 0.0, 0.1)
    far = belief.mass_within(-700, 300, 100)
    assert far == pytest.approx(0.1 * 0.99 * math.pi * 100**2 / 2e6, rel=0.03)


def test_a_patch_moves_the_belief_to_where_its_tile_lies() -> None:
    belief = Belief(BOUNDS_M, 10.0)
    for _ in range(3):
        belief.update([implied(((200.0, 100.0, 0.9),))], 20.0, FLOOR, 1.0)
    mode = belief.mode(60.0)
    assert math.dist((mode.east_m, mode.north_m), (200, 100)) < 2
    assert mode.mass > 0.5


def test_one_patch_lowers_a_place_by_no_more_than_the_floor() -> None:
    belief = Belief(BOUNDS_M, 10.0)
    before = belief.mass_within(0, 0, 40) / belief.mass_within(505, 305, 1)
    belief.update([implied(((505.0, 305.0, 1.0),))], 20.0, FLOOR, 1.0)
    after = belief.mass_within(0, 0, 40) / belief.mass_within(505, 305, 1)
    assert after / before == pytest.approx(FLOOR, rel=1e-3)


def test_half_the_weight_is_half_the_evidence() -> None:
    gains = []
    for weight in (1.0, 0.5):
        belief = Belief(BOUNDS_M, 10.0)
        before = belief.mass_within(505, 305, 1) / belief.mass_within(-505, -305, 1)
        belief.update([implied(((505.0, 305.0, 1.0),))], 20.0, FLOOR, weight)
        after = belief.mass_within(505, 305, 1) / belief.mass_within(-505, -305, 1)
        gains.append(math.log(after / before))
    assert gains[1] == pytest.approx(gains[0] / 2, rel=1e-3)


def test_patches_that_agree_outweigh_a_patch_that_is_surer() -> None:
    belief = Belief(BOUNDS_M, 10.0)
    here, there = (300.0, 0.0), (-300.0, 0.0)
    belief.update([implied(((*here, 0.6),), ((*here, 0.6),), ((*there, 0.95),))], 20.0, FLOOR, 1.0)
    mode = belief.mode(60.0)
    assert mode.east_m == pytest.approx(300, abs=2)


def test_positions_beyond_the_grid_change_nothing() -> None:
    belief = Belief(BOUNDS_M, 10.0)
    before = belief.mass_within(100, 100, 50)
    belief.update([implied(((5000.0, 0.0, 0.9), (0.0, -4000.0, 0.1)))], 20.0, FLOOR, 1.0)
    assert belief.mass_within(100, 100, 50) == pytest.approx(before, rel=1e-5)


def test_headings_are_told_apart_by_what_each_implies() -> None:
    belief = Belief(BOUNDS_M, 10.0, headings=3)
    nothing = implied(((0.0, 0.0, 0.0),))
    for _ in range(3):
        belief.update([nothing, implied(((100.0, 0.0, 0.9),)), nothing], 20.0, FLOOR, 1.0)
    mode = belief.mode(60.0)
    assert mode.heading == 1
    belief.predict(np.array([[0.0, 0.0], [0.0, 50.0], [0.0, 0.0]]), 0.0, 0.0)
    assert belief.mode(60.0).north_m == pytest.approx(mode.north_m + 50, abs=1)


def test_looking_in_one_circle_alone_tells_nothing_of_the_ground_beyond() -> None:
    tiles = implied(((205.0, 55.0, 0.6), (250.0, 55.0, 0.2)))
    belief = Belief(BOUNDS_M, 10.0)
    belief.start(200.0, 50.0, 400.0)
    gate = (200.0, 50.0, 150.0)
    inside, total_mass = belief.mass_within(*gate), total(belief)
    there = belief.mass_within(205.0, 55.0, 40.0)
    belief.update([tiles], 15.0, FLOOR, 1.0, gate)
    assert belief.mass_within(*gate) == pytest.approx(inside, rel=1e-3)
    assert belief.mass_within(205.0, 55.0, 40.0) > 3 * there
    assert total(belief) == pytest.approx(total_mass)
    belief.update([tiles], 15.0, FLOOR, 1.0, gate, held=0.99)
    assert belief.mass_within(*gate) == pytest.approx(0.99, abs=1e-3)
    belief.update([tiles], 15.0, FLOOR, 3.0)
    assert belief.mass_within(*gate) > 0.995


def test_headings_are_parted_and_put_together_again() -> None:
    belief = Belief(BOUNDS_M, 20.0)
    belief.start(200.0, 50.0, 100.0)
    mass = belief.mass_within(200.0, 50.0, 60.0)
    belief.part(4)
    assert belief.headings == 4
    assert belief.mass_within(200.0, 50.0, 60.0) == pytest.approx(mass)
    seen = implied(((200.0, 50.0, 0.9),))
    belief.update([None, seen, None, None], 20.0, FLOOR, 1.0)
    mode = belief.mode(60.0)
    assert (mode.heading, belief.headings) == (1, 4)
    belief.part(1)
    assert belief.mass_within(200.0, 50.0, 60.0) == pytest.approx(mode.mass, rel=0.02)


def test_a_turn_that_nobody_tells_makes_neighbouring_headings_likely() -> None:
    belief = Belief(BOUNDS_M, 20.0, headings=8)
    belief.update([implied(((0.0, 0.0, 0.9),)), *[None] * 7], 20.0, FLOOR, 4.0)
    before = total(belief)
    alone = [float(part.sum()) for part in belief._mass]
    belief.turn(0.5)
    turned = [float(part.sum()) for part in belief._mass]
    assert total(belief) == pytest.approx(before)
    assert turned[0] < alone[0]
    assert turned[1] > alone[1] and turned[7] > alone[7]
    assert turned[4] == pytest.approx(alone[4], rel=1e-3)


def test_what_is_settled_is_believed_as_much_as_was_asked_and_the_rest_as_before() -> None:
    belief = Belief(BOUNDS_M, 10.0, elsewhere=0.1)
    belief.start(-600.0, 0.0, 50.0)
    before = belief.mass_within(-600.0, 0.0, 200.0)
    belief.settle(500.0, 100.0, 12.0, 0.98)
    assert belief.mass_within(500.0, 100.0, 60.0) == pytest.approx(0.98, abs=1e-3)
    assert belief.mass_within(-600.0, 0.0, 200.0) == pytest.approx(0.02 * before, rel=1e-3)
    assert total(belief) == pytest.approx(1.0, abs=1e-6)
    assert belief.mode(60.0).spread_m == pytest.approx(12.0, rel=0.1)
