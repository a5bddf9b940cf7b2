"""Own images that neither DVC nor git knows: the temporary workspaces of `dvc exp run` do not have them."""

import os
import subprocess
from pathlib import Path


def versioning_hint(folder: Path) -> str | None:
    """The advice to version own images of this workspace, where neither DVC nor git does; None outside of git."""
    parts = [folder / name for name in ("images", "masks") if (folder / name).is_dir()]
    parts = [part for part in parts if part.is_relative_to(Path.cwd())]
    unknown = [part for part in parts if not _in_dvc(part) and _in_git(part) is False]
    if not unknown:
        return None
    names = " ".join(os.path.relpath(part) for part in unknown)
    return f"{names}: in no commit, so `dvc exp run --temp` and `--queue` do not see them: dvc add {names}, and commit"


def _in_dvc(path: Path) -> bool:
    """Whether `dvc add` was called for a folder of this workspace or one above it."""
    inside = path.relative_to(Path.cwd())
    return any(Path(f"{one}.dvc").exists() for one in (inside, *inside.parents[:-1]))


def _in_git(path: Path) -> bool | None:
    """Whether git has files of a folder; None where there is no git repository, or no git."""
    try:
        listed = subprocess.run(["git", "ls-files", "."], cwd=path, capture_output=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return bool(listed.stdout)
