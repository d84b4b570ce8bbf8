import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.images import encode_rgb
from s4g.core.jpeg import is_complete, is_jpeg, jpeg_size

JPEG = encode_rgb(np.full((40, 70, 3), 90, np.uint8), ".jpg")


def test_the_size_stands_in_the_header() -> None:
    assert is_jpeg(JPEG)
    assert jpeg_size(JPEG) == (70, 40)


def test_a_png_is_no_jpeg() -> None:
    assert not is_jpeg(encode_rgb(np.zeros((4, 4, 3), np.uint8), ".png"))


def test_a_whole_jpeg_is_complete_and_every_truncation_is_not() -> None:
    assert is_complete(JPEG)
    for length in range(2, len(JPEG) - 1, 37):
        assert not is_complete(JPEG[:length])


def test_the_thumbnails_end_is_not_taken_for_the_pictures_end() -> None:
    with_thumbnail = JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(JPEG) + 2) + JPEG + JPEG[2:]
    assert is_complete(with_thumbnail)
    assert not is_complete(with_thumbnail[:-20])


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_walk(tail: bytes) -> None:
    data = b"\xff\xd8" + tail
    jpeg_size(data)
    is_complete(data)
