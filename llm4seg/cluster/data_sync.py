"""Data sync: a node without the shared file system fetches a run's data and LLM layers by hash with DVC, once."""

import hashlib
import json
import logging
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from llm4seg.config import Config
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import remove, write_text

log = logging.getLogger(__name__)

PARTS = ("prepared", "split", "llm_used")  # keys of `paths`: all inputs of a training
# settings of a remote that locate it; credentials come from each node's own AWS chain
REMOTE_SETTINGS = ("url", "endpointurl", "region", "use_ssl", "ssl_verify", "connect_timeout", "read_timeout")


class FetchFailed(RuntimeError):
    """A node failed to fetch its data; another attempt may succeed."""


@dataclass(frozen=True)
class DvcOutput:
    """An output of a DVC stage: DVC's hash, which names it in every cache and remote, and its size in bytes."""

    md5: str
    size: int

    def path(self, cache: Path) -> Path:
        return cache / self.md5

    def is_intact(self, cache: Path) -> bool:
        """Whether the cache holds the output with its hash; hashes it only if a file has changed since."""
        path, verified = self.path(cache), self._verified(cache)
        if not path.exists():
            return False
        now = _times_of_change(path)
        if verified.exists() and verified.read_text(encoding="utf-8") == now:
            return True
        if dvc_md5(path) != self.md5:
            log.warning(f"node {socket.gethostname()}: {path} was changed; fetching it again")
            return False
        write_text(verified, now)
        return True

    def move_here(self, fetched: Path, cache: Path) -> None:
        """Move fetched files, whose hash was checked, into the cache."""
        fetched.rename(self.path(cache))
        write_text(self._verified(cache), _times_of_change(self.path(cache)))

    def _verified(self, cache: Path) -> Path:
        """The file with the inodes, sizes and times of change of the output's files at the last successful check."""
        return cache / "state" / f"{self.md5}.json"


@dataclass(frozen=True)
class DataSync:
    """The DVC outputs that the nodes of a run need, and the remote that holds them. Picklable, without credentials."""

    parts: dict[str, DvcOutput]
    remote: dict[str, Any]

    def on_this_node(self, config: Config) -> Config:
        """A copy of `config` with the paths of this node's cache, into which missing and damaged outputs are fetched.

        Raises InputError when the disk is too small, FetchFailed when `dvc pull` fails or returns other content.
        """
        cache = config.cluster.node_cache.expanduser()
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / "lock"):  # the first worker of a node fetches, the others wait for it
            _fetch([part for part in self.parts.values() if not part.is_intact(cache)], cache, self.remote)
        return config.override({f"paths.{name}": str(part.path(cache)) for name, part in self.parts.items()})


def data_sync(config: Config) -> DataSync | None:
    """The data sync of a run, from dvc.lock; None where nodes share the project's folder.

    Raises InputError when a part is no DVC output, has changed since its stage ran, or is not in the remote.
    """
    if config.cluster.data == "shared":
        return None
    with _repository(config.paths.prepared.parent) as repository:
        outs = {name: _out(repository, getattr(config.paths, name)) for name in PARTS}
        _check_pushed(repository, outs)
        remote = repository.config["remote"][repository.config["core"]["remote"]]
        parts = {name: DvcOutput(out.hash_info.value, out.meta.size) for name, out in outs.items()}
        return DataSync(parts, {name: value for name, value in remote.items() if name in REMOTE_SETTINGS})


@contextmanager
def _repository(folder: Path) -> Iterator[Any]:
    """The DVC repository that contains a folder. Raises InputError where there is none, or no default remote."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        repository = Repo(Repo.find_root(folder))
    except NotDvcRepoError:
        raise InputError(
            f"cluster.data: found pull, but {folder} is in no DVC workspace, and nodes fetch what dvc.lock names; "
            "allowed: shared"
        ) from None
    with repository:
        if not repository.config["core"].get("remote"):
            raise InputError("cluster.data: found pull, but DVC has no default remote: run `dvc remote add -d`")
        yield repository


def _out(repository: Any, path: Path) -> Any:
    """The DVC output at a path. Raises InputError when there is none, or it has changed since its stage ran."""
    from dvc.exceptions import OutputNotFoundError

    try:
        (out,) = repository.find_outs_by_path(str(path))
    except OutputNotFoundError:
        raise InputError(f"cluster.data: found pull, but {path} is no output in dvc.yaml; allowed: shared") from None
    if not out.hash_info:
        raise InputError(f"{path}: not in dvc.lock, which says what nodes fetch: run `dvc repro`")
    if out.exists and out.changed():
        raise InputError(f"{path}: not what dvc.lock says, so nodes would fetch something else: run `dvc repro`")
    return out


def _check_pushed(repository: Any, outs: Mapping[str, Any]) -> None:
    """Raise InputError with the names of outputs that are not complete in the remote."""
    missing = []
    for name, out in outs.items():
        for objects in out.get_used_objs().values():
            status = repository.cloud.status(objects)
            if status.new or status.missing:
                missing.append(f"paths.{name} ({out})")
    if missing:
        raise InputError(f"the DVC remote lacks {', '.join(missing)}: run `dvc push` first")


def dvc_md5(path: Path) -> str:
    """DVC's hash of a file (its md5) or of a folder (the md5 of the list of its files, stored as HASH.dir)."""
    if path.is_file():
        return _md5(path)
    files = _files(path)
    with ThreadPoolExecutor() as threads:
        hashes = list(threads.map(_md5, files.values()))
    listing = [{"md5": md5, "relpath": name} for name, md5 in zip(files, hashes, strict=True)]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _files(folder: Path) -> dict[str, Path]:
    """All files below a folder by relative path, sorted."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return dict(sorted(files.items()))


def _md5(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def _times_of_change(path: Path) -> str:
    """Inode, size and time of change of each file, as text: equal text means unchanged content."""
    files = {"": path} if path.is_file() else _files(path)
    stats = {name: file.stat() for name, file in files.items()}
    return json.dumps({name: [stat.st_ino, stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()})


def _fetch(parts: list[DvcOutput], cache: Path, remote: dict[str, Any]) -> None:
    """Fetch outputs into the cache, each whole or not at all; replaces earlier files under their names."""
    if not parts:
        return
    for part in parts:
        remove(part.path(cache))
    _check_disk(sum(part.size for part in parts), cache)
    workspace = cache / "fetching"
    remove(workspace)  # from a worker that was killed
    try:
        _pull(parts, workspace, remote)
        for part in parts:
            if dvc_md5(workspace / part.md5) != part.md5:
                raise FetchFailed(f"{remote['url']}: what it gave for {part.md5} has another hash")
            part.move_here(workspace / part.md5, cache)
    finally:
        remove(workspace)


def _check_disk(needed: int, cache: Path) -> None:
    free = shutil.disk_usage(cache).free
    if free < needed:
        raise InputError(
            f"node {socket.gethostname()}: {free / 1e9:.1f} GB are free in {cache} and the run's data needs "
            f"{needed / 1e9:.1f} GB: make room, or move cluster.node_cache"
        )


def _pull(parts: list[DvcOutput], workspace: Path, remote: dict[str, Any]) -> None:
    """`dvc pull` in a workspace of these outputs; its files are hard links to its cache, so they take no extra space.

    Raises FetchFailed with DVC's errors.
    """
    (workspace / ".dvc").mkdir(parents=True)
    settings = "".join(f"    {name} = {value}\n" for name, value in {**remote, "verify": "true"}.items())
    (workspace / ".dvc" / "config").write_text(
        "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n    remote = storage\n"
        f"[cache]\n    type = hardlink,copy\n['remote \"storage\"']\n{settings}"
    )
    outs = [{"md5": part.md5, "size": part.size, "hash": "md5", "path": part.md5} for part in parts]
    (workspace / "parts.dvc").write_text(json.dumps({"outs": outs}))
    command = [sys.executable, "-m", "dvc", "pull"]
    completed = subprocess.run(command, cwd=workspace, capture_output=True, text=True)
    if completed.returncode:
        errors = [line for line in completed.stderr.splitlines() if line.startswith("ERROR")]
        raise FetchFailed(f"node {socket.gethostname()}: `dvc pull` from {remote['url']}: {' '.join(errors)}")
