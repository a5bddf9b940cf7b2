"""Git, called in a folder; a bundle of what a job runs: the commit that is checked out."""

import os
import subprocess
import tempfile
from pathlib import Path

from llm4seg.utils.errors import InputError

SHOWN = 5  # names in a message
SENT = "refs/heads/job"  # in the bundle


def git_bytes(folder: Path, *words: str, **environment: str) -> bytes:
    """What git prints. Raises InputError with its last line when it fails."""
    command = ["git", "-c", "core.quotePath=false", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, env=os.environ | environment)
    if done.returncode:
        *_, last = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise InputError(f"{folder}: `git {words[0]}`: {last}")
    return done.stdout


def git(folder: Path, *words: str, **environment: str) -> str:
    return git_bytes(folder, *words, **environment).decode().rstrip("\n")


def git_lines(folder: Path, *words: str, **environment: str) -> list[str]:
    return git(folder, *words, **environment).splitlines()


def shortened(names: list[str]) -> str:
    """The first of many names, for a message."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def commit_to_send(folder: Path) -> str:
    """The commit that is checked out. Raises InputError naming tracked files that differ from it."""
    if changed := git_lines(folder, "diff", "--name-only", "HEAD"):
        raise InputError(f"{shortened(changed)}: changed since the last commit, and a job runs a commit: commit first")
    return git(folder, "rev-parse", "HEAD")


def write_bundle(folder: Path, commit: str, bundle: Path) -> None:
    """Write a bundle of a commit without its history: with it, it would be many times as large."""
    with tempfile.TemporaryDirectory() as temporary:
        store = Path(temporary)
        git(store, "init", "--quiet", "--bare", ".")
        git(store, "fetch", "--quiet", "--depth=1", f"file://{folder.absolute()}", f"{commit}:{SENT}")
        git(store, "bundle", "create", "--quiet", os.fspath(bundle), SENT)
