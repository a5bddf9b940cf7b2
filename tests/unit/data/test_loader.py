"""Reading ahead changes neither the order nor the errors, and leaves no thread behind."""

import threading

import pytest

from llm4seg.data.loader import prefetch, read_on_demand


def test_order_is_kept_and_the_next_is_read_meanwhile() -> None:
    second_read = threading.Event()

    def read(number: int) -> int:
        if number == 1:
            second_read.set()
        return number * 10

    batches = prefetch(read, range(4))
    assert next(batches) == 0
    assert second_read.wait(5)
    assert list(batches) == [10, 20, 30]


def test_an_error_is_raised_where_it_is_due() -> None:
    batches = prefetch(lambda number: 1 // (2 - number), range(4))
    assert next(batches) == 0
    assert next(batches) == 1
    with pytest.raises(ZeroDivisionError):
        next(batches)


def test_leaving_early_ends_the_thread() -> None:
    batches = prefetch(lambda number: number, range(100))
    next(batches)
    batches.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("loader")]


def test_without_reading_ahead_each_is_read_when_it_is_due() -> None:
    read: list[int] = []
    batches = read_on_demand(lambda number: read.append(number) or number, range(3))
    assert (next(batches), read) == (0, [0])
    assert (list(batches), read) == ([1, 2], [0, 1, 2])
