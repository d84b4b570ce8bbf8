"""GPX and GeoJSON tracks: what is in them, read by others' programs, and what a crash leaves."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.runtime import sink_file, sink_geojson, sink_gpx
from s4g.runtime.fix import State
from s4g.runtime.geojson import BEGINS, LONGEST_LINE, GeoJsonTrack, geojson_point
from s4g.runtime.gpx import NAMESPACE, GpxTrack, gpx_begins, gpx_point
from s4g.runtime.sink import Moment

t = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("sink_moments.py"))))
GPX = "{http://www.topografix.com/GPX/1/1}"
KINDS = {"gpx": sink_gpx.open_sink, "geojson": sink_geojson.open_sink}
needs_gdal = pytest.mark.skipif(shutil.which("ogr2ogr") is None, reason="GDAL is not installed")


def open_track(path: Path, overwrite: bool = False) -> Any:
    kind = path.suffix[1:]
    return KINDS[kind](t.url(f"{kind}:{path}"), t.running(overwrite))


def points_of(path: Path) -> list[list[tuple[float, float]]]:
    """Segments of (lat, lon), read with a plain parser."""
    if path.suffix == ".gpx":
        return [
            [(float(p.attrib["lat"]), float(p.attrib["lon"])) for p in segment]
            for segment in ET.parse(path).iter(GPX + "trkseg")
        ]
    segments: list[list[tuple[float, float]]] = []
    for feature in json.loads(path.read_text())["features"]:
        if feature["geometry"]["type"] == "Point":
            number = feature["properties"]["segment"]
            if number == len(segments):
                segments.append([])
            lon, lat = feature["geometry"]["coordinates"]
            segments[number].append((lat, lon))
    return segments


@contextmanager
def full_disk(free_bytes: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes; Python ignores the signal, so writes fail."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_gpx_point_has_position_time_and_all_that_is_known_of_it_with_units() -> None:
    assert gpx_point(t.seen_at(-47.25, 11.5, 3)) == (
        b'<trkpt lat="-47.2500000" lon="11.5000000"><time>2026-05-04T09:30:00.725Z</time>'
        b"<extensions><s4g:state>TRACK</s4g:state><s4g:source>visual</s4g:source>"
        b"<s4g:frame>3</s4g:frame><s4g:t>0.600000</s4g:t><s4g:sigma_m>2.50</s4g:sigma_m>"
        b"<s4g:hpl_m>9.30</s4g:hpl_m><s4g:ve_mps>3.00</s4g:ve_mps><s4g:vn_mps>-4.00</s4g:vn_mps>"
        b"<s4g:heading_deg>44.20</s4g:heading_deg><s4g:agl_m>101.50</s4g:agl_m>"
        b"<s4g:anchor_age_s>0.000</s4g:anchor_age_s></extensions></trkpt>\n"
    )


def test_a_geojson_point_is_longitude_first_with_its_properties() -> None:
    assert json.loads(geojson_point(t.seen_at(-47.25, 11.5, 3, ve_mps=None), 2)) == {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": [11.5, -47.25]},
        "properties": {
            "segment": 2,
            "frame": 3,
            "t": 0.6,
            "time": "2026-05-04T09:30:00.725Z",
            "state": "TRACK",
            "source": "visual",
            "sigma_m": 2.5,
            "hpl_m": 9.3,
            "vn_mps": -4.0,
            "heading_deg": 44.2,
            "agl_m": 101.5,
            "anchor_age_s": 0.0,
        },
    }


def test_no_time_is_written_where_nobody_knows_utc() -> None:
    moment = t.seen_at(47.0, 11.0, utc_s=None)
    assert b"<time>" not in gpx_point(moment)
    assert b'"time"' not in geojson_point(moment, 0)


def test_a_height_above_ground_is_not_passed_off_as_an_altitude() -> None:
    assert b"<ele>" not in gpx_point(t.seen_at(47.0, 11.0))
    assert len(json.loads(geojson_point(t.seen_at(47.0, 11.0), 0))["geometry"]["coordinates"]) == 2


@pytest.mark.parametrize("write", [gpx_point, lambda moment: geojson_point(moment, 0)])
def test_a_fix_without_a_position_is_refused_by_the_formats(write: Any) -> None:
    with pytest.raises(ValueError, match="a fix without a position"):
        write(t.lost_at(1))


def test_the_name_of_a_track_is_escaped() -> None:
    text = gpx_begins("<Alm & Wald>") + GpxTrack().ends
    assert ET.fromstring(text).findtext(f"{GPX}trk/{GPX}name") == "<Alm & Wald>"


@pytest.mark.parametrize("kind", KINDS)
def test_a_gap_ends_a_segment_and_no_point_is_invented(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"track.{kind}"
    t.write_all(open_track(path), t.flight())
    expected = [(round(47.0 + i * 1e-4, 7), round(11.0 + i * 2e-4, 7)) for i in range(20)]
    assert points_of(path) == [expected[:8], expected[12:]]


@pytest.mark.parametrize("kind", KINDS)
def test_no_line_leads_to_a_place_that_was_taken_up_instead(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"track.{kind}"
    there = [t.seen_at(47.1, 11.0, i, resets=1) for i in (2, 3)]
    t.write_all(open_track(path), [t.seen_at(47.0, 11.0, 0), t.seen_at(47.0, 11.0, 1), *there])
    assert [len(segment) for segment in points_of(path)] == [2, 2]


def test_a_geojson_line_runs_along_each_segment_of_two_points_and_more(tmp_path: Path) -> None:
    path = tmp_path / "track.geojson"
    said = [*t.flight(6, range(3, 4)), t.lost_at(6), t.seen_at(47.5, 11.5, 7)]
    t.write_all(open_track(path), said)
    lines = [
        feature
        for feature in json.loads(path.read_text())["features"]
        if feature["geometry"]["type"] == "LineString"
    ]
    assert [line["properties"] for line in lines] == [{"segment": 0}, {"segment": 1}]
    assert [line["geometry"]["coordinates"] for line in lines] == [
        [[11.0, 47.0], [11.0002, 47.0001], [11.0004, 47.0002]],
        [[11.0008, 47.0004], [11.001, 47.0005]],
    ]


def test_a_long_line_goes_on_where_its_first_part_ends(tmp_path: Path) -> None:
    path = tmp_path / "track.geojson"
    t.write_all(open_track(path), t.flight(LONGEST_LINE + 2, range(0)))
    first, second = (
        feature["geometry"]["coordinates"]
        for feature in json.loads(path.read_text())["features"]
        if feature["geometry"]["type"] == "LineString"
    )
    assert len(first) == LONGEST_LINE
    assert len(second) == 3
    assert first[-1] == second[0]


@given(said=st.lists(t.moments(), max_size=12))
@pytest.mark.parametrize("kind", KINDS)
def test_the_file_is_whole_after_every_fix(kind: str, said: list[Moment]) -> None:
    empty: Any = GpxTrack() if kind == "gpx" else GeoJsonTrack()
    begins = gpx_begins("x") if kind == "gpx" else BEGINS
    track, text, apart, before = empty, begins, True, b""
    for moment in said:
        if moment.fix.lat is None:
            apart = True
            continue
        more, track = track.after(moment, apart)
        # What is written over is never longer, so nothing of it is left behind.
        assert len(more + track.ends) >= len(before)
        text, apart, before = text + more, False, track.ends
        whole = text + track.ends
        if kind == "gpx":
            ET.fromstring(whole)
        else:
            json.loads(whole)
    placed = sum(moment.fix.lat is not None for moment in said)
    assert (text.count(b"<trkpt") if kind == "gpx" else text.count(b'"Point"')) == placed


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_on_disk_is_whole_while_it_is_written(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"track.{kind}"
    sink = open_track(path)
    assert points_of(path) == []
    for number, moment in enumerate(t.flight(), 1):
        sink.send(moment)
        sink.idle()
        assert sum(map(len, points_of(path))) == number - min(max(number - 8, 0), 4)
    sink.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_that_is_killed_leaves_a_whole_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"track.{kind}"
    code = f"""
import runpy, sys
from s4g.runtime import sink_{kind}
t = runpy.run_path({str(Path(__file__).with_name("sink_moments.py"))!r})
sink = sink_{kind}.open_sink(t["url"]({f"{kind}:{path}"!r}), t["running"]())
for number in range(1000000):
    sink.send(t["seen_at"](47 + number * 1e-6, 11.0, number))
    if number == 50:
        print("go", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    (segment,) = points_of(path)
    assert len(segment) > 50
    assert segment[50] == (round(47 + 50e-6, 7), 11.0)


@pytest.mark.parametrize("kind", KINDS)
def test_an_existing_file_is_kept_unless_told_otherwise(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"track.{kind}"
    path.write_text("mine" * 1000)
    with pytest.raises(InputError) as error:
        open_track(path)
    assert str(error.value) == f"{path}: already exists; pass --overwrite to replace it"
    assert path.read_text() == "mine" * 1000
    t.write_all(open_track(path, overwrite=True), t.flight(3, range(0)))
    assert len(points_of(path)[0]) == 3


def test_a_numbered_file_follows_the_highest_there_is(tmp_path: Path) -> None:
    for name in ("a-002.gpx", "a-10.gpx", "a-x.gpx", "b-077.gpx", "a-011.gpx.bak"):
        (tmp_path / name).write_text("mine")
    for expected in ("a-011.gpx", "a-012.gpx"):
        url = t.url(f"gpx:{tmp_path}/a-{{n}}.gpx")
        t.write_all(sink_gpx.open_sink(url, t.running(overwrite=True)), t.flight(3, range(0)))
        assert len(points_of(tmp_path / expected)[0]) == 3
    assert (tmp_path / "a-10.gpx").read_text() == "mine"
    assert sink_file.file_of(t.url("gpx:none/t{n}.gpx"), "x").name == "t001.gpx"


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_is_missing_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "absent" / f"track.{kind}"
    with pytest.raises(InputError) as error:
        open_track(path)
    assert str(error.value) == (f"{path}: the folder {path.parent} does not exist; create it first")


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_cannot_be_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300 + f".{kind}")
    with pytest.raises(InputError) as error:
        open_track(path)
    assert str(error.value) == f"{path}: cannot write (File name too long); choose a shorter name"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_may_not_be_written_is_refused(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    with pytest.raises(InputError) as error:
        open_track(folder / f"track.{kind}")
    assert str(error.value) == (
        f"{folder}/track.{kind}: cannot write (Permission denied); change the permissions or "
        "choose another place"
    )


def test_a_url_without_a_file_is_refused() -> None:
    for text in ("gpx:", "gpx+udp://127.0.0.1:10110"):
        with pytest.raises(InputError) as error:
            sink_gpx.open_sink(t.url(text), t.running())
        assert str(error.value) == f"--to {text}: expected gpx:FILE, such as gpx:track.gpx"


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(InputError) as error:
        sink_geojson.open_sink(t.url("geojson:a.geojson?name=x"), t.running())
    assert str(error.value) == (
        "--to geojson:a.geojson?name=x: no setting 'name' here; there are rate"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_at_the_start_is_refused_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"track.{kind}"
    with full_disk(10), pytest.raises(InputError) as error:
        open_track(path)
    assert str(error.value) == (
        f"{path}: cannot write (File too large); free some space or choose another place"
    )
    assert not path.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_in_flight_costs_points_but_not_the_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"track.{kind}"
    sink = open_track(path)
    said = t.flight(30, range(0))
    failed = 0
    with full_disk(4000):
        for moment in said[:-1]:
            try:
                sink.send(moment)
            except OSError as error:
                assert error.strerror == (
                    "cannot write (File too large); free some space or choose another place"
                )
                failed += 1
            assert sum(map(len, points_of(path))) <= len(said)
    sink.send(said[-1])
    sink.close()
    assert 0 < failed < len(said) - 1
    points = sum(points_of(path), [])
    assert len(points) == len(said) - failed
    assert points[-1] == (round(47.0 + 29e-4, 7), round(11.0 + 58e-4, 7))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_was_moved_is_told_and_begun_anew_where_its_folder_is_back(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_file, "SYNC_S", 0.0)
    folder = tmp_path / "stick"
    folder.mkdir()
    path = folder / f"track.{kind}"
    sink = open_track(path)
    sink.send(t.seen_at(47.0, 11.0, 0))
    folder.rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError) as error:
        sink.idle()
    assert str(error.value) == f"{path} was moved or deleted"
    sink.idle()
    with pytest.raises(FileNotFoundError):
        sink.send(t.seen_at(47.1, 11.0, 1))
    folder.mkdir()
    sink.send(t.seen_at(47.2, 11.0, 2))
    sink.send(t.seen_at(47.3, 11.0, 3))
    sink.close()
    assert points_of(path) == [[(47.2, 11.0), (47.3, 11.0)]]
    assert points_of(tmp_path / "away" / path.name) == [[(47.0, 11.0)]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_did_not_begin_leaves_no_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"track.{kind}"
    open_track(path).close()
    assert not path.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_flight_without_a_fix_leaves_an_empty_track(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"track.{kind}"
    t.write_all(open_track(path), [t.lost_at(i) for i in range(3)])
    assert points_of(path) == []


def ogr_rows(path: Path, layer: str, *flags: str) -> list[dict[str, str]]:
    """A layer as GDAL reads it, as a table."""
    words = ["ogr2ogr", "-f", "CSV", "/vsistdout/", str(path), *flags, layer, "-lco"]
    done = subprocess.run(
        [*words, "GEOMETRY=AS_WKT"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    return list(csv.DictReader(io.StringIO(done.stdout)))


def ogr_summary(path: Path, layer: str) -> str:
    done = subprocess.run(
        ["ogrinfo", "-so", str(path), layer], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


@needs_gdal
def test_gdal_reads_the_gpx_track(tmp_path: Path) -> None:
    path = tmp_path / "track.gpx"
    t.write_all(open_track(path), t.flight())
    rows = ogr_rows(path, "track_points")
    assert len(rows) == 16
    assert rows[0]["WKT"] == "POINT (11 47)"
    assert rows[8]["WKT"] == "POINT (11.0024 47.0012)"
    assert rows[8]["time"] == "2026/05/04 09:30:02.525+00"
    assert [row["track_seg_id"] for row in rows] == ["0"] * 8 + ["1"] * 8
    assert float(rows[0]["s4g_sigma_m"]) == 2.5
    assert rows[0]["s4g_state"] == "TRACK"
    assert "time: DateTime" in ogr_summary(path, "track_points")
    (track,) = ogr_rows(path, "tracks")
    assert track["WKT"].count("(") == 3  # two parts


@needs_gdal
def test_gdal_reads_the_geojson_track(tmp_path: Path) -> None:
    path = tmp_path / "track.geojson"
    t.write_all(open_track(path), t.flight())
    summary = ogr_summary(path, "track")
    assert "Feature Count: 18" in summary
    assert "time: DateTime" in summary
    assert "sigma_m: Real" in summary
    rows = ogr_rows(path, "track")
    points = [row for row in rows if row["WKT"].startswith("POINT")]
    assert len(points) == 16
    assert points[8]["WKT"] == "POINT (11.0024 47.0012)"
    assert points[8]["time"] == "2026/05/04 09:30:02.525+00"
    assert points[8]["state"] == "TRACK"
    assert [row["segment"] for row in rows if row["WKT"].startswith("LINE")] == ["0", "1"]


def test_gpxpy_reads_the_gpx_track(tmp_path: Path) -> None:
    gpxpy = pytest.importorskip("gpxpy", reason="gpxpy is not installed")
    path = tmp_path / "track.gpx"
    t.write_all(
        open_track(path),
        [*t.flight(), t.lost_at(20), t.seen_at(47.5, 11.5, 21, state=State.DEGRADED)],
    )
    parsed = gpxpy.parse(path.read_text())
    assert parsed.creator == "s4g-run"
    (track,) = parsed.tracks
    assert [len(segment.points) for segment in track.segments] == [8, 8, 1]
    point = track.segments[1].points[0]
    assert (point.latitude, point.longitude, point.elevation) == (47.0012, 11.0024, None)
    assert point.time.isoformat() == "2026-05-04T09:30:02.525000+00:00"
    last = {e.tag: e.text for e in track.segments[2].points[0].extensions}
    assert last[f"{{{NAMESPACE}}}state"] == "DEGRADED"
    assert math.isclose(float(last[f"{{{NAMESPACE}}}sigma_m"]), 2.5)


@given(share=st.floats(0.05, 1.0))
@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_file_is_whole_again_without_its_last_line(kind: str, share: float) -> None:
    """The repair that docs/outputs.md gives."""
    track: Any = GpxTrack() if kind == "gpx" else GeoJsonTrack()
    whole, apart = gpx_begins("x") if kind == "gpx" else BEGINS, True
    for moment in t.flight():
        if moment.fix.lat is not None:
            text, track = track.after(moment, apart)
            whole += text
        apart = moment.fix.lat is None
    whole += track.ends
    cut = whole[: max(int(len(whole) * share), 400)]
    lines = cut[: cut.rindex(b"\n")]
    if kind == "gpx":
        is_open = lines.count(b"<trkseg>") > lines.count(b"</trkseg>")
        closed = lines.replace(b"</trk>", b"").replace(b"</gpx>", b"")
        root = ET.fromstring(closed + b"</trkseg>" * is_open + b"</trk></gpx>")
        found = sum(1 for _ in root.iter(GPX + "trkpt"))
    else:
        features = json.loads(lines.removesuffix(b"\n]}").rstrip(b",") + b"]}")["features"]
        found = sum(feature["geometry"]["type"] == "Point" for feature in features)
    marker = b"</trkpt>\n" if kind == "gpx" else b'"type":"Point"'
    assert cut.count(marker) - 1 <= found <= 16


MENDED = {
    "gpx": "sed -i '$d' track.gpx && echo '</trkseg></trk></gpx>' >> track.gpx",
    "geojson": "sed -i '$d' track.geojson && sed -i '$s/,$//' track.geojson && "
    "echo ']}' >> track.geojson",
}


@pytest.mark.skipif(shutil.which("sed") is None, reason="sed is not installed")
@pytest.mark.parametrize("kind", KINDS)
def test_the_commands_in_the_documentation_mend_a_cut_track(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"track.{kind}"
    t.write_all(open_track(path), t.flight())
    data = path.read_bytes()
    marker = b"<trkpt" if kind == "gpx" else b'"Point"'
    parts = data.split(marker)
    path.write_bytes(marker.join(parts[:15]) + marker)  # cut in the middle of the 15th point
    subprocess.run(["sh", "-c", MENDED[kind]], cwd=tmp_path, check=True, timeout=60)
    assert [len(segment) for segment in points_of(path)] == [8, 6]
