"""Work on several threads: results in order, no item read too early, errors where they belong."""

import threading
from collections.abc import Iterator

import psutil
import pytest

from llm4seg.utils.threads import cores, in_order


def no_memory(item: int) -> int:
    return 0


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order_whichever_is_done_first(workers: int) -> None:
    last_is_done = threading.Event()

    def work(item: int) -> int:
        if workers > 1 and item == 0:
            assert last_is_done.wait(10)  # the first ends after the second
        elif item == 1:
            last_is_done.set()
        return item * item

    assert list(in_order(work, range(7), workers, no_memory)) == [item * item for item in range(7)]


def test_as_many_items_at_a_time_as_there_are_workers() -> None:
    together = threading.Barrier(3)  # broken unless three wait at once
    assert list(in_order(lambda item: together.wait(10) * 0 + item, range(6), 3, no_memory)) == list(range(6))


def test_no_item_is_read_long_before_its_turn() -> None:
    read = []

    def items() -> Iterator[int]:
        for item in range(20):
            read.append(item)
            yield item

    for result in in_order(lambda item: item, items(), 3, no_memory):
        assert len(read) <= result + 1 + 3 + 2


def test_items_wait_while_memory_is_short() -> None:
    at_work, most = 0, []
    lock = threading.Lock()

    def work(item: int) -> int:
        nonlocal at_work
        with lock:
            at_work += 1
            most.append(at_work)
        threading.Event().wait(0.01)
        with lock:
            at_work -= 1
        return item

    everything = psutil.virtual_memory().total
    assert list(in_order(work, range(5), 4, lambda item: everything)) == list(range(5))
    assert max(most) == 1


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_comes_after_the_results_before_it(workers: int) -> None:
    def work(item: int) -> int:
        if item == 2:
            raise ValueError("the third")
        return item

    results = in_order(work, range(9), workers, no_memory)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(results)


def test_there_is_a_core() -> None:
    assert 1 <= cores() <= (psutil.cpu_count() or 1)
