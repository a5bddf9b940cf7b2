"""Shared by all tests."""

import functools
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import torch
from xdist.scheduler import LoadFileScheduling

from llm4seg.config import Config
from llm4seg.training.run import start_group_of_one
from tests.project import Project, make_project
from tests.servers import ENVIRONMENT, S3, ray_server, s3_server
from tests.tiny import prepare_workspace

# a shell that starts pytest in the background lets it ignore Ctrl-C, and with it all that tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # on tensors this small, threads wait for each other more than they work

# all sessions share what is read once: to read a service's description again takes longer than most tests of it
botocore.session.create_loader = functools.cache(botocore.session.create_loader)

# Files whose tests run in one process, one after another: two Rays are too much for one machine, and the finished
# project takes long to make. All other files are shared out one by one.
GROUPS = {
    "ray": ("code_on_nodes", "faults", "ray_train", "search", "session", "study"),
    "project": ("dvc_experiments", "dvc_interrupt", "dvc_remote", "dvc_stages", "make", "quiet"),
}
GROUP_OF = {f"tests/integration/test_{name}.py": group for group, names in GROUPS.items() for name in names}
NEEDED_BY = {"one_ray": "ray", "finished_project": "project"}  # fixtures of the session
FOLDERS = ("integration", "infra", "gpu", "unit")  # in this order, so that nothing long is begun last


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in NEEDED_BY.keys() & set(getattr(item, "fixturenames", ())):
            if GROUP_OF.get(file_of(item.nodeid)) != NEEDED_BY[fixture]:
                raise pytest.UsageError(
                    f"{item.nodeid} uses {fixture}: its file belongs to a group in tests/conftest.py"
                )
    items.sort(key=_place)


def file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def _place(item: pytest.Item) -> tuple[int, int]:
    file, groups = file_of(item.nodeid), list(GROUPS)
    folder = file.split("/")[1]
    return (
        groups.index(GROUP_OF[file]) if file in GROUP_OF else len(groups),
        FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS),
    )


class Groups(LoadFileScheduling):
    """xdist's way of sharing out files, with groups of files. (Its own groups do nothing under pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        return GROUP_OF.get(file_of(nodeid), file_of(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    config.option.loadscopereorder = False  # not those with the most tests first, but as sorted above
    return Groups(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The seconds that the tests of each folder took, setups included, in all processes together."""
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[file_of(report.nodeid).rpartition("/")[0]] += report.duration
    terminalreporter.section("seconds of tests by folder")
    for folder, sum_of_folder in sorted(seconds.items()):
        terminalreporter.write_line(f"{sum_of_folder:7.1f} {folder}")
    terminalreporter.write_line(f"{seconds.total():7.1f} in all")


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A tiny prepared workspace; read-only: a test that trains there gives `paths.runs` and outputs of its own."""
    return prepare_workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture
def config(workspace: Config, tmp_path: Path) -> Config:
    """The tiny workspace's config, with the run's own folders in this test's folder."""
    names = ("model", "history", "evaluation", "metrics", "report", "pictures", "runs", "cache", "study", "study_runs")
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


@pytest.fixture(scope="module")
def ray_address(one_ray: str) -> Iterator[str]:
    """A `cluster.address` for tests that need some Ray; what connects to it finds it and its token."""
    from tests.ray_internals import reset_auth_token_state

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", one_ray)
        patch.setenv("RAY_AUTH_MODE", "token")
        reset_auth_token_state()
        yield one_ray
    reset_auth_token_state()
