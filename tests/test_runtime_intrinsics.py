import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from s4g.core.camera import Camera
from s4g.core.errors import InputError
from s4g.runtime.intrinsics import Lens, read_intrinsics

CAMERA = Camera(640, 480, 500.0, 501.0, 320.5, 239.5, (-0.1, 0.02, 0.001, -0.002, 0.003))
ROS = """image_width: 640
image_height: 480
camera_name: nadir
camera_matrix:
  rows: 3
  cols: 3
  data: [500.0, 0.0, 320.5, 0.0, 501.0, 239.5, 0.0, 0.0, 1.0]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [-0.1, 0.02, 0.001, -0.002, 0.003]
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_camera_json_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "camera.json", json.dumps(dataclasses.asdict(CAMERA)))
    assert read_intrinsics(path) == CAMERA


def test_a_ros_camera_info_is_read(tmp_path: Path) -> None:
    assert read_intrinsics(write(tmp_path, "camera.yaml", ROS)) == CAMERA


def test_a_calibration_that_opencv_wrote_is_read(tmp_path: Path) -> None:
    path = tmp_path / "camera.yml"
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", 640)
    storage.write("image_height", 480)
    storage.write("camera_matrix", CAMERA.matrix)
    storage.write("distortion_coefficients", np.array([CAMERA.distortion]))
    storage.release()
    assert read_intrinsics(path) == CAMERA


def test_a_fisheye_model_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "camera.yaml", ROS.replace("plumb_bob", "equidistant"))
    with pytest.raises(InputError) as error:
        read_intrinsics(path)
    assert str(error.value) == (
        f"--intrinsics {path}: distortion_model equidistant is not supported; calibrate as "
        "plumb_bob or rational_polynomial, or rectify the frames"
    )


@pytest.mark.parametrize("entry", ["image_width", "camera_matrix", "distortion_coefficients"])
def test_a_missing_entry_is_named(tmp_path: Path, entry: str) -> None:
    path = write(tmp_path, "camera.yaml", ROS.replace(entry, "something_else"))
    with pytest.raises(InputError) as error:
        read_intrinsics(path)
    assert str(error.value) == f"--intrinsics {path}: lacks {entry}"


def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "camera.yaml", "{[,,: x\n\t- y")
    with pytest.raises(InputError) as error:
        read_intrinsics(path)
    assert str(error.value) == (
        f"--intrinsics {path}: not YAML of OpenCV or ROS camera_info; convert it, or write a "
        "camera.json"
    )


def test_a_json_that_lacks_entries_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "camera.json", '{"width_px": 640}')
    with pytest.raises(InputError) as error:
        read_intrinsics(path)
    assert str(error.value).startswith(f"--intrinsics {path}: not a camera.json (")


def test_absurd_values_are_refused(tmp_path: Path) -> None:
    values = dataclasses.asdict(CAMERA) | {"fx_px": -5.0}
    path = write(tmp_path, "camera.json", json.dumps(values))
    with pytest.raises(InputError) as error:
        read_intrinsics(path)
    assert str(error.value) == (
        f"--intrinsics {path}: sizes and focal lengths must be positive numbers; seen 640x480 px, "
        "fx -5.0, fy 501.0"
    )


def test_three_distortion_coefficients_are_refused(tmp_path: Path) -> None:
    values = dataclasses.asdict(CAMERA) | {"distortion": [0.1, 0.2, 0.3]}
    path = write(tmp_path, "camera.json", json.dumps(values))
    with pytest.raises(InputError) as error:
        read_intrinsics(path)
    assert str(error.value) == (
        f"--intrinsics {path}: 3 distortion coefficients; OpenCV's model has 4, 5 or 8"
    )


def test_what_the_user_says_beats_what_the_photo_says() -> None:
    camera = Lens(hfov_deg=60.0).camera_for(640, 480, 80.0)
    assert camera.hfov_deg == pytest.approx(60.0)
    assert Lens().camera_for(640, 480, 80.0).hfov_deg == pytest.approx(80.0)


def test_a_calibration_is_scaled_to_the_frames() -> None:
    assert Lens(camera=CAMERA).camera_for(1280, 960, None).fx_px == pytest.approx(1000.0)


def test_an_unknown_lens_is_refused() -> None:
    with pytest.raises(InputError) as error:
        Lens().camera_for(640, 480, None)
    assert str(error.value) == (
        "the camera's field of view is unknown; pass --hfov DEG or --intrinsics FILE"
    )
