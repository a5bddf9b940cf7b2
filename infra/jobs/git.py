"""Git, called in a folder; a bundle of what a job runs: the commit that is checked out, and the changes since."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from llm4seg.utils.errors import InputError

SHOWN = 5  # names in a message
HEAD, SHIPPED = "refs/heads/head", "refs/heads/shipped"  # in the bundle


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


@dataclass(frozen=True)
class Snapshot:
    """Two commits: the one that is checked out, and the one whose files are sent; the same, if nothing was changed."""

    head: str
    shipped: str


def take_snapshot(folder: Path, include_changes: bool) -> Snapshot:
    """The commits to send. Raises InputError naming tracked files that differ from the commit, unless included."""
    head = git(folder, "rev-parse", "HEAD")
    changed = git_lines(folder, "diff", "--name-only", "HEAD")
    if not changed:
        return Snapshot(head, head)
    if not include_changes:
        raise InputError(
            f"{shortened(changed)}: changed since the last commit, and a job runs a commit: "
            "commit, or --include-changes"
        )
    with tempfile.TemporaryDirectory() as temporary:  # a commit on no branch; index and files stay untouched
        index = f"{temporary}/index"
        shutil.copy(git(folder, "rev-parse", "--path-format=absolute", "--git-path", "index"), index)
        git(folder, "add", "--update", ":/", GIT_INDEX_FILE=index)
        content = git(folder, "write-tree", GIT_INDEX_FILE=index)
    message = "Uncommitted changes, as a job was sent"
    return Snapshot(head, git(folder, "commit-tree", content, "-p", head, "-m", message))


def write_bundle(folder: Path, snapshot: Snapshot, bundle: Path) -> None:
    """Write a bundle of the two commits without their history: with it, it would be many times as large."""
    with tempfile.TemporaryDirectory() as temporary:
        store = Path(temporary)
        git(store, "init", "--quiet", "--bare", ".")
        refs = [f"{snapshot.head}:{HEAD}", f"{snapshot.shipped}:{SHIPPED}"]
        any_commit = "git -c uploadpack.allowAnySHA1InWant=true upload-pack"  # the second is on no branch
        git(store, "fetch", "--quiet", "--depth=1", f"--upload-pack={any_commit}", os.fspath(folder), *refs)
        git(store, "bundle", "create", "--quiet", os.fspath(bundle), HEAD, SHIPPED)
