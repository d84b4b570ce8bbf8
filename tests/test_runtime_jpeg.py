import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.core.errors import InputError
from s4g.core.images import encode_rgb
from s4g.runtime.jpeg import (
    TAG_FOCAL_LENGTH_35MM,
    exif_numbers,
    xmp_packet,
)

JPEG = encode_rgb(np.full((40, 70, 3), 90, np.uint8), ".jpg")


def with_app1(payload: bytes, jpeg: bytes = JPEG) -> bytes:
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


def exif(order: str, focal_35mm: int) -> bytes:
    """An EXIF block whose Exif directory holds the 35 mm focal length alone."""
    mark = b"II*\x00" if order == "<" else b"MM\x00*"
    main = struct.pack(order + "HHHII", 1, 0x8769, 4, 1, 26) + struct.pack(order + "I", 0)
    sub = struct.pack(order + "HHHI", 1, TAG_FOCAL_LENGTH_35MM, 3, 1)
    sub += struct.pack(order + "HH", focal_35mm, 0) + struct.pack(order + "I", 0)
    return b"Exif\x00\x00" + mark + struct.pack(order + "I", 8) + main + sub


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_focal_length_is_read_in_both_byte_orders(order: str) -> None:
    assert exif_numbers(with_app1(exif(order, 24)), "a.jpg")[TAG_FOCAL_LENGTH_35MM] == 24


def test_a_jpeg_without_exif_has_no_tags() -> None:
    assert exif_numbers(JPEG, "a.jpg") == {}


def test_damaged_exif_is_refused() -> None:
    with pytest.raises(InputError) as error:
        exif_numbers(with_app1(exif("<", 24)[:30]), "a.jpg")
    assert str(error.value) == (
        "a.jpg: its EXIF block is damaged; pass --telemetry FILE.csv and --hfov instead"
    )


def test_the_xmp_packet_is_found_behind_the_exif_block() -> None:
    data = with_app1(exif("<", 20), with_app1(b"http://ns.adobe.com/xap/1.0/\x00<x/>"))
    assert xmp_packet(data) == b"<x/>"
    assert xmp_packet(JPEG) is None


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_walk(tail: bytes) -> None:
    data = b"\xff\xd8" + tail
    xmp_packet(data)
    try:
        exif_numbers(data, "a.jpg")
    except InputError as error:
        assert "EXIF" in str(error)
