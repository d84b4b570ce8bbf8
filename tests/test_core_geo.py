"""WGS84, the local frame, Web Mercator."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod, Transformer

from s4g.core.errors import InputError
from s4g.core.geo import (
    MERCATOR_MAX_LAT_DEG,
    BBox,
    LocalFrame,
    distance_m,
    mercator_from_wgs84,
    mercator_gsd_m,
    wgs84_from_mercator,
)

GEOD = Geod(ellps="WGS84")

latitudes = st.floats(-80, 80)
longitudes = st.floats(-179, 179)
kilometres = st.floats(-20_000, 20_000)


@given(latitudes, longitudes, kilometres, kilometres)
def test_local_metres_come_back_to_the_same_place(
    lat: float, lon: float, east: float, north: float
) -> None:
    frame = LocalFrame(lat, lon)
    back = frame.to_local(*frame.to_wgs84(east, north))
    assert np.allclose(back, (east, north), atol=1e-4)


@given(latitudes, longitudes, st.floats(0, 360), st.floats(0.1, 30_000))
def test_a_place_lies_in_the_local_frame_where_geodesic_azimuth_and_distance_say(
    lat: float, lon: float, azimuth_deg: float, range_m: float
) -> None:
    lon2, lat2, _ = GEOD.fwd(lon, lat, azimuth_deg, range_m)
    east, north = LocalFrame(lat, lon).to_local(lat2, lon2)
    azimuth = math.radians(azimuth_deg)
    expected = range_m * math.sin(azimuth), range_m * math.cos(azimuth)
    assert np.allclose((east, north), expected, atol=1e-3)


@given(latitudes, longitudes, latitudes, longitudes)
def test_distance_is_the_geodesic_one(lat1: float, lon1: float, lat2: float, lon2: float) -> None:
    assert distance_m(lat1, lon1, lat2, lon2) == GEOD.inv(lon1, lat1, lon2, lat2)[2]


def test_one_degree_of_latitude_at_the_equator_is_110574_m() -> None:
    assert distance_m(0, 0, 1, 0) == pytest.approx(110_574.4, abs=0.1)


def test_distances_broadcast() -> None:
    assert distance_m(47.0, [8.0, 8.1, 8.2], 47.0, 8.0).shape == (3,)


def test_scale_is_true_to_1e_5_within_50_km() -> None:
    frame = LocalFrame(47.0, 8.0)
    (lat1, lat2), (lon1, lon2) = frame.to_wgs84([50_000, 50_000], [0, 1000])
    assert float(distance_m(lat1, lon1, lat2, lon2)) == pytest.approx(1000, rel=1.1e-5)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (2, 3), (0,)])
def test_arrays_keep_their_shape(shape: tuple[int, ...]) -> None:
    frame = LocalFrame(47.0, 8.0)
    east, north = frame.to_local(np.full(shape, 47.1), np.full(shape, 8.1))
    lat, lon = frame.to_wgs84(east, north)
    away = distance_m(lat, lon, 47.0, 8.0)
    assert east.shape == north.shape == lat.shape == lon.shape == away.shape == shape
    assert np.allclose(lat, 47.1) and np.allclose(lon, 8.1) and (away > 1000).all()


def test_the_frame_is_a_proj_string_that_proj_understands_alike() -> None:
    frame = LocalFrame(47.123456789, -8.987654321)
    transformer = Transformer.from_crs("EPSG:4326", frame.crs, always_xy=True)
    expected = transformer.transform(-8.9, 47.1)
    assert np.allclose(frame.to_local(47.1, -8.9), expected, atol=1e-9)


def test_frames_of_the_same_origin_are_equal_also_after_use_and_copy() -> None:
    used = LocalFrame(47.0, 8.0)
    used.to_local(47.0, 8.0)
    assert used == LocalFrame(47.0, 8.0) == copy.deepcopy(used)


@given(latitudes, longitudes, st.floats(0.001, 0.3), st.floats(0.001, 0.3))
def test_local_bounds_of_a_box_hold_all_of_it(
    lat: float, lon: float, height: float, width: float
) -> None:
    box = BBox(lon, lat, lon + width, lat + height)
    frame = LocalFrame(*box.center)
    west, south, east, north = frame.local_bounds(box)
    lats, lons = np.meshgrid(
        np.linspace(box.south, box.north, 9), np.linspace(box.west, box.east, 9)
    )
    x, y = frame.to_local(lats, lons)
    slack = 0.01
    assert west - slack <= x.min() and x.max() <= east + slack
    assert south - slack <= y.min() and y.max() <= north + slack


@given(latitudes, st.floats(-170, 170), st.floats(10, 20_000))
def test_wgs84_bounds_of_a_local_box_hold_its_corners(lat: float, lon: float, half: float) -> None:
    frame = LocalFrame(lat, lon)
    box = frame.wgs84_bounds(-half, -half, half, half)
    lats, lons = frame.to_wgs84([-half, half, half, -half], [-half, -half, half, half])
    assert box.south <= lats.min() and lats.max() <= box.north
    assert box.west <= lons.min() and lons.max() <= box.east
    assert box.south < lat < box.north and box.west < lon < box.east


def test_a_local_box_across_the_antimeridian_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        LocalFrame(-17.0, 179.999).wgs84_bounds(-1000, -1000, 1000, 1000)
    assert str(caught.value) == (
        "a box around -17.0000,179.9990 crosses the antimeridian or leaves the Earth; "
        "such regions are not supported"
    )


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        (
            (8.2, 47.0, 8.1, 47.1),
            "bbox 8.2,47,8.1,47.1: west 8.2 must be less than east 8.1; the order is W,S,E,N",
        ),
        (
            (8.1, 47.1, 8.2, 47.0),
            "bbox 8.1,47.1,8.2,47: south 47.1 must be less than north 47; the order is W,S,E,N",
        ),
        (
            (8.1, 47.0, 8.1, 47.1),
            "bbox 8.1,47,8.1,47.1: west 8.1 must be less than east 8.1; the order is W,S,E,N",
        ),
        (
            (8.1, 47.0, 188.2, 47.1),
            "bbox 8.1,47,188.2,47.1: longitudes must lie between -180 and 180 degrees",
        ),
        (
            (8.1, 47.0, 8.2, 91.0),
            "bbox 8.1,47,8.2,91: latitudes must lie between -90 and 90 degrees",
        ),
        (
            (math.nan, 47.0, 8.2, 47.1),
            "bbox nan,47,8.2,47.1: longitudes must lie between -180 and 180 degrees",
        ),
    ],
)
def test_an_impossible_box_is_refused(
    sides: tuple[float, float, float, float], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        BBox(*sides)
    assert str(caught.value) == message


def test_a_box_prints_to_a_tenth_of_a_metre() -> None:
    assert str(BBox(-122.1234564, 37.0, -122.0, 37.98765432)) == "-122.123456,37,-122,37.987654"


def test_boxes_intersect_in_their_common_part() -> None:
    box = BBox(8, 47, 9, 48)
    assert box.intersection(BBox(8.5, 46, 10, 47.5)) == BBox(8.5, 47, 9, 47.5)
    assert box.intersection(box) == box


def test_boxes_that_only_touch_do_not_intersect() -> None:
    assert BBox(8, 47, 9, 48).intersection(BBox(9, 47, 10, 48)) is None


@given(st.floats(-85, 85), st.floats(-180, 180))
def test_mercator_is_that_of_proj(lat: float, lon: float) -> None:
    to_mercator = Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True)
    assert np.allclose(mercator_from_wgs84(lat, lon), to_mercator.transform(lon, lat), atol=1e-6)


@given(st.floats(-85, 85), st.floats(-180, 180))
def test_mercator_comes_back_to_the_same_place(lat: float, lon: float) -> None:
    assert np.allclose(wgs84_from_mercator(*mercator_from_wgs84(lat, lon)), (lat, lon), atol=1e-10)


def test_the_mercator_world_is_square() -> None:
    x, y = mercator_from_wgs84(MERCATOR_MAX_LAT_DEG, 180.0)
    assert float(x) == pytest.approx(float(y))


def test_a_zoom_0_pixel_at_the_equator_is_156_km() -> None:
    assert mercator_gsd_m(0.0, 0) == pytest.approx(156_543.034, abs=1e-3)
    assert mercator_gsd_m(60.0, 1) == pytest.approx(156_543.034 / 4, abs=1e-3)
