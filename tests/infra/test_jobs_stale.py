"""What `submit` says will run, of a DVC repository whose stages have run here."""

import shutil
import subprocess
from pathlib import Path

import pytest

from infra.__main__ import main
from infra.jobs.git import git
from tests.import_graph import ROOT
from tests.project import Project

STAGES = """
stages:
  make:
    cmd: echo made > data
    params: [training.epochs]
    outs: [data]
  use:
    cmd: cat data > used
    params: [split.seed]
    deps: [data]
    outs: [used]
"""
ADDRESS = "http://127.0.0.1:9"  # of nobody: nothing is to be sent
REMOTE = "[core]\n    analytics = false\n    remote = s\n['remote \"s\"']\n    url = s3://my-lab/brain/dvc\n"


@pytest.fixture(scope="module")
def made_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Both stages have run, and are committed; the remote is not there."""
    project = Project(tmp_path_factory.mktemp("finished") / "project")
    project.folder.mkdir()
    project.git("init", "--quiet", "--initial-branch=main")
    project.dvc("init", "--quiet")
    (project.folder / ".dvc" / "config").write_text(REMOTE)
    (project.folder / "dvc.yaml").write_text(STAGES)
    shutil.copy(ROOT / "params.yaml", project.folder)
    project.dvc("repro")
    project.commit("finished")
    return project


@pytest.fixture
def project(made_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy, in which the test is; without DVC's cache, as on a laptop that has pulled nothing."""
    folder = tmp_path / "project"
    shutil.copytree(made_project.folder, folder, ignore=shutil.ignore_patterns("cache", "tmp"))
    monkeypatch.chdir(folder)
    for name, value in made_project.environment.items():
        monkeypatch.setenv(name, value)
    return Project(folder)


def submitted(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What `submit --dry-run` prints."""
    before, command = words[: words.index("--")], words[words.index("--") :]
    main(["submit", ADDRESS, "--dry-run", *before, *command])
    return capsys.readouterr().err


@pytest.mark.parametrize("command", ["repro", "repro use", "exp run", "exp run make"])
def test_a_job_that_would_do_nothing_is_not_sent(
    project: Project, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    with pytest.raises(SystemExit, match=rf"infra submit: `dvc {command}`: found no stale stage, so the job"):
        main(["submit", ADDRESS, "--", "dvc", *command.split()])
    shown = submitted(capsys, "--force", "--", "dvc", *command.split())
    assert "dvc push" in shown
    assert "stale" not in shown


@pytest.mark.parametrize(
    ("command", "stages"),
    [
        ("repro --force", "make, use"),
        ("repro --force --single-item use", "use"),
        ("exp run -S training.epochs=3", "make"),
        ("exp run --name x --set-param params.yaml:split.seed=7", "use"),
        ("exp run -S split.seed=7 -S training.epochs=3 use", "make, use"),
    ],
)
def test_stale_stages_are_named(
    project: Project, capsys: pytest.CaptureFixture[str], command: str, stages: str
) -> None:
    shown = submitted(capsys, "--", "dvc", *command.split())
    assert f"  stale: {stages}; stages after them run if their inputs change\n" in shown
    assert git(project.folder, "status", "--porcelain") == ""


def test_what_is_sent_counts_and_not_what_lies_here(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """An output that was changed here stays here; a parameter that was committed goes along."""
    (project.folder / "data").write_text("other\n")
    with pytest.raises(SystemExit, match="found no stale stage"):
        main(["submit", ADDRESS, "--", "dvc", "repro"])
    project.change("split.seed", 7)
    project.commit("another seed")
    assert "  stale: use;" in submitted(capsys, "--", "dvc", "repro")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("exp run -S training.epoch=3", "DVC: Invalid `--set-param` value"),
        ("exp run -S training.epochs=-3", "params.yaml: training.epochs: found -3; "),
        ("repro nothing", "DVC: .*'nothing'"),
        ("repro --nothing", "`dvc repro --nothing`: DVC does not take these words"),
    ],
)
def test_what_dvc_refuses_is_refused_here(project: Project, command: str, message: str) -> None:
    with pytest.raises(SystemExit, match=f"^infra submit: {message}") as raised:
        main(["submit", ADDRESS, "--", "dvc", *command.split()])
    assert "\n" not in str(raised.value)


def test_dvc_says_the_same_once_it_runs(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """The stage that was named runs; the one after it, whose input came out the same, does not."""
    assert "  stale: make;" in submitted(capsys, "--", "dvc", "exp", "run", "-S", "training.epochs=3")
    subprocess.run(["git", "clone", "--quiet", project.folder, "there"], cwd=project.folder.parent, check=True)
    there = Project(project.folder.parent / "there")
    there.change("training.epochs", 3)
    shown = there.dvc("repro", "--allow-missing")
    assert "Running stage 'make'" in shown
    assert "Running stage 'use'" not in shown
