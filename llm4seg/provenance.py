"""Where a result came from: library versions and the git commit."""

import subprocess
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("torch", "transformers", "deepspeed", "ray", "monai", "numpy", "llm4seg")


def versions() -> dict[str, str]:
    """The installed versions of the libraries that decide a result."""
    return {name: version(name) for name in LIBRARIES}


def git_commit(folder: Path) -> str:
    """The commit of the checkout that holds `folder`, `-dirty` when files differ from it; "none" outside of git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError):  # no git, or no checkout: an archive was unpacked
        return "none"
