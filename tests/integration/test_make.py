"""The Makefile, with this Python standing in for .venv: installing is tried by hand, see README."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import Project


def stand_in_venv(folder: Path) -> None:
    """A .venv of two scripts that counts as installed."""
    binaries = folder / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for name, module in (("python", ""), ("dvc", "-m dvc")):
        script = binaries / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        script.chmod(0o755)
    (folder / ".venv" / "installed-cpu").touch()


@pytest.fixture
def installed(project: Project) -> Project:
    stand_in_venv(project.folder)
    return project


def make(project: Project, *arguments: str) -> str:
    return project.run("make", "TORCH=cpu", *arguments)


def fails(project: Project, *arguments: str, **environment: str) -> str:
    """What `make` prints to its bad end, without make's own last line."""
    done = subprocess.run(
        [str(shutil.which("make")), *arguments],
        cwd=project.folder,
        env=project.environment | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    return done.stdout


def test_help_lists_the_targets(finished_project: Project) -> None:
    shown = make(finished_project)
    for target in ("repro", "test", "test-all", "test-slow", "lint", "lock", "clean"):
        assert f"make {target} " in shown


def test_a_second_repro_does_nothing_and_shows_the_summary(installed: Project) -> None:
    shown = make(installed, "repro")
    assert "Running stage" not in shown
    assert "Data and pipelines are up to date." in shown
    assert "Dice" in shown
    assert "outputs/report.html" in shown


def test_trouble_is_named_before_any_work(installed: Project) -> None:
    installed.change("training.epochs", 3)
    installed.change("cluster.device", "cuda")
    shown = installed.environment | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        ["make", "TORCH=cpu", "repro"], cwd=installed.folder, env=shown, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("doctor: cluster.device: cuda, but torch")
    assert "Running stage" not in done.stdout


def test_an_archive_works_without_git(installed: Project, tmp_path: Path) -> None:
    """As downloaded from a web page: no .git; then the user makes it a repository."""
    archive = Project(tmp_path / "an archive" / "project")
    shutil.copytree(installed.folder, archive.folder, ignore=shutil.ignore_patterns(".git", "__pycache__"))
    archive.change("report.title", "Without git")
    shown = make(archive, "repro")
    assert "not a git checkout" in shown
    assert shown.count("Running stage") == 1
    assert make(archive, "no-scm") == ""  # said once
    assert "Without git" in (archive.folder / "outputs" / "report.html").read_text()

    archive.git("init", "--quiet")
    make(archive, "no-scm")
    archive.commit("now a repository")
    assert "report.title" in archive.dvc("params", "diff", "--all", "HEAD")


def bare_machine(folder: Path, *programs: str) -> str:
    """A PATH with only these programs and what any Debian has."""
    folder.mkdir()
    for name in ("sh", "test", "grep", "echo", *programs):
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    return str(folder)


@pytest.fixture
def fresh(finished_project: Project, tmp_path: Path) -> Project:
    """Only what a Makefile needs: installing must fail before it begins."""
    folder = tmp_path / "fresh"
    folder.mkdir()
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(finished_project.folder / name, folder)
    return Project(folder)


def test_missing_tools_are_named_with_the_remedy(fresh: Project, tmp_path: Path) -> None:
    path = bare_machine(tmp_path / "without git")
    assert fails(fresh, "repro", PATH=path) == "git is missing: apt-get install git\n"
    path = bare_machine(tmp_path / "without python", "git")
    assert fails(fresh, "repro", PATH=path) == "Python is missing: apt-get install python3.11 python3.11-venv\n"


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ("exit 1", "is not Python 3.11, 3.12 or 3.13: apt-get install python3.11 python3.11-venv, or make PYTHON="),
        ('case "$2" in *ensurepip*) exit 1;; esac', "Python's venv module is missing: apt-get install python3.11-venv"),
    ],
)
def test_a_python_that_does_not_do(fresh: Project, tmp_path: Path, answers: str, told: str) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{answers}\n")
    python.chmod(0o755)
    shown = fails(fresh, "repro", f"PYTHON={python}")
    assert told in shown
    assert shown.count("\n") == 1
    assert not (fresh.folder / ".venv").exists()


def test_one_switch_chooses_the_torch_build(fresh: Project) -> None:
    def commands(build: str) -> str:
        return fresh.run("make", "--dry-run", "repro", f"TORCH={build}")

    assert "download.pytorch.org/whl/cpu" in commands("cpu")
    assert "download.pytorch.org" not in commands("cuda")
    assert all("-r requirements.lock" in commands(build) for build in ("cpu", "cuda"))
