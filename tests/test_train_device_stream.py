"""Batches that a thread makes ahead."""

import threading
from collections.abc import Generator

import pytest
import torch

from s4g.train.device_stream import ahead, made_by_thread, uploaded
from s4g.train.source import Batch


def numbers(count: int, seen: list[str]) -> Generator[int]:
    try:
        for number in range(count):
            seen.append(threading.current_thread().name)
            yield number
    finally:
        seen.append("closed")


def test_items_come_in_order_and_another_thread_makes_them() -> None:
    seen: list[str] = []
    assert list(made_by_thread(numbers(7, seen), 2)) == list(range(7))
    assert threading.current_thread().name not in seen
    assert seen[-1] == "closed"


def test_what_the_thread_raises_reaches_the_reader_after_the_items_before() -> None:
    def failing() -> Generator[int]:
        yield 1
        raise ValueError("no more")

    made = made_by_thread(failing(), 2)
    assert next(made) == 1
    with pytest.raises(ValueError, match="^no more$"):
        next(made)


def test_a_reader_that_leaves_ends_the_thread_and_closes_what_it_read() -> None:
    seen: list[str] = []
    before = threading.active_count()
    made = made_by_thread(numbers(1000, seen), 2)
    assert next(made) == 0
    made.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert seen[-1] == "closed"
    assert len(seen) < 10  # two wait, one is made, one was read


def test_a_cpu_is_handed_batches_as_they_are_made() -> None:
    batch = Batch(torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2))

    def one() -> Generator[Batch]:
        yield batch

    assert list(ahead(one(), torch.device("cpu"))) == [batch]


def test_numbers_for_the_cpu_are_not_copied() -> None:
    values = torch.arange(3)
    assert uploaded(values, torch.device("cpu")) is values
