"""Photos of one's own: read from a table or from EXIF, brought north-up where all is known."""

from __future__ import annotations

import csv
import math
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from s4g.core.errors import InputError
from s4g.core.geo import LocalFrame
from s4g.core.ground import GroundWindow
from s4g.core.images import encode_rgb
from s4g.core.sources import open_ground
from s4g.train.dataset import UnreadableImageError
from s4g.train.photos import Photo, PhotoImages, View, plan_view, read_photos

FOOTPRINT_M = 60.0


def halves(path: Path, height_px: int = 40, width_px: int = 80) -> Path:
    """Write a photo that is dark on the left and bright on the right."""
    image = np.full((height_px, width_px, 3), 40, np.uint8)
    image[:, width_px // 2 :] = 200
    path.write_bytes(encode_rgb(image, ".jpg", 95))
    return path


def table(folder: Path, text: str) -> Path:
    path = folder / "photos.csv"
    path.write_text(text)
    return path


def planned(photo: Photo, footprint_m: float) -> View:
    view = plan_view(photo, footprint_m)
    assert isinstance(view, View)
    return view


def test_a_table_gives_what_it_knows_and_nothing_more(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "file, lat, lon, yaw_deg, agl_m, hfov_deg, split, camera\n"
        "a.jpg, 46.5, 8.25, 90, 120, 70, test, X\n"
        "sub/b.jpg, -1, -2,,,,,\n",
    )
    first, second = read_photos(path)
    assert first == Photo(tmp_path / "a.jpg", 46.5, 8.25, 90.0, 0, 0, 120.0, 70.0, None, True)
    assert second == Photo(tmp_path / "sub/b.jpg", -1.0, -2.0)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("file,lat\na.jpg,1\n", "lacks the column lon; found file, lat"),
        ("file,lat,lon\n", "has no rows; expected one a picture or place"),
        (
            "file,lat,lon\na.jpg,,3\n",
            "line 2, column lat: '' is not a finite number between -90 and 90",
        ),
        (
            "file,lat,lon\na.jpg,1,181\n",
            "line 2, column lon: '181' is not a finite number between -180 and 180",
        ),
        (
            "file,lat,lon,yaw_deg\na.jpg,1,2,north\n",
            "line 2, column yaw_deg: 'north' is not a finite number",
        ),
        (
            "file,lat,lon,hfov_deg\na.jpg,1,2,0\n",
            "line 2, column hfov_deg: '0' is not a finite number between 1 and 170",
        ),
        (
            "file,lat,lon,split\na.jpg,1,2,val\n",
            "line 2, column split: 'val' must be train or test",
        ),
        ("file,lat,lon\n,1,2\n", "line 2, column file: is empty; name a photo"),
    ],
)
def test_a_wrong_value_is_named_with_line_and_column(tmp_path: Path, text: str, fault: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(InputError) as error:
        read_photos(path)
    assert str(error.value) == f"{path}: {fault}"


def test_a_missing_table_says_what_is_expected(tmp_path: Path) -> None:
    path = tmp_path / "photos.csv"
    with pytest.raises(InputError) as error:
        read_photos(path)
    assert str(error.value) == (
        f"{path}: no such file or folder; expected a CSV with the columns file, lat, lon, or a "
        "folder of photos with GPS in their EXIF"
    )


def write_with_gps(path: Path, gps: dict[int, Any]) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="EXIF is read with pillow (the train extra)")
    exif = pillow.Exif()
    exif.get_ifd(0x8825).update(gps)
    pillow.new("RGB", (8, 8)).save(path, exif=exif)


def test_a_folder_gives_the_gps_positions_of_its_photos(tmp_path: Path) -> None:
    write_with_gps(tmp_path / "a.jpg", {1: "N", 2: (46.0, 30.0, 36.0), 3: "E", 4: (8.0, 15.0, 0.0)})
    write_with_gps(tmp_path / "b.jpg", {1: "S", 2: (1.0, 0.0, 0.0), 3: "W", 4: (2.0, 30.0, 0.0)})
    first, second = read_photos(tmp_path)
    assert (first.file, first.lat_deg, first.lon_deg) == (tmp_path / "a.jpg", 46.51, 8.25)
    assert (second.lat_deg, second.lon_deg) == (-1.0, -2.5)
    assert first.yaw_deg is None


@pytest.mark.parametrize("gps", [{}, {1: "N", 2: (46.0, 30.0, 36.0)}])
def test_a_photo_without_gps_is_named(tmp_path: Path, gps: dict[int, Any]) -> None:
    write_with_gps(tmp_path / "a.jpg", gps)
    with pytest.raises(InputError) as error:
        read_photos(tmp_path)
    assert str(error.value) == (
        f"{tmp_path / 'a.jpg'}: has no GPS position in its EXIF; give a CSV with the columns file, "
        "lat, lon"
    )


def test_a_photo_of_known_heading_and_scale_becomes_the_ground_below(
    toy_flight: Any, toy_source: Path
) -> None:
    """The flight's own photos, tilted and turned, against the imagery they were made from."""
    with toy_flight.telemetry.open() as file:
        poses = {row["file"]: row for row in csv.DictReader(file)}
    with toy_flight.truth.open() as file:
        truth = list(csv.DictReader(file))
    ground = open_ground(str(toy_source))
    frame = LocalFrame(*ground.bounds.center)
    for row in truth:
        pose = poses[row["file"]]
        photo = Photo(
            toy_flight.photos / row["file"],
            float(row["lat"]),
            float(row["lon"]),
            float(pose["yaw_deg"]),
            float(pose["pitch_deg"]),
            float(pose["roll_deg"]),
            float(pose["agl_m"]),
            toy_flight.hfov_deg,
        )
        view = planned(photo, FOOTPRINT_M)
        patch = PhotoImages([view], FOOTPRINT_M).read(0, 64, 64)
        east, north = np.array(frame.to_local(photo.lat_deg, photo.lon_deg)) + view.offset_m
        half, gsd_m = FOOTPRINT_M / 2, FOOTPRINT_M / 64
        shown = ground.read(frame, GroundWindow(east - half, north + half, gsd_m, 64, 64)).rgb
        assert np.corrcoef(patch.ravel(), shown.ravel())[0, 1] > 0.9
    ground.close()


def test_a_tilted_camera_looks_away_from_its_foot(tmp_path: Path) -> None:
    photo = Photo(halves(tmp_path / "a.jpg"), 0, 0, 90.0, 10.0, 0.0, 100.0, 70.0)
    east, north = planned(photo, 20.0).offset_m
    assert east == pytest.approx(100 * math.tan(math.radians(10)))
    assert north == pytest.approx(0, abs=1e-9)


def test_the_width_on_the_ground_stands_for_height_and_lens(tmp_path: Path) -> None:
    """Heading east: the photo's right, which is bright, lies in the south."""
    photo = Photo(halves(tmp_path / "a.jpg"), 0, 0, yaw_deg=90.0, width_m=80.0)
    image = PhotoImages([planned(photo, 30.0)], 30.0).read(0, 30, 30)
    assert abs(int(image[:12].mean()) - 40) <= 3 and abs(int(image[-12:].mean()) - 200) <= 3


def test_without_a_heading_the_middle_is_cut_to_the_tiles_scale(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    image = np.full((40, 80, 3), 10, np.uint8)
    image[10:30, 30:50] = 250  # 20 m of 80
    file.write_bytes(encode_rgb(image, ".png"))
    photo = Photo(file, 0, 0, width_m=80.0)
    assert PhotoImages([planned(photo, 20.0)], 20.0).read(0, 20, 20).min() == 250
    assert PhotoImages([planned(photo, 40.0)], 40.0).read(0, 40, 40).min() == 10


def test_without_a_scale_the_middle_square_is_used_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    image = np.full((40, 80, 3), 10, np.uint8)
    image[:, 20:60] = 250
    file.write_bytes(encode_rgb(image, ".png"))
    assert PhotoImages([planned(Photo(file, 0, 0), 20.0)], 20.0).read(0, 16, 16).min() == 250


def test_large_photos_are_decoded_at_reduced_scale_and_show_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = np.asarray(cv2.resize(coarse, (803, 602), interpolation=cv2.INTER_CUBIC), np.uint8)
    views = []
    for name in ("a.jpg", "a.png"):  # only a JPEG can be decoded smaller
        (tmp_path / name).write_bytes(encode_rgb(image, Path(name).suffix, 98))
        views.append(planned(Photo(tmp_path / name, 0, 0, 30.0, 3.0, -2.0, 100.0, 70.0), 80.0))
    reduced, whole = (PhotoImages([view], 80.0).read(0, 64, 64).astype(int) for view in views)
    assert np.abs(reduced - whole).mean() < 4


def test_photos_travel_to_workers(tmp_path: Path) -> None:
    images = PhotoImages([planned(Photo(halves(tmp_path / "a.jpg"), 0, 0), 20.0)], 20.0)
    there = pickle.loads(pickle.dumps(images))
    assert there.name(0) == str(tmp_path / "a.jpg") and len(there) == 1
    assert (there.read(0, 8, 8) == images.read(0, 8, 8)).all()


@pytest.mark.parametrize(
    ("photo", "why"),
    [
        ({"pitch_deg": 30.0, "agl_m": 100.0}, "tilt more than 25 degrees"),
        ({"agl_m": 5.0}, "cover less than 75% of a tile"),
    ],
)
def test_photos_that_a_drone_would_not_search_with_are_refused(
    tmp_path: Path, photo: dict[str, float], why: str
) -> None:
    file = halves(tmp_path / "a.jpg")
    assert plan_view(Photo(file, 0, 0, yaw_deg=0.0, hfov_deg=70.0, **photo), 40.0) == why


def test_a_photo_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    with pytest.raises(UnreadableImageError) as error:
        plan_view(Photo(file, 0, 0), 20.0)
    assert str(error.value) == f"{file}: no such file; restore it"


def test_a_photo_that_is_no_picture_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_text("no picture")
    with pytest.raises(UnreadableImageError) as error:
        plan_view(Photo(file, 0, 0), 20.0)
    assert str(error.value) == (
        f"{file}: not a picture that can be read; replace or remove the file"
    )


def test_a_torn_photo_is_named_when_it_is_read(tmp_path: Path) -> None:
    file = halves(tmp_path / "a.jpg", 200, 300)
    images = PhotoImages([planned(Photo(file, 0, 0), 20.0)], 20.0)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UnreadableImageError, match=f"^{file}: a truncated JPEG "):
        images.read(0, 8, 8)


def test_a_photo_that_was_exchanged_is_named_when_it_is_read(tmp_path: Path) -> None:
    file = halves(tmp_path / "a.jpg")
    images = PhotoImages([planned(Photo(file, 0, 0), 20.0)], 20.0)
    halves(file, 20, 30)
    with pytest.raises(UnreadableImageError) as error:
        images.read(0, 16, 16)
    assert str(error.value) == f"{file}: no longer 80x40 px; restore the file"
