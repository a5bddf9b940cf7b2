"""A git bundle of what a job runs: the commit that is checked out, or that and the changes to tracked files since."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from infra.jobs.git import git, git_lines
from llm4seg.utils.errors import InputError

SHOWN = 5  # names in a message
HEAD, SHIPPED = "refs/heads/head", "refs/heads/shipped"  # in the bundle


@dataclass(frozen=True)
class Snapshot:
    """Two commits: the one that is checked out, and the one whose files are sent; the same, if nothing was changed."""

    head: str
    shipped: str


def take_snapshot(folder: Path, include_changes: bool) -> Snapshot:
    """The commits to send. Raises InputError naming tracked files that differ from the commit, unless included."""
    head = git(folder, "rev-parse", "HEAD")
    changed = git_lines(folder, "diff", "--name-only", "HEAD")
    if changed and not include_changes:
        raise InputError(
            f"{shortened(changed)}: changed since the last commit, and a job runs a commit: "
            "commit, or --include-changes"
        )
    return Snapshot(head, _commit_changes(folder, head) if changed else head)


def shortened(names: list[str]) -> str:
    """The first of many names, for a message."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def untracked(folder: Path) -> list[str]:
    """Files that are neither in git nor ignored by it, which no job gets."""
    return git_lines(folder, "ls-files", "--others", "--exclude-standard")


def _commit_changes(folder: Path, head: str) -> str:
    """A commit of the tracked files as they are now, on no branch; index and files stay untouched."""
    with tempfile.TemporaryDirectory() as temporary:
        index = f"{temporary}/index"
        shutil.copy(git(folder, "rev-parse", "--path-format=absolute", "--git-path", "index"), index)
        git(folder, "add", "--update", ":/", GIT_INDEX_FILE=index)
        content = git(folder, "write-tree", GIT_INDEX_FILE=index)
    return git(folder, "commit-tree", content, "-p", head, "-m", "Uncommitted changes, as a job was sent")


def write_bundle(folder: Path, snapshot: Snapshot, bundle: Path) -> None:
    """Write a bundle of the two commits without their history: with it, it would be many times as large."""
    with tempfile.TemporaryDirectory() as temporary:
        store = Path(temporary)
        git(store, "init", "--quiet", "--bare", ".")
        refs = [f"{snapshot.head}:{HEAD}", f"{snapshot.shipped}:{SHIPPED}"]
        any_commit = "git -c uploadpack.allowAnySHA1InWant=true upload-pack"  # the second is on no branch
        git(store, "fetch", "--quiet", "--depth=1", f"--upload-pack={any_commit}", os.fspath(folder), *refs)
        git(store, "bundle", "create", "--quiet", os.fspath(bundle), HEAD, SHIPPED)
