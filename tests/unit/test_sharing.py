"""How tests are shared out over processes: files that share something costly stay together."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.import_graph import ROOT
from tests.sharing import GROUP_OF

CONFTEST = """
from tests.sharing import *
GROUP_OF |= {"unit/test_0.py": "ray", "unit/test_1.py": "ray"}
"""
WHERE = """
import os, pathlib, time
def test_where():
    time.sleep(0.5)
    pathlib.Path(__file__ + ".txt").write_text(os.environ["PYTEST_XDIST_WORKER"])
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A folder of tests with this project's hooks, and two files in a group."""
    (tmp_path / "unit").mkdir()
    (tmp_path / "conftest.py").write_text(CONFTEST)
    return tmp_path


def run(suite: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pytest", "--rootdir", str(suite), *options, str(suite)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_groups_name_files_that_exist() -> None:
    assert [file for file in GROUP_OF if not (ROOT / file).is_file()] == []


def test_files_of_a_group_run_in_one_process(suite: Path) -> None:
    for number in range(4):
        (suite / "unit" / f"test_{number}.py").write_text(WHERE)
    done = run(suite, "-n", "2")
    assert done.returncode == 0, done.stdout
    where = [(suite / "unit" / f"test_{number}.py.txt").read_text() for number in range(4)]
    assert where[0] == where[1]
    assert len(set(where)) == 2
    assert "in all" in done.stdout  # the seconds of tests by folder


def test_a_file_outside_the_groups_may_not_use_what_they_share(suite: Path) -> None:
    (suite / "unit" / "test_new.py").write_text("def test_new(finished_project): ...\n")
    done = run(suite)
    assert done.returncode == 4
    assert "uses finished_project: its file belongs to a group in tests/sharing.py" in done.stderr
