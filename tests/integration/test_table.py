"""The table of an experiment of DVC, by its name: what it needs is copied out of the cache."""

import pytest

from llm4seg.utils.files import read_json
from tests.project import Project


@pytest.mark.slow
def test_an_experiment_is_read_by_its_name(finished_project: Project) -> None:
    printed = finished_project.run("python", "-m", "pipelines.table", "tiny=HEAD")
    dice = read_json(finished_project.folder / "outputs" / "metrics.json")["dice"]["mean"]
    assert f"| tiny (reference) | {100 * dice:.1f} |" in printed
    assert finished_project.git("status", "--porcelain") == ""


@pytest.mark.slow
def test_a_name_of_nothing_is_refused_in_one_line(finished_project: Project) -> None:
    command = "python -m pipelines.table nothing; test $? = 1"
    printed = finished_project.run("bash", "-c", f"({command}) 2>&1")
    (line,) = [line for line in printed.splitlines() if line]
    assert line.startswith("table: nothing: no such folder, and as an experiment of DVC: ")
    assert line.endswith("; allowed: a folder, or a name of `dvc exp show`")
