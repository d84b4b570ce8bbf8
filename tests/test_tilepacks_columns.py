from __future__ import annotations

import tracemalloc
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from s4g.tilepacks.columns import (
    decode_column,
    deflate,
    encode_column,
    from_planes,
    inflate,
    to_planes,
    unzigzag,
    zigzag,
)

WORDS = arrays(np.uint32, st.integers(0, 200))


@given(WORDS)
def test_a_column_survives_the_round_trip(values: npt.NDArray[np.uint32]) -> None:
    again = decode_column(encode_column(values), len(values))
    assert again.dtype == np.uint32
    assert (again == values).all()


def test_steps_over_the_whole_range_survive() -> None:
    values = np.array([0, 2**32 - 1, 0, 2**31, 2**31 - 1, 1], np.uint32)
    assert (decode_column(encode_column(values), 6) == values).all()


def test_neighbours_take_little_more_than_a_byte() -> None:
    rng = np.random.default_rng(0)
    values = np.cumsum(rng.integers(-60, 60, 10_000)) + 10**6
    assert len(encode_column(values.astype(np.uint32))) < 1.1 * len(values)


def test_a_column_is_what_the_page_says() -> None:
    # docs/pack-format.md, section 4.1: steps 5, -2, 300 are 10, 3, 600 in zigzag.
    planes = bytes([10, 3, 600 % 256, 0, 0, 600 // 256, 0, 0, 0, 0, 0, 0])
    assert zlib.decompress(encode_column(np.array([5, 3, 303], np.uint32))) == planes


def test_same_numbers_give_the_same_bytes() -> None:
    values = np.arange(1000, dtype=np.uint32)
    assert encode_column(values) == encode_column(values.copy())


@given(arrays(np.int32, st.integers(0, 50)))
def test_zigzag_survives_the_round_trip(values: npt.NDArray[np.int32]) -> None:
    assert (unzigzag(zigzag(values)) == values).all()


def test_zigzag_is_small_near_zero() -> None:
    assert zigzag(np.array([0, -1, 1, -2, 2], np.int32)).tolist() == [0, 1, 2, 3, 4]


@given(WORDS)
def test_planes_survive_the_round_trip(values: npt.NDArray[np.uint32]) -> None:
    assert (from_planes(to_planes(values)) == values).all()


@given(st.binary(max_size=2000))
def test_bytes_survive_deflate(data: bytes) -> None:
    assert inflate(deflate(data), len(data)) == data


@given(st.binary(min_size=1, max_size=300), st.integers(-300, 300).filter(lambda n: n != 0))
def test_another_length_is_refused(data: bytes, more: int) -> None:
    length = max(0, len(data) + more)
    with pytest.raises(ValueError, match=f"^does not hold {length} bytes$"):
        inflate(deflate(data), length)


@given(st.data())
def test_any_altered_or_missing_byte_is_refused(data: st.DataObject) -> None:
    stream = deflate(bytes(range(200)))
    place = data.draw(st.integers(0, len(stream) - 1))
    for altered in (
        stream[:place],
        stream[:place] + bytes([stream[place] ^ 1]) + stream[place + 1 :],
    ):
        try:
            assert inflate(altered, 200) == bytes(range(200))  # a bit that zlib ignores
        except ValueError as error:
            assert str(error).startswith(("does not hold 200 bytes", "is no zlib stream ("))


def test_bytes_after_the_stream_are_refused() -> None:
    with pytest.raises(ValueError, match="^does not hold 3 bytes$"):
        inflate(deflate(b"abc") + b"d", 3)


@pytest.mark.parametrize("length", [0, 1, 1000])
def test_a_stream_that_swells_is_not_held(length: int) -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"^does not hold {length} bytes$"):
        inflate(bomb, length)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
