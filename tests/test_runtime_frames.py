from pathlib import Path

import numpy as np
import pytest

from s4g.core.errors import InputError
from s4g.core.images import encode_rgb
from s4g.runtime.frames import CameraMode, LiveOptions, PhotoFiles, open_frames, parse_mode


def picture(red: int, height: int = 45, width: int = 61) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = red
    image[: height // 2, :, 2] = 200
    return image


def folder_of(path: Path) -> Path:
    path.mkdir()
    for name, red in (("b.jpg", 120), ("a.png", 60), ("c.JPG", 180)):
        suffix = Path(name).suffix.lower()
        (path / name).write_bytes(encode_rgb(picture(red), suffix))
    (path / "notes.txt").write_text("not a picture")
    return path


def test_photos_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    source = open_frames(str(folder_of(tmp_path / "photos")))
    frames = list(source.frames())
    assert source.count == 3
    assert [f.file for f in frames] == ["a.png", "b.jpg", "c.JPG"]
    assert [f.index for f in frames] == [0, 1, 2]
    reds = [float(f.rgb()[0][..., 0].mean()) for f in frames]
    assert reds == pytest.approx([60, 120, 180], abs=2)
    assert {(f.width_px, f.height_px) for f in frames} == {(61, 45)}


def test_colours_are_red_green_blue(tmp_path: Path) -> None:
    for frame in open_frames(str(folder_of(tmp_path / "photos"))).frames():
        rgb, _ = frame.rgb()
        assert rgb[5, 5, 2] > 180
        assert rgb[40, 5, 2] < 20


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_jpegs_are_decoded_at_a_reduced_size_and_others_are_not(
    tmp_path: Path, reduction: int
) -> None:
    png, jpeg, _ = open_frames(str(folder_of(tmp_path / "photos"))).frames()
    assert png.rgb(reduction)[1] == 1
    rgb, real = jpeg.rgb(reduction)
    assert real == reduction
    assert rgb.shape == (-(-45 // reduction), -(-61 // reduction), 3)
    assert float(rgb[..., 0].mean()) == pytest.approx(120, abs=2)


def test_a_single_photo_is_a_source(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "photos") / "b.jpg"
    assert [f.file for f in open_frames(str(path)).frames()] == ["b.jpg"]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        open_frames(str(tmp_path))
    assert str(error.value).startswith(f"{tmp_path}: holds no pictures; expected files ending in ")


def test_a_missing_source_is_refused() -> None:
    with pytest.raises(InputError) as error:
        open_frames("nowhere.mp4")
    assert str(error.value) == (
        "--camera nowhere.mp4: no such file or folder; give a device (/dev/video0), a URL "
        "(rtsp://…), a video, a photo or a folder of photos"
    )


def test_a_truncated_photo_is_named(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "photos") / "b.jpg"
    data = path.read_bytes()
    path.write_bytes(data[:-30])
    with pytest.raises(InputError) as error:
        list(PhotoFiles(path.parent).frames())
    assert str(error.value) == (
        f"{path}: a truncated JPEG ({len(data) - 30} bytes); replace or remove the file"
    )


@pytest.mark.parametrize("content", [b"", b"not a picture"])
def test_a_corrupt_photo_is_named(tmp_path: Path, content: bytes) -> None:
    path = folder_of(tmp_path / "photos") / "c.JPG"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        list(PhotoFiles(path.parent).frames())
    assert str(error.value) == (
        f"{path}: not an image that can be decoded; replace or remove the file"
    )


def test_a_photo_whose_pixels_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    data = bytearray(encode_rgb(picture(9), ".jpg"))
    at = data.index(b"\xff\xdb")
    data[at + 4] = 0xFF  # an impossible quantisation table
    path.write_bytes(bytes(data))
    (frame,) = PhotoFiles(path).frames()
    with pytest.raises(InputError) as error:
        frame.rgb()
    assert str(error.value) == (
        f"{path}: not an image that can be decoded; replace or remove the file"
    )


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("1280x720", CameraMode(1280, 720)),
        ("1920x1080:MJPG", CameraMode(1920, 1080, "MJPG")),
        ("640x480:Y16!", CameraMode(640, 480, "Y16!")),
    ],
)
def test_a_mode_is_a_size_and_perhaps_a_format(text: str, mode: CameraMode) -> None:
    assert parse_mode(text) == mode


@pytest.mark.parametrize("text", ["", "1280", "x720", "1280x720:", "1280x720:MJPEG", "-1x5", "0x0"])
def test_what_is_no_mode_is_refused(text: str) -> None:
    with pytest.raises(InputError) as error:
        parse_mode(text)
    assert str(error.value) == (
        f"--camera-mode {text}: not WxH or WxH:FOURCC; give something like 1280x720:MJPG"
    )


@pytest.mark.parametrize(("max_age_s", "latency_ms"), [(0.5, 500.0), (0.1, -1.0), (0.0, 0.0)])
def test_a_latency_that_makes_every_frame_too_old_is_refused(
    max_age_s: float, latency_ms: float
) -> None:
    with pytest.raises(InputError) as error:
        LiveOptions(max_age_s, latency_ms)
    assert str(error.value) == (
        f"--latency-ms {latency_ms:g}: must be at least 0 and less than --max-age {max_age_s:g} s, "
        "or every frame is too old"
    )


@pytest.mark.parametrize("latency_ms", [float("nan"), float("inf")])
def test_a_latency_that_is_no_number_is_refused(latency_ms: float) -> None:
    with pytest.raises(InputError, match="--latency-ms"):
        LiveOptions(latency_ms=latency_ms)


@pytest.mark.parametrize("give_up_s", [0.0, -1.0, float("nan")])
def test_a_time_to_give_up_that_is_over_at_once_is_refused(give_up_s: float) -> None:
    with pytest.raises(InputError) as error:
        LiveOptions(give_up_s=give_up_s)
    assert str(error.value) == f"--give-up {give_up_s:g}: must be more than 0 s"
