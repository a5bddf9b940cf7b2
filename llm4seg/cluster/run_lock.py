"""Lock of runs: a file in the storage of each process that has runs under way, so that no run is so twice. Without Ray.

A process first writes its file, then reads those of others: of two that start at the same time, the later withdraws.
Its file is written anew every BEAT seconds and deleted at the end. A killed process leaves it to the next process with
the same run, which deletes it: at once on the same machine, where processes are looked up; on another machine once it
has watched for STALE seconds that it is not written, by its own clock. A process suspended for longer counts as dead.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

import psutil
import pyarrow.fs

from llm4seg.cluster.runs import storage
from llm4seg.cluster.storage import file_system, retrying
from llm4seg.config import Config
from llm4seg.utils.errors import UserError
from llm4seg.utils.files import write_text

log = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class _Watched:
    """Another's beat, since when it is the same, and whether it has changed before our eyes."""

    beat: int
    since: float
    lives: bool = False


@contextmanager
def run_lock(config: Config, runs: Collection[str]) -> Iterator[None]:
    """Context manager: the runs of these names are under way in this process alone.

    Raises RunUnderWay where one of them is under way already. On another machine, it takes up to BEAT seconds to see
    that its process lives, or STALE that it does not.
    """
    lock, stop = _LockFile(config, runs), threading.Event()
    beating = threading.Thread(target=lock.beat, args=(stop,), daemon=True)
    lock.write_first()
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

    def write_first(self) -> None:
        """Write it for the first time: a folder of this machine is there and can be written, or never will be."""
        if not isinstance(self._files, pyarrow.fs.LocalFileSystem):
            retrying(self._timeout)(self.write)
            return
        try:
            self.write()
        except OSError as error:
            where = "cluster.storage, or paths.runs where that is null"
            raise UserError(f"{self._folder}: cannot be written ({error.strerror}); it is {where}") from None

    def delete(self, owner: Owner) -> None:
        with suppress(FileNotFoundError):
            self._files.delete_file(self._path(owner.id))

    def beat(self, stop: threading.Event) -> None:
        while not stop.wait(BEAT):
            with suppress(OSError):  # the next beat may succeed
                self.write()

    def exclude_others(self) -> None:
        """Return once no living process shares a run; raises RunUnderWay if one goes on with it."""
        begin, watched = time.monotonic(), dict[str, _Watched]()
        while others := retrying(self._timeout)(self._others):
            for other, beat in others:
                now = time.monotonic()
                seen = watched.setdefault(other.id, _Watched(beat, now))
                if beat != seen.beat:
                    watched[other.id] = seen = _Watched(beat, now, lives=True)
                if other.machine == self.owner.machine:
                    gone, lives = other.is_dead(), True
                else:
                    gone, lives = now - seen.since > STALE, seen.lives
                if gone:
                    self.delete(other)
                elif lives and (self.owner.is_later(other) or now - begin > WITHDRAW):
                    raise RunUnderWay(self._message(other))
                elif not lives and seen.since == now:
                    log.info(f"looking for up to {STALE:.0f} s whether {other.host} goes on with this run")
            time.sleep(POLL)

    def _others(self) -> list[tuple[Owner, int]]:
        """The owners of files that share a run, with the time of the last beat in ns, by the storage's clock."""
        found = self._files.get_file_info(pyarrow.fs.FileSelector(self._folder))
        beats = {info.base_name.removeprefix(PREFIX): info.mtime_ns for info in found if _is_lock(info)}
        others = [(self._read(owner_id), beat) for owner_id, beat in beats.items() if owner_id != self.owner.id]
        return [(other, beat) for other, beat in others if other and not set(self.owner.runs).isdisjoint(other.runs)]

    def _read(self, owner_id: str) -> Owner | None:
        """The owner of a file; None where it has just been deleted, or is none that this version wrote."""
        try:
            with self._files.open_input_stream(self._path(owner_id)) as stream:
                return replace(Owner(**json.loads(stream.read())), id=owner_id)  # a copied file has another's id
        except (FileNotFoundError, ValueError, TypeError):
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
