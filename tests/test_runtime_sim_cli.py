from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from s4g.core.camera import Attitude
from s4g.core.console import run_command
from s4g.core.geo import LocalFrame
from s4g.core.ground import GroundWindow
from s4g.core.images import read_rgb
from s4g.core.sources import open_ground
from s4g.core.warp import north_up_patch
from s4g.runtime.intrinsics import read_intrinsics
from s4g.runtime.sim_cli import cli

LANDSCAPE = "landscape:seed=3,size_m=300,gsd_m=1"
# The toy source lies at 46.95 N, 9 E and measures 320 x 256 m.
INSIDE = "lat,lon\n46.9524,9.0015\n46.9524,9.0028\n"


class Command:
    """`s4g-sim` in this process: exit code, stdout and stderr of a run."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self._capsys = capsys
        self.flight = folder / "flight"

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            run_command(cli, [str(v) for v in arguments])
        out, err = self._capsys.readouterr()
        return int(str(stop.value.code)), out, err

    def over(self, source: object, *arguments: object) -> tuple[int, str, str]:
        return self("--source", source, "--out", self.flight, "--size", "96x64", *arguments)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    return Command(capsys, tmp_path)


@pytest.fixture
def route(tmp_path: Path) -> Path:
    path = tmp_path / "way.csv"
    path.write_text(INSIDE)
    return path


def digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        whole.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return whole.hexdigest()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_flight_along_a_route_makes_the_whole_folder(
    command: Command, toy_source: Path, route: Path
) -> None:
    code, out, err = command.over(toy_source, "--route", route, "--agl", 60, "--fps", 0.5)
    assert code == 0, err
    names = sorted(p.name for p in command.flight.iterdir())
    assert names == ["camera.json", "flight.json", "frames", "telemetry.csv", "truth.csv"]
    truth = rows(command.flight / "truth.csv")
    assert len(list((command.flight / "frames").iterdir())) == len(truth) == 4
    assert out == f"{command.flight}: 4 frames, 0.10 km, 6 s, 0.7217 m/px\n"
    assert float(truth[0]["lat"]) == pytest.approx(46.9524, abs=1e-7)
    assert float(truth[0]["lon"]) == pytest.approx(9.0015, abs=1e-7)
    settings = json.loads((command.flight / "flight.json").read_text())
    assert settings["attribution"] == "toy imagery, public domain"
    assert settings["agl"] == 60
    assert settings["source"] == str(toy_source)
    assert settings["route"] == str(route)


def test_frames_telemetry_and_camera_fit_together(
    command: Command, toy_source: Path, route: Path
) -> None:
    code, _, err = command.over(
        toy_source, "--route", route, "--agl", 80, "--fps", 0.5, "--sway", 4, "--tilt", 0,
        "--heading-error", 0, "--agl-error", 0, "--noise", 0, "--vignetting", 0, "--exposure", 0,
        "--format", "png", "--distortion=-0.1,0.01",
    )  # fmt: skip
    assert code == 0, err
    camera = read_intrinsics(command.flight / "camera.json")
    source = open_ground(str(toy_source))
    for told, true in zip(
        rows(command.flight / "telemetry.csv"), rows(command.flight / "truth.csv"), strict=True
    ):
        frame = read_rgb(command.flight / "frames" / told["file"])
        pose = Attitude(*(float(told[k]) for k in ("yaw_deg", "pitch_deg", "roll_deg", "agl_m")))
        patch, coverage = north_up_patch(frame, camera, pose, (0.0, 0.0), 30.0, 30)
        here = LocalFrame(float(true["lat"]), float(true["lon"]))
        direct = source.read(here, GroundWindow(-15, 15, 1.0, 30, 30))
        assert coverage == 1.0
        assert np.corrcoef(patch.ravel(), direct.rgb.ravel())[0, 1] > 0.97
    source.close()


def test_the_same_seed_gives_the_same_folder(
    command: Command, toy_source: Path, route: Path
) -> None:
    digests = []
    for seed in (1, 1, 2):
        code, _, err = command.over(
            toy_source, "--route", route, "--agl", 60, "--seed", seed, "--overwrite"
        )
        assert code == 0, err
        digests.append(digest(command.flight))
    assert digests[0] == digests[1] != digests[2]


def test_without_a_route_lanes_cover_the_landscape(command: Command) -> None:
    code, out, err = command.over(LANDSCAPE, "--agl", 50, "--fps", 0.2, "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert summary["flight"] == str(command.flight)
    assert summary["frames"] == len(rows(command.flight / "truth.csv")) > 5
    north = [float(row["lat"]) for row in rows(command.flight / "truth.csv")]
    assert (max(north) - min(north)) * 111_000 > 200  # of 300 m less the inset
    assert summary["least_share_on_source"] > 0.9


def test_a_line_crosses_the_landscape_once(command: Command) -> None:
    code, _, err = command.over(
        LANDSCAPE, "--agl", 50, "--pattern", "line", "--inset", 100, "--fps", 1
    )
    assert code == 0, err
    headings = {row["yaw_deg"] for row in rows(command.flight / "truth.csv")}
    assert {round(float(h)) for h in headings} == {90}
    assert json.loads((command.flight / "flight.json").read_text())["length_m"] == pytest.approx(
        100, abs=1
    )


def test_a_video_can_be_made_instead_of_photos(
    command: Command, toy_source: Path, route: Path
) -> None:
    code, _, err = command.over(toy_source, "--route", route, "--agl", 60, "--format", "mp4")
    assert code == 0, err
    capture = cv2.VideoCapture(str(command.flight / "flight.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == len(rows(command.flight / "truth.csv"))
    assert not (command.flight / "frames").exists()


def test_heights_of_a_route_are_flown(command: Command, toy_source: Path, tmp_path: Path) -> None:
    way = tmp_path / "climb.csv"
    way.write_text("lat,lon,agl_m\n46.9524,9.0015,50\n46.9524,9.0028,70\n")
    code, _, err = command.over(toy_source, "--route", way)
    assert code == 0, err
    heights = [float(row["agl_m"]) for row in rows(command.flight / "truth.csv")]
    assert heights[0] == 50
    assert heights == sorted(heights)
    assert 65 < heights[-1] <= 70


def test_frames_past_the_border_are_counted_for_the_user(
    command: Command, toy_source: Path, tmp_path: Path
) -> None:
    way = tmp_path / "out.csv"
    way.write_text("lat,lon\n46.9524,9.002\n46.9524,9.006\n")
    code, out, err = command.over(
        toy_source, "--route", way, "--agl", 60, "--fps", 0.5, "--tilt", 0
    )
    assert code == 0
    assert f"{way}: 5 of 11 frames lie off the source\n" in err
    assert "6 frames see past the source's border (black; the worst shows 0% of it)\n" in err
    last = read_rgb(command.flight / "frames" / "000010.jpg")
    assert last.max() <= 2  # black, but for JPEG


def test_soft_frames_are_announced(command: Command, toy_source: Path, route: Path) -> None:
    code, _, err = command.over(
        toy_source, "--route", route, "--agl", 60, "--fps", 0.2, "--size", "640x480"
    )
    assert code == 0
    assert "note: frames show 0.11 m/px, the source has 0.5 m/px; they will look soft\n" in err


def test_an_existing_folder_is_kept_without_overwrite(
    command: Command, toy_source: Path, route: Path
) -> None:
    command.flight.mkdir()
    (command.flight / "mine.txt").write_text("keep")
    arguments = (toy_source, "--route", route, "--agl", 60, "--fps", 0.2)
    code, out, err = command.over(*arguments)
    assert (code, out) == (2, "")
    assert err == f"error: {command.flight}: already exists; pass --overwrite to replace it\n"
    assert (command.flight / "mine.txt").read_text() == "keep"
    assert command.over(*arguments, "--overwrite")[0] == 0
    assert not (command.flight / "mine.txt").exists()


OVER_TOY = "{toy}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--route", "{way}"),
            "--agl: missing; give the height above ground in metres, or an agl_m column in --route",
        ),
        (
            (),
            "--agl: missing; give the height above ground in metres, or a --route with agl_m",
        ),
        (("--agl", "0"), "--agl 0: expected 1 to 20000 metres"),
        (("--agl", "nan"), "--agl nan: expected 1 to 20000 metres"),
        (
            ("--agl", "60", "--speed", "-3"),
            "--speed -3: expected 0.1 to 300 metres per second",
        ),
        (("--agl", "60", "--hfov", "170"), "--hfov 170: expected 5 to 150 degrees"),
        (("--agl", "60", "--tilt", "40"), "--tilt 40: expected 0 to 15 degrees"),
        (
            ("--agl", "60", "--agl-error", "2"),
            "--agl-error 2: expected 0 to 0.5 a share of the height",
        ),
        (
            ("--agl", "60", "--heading-error", "-1"),
            "--heading-error -1: expected 0 to 180 degrees",
        ),
        (
            ("--agl", "60", "--motion-blur", "1e9"),
            "--motion-blur 1e+09: expected 0 to 100 milliseconds",
        ),
        (
            ("--agl", "60", "--size", "640"),
            "--size 640: expected WIDTHxHEIGHT in pixels, 32 to 8192 each",
        ),
        (
            ("--agl", "60", "--size", "9x9000"),
            "--size 9x9000: expected WIDTHxHEIGHT in pixels, 32 to 8192 each",
        ),
        (
            ("--agl", "60", "--distortion", "0.1"),
            "--distortion 0.1: expected two numbers K1,K2 such as -0.1,0.01",
        ),
        (
            ("--agl", "60", "--distortion=-3,0"),
            "--distortion -3,0: folds a frame of 60 degrees over itself; choose smaller "
            "coefficients or a narrower --hfov",
        ),
        (
            ("--agl", "60", "--inset", "200"),
            "--inset 200: leaves nothing of the source's 320 x 256 m; choose a smaller inset, "
            "a lower --agl or a narrower --hfov",
        ),
        (
            ("--agl", "60", "--route", "{way}", "--pattern", "line"),
            "--pattern: a pattern is laid only without --route; leave out one",
        ),
        (
            ("--agl", "60", "--route", "{way}", "--spacing", "30"),
            "--spacing: a pattern is laid only without --route; leave out one",
        ),
        (
            ("--agl", "60", "--route", "{folder}/none.csv"),
            "{folder}/none.csv: cannot be read (No such file or directory)",
        ),
        (
            ("--agl", "60", "--route", "{far}"),
            "{far}: starts at lat 9.00150, lon 46.95240 and never crosses the source (W,S,E,N "
            "9,46.951225,9.004205,46.953529); check the order of lat and lon, or choose another "
            "--source",
        ),
        (
            ("--agl", "60", "--hfov", "120", "--sway", "15"),
            "frame 2: a lens of 120 degrees tilted 19 degrees sees towards the horizon; reduce "
            "--hfov, --tilt or --sway",
        ),
    ],
)
def test_wrong_options_are_refused_with_one_line_and_leave_nothing(
    command: Command,
    toy_source: Path,
    route: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    far = tmp_path / "far.csv"
    far.write_text("lat,lon\n9.0015,46.9524\n9.0028,46.9524\n")
    places = {"way": route, "folder": tmp_path, "far": far}
    code, out, err = command.over(toy_source, *(a.format(**places) for a in arguments))
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == f"error: {message.format(**places)}"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["far.csv", "way.csv"]


def test_a_source_that_does_not_exist_is_refused(command: Command, tmp_path: Path) -> None:
    code, _, err = command.over(tmp_path / "none.tif", "--agl", 60)
    assert code == 2
    assert err == (
        f"error: {tmp_path}/none.tif: no such file or folder; give a raster, a folder of them, "
        "tiles, or 'landscape'\n"
    )


def test_a_source_without_georeference_is_refused(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.full((40, 40, 3), 90, np.uint8))
    code, _, err = command.over(path, "--agl", 60)
    assert code == 2
    assert err.startswith(f"error: {path}: has no georeference; ")
    assert len(err.splitlines()) == 1


def test_a_wrong_landscape_is_refused(command: Command) -> None:
    code, _, err = command.over("landscape:sead=3", "--agl", 60)
    assert code == 2
    assert err == (
        "error: landscape:sead=3: unknown key 'sead'; did you mean seed? legal: seed, size_m, "
        "gsd_m, season, year, light, sensor, lat, lon, style\n"
    )


def test_a_folder_that_cannot_be_made_is_refused(
    command: Command, toy_source: Path, tmp_path: Path
) -> None:
    place = tmp_path / "no" / "flight"
    code, _, err = command("--source", toy_source, "--out", place, "--agl", 60)
    assert code == 2
    assert err == f"error: {place}: the folder {place.parent} does not exist; create it first\n"


def test_a_full_disk_leaves_nothing_behind(
    command: Command, toy_source: Path, route: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = Path.write_bytes, []

    def fill_up(path: Path, data: bytes) -> int:
        written.append(path)
        if len(written) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    code, out, err = command.over(toy_source, "--route", route, "--agl", 60)
    assert (code, out) == (1, "")
    assert err == (
        f"error: {command.flight}: cannot write (No space left on device); free some space or "
        "choose another place; nothing was left behind\n"
    )
    assert [p.name for p in command.flight.parent.iterdir()] == [route.name]


def test_a_raster_in_degrees_can_be_flown_over(command: Command, tmp_path: Path) -> None:
    source = tmp_path / "degrees.tif"
    rasterio = pytest.importorskip("rasterio", reason="GeoTIFFs need rasterio (the pack extra)")
    image = np.random.default_rng(2).integers(1, 256, (3, 300, 300), dtype=np.uint8)
    transform = rasterio.Affine(5e-6, 0, 9.0, 0, -5e-6, 47.0)
    with rasterio.open(
        source, "w", driver="GTiff", width=300, height=300, count=3, dtype="uint8",
        crs="EPSG:4326", transform=transform,
    ) as file:  # fmt: skip
        file.write(image)
    code, _, err = command.over(source, "--agl", 40, "--pattern", "line", "--fps", 1)
    assert code == 0, err
    frame = read_rgb(command.flight / "frames" / "000000.jpg")
    assert frame.std() > 10
