"""The entrypoint of a job on the head node: check out the commit, run its code. Sent as a file: no imports."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path


def unpack(bundle: Path, folder: Path, commit: str) -> None:
    """A checkout of the commit in a bundle."""
    git = ["git", "-C", str(folder), "-c", "advice.detachedHead=false"]
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    (folder / ".git" / "shallow").write_text(f"{commit}\n")  # the bundle has no history
    for command in (["fetch", "--quiet", str(bundle), "refs/heads/job"], ["checkout", "--quiet", "-B", "job", commit]):
        subprocess.run([*git, *command], check=True)


def main() -> None:
    sent = Path.cwd()
    if shutil.which("git") is None:
        sys.exit("git is not installed on the head node: apt-get install git")
    spec = json.loads((sent / "job_spec.json").read_text())
    folder = Path.home() / ".cache" / "llm4seg" / "jobs" / spec["job"]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(sent / "job_spec.json", folder)
    unpack(sent / "snapshot.bundle", folder / "checkout", spec["head"])
    os.chdir(folder / "checkout")
    os.execv(sys.executable, [sys.executable, "-m", "infra.jobs.runner", str(folder)])


if __name__ == "__main__":
    main()
