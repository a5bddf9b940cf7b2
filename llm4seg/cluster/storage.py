"""Where the checkpoints of runs are: a local folder or a bucket, and retries while it refuses. Without Ray."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import psutil
import pyarrow
import pyarrow.fs
import tenacity

from llm4seg.utils.errors import InputError

PREFIX = "llm4seg-checkpoint-"  # of temporary folders; the process that made one follows
CHUNK = 64 * 2**20  # bytes of an upload at a time
NAME = "checkpoint_%Y-%m-%d_%H-%M-%S.%f"  # of a checkpoint, as Ray Train spells it, so that names sort by time


def retrying(seconds: float) -> tenacity.Retrying:
    """Try again for so many seconds what a storage refuses."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(OSError),
        wait=tenacity.wait_exponential(multiplier=0.5, max=15),
        stop=tenacity.stop_after_delay(seconds),
        reraise=True,
    )


def file_system(address: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """What is at `cluster.storage`, or at a local folder: a file system, and a path in it."""
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
        """The names of all checkpoints, the newest first; the last upload may have been cut short."""
        found = self._files.get_file_info(pyarrow.fs.FileSelector(self._path, allow_not_found=True))
        folders = (one.base_name for one in found if one.type == pyarrow.fs.FileType.Directory)
        return sorted((name for name in folders if name.startswith("checkpoint_")), reverse=True)

    def neighbors(self) -> list[str]:
        """The names of this folder and of all beside it whose names begin alike."""
        parent, _, mine = self._path.rpartition("/")
        found = self._files.get_file_info(pyarrow.fs.FileSelector(parent, allow_not_found=True))
        return [one.base_name for one in found if one.base_name.startswith(mine)]

    def files(self) -> list[str]:
        """The names of the files in it."""
        found = self._files.get_file_info(pyarrow.fs.FileSelector(self._path, allow_not_found=True))
        return [one.base_name for one in found if one.type == pyarrow.fs.FileType.File]

    def read(self, name: str) -> bytes:
        with self._files.open_input_stream(f"{self._path}/{name}") as file:
            return bytes(file.read())

    def delete_file(self, name: str) -> None:
        self._files.delete_file(f"{self._path}/{name}")

    def delete_if_there(self, name: str) -> None:
        if name in self.files():
            self.delete_file(name)

    def upload(self, checkpoint: Path, name: str) -> None:
        """Copy a local checkpoint here. Raises OSError when the storage refuses, maybe after some of the files."""
        target, in_bucket = f"{self._path}/{name}", isinstance(self._files, pyarrow.fs.S3FileSystem)
        self._files.create_dir(target)
        # several threads that upload to S3 may wait for each other forever: github.com/apache/arrow/issues/32372
        pyarrow.fs.copy_files(
            str(checkpoint), target, destination_filesystem=self._files, chunk_size=CHUNK, use_threads=not in_bucket
        )

    def delete_checkpoint(self, name: str) -> None:
        self._files.delete_dir(f"{self._path}/{name}")

    @contextmanager
    def open(self, name: str, patience: float) -> Iterator[Path]:
        """A local folder with a checkpoint's files."""
        if isinstance(self._files, pyarrow.fs.LocalFileSystem):
            yield Path(self._path) / name
            return
        with temporary_folder() as folder:
            source = f"{self._path}/{name}"
            retrying(patience)(pyarrow.fs.copy_files, source, str(folder), source_filesystem=self._files)
            yield folder

    def forget(self) -> None:
        """Delete the run."""
        if self._files.get_file_info(self._path).type != pyarrow.fs.FileType.NotFound:
            self._files.delete_dir(self._path)


class Uploads:
    """A run's uploads: each is tried again for a while, and then all but the newest checkpoints are deleted."""

    def __init__(self, folder: RunFolder, keep: int, patience: float) -> None:
        self._folder, self._keep, self._patience = folder, keep, patience
        self.names: list[str] = []

    def upload(self, checkpoint: Path, name: str) -> None:
        retrying(self._patience)(self._folder.upload, checkpoint, name)
        self.names.append(name)
        retrying(self._patience)(self._prune)

    def _prune(self) -> None:
        """Delete all checkpoints but the newest ones, once enough of them are known to be whole."""
        if len(self.names) >= self._keep:
            for name in set(self._folder.checkpoints()) - set(self.names[-self._keep :]):
                self._folder.delete_checkpoint(name)


def new_checkpoint_name() -> str:
    return datetime.now().strftime(NAME)


def write_checkpoint(save: Callable[[Path], None]) -> Path:
    """A checkpoint in a new temporary folder, which is gone again if `save` raises."""
    folder = make_temporary_folder()
    try:
        save(folder)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return folder


def make_temporary_folder() -> Path:
    """A new temporary folder that `sweep` finds once this process is gone."""
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{psutil.Process().pid}-"))


@contextmanager
def temporary_folder() -> Iterator[Path]:
    folder = make_temporary_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def sweep() -> None:
    """Delete what killed processes have left in this machine's temporary folder."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        pid = folder.name.removeprefix(PREFIX).split("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)  # another worker may be at it
