"""`in_processes`: a function of many items in several processes, whose results come in the order of the items.

Processes gain where threads wait for the interpreter's lock; what they return is pickled, so it should be small.
"""

import os
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing import connection, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar

from llm4seg.utils.errors import UserError
from llm4seg.utils.logs import configure_child
from llm4seg.utils.threads import free_memory

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Worker:
    """A process that works on one item at a time; `item` is the index of the present one."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        context = get_context("spawn")  # a fork would copy locks that other threads hold
        self.connection, other_end = context.Pipe()
        self.item: int | None = None
        self._process = context.Process(target=_serve, args=(other_end, work), daemon=True)
        self._process.start()
        other_end.close()

    def begin(self, index: int, item: Any) -> None:
        self.item = index
        with suppress(OSError):  # it was killed: `result` says so
            self.connection.send(item)

    def result(self, name: str) -> tuple[bool, Any]:
        """Whether the item succeeded, and its result, else the error."""
        self.item = None
        try:
            return self.connection.recv()  # type: ignore[no-any-return]
        except (EOFError, OSError):
            self._process.join()
            return False, UserError(f"{name}: {_cause(self._process.exitcode)}")

    def stop(self) -> None:
        self._process.terminate()
        self._process.join()
        self.connection.close()


def in_processes(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    needed: Callable[[Item], int],
    name: Callable[[Item], str],
) -> Generator[Result]:
    """Results of `work`, which like items and results must pickle, in the order of the items.

    At most `workers` items are worked on at a time. `needed`: the bytes that an item takes while it is worked on; while
    fewer are free, it waits until another one is done. `name`: what an error calls the item whose process was killed.
    Errors arrive after the results before them. No process is left when the iterator is closed: use
    `contextlib.closing`. The caller's main module is imported again by each process, so a script of one's own must
    guard what it runs with `if __name__ == "__main__"`.
    """
    pool: list[_Worker] = []
    try:
        resource_tracker.ensure_running()  # it lets interrupts through again when it starts
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:  # processes inherit it: Ctrl-C is the caller's, who ends them
            pool += [_Worker(work) for _ in range(min(workers, len(items)))]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        yield from _results(pool, items, needed, name)
    finally:
        for worker in pool:
            worker.stop()


def _results(
    pool: list[_Worker], items: Sequence[Item], needed: Callable[[Item], int], name: Callable[[Item], str]
) -> Generator[Any]:
    begun, done = 0, dict[int, tuple[bool, Any]]()
    for turn in range(len(items)):
        while turn not in done:
            failed = not all(success for success, _ in done.values())
            for worker in pool:
                busy = [items[one.item] for one in pool if one.item is not None]
                short = busy and free_memory(map(needed, busy)) < needed(items[min(begun, len(items) - 1)])
                if worker.item is None and begun < len(items) and not short and not failed:
                    worker.begin(begun, items[begun])
                    begun += 1
            at_work = {worker.connection: worker for worker in pool if worker.item is not None}
            for ready in connection.wait([*at_work]):
                worker = at_work[ready]  # type: ignore[index]
                index = worker.item
                assert index is not None
                done[index] = worker.result(name(items[index]))
        success, value = done.pop(turn)
        if not success:
            raise value
        yield value


def _serve(pipe: Connection, work: Callable[[Any], Any]) -> None:
    """The loop of a process; it ends when the other side is gone, at once where that was killed."""
    threading.Thread(target=_end_with_caller, daemon=True).start()
    configure_child()
    try:
        while True:
            item = pipe.recv()
            try:
                answer = (True, work(item))
            except Exception as error:
                answer = (False, _portable(error))
            pipe.send(answer)
            del item, answer
    except (EOFError, OSError):
        pass


def _end_with_caller() -> None:
    caller = parent_process()
    assert caller is not None
    caller.join()
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error, with its traceback where it is no user's; or one that pickles in its place."""
    if not isinstance(error, (UserError, OSError)):
        error.add_note(traceback.format_exc())
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))  # as a Connection does
        return error
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))


def _cause(exit_code: int | None) -> str:
    if exit_code == -signal.SIGKILL:
        return (
            "its process was killed, as the system does where memory runs out; allowed: fewer at a time "
            "(cluster.cpus_per_worker), or more memory"
        )
    return f"its process ended unexpectedly, with exit code {exit_code}"
