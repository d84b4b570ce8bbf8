from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.core.geo import BBox, LocalFrame, distance_m
from s4g.runtime.route import Route, fly, pattern_route, read_route

FRAME = LocalFrame(47.0, 8.0)


def route(*points_m: tuple[float, float], agl_m: list[float] | None = None) -> Route:
    """Return a route through east, north metres around 47 N, 8 E."""
    lat, lon = FRAME.to_wgs84(*np.array(points_m, float).T)
    return Route("test", lat, lon, None if agl_m is None else np.array(agl_m))


def geojson(tmp_path: Path, value: object) -> Path:
    path = tmp_path / "way.geojson"
    path.write_text(json.dumps(value))
    return path


LINE = {"type": "LineString", "coordinates": [[8.0, 47.0, 400.0], [8.01, 47.02]]}


def test_a_csv_gives_waypoints_and_heights(tmp_path: Path) -> None:
    path = tmp_path / "way.csv"
    path.write_text("lat,lon,agl_m\n47.0,8.0,100\n47.1,8.2,120\n")
    read = read_route(path)
    assert read.lat_deg.tolist() == [47.0, 47.1]
    assert read.lon_deg.tolist() == [8.0, 8.2]
    assert read.agl_m is not None
    assert read.agl_m.tolist() == [100.0, 120.0]


def test_a_csv_without_heights_has_none(tmp_path: Path) -> None:
    path = tmp_path / "way.csv"
    path.write_text("lon,lat\n8.0,47.0\n8.2,47.1\n")
    assert read_route(path).agl_m is None


@pytest.mark.parametrize(
    "value",
    [
        LINE,
        {"type": "Feature", "geometry": LINE, "properties": {}},
        {
            "type": "FeatureCollection",
            "features": [
                {"type": "Feature", "geometry": {"type": "Point", "coordinates": [8, 47]}},
                {"type": "Feature", "geometry": LINE},
            ],
        },
    ],
)
def test_a_geojson_line_is_a_route_in_lon_lat_order(tmp_path: Path, value: object) -> None:
    read = read_route(geojson(tmp_path, value))
    assert read.lat_deg.tolist() == [47.0, 47.02]
    assert read.lon_deg.tolist() == [8.0, 8.01]
    assert read.agl_m is None  # its heights are above the sea


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "lat,agl_m\n47,100\n",
            "--route {path}: lacks the column lon; found lat, agl_m; "
            "expected lat, lon and optionally agl_m",
        ),
        ("lat,lon\n", "{path}: has no rows; expected a header line and one row per frame"),
        ("lat,lon\n47,8\n", "--route {path}: has 1 waypoint, expected 2 or more"),
        (
            "lat,lon\n47,8\n4x,8\n",
            "{path}: line 3, column lat: '4x' is not a finite number",
        ),
        (
            "lat,lon\n47,8\n97,8\n",
            "--route {path}: waypoint 2: lat 97 is not between -90 and 90 degrees",
        ),
        (
            "lat,lon\n47,8\n47,190\n",
            "--route {path}: waypoint 2: lon 190 is not between -180 and 180 degrees",
        ),
        (
            "lat,lon,agl_m\n47,8,100\n47,8.1,0\n",
            "{path}: line 3, column agl_m: 0 is not above the ground",
        ),
    ],
)
def test_a_wrong_csv_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "way.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=f"^{re.escape(message.format(path=path))}$"):
        read_route(path)


def test_a_missing_route_is_refused(tmp_path: Path) -> None:
    for name in ("none.csv", "none.geojson"):
        path = tmp_path / name
        with pytest.raises(InputError, match=re.escape(f"{path}: cannot be read (No such file")):
            read_route(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{not json", "not a GeoJSON file; expected a LineString"),
        ("[1, 2]", "holds 0 LineStrings, expected exactly one"),
        ('{"type": "Point", "coordinates": [8, 47]}', "holds 0 LineStrings, expected exactly one"),
        (
            json.dumps({"type": "GeometryCollection", "geometries": [LINE, LINE]}),
            "holds 2 LineStrings, expected exactly one",
        ),
        (
            '{"type": "LineString", "coordinates": [[8], [9]]}',
            "its LineString's coordinates are not [lon, lat] numbers",
        ),
        (
            '{"type": "LineString", "coordinates": null}',
            "its LineString's coordinates are not [lon, lat] numbers",
        ),
    ],
)
def test_a_wrong_geojson_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "way.geojson"
    path.write_text(text)
    with pytest.raises(InputError, match=f"^{re.escape(f'--route {path}: {message}')}$"):
        read_route(path)


def test_a_flight_keeps_its_speed_and_visits_its_ends() -> None:
    track = fly(route((0, 0), (300, 0), (300, 200)), 100.0, speed_mps=10, fps=2)
    assert track.length_m == pytest.approx(500, abs=0.01)
    assert len(track.t) == 101
    assert track.t[-1] == pytest.approx(50)
    assert np.allclose(np.hypot(track.vel_n_mps, track.vel_e_mps), 10)
    ends = distance_m(*FRAME.to_wgs84([0, 300], [0, 200]), track.lat_deg[[0, -1]],
                      track.lon_deg[[0, -1]])  # fmt: skip
    assert (ends < 0.01).all()
    steps = distance_m(track.lat_deg[:-1], track.lon_deg[:-1], track.lat_deg[1:], track.lon_deg[1:])
    assert steps == pytest.approx(5.0, abs=0.01)


@pytest.mark.parametrize(
    ("east_m", "north_m", "yaw_deg"),
    [(0, 500, 0), (500, 0, 90), (0, -500, 180), (-500, 0, 270), (300, 300, 45)],
)
def test_the_heading_is_the_direction_of_travel(
    east_m: float, north_m: float, yaw_deg: float
) -> None:
    track = fly(route((0, 0), (east_m, north_m)), 100.0, speed_mps=20, fps=1)
    course_deg = np.degrees(np.arctan2(track.vel_e_mps, track.vel_n_mps))
    for seen in (track.yaw_deg, course_deg):
        assert np.abs((seen - yaw_deg + 180) % 360 - 180).max() < 0.02
    assert ((track.yaw_deg >= 0) & (track.yaw_deg < 360)).all()


def test_the_aircraft_turns_at_a_corner_over_a_second_or_so() -> None:
    track = fly(route((0, 0), (200, 0), (200, 200)), 100.0, speed_mps=10, fps=20)
    turning = (track.yaw_deg > 1) & (track.yaw_deg < 89)
    assert 0.5 < turning.sum() / 20 < 2.0
    assert (np.diff(track.yaw_deg) < 0.5).all()


def test_a_way_straight_back_has_a_heading() -> None:
    track = fly(route((0, 0), (200, 0), (0, 0)), 100.0, speed_mps=10, fps=5)
    assert np.isfinite(track.yaw_deg).all()
    assert (np.abs(((track.yaw_deg + 90) % 180) - 0) < 0.1).all()  # 90 or 270, nothing between


def test_heights_of_waypoints_are_interpolated() -> None:
    track = fly(route((0, 0), (100, 0), agl_m=[50, 150]), None, speed_mps=10, fps=1)
    assert track.agl_m == pytest.approx(np.linspace(50, 150, 11))


def test_repeated_waypoints_do_no_harm() -> None:
    track = fly(route((0, 0), (0, 0), (100, 0), (100, 0)), 90.0, speed_mps=10, fps=1)
    assert len(track.t) == 11
    assert np.isfinite(track.vel_e_mps).all()


@pytest.mark.parametrize(
    ("waypoints", "agl_m", "fps", "message"),
    [
        (
            route((0, 0), (9, 0)),
            None,
            1.0,
            "--agl: missing; give the height above ground in metres, or an agl_m column in --route",
        ),
        (
            route((0, 0), (9, 0), agl_m=[5, 5]),
            100.0,
            1.0,
            "--agl 100: test has an agl_m column; leave out one of the two",
        ),
        (
            route((5, 5), (5, 5)),
            100.0,
            1.0,
            "test: all waypoints are the same place; expected a way to fly",
        ),
        (
            route((0, 0), (100_000, 0)),
            100.0,
            100.0,
            "test: 100.0 km at --speed 10 and --fps 100 are 1000001 frames, at most 100000; "
            "lower --fps",
        ),
    ],
)
def test_a_flight_that_cannot_be_flown_is_refused(
    waypoints: Route, agl_m: float | None, fps: float, message: str
) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        fly(waypoints, agl_m, speed_mps=10, fps=fps)


BOUNDS = FRAME.wgs84_bounds(-500, -300, 500, 300)


def test_lanes_cover_the_source_and_keep_the_inset() -> None:
    lanes = pattern_route("lawnmower", BOUNDS, inset_m=50, spacing_m=100)
    east, north = FRAME.to_local(lanes.lat_deg, lanes.lon_deg)
    assert len(east) == 2 * 6
    assert sorted(set(np.round(north).tolist())) == pytest.approx(
        np.linspace(-250, 250, 6), abs=1.5
    )
    assert np.abs(east).max() == pytest.approx(450, abs=1.0)
    # Lanes alternate, so that the way between them is short.
    assert (np.sign(east[1:-1:2]) == np.sign(east[2::2])).all()


def test_a_line_crosses_the_middle() -> None:
    line = pattern_route("line", BOUNDS, inset_m=100, spacing_m=100)
    east, north = FRAME.to_local(line.lat_deg, line.lon_deg)
    assert east == pytest.approx([-400, 400], abs=1.0)
    assert north == pytest.approx([0, 0], abs=1.0)


def test_an_inset_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(InputError) as error:
        pattern_route("lawnmower", BOUNDS, inset_m=400, spacing_m=100)
    assert re.fullmatch(
        r"--inset 400: leaves nothing of the source's 100\d x 60\d m; choose a smaller inset, "
        r"a lower --agl or a narrower --hfov",
        str(error.value),
    )


@given(
    inset_m=st.floats(0, 290),
    spacing_m=st.floats(5, 2000),
    lat=st.floats(-70, 70),
    lon=st.floats(-179, 179),
)
def test_a_pattern_stays_inside_anywhere_on_earth(
    inset_m: float, spacing_m: float, lat: float, lon: float
) -> None:
    frame = LocalFrame(lat, lon)
    box = frame.wgs84_bounds(-500, -300, 500, 300)
    way = pattern_route("lawnmower", box, inset_m, spacing_m)
    east, north = frame.to_local(way.lat_deg, way.lon_deg)
    assert np.abs(east).max() <= 500 - inset_m + 2
    assert np.abs(north).max() <= 300 - inset_m + 2
    lanes = np.unique(np.round(north, 1))
    if len(lanes) > 1:
        assert np.diff(lanes).max() < 2 * spacing_m + 1


def test_bounds_are_used_as_given() -> None:
    box = BBox(8.0, 47.0, 8.01, 47.01)
    way = pattern_route("line", box, 0.0, 1.0)
    assert way.lon_deg.min() == pytest.approx(8.0, abs=1e-5)
    assert way.lon_deg.max() == pytest.approx(8.01, abs=1e-5)
