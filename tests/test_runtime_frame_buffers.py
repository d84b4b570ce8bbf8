import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4g.runtime.frame_buffers import POOLED, FrameBuffers

SHAPE = (3, 4, 3)


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def test_a_buffer_that_nobody_holds_is_used_again() -> None:
    buffers = FrameBuffers()
    assert len({address(buffers.take(SHAPE)) for _ in range(10)}) == 1


def test_a_buffer_that_is_held_is_left_alone() -> None:
    buffers = FrameBuffers()
    held = buffers.take(SHAPE)
    held[:] = 7
    for _ in range(10):
        buffers.take(SHAPE)[:] = 0
    assert (held == 7).all()


@pytest.mark.parametrize(
    "part",
    [
        lambda a: a[1:],
        lambda a: a[..., 0].T,
        lambda a: a.reshape(-1)[3:5],
        lambda a: memoryview(a),
        lambda a: np.frombuffer(a, np.uint8),
        lambda a: [{"kept": a}],
    ],
    ids=["rows", "a colour, turned", "a part of a part", "memory", "a foreign view", "in a list"],
)
def test_a_buffer_is_held_by_whatever_shows_a_part_of_it(part) -> None:
    buffers = FrameBuffers()
    first = buffers.take(SHAPE)
    where, kept = address(first), part(first)
    del first
    assert address(buffers.take(SHAPE)) != where
    del kept
    assert where in {address(buffers.take(SHAPE)) for _ in range(3)}


def test_another_thread_can_hold_a_buffer() -> None:
    buffers = FrameBuffers()
    taken, let_go = threading.Event(), threading.Event()

    def hold(array: np.ndarray) -> None:
        taken.set()
        let_go.wait(10)

    first = buffers.take(SHAPE)
    where = address(first)
    thread = threading.Thread(target=hold, args=(first,))
    thread.start()
    del first
    taken.wait(10)
    other = buffers.take(SHAPE)
    assert address(other) != where
    let_go.set()
    thread.join()


def test_frames_of_another_size_get_buffers_of_their_own() -> None:
    buffers = FrameBuffers()
    old = buffers.take(SHAPE)
    new = buffers.take((5, 6, 3))
    assert new.shape == (5, 6, 3)
    assert not np.shares_memory(old, new)
    assert buffers.take(SHAPE).shape == SHAPE


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=40))
def test_no_two_holders_ever_share_a_buffer(steps: list[tuple[bool, int]]) -> None:
    buffers = FrameBuffers()
    held: list[tuple[np.ndarray, int]] = []
    for number, (takes, which) in enumerate(steps):
        if takes or not held:
            array = buffers.take((2, 2))
            array[:] = number
            held.append((array, number))
            del array
        else:
            held.pop(which % len(held))
        assert all((array == value).all() for array, value in held)
    held.clear()
    assert len(buffers._buffers) <= POOLED
