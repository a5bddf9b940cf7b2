"""Installs the package's wheel with some extras into new environments: seconds, MB downloaded, MB on the disk.

Versions are those of requirements.lock. What pip has in its cache counts as downloaded, as it is on another machine.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.import_graph import ROOT
from tests.installed import build_wheel, clean_environment

MEGABYTES = {"kB": 1e-3, "MB": 1.0, "GB": 1e3, "bytes": 1e-6}


def measure(wheel: Path, extras: str, folder: Path) -> str:
    """A row of the table: the extras, packages, MB downloaded, MB on disk, seconds passed and of the processor."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip_alone = set(folder.rglob("*"))
    begin, before = time.monotonic(), os.times()
    target = f"{wheel}[{extras}]" if extras else str(wheel)
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--progress-bar=off", target]
    command += ["-c", str(ROOT / "requirements.lock")]
    shown = subprocess.run(command, env=clean_environment(), stdout=subprocess.PIPE, text=True, check=True).stdout
    seconds, after = time.monotonic() - begin, os.times()
    processor = after.children_user - before.children_user + after.children_system - before.children_system
    (installed,) = re.findall(r"^Successfully installed (.*)", shown, re.MULTILINE)
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink() and path not in pip_alone)
    disk = sum(path.stat().st_size for path in files) / 1e6
    row = (
        extras or "(none)",
        len(installed.split()),
        round(downloaded(shown)),
        round(disk),
        round(seconds),
        round(processor),
    )
    return "| " + " | ".join(map(str, row)) + " |"


def downloaded(shown: str) -> float:
    """The MB of all packages, by what pip says of each: a size, or a file on this machine."""
    sizes = re.findall(r"(?:Downloading|Using cached) \S+\.(?:whl|tar\.gz) \(([\d.]+) (\w+)\)", shown)
    files = re.findall(r"Processing (\S+\.(?:whl|tar\.gz))", shown)
    return (
        sum(float(size) * MEGABYTES[unit] for size, unit in sizes)
        + sum(Path(one).stat().st_size for one in files) / 1e6
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python -m tests.benchmarks.installing '' dvc all",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("extras", nargs="+", help="names with commas between them; '' for none")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        wheel = build_wheel(Path(name))
        print("| extras | packages | MB downloaded | MB on disk | s | s of the processor |\n|---|---|---|---|---|---|")
        for extras in arguments.extras:
            print(measure(wheel, extras, Path(name) / "venv"), flush=True)
            shutil.rmtree(Path(name) / "venv")


if __name__ == "__main__":
    main()
