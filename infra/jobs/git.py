"""Git, called in a folder."""

import os
import subprocess
from pathlib import Path

from llm4seg.utils.errors import InputError


def git_bytes(folder: Path, *words: str, **environment: str) -> bytes:
    """What git prints. Raises InputError with what it says when it fails."""
    command = ["git", "-c", "core.quotePath=false", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, env=os.environ | environment)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise InputError(f"{folder}: `git {words[0]}`: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout


def git(folder: Path, *words: str, **environment: str) -> str:
    return git_bytes(folder, *words, **environment).decode().rstrip("\n")


def git_lines(folder: Path, *words: str, **environment: str) -> list[str]:
    return git(folder, *words, **environment).splitlines()
