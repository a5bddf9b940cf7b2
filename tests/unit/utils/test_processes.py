"""Work in several processes: results in order, errors that name the item, and no process left behind."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import psutil
import pytest

from llm4seg.utils.errors import InputError
from llm4seg.utils.processes import in_processes

SCRIPT = """
from contextlib import closing
from pathlib import Path
from llm4seg.utils.processes import in_processes
from tests.unit.utils.test_processes import no_memory, wait_for_ever

if __name__ == "__main__":
    with closing(in_processes(wait_for_ever, [Path({folder!r})] * 4, 2, no_memory, str)) as results:
        list(results)
"""


class NoPickleError(Exception):
    def __init__(self, one: str, another: str) -> None:
        super().__init__(one + another)


def no_memory(item: object) -> int:
    return 0


def square(folder: Path, item: int) -> tuple[int, int, bool]:
    """The first item is ready after the second. With the process, and whether it has imported torch."""
    if item == 0:
        while not (folder / "1").exists():
            time.sleep(0.01)
    (folder / str(item)).touch()
    return item * item, os.getpid(), "torch" in sys.modules


def fail(item: int) -> int:
    match item:
        case 2:
            raise InputError("a.nii: found 2, allowed: 1")
        case 3:
            raise NoPickleError("not ", "picklable")
        case 4:
            os.kill(os.getpid(), signal.SIGKILL)
        case 5:
            raise OSError(28, "No space left on device")
        case 6:
            raise KeyError("a bug")
    return item


def count_at_work(folder: Path, item: int) -> int:
    """How many items are worked on, this one among them."""
    mine = folder / str(item)
    mine.touch()
    time.sleep(0.1)
    found = len([*folder.iterdir()])
    mine.unlink()
    return found


def wait_for_ever(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def test_results_come_in_order_from_processes_that_do_without_torch(tmp_path: Path) -> None:
    with closing(in_processes(partial(square, tmp_path), range(7), 2, no_memory, str)) as results:
        squares, processes, with_torch = zip(*results, strict=True)
    assert squares == tuple(item * item for item in range(7))
    assert len({*processes, os.getpid()}) == 3
    assert not any(with_torch)
    assert not any(psutil.pid_exists(process) for process in processes)


@pytest.mark.parametrize(
    ("item", "kind", "message"),
    [
        (2, InputError, r"^a\.nii: found 2, allowed: 1$"),
        (3, RuntimeError, "not picklable"),
        (4, ValueError, r"^case 4: its process was killed, as the system does where memory runs out; allowed: fewer"),
        (5, OSError, "No space left on device"),
    ],
)
def test_an_error_comes_after_the_results_before_it(item: int, kind: type[Exception], message: str) -> None:
    with closing(in_processes(fail, [0, 1, item, 0, 1], 2, no_memory, lambda item: f"case {item}")) as results:
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(kind, match=message):
            next(results)


def test_a_bug_shows_where_it_is() -> None:
    with closing(in_processes(fail, [6], 1, no_memory, str)) as results, pytest.raises(KeyError) as raised:
        next(results)
    assert 'raise KeyError("a bug")' in raised.value.__notes__[0]


def test_items_wait_while_memory_is_short(tmp_path: Path) -> None:
    everything = psutil.virtual_memory().total
    work = partial(count_at_work, tmp_path)
    with closing(in_processes(work, range(4), 3, lambda item: everything, str)) as results:
        assert max(results) == 1


def test_no_process_is_left_by_a_caller_that_stops_early(tmp_path: Path) -> None:
    before = set(psutil.Process().children())  # of other tests
    with closing(in_processes(partial(square, tmp_path), range(1, 9), 2, no_memory, str)) as results:
        next(results)
        begun = set(psutil.Process().children()) - before
        processes = [one.pid for one in begun if "resource_tracker" not in " ".join(one.cmdline())]
        assert len(processes) >= 2
    assert not any(psutil.pid_exists(process) for process in processes)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_its_caller(tmp_path: Path, sent: signal.Signals) -> None:
    """Ctrl-C goes to all processes of the terminal, and a process at work does not print how it ended."""
    (tmp_path / "script.py").write_text(SCRIPT.format(folder=str(tmp_path / "begun")), encoding="utf-8")
    (tmp_path / "begun").mkdir()
    command = [sys.executable, str(tmp_path / "script.py")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    caller = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    begun: list[int] = []
    while len(begun) < 2:
        begun = [int(path.name) for path in (tmp_path / "begun").iterdir()]
        assert caller.poll() is None
        time.sleep(0.02)
    if sent == signal.SIGINT:
        os.killpg(caller.pid, sent)
    else:
        caller.kill()
    _, errors = caller.communicate(timeout=60)
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in begun if psutil.pid_exists(pid)], timeout=30)
    assert not alive
    if sent == signal.SIGINT:
        assert errors.count("Traceback") == 1  # the caller's
