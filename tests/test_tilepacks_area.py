from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("shapely", reason="areas need shapely (the pack extra)")

from s4g.core.errors import InputError
from s4g.core.geo import LocalFrame
from s4g.tilepacks.area import Area, read_area, read_route

TRIANGLE = [[8.0, 47.0], [8.01, 47.0], [8.0, 47.01], [8.0, 47.0]]
HOLE = [[8.001, 47.001], [8.002, 47.001], [8.001, 47.002], [8.001, 47.001]]


def write(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def holds(area: Area, lat: float, lon: float) -> bool:
    frame = LocalFrame(47.2, 8.1)  # any other than the area's own
    east, north = frame.to_local(np.array([lat]), np.array([lon]))
    return bool(area.holds(frame, east, north)[0])


def polygon(folder: Path, *rings: list[list[float]]) -> Area:
    return read_area(write(folder, "a.geojson", {"type": "Polygon", "coordinates": list(rings)}))


def test_a_polygon_holds_what_lies_inside_and_not_its_holes(tmp_path: Path) -> None:
    area = polygon(tmp_path, TRIANGLE, HOLE)
    assert holds(area, 47.003, 8.003)
    assert not holds(area, 47.008, 8.008)
    assert not holds(area, 47.0012, 8.0012)


def test_polygons_are_found_in_collections_and_features(tmp_path: Path) -> None:
    inner = {"type": "MultiPolygon", "coordinates": [[TRIANGLE]]}
    content = {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": inner}]}
    assert holds(read_area(write(tmp_path, "a.geojson", content)), 47.003, 8.003)


def test_the_bounds_hold_the_area(tmp_path: Path) -> None:
    bounds = polygon(tmp_path, TRIANGLE).bounds
    sides = (bounds.west, bounds.south, bounds.east, bounds.north)
    assert sides == pytest.approx((8.0, 47.0, 8.01, 47.01), abs=1e-5)


GPX = (
    '<gpx version="1.1" creator="x" xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>'
    '<trkpt lat="47" lon="8"/><trkpt lat="47" lon="8.01"/></trkseg></trk></gpx>'
)
WAYPOINTS = (
    "QGC WPL 110\n0\t1\t0\t16\t0\t0\t0\t0\t47.0\t8.0\t100\t1\n"
    "1\t0\t3\t178\t0\t0\t0\t0\t48.0\t9.0\t100\t1\n"  # a change of speed, nowhere
    "2\t0\t3\t16\t0\t0\t0\t0\t47.0\t8.01\t100\t1\n3\t0\t3\t20\t0\t0\t0\t0\t0\t0\t0\t1\n"
)
PLAN = {
    "mission": {
        "items": [
            {"command": 22, "params": [0, 0, 0, None, 47.0, 8.0, 50]},
            {
                "TransectStyleComplexItem": {
                    "Items": [{"command": 16, "params": [0, 0, 0, 0, 47.0, 8.01, 50]}]
                }
            },
            {"command": 20, "params": [0, 0, 0, 0, 0, 0, 0]},
        ]
    }
}
LINE = {"type": "LineString", "coordinates": [[8.0, 47.0], [8.01, 47.0]]}


@pytest.mark.parametrize(
    ("name", "content"),
    [("r.gpx", GPX), ("r.waypoints", WAYPOINTS), ("r.plan", PLAN), ("r.geojson", LINE)],
)
def test_a_corridor_reaches_half_its_width_to_both_sides(
    tmp_path: Path, name: str, content: object
) -> None:
    pytest.importorskip("gpxpy", reason="GPX needs gpxpy (the pack extra)")
    area = read_route(write(tmp_path, name, content), 400.0)
    for lat, inside in ((47.0017, True), (46.9983, True), (47.0019, False), (46.9981, False)):
        assert holds(area, lat, 8.005) == inside  # 0.0018 degrees are 200 m
    assert not holds(area, 47.0, 8.02)


def test_a_single_place_has_a_round_corridor(tmp_path: Path) -> None:
    area = read_route(
        write(tmp_path, "r.geojson", {"type": "LineString", "coordinates": [[8.0, 47.0]]}), 400.0
    )
    assert holds(area, 47.001, 8.0)
    assert not holds(area, 47.0, 8.004)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is no JSON (Expecting property name enclosed in double quotes: line 1 column 2"
              " (char 1))"),
        (LINE, "holds no polygon; draw one, or use --route for a line"),
        ({"type": "Polygon", "coordinates": [[[8, 47], [8.1, 47], [8, 47]]]},
         "a shape of 3 points; expected 4 to 100,000"),
        ({"type": "Polygon", "coordinates": [[[47, 98], [47.1, 98], [47, 98.1], [47, 98]]]},
         "longitude 47, latitude 98 is no place; the order is longitude, latitude, in WGS84"
         " degrees"),
        ({"type": "Polygon", "coordinates": [[["x", 1]] * 4]},
         "a place in it is no longitude and latitude"),
        ({"type": "Polygon", "coordinates": 5}, "a place in it is no longitude and latitude"),
        ({"type": "Polygon", "coordinates": [[[179, 0], [-179, 0], [179, 1], [179, 0]]]},
         "crosses the antimeridian; pack its two sides apart"),
    ],
)  # fmt: skip
def test_what_is_no_area_is_refused(tmp_path: Path, content: object, reason: str) -> None:
    path = write(tmp_path, "a.geojson", content)
    with pytest.raises(InputError) as error:
        read_area(path)
    assert str(error.value) == f"{path}: {reason}"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("r.txt", "hello", "is no route; expected GPX, GeoJSON, .plan, or a .waypoints file that "
                           "starts with 'QGC WPL'"),
        ("r.waypoints", "QGC WPL 110\n1 2 3\n", "line 2 is no waypoint: '1 2 3'"),
        ("r.plan", {"mission": 4}, "is no plan of QGroundControl; save it again"),
        ("r.geojson", {"type": "Point", "coordinates": [8, 47]},
         "holds no route; expected GPX, GeoJSON, .waypoints or .plan"),
        ("r.gpx", '<!DOCTYPE a [<!ENTITY b "c">]><gpx/>',
         "declares entities, which no GPX needs; save it again"),
    ],
)  # fmt: skip
def test_what_is_no_route_is_refused(
    tmp_path: Path, name: str, content: object, reason: str
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(InputError) as error:
        read_route(path, 100.0)
    assert str(error.value) == f"{path}: {reason}"


def test_a_route_needs_a_width(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_route(tmp_path / "r.gpx", 0.0)
    assert str(error.value) == "--width 0: expected metres above 0"
