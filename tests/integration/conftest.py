"""Shared by tests: one finished run of the whole pipeline, and an S3-compatible server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.project import Project, make_project
from tests.integration.servers import KEYS, empty_bucket, s3_server


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
def s3_port() -> Iterator[int]:
    """The port of an S3-compatible server process, started once for all tests."""
    with s3_server() as port:
        yield port


@pytest.fixture
def s3(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """The port of an S3-compatible server with an empty bucket, and an environment with its keys."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    empty_bucket(s3_port)
    return s3_port
