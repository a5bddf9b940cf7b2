"""Where a result came from: library versions, the code and the git commit."""

import hashlib
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
AFTERWARDS = (
    "report",
    "study",
    "cluster/search",
    "cluster/study.py",
    "cluster/progress.py",
)  # of no training
LIBRARIES = ("torch", "transformers", "deepspeed", "ray", "monai", "numpy", "llm4seg")


def versions() -> dict[str, str]:
    """The installed versions of the libraries that decide a result."""
    return {name: version(name) for name in LIBRARIES}


@cache
def code_digest() -> str:
    """The sha256 of the code by which a training and its measures are computed, and of its libraries' versions."""
    digest = hashlib.sha256(str(versions()).encode())
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE)
        if not any(name.is_relative_to(other) for other in AFTERWARDS):
            digest.update(f"{name}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def git_commit(folder: Path) -> str:
    """The commit of the checkout that holds `folder`, `-dirty` when files differ from it; "none" outside of git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError):  # no git, or no checkout: an archive was unpacked
        return "none"
