"""Ctrl-C in the middle of a stage: the last good outputs stay, no process stays, and the next run goes on."""

import os
import re
import signal
import subprocess
import sys
import time
import uuid

import psutil
import pytest

from tests.project import Project

MARK = "LLM4SEG_TEST_MARK"


def marked(mark: str) -> list[str]:
    """The processes that carry our mark in their environment: all that the test started, however they detached."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


def wait_until_none(mark: str) -> list[str]:
    for _ in range(300):
        if not (left := marked(mark)):
            break
        time.sleep(0.2)
    return left


def read_until(process: "subprocess.Popen[str]", text: str) -> str:
    assert process.stdout is not None
    shown = ""
    for line in process.stdout:
        shown += line
        if text in line:
            return shown
    pytest.fail(f"ended before {text!r}:\n{shown}")


def files(project: Project) -> dict[str, bytes]:
    outputs = project.folder / "outputs"
    return {str(file.relative_to(outputs)): file.read_bytes() for file in outputs.rglob("*") if file.is_file()}


def interrupt(project: Project, stage: str, when: str) -> None:
    """Run a stage and stop it as Ctrl-C does, once it has printed `when`. Nothing may be harmed."""
    before, mark = files(project), str(uuid.uuid4())
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", stage],
        cwd=project.folder,
        env=project.environment | {MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    read_until(process, when)
    assert any("raylet" in command for command in marked(mark))
    os.killpg(process.pid, signal.SIGINT)  # every process of the job hears it
    shown, _ = process.communicate(timeout=120)
    assert process.returncode != 0, shown
    assert f"{stage}: interrupted; the last good outputs are untouched" in shown
    assert "Traceback" not in shown
    assert wait_until_none(mark) == []
    assert files(project) == before
    assert stage in project.stale()


def test_an_interrupted_training_is_gone_on_with(project: Project) -> None:
    """On Ray, with all its processes; to go on, none is needed."""
    project.change("training.epochs", 12)
    project.change("cluster.launcher", "ray")
    interrupt(project, "train", when="epoch  2/12")
    project.change("cluster.launcher", "process")
    shown = project.dvc("repro", "train")
    first = re.search(r"epoch +(\d+)/12", shown)
    assert first is not None, shown
    assert int(first[1]) > 1, "trained from the start again"
    assert (project.folder / "outputs" / "history.csv").read_text().count("\n") == 13
    assert not list(project.folder.glob(".runs/train-*"))


def test_an_interrupted_search_does_not_pass_for_a_finished_one(project: Project) -> None:
    project.change("search.space", {"optimizer.lr": [0.001, 0.01]})
    project.change("search.trials", 2)
    project.change("cluster.launcher", "ray")
    interrupt(project, "search", when="search: 1/2")
