"""MCAP logs: messages by their published schemas, read by the mcap library, whole or cut off."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import math
import resource
import runpy
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given

from s4g.core.errors import InputError
from s4g.runtime import sink_file, sink_mcap
from s4g.runtime.fix import State
from s4g.runtime.foxglove import (
    COMPRESSED_IMAGE,
    FIX,
    LOCATION_FIX,
    LOG,
    SCHEMAS,
    compressed_image,
    fix_message,
    location_fix,
    log_line,
)
from s4g.runtime.sink import Moment

t = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("sink_moments.py"))))
needs_mcap = pytest.mark.skipif(
    importlib.util.find_spec("mcap") is None, reason="the library mcap is not installed"
)
TIME_NS = 1777887000_125_000_000

# As published (foxglove-sdk, schemas/jsonschema): name, type, required.
PUBLISHED = {
    LOCATION_FIX: {
        "timestamp": ("object", True),
        "frame_id": ("string", True),
        "latitude": ("number", True),
        "longitude": ("number", True),
        "altitude": ("number", True),
        "position_covariance": ("array", True),
        "position_covariance_type": ("integer", True),
        "heading": ("number", False),
        "velocity": ("object", False),
        "color": ("object", False),
        "metadata": ("array", False),
    },
    COMPRESSED_IMAGE: {
        "timestamp": ("object", True),
        "frame_id": ("string", True),
        "data": ("string", True),
        "format": ("string", True),
    },
    LOG: {
        "timestamp": ("object", True),
        "level": ("integer", True),
        "message": ("string", True),
        "name": ("string", True),
        "file": ("string", True),
        "line": ("integer", True),
    },
}


def open_log(path: Path, settings: str = "", overwrite: bool = False) -> Any:
    return sink_mcap.open_sink(t.url(f"mcap:{path}{settings}"), t.running(overwrite))


def messages(path: Path, topic: str) -> list[tuple[int, dict[str, Any]]]:
    """(log time, content) of a whole file's topic, by its index."""
    from mcap.reader import make_reader

    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        return [
            (message.log_time, json.loads(message.data))
            for _, _, message in reader.iter_messages(topics=[topic])
        ]


def salvaged(data: bytes) -> list[dict[str, Any]]:
    """Contents of `/s4g/fix` that a cut file still yields."""
    from mcap.exceptions import EndOfFile, McapError
    from mcap.reader import NonSeekingReader

    found = []
    reader = NonSeekingReader(io.BytesIO(data))
    try:
        for _, channel, message in reader.iter_messages(log_time_order=False):
            if channel.topic == "/s4g/fix":
                found.append(json.loads(message.data))
    except (EndOfFile, McapError, struct.error):  # what the library raises at an early end
        pass
    return found


@contextmanager
def full_disk(free_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", PUBLISHED)
def test_schemas_hold_the_published_fields_and_no_others(name: str) -> None:
    published, ours = PUBLISHED[name], SCHEMAS[name]
    for field, schema in ours["properties"].items():
        assert schema["type"] == published[field][0]
    assert set(ours["required"]) == {field for field, (_, needed) in published.items() if needed}


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_have_one_plain_type_per_field_for_viewers_read_no_others(name: str) -> None:
    def check(schema: dict[str, Any]) -> None:
        assert schema["type"] in ("boolean", "string", "number", "integer", "object", "array")
        for field in schema.get("properties", {}).values():
            check(field)
        if schema["type"] == "array":
            check(schema["items"])

    check(SCHEMAS[name])


@given(moment=t.moments())
def test_every_message_holds_to_its_schema(moment: Moment) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    written = {
        FIX: fix_message(moment),
        LOCATION_FIX: location_fix(moment, TIME_NS),
        LOG: log_line(moment.fix, None, TIME_NS),
    }
    assert (written[LOCATION_FIX] is None) == (moment.fix.lat is None)
    for name, data in written.items():
        if data is not None:
            strict = SCHEMAS[name] | {"additionalProperties": False}
            jsonschema.validate(json.loads(data), strict)


def test_a_location_has_degrees_and_a_covariance_in_square_metres() -> None:
    data = location_fix(t.seen_at(-47.25, 11.5, sigma_m=3.0), TIME_NS)
    assert data is not None
    value = json.loads(data)
    assert value["timestamp"] == {"sec": 1777887000, "nsec": 125000000}
    assert (value["latitude"], value["longitude"]) == (-47.25, 11.5)
    assert value["position_covariance"] == [9.0, 0, 0, 0, 9.0, 0, 0, 0, 1e8]
    assert value["position_covariance_type"] == 3
    assert {"key": "altitude", "value": "unknown"} in value["metadata"]
    assert {"key": "hpl_m", "value": "9.30"} in value["metadata"]


def test_the_colour_of_a_location_tells_its_state() -> None:
    colours = []
    for state in (State.TRACK, State.DEGRADED):
        data = location_fix(t.seen_at(47.0, 11.0, state=state), TIME_NS)
        assert data is not None
        colours.append(json.loads(data)["color"])
    assert colours[0]["g"] > colours[0]["r"]
    assert colours[1]["r"] > colours[1]["g"] > colours[1]["b"]


def test_a_frame_is_base64_of_the_jpeg() -> None:
    value = json.loads(compressed_image(b"\xff\xd8jpeg\xff\xd9", TIME_NS))
    assert base64.b64decode(value["data"]) == b"\xff\xd8jpeg\xff\xd9"
    assert value["format"] == "jpeg"


def test_a_change_of_state_is_logged_with_its_reason_and_no_other_fix_is() -> None:
    lost = t.lost_at(1).fix
    first = log_line(lost, None, TIME_NS)
    change = log_line(lost, State.TRACK, TIME_NS)
    assert first is not None and change is not None
    assert json.loads(first)["message"] == "NO_FIX (dark)"
    assert json.loads(change)["message"] == "TRACK -> NO_FIX (dark)"
    assert json.loads(change)["level"] == 3
    assert log_line(lost, State.NO_FIX, TIME_NS) is None


@needs_mcap
def test_a_log_holds_every_fix_and_a_location_only_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "flight.mcap"
    t.write_all(open_log(path, "?log=yes"), t.flight())
    fixes = messages(path, "/s4g/fix")
    assert [value["state"] for _, value in fixes] == ["TRACK"] * 8 + ["NO_FIX"] * 4 + ["TRACK"] * 8
    assert fixes[8][1]["reason"] == "dark"
    assert "lat" not in fixes[8][1]
    assert fixes[0][1]["utc"] == "2026-05-04T09:30:00.125Z"
    locations = messages(path, "/s4g/location")
    assert len(locations) == 16
    assert locations[8][0] == TIME_NS + 2_400_000_000
    assert math.isclose(locations[8][1]["latitude"], 47.0012)
    assert [value["message"] for _, value in messages(path, "/s4g/log")] == [
        "TRACK",
        "TRACK -> NO_FIX (dark)",
        "NO_FIX -> TRACK",
    ]


@needs_mcap
def test_topics_name_their_schemas(tmp_path: Path) -> None:
    from mcap.reader import make_reader

    path = tmp_path / "flight.mcap"
    t.write_all(open_log(path, "?frames=jpeg&log=yes"), t.flight(2, range(0)))
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    found = {
        channel.topic: (summary.schemas[channel.schema_id].name, channel.message_encoding)
        for channel in summary.channels.values()
    }
    assert found == {
        "/s4g/fix": ("s4g.Fix", "json"),
        "/s4g/location": ("foxglove.LocationFix", "json"),
        "/s4g/frame": ("foxglove.CompressedImage", "json"),
        "/s4g/log": ("foxglove.Log", "json"),
    }
    schema = next(s for s in summary.schemas.values() if s.name == "foxglove.LocationFix")
    assert schema.encoding == "jsonschema"
    assert json.loads(schema.data) == SCHEMAS[LOCATION_FIX] | {"title": "foxglove.LocationFix"}


@needs_mcap
def test_frames_are_kept_where_they_were_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "flight.mcap"
    sink = open_log(path, "?frames=jpeg&frame_rate=4")
    assert (sink.wants_frames, sink.frame_period_s) == (True, 0.25)
    t.write_all(sink, [t.seen_at(47.0, 11.0, 0, jpeg=b"\xff\xd8one"), t.seen_at(47.0, 11.0, 1)])
    ((time_ns, value),) = messages(path, "/s4g/frame")
    assert time_ns == TIME_NS
    assert base64.b64decode(value["data"]) == b"\xff\xd8one"
    assert not open_log(tmp_path / "other.mcap").wants_frames


@needs_mcap
def test_a_log_without_utc_has_the_frames_clock(tmp_path: Path) -> None:
    path = tmp_path / "flight.mcap"
    t.write_all(open_log(path), [t.seen_at(47.0, 11.0, 3, utc_s=None)])
    ((time_ns, value),) = messages(path, "/s4g/fix")
    assert time_ns == 600_000_000
    assert "utc" not in value


@needs_mcap
@pytest.mark.parametrize("cut", [1 / 3, 2 / 3, 0.95])
def test_a_log_that_was_cut_off_yields_what_came_before(tmp_path: Path, cut: float) -> None:
    path = tmp_path / "flight.mcap"
    count = 5000
    t.write_all(open_log(path), t.flight(count, range(0)))
    data = path.read_bytes()
    found = salvaged(data[: int(len(data) * cut)])
    assert [value["frame"] for value in found] == list(range(len(found)))
    # The index at the end is a part of the file too.
    assert len(found) >= 0.9 * cut * count


@needs_mcap
def test_a_program_that_is_killed_leaves_all_but_the_last_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_mcap, "SYNC_S", 0.0)
    path = tmp_path / "flight.mcap"
    sink = open_log(path)
    for moment in t.flight(30, range(0)):
        sink.send(moment)
        sink.idle()
    assert [value["frame"] for value in salvaged(path.read_bytes())] == list(range(30))
    sink.close()


@needs_mcap
def test_an_existing_log_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "flight.mcap"
    path.write_text("mine")
    with pytest.raises(InputError) as error:
        open_log(path)
    assert str(error.value) == f"{path}: already exists; pass --overwrite to replace it"
    assert path.read_text() == "mine"
    t.write_all(open_log(path, overwrite=True), t.flight(3, range(0)))
    assert len(messages(path, "/s4g/fix")) == 3


@needs_mcap
def test_a_disk_that_was_full_for_a_while_costs_nothing_that_fits_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_mcap, "SYNC_S", 0.0)
    path = tmp_path / "flight.mcap"
    sink = open_log(path)
    said = t.flight(60, range(0))
    failed = 0
    for number, moment in enumerate(said):
        with full_disk(6000 if number < 40 else resource.RLIM_INFINITY):
            try:
                sink.send(moment)
            except OSError as error:
                assert error.strerror == (
                    "cannot write (File too large); free some space or choose another place"
                )
                failed += 1
            assert len(salvaged(path.read_bytes())) <= number + 1
    sink.close()
    assert 0 < failed < 40
    assert [value["frame"] for _, value in messages(path, "/s4g/fix")] == list(range(60))


@needs_mcap
def test_what_does_not_fit_in_memory_while_the_disk_is_full_is_lost_not_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_mcap, "SYNC_S", 0.0)
    monkeypatch.setattr(sink_mcap, "_HELD_BYTES", 3000)
    path = tmp_path / "flight.mcap"
    sink = open_log(path)
    for number, moment in enumerate(t.flight(60, range(0))):
        with full_disk(6000 if number < 50 else resource.RLIM_INFINITY):
            try:
                sink.send(moment)
            except OSError:
                assert number < 50
    sink.close()
    frames = [value["frame"] for _, value in messages(path, "/s4g/fix")]
    assert frames == sorted(set(frames))
    assert frames[-10:] == list(range(50, 60))
    assert len(frames) < 60


@needs_mcap
def test_a_disk_that_stays_full_leaves_a_log_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "flight.mcap"
    sink = open_log(path)
    for moment in t.flight(10, range(0)):
        sink.send(moment)
    with full_disk(path.stat().st_size + 100), pytest.raises(OSError):
        sink.close()
    frames = [value["frame"] for value in salvaged(path.read_bytes())]
    assert frames == list(range(len(frames)))


@needs_mcap
def test_a_full_disk_at_the_start_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "flight.mcap"
    with full_disk(5), pytest.raises(InputError) as error:
        open_log(path)
    assert str(error.value) == (
        f"{path}: cannot write (File too large); free some space or choose another place"
    )
    assert not path.exists()


@needs_mcap
def test_a_log_that_was_moved_is_told_and_begun_anew_where_its_folder_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_file, "SYNC_S", 0.0)
    monkeypatch.setattr(sink_mcap, "SYNC_S", 0.0)
    folder = tmp_path / "stick"
    folder.mkdir()
    path = folder / "flight.mcap"
    sink = open_log(path)
    sink.send(t.seen_at(47.0, 11.0, 0))
    folder.rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError) as error:
        sink.send(t.seen_at(47.0, 11.0, 1))
    assert str(error.value) == f"{path} was moved or deleted"
    folder.mkdir()
    sink.send(t.seen_at(47.2, 11.0, 2))
    sink.close()
    assert [value["frame"] for _, value in messages(path, "/s4g/fix")] == [2]
    away = salvaged((tmp_path / "away" / "flight.mcap").read_bytes())
    assert [value["frame"] for value in away] == [0, 1]


@needs_mcap
def test_a_run_that_did_not_begin_leaves_no_log(tmp_path: Path) -> None:
    path = tmp_path / "flight.mcap"
    open_log(path).close()
    assert not path.exists()


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    url = f"mcap:{tmp_path}/a.mcap?frame_rate=2"
    with pytest.raises(InputError) as error:
        sink_mcap.open_sink(t.url(url), t.running())
    assert str(error.value) == f"--to {url}: frame_rate without frames; add frames=jpeg"
    url = f"mcap:{tmp_path}/a.mcap?frames=png"
    with pytest.raises(InputError) as error:
        sink_mcap.open_sink(t.url(url), t.running())
    assert str(error.value) == f"--to {url}: frames=png is none of none, jpeg"


def test_a_missing_library_is_told_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mcap.writer", None)
    url = f"mcap:{tmp_path}/a.mcap"
    with pytest.raises(InputError) as error:
        sink_mcap.open_sink(t.url(url), t.running())
    assert str(error.value) == (f"--to {url}: needs mcap; pip install 's4g[outputs]'")
    assert not (tmp_path / "a.mcap").exists()
