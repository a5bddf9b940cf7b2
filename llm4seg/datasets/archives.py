"""Archives as downloaded: unpacked once into the cache, where nothing in them can write beside its folder."""

import logging
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from llm4seg.utils.errors import InputError
from llm4seg.utils.files import replacing, sha256_file

log = logging.getLogger(__name__)

# Python's own check of a member, beside `_check`; absent before 3.11.4
FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
FOREIGN = (".rar", ".7z", ".bz2", ".xz", ".zst")  # of archives that Python cannot unpack, or that are not read here
# of truncated or damaged files; RuntimeError: a password, NotImplementedError: a compression that Python has not
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, RuntimeError)


def is_archive(path: Path) -> bool:
    """Whether a file has an ending of ENDINGS."""
    return path.is_file() and path.name.lower().endswith(ENDINGS)


def root_folder(root: Path, cache: Path) -> Path:
    """The folder `data.root`; of an archive what it unpacks to, or the folder that is all it holds.

    Raises InputError for any other file.
    """
    if not root.is_file():
        return root
    folder = unpacked(root, cache)
    inside = [path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "__MACOSX"]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def unpacked(archive: Path, cache: Path) -> Path:
    """The folder of an archive's files in the cache, by the archive's sha256 and name: later calls do not unpack it.

    Raises InputError naming the archive where it is of another kind or truncated, or holds links or paths that leave
    its folder.
    """
    if not is_archive(archive):
        more = "; unpack it first" if archive.suffix.lower() in FOREIGN else ""
        raise InputError(
            f"{archive}: found a file, allowed for data.root: a folder, or an archive ({', '.join(ENDINGS)}){more}"
        )
    state = archive.stat()
    target = cache / "archives" / _digest(archive, state.st_size, state.st_mtime_ns) / _stem(archive)
    if target.is_dir():
        log.debug("%s: unpacked before, in %s", archive, target)
        return target
    with replacing(target) as folder:
        folder.mkdir()
        try:
            if archive.name.lower().endswith(".zip"):
                _unzip(archive, folder)
            else:
                _untar(archive, folder)
        except _BROKEN as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{archive}: cannot be unpacked: {reason}; download it again") from None
    log.debug("%s, %.1f MB: unpacked to %s", archive, state.st_size / 1e6, target)
    return target


def _stem(archive: Path) -> str:
    """The name without its ending, of ENDINGS or any other."""
    known = next((end for end in ENDINGS if archive.name.lower().endswith(end)), archive.suffix)
    return archive.name[: len(archive.name) - len(known)]


@contextmanager
def naming_archives(root: Path, cache: Path) -> Iterator[None]:
    """Errors name files of archives by their place in `data.root`, not by that in the cache."""
    try:
        yield
    except InputError as error:
        place = rf"{re.escape(str(cache / 'archives'))}/[0-9a-f]{{64}}"
        if root.is_file():
            place += f"/{re.escape(_stem(root))}"
        raise InputError(re.sub(place, lambda _: str(root), str(error))) from error


@lru_cache
def _digest(archive: Path, size: int, changed: int) -> str:
    """The sha256 of a file in this state, read once a process: archives have many GB."""
    return sha256_file(archive)


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            _check(archive, member.filename, stat.S_ISLNK(member.external_attr >> 16))
        file.extractall(folder)


def _untar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as file:
        for member in file:
            _check(archive, member.name, not (member.isfile() or member.isdir()))
            file.extract(member, folder, **FILTER)


def _check(archive: Path, name: str, special: bool) -> None:
    """Refuse what no archive of data holds: links, devices, and paths that lead out of the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if special or path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        what = "a link or device" if special else "a path that leaves its folder"
        raise InputError(f"{archive}: found {name!r}, {what}, allowed: files and folders below it")
