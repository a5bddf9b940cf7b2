"""Where a job begins on the head node: unpack the commit, go on with its code. Sent as a file, so: no imports."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path


def unpack(bundle: Path, folder: Path, head: str, shipped: str) -> None:
    """A checkout of `head` with the files of `shipped`, as if they had been changed there."""
    git = ["git", "-C", str(folder), "-c", "advice.detachedHead=false"]
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    (folder / ".git" / "shallow").write_text(f"{head}\n")  # the bundle has no history
    for command in (
        ["fetch", "--quiet", str(bundle), "refs/heads/head", "refs/heads/shipped"],
        ["checkout", "--quiet", "-B", "job", shipped],
        ["reset", "--quiet", head],
    ):
        subprocess.run([*git, *command], check=True)


def main() -> None:
    sent = Path.cwd()
    if shutil.which("git") is None:
        sys.exit("git is not installed on the head node: apt-get install git")
    order = json.loads((sent / "order.json").read_text())
    folder = Path.home() / ".cache" / "llm4seg" / "jobs" / order["job"]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(sent / "order.json", folder)
    unpack(sent / "tree.bundle", folder / "tree", order["head"], order["shipped"])
    os.chdir(folder / "tree")
    os.execv(sys.executable, [sys.executable, "-m", "infra.jobs.runner", str(folder)])


if __name__ == "__main__":
    main()
