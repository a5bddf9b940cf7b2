"""Checkpoint storage: a local folder or a bucket, with retries of failed requests. Without Ray."""

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import psutil
import pyarrow
import pyarrow.fs
import tenacity

from llm4seg.utils.errors import InputError

log = logging.getLogger(__name__)

PREFIX = "llm4seg-checkpoint-"  # of temporary folders; followed by the id of the process that made the folder
CHUNK = 64 * 2**20  # bytes of an upload at a time
NAME = "checkpoint_%Y-%m-%d_%H-%M-%S.%f"  # of a checkpoint, in Ray Train's format, so that names sort by time


def retrying(timeout: float) -> tenacity.Retrying:
    """A caller that retries a function on OSError for `timeout` seconds, then raises the error."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(OSError),
        wait=tenacity.wait_exponential(multiplier=0.5, max=15),
        stop=tenacity.stop_after_delay(timeout),
        reraise=True,
    )


def file_system(address: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The file system of an address (`cluster.storage` or a local folder) and the path in it. Raises InputError."""
    try:
        files, path = pyarrow.fs.FileSystem.from_uri(address)
    except (pyarrow.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"cluster.storage: found {address!r}, allowed: an absolute path or s3://bucket/prefix ({reason})"
        ) from None
    return files, path


class RunFolder:
    """The folder of one run in the storage, with a sub-folder for each checkpoint, named by its time."""

    def __init__(self, files: pyarrow.fs.FileSystem, path: str) -> None:
        self._files, self._path = files, path

    @classmethod
    def at(cls, address: str, name: str) -> "RunFolder":
        """The folder of a run by its name at `cluster.storage`."""
        files, path = file_system(address)
        return cls(files, f"{path}/{name}")

    def checkpoints(self) -> list[str]:
        """The names of all checkpoints, the newest first; the newest may be incomplete after a kill."""
        found = self._files.get_file_info(pyarrow.fs.FileSelector(self._path, allow_not_found=True))
        folders = (info.base_name for info in found if info.type == pyarrow.fs.FileType.Directory)
        return sorted((name for name in folders if name.startswith("checkpoint_")), reverse=True)

    def neighbors(self) -> list[str]:
        """The names of all folders beside this folder, and its own, that begin with its name."""
        parent, _, own_name = self._path.rpartition("/")
        found = self._files.get_file_info(pyarrow.fs.FileSelector(parent, allow_not_found=True))
        return [info.base_name for info in found if info.base_name.startswith(own_name)]

    def files(self) -> list[str]:
        """The names of the files in the folder."""
        found = self._files.get_file_info(pyarrow.fs.FileSelector(self._path, allow_not_found=True))
        return [info.base_name for info in found if info.type == pyarrow.fs.FileType.File]

    def read(self, name: str) -> bytes:
        with self._files.open_input_stream(f"{self._path}/{name}") as file:
            return bytes(file.read())

    def delete_file(self, name: str) -> None:
        self._files.delete_file(f"{self._path}/{name}")

    def delete_if_there(self, name: str) -> None:
        if name in self.files():
            self.delete_file(name)

    def upload(self, checkpoint: Path, name: str) -> None:
        """Upload a local checkpoint. Raises OSError when the storage fails, maybe after some of the files."""
        target, in_bucket = f"{self._path}/{name}", isinstance(self._files, pyarrow.fs.S3FileSystem)
        self._files.create_dir(target)
        # several threads that upload to S3 may wait for each other forever: github.com/apache/arrow/issues/32372
        pyarrow.fs.copy_files(
            str(checkpoint), target, destination_filesystem=self._files, chunk_size=CHUNK, use_threads=not in_bucket
        )

    def delete_checkpoint(self, name: str) -> None:
        self._files.delete_dir(f"{self._path}/{name}")

    @contextmanager
    def open(self, name: str, timeout: float) -> Iterator[Path]:
        """A local folder with a checkpoint's files; a download is retried for `timeout` seconds."""
        log.debug("reads %s/%s", self._path, name)
        if isinstance(self._files, pyarrow.fs.LocalFileSystem):
            yield Path(self._path) / name
            return
        with temporary_folder() as folder:
            source = f"{self._path}/{name}"
            retrying(timeout)(pyarrow.fs.copy_files, source, str(folder), source_filesystem=self._files)
            yield folder

    def forget(self) -> None:
        """Delete the run."""
        if self._files.get_file_info(self._path).type != pyarrow.fs.FileType.NotFound:
            self._files.delete_dir(self._path)


class Uploads:
    """The uploads of a run: each is retried for `timeout` seconds, then keeps only the newest `keep` checkpoints."""

    def __init__(self, folder: RunFolder, keep: int, timeout: float) -> None:
        self._folder, self._keep, self._timeout = folder, keep, timeout
        self.names: list[str] = []

    def upload(self, checkpoint: Path, name: str) -> None:
        start = time.monotonic()
        retrying(self._timeout)(self._folder.upload, checkpoint, name)
        log.debug("%s is in the storage after %.1f s", name, time.monotonic() - start)
        self.names.append(name)
        retrying(self._timeout)(self._prune)

    def _prune(self) -> None:
        """Delete all but the newest checkpoints, once `keep` uploads of this process are complete."""
        if len(self.names) >= self._keep:
            for name in set(self._folder.checkpoints()) - set(self.names[-self._keep :]):
                self._folder.delete_checkpoint(name)


def new_checkpoint_name() -> str:
    return datetime.now().strftime(NAME)


def write_checkpoint(save: Callable[[Path], None]) -> Path:
    """A checkpoint in a new temporary folder, which is deleted if `save` raises."""
    folder = make_temporary_folder()
    try:
        save(folder)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return folder


def make_temporary_folder() -> Path:
    """A new temporary folder, which `sweep` deletes once this process has ended."""
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{psutil.Process().pid}-"))


@contextmanager
def temporary_folder() -> Iterator[Path]:
    folder = make_temporary_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def sweep() -> None:
    """Delete the temporary folders of killed processes on this machine."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        pid = folder.name.removeprefix(PREFIX).split("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)  # another worker may delete it at the same time
