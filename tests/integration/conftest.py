"""One finished run of the whole pipeline, shared by all tests that need one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.project import Project, make_project
from tests.integration.s3 import ENVIRONMENT, S3, serving


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


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[S3]:
    """An S3-compatible server process with an empty bucket, and what its clients need in the environment."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with serving(tmp_path / "s3.log") as server:
        yield server
