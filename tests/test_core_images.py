"""Reading and writing pictures."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from s4g.core.errors import InputError, S4GError
from s4g.core.images import decode_rgb, encode_rgb, list_images, read_rgb


def smooth_image(height_px: int = 60, width_px: int = 80) -> npt.NDArray[np.uint8]:
    rows, columns = np.indices((height_px, width_px))
    red, green, blue = 3 * columns, 4 * rows, 2 * rows + columns
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 255).astype(np.uint8)


def message_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_rgb(path)
    return str(caught.value)


def test_a_png_comes_back_exactly_in_rgb_order(tmp_path: Path) -> None:
    image = smooth_image()
    path = tmp_path / "a.png"
    path.write_bytes(encode_rgb(image, ".png"))
    assert np.array_equal(read_rgb(path), image)
    assert np.array_equal(cv2.imread(str(path))[..., ::-1], image)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_a_lossy_picture_comes_back_nearly(suffix: str) -> None:
    image = smooth_image()
    back = decode_rgb(encode_rgb(image, suffix, quality=95), "a")
    assert back.shape == image.shape
    assert np.abs(back.astype(int) - image).mean() < 3


def test_a_lower_quality_gives_a_smaller_file() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert len(encode_rgb(image, ".jpg", 30)) < len(encode_rgb(image, ".jpg", 90))


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_a_reduced_jpeg_is_the_average_of_blocks(reduction: int) -> None:
    image = smooth_image(64, 80)
    reduced = decode_rgb(encode_rgb(image, ".jpg", 98), "a", reduction)
    assert reduced.shape == (64 // reduction, 80 // reduction, 3)
    blocks = image.reshape(64 // reduction, reduction, 80 // reduction, reduction, 3)
    assert np.abs(reduced - blocks.mean(axis=(1, 3))).max() < 8


def test_grey_becomes_three_equal_channels_and_alpha_is_dropped(tmp_path: Path) -> None:
    grey, rgba = tmp_path / "grey.png", tmp_path / "rgba.png"
    cv2.imwrite(str(grey), smooth_image()[..., 0])
    cv2.imwrite(str(rgba), np.dstack([smooth_image(), np.full((60, 80), 128, np.uint8)]))
    assert np.ptp(read_rgb(grey), axis=-1).max() == 0
    assert read_rgb(rgba).shape == (60, 80, 3)


def test_the_exif_orientation_is_ignored_because_the_camera_did_not_turn(tmp_path: Path) -> None:
    jpeg = encode_rgb(smooth_image(), ".jpg")
    tiff = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x112, 3, 1, 6, 0)  # orientation 6: turned
    exif = b"Exif\0\0" + tiff
    path = tmp_path / "turned.jpg"
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    assert cv2.imread(str(path)).shape == (80, 60, 3)
    assert read_rgb(path).shape == (60, 80, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_a_truncated_picture_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    data = encode_rgb(smooth_image(), suffix)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    assert message_of(path) == (
        f"{path}: not an image that can be decoded; replace or remove the file"
    )


def test_an_empty_file_and_a_text_are_refused(tmp_path: Path) -> None:
    for name, data in (("empty.jpg", b""), ("text.png", b"not a picture")):
        path = tmp_path / name
        path.write_bytes(data)
        assert message_of(path) == (
            f"{path}: not an image that can be decoded; replace or remove the file"
        )


def test_a_picture_of_absurd_size_is_refused_before_memory_is_spent(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"0" * 1000)) + chunk(b"IEND", b"")
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
    assert message_of(path) == (
        f"{path}: not an image that can be decoded; replace or remove the file"
    )


def test_a_missing_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.jpg"
    assert message_of(path) == f"{path}: cannot be read (No such file or directory)"


@pytest.mark.parametrize(("shape", "suffix"), [((0, 0, 3), ".png"), ((1, 20_000, 3), ".webp")])
def test_an_image_that_cannot_be_encoded_is_a_failure(
    shape: tuple[int, int, int], suffix: str
) -> None:
    with pytest.raises(S4GError) as caught:
        encode_rgb(np.zeros(shape, np.uint8), suffix)
    assert str(caught.value) == f"cannot encode an image of shape {shape} as {suffix}"


def test_pictures_are_listed_by_name_and_other_files_are_not(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt", "telemetry.csv", "c.tif"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "b.JPG", "c.tif"]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        list_images(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: holds no pictures; expected files ending in "
        ".bmp .jpeg .jpg .png .tif .tiff .webp"
    )


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        list_images(tmp_path / "frames")
    assert str(caught.value) == f"{tmp_path / 'frames'}: no such folder"
