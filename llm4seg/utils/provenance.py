"""Where a result came from: library versions, the code and the git commit."""

import hashlib
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
# The rooms that decide a training, a measurement, and an analysis of features (the last also in runs of a study with
# study.analyze): dvc.yaml lists them, names of runs hash them.
# Not among them: utils and config, whose values are parameters, cluster, which says only where a run happens, and
# tracking, which says who is told of it.
TRAINING = ("data", "inference", "llm", "models", "objectives", "runtime", "training")
MEASURING = ("data", "evaluation", "inference", "llm", "models", "objectives", "runtime")
ANALYZING = ("analysis", "data", "evaluation", "llm", "models", "objectives", "runtime")
LIBRARIES = ("torch", "transformers", "deepspeed", "ray", "monai", "numpy")


def versions() -> dict[str, str]:
    """The installed versions of the libraries that decide a result, and of this package; "none": not installed."""
    return {name: _version(name) for name in (*LIBRARIES, "llm4seg")}


def _version(name: str) -> str:
    """The installed version of a library; "none" without the extra that brings it (ray, deepspeed)."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


@cache
def code_digest(*rooms: str) -> str:
    """The sha256 of the code in some rooms, and of the versions of the libraries that decide a result."""
    digest = hashlib.sha256(str({name: _version(name) for name in LIBRARIES}).encode())
    for room in sorted(set(rooms)):
        for file in sorted((PACKAGE / room).rglob("*.py")):
            digest.update(f"{file.relative_to(PACKAGE)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def git_commit(folder: Path) -> str:
    """The commit of the checkout that holds `folder`, `-dirty` when files differ from it; "none" outside of git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError):  # no git, or no checkout: an archive was unpacked
        return "none"
