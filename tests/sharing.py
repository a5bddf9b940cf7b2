"""How tests are shared out over processes, and how long those of each folder took: hooks of tests/conftest.py."""

from collections import Counter
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

# Files whose tests run in one process, one after another: two Rays are too much for one machine, and the finished
# project takes long to make. All other files are shared out one by one.
GROUPS = {
    "ray": (
        "code_on_nodes",
        "faults",
        "ray_train",
        "search",
        "session",
        "several_llms",
        "shared_gpus",
        "stop_signal",
        "study",
    ),
    "project": ("dvc_experiments", "dvc_interrupt", "dvc_remote", "dvc_stages", "make", "quiet", "table"),
}
GROUP_OF = {f"tests/integration/test_{name}.py": group for group, names in GROUPS.items() for name in names}
NEEDED_BY = {"one_ray": "ray", "finished_project": "project"}  # fixtures of the session
FOLDERS = ("integration", "infra", "gpu", "unit")  # in this order, so that nothing long is begun last


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in NEEDED_BY.keys() & set(getattr(item, "fixturenames", ())):
            if GROUP_OF.get(file_of(item.nodeid)) != NEEDED_BY[fixture]:
                raise pytest.UsageError(
                    f"{item.nodeid} uses {fixture}: its file belongs to a group in tests/sharing.py"
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
