"""Flights recorded by `s4g-run --log-dir`, rerun by `s4g-run replay`, listed by `s4g-run log`."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

mcap_reader = pytest.importorskip("mcap.reader", reason="flight logs need mcap (outputs extra)")

from s4g.core.camera import Camera  # noqa: E402
from s4g.core.console import run_command  # noqa: E402
from s4g.core.images import decode_rgb, encode_rgb  # noqa: E402
from s4g.runtime.cli import cli  # noqa: E402
from s4g.runtime.cli_flights import log  # noqa: E402
from s4g.runtime.cli_replay import replay  # noqa: E402
from s4g.runtime.frames import Frame, Outage  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


class Tool:
    """Runs the toy flight with a record of it, and the record's own commands."""

    def __init__(self, capsys: Any, flight: Any, pack: Path, encoder: Path, folder: Path) -> None:
        self.capsys, self.folder = capsys, folder
        self.options: dict[str, object] = {
            "--camera": flight.photos,
            "--pack": pack,
            "--encoder": encoder,
            "--device": "cpu",
            "--telemetry": flight.telemetry,
            "--hfov": flight.hfov_deg,
            "--level": 48,
            "--threads": 1,
            "--log-dir": folder,
        }

    def fly(self, *flags: str, **changes: object) -> Result:
        options = dict(self.options)
        options |= {"--" + name.replace("_", "-"): value for name, value in changes.items()}
        words = [str(w) for pair in options.items() if pair[1] is not None for w in pair]
        return self._call(cli, *words, *flags)

    def replay(self, *words: object) -> Result:
        return self._call(replay, *(words or (self.folder,)))

    def log(self, *words: object) -> Result:
        return self._call(log, *(words or (self.folder,)))

    def _call(self, command: Any, *words: object) -> Result:
        with pytest.raises(SystemExit) as stop:
            run_command(command, [str(word) for word in words])
        captured = self.capsys.readouterr()
        return Result(int(stop.value.code or 0), captured.out, captured.err)


@pytest.fixture
def tool(
    capsys: pytest.CaptureFixture[str],
    toy_flight: Any,
    toy_pack: Path,
    toy_encoder: Path,
    tmp_path: Path,
) -> Tool:
    return Tool(capsys, toy_flight, toy_pack, toy_encoder, tmp_path / "logs")


def messages(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The JSON messages of a segment, read by MCAP's own reader."""
    with path.open("rb") as file:
        found = mcap_reader.make_reader(file, validate_crcs=True).iter_messages()
        return [
            (channel.topic, json.loads(message.data))
            for _, channel, message in found
            if channel.message_encoding == "json"
        ]


def pictures(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        found = mcap_reader.make_reader(file).iter_messages(topics=["/frames"])
        return [message.data[40:] for _, _, message in found]


class Live:
    """A live camera that shows the photos of a flight and falls silent twice.

    Its one array is written over by the next frame, as the contract of observers allows.
    """

    name, count, dropped = "/dev/video9", None, 3

    def __init__(self, flight: Any, shape_at_last: tuple[int, int] = (240, 320)) -> None:
        self.photos = [decode_rgb(p.read_bytes(), p.name) for p in sorted(flight.photos.iterdir())]
        height, width = shape_at_last
        self.photos[-1] = np.resize(self.photos[-1], (height, width, 3))

    def frames(self) -> Iterator[Frame | Outage]:
        pixels = np.empty_like(self.photos[0])
        for index, rgb in enumerate(self.photos):
            t = 2.0 * index
            if index in (2, 4):
                yield Outage(t - 0.5, t - 0.5, "no frame for 1.0 s")
            if rgb.shape != pixels.shape:
                pixels = rgb
            np.copyto(pixels, rgb)
            height, width = rgb.shape[:2]
            arrived_s = time.monotonic()
            yield Frame(index, t, None, f"frame {index}", width, height, arrived_s, decoded=pixels)
            pixels[:] = 0

    def close(self) -> None:
        pass


def write_video(flight: Any, path: Path) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 0.5, (320, 240))
    for photo in sorted(flight.photos.iterdir()):
        writer.write(cv2.imread(str(photo)))
    writer.release()
    return path


SAME = (
    "recorded: 4 TRACK, 2 ACQUIRING\n"
    "replayed: 4 TRACK, 2 ACQUIRING\n"
    "positions in both: 4; apart 0.00 m (median), 0.00 m (most)\n"
    "6 of 6 fixes are the same\n"
)

# ---- the replay gives the same fixes -------------------------------------------------------------


def test_a_flight_of_photos_is_rerun_exactly(tool: Tool, tmp_path: Path) -> None:
    flown = tool.fly("--diagnostics", out=tmp_path / "flown.jsonl")
    assert flown.code == 0, flown.err
    rerun = tool.replay(tool.folder / "flight-0001", "--out", tmp_path / "rerun.jsonl")
    assert (rerun.code, rerun.out, rerun.err) == (0, SAME, "")
    for one in (tmp_path / "flown.jsonl", tmp_path / "rerun.jsonl"):
        fixes = [json.loads(line) for line in one.read_text().splitlines()]
        for fix in fixes:
            del fix["latency_ms"]
        one.write_text(json.dumps(fixes))
    assert (tmp_path / "flown.jsonl").read_text() == (tmp_path / "rerun.jsonl").read_text()


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        (["--single"], {}),
        (["--log-lossy"], {}),  # photos are JPEGs already
        ([], {"level": None}),
        ([], {"start": "46.95,9.0,500"}),
        ([], {"rate": 10}),
        ([], {"threads": 2}),
    ],
)
def test_the_recorded_options_are_used(
    tool: Tool, flags: list[str], changes: dict[str, object]
) -> None:
    flown = tool.fly(*flags, **changes)
    assert flown.code == 0, flown.err
    rerun = tool.replay()
    assert "6 of 6 fixes are the same\n" in rerun.out
    assert rerun.code == 0


def test_a_calibration_is_recorded(tool: Tool, tmp_path: Path) -> None:
    camera = dataclasses.replace(
        Camera.from_hfov(640, 480, 60.0), distortion=(-0.01, 0.002, 1e-4, -1e-4, 1e-3)
    )
    (tmp_path / "camera.json").write_text(json.dumps(dataclasses.asdict(camera)))
    assert tool.fly(hfov=None, intrinsics=tmp_path / "camera.json").code == 0
    assert "6 of 6 fixes are the same\n" in tool.replay().out


def test_a_flight_without_heading_and_height_is_rerun_exactly(
    tool: Tool, toy_flight: Any, tmp_path: Path
) -> None:
    header, *rows = toy_flight.telemetry.read_text().splitlines()
    assert header == "file,t,yaw_deg,pitch_deg,roll_deg,agl_m"
    rows = [",".join([*r.split(",")[:2], "", *r.split(",")[3:5], ""]) for r in rows]
    table = tmp_path / "t.csv"
    cut = ["file,t,pitch_deg,roll_deg"]
    cut += [",".join([*r.split(",")[:2], *r.split(",")[3:5]]) for r in rows]
    table.write_text("\n".join(cut) + "\n")
    flown = tool.fly(telemetry=table)
    assert flown.code == 0, flown.err
    assert "6 of 6 fixes are the same\n" in tool.replay().out


def test_frames_without_telemetry_are_rerun_as_such(
    tool: Tool, toy_flight: Any, tmp_path: Path
) -> None:
    header, *rows = toy_flight.telemetry.read_text().splitlines()
    table = tmp_path / "t.csv"
    table.write_text("\n".join([header, *rows[:3], rows[5]]) + "\n")
    flown = tool.fly(telemetry=table)
    assert flown.out.count('"reason":"no_telemetry"') == 2
    assert "6 of 6 fixes are the same\n" in tool.replay().out


def test_a_video_is_rerun_to_the_last_bit(tool: Tool, toy_flight: Any, tmp_path: Path) -> None:
    video = write_video(toy_flight, tmp_path / "flight.avi")
    assert tool.fly(camera=video).code == 0
    video.unlink()
    rerun = tool.replay()
    assert rerun.code == 0, rerun.out + rerun.err
    assert "6 of 6 fixes are the same\n" in rerun.out


@pytest.mark.parametrize("rate", [None, 50])
def test_outages_of_a_live_camera_are_rerun_at_their_times(
    tool: Tool, toy_flight: Any, monkeypatch: pytest.MonkeyPatch, rate: int | None
) -> None:
    monkeypatch.setattr("s4g.runtime.frames.open_frames", lambda *_: Live(toy_flight))
    flown = tool.fly(camera="/dev/video9", rate=rate)
    assert flown.code == 0, flown.err
    rerun = tool.replay()
    assert "8 of 8 fixes are the same\n" in rerun.out, rerun.out
    assert rerun.code == 0


def test_a_live_frame_of_another_shape_is_rerun_too(
    tool: Tool, toy_flight: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = tmp_path / "camera.json"
    camera.write_text(json.dumps(dataclasses.asdict(Camera.from_hfov(640, 480, 60.0))))
    live = Live(toy_flight, (200, 320))
    monkeypatch.setattr("s4g.runtime.frames.open_frames", lambda *_: live)
    flown = tool.fly(camera="/dev/video9", hfov=None, intrinsics=camera)
    assert flown.code == 0, flown.err
    assert "8 of 8 fixes are the same\n" in tool.replay().out


def test_fixes_that_differ_end_with_an_error(tool: Tool) -> None:
    """Exactness is checked, not claimed: a changed fix in the log is found."""
    tool.fly()
    path = tool.folder / "flight-0001" / "0001.mcap"
    rewrite(path, b'"score":0.', b'"score":1.')
    rerun = tool.replay()
    assert rerun.code == 1
    assert rerun.out.splitlines()[-2] == "0 of 6 fixes are the same"
    assert rerun.out.splitlines()[-1].startswith("first difference: frame 0: score 1.")


def rewrite(path: Path, old: bytes, new: bytes) -> None:
    """Change what a segment's steps hold and write it anew, checksums and all."""
    from s4g.runtime.log_segment import Segment

    with path.open("rb") as file:
        found = [
            (channel.topic, message.sequence, message.data, message.log_time)
            for _, channel, message in mcap_reader.make_reader(file).iter_messages(
                log_time_order=False
            )
        ]
    path.unlink()
    segment = Segment(path)
    for topic, number, data, time_ns in found:
        segment.add(topic, number, data.replace(old, new) if topic == "/steps" else data, time_ns)
    segment.close()


# ---- what cannot be exact says so ----------------------------------------------------------------


def test_a_camera_recorded_as_jpeg_alone_is_not_called_exact(
    tool: Tool, toy_flight: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s4g.runtime.frames.open_frames", lambda *_: Live(toy_flight))
    tool.fly("--log-lossy", camera="/dev/video9")
    rerun = tool.replay()
    assert rerun.code == 0
    assert "not exact: the picture of frame 0 was recorded as a JPEG alone (--log-lossy)\n" in (
        rerun.out
    )
    (line,) = (one for one in rerun.out.splitlines() if one.startswith("positions"))
    assert float(line.split()[-3]) < 5.0, line


def test_a_machine_that_decodes_otherwise_is_told(
    tool: Tool, toy_flight: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s4g.runtime.frames.open_frames", lambda *_: Live(toy_flight))
    tool.fly(camera="/dev/video9")
    monkeypatch.setattr(
        "s4g.runtime.log_pixels.decode_rgb", lambda *words: decode_rgb(*words) ^ np.uint8(1)
    )
    rerun = tool.replay()
    assert rerun.code == 0
    assert (
        "not exact: this machine decodes the picture of frame 0 otherwise than the one of the "
        "flight\n"
    ) in rerun.out


def test_pictures_that_were_not_recorded_are_told(tool: Tool) -> None:
    tool.fly(log_frames=0.25)  # of frames that are 2 s apart every second one
    rerun = tool.replay()
    assert rerun.code == 0
    assert "3 frames without a picture were left out\n" in rerun.out
    assert "not exact: the picture of frame 1 is missing in the log\n" in rerun.out


def test_a_log_without_pictures_cannot_be_rerun(tool: Tool) -> None:
    tool.fly(log_frames="none")
    rerun = tool.replay()
    assert rerun.code == 2
    assert rerun.err == f"error: {tool.folder}: holds no frame that can be rerun\n"


# ---- other packs, encoders and options -----------------------------------------------------------


def test_other_options_are_set_beside_what_was(tool: Tool) -> None:
    tool.fly()
    tried = tool.replay(tool.folder, "--level", "64", "--single")
    assert tried.code == 0
    recorded, replayed, *_ = tried.out.splitlines()
    assert recorded == "recorded: 4 TRACK, 2 ACQUIRING"
    assert replayed != "replayed: 4 TRACK, 2 ACQUIRING"
    assert "first difference: frame 0: state ACQUIRING, now " in tried.out


def test_options_can_be_taken_back(tool: Tool) -> None:
    tool.fly("--single", level=64)
    assert tool.replay(tool.folder, "--tracked", "--level", "48").out.splitlines()[1] == (
        "replayed: 4 TRACK, 2 ACQUIRING"
    )


def test_a_pack_that_was_replaced_is_refused_unless_it_is_named(
    tool: Tool, toy_pack: Path, toy_source: Path, toy_encoder: Path, tmp_path: Path
) -> None:
    from s4g.core.engine import load_engine
    from s4g.core.sources import open_ground
    from s4g.tilepacks.build import build_pack
    from s4g.tilepacks.options import BuildOptions
    from s4g.tilepacks.plan import plan_pack

    pack = tmp_path / "region.s4gpack"
    shutil.copy(toy_pack, pack)
    tool.fly(pack=pack)
    pack.unlink()
    assert tool.replay().err == (
        f"error: {pack}: the flight's pack is no longer there; pass --pack FILE\n"
    )
    ground, engine = open_ground(str(toy_source)), load_engine(toy_encoder, "cpu", 1)
    plan = plan_pack(ground, engine.spec, levels_m=(48.0,))
    build_pack([ground], engine, plan, pack, BuildOptions())
    ground.close()
    engine.close()
    refused = tool.replay()
    assert refused.code == 2
    assert refused.err == (
        f"error: {pack}: is not the pack of the flight any more; pass it as --pack to try it\n"
    )
    tried = tool.replay(tool.folder, "--pack", pack)
    assert tried.code == 0, tried.err
    assert tried.out.startswith("recorded: 4 TRACK, 2 ACQUIRING\nreplayed: ")


def test_an_encoder_of_another_model_is_refused_unless_allowed(
    tool: Tool, toy_source: Path, toy_encoder: Path, tmp_path: Path
) -> None:
    from s4g.core.engine import load_engine
    from s4g.core.sources import open_ground
    from s4g.tilepacks.build import build_pack
    from s4g.tilepacks.options import BuildOptions
    from s4g.tilepacks.plan import plan_pack

    encoder, pack = tmp_path / "other.onnx", tmp_path / "other.s4gpack"
    encoder.write_bytes(toy_encoder.read_bytes().replace(b"70" * 32, b"71" * 32))
    ground, engine = open_ground(str(toy_source)), load_engine(encoder, "cpu", 1)
    build_pack(
        [ground],
        engine,
        plan_pack(ground, engine.spec, levels_m=(48.0, 64.0)),
        pack,
        BuildOptions(),
    )
    ground.close()
    engine.close()
    tool.fly()
    words = (tool.folder, "--pack", pack, "--encoder", encoder)
    refused = tool.replay(*words)
    assert refused.code == 2
    assert refused.err == (
        f"error: {encoder}: is encoder 717171717171, the flight's was 707070707070; pass "
        "--other-model to try it all the same\n"
    )
    tried = tool.replay(*words, "--other-model")
    assert tried.code == 0, tried.err
    assert "6 of 6 fixes are the same\n" in tried.out  # it computes the same


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--level", "wide"], "--level wide: expected metres above 0, or auto"),
        (
            ["--start", "here"],
            "--start here: expected three numbers, LAT,LON,RADIUS_M",
        ),
        (
            ["--start", "47,9,100", "--single"],
            "--start 47,9,100: with --single no frame comes first; give none",
        ),
    ],
)
def test_wrong_options_are_refused(tool: Tool, words: list[str], message: str) -> None:
    tool.fly()
    refused = tool.replay(tool.folder, *words)
    assert (refused.code, refused.err) == (2, f"error: {message}\n")


# ---- what is recorded ----------------------------------------------------------------------------


def test_a_segment_opens_in_the_formats_own_reader(tool: Tool, toy_pack: Path) -> None:
    tool.fly(start="46.95,9.0,500")
    found = messages(tool.folder / "flight-0001" / "0001.mcap")
    flight = found[0][1]
    assert found[0][0] == "/flight"
    assert (flight["format"], flight["flight"], flight["segment"]) == ("s4g-flight-log", 1, 1)
    assert (flight["model_id"], flight["pack_path"]) == ("70" * 32, str(toy_pack))
    assert flight["options"]["start"] == "46.95,9.0,500"
    assert flight["options"]["threads"] == 1
    steps = [value for topic, value in found if topic == "/steps"]
    assert [step["frame"]["file"] for step in steps] == [f"photo_{i}.jpg" for i in range(6)]
    assert all(step["sample"]["attitude"]["agl_m"] == 100.0 for step in steps)
    assert all(step["frame"]["picture"] == "photo" for step in steps)


def test_pictures_are_ros_messages(tool: Tool, toy_flight: Any) -> None:
    """As any reader of ROS 2 bags takes them apart."""
    rosbags = pytest.importorskip("rosbags.typesys", reason="needs rosbags")
    tool.fly()
    store = rosbags.get_typestore(rosbags.Stores.ROS2_HUMBLE)
    segment = tool.folder / "flight-0001" / "0001.mcap"
    photos = sorted(toy_flight.photos.iterdir())
    with segment.open("rb") as file:
        found = list(mcap_reader.make_reader(file).iter_messages(topics=["/frames"]))
    for (schema, _, message), photo in zip(found, photos, strict=True):
        image = store.deserialize_cdr(message.data, schema.name)
        assert (image.format, image.header.frame_id) == ("jpeg", "camera")
        assert image.header.stamp.sec * 10**9 + image.header.stamp.nanosec == message.log_time
        assert image.data.tobytes() == photo.read_bytes()


def test_what_was_said_and_every_state_is_recorded(tool: Tool) -> None:
    tool.fly()
    found = messages(tool.folder / "flight-0001" / "0001.mcap")
    said = [(v["name"], v["message"]) for topic, v in found if topic == "/log"]
    assert ("s4g-run", "encoder: toy.onnx on onnxruntime cpu") in said
    assert ("s4g-run", "4 fixes from 6 frames") in said
    assert [text for name, text in said if name == "state"] == [
        "ACQUIRING (ambiguous)",
        "TRACK",
    ]
    assert said[-1] == ("end", "6 steps, 0 lost, 0 pictures left out")


def test_a_position_is_recorded_for_maps_only_where_there_is_one(tool: Tool) -> None:
    fixes = [json.loads(line) for line in tool.fly().out.splitlines()]
    found = messages(tool.folder / "flight-0001" / "0001.mcap")
    places = [value for topic, value in found if topic == "/position"]
    issued = [fix for fix in fixes if fix["lat"] is not None]
    assert len(places) == len(issued) == 4
    for place, fix in zip(places, issued, strict=True):
        assert place["latitude"] == pytest.approx(fix["lat"], abs=1e-7)
        assert place["longitude"] == pytest.approx(fix["lon"], abs=1e-7)
        assert place["position_covariance"][0] == pytest.approx(fix["sigma_m"] ** 2, rel=0.01)


def test_what_ended_a_flight_is_recorded(tool: Tool, toy_flight: Any, tmp_path: Path) -> None:
    photos = Path(shutil.copytree(toy_flight.photos, tmp_path / "photos"))
    (photos / "photo_3.jpg").write_bytes(b"\xff\xd8 not much of a photo")
    assert tool.fly(camera=photos).code == 2
    found = messages(tool.folder / "flight-0001" / "0001.mcap")
    said = [value["message"] for topic, value in found if topic == "/log"]
    assert said[-2] == (
        f"ended by InputError: {photos / 'photo_3.jpg'}: not an image that can be decoded; "
        "replace or remove the file"
    )
    assert "3 of 3 fixes are the same\n" in tool.replay().out


def test_no_true_position_gets_into_a_log(tool: Tool, toy_flight: Any, tmp_path: Path) -> None:
    """Neither from --truth nor from the metadata of photos."""
    photos = Path(shutil.copytree(toy_flight.photos, tmp_path / "photos"))
    for path in photos.iterdir():
        data = path.read_bytes()
        secret = b"http://ns.adobe.com/xap/1.0/\x00 GpsLatitude=+47.123"
        block = b"\xff\xe1" + (len(secret) + 2).to_bytes(2, "big") + secret
        comment = b"\xff\xfe" + (len(secret) + 2).to_bytes(2, "big") + secret
        path.write_bytes(data[:2] + block + comment + data[2:] + secret)
    result = tool.fly(camera=photos, truth=toy_flight.truth)
    assert result.code == 0, result.err
    (segment,) = (tool.folder / "flight-0001").iterdir()
    data = segment.read_bytes()
    assert b"GpsLatitude" not in data
    assert str(toy_flight.truth).encode() not in data
    assert tool.replay().out == SAME
    for kept, path in zip(pictures(segment), sorted(photos.iterdir()), strict=True):
        assert np.array_equal(decode_rgb(kept, "kept"), decode_rgb(path.read_bytes(), str(path)))


def test_a_password_in_a_url_stays_out(
    tool: Tool, toy_flight: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s4g.runtime.frames.open_frames", lambda *_: Live(toy_flight))
    tool.fly(camera="rtsp://me:hunter2@cam/stream")
    (segment,) = (tool.folder / "flight-0001").iterdir()
    assert b"hunter2" not in segment.read_bytes()


def test_a_picture_that_is_no_jpeg_is_kept_exactly(
    tool: Tool, toy_flight: Any, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in toy_flight.photos.iterdir():
        rgb = decode_rgb(path.read_bytes(), path.name)
        (photos / path.with_suffix(".png").name).write_bytes(encode_rgb(rgb, ".png"))
    table = tmp_path / "t.csv"
    table.write_text(toy_flight.telemetry.read_text().replace(".jpg", ".png"))
    assert tool.fly(camera=photos, telemetry=table).code == 0
    assert "6 of 6 fixes are the same\n" in tool.replay().out


def test_recording_changes_no_fix(tool: Tool) -> None:
    def fixes(result: Result) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in result.out.splitlines()]
        return [{k: v for k, v in fix.items() if k != "latency_ms"} for fix in found]

    assert fixes(tool.fly()) == fixes(tool.fly(log_dir=None))


# ---- the list of flights -------------------------------------------------------------------------


def test_flights_are_listed_and_numbered(tool: Tool) -> None:
    tool.fly()
    tool.fly(max_frames=3)
    head, *rows = tool.log().out.splitlines()
    assert " ".join(head.split()) == "flight began (its clock) seconds frames fixes lost MB states"
    assert [row.split()[0] for row in rows] == ["flight-0001", "flight-0002"]
    assert [row.split()[4:7] for row in rows] == [["6", "4", "0"], ["3", "1", "0"]]
    assert rows[0].endswith("4 TRACK, 2 ACQUIRING")


def test_one_of_several_flights_has_to_be_named(tool: Tool) -> None:
    tool.fly()
    tool.fly()
    message = f"{tool.folder}: holds 2 flights; name one, such as {tool.folder / 'flight-0002'}"
    assert tool.replay().err == f"error: {message}\n"
    assert tool.log(tool.folder, "--said").err == f"error: {message}\n"


def test_fixes_and_pictures_can_be_taken_out(
    tool: Tool, toy_flight: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool.fly(out=tmp_path / "flown.jsonl")
    words = (tool.folder, "--fixes", tmp_path / "f.jsonl", "--frames", tmp_path / "frames")
    assert tool.log(*words).code == 0
    assert (tmp_path / "f.jsonl").read_text() == (tmp_path / "flown.jsonl").read_text()
    assert sorted(p.name for p in (tmp_path / "frames").iterdir()) == [
        f"{i:06d}.jpg" for i in range(6)
    ]
    taken = Tool._call(tool, cli, "score", tmp_path / "f.jsonl", toy_flight.truth)
    assert taken.out.startswith("fixes           4 of 6 frames (66.7 %)\n")
    refused = tool.log(*words)
    assert refused.err == (
        f"error: {tmp_path / 'f.jsonl'}: already exists; pass --overwrite to replace it\n"
    )
    assert tool.log(*words, "--overwrite").code == 0


def test_exact_pictures_are_taken_out_to_the_last_bit(
    tool: Tool, toy_flight: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Live(toy_flight)
    monkeypatch.setattr("s4g.runtime.frames.open_frames", lambda *_: live)
    tool.fly(camera="/dev/video9")
    assert tool.log(tool.folder, "--frames", tmp_path / "frames").code == 0
    names = sorted((tmp_path / "frames").iterdir())
    assert len(names) == 6
    for path, rgb in zip(names, live.photos, strict=True):
        assert np.array_equal(decode_rgb(path.read_bytes(), path.name), rgb)


def test_what_was_said_can_be_printed(tool: Tool) -> None:
    tool.fly()
    lines = tool.log(tool.folder, "--said").out.splitlines()
    assert any(line.endswith(" s  state: TRACK") for line in lines)


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"log_frames": "some"}, "--log-frames some: expected every, none, or pictures a second"),
        ({"log_frames": -1}, "--log-frames -1: expected every, none, or pictures a second"),
        ({"log_frames": "nan"}, "--log-frames nan: expected every, none, or pictures a second"),
        (
            {"log_dir": None, "log_cap": 100},
            "--log-…: nothing is recorded; add --log-dir DIR",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(
    tool: Tool, changes: dict[str, object], message: str
) -> None:
    refused = tool.fly(**changes)
    assert (refused.code, refused.err, refused.out) == (2, f"error: {message}\n", "")


def test_a_folder_that_cannot_be_is_refused_before_the_flight(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder, message in (
        (tmp_path / "file", "is a file; give the name of a folder"),
        (
            tmp_path / "a" / "b",
            f"the folder {tmp_path / 'a'} does not exist; create it first",
        ),
    ):
        refused = tool.fly(log_dir=folder)
        assert (refused.code, refused.out) == (2, "")
        assert refused.err == f"error: --log-dir {folder}: {message}\n"
    refused = tool.fly(log_dir=Path("/proc/s4g"))
    assert refused.code == 2
    assert refused.err.startswith("error: --log-dir /proc/s4g: cannot write (")


def test_two_recorders_do_not_share_a_folder(tool: Tool) -> None:
    from s4g.runtime.log_folder import locked

    tool.folder.mkdir()
    with locked(tool.folder):
        refused = tool.fly()
    assert refused.err == (
        f"error: --log-dir {tool.folder}: another s4g-run records there; give each its own folder\n"
    )
    assert tool.fly().code == 0


def test_a_log_that_is_none_is_refused(tool: Tool, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    foreign = tmp_path / "foreign.mcap"
    foreign.write_bytes(b"not a log")
    for path, message in (
        (tmp_path / "nowhere", "no such log; give the folder of a flight"),
        (empty, "holds no log; give the folder of a flight"),
        (foreign, "it is no MCAP file; expected the record of s4g-run --log-dir"),
    ):
        for refused in (tool.replay(path), tool.log(path)):
            assert (refused.code, refused.err) == (2, f"error: {path}: {message}\n")
