"""Own images that neither DVC nor git knows: the temporary workspaces of `dvc exp run` do not have them."""

import os
import subprocess
from pathlib import Path

NONE_OF_DATA = {".gitignore", "README.md"}  # of data/raw


def versioning_hint(root: Path) -> str | None:
    """The advice to version own images of this workspace, where neither DVC nor git does; None outside of git.

    `root`: a folder or an archive. Where git has files of the folder, as of data/raw, what lies in it is added by name.
    """
    if not root.exists() or not root.is_relative_to(Path.cwd()) or _in_dvc(root) or (known := _in_git(root)) is None:
        return None
    if root.is_dir() and known:
        children = (path for path in sorted(root.iterdir()) if path.name not in NONE_OF_DATA and path.suffix != ".dvc")
        unknown = [path for path in children if not _in_dvc(path) and not _in_git(path)]
    else:
        unknown = [] if known else [root]
    if not unknown:
        return None
    names = " ".join(os.path.relpath(part) for part in unknown)
    return f"{names}: in no commit, so `dvc exp run --temp` and `--queue` do not see them: dvc add {names}, and commit"


def _in_dvc(path: Path) -> bool:
    """Whether `dvc add` was called for a file or folder of this workspace, or for a folder above it."""
    inside = path.relative_to(Path.cwd())
    return any(Path(f"{one}.dvc").exists() for one in (inside, *inside.parents[:-1]))


def _in_git(path: Path) -> bool | None:
    """Whether git has a file, or files of a folder; None where there is no git repository, or no git."""
    try:
        listed = subprocess.run(["git", "ls-files", path.name], cwd=path.parent, capture_output=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return bool(listed.stdout)
