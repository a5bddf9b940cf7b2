"""Shared by all tests."""

import functools
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import botocore.session
import pytest
import torch

from llm4seg.config import Config
from llm4seg.training.run import start_group_of_one
from llm4seg.utils import logs
from tests.project import Project, make_project
from tests.servers import ENVIRONMENT, S3, ray_server, s3_server
from tests.sharing import (  # noqa: F401  hooks
    pytest_collection_modifyitems,
    pytest_terminal_summary,
    pytest_xdist_make_scheduler,
)
from tests.tiny import prepare_workspace

# a shell that starts pytest in the background lets it ignore Ctrl-C, and with it all that tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.pop("LLM4SEG_HOME", None)  # the developer's; tests have folders of their own
torch.set_num_threads(1)  # on tensors this small, threads wait for each other more than they work

# all sessions share what is read once: to read a service's description again takes longer than most tests of it
botocore.session.create_loader = functools.cache(botocore.session.create_loader)

for variable in (logs.VARIABLE, "LLM4SEG_TRACEBACK"):
    os.environ.pop(variable, None)


@pytest.fixture(autouse=True)
def command_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Log lines are shown as a command shows them, whatever a test sets up."""
    monkeypatch.setenv(logs.VARIABLE, "info")  # which `configure` sets, too: so it is restored
    logs.configure()
    yield
    logs.PACKAGE.handlers = [one for one in logs.PACKAGE.handlers if not isinstance(one, logs.CommandHandler)]
    logs.PACKAGE.setLevel(logging.NOTSET)
    logs.PACKAGE.propagate = True


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A tiny prepared workspace; read-only: a test that trains there gives `paths.runs` and outputs of its own."""
    return prepare_workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture
def config(workspace: Config, tmp_path: Path) -> Config:
    """The tiny workspace's config, with the run's own folders in this test's folder."""
    names = (
        *("model", "history", "evaluation", "metrics", "analysis", "report", "pictures"),
        *("runs", "cache", "study", "study_runs", "tracking"),
    )
    return workspace.override({f"paths.{name}": str(tmp_path / getattr(workspace.paths, name).name) for name in names})


@pytest.fixture(scope="session")
def group() -> None:
    """A process group of one for all tests: DeepSpeed holds on to the first that it sees."""
    start_group_of_one(torch.device("cpu"))


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which `dvc repro` ran and the results were committed; read-only, `project` is a copy."""
    project = make_project(tmp_path_factory.mktemp("finished"))
    project.record("repro", project.dvc("repro"))
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


@pytest.fixture(scope="session")
def one_ray() -> Iterator[str]:
    """A Ray on this machine, started once for all tests."""
    with ray_server() as address:
        yield address


@pytest.fixture
def ray_address(one_ray: str) -> Iterator[str]:
    """A `cluster.address` for tests that need some Ray."""
    from tests.cluster import reachable

    with reachable(one_ray):
        yield one_ray
