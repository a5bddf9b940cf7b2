"""The package as users install it: its wheel, in an environment that has what pip would install with it and no more.

No package is downloaded: the environment links to those of this Python, found by following the wheel's requirements.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from email.parser import Parser
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.import_graph import ROOT

SOURCES = ["llm4seg", "pipelines", "pyproject.toml", "README.md", "LICENSE", "params.yaml", "dvc.yaml"]
SOURCES += ["data/raw/README.md"]
IGNORED = shutil.ignore_patterns("__pycache__")


def build_wheel(folder: Path) -> Path:
    """Build the wheel from a copy of the sources, since building leaves files beside them."""
    sources = folder / "sources"
    for name in SOURCES:
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, sources / name, symlinks=True, ignore=IGNORED)
        else:
            shutil.copy2(ROOT / name, sources / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(sources)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path, *extras: str) -> Path:
    """Make an environment with the wheel and what it requires with these extras; returns its folder of programs."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    for one in required(wheel, extras):
        for entry in {file.parts[0] for file in one.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / entry).exists():
                (site / entry).symlink_to(str(one.locate_file(entry)))
        for script in {file.name for file in one.files or () if file.parts[-2:-1] == ("bin",)}:
            if script == "dvc":
                (folder / "bin" / script).write_text(f'#!/bin/sh\nexec "{python}" -m dvc "$@"\n')
                (folder / "bin" / script).chmod(0o755)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--ignore-installed", str(wheel)], cwd=folder, env=clean_environment(), check=True)
    return folder / "bin"


def clean_environment() -> dict[str, str]:
    """The environment without the repository on Python's path."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def required(wheel: Path, extras: Iterable[str]) -> list[Distribution]:
    """The distributions of this Python that pip would install with the wheel, by following all requirements."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    todo = [(line, frozenset(extras)) for line in metadata.get_all("Requires-Dist", [])]
    found: dict[tuple[str, frozenset[str]], Distribution] = {}
    while todo:
        line, wanted = todo.pop()
        requirement = Requirement(line)
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in {"", *wanted}):
            continue
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key not in found and key[0] != "llm4seg":
            found[key] = distribution(requirement.name)
            todo += [(further, key[1]) for further in found[key].requires or ()]
    return list(found.values())
