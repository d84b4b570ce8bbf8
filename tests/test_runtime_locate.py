import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.runtime.locate import (
    HPL_PER_SIGMA,
    MAX_CANDIDATES,
    MIN_MASS,
    Estimate,
    Evidence,
    Gate,
    gather,
    joined,
    joint_weights,
    locate,
    tile_probabilities,
)

FOOTPRINT_M, STRIDE_M, TEMPERATURE, UNKNOWN = 80.0, 20.0, 0.05, 0.6


class Lattice:
    """Tiles every 20 m whose scores fall off with the distance from the places given."""

    def __init__(self, places: list[tuple[float, float]], heights: list[float] | None = None):
        axis = np.arange(-400.0, 401.0, STRIDE_M)
        east, north = np.meshgrid(axis, axis)
        self.east_m, self.north_m = east.ravel(), north.ravel()
        self.places, self.heights = places, heights or [0.9] * len(places)
        self.asked: tuple[int, int] | None = None

    def surface(self, east: float, north: float, height: float) -> np.ndarray:
        distance2 = (self.east_m - east) ** 2 + (self.north_m - north) ** 2
        return height * np.exp(-0.5 * distance2 / 35.0**2)

    def search(self, queries: np.ndarray, level: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Each query holds the number of the place it looks at, -1 for one that matches none."""
        self.asked = (level, k)
        rows = []
        for (number,) in queries:
            if number < 0:
                rng = np.random.default_rng(int(-number))
                rows.append(rng.uniform(0.0, 0.3, len(self.east_m)))
            else:
                spots = [
                    self.surface(e, n, h)
                    for e, n, h in zip(
                        *np.array(self.places).T.reshape(2, -1), self.heights, strict=True
                    )
                ]
                rows.append(np.max(spots, axis=0) if number >= len(spots) else spots[int(number)])
        scores = np.array(rows, np.float32)
        ids = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return ids.astype(np.int64), np.take_along_axis(scores, ids, axis=1)

    def search_near(
        self, queries: np.ndarray, level: int, k: int, points_m: np.ndarray, radius_m: float
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """As `search`, of the tiles near; none are where the radius is 0."""
        if radius_m == 0:
            return None
        ids, scores = self.search(queries, level, len(self.east_m))
        apart_m = np.hypot(self.east_m[ids] - points_m[:, :1], self.north_m[ids] - points_m[:, 1:])
        scores = np.where(apart_m <= radius_m, scores, np.float32(-1))
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)


def find(lattice: Lattice, queries: list[int], offsets: list[tuple[float, float]]) -> Estimate:
    array = np.array(queries, np.float32).reshape(-1, 1)
    evidence = gather(lattice, 0, array, np.array(offsets, np.float64))
    return locate(evidence, FOOTPRINT_M, TEMPERATURE, UNKNOWN, 100.0)


def test_search_asks_for_the_given_level_and_enough_tiles() -> None:
    lattice = Lattice([(0.0, 0.0)])
    evidence = gather(lattice, 2, np.zeros((1, 1), np.float32), np.zeros((1, 2)))
    assert lattice.asked == (2, MAX_CANDIDATES)
    assert evidence.tiles_m.shape == (1, MAX_CANDIDATES, 2)
    assert evidence.tiles_m[0, 0] == pytest.approx([0.0, 0.0])


@given(east=st.floats(-200, 200), north=st.floats(-200, 200))
def test_a_clear_match_is_found_between_the_tiles(east: float, north: float) -> None:
    estimate = find(Lattice([(east, north)]), [0], [(0.0, 0.0)])
    assert math.hypot(estimate.east_m - east, estimate.north_m - north) < 0.3 * STRIDE_M
    assert estimate.is_certain
    assert estimate.mass > 0.99


def test_the_drone_is_the_matched_ground_less_the_look_point() -> None:
    estimate = find(Lattice([(60.0, -40.0)]), [0], [(25.0, 10.0)])
    assert (estimate.east_m, estimate.north_m) == pytest.approx((35.0, -50.0), abs=1.0)


def test_two_places_alike_are_ambiguous() -> None:
    estimate = find(Lattice([(-200.0, 0.0), (200.0, 0.0)]), [2], [(0.0, 0.0)])
    assert estimate.mass == pytest.approx(0.5, abs=0.01)
    assert not estimate.is_certain


def test_a_second_patch_resolves_what_one_cannot() -> None:
    """Patch 0 fits two places alike; patch 1, 50 m east of it, fits beside one of them."""
    lattice = Lattice([(-200.0, 0.0), (200.0, 0.0), (250.0, 0.0)], [0.9, 0.9, 0.9])
    alone = Lattice(lattice.places[:2])
    assert not find(alone, [2], [(0.0, 0.0)]).is_certain
    scores_a = np.maximum(alone.surface(-200, 0, 0.9), alone.surface(200, 0, 0.9))
    scores_b = alone.surface(250, 0, 0.9)
    estimate = locate(
        evidence_of(alone, [scores_a, scores_b], [(0, 0), (50, 0)]), 80.0, 0.05, UNKNOWN, 100.0
    )
    assert estimate.is_certain
    assert (estimate.east_m, estimate.north_m) == pytest.approx((200.0, 0.0), abs=3.0)


def evidence_of(
    lattice: Lattice, rows: list[np.ndarray], offsets: list[tuple[float, float]]
) -> Evidence:
    scores = np.array(rows, np.float32)
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :MAX_CANDIDATES].astype(np.int64)
    tiles = np.stack([lattice.east_m[ids], lattice.north_m[ids]], axis=-1)
    chosen = np.take_along_axis(scores, ids, axis=1)
    return Evidence(ids, chosen, tiles, np.array(offsets, np.float64))


def test_one_patch_that_matches_nothing_cannot_veto_the_others() -> None:
    lattice = Lattice([(60.0, 60.0)])
    estimate = find(lattice, [0, -7], [(0.0, 0.0), (60.0, 0.0)])
    assert (estimate.east_m, estimate.north_m) == pytest.approx((60.0, 60.0), abs=3.0)
    assert estimate.is_certain


def test_noise_gives_no_fix() -> None:
    estimate = find(Lattice([(0.0, 0.0)]), [-3], [(0.0, 0.0)])
    assert estimate.mass < MIN_MASS


def test_one_weak_peak_alone_gives_no_fix_when_ground_beyond_the_map_scores_as_much() -> None:
    """Nothing else in the pack competes: only the rival can tell that this is a poor match."""
    weak = Lattice([(0.0, 0.0)], [UNKNOWN - 0.2])
    assert find(weak, [0], [(0.0, 0.0)]).mass < 0.3
    assert find(Lattice([(0.0, 0.0)], [0.9]), [0], [(0.0, 0.0)]).mass > 0.95


def test_the_bound_is_a_fixed_multiple_of_sigma_and_doubt_widens_both() -> None:
    sure = find(Lattice([(0.0, 0.0)]), [0], [(0.0, 0.0)])
    torn = find(Lattice([(-200.0, 0.0), (200.0, 0.0)], [0.9, 0.84]), [2], [(0.0, 0.0)])
    assert sure.hpl_m == pytest.approx(HPL_PER_SIGMA * sure.sigma_m)
    assert torn.mass < sure.mass
    assert torn.sigma_m > sure.sigma_m


def weights_of(positions: np.ndarray, scores: np.ndarray) -> np.ndarray:
    logits = scores.astype(np.float64) / TEMPERATURE
    return joint_weights(positions, tile_probabilities(logits, UNKNOWN / TEMPERATURE), FOOTPRINT_M)


@given(scores=st.lists(st.floats(-1, 1, width=32), min_size=6, max_size=6))
def test_weights_are_probabilities(scores: list[float]) -> None:
    rng = np.random.default_rng(0)
    positions = rng.uniform(-100, 100, (2, 3, 2))
    array = np.array(scores, np.float32).reshape(2, 3)
    weights = weights_of(positions, array)
    assert weights.sum() == pytest.approx(1.0)
    assert (weights >= 0).all()


@pytest.mark.parametrize("scores", [[[-1.0, -1.0]], [[1.0, 1.0]]])
def test_scores_at_the_ends_of_their_range_stay_finite(scores: list[list[float]]) -> None:
    own = tile_probabilities(np.array(scores) / 1e-3, 600.0)
    weights = joint_weights(np.zeros((1, 2, 2)), own, FOOTPRINT_M)
    np.testing.assert_allclose(weights, [[0.5, 0.5]])


def test_a_patch_of_ground_that_the_pack_lacks_has_little_say() -> None:
    """Both patches have one best tile; a cosine of 0.35 is what unmapped ground reaches too."""
    positions = np.array([[[0.0, 0.0], [500.0, 0.0]], [[900.0, 0.0], [400.0, 400.0]]])
    scores = np.array([[0.85, 0.2], [0.35, -0.3]], np.float32)
    weights = weights_of(positions, scores)
    assert weights[0, 0] > 0.99


def test_one_patch_alone_gets_the_softmax_of_its_scores() -> None:
    scores = np.array([[0.8, 0.75, 0.3]], np.float32)
    weights = weights_of(np.zeros((1, 3, 2)), scores)
    expected = np.exp(scores.astype(np.float64) / TEMPERATURE)
    np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-5)


def test_the_order_of_the_patches_does_not_matter() -> None:
    lattice = Lattice([(30.0, 30.0)])
    one = find(lattice, [0, -5], [(0.0, 0.0), (40.0, 0.0)])
    other = find(lattice, [-5, 0], [(40.0, 0.0), (0.0, 0.0)])
    assert (one.east_m, one.north_m, one.mass) == pytest.approx(
        (other.east_m, other.north_m, other.mass)
    )


def test_inside_a_gate_the_drone_is_found_where_it_is_and_not_where_ground_looks_alike() -> None:
    lattice = Lattice([(-200.0, 100.0), (200.0, -100.0)], [0.9, 0.88])
    queries, offsets = np.full((2, 1), 5.0, np.float32), np.array([[0.0, 0.0], [30.0, -40.0]])
    gate = Gate(200.0, -100.0, 150.0)
    evidence = gather(lattice, 0, queries, offsets, gate)
    assert evidence.within == gate
    seen = evidence.scores > -1
    positions = evidence.tiles_m - offsets[:, None]
    assert (np.hypot(*(positions[seen] - [200.0, -100.0]).T) <= 150.0).all()
    found = locate(evidence, FOOTPRINT_M, TEMPERATURE, UNKNOWN, 100.0)
    assert found.east_m == pytest.approx(200.0 - 15.0, abs=25.0)
    assert found.mass > 0.9


def test_where_looking_near_is_no_faster_all_of_the_pack_is_searched_and_says_so() -> None:
    lattice = Lattice([(-200.0, 100.0)])
    query, offset = np.zeros((1, 1), np.float32), np.zeros((1, 2))
    evidence = gather(lattice, 0, query, offset, Gate(200.0, -100.0, 0.0))
    assert evidence.within is None
    assert evidence.tiles_m[0, 0] == pytest.approx([-200.0, 100.0])


def test_evidence_of_which_a_part_is_from_inside_a_gate_is_from_inside_it() -> None:
    lattice, gate = Lattice([(0.0, 0.0)]), Gate(0.0, 0.0, 100.0)
    query, offset = np.zeros((1, 1), np.float32), np.zeros((1, 2))
    inside, whole = (gather(lattice, 0, query, offset, within) for within in (gate, None))
    assert [joined(inside, whole).within, joined(whole, inside).within] == [gate, gate]
    assert joined(whole, whole).within is None
