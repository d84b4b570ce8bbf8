"""Geographic neighbours are those of the globe, in metres on the ground, not of a table."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import BallTree

from s4g.core.errors import InputError
from s4g.train.dataset import Positions
from s4g.train.geographic import geographic_neighbours

Floats = npt.NDArray[np.float64]


def great_circle(points: Floats) -> Floats:
    """Return all angles between points in degrees, from their unit vectors: no haversine."""
    lat, lon = np.radians(points).T
    unit = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    difference = np.linalg.norm(unit[:, None] - unit[None], axis=2)
    return np.asarray(2 * np.arcsin(np.minimum(difference / 2, 1)))


def nearest(distance: Floats, k: int) -> npt.NDArray[np.int32]:
    """Sort whole rows, equal ones by index; itself left out."""
    out = np.full((len(distance), k), -1, np.int32)
    for row, values in enumerate(distance):
        others = np.delete(np.arange(len(values)), row)
        order = others[np.lexsort((others, values[others]))][:k]
        out[row, : len(order)] = order
    return out


@given(seed=st.integers(0, 2**32 - 1), places=st.integers(1, 60), k=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_neighbours_on_the_globe_are_those_of_the_whole_table(
    seed: int, places: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    points = np.stack([rng.uniform(-90, 90, places), rng.uniform(-180, 180, places)], axis=1)
    found = geographic_neighbours(Positions(points, "wgs84"), k)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, nearest(great_circle(points), k))


@given(seed=st.integers(0, 2**32 - 1), places=st.integers(1, 120), k=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_ties_in_metres_go_by_index_even_where_many_share_a_point(
    seed: int, places: int, k: int
) -> None:
    points = np.random.default_rng(seed).integers(0, 4, (places, 2)).astype(np.float64)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    found = geographic_neighbours(Positions(points, "metres"), k)
    np.testing.assert_array_equal(found, nearest(distance, k))


def test_a_list_is_as_long_as_asked_and_filled_up_with_minus_one() -> None:
    points = np.array([[0.0, 0.0], [0.0, 3.0], [0.0, 1.0]])
    found = geographic_neighbours(Positions(points, "metres"), 4)
    np.testing.assert_array_equal(found, [[2, 1, -1, -1], [2, 0, -1, -1], [0, 1, -1, -1]])


def test_a_single_position_has_no_neighbours() -> None:
    found = geographic_neighbours(Positions(np.zeros((1, 2)), "metres"), 2)
    np.testing.assert_array_equal(found, [[-1, -1]])


def test_item_0_is_a_neighbour_like_any_other() -> None:
    points = np.array([[40.0, -75.0], [40.1, -75.0], [40.2, -75.0]])
    found = geographic_neighbours(Positions(points, "wgs84"), 2)
    np.testing.assert_array_equal(found, [[1, 2], [0, 2], [1, 0]])


def test_degrees_taken_for_radians_would_give_other_lists() -> None:
    # As CVUSA: street views all over a continent.
    rng = np.random.default_rng(5)
    points = np.stack([rng.uniform(25, 49, 400), rng.uniform(-124, -67, 400)], axis=1)
    truth = nearest(great_circle(points), 16)
    np.testing.assert_array_equal(geographic_neighbours(Positions(points, "wgs84"), 16), truth)

    wrong = BallTree(points, metric="haversine").query(points, 17)[1][:, 1:]
    shared = [len(np.intersect1d(a, b)) for a, b in zip(wrong, truth, strict=True)]
    assert np.mean(shared) < 4


def test_neighbours_reach_across_the_antimeridian() -> None:
    points = np.array([[0.0, 179.9], [0.0, 179.0], [0.0, -179.9]])
    found = geographic_neighbours(Positions(points, "wgs84"), 1)
    np.testing.assert_array_equal(found, [[2], [0], [0]])


def test_a_degree_of_longitude_shrinks_towards_the_pole() -> None:
    points = np.array([[60.0, 10.0], [60.0, 11.5], [61.0, 10.0]])
    found = geographic_neighbours(Positions(points, "wgs84"), 1)
    assert found[0, 0] == 1  # 83 km east, not 111 km north


@pytest.mark.parametrize(
    ("kind", "point", "message"),
    [
        (
            "metres",
            (float("nan"), 5.0),
            "positions: row 1 is nan, 5; every reference needs two finite coordinates",
        ),
        (
            "wgs84",
            (47.0, float("inf")),
            "positions: row 1 is 47, inf; every reference needs two finite coordinates",
        ),
        (
            "wgs84",
            (-122.25, 37.5),
            "positions: row 1 is -122.25, 37.5; a latitude lies between -90 and 90 degrees and "
            "comes first; are the columns swapped, or is this metres?",
        ),
    ],
)
def test_an_impossible_coordinate_is_refused_by_its_row(
    kind: Literal["wgs84", "metres"], point: tuple[float, float], message: str
) -> None:
    points = np.array([(0.0, 0.0), point])
    with pytest.raises(InputError) as error:
        geographic_neighbours(Positions(points, kind), 1)
    assert str(error.value) == message
