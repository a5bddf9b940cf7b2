"""Shared by tests: one finished run of the whole pipeline, and an S3-compatible server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.project import Project, make_project
from tests.integration.servers import ENVIRONMENT, S3, s3_server


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


@pytest.fixture(scope="session")
def one_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """An S3-compatible server process, started once for all tests."""
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as server:
        yield server


@pytest.fixture
def s3(one_s3: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """An S3-compatible server with an empty bucket and an empty log, and what its clients need in the environment."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    one_s3.empty()
    return one_s3
