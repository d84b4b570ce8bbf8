from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from s4g.core.camera import Attitude, Camera
from s4g.core.errors import S4GError
from s4g.core.images import list_images, read_rgb
from s4g.runtime.flight import (
    TELEMETRY_COLUMNS,
    TRUTH_COLUMNS,
    PhotoSink,
    VideoSink,
    photo_name,
    write_flight,
    write_settings,
)
from s4g.runtime.intrinsics import read_intrinsics
from s4g.runtime.score import read_truth
from s4g.runtime.simulate import Moment
from s4g.runtime.telemetry import read_telemetry

CAMERA = Camera.from_hfov(64, 48, 60)
MOMENTS = [
    Moment(
        index=i,
        t=i * 0.5,
        lat_deg=47.0 + i * 1e-5,
        lon_deg=8.0,
        true=Attitude(10.0, 1.0, -2.0, 100.0),
        vel_n_mps=-1e-9,
        vel_e_mps=15.0,
        reported=Attitude(12.5, 0.0, 0.0, 101.0),
        reported_vel_n_mps=0.25,
        reported_vel_e_mps=14.5,
        exposure_ev=0.0,
    )
    for i in range(3)
]


def picture(moment: Moment) -> np.ndarray:
    """Return a frame whose brightness tells its number."""
    return np.full((48, 64, 3), 60 + 60 * moment.index, np.uint8)


def render(moment: Moment) -> tuple[np.ndarray, float]:
    return picture(moment), 1.0 - 0.1 * moment.index


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_photos_and_tables_name_each_other(tmp_path: Path) -> None:
    counted: list[int] = []
    sink = PhotoSink(tmp_path, ".png", 90)
    past, least = write_flight(tmp_path, MOMENTS, render, sink, ".png", counted.append)
    assert counted == [1, 1, 1]
    assert (past, least) == (2, 0.8)
    photos = list_images(tmp_path / "frames")
    assert [p.name for p in photos] == ["000000.png", "000001.png", "000002.png"]
    for path, moment in zip(photos, MOMENTS, strict=True):
        assert np.array_equal(read_rgb(path), picture(moment))
    for name, columns in (("telemetry.csv", TELEMETRY_COLUMNS), ("truth.csv", TRUTH_COLUMNS)):
        table = rows(tmp_path / name)
        assert tuple(table[0]) == columns
        assert [row["file"] for row in table] == [p.name for p in photos]


def test_telemetry_says_what_sensors_report_and_truth_what_is(tmp_path: Path) -> None:
    write_flight(tmp_path, MOMENTS, render, PhotoSink(tmp_path, ".jpg", 90), ".jpg", lambda n: None)
    assert rows(tmp_path / "telemetry.csv")[1] == {
        "t": "0.500", "file": "000001.jpg", "yaw_deg": "12.500", "pitch_deg": "0.000",
        "roll_deg": "0.000", "agl_m": "101.000", "vel_n_mps": "0.250", "vel_e_mps": "14.500",
    }  # fmt: skip
    assert rows(tmp_path / "truth.csv")[1] == {
        "t": "0.500", "file": "000001.jpg", "lat": "47.00001000", "lon": "8.00000000",
        "yaw_deg": "10.000", "pitch_deg": "1.000", "roll_deg": "-2.000", "agl_m": "100.000",
        "vel_n_mps": "0.000", "vel_e_mps": "15.000",
    }  # fmt: skip


def test_the_true_position_is_not_in_the_telemetry(tmp_path: Path) -> None:
    write_flight(tmp_path, MOMENTS, render, PhotoSink(tmp_path, ".jpg", 90), ".jpg", lambda n: None)
    text = (tmp_path / "telemetry.csv").read_text()
    assert "lat" not in text
    assert "47.0" not in text


def test_a_video_holds_every_frame_and_its_tables_go_by_time(tmp_path: Path) -> None:
    write_flight(tmp_path, MOMENTS, render, VideoSink(tmp_path, CAMERA, 2.0), None, lambda n: None)
    capture = cv2.VideoCapture(str(tmp_path / "flight.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(2.0)
    levels = []
    while (frame := capture.read())[0]:
        levels.append(frame[1].mean())
    assert levels == pytest.approx([60, 120, 180], abs=6)
    for name in ("telemetry.csv", "truth.csv"):
        table = rows(tmp_path / name)
        assert "file" not in table[0]
        assert [row["t"] for row in table] == ["0.000", "0.500", "1.000"]


def test_a_video_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(S4GError) as error:
        VideoSink(tmp_path / "missing", CAMERA, 2.0)
    assert str(error.value) == (
        f"--format mp4: this OpenCV {cv2.__version__} cannot write MP4 at 64x48 px, 2 frames/s; "
        "use --format jpg"
    )


def test_what_is_written_is_what_s4g_run_reads(tmp_path: Path) -> None:
    write_flight(tmp_path, MOMENTS, render, PhotoSink(tmp_path, ".jpg", 90), ".jpg", lambda n: None)
    camera = replace(CAMERA, distortion=(-0.1, 0.01, 0.0, 0.0))
    write_settings(tmp_path, camera, {"seed": 3})
    assert read_intrinsics(tmp_path / "camera.json") == camera
    assert json.loads((tmp_path / "flight.json").read_text()) == {"seed": 3}
    telemetry = read_telemetry(tmp_path / "telemetry.csv")
    assert telemetry.columns["yaw_deg"].tolist() == [12.5] * 3
    assert telemetry.row_of_file == {photo_name(i, ".jpg"): i for i in range(3)}
    assert read_truth(tmp_path / "truth.csv").at("000002.jpg", None) == pytest.approx(
        (47.00002, 8.0), abs=1e-8
    )
