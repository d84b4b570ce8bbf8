"""Encoded tiles: what is whole, how large it says it is, and its pixels."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import IntegrityError
from s4g.core.tile_image import decode_tile, is_whole, picture_size, tile_size_px

ORIGIN = "a.mbtiles: tile 3/1/2"


def encoded(image: npt.NDArray[np.generic], suffix: str, *parameters: int) -> bytes:
    """Return (H, W, C) in OpenCV's order as the bytes of a picture."""
    return cv2.imencode(suffix, np.asarray(image), parameters)[1].tobytes()


def noise(side_px: int, channels: int = 3) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (side_px, side_px, channels), np.uint8)


KINDS = {
    "png": encoded(noise(256), ".png"),
    "png with alpha": encoded(noise(256, 4), ".png"),
    "jpeg": encoded(noise(256), ".jpg"),
    "webp": encoded(noise(256), ".webp", cv2.IMWRITE_WEBP_QUALITY, 80),
    "webp without loss": encoded(noise(256), ".webp", cv2.IMWRITE_WEBP_QUALITY, 101),
    "webp with alpha": encoded(noise(256, 4), ".webp", cv2.IMWRITE_WEBP_QUALITY, 80),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_whole_and_has_the_size_its_header_says(kind: str) -> None:
    assert is_whole(KINDS[kind])
    assert picture_size(KINDS[kind]) == (256, 256)
    assert tile_size_px(KINDS[kind], ORIGIN) == 256
    assert decode_tile(KINDS[kind], ORIGIN, 256).shape == (256, 256, 4)


@pytest.mark.parametrize("kind", KINDS)
@given(share=st.floats(0, 0.999))
def test_a_torn_picture_is_refused_wherever_it_was_cut(kind: str, share: float) -> None:
    data = KINDS[kind][: int(share * len(KINDS[kind]))]
    with pytest.raises(IntegrityError) as error:
        decode_tile(data, ORIGIN, 256)
    assert str(error.value).startswith(f"{ORIGIN} ") and "\n" not in str(error.value)


@given(st.binary(max_size=64), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"RIFF"]))
def test_any_bytes_are_refused_in_one_line(data: bytes, start: bytes) -> None:
    with pytest.raises(IntegrityError) as error:
        decode_tile(start + data, ORIGIN, 256)
    assert "\n" not in str(error.value)


def test_a_torn_picture_says_how_much_of_it_there_is() -> None:
    with pytest.raises(IntegrityError) as error:
        decode_tile(KINDS["jpeg"][:5000], ORIGIN, 256)
    assert str(error.value) == (
        rf"{ORIGIN} ends early (5000 bytes, begins '\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00"
        r"\x00\x01'); remove it or fetch it again"
    )


def test_what_is_no_picture_is_named_by_its_first_bytes() -> None:
    with pytest.raises(IntegrityError) as error:
        decode_tile(b"<!DOCTYPE html><html>", ORIGIN, 256)
    assert str(error.value) == (
        f"{ORIGIN} is no PNG, JPEG or WebP (begins '<!DOCTYPE html><'); remove it or fetch it again"
    )


def test_a_tile_of_another_size_is_refused_before_it_is_decoded() -> None:
    header = struct.pack(">II5B", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    bomb += struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\0\0IEND\xaeB`\x82"
    with pytest.raises(IntegrityError) as error:
        decode_tile(bomb, ORIGIN, 256)
    assert str(error.value) == (
        f"{ORIGIN} is 60000x60000 px, expected 256x256 px like the others; "
        "remove it or fetch it again"
    )


def test_only_tiles_of_256_and_512_px_are_served() -> None:
    assert tile_size_px(encoded(noise(512), ".jpg"), ORIGIN) == 512
    with pytest.raises(IntegrityError) as error:
        tile_size_px(encoded(noise(300), ".jpg"), ORIGIN)
    assert str(error.value) == f"{ORIGIN} is 300x300 px, expected 256x256 or 512x512 px"


def test_a_damaged_picture_is_refused() -> None:
    data = bytearray(KINDS["png"])
    data[len(data) // 2] ^= 0x55
    with pytest.raises(IntegrityError) as error:
        decode_tile(bytes(data), ORIGIN, 256)
    assert str(error.value) == (
        rf"{ORIGIN} cannot be decoded (begins '\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR'); "
        "remove it or fetch it again"
    )


def test_deep_pixels_are_refused() -> None:
    with pytest.raises(IntegrityError) as error:
        decode_tile(encoded(noise(256).astype(np.uint16), ".png"), ORIGIN, 256)
    assert str(error.value) == f"{ORIGIN} has pixels of uint16, expected 8-bit pictures"


def test_colours_come_in_the_order_red_green_blue() -> None:
    image = np.zeros((256, 256, 3), np.uint8)
    image[...] = (30, 20, 10)  # OpenCV's order
    assert (decode_tile(encoded(image, ".png"), ORIGIN, 256) == (10, 20, 30, 255)).all()


def test_grey_is_grey_and_opaque() -> None:
    grey = np.full((256, 256), 77, np.uint8)
    assert (decode_tile(encoded(grey, ".png"), ORIGIN, 256) == (77, 77, 77, 255)).all()


def test_what_is_hardly_seen_is_black_and_the_rest_is_opaque() -> None:
    image = np.full((256, 256, 4), 200, np.uint8)
    image[:, :100, 3] = 127
    image[:, 100:, 3] = 128
    rgba = decode_tile(encoded(image, ".png"), ORIGIN, 256)
    assert not rgba[:, :100].any()
    assert (rgba[:, 100:] == (200, 200, 200, 255)).all()
