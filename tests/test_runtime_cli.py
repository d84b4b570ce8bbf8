"""`s4g-run` as a user starts it: arguments in, exit code, lines on stdout and stderr."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s4g.core.camera import Camera
from s4g.core.console import run_command
from s4g.core.engine_onnx import OnnxEngine
from s4g.core.images import decode_rgb
from s4g.runtime.cli import cli
from s4g.runtime.frames import Frame, Outage


@dataclasses.dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def fixes(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Tool:
    """Runs the command with the toy flight's files unless told otherwise."""

    def __init__(
        self, capsys: pytest.CaptureFixture[str], flight: Any, pack: Path, encoder: Path
    ) -> None:
        self.capsys = capsys
        self.options: dict[str, object] = {
            "--camera": flight.photos,
            "--pack": pack,
            "--encoder": encoder,
            "--device": "cpu",
            "--telemetry": flight.telemetry,
            "--hfov": flight.hfov_deg,
            "--level": 48,
            "--threads": 1,
        }

    def run(self, *flags: str, **changes: object) -> Result:
        options = dict(self.options)
        options |= {"--" + name.replace("_", "-"): value for name, value in changes.items()}
        words = [str(w) for pair in options.items() if pair[1] is not None for w in pair]
        return self.call(*words, *flags)

    def call(self, *words: str) -> Result:
        with pytest.raises(SystemExit) as stop:
            run_command(cli, list(words))
        captured = self.capsys.readouterr()
        return Result(int(stop.value.code or 0), captured.out, captured.err)


@pytest.fixture
def tool(
    capsys: pytest.CaptureFixture[str], toy_flight: Any, toy_pack: Path, toy_encoder: Path
) -> Tool:
    return Tool(capsys, toy_flight, toy_pack, toy_encoder)


ENCODER = "encoder: toy.onnx on onnxruntime cpu"


def assert_refused(result: Result, line: str, code: int = 2) -> None:
    """A refusal is one line; what is wrong with a frame is found after the encoder is named."""
    assert result.err.removeprefix(ENCODER + "\n") == f"error: {line}\n"
    assert result.out == ""
    assert result.code == code


def test_fixes_are_printed_one_json_object_per_line(tool: Tool) -> None:
    result = tool.run("--single")
    assert result.code == 0
    assert [fix["frame"] for fix in result.fixes] == list(range(6))
    assert [fix["state"] for fix in result.fixes] == ["TRACK"] * 6
    assert result.err.startswith(f"{ENCODER}\n6 fixes from 6 frames\nstage ")


def test_an_encoder_that_is_not_calibrated_is_called_so(tool: Tool, toy_encoder: Path) -> None:
    assert tool.run().err.splitlines()[-1] == (
        f"note: {toy_encoder} is not calibrated: ground that the pack does not hold may pass for "
        "a fix; calibrate its checkpoint with s4g-train calibrate"
    )


def test_the_device_is_the_users_choice(tool: Tool) -> None:
    assert tool.run(device=None).err.startswith("encoder: toy.onnx on onnxruntime ")
    assert_refused(
        tool.run(device="tensorrt"),
        f"{tool.options['--encoder']}: device tensorrt runs plans; build one on this machine with "
        "s4g-export build BUNDLE",
    )


def test_the_engine_is_closed_whatever_happens(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr(OnnxEngine, "close", lambda engine: closed.append(engine.name))
    assert tool.run().code == 0
    assert tool.run(hfov=None).code == 2
    assert closed == [str(tool.options["--encoder"])] * 2


def test_the_fixes_file_holds_what_was_printed(tool: Tool, tmp_path: Path) -> None:
    result = tool.run(out=tmp_path / "fixes.jsonl")
    assert (tmp_path / "fixes.jsonl").read_text() == result.out


def test_quiet_prints_no_fixes(tool: Tool, tmp_path: Path) -> None:
    result = tool.run("--quiet", out=tmp_path / "fixes.jsonl")
    assert result.out == ""
    assert len((tmp_path / "fixes.jsonl").read_text().splitlines()) == 6


def test_truth_prints_the_score_and_plot_draws_the_track(
    tool: Tool, toy_flight: Any, tmp_path: Path
) -> None:
    result = tool.run(truth=toy_flight.truth, plot=tmp_path / "track.png")
    assert "fixes           4 of 6 frames (66.7 %)" in result.err
    assert decode_rgb((tmp_path / "track.png").read_bytes(), "track.png").shape[1] == 1000


def test_the_truth_never_touches_a_fix(tool: Tool, toy_flight: Any, tmp_path: Path) -> None:
    """A poisoned truth changes the score and nothing else."""
    header, *rows = toy_flight.truth.read_text().splitlines()
    poisoned = [",".join([*row.split(",")[:2], "-33.5", "151.2"]) for row in rows]
    (tmp_path / "poison.csv").write_text("\n".join([header, *poisoned]) + "\n")
    without = tool.run().fixes
    honest = tool.run(truth=toy_flight.truth).fixes
    wrong = tool.run(truth=tmp_path / "poison.csv").fixes
    for fixes in (without, honest, wrong):
        for fix in fixes:
            del fix["latency_ms"]
    assert without == honest == wrong


def test_score_reads_what_a_run_wrote(tool: Tool, toy_flight: Any, tmp_path: Path) -> None:
    fixes = tmp_path / "fixes.jsonl"
    tool.run("--quiet", out=fixes)
    table = tool.call("score", str(fixes), str(toy_flight.truth))
    assert table.out.startswith("fixes           4 of 6 frames (66.7 %)\n")
    score = json.loads(tool.call("score", str(fixes), str(toy_flight.truth), "--json").out)
    assert (score["frames"], score["fixes"], score["false_fixes"]) == (6, 4, 0)
    assert score["median_m"] < 5.0


def test_diagnostics_are_given_when_asked_for(tool: Tool) -> None:
    assert "diagnostics" not in tool.run(max_frames=1).fixes[0]
    (fix,) = tool.run("--diagnostics", max_frames=1).fixes
    assert fix["diagnostics"]["patches"] > 1


def test_intrinsics_serve_as_well_as_the_field_of_view(tool: Tool, tmp_path: Path) -> None:
    camera = tmp_path / "camera.json"
    camera.write_text(json.dumps(dataclasses.asdict(Camera.from_hfov(640, 480, 60.0))))
    by_hfov, by_file = tool.run().fixes, tool.run(hfov=None, intrinsics=camera).fixes
    assert [f["lat"] for f in by_file] == pytest.approx([f["lat"] for f in by_hfov], abs=1e-6)


def test_a_video_is_localised_by_time(tool: Tool, toy_flight: Any, tmp_path: Path) -> None:
    import cv2

    video = tmp_path / "flight.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 0.5, (320, 240))
    for path in sorted(toy_flight.photos.iterdir()):
        writer.write(cv2.imread(str(path)))
    writer.release()
    result = tool.run(camera=video, truth=toy_flight.truth)
    assert result.code == 0, result.err
    assert [fix["t"] for fix in result.fixes] == [0, 2, 4, 6, 8, 10]
    assert "fixes           4 of 6 frames" in result.err
    assert all("file" not in fix for fix in result.fixes)


class Live:
    """A live camera that shows the photos of a flight and falls silent twice."""

    name, count, dropped = "/dev/video9", None, 3

    def __init__(self, flight: Any, shape_at_last: tuple[int, int] = (240, 320)) -> None:
        self.photos = [decode_rgb(p.read_bytes(), p.name) for p in sorted(flight.photos.iterdir())]
        height, width = shape_at_last
        self.photos[-1] = np.resize(self.photos[-1], (height, width, 3))

    def frames(self) -> Iterator[Frame | Outage]:
        for index, rgb in enumerate(self.photos):
            t = 2.0 * index
            if index in (2, 4):
                yield Outage(t - 0.5, t - 0.5, "no frame for 1.0 s")
            height, width = rgb.shape[:2]
            arrived_s = time.monotonic()
            yield Frame(index, t, None, f"frame {index}", width, height, arrived_s, decoded=rgb)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("rate", [None, 1000])
def test_outages_of_a_live_camera_are_told_and_not_counted(
    tool: Tool, toy_flight: Any, monkeypatch: pytest.MonkeyPatch, rate: int | None
) -> None:
    monkeypatch.setattr("s4g.runtime.frames.open_frames", lambda *_: Live(toy_flight))
    result = tool.run(camera="/dev/video9", rate=rate)
    assert result.code == 0, result.err
    assert result.err.splitlines()[1] == "4 fixes from 6 frames, 3 frames dropped"
    silent = [fix for fix in result.fixes if fix.get("reason") == "no_frames"]
    assert {(fix["frame"], fix["latency_ms"]) for fix in silent} >= {(1, None), (3, None)}
    assert [f["frame"] for f in result.fixes if f["latency_ms"] is not None] == list(range(6))


def test_a_live_frame_of_another_shape_ends_nothing(
    tool: Tool, toy_flight: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = tmp_path / "camera.json"
    camera.write_text(json.dumps(dataclasses.asdict(Camera.from_hfov(640, 480, 60.0))))
    live = Live(toy_flight, (200, 320))
    monkeypatch.setattr("s4g.runtime.frames.open_frames", lambda *_: live)
    result = tool.run(camera="/dev/video9", hfov=None, intrinsics=camera)
    assert result.code == 0, result.err
    states = [fix["state"] for fix in result.fixes if fix["latency_ms"] is not None]
    assert states == ["ACQUIRING", "ACQUIRING", "TRACK", "TRACK", "TRACK", "DEGRADED"]
    assert result.fixes[-1]["reason"] == "frame_size"
    assert result.err.splitlines()[1] == (
        "frame 5: frame of 320x200 px, camera calibrated at 640x480: the aspect ratio differs; "
        "calibrate at the frame's own size; there is no fix until then"
    )


# ---- bad input: exit code 2 and one line ---------------------------------------------------------


def test_an_output_that_exists_is_not_replaced(tool: Tool, tmp_path: Path) -> None:
    out = tmp_path / "fixes.jsonl"
    out.write_text("precious\n")
    assert_refused(tool.run(out=out), f"{out}: already exists; pass --overwrite to replace it")
    assert out.read_text() == "precious\n"
    assert tool.run("--overwrite", out=out).code == 0
    assert out.read_text() != "precious\n"


def test_a_picture_that_exists_is_not_replaced(tool: Tool, tmp_path: Path) -> None:
    plot = tmp_path / "track.png"
    plot.write_text("precious\n")
    assert_refused(tool.run(plot=plot), f"{plot}: already exists; pass --overwrite to replace it")


def copy_of(flight: Any, folder: Path) -> Path:
    return Path(shutil.copytree(flight.photos, folder / "photos"))


def test_a_corrupt_photo_ends_the_run_and_leaves_no_output(
    tool: Tool, toy_flight: Any, tmp_path: Path
) -> None:
    bad = copy_of(toy_flight, tmp_path) / "photo_3.jpg"
    bad.write_bytes(b"\xff\xd8 not much of a photo")
    result = tool.run("--quiet", camera=bad.parent, out=tmp_path / "fixes.jsonl")
    assert_refused(result, f"{bad}: not an image that can be decoded; replace or remove the file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos"]


def test_an_empty_folder_is_refused(tool: Tool, tmp_path: Path) -> None:
    assert_refused(
        tool.run(camera=tmp_path),
        f"{tmp_path}: holds no pictures; expected files ending in .bmp .jpeg .jpg .png .tif .tiff "
        ".webp",
    )


def test_a_missing_camera_is_refused(tool: Tool) -> None:
    assert_refused(
        tool.run(camera="nowhere"),
        "--camera nowhere: no such file or folder; give a device (/dev/video0), a URL "
        "(rtsp://…), a video, a photo or a folder of photos",
    )


def test_telemetry_without_a_column_is_refused(tool: Tool, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("file,yaw_deg,pitch_deg,agl_m\nphoto_0.jpg,0,0,100\n")
    assert_refused(
        tool.run(telemetry=table),
        f"{table}: has pitch_deg but no roll_deg; give both of them or neither",
    )


def test_telemetry_that_does_not_cover_the_frames_is_refused(
    tool: Tool, toy_flight: Any, tmp_path: Path
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("".join(toy_flight.telemetry.read_text().splitlines(True)[:1]) + "\n")
    assert_refused(
        tool.run(telemetry=table),
        f"{table}: has no rows; expected a header line and one row per frame",
    )
    lines = toy_flight.telemetry.read_text().splitlines(True)
    table.write_text(lines[0] + lines[1].replace("photo_0", "photo_9"))
    result = tool.run(telemetry=table)
    assert result.code == 2
    assert result.err.splitlines()[-1] == (
        f"error: {table}: covers no frame: of the 1 files it lists, photo_9.jpg first, none is a "
        "frame with attitude or height; check the 'file' column"
    )


def test_a_frame_without_telemetry_has_no_fix_and_says_why(
    tool: Tool, toy_flight: Any, tmp_path: Path
) -> None:
    table = tmp_path / "t.csv"
    lines = toy_flight.telemetry.read_text().splitlines(True)
    table.write_text("".join(lines[:-1]))
    result = tool.run(telemetry=table)
    assert result.code == 0
    last = json.loads(result.out.splitlines()[-1])
    assert (last["state"], last["reason"], last["lat"]) == ("NO_FIX", "no_telemetry", None)


def test_a_pack_cut_short_is_refused(tool: Tool, toy_pack: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.s4gpack"
    cut.write_bytes(toy_pack.read_bytes()[:-100])
    result = tool.run(pack=cut)
    assert result.code == 2
    assert result.err.startswith(f"error: {cut}: ")
    assert len(result.err.splitlines()) == 1


def test_an_altered_pack_is_refused(tool: Tool, toy_pack: Path, tmp_path: Path) -> None:
    data = bytearray(toy_pack.read_bytes())
    data[len(data) // 2] ^= 1
    altered = tmp_path / "altered.s4gpack"
    altered.write_bytes(data)
    result = tool.run(pack=altered)
    assert result.code == 2
    assert result.err.startswith(f"error: {altered}: ")
    assert len(result.err.splitlines()) == 1


def test_only_a_pack_of_whom_it_trusts_is_flown(tool: Tool, toy_pack: Path, tmp_path: Path) -> None:
    from s4g.tilepacks.signature import make_keys, sign_pack

    private, public = make_keys(tmp_path / "ops")
    signed = tmp_path / "signed.s4gpack"
    signed.write_bytes(toy_pack.read_bytes())
    assert_refused(
        tool.run(pack=signed, require_signature=public),
        f"{signed}: is not signed; sign it with s4g-pack sign, or do without --require-signature",
    )
    sign_pack(signed, private)
    assert tool.run(pack=signed, require_signature=public).code == 0
    other = make_keys(tmp_path / "other")[1]
    refused = tool.run(pack=signed, require_signature=other)
    assert refused.code == 2 and "use a pack from whom you trust" in refused.err


def test_a_missing_pack_is_refused(tool: Tool, tmp_path: Path) -> None:
    result = tool.run(pack=tmp_path / "none.s4gpack")
    assert result.code == 2
    assert result.err.startswith(f"error: {tmp_path}/none.s4gpack: ")


def test_a_pack_of_another_encoder_is_refused(
    tool: Tool, toy_encoder: Path, toy_pack: Path, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx", reason="making another encoder needs onnx")
    model = onnx.load(str(toy_encoder))
    for entry in model.metadata_props:
        entry.value = entry.value.replace("70" * 32, "ab" * 32)
    other = tmp_path / "other.onnx"
    onnx.save(model, str(other))
    assert_refused(
        tool.run(encoder=other),
        f"{toy_pack} was made by encoder 707070707070, {other} by encoder abababababab; use the "
        "encoder the pack was built with (--encoder) or build the pack again",
    )


def test_a_level_that_the_pack_lacks_is_refused(tool: Tool, toy_pack: Path) -> None:
    assert_refused(
        tool.run(level=100), f"--level 100: {toy_pack} has levels of 48, 64 m; choose one of them"
    )


def test_a_lens_nobody_described_is_refused(tool: Tool) -> None:
    assert_refused(
        tool.run(hfov=None),
        "the camera's field of view is unknown; pass --hfov DEG or --intrinsics FILE",
    )


def test_two_descriptions_of_the_lens_are_refused(tool: Tool, tmp_path: Path) -> None:
    assert_refused(
        tool.run(intrinsics=tmp_path / "camera.json"),
        "--hfov and --intrinsics: give one of them, they say the same thing",
    )


def test_photos_without_telemetry_are_read_as_exif(tool: Tool, toy_flight: Any) -> None:
    result = tool.run(telemetry=None)
    assert result.code == 2
    assert result.err.splitlines() == [
        "no --telemetry: reading attitude and height from the photos (exif)",
        ENCODER,
        "0 fixes from 6 frames",
        "error: --telemetry exif: no photo tells its attitude or height (XMP "
        "drone-dji:Gimbal…Degree, RelativeAltitude); pass --telemetry FILE.csv instead",
    ]


def test_quiet_with_nothing_to_see_is_refused(tool: Tool) -> None:
    assert_refused(
        tool.run("--quiet"),
        "--quiet: nothing would be left to see; add --out, --to, --view, --truth or --plot",
    )


def test_a_truth_that_lacks_a_column_is_refused_before_the_run(tool: Tool, tmp_path: Path) -> None:
    table = tmp_path / "truth.csv"
    table.write_text("file,lat\nphoto_0.jpg,47\n")
    assert_refused(tool.run(truth=table), f"{table}: lacks the column lon; found file, lat")


def test_score_of_a_file_that_is_no_fixes_is_refused(tool: Tool, toy_flight: Any) -> None:
    table = str(toy_flight.telemetry)
    assert_refused(
        tool.call("score", table, str(toy_flight.truth)),
        f"{table}: line 1: not a fix of s4g-run; expected a line of fixes.jsonl",
    )


def test_a_missing_option_is_refused(tool: Tool) -> None:
    result = tool.run(pack=None)
    assert result.code == 2
    assert result.err.startswith("error: Missing option '--pack'")


def test_the_first_frame_is_not_believed(tool: Tool) -> None:
    result = tool.run()
    assert result.code == 0
    first, *_, last = result.fixes
    assert (first["state"], first["lat"]) == ("ACQUIRING", None)
    assert (last["state"], last["source"]) == ("TRACK", "visual")


def test_positions_between_frames_are_no_frames(tool: Tool, tmp_path: Path) -> None:
    result = tool.run(rate=1, out=tmp_path / "fixes.jsonl")
    assert [fix["t"] for fix in result.fixes] == list(range(11))
    assert [fix["latency_ms"] is None for fix in result.fixes] == [False, True] * 5 + [False]
    assert result.err.splitlines()[1] == "4 fixes from 6 frames"
    assert (tmp_path / "fixes.jsonl").read_text() == result.out


def test_frames_without_a_clock_are_localised_one_by_one_and_that_is_said(
    tool: Tool, toy_flight: Any, tmp_path: Path
) -> None:
    table = tmp_path / "t.csv"
    rows = [line.split(",") for line in toy_flight.telemetry.read_text().splitlines()]
    table.write_text("".join(",".join([row[0], *row[2:]]) + "\n" for row in rows))
    result = tool.run(telemetry=table)
    assert [fix["state"] for fix in result.fixes] == ["TRACK"] * 6
    assert (
        "note: 6 frames have no time: each was localised by itself; a 't' column in the telemetry "
        "gives them one\n"
    ) in result.err
    assert "have no time" not in tool.run("--single", telemetry=table).err
    assert "have no time" not in tool.run().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--single", "--start", "47,8,100"),
            "--start 47,8,100: with --single no frame comes first; leave one out",
        ),
        (
            ("--single", "--rate", "10"),
            "--rate 10: with --single nothing is carried on; leave one out",
        ),
        (("--start", "97,8,100"), "--start 97,8,100: expected degrees, and metres above 0"),
        (("--start", "47,8"), "--start 47,8: expected three numbers, LAT,LON,RADIUS_M"),
        (
            ("--mount", "0,nan,0"),
            "--mount 0,nan,0: expected three numbers, YAW,PITCH,ROLL in degrees",
        ),
        (("--alert-limit", "30"), "--alert-limit 30: nothing is scored; add --truth FILE"),
        (
            ("--latency-ms", "600"),
            "--latency-ms 600: must be at least 0 and less than --max-age 0.5 s, or every frame is "
            "too old",
        ),
        (
            ("--camera-mode", "big"),
            "--camera-mode big: not WxH or WxH:FOURCC; give something like 1280x720:MJPG",
        ),
    ],
)
def test_an_option_that_means_nothing_is_refused(
    tool: Tool, options: tuple[str, ...], message: str
) -> None:
    assert_refused(tool.run(*options), message)
