"""All outputs to files and maps together: of one run, and beside one that fails."""

from __future__ import annotations

import importlib.util
import json
import math
import resource
import runpy
import socket
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from s4g.core.console import run_command
from s4g.runtime.cli import cli
from s4g.runtime.observe import Observation
from s4g.runtime.sink_hub import Outputs
from s4g.runtime.sink_open import open_sink
from s4g.runtime.utc import Utc

t = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("sink_moments.py"))))
needs_libraries = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mcap", "rosbags")),
    reason="the libraries mcap and rosbags are not installed",
)
GPX = "{http://www.topografix.com/GPX/1/1}"


def run_flight(
    capsys: pytest.CaptureFixture[str], flight: Any, pack: Path, encoder: Path, *words: str
) -> tuple[int, list[dict[str, Any]], str]:
    options = {
        "--camera": flight.photos,
        "--pack": pack,
        "--encoder": encoder,
        "--device": "cpu",
        "--telemetry": flight.telemetry,
        "--hfov": flight.hfov_deg,
        "--level": 48,
        "--threads": 1,
    }
    given = [str(word) for pair in options.items() for word in pair]
    with pytest.raises(SystemExit) as stop:
        run_command(cli, [*given, *words])
    captured = capsys.readouterr()
    fixes = [json.loads(line) for line in captured.out.splitlines()]
    return int(stop.value.code or 0), fixes, captured.err


def places(fixes: list[dict[str, Any]]) -> list[tuple[float, float]]:
    return [(fix["lat"], fix["lon"]) for fix in fixes if fix["lat"] is not None]


@needs_libraries
def test_every_output_has_the_fixes_that_are_printed(
    capsys: pytest.CaptureFixture[str],
    toy_flight: Any,
    toy_pack: Path,
    toy_encoder: Path,
    tmp_path: Path,
) -> None:
    from mcap.reader import make_reader
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    code, fixes, err = run_flight(
        capsys, toy_flight, toy_pack, toy_encoder,
        "--epoch", "2026-05-04T09:30:00Z",
        "--to", f"gpx:{tmp_path}/a.gpx",
        "--to", f"geojson:{tmp_path}/a.geojson",
        "--to", f"mcap:{tmp_path}/a.mcap?frames=jpeg&log=yes",
        "--to", f"rosbag:{tmp_path}/bag",
    )  # fmt: skip
    assert (code, len(fixes)) == (0, 6)
    assert "output " not in err
    said = places(fixes)
    assert len(said) >= 3
    points = list(ET.parse(tmp_path / "a.gpx").iter(GPX + "trkpt"))
    assert [(float(p.attrib["lat"]), float(p.attrib["lon"])) for p in points] == said
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    dots = [f["geometry"]["coordinates"] for f in features if f["geometry"]["type"] == "Point"]
    assert [(lat, lon) for lon, lat in dots] == said
    with (tmp_path / "a.mcap").open("rb") as file:
        messages = [
            (channel.topic, json.loads(message.data), message.log_time)
            for _, channel, message in make_reader(file).iter_messages()
        ]
    by_topic = {
        topic: [value for name, value, _ in messages if name == topic]
        for topic in ("/s4g/fix", "/s4g/location", "/s4g/frame")
    }
    assert [(v["latitude"], v["longitude"]) for v in by_topic["/s4g/location"]] == said
    assert [value["state"] for value in by_topic["/s4g/fix"]] == [fix["state"] for fix in fixes]
    assert len(by_topic["/s4g/frame"]) == 6
    types = get_typestore(Stores.ROS2_HUMBLE)
    with AnyReader([tmp_path / "bag"], default_typestore=types) as reader:
        chosen = [c for c in reader.connections if c.topic == "/fix"]
        bag = [
            reader.deserialize(data, connection.msgtype)
            for connection, _, data in reader.messages(connections=chosen)
        ]
    assert len(bag) == 6
    held = [m for m in bag if m.status.status == 0]
    assert [(round(m.latitude, 7), round(m.longitude, 7)) for m in held] == said
    assert all(math.isnan(m.latitude) for m in bag if m.status.status == -1)


@needs_libraries
def test_frames_in_a_log_are_the_photos_themselves(
    capsys: pytest.CaptureFixture[str],
    toy_flight: Any,
    toy_pack: Path,
    toy_encoder: Path,
    tmp_path: Path,
) -> None:
    import base64

    from mcap.reader import make_reader

    url = f"mcap:{tmp_path}/a.mcap?frames=jpeg"
    assert run_flight(capsys, toy_flight, toy_pack, toy_encoder, "--to", url)[0] == 0
    photos = [path.read_bytes() for path in sorted(toy_flight.photos.iterdir())]
    with (tmp_path / "a.mcap").open("rb") as file:
        frames = [
            base64.b64decode(json.loads(message.data)["data"])
            for _, _, message in make_reader(file).iter_messages(topics=["/s4g/frame"])
        ]
    assert frames == photos
    assert cv2.imdecode(np.frombuffer(frames[0], np.uint8), cv2.IMREAD_COLOR).shape == (240, 320, 3)


def test_a_file_that_exists_is_refused_in_one_line_before_a_frame_is_read(
    capsys: pytest.CaptureFixture[str],
    toy_flight: Any,
    toy_pack: Path,
    toy_encoder: Path,
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.gpx"
    path.write_text("mine")
    other = tmp_path / "b.geojson"
    code, fixes, err = run_flight(
        capsys, toy_flight, toy_pack, toy_encoder,
        "--to", f"geojson:{other}", "--to", f"gpx:{path}",
    )  # fmt: skip
    assert (code, fixes) == (2, [])
    assert err == f"error: {path}: already exists; pass --overwrite to replace it\n"
    assert path.read_text() == "mine"
    assert not other.exists()


@needs_libraries
def test_a_full_disk_is_told_once_for_each_output_and_holds_up_none_of_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], until: Callable[[Callable[[], bool]], None]
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(20.0)
        urls = [
            f"gpx:{tmp_path}/a.gpx",
            f"geojson:{tmp_path}/a.geojson",
            f"cot+udp://127.0.0.1:{receiver.getsockname()[1]}",
        ]
        sinks = [(open_sink(t.url(text), t.running()), None) for text in urls]
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        outputs = Outputs(sinks, Utc(False, 1777887000.0), is_live=False)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
            for moment in t.flight(60, range(0)):
                outputs.observe(Observation(moment.fix, {}))
            until(lambda: all(s.sent + s.errors + s.dropped >= 12 for s in outputs.status()))
            until(lambda: sum(s.sent + s.errors for s in outputs.status()[:2]) == 120)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        outputs.close()
        gpx, geojson, cot = outputs.status()
        assert 0 < gpx.errors < 60 and 0 < geojson.errors < 60
        assert cot.errors == 0
        assert ET.fromstring(receiver.recv(65535)).attrib["how"] == "m-p"
    told = [line for line in capsys.readouterr().err.splitlines() if "cannot write" in line]
    assert sorted(told) == [
        f"output {kind}:{tmp_path}/a.{kind}: cannot write (File too large); free some space or "
        "choose another place; fixes go on, it is tried again"
        for kind in ("geojson", "gpx")
    ]
    assert sum(1 for _ in ET.parse(tmp_path / "a.gpx").iter(GPX + "trkpt")) == gpx.sent
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert sum(f["geometry"]["type"] == "Point" for f in features) == geojson.sent


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Wait until something holds; a test that waits in vain fails."""
    import time

    def wait(holds: Callable[[], bool]) -> None:
        end_s = time.monotonic() + 60.0
        while not holds():
            assert time.monotonic() < end_s, "waited in vain"
            time.sleep(0.01)

    return wait
