"""Lock of runs: a file in the storage of each process that has runs under way, so that no run is so twice. Without Ray.

A process first writes its file, then reads those of others: of two that start at the same time, the later withdraws.
Its file is written anew every BEAT seconds and deleted at the end. A killed process leaves it to the next process with
the same run, which deletes it: at once on the same machine, where processes are looked up; from another machine once it
has not been written for STALE seconds. A process that is suspended for longer than that counts as dead there.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import psutil
import pyarrow.fs

from llm4seg.cluster.runs import storage
from llm4seg.cluster.storage import file_system, retrying
from llm4seg.config import Config
from llm4seg.utils.errors import UserError
from llm4seg.utils.files import write_text

BEAT = 10.0
STALE = 60.0
WITHDRAW = 20.0  # seconds in which the later of two processes withdraws: more than it takes to see that one lives
POLL = 0.5
PREFIX = ".lock-"  # of the files' names, beside the runs' folders


class RunUnderWay(UserError):
    """Another process has the run under way."""


@dataclass(frozen=True)
class Owner:
    """A process and the names of its runs; `machine`, `start`: see `_machine` and `_start`; `since`: seconds."""

    id: str
    runs: list[str]
    host: str
    machine: str
    pid: int
    start: str
    since: float

    def is_later(self, other: "Owner") -> bool:
        return (self.since, self.id) > (other.since, other.id)

    def is_dead(self) -> bool:
        """Whether the process, one of this machine, has ended; a zombie has."""
        try:
            return psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE or _start(self.pid) != self.start
        except (psutil.NoSuchProcess, OSError):
            return True


@contextmanager
def run_lock(config: Config, runs: Collection[str]) -> Iterator[None]:
    """Context manager: the runs of these names are under way in this process alone.

    Raises RunUnderWay where one of them is under way already. On another machine, it takes up to BEAT seconds to see
    that its process lives, or STALE that it does not.
    """
    lock, stop = _LockFile(config, runs), threading.Event()
    beating = threading.Thread(target=lock.beat, args=(stop,), daemon=True)
    retrying(config.cluster.storage_patience)(lock.write)
    beating.start()
    try:
        lock.exclude_others()
        yield
    finally:
        stop.set()
        beating.join()
        with suppress(OSError):  # it counts as a killed process's then
            lock.delete(lock.owner)


class _LockFile:
    """The file of this process, and its view of the others."""

    def __init__(self, config: Config, runs: Collection[str]) -> None:
        self._files, self._folder = file_system(storage(config))
        self._timeout = config.cluster.storage_patience
        pid = os.getpid()
        self.owner = Owner(
            str(uuid.uuid4()), sorted(runs), socket.gethostname(), _machine(), pid, _start(pid), time.time()
        )

    def _path(self, owner_id: str) -> str:
        return f"{self._folder}/{PREFIX}{owner_id}"

    def write(self) -> None:
        path, text = self._path(self.owner.id), json.dumps(asdict(self.owner))
        if isinstance(self._files, pyarrow.fs.LocalFileSystem):
            write_text(Path(path), text)
            return
        with self._files.open_output_stream(path) as stream:  # an object is written whole or not at all
            stream.write(text.encode())

    def delete(self, owner: Owner) -> None:
        with suppress(FileNotFoundError):
            self._files.delete_file(self._path(owner.id))

    def beat(self, stop: threading.Event) -> None:
        while not stop.wait(BEAT):
            with suppress(OSError):  # the next beat may succeed
                self.write()

    def exclude_others(self) -> None:
        """Return once no living process shares a run; raises RunUnderWay if one goes on with it."""
        begin, first_beats = time.monotonic(), dict[str, int]()
        while others := retrying(self._timeout)(self._others):
            for other, beat, age in others:
                here, first = other.machine == self.owner.machine, first_beats.setdefault(other.id, beat)
                if other.is_dead() if here else age > STALE:
                    self.delete(other)
                elif (here or beat != first) and (self.owner.is_later(other) or time.monotonic() - begin > WITHDRAW):
                    raise RunUnderWay(self._message(other))
            time.sleep(POLL)

    def _others(self) -> list[tuple[Owner, int, float]]:
        """The owners of files that share a run, with the time of the last beat in ns and its age in seconds.

        Ages are relative to the newest beat of all, which may be this process's: clocks of machines may differ.
        """
        found = self._files.get_file_info(pyarrow.fs.FileSelector(self._folder))
        beats = {info.base_name.removeprefix(PREFIX): info.mtime_ns for info in found if _is_lock(info)}
        others = [self._read(owner_id) for owner_id in beats if owner_id != self.owner.id]
        newest = max(beats.values())
        return [
            (other, beats[other.id], (newest - beats[other.id]) / 1e9)
            for other in others
            if other is not None and not set(self.owner.runs).isdisjoint(other.runs)
        ]

    def _read(self, owner_id: str) -> Owner | None:
        """The owner of a file; None where it has just been deleted, or is empty after a power failure."""
        try:
            with self._files.open_input_stream(self._path(owner_id)) as stream:
                return Owner(**json.loads(stream.read()))
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def _message(self, other: Owner) -> str:
        since = datetime.fromtimestamp(other.since).astimezone().isoformat(" ", "seconds")
        return (
            f"this run is under way already, on {other.host} (pid {other.pid}) since {since}: "
            f"wait for its end, or stop it ({self._path(other.id)} is its lock)"
        )


def _is_lock(info: pyarrow.fs.FileInfo) -> bool:
    return info.type == pyarrow.fs.FileType.File and info.base_name.startswith(PREFIX)


def _machine() -> str:
    """What processes share that can look each other up: machine since its start, container and user."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()} {os.getuid()}"
    except OSError:  # no Linux
        return f"{socket.gethostname()} {os.getuid()}"


def _start(pid: int) -> str:
    """The start of a process, which tells it from a later one of the same id; on Linux independent of the clock."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
    except FileNotFoundError:
        return str(psutil.Process(pid).create_time())
