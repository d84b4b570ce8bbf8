"""The benchmark of real photos: maps of other photos, nothing told that a flight would not know."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from s4g.core.camera import Attitude, Camera
from s4g.core.geo import LocalFrame
from s4g.core.ground import GroundWindow
from s4g.core.images import encode_rgb

RGB = npt.NDArray[np.uint8]
CAMERA = Camera(160, 120, 200.0, 200.0, 79.5, 59.5)
FRAME = LocalFrame(47.0, 8.0)


@pytest.fixture(autouse=True)
def benchmarks_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[1] / "benchmarks"
    more = [str(folder / name) for name in ("encoder", "flights")]
    monkeypatch.setattr(sys, "path", [*more, str(folder), *sys.path])


def ground() -> RGB:
    """Soft blots, 400 x 400 pixels of half a metre around the origin."""
    import cv2

    coarse = np.random.default_rng(4).integers(20, 236, (40, 40, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (400, 400), interpolation=cv2.INTER_CUBIC), np.uint8)


def photo(east_m: float, north_m: float, attitude: Attitude, name: str = "a.jpg") -> Any:
    """A photo of `ground`, seen by `CAMERA`."""
    import cv2
    from flight_block import Photo

    from s4g.core.camera import ground_from_pixel

    window = np.array([[2, 0, 199.5 + 2 * east_m], [0, -2, 199.5 - 2 * north_m], [0, 0, 1.0]])
    image = cv2.warpPerspective(
        ground(),
        window @ ground_from_pixel(CAMERA, attitude),
        (CAMERA.width_px, CAMERA.height_px),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    )
    place = np.array([east_m, north_m])
    return Photo(name, np.asarray(image, np.uint8), CAMERA, attitude, attitude, place, place)


def test_a_mosaic_shows_the_ground_where_it_is() -> None:
    from photo_mosaic import mosaic_of

    photos = [
        photo(-20, -10, Attitude(0, 0, 0, 80)),
        photo(15, 5, Attitude(130, 6, -8, 90)),
        photo(10, -25, Attitude(250, -5, 3, 70)),
    ]
    made = mosaic_of(photos, FRAME, 0.5, "toy")
    window = GroundWindow(-30.0, 20.0, 0.5, 120, 100)
    seen = made.read(FRAME, window)
    true = ground()[160:260, 140:260]
    off = np.abs(seen.rgb.astype(int) - true)[seen.valid]
    assert 0.6 < seen.valid.mean() < 1.0
    assert off.mean() < 2.5


def test_each_pixel_is_of_the_photo_whose_middle_is_nearest() -> None:
    from dataclasses import replace

    from photo_mosaic import mosaic_of

    photos = [photo(-10, 0, Attitude(0, 0, 0, 80)), photo(10, 0, Attitude(90, 0, 0, 80))]
    red, green = (
        replace(p, image=np.full_like(p.image, color))
        for p, color in zip(photos, ([200, 0, 0], [0, 200, 0]), strict=True)
    )
    both = (mosaic_of(order, FRAME, 0.5, "toy") for order in ([red, green], [green, red]))
    first, second = (made.read(FRAME, GroundWindow(-20.0, 10.0, 0.5, 80, 40)).rgb for made in both)
    assert np.array_equal(first, second)
    assert (first[:, :39] == [200, 0, 0]).all() and (first[:, 41:] == [0, 200, 0]).all()


def test_ground_that_no_photo_shows_is_none_of_the_mosaic() -> None:
    from photo_mosaic import mosaic_of

    made = mosaic_of([photo(0, 0, Attitude(45, 0, 0, 80))], FRAME, 0.5, "toy")
    assert not made.valid[0, 0] and not made.valid[-1, -1]
    assert made.valid[made.valid.shape[0] // 2, made.valid.shape[1] // 2]


def flight(folder: Path, count: int) -> list[Any]:
    """Write photos of one line and their table; return them in place."""
    (folder / "photos").mkdir(parents=True)
    photos, rows = [], []
    for number in range(count):
        made = photo(-40 + 8 * number, 3, Attitude(20, 0, 0, 80), f"{number:02}.jpg")
        (folder / "photos" / made.name).write_bytes(encode_rgb(made.image, ".jpg"))
        photos.append(made)
        rows.append(f"{made.name},46.0,7.0,2014:10:19 13:59:{50 + number:02}")
    table = "file,lat,lon,datetime\n" + "\n".join(rows[:10]) + "\n"
    (folder / "photos.csv").write_text(table)
    return photos


class ToyScene:
    class ground:
        frame = FRAME


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    import photo_sets

    photos = flight(tmp_path / "data" / "caliterra", 10)
    monkeypatch.setattr(photo_sets, "on_mosaic", lambda folder: (ToyScene, photos))
    return photo_sets.caliterra(tmp_path / "data", "caliterra")


def test_the_odd_photos_are_asked_on_a_map_of_the_even_ones(made: Any) -> None:
    assert [shot.file.name for shot in made.shots] == [
        "01.jpg",
        "03.jpg",
        "05.jpg",
        "07.jpg",
        "09.jpg",
    ]
    assert [shot.t for shot in made.shots] == [1.0, 3.0, 5.0, 7.0, 9.0]
    # The last photo, which is not on the map, reaches 8 m farther east than the map.
    east_m = made.ground.west_m + made.ground.valid.shape[1] * made.ground.gsd_m
    whole_m = 24 + 0.5 * 80 / 200 * (160 * np.cos(np.radians(20)) + 120 * np.sin(np.radians(20)))
    assert east_m == pytest.approx(whole_m, abs=0.7)


def test_what_a_method_gets_tells_no_place_and_no_attitude(made: Any, tmp_path: Path) -> None:
    from photo_sets import write_seen, write_truth

    write_seen(made, tmp_path / "seen")
    write_truth(made, tmp_path / "truth.csv")
    files = sorted(
        p.relative_to(tmp_path / "seen").as_posix() for p in (tmp_path / "seen").rglob("*.*")
    )
    assert files == [
        "camera.json", "frames.csv",
        *(f"frames/{i:02}.jpg" for i in range(1, 10, 2)), "telemetry.csv",
    ]  # fmt: skip
    with (tmp_path / "seen" / "telemetry.csv").open() as file:
        assert next(csv.DictReader(file)) == {"file": "01.jpg", "t": "1.000", "agl_m": "80.000"}
    with (tmp_path / "truth.csv").open() as file:
        row = next(csv.DictReader(file))
    assert FRAME.to_local(float(row["lat"]), float(row["lon"])) == pytest.approx((-32, 3), abs=0.01)


def test_times_are_counted_across_the_hour(tmp_path: Path) -> None:
    from photo_sets import _clock

    rows = [
        {"file": "b.jpg", "datetime": "2014:10:19 14:00:02"},
        {"file": "a.jpg", "datetime": "2014:10:19 13:59:59"},
    ]
    assert _clock(rows) == {"a.jpg": 0.0, "b.jpg": 3.0}


def test_one_command_makes_a_set_localises_it_in_every_way_and_keeps_it(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_encoder: Path
) -> None:
    import dataclasses

    import photos

    small = dataclasses.replace(made, levels_m=(24.0,), alert_limit_m=24.0)
    asked: list[str] = []

    def once(data: Path, name: str) -> Any:
        asked.append(name)
        return small

    monkeypatch.setitem(photos.SETS, "caliterra", ("caliterra", once))
    arguments = ["--out", str(tmp_path / "out"), "--data", str(tmp_path / "data")]
    arguments += ["--encoder", str(toy_encoder), "--set", "caliterra", "--set", "brighton"]
    for _ in range(2):
        result = CliRunner().invoke(photos.cli, arguments, catch_exceptions=False)
        assert result.exit_code == 0
    assert asked == ["caliterra"]
    rows = [line.split(" | ") for line in result.stdout.splitlines() if "Caliterra (24 m)" in line]
    assert [row[1] for row in rows] == ["filtered", "single", "top1", "sift"]
    assert "all 1 with" not in result.stdout
    assert "- **Caliterra**, 5 photos: near nadir, no attitude; " in result.stdout
    assert f"Left out: brighton: no imagery {tmp_path}/data/brighton_beach; " in result.stdout


def test_a_position_in_the_photos_table_reaches_no_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import photo_sets

    photos = flight(tmp_path / "data" / "caliterra", 10)
    monkeypatch.setattr(photo_sets, "on_mosaic", lambda folder: (ToyScene, photos))
    table = tmp_path / "data" / "caliterra" / "photos.csv"
    seen = []
    for lat in ("46.0", "-12.5"):
        table.write_text(table.read_text().replace(",46.0,", f",{lat},"))
        folder = tmp_path / f"seen {lat}"
        photo_sets.write_seen(photo_sets.caliterra(tmp_path / "data", "c"), folder)
        seen.append([p.read_bytes() for p in sorted(folder.rglob("*.*"))])
    assert seen[0] == seen[1]
