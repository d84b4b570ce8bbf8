import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.geo import LocalFrame
from s4g.runtime.mavlink_local import Origin, ardupilot_metres, px4_metres

HERE = Origin(47.3977, 8.5456, 488.0)


def ardupilot_place(origin: Origin, north_m: float, east_m: float) -> tuple[float, float]:
    """`Location::offset_latlng`, written down anew: the way back that the autopilot takes."""
    lat = origin.lat + north_m * 89.83204953368922 * 1e-7
    scale = max(math.cos(math.radians((lat + origin.lat) / 2)), 0.01)
    return lat, origin.lon + east_m * 89.83204953368922 * 1e-7 / scale


def px4_place(origin: Origin, north_m: float, east_m: float) -> tuple[float, float]:
    """`MapProjection::reproject`, written down anew."""
    x, y = north_m / 6371000.0, east_m / 6371000.0
    c, lat0 = math.hypot(x, y), math.radians(origin.lat)
    if c == 0:
        return origin.lat, origin.lon
    lat = math.asin(math.cos(c) * math.sin(lat0) + x * math.sin(c) * math.cos(lat0) / c)
    turn = math.atan2(
        y * math.sin(c), c * math.cos(lat0) * math.cos(c) - x * math.sin(lat0) * math.sin(c)
    )
    return math.degrees(lat), origin.lon + math.degrees(turn)


@pytest.mark.parametrize(
    ("measure", "back"), [(ardupilot_metres, ardupilot_place), (px4_metres, px4_place)]
)
@given(st.floats(-60, 60), st.floats(-0.2, 0.2), st.floats(-0.2, 0.2))
def test_an_autopilot_that_turns_metres_back_is_where_the_fix_is(
    measure: object, back: object, lat: float, dlat: float, dlon: float
) -> None:
    origin = Origin(lat, 8.0, 0.0)
    north_m, east_m = measure(origin, lat + dlat, 8.0 + dlon)  # type: ignore[operator]
    got = back(origin, north_m, east_m)  # type: ignore[operator]
    assert got == pytest.approx((lat + dlat, 8.0 + dlon), abs=1e-7)


def test_metres_of_the_ellipsoid_would_be_wrong() -> None:
    lat, lon = 47.4477, 8.5456  # 5.56 km north
    _, north_m = LocalFrame(HERE.lat, HERE.lon).to_local(lat, lon)
    assert ardupilot_metres(HERE, lat, lon)[0] - float(north_m) == pytest.approx(6.9, abs=0.5)


def test_the_way_is_the_short_one_across_the_date_line() -> None:
    origin = Origin(0.0, 179.9, 0.0)
    for measure in (ardupilot_metres, px4_metres):
        north_m, east_m = measure(origin, 0.0, -179.9)
        assert north_m == pytest.approx(0, abs=1e-6)
        assert 22_000 < east_m < 22_300


def test_the_origin_is_no_way_off() -> None:
    assert ardupilot_metres(HERE, HERE.lat, HERE.lon) == (0.0, 0.0)
    assert px4_metres(HERE, HERE.lat, HERE.lon) == pytest.approx((0.0, 0.0), abs=0.2)
