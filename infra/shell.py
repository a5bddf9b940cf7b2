"""Other programs: each command is printed before it runs, or instead in a dry run."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence

from llm4seg.utils.errors import InputError


def call(command: Sequence[str], dry_run: bool = False, environment: Mapping[str, str] | None = None) -> None:
    """Run a program in this terminal. Raises InputError when it is not installed or fails."""
    print(f"$ {shlex.join(command)}", file=sys.stderr, flush=True)
    if dry_run:
        return
    if shutil.which(command[0]) is None:
        raise InputError(f"{command[0]} is not installed")
    if code := subprocess.run(command, env=environment).returncode:
        raise InputError(f"`{shlex.join(command)}` failed with exit code {code}")
