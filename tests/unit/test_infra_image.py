"""The node image's recipe: clean to a linter, the same versions as everywhere, nothing secret, not root."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.code_map import ROOT

RECIPE = ROOT / "infra" / "Dockerfile"
TEXT = RECIPE.read_text(encoding="utf-8")


def hadolint(file: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([Path(sys.executable).parent / "hadolint", file], capture_output=True, text=True)


def test_a_linter_finds_nothing(tmp_path: Path) -> None:
    assert hadolint(RECIPE).stdout == ""
    worse = tmp_path / "Dockerfile"
    worse.write_text(TEXT.replace("git=1:2.39.* wget=1.21.*", "git wget"))
    assert "DL3008" in hadolint(worse).stdout


def test_its_python_is_one_that_the_project_takes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (version,) = re.findall(r"^ARG BASE=python:(\d+\.\d+)\.", TEXT, flags=re.MULTILINE)
    assert project["requires-python"] == ">=3.11,<3.13"
    assert version in ("3.11", "3.12")


def test_what_it_copies_is_there_and_not_ignored() -> None:
    copied = [
        word for line in re.findall(r"^COPY (?!--from)(.+)$", TEXT, flags=re.MULTILINE) for word in line.split()[:-1]
    ]
    assert copied == ["pyproject.toml", "requirements.lock", "infra/end_idle.py"]
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for name in copied:
        assert (ROOT / name).is_file()
        assert f"!{name}" in allowed


def test_it_installs_the_lock_and_runs_as_nobody_special() -> None:
    assert "-c requirements.lock" in TEXT
    assert re.findall(r"^USER (.+)$", TEXT, flags=re.MULTILINE) == ["1000:1000"]
    assert not re.search(r"(?i)(secret|password|access_key|auth_token)", TEXT)
