"""Pictures of a flight log: exact where they claim to be, and without what photos tell besides."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("zstandard", reason="flight logs need mcap and zstandard (outputs extra)")
import zstandard

from s4g.core.errors import InputError
from s4g.core.images import decode_rgb
from s4g.core.jpeg import is_complete, jpeg_size
from s4g.runtime.log_pixels import (
    check_jpeg,
    pack_pixels,
    unpack_pixels,
    without_metadata,
)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height)), np.uint8)


@settings(max_examples=60)
@given(height=st.integers(1, 70), width=st.integers(1, 70), seed=st.integers(0, 999))
def test_any_picture_comes_back_to_the_last_bit(height: int, width: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    for rgb in (noise, picture(height, width, seed), np.zeros_like(noise)):
        before = rgb.copy()
        jpeg, residual = pack_pixels(rgb, exact=True)
        assert residual is not None
        back, exact = unpack_pixels(jpeg, residual, width, height, "x")
        assert exact
        assert np.array_equal(back, rgb)
        assert np.array_equal(rgb, before)


def test_a_decoder_that_rounds_otherwise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = picture(20, 30)
    jpeg, residual = pack_pixels(rgb, exact=True)

    def other(data: bytes, origin: str) -> np.ndarray:
        return decode_rgb(data, origin) ^ np.uint8(1)

    monkeypatch.setattr("s4g.runtime.log_pixels.decode_rgb", other)
    back, exact = unpack_pixels(jpeg, residual, 30, 20, "x")
    assert not exact
    assert np.abs(back.astype(int) - rgb).max() == 1


def test_a_lossy_picture_is_the_jpeg_alone() -> None:
    rgb = picture(96, 128)
    jpeg, residual = pack_pixels(rgb, exact=False)
    assert residual is None
    assert jpeg == pack_pixels(rgb, exact=True)[0]
    shown, exact = unpack_pixels(jpeg, None, 128, 96, "x")
    assert not exact
    assert 0 < np.abs(shown.astype(int) - rgb).mean() < 6


def test_red_stays_red_for_any_viewer() -> None:
    rgb = np.zeros((32, 32, 3), np.uint8)
    rgb[..., 0] = 250
    red, green, blue = decode_rgb(pack_pixels(rgb, exact=False)[0], "x").mean(axis=(0, 1))
    assert red > 240
    assert max(green, blue) < 10


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("restart", [0, 2])
def test_metadata_is_left_out_and_the_picture_is_not(progressive: int, restart: int) -> None:
    rgb = picture(90, 150)
    done, data = cv2.imencode(
        ".jpg",
        rgb,
        [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_RST_INTERVAL, restart],
    )
    assert done
    jpeg = data.tobytes()
    assert without_metadata(jpeg) == jpeg
    secret = b"47.123 N 9.456 E \xff\xd9"

    def segment(marker: int) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(secret) + 2) + secret

    # EXIF or XMP, an ICC profile or a preview, maker's notes, IPTC, a comment.
    told = b"".join(segment(m) for m in (0xE1, 0xE2, 0xE4, 0xED, 0xEF, 0xFE))
    dressed = jpeg[:20] + told + b"\xff" + jpeg[20:] + b"trailer " + secret
    assert jpeg[2:4] == b"\xff\xe0"
    assert is_complete(dressed)
    assert without_metadata(dressed) == jpeg


@settings(max_examples=200)
@given(st.binary(max_size=400))
def test_metadata_of_anything_can_be_left_out(data: bytes) -> None:
    bare = without_metadata(b"\xff\xd8" + data)
    assert bare.startswith(b"\xff\xd8")
    assert bare.endswith(b"\xff\xd9")
    assert len(bare) <= len(data) + 4


def refusal(*arguments: object) -> str:
    with pytest.raises(InputError) as error:
        unpack_pixels(*arguments)  # type: ignore[arg-type]
    return str(error.value)


def test_a_picture_of_another_size_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jpeg, residual = pack_pixels(picture(20, 30), exact=True)
    at = jpeg.index(b"\xff\xc0") + 5
    huge = jpeg[:at] + struct.pack(">HH", 65000, 65000) + jpeg[at + 4 :]
    assert jpeg_size(huge) == (65000, 65000)
    monkeypatch.setattr("s4g.runtime.log_pixels.decode_rgb", None)
    line = "x: its picture is no JPEG of 30x20 px; the log is damaged"
    for wrong in (huge, jpeg[: len(jpeg) // 2], b"", b"\x89PNG"):
        assert refusal(wrong, residual, 30, 20, "x") == line
        with pytest.raises(InputError, match="no JPEG of 30x20"):
            check_jpeg(wrong, 30, 20, "x")


def test_a_residual_that_does_not_fit_is_refused() -> None:
    jpeg, residual = pack_pixels(picture(20, 30), exact=True)
    assert residual is not None
    compress = zstandard.ZstdCompressor().compress
    bomb = compress(bytes(1 << 24))
    assert len(bomb) < 4096
    # A size that is not told would be believed whatever comes out.
    streamed = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(20 * 30 * 3))
    head = residual[:4]
    for packed in (bomb, compress(b"short"), streamed, residual[4:-5], b"", b"nothing of the kind"):
        wrong = head + packed
        assert refusal(jpeg, wrong, 30, 20, "x") == "x: what completes its picture is damaged"


@settings(max_examples=150)
@given(at=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_damaged_residual_is_refused_or_a_picture(at: int, flip: int) -> None:
    jpeg, residual = pack_pixels(picture(20, 30), exact=True)
    assert residual is not None
    damaged = bytearray(residual)
    damaged[at % len(damaged)] ^= flip
    try:
        rgb, exact = unpack_pixels(jpeg, bytes(damaged), 30, 20, "x")
        assert rgb.shape == (20, 30, 3)
        assert not exact or np.array_equal(rgb, picture(20, 30))
    except InputError as error:
        assert str(error) == "x: what completes its picture is damaged"
