"""Ray on this machine: its token in HOME, and a folder of this user alone for its sockets and logs."""

import logging
import os
import secrets
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from llm4seg.utils.errors import InputError

log = logging.getLogger(__name__)

LAUNCHER = "cluster.launcher: ray (process needs none)"  # where Ray is not installed
SOCKET = 107  # bytes of a socket's path, at most
# bytes of a folder's path, at most: the longest names of sockets in it are Ray's dashboard's and multiprocessing's
LONGEST = {
    "RAY_TMPDIR": SOCKET - len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/dash_TaskEventsHead"),
    "TMPDIR": SOCKET - len("/pymp-12345678/listener-12345678"),
}
SHORT = ("/tmp", "/var/tmp")


def prepare_token(lacking: bool) -> None:
    """Make the file of Ray's token, ~/.ray/auth_token, its owner's alone.

    `lacking`: whether to make a token, which is in the environment, for this run, where HOME cannot be written.
    """
    try:
        path = Path("~/.ray/auth_token").expanduser()
        if lacking:
            _write_token(path)
        elif path.exists():
            path.chmod(0o600)
    except (OSError, RuntimeError):  # a full or read-only disk, another user's file; no HOME
        if lacking:
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _write_token(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), open(path, "x", opener=_private) as file:  # else it is another process's
        file.write(secrets.token_hex(32))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def use_private_folders() -> None:
    """Set the environment to `private_folders`, for this process and all that it starts; warns of one too long."""
    if folders := private_folders():
        line = ", ".join(f"{name}={folder}" for name, folder in folders.items())
        if _without_room():
            log.warning(f"Ray's sockets have no place in the folder for temporary files; used instead: {line}")
        os.environ |= folders
        tempfile.tempdir = None  # of TMPDIR before


def private_folders() -> dict[str, str]:
    """RAY_TMPDIR and TMPDIR, a short folder of this user's for each in whose present value sockets do not fit.

    Likewise RAY_TMPDIR where it would be a folder that all users write to, as /tmp: there, they would share Ray's own
    folder, which is the first one's. Raises InputError naming the variable where no folder can be made.
    """
    folders, replaced = _present(), _without_room()
    if not replaced and "RAY_TMPDIR" not in os.environ and _is_everyones(folders["RAY_TMPDIR"]):
        replaced = ["RAY_TMPDIR"]
    if not replaced:
        return {}
    for parent in SHORT:
        folder = Path(parent) / f"llm4seg-u{os.getuid()}"  # a job of Slurm has one with its number
        if _make_private(folder):
            return dict.fromkeys(replaced, str(folder))
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    raise InputError(
        f"{name}: found {folders[name]}, allowed: a folder that can be written, with a path of at most "
        f"{LONGEST['RAY_TMPDIR']} bytes, since the sockets of Ray in it have at most {SOCKET}; set RAY_TMPDIR to one"
    )


def _present() -> dict[str, str]:
    temporary = os.environ.get("TMPDIR", "/tmp")
    return {"RAY_TMPDIR": os.environ.get("RAY_TMPDIR", temporary), "TMPDIR": temporary}


def _without_room() -> list[str]:
    return [name for name, folder in _present().items() if not _fits(folder, LONGEST[name])]


def _is_everyones(folder: str) -> bool:
    """Whether any user may write to a folder; one that is not there yet will be this user's."""
    return Path(folder).is_dir() and bool(Path(folder).stat().st_mode & stat.S_IWOTH)


def _fits(folder: str, longest: int) -> bool:
    """Whether sockets fit in a folder, which is there or can be made."""
    path = Path(folder).absolute()
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    return len(os.fsencode(path)) <= longest and os.access(there, os.W_OK)


def _make_private(folder: Path) -> bool:
    """Make a folder for this user alone; returns whether it is. Another user may have put something in its place."""
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    return False
