"""One finished run of the whole pipeline, shared by all tests that need one."""

from pathlib import Path

import pytest

from tests.integration.project import Project, make_project


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which `dvc repro` ran and the results were committed; read-only, `project` is a copy."""
    project = make_project(tmp_path_factory.mktemp("finished"))
    project.dvc("repro")
    project.commit("results")
    return project


@pytest.fixture
def project(finished_project: Project, tmp_path: Path) -> Project:
    """A copy of the finished project, to do anything with."""
    return finished_project.copied(tmp_path / "project")
